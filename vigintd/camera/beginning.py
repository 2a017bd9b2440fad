"""The first packets of a stream, whose times FFmpeg does not know yet.

Over RTSP the first key frame bears no time, and the next few packets no decode time, because FFmpeg first has to see
how far pictures are reordered. To wait for a later key frame would lose a whole GOP, which may be a minute. So the
first packets are held until one bears both times, and the others are dated back from it.
"""

from __future__ import annotations

from itertools import pairwise

from vigintd.camera.access_units import Unit

_MAX_HELD = 16
"""No more pictures may be reordered (`MaxDpbFrames`, ITU-T H.264 section A.3.1), so one must have both times by then."""

_MAX_HELD_S = 0.5
"""A camera of one picture a second shall not be held for sixteen of them."""


class Beginning:
    """Holds the beginning of a stream: everything before the first key frame is dropped, what is behind it is dated.

    Once it has given something out it is not needed any more.
    """

    def __init__(self, ticks_per_s: float) -> None:
        self._usual_step = max(1, round(ticks_per_s / 25))
        self._held: list[Unit] = []

    def take(self, unit: Unit) -> list[Unit]:
        """What can be dated now that one more has come."""
        if not self._held and not unit.is_key:
            return []
        self._held.append(unit)
        is_timed = unit.pts is not None and unit.dts is not None
        if is_timed or len(self._held) >= _MAX_HELD or unit.arrived_s - self._held[0].arrived_s > _MAX_HELD_S:
            return self.rest()
        return []

    def rest(self) -> list[Unit]:
        """What is held, dated as well as can be; at the end of the stream too."""
        held, self._held = self._held, []
        if held:
            _date_back(held, _step(held) or self._usual_step)
        return held


def _step(held: list[Unit]) -> int:
    """Ticks from one picture to the next; 0 when nothing says."""
    shown = sorted({unit.pts for unit in held if unit.pts is not None})
    gaps = [later - earlier for earlier, later in pairwise(shown)]
    return min(gaps, default=0) or next((unit.duration for unit in held if unit.duration), 0)


def _date_back(held: list[Unit], step: int) -> None:
    first = held[0]
    if first.pts is None:
        # A key frame is shown before everything behind it, but not necessarily right before the next packet.
        first.pts = min((unit.pts for unit in held if unit.pts is not None), default=step) - step
    if first.dts is None:
        dated = next((number for number, unit in enumerate(held) if unit.dts is not None), None)
        if dated is None:
            first.dts = first.pts
            return
        known = held[dated].dts
        assert known is not None
        for number, unit in enumerate(held[:dated]):
            unit.dts = known - (dated - number) * step
        first.pts = max(first.pts, known - dated * step)
