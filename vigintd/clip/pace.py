"""When an encode gives way, and in what steps. Pure.

Owns the bounds: how far behind is too far, how slow is too slow, how small is too small.
"""

from __future__ import annotations

from dataclasses import dataclass

from vigintd.model import MEDIA_CLOCK_HZ

BEHIND_S = 3.0
"""Up to so much source not encoded yet, nothing gives way: two fragments are always under way, and a disk or another
encode may cost a second or two."""
WINDOW_S = 2.0
"""Work that is measured before a judgement; a scene's hard second is no reason."""
ENOUGH = 1.1
"""Media seconds for each second of work. At this speed the ten seconds of a usual pre-roll, which an encode begins with
behind it, are made up for within the 100 seconds that a long clip lasts; below it, hardly or never."""

_WIDTHS_PX = (1920, 1280, 960, 640)
_DIVISORS = (2, 4)


@dataclass(frozen=True, slots=True)
class Reduction:
    """How large and how often pictures are encoded."""

    width_px: int
    height_px: int
    every: int = 1
    """Of so many pictures one is kept."""

    def worded(self, fps: float) -> str:
        """For logs and the clip's data, where the source has `fps` pictures a second."""
        size = f"{self.width_px}x{self.height_px}"
        return size if self.every == 1 else f"{size} at {round(fps / self.every, 2):g} fps"


class Pace:
    """Watches one encode: notes each picture, and says when it must cost less."""

    def __init__(self, width_px: int, height_px: int) -> None:
        self.now = self._full = Reduction(width_px, height_px)
        widths = [width for width in _WIDTHS_PX if width < width_px]
        sizes = [(width, round(height_px * width / width_px) & ~1) for width in widths]
        self._steps = [Reduction(*size) for size in sizes]
        smallest = sizes[-1] if sizes else (width_px, height_px)
        self._steps += [Reduction(*smallest, every) for every in _DIVISORS]
        self._media_s = self._work_s = 0.0
        self._pictures = 0
        self._fps = 0.0

    @property
    def is_reduced(self) -> bool:
        """Whether a step was taken."""
        return self.now != self._full

    @property
    def worded(self) -> str:
        """What is encoded now."""
        return self.now.worded(self._fps)

    def note(self, media_90k: int, work_s: float, behind_90k: int) -> bool:
        """One picture more: how long it is shown, what it cost, how much source lies ahead. True: step down now."""
        self._media_s += media_90k / MEDIA_CLOCK_HZ
        self._work_s += work_s
        self._pictures += 1
        if behind_90k <= BEHIND_S * MEDIA_CLOCK_HZ:
            self._begin()
            return False
        if self._work_s < WINDOW_S:
            return False
        is_slow = self._media_s < ENOUGH * self._work_s
        self._fps = self._pictures / self._media_s if self._media_s else 0.0
        self._begin()
        return is_slow and bool(self._steps)

    def step_down(self) -> Reduction:
        """Take the next step: first the size, then the rate."""
        self.now = self._steps.pop(0)
        return self.now

    def _begin(self) -> None:
        self._media_s = self._work_s = 0.0
        self._pictures = 0
