"""The built-in motion detector: says when something of some size moves for some time.

Owns its options and what it tells. It runs where frames are decoded (a fraction of a millisecond a frame). It is meant not
to be fooled by a stream that begins anew, by light, or by noise; rain, zones and schedules are not its business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vigintd.detect import GLANCE_S, Pixels
from vigintd.detect.background import BLOCK, Background, Bytes, coarse, step_of
from vigintd.detect.blobs import Blob, Track, blobs, followed
from vigintd.model import Box, Detection, Frame, Risk

_WORDS = {"low": 25, "medium": 50, "high": 75}
_SENSITIVITIES = (1, 25, 50, 75, 100)
_LEVELS = (60, 32, 20, 12, 6)
_AREAS_PERCENT = (5.0, 0.6, 0.2, 0.1, 0.06)
"""At those sensitivities: how many grey levels a cell must differ, and how much of the picture must move."""

_TEXTS = {
    "fr": "Mouvement sur {area} % de l'image depuis {duration} s",
    "en": "Movement in {area} % of the picture for {duration} s",
}

_LEARN_S = 1.0
_LEARN_FRAMES = 4
"""A scene is learnt for so long, and over so many frames, before anything in it can move."""

_JUMP_SHARE = 0.5
"""Where so much of a picture differs at once, it was the light, or the camera was turned."""

_MIN_SIGHTINGS = 3
_REACH_BLOCKS = 2
_REPORT_EVERY_S = 1.0
"""While movement goes on it is said again this often."""


@dataclass(frozen=True, slots=True)
class MotionOptions:
    """The keys of `[detectors.NAME]` with `kind = "motion"`, checked."""

    threshold: int
    min_area_percent: float
    min_duration_s: float
    risk: Risk
    language: Literal["fr", "en"]


def options_from(options: Mapping[str, Any], language: str) -> MotionOptions:
    """The options as configured, and the site's language. Raises `ValueError` with a sentence for the user."""
    known = {"sensitivity", "min_area", "min_duration_s", "risk"}
    if unknown := sorted(set(options) - known):
        raise ValueError(f"{unknown[0]} is not an option of motion; there are {', '.join(sorted(known))}")
    sensitivity = _sensitivity(options.get("sensitivity", "medium"))
    usual_area = float(np.interp(sensitivity, _SENSITIVITIES, _AREAS_PERCENT))
    try:
        risk = Risk(str(options.get("risk", Risk.UNKNOWN)).upper())
    except ValueError:
        raise ValueError("risk is one of LOW, MEDIUM, HIGH, UNKNOWN") from None
    return MotionOptions(
        threshold=round(float(np.interp(sensitivity, _SENSITIVITIES, _LEVELS))),
        min_area_percent=_number(options, "min_area", default=usual_area, least=0.01, most=100, unit="per cent of the picture"),
        min_duration_s=_number(options, "min_duration_s", default=0.5, least=0, most=60, unit="seconds"),
        risk=risk,
        language="fr" if language == "fr" else "en",
    )


def _sensitivity(value: object) -> float:
    if isinstance(value, str) and value in _WORDS:
        return _WORDS[value]
    if isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value <= 100:
        return float(value)
    raise ValueError(f"sensitivity is low, medium, high, or a number from 1 (dull) to 100 (keen), not {value!r}")


def _number(options: Mapping[str, Any], key: str, *, default: float, least: float, most: float, unit: str) -> float:
    value = options.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError(f"{key} is a number of {unit} from {least:g} to {most:g}, not {value!r}")
    return float(value)


def build(camera: str, options: Mapping[str, Any], *, language: str) -> Motion:
    """The motion detector for one camera; see `detect.DetectorFactory`."""
    return Motion(camera, options_from(options, language))


class Motion:
    """Watches one camera for movement; one call at a time, frames in order."""

    pixels: Pixels = "luma"
    inline = True
    """Cheap enough to run where its frame was decoded."""

    def __init__(self, camera: str, options: MotionOptions) -> None:
        self._camera = camera
        self._options = options
        self._background: Background | None = None
        self._tracks: list[Track] = []
        self._learnt_from_s = 0.0
        self._learnt_frames = 0
        self._last_s = 0.0
        self._life: int | None = None
        self._is_quick = False
        self._last_report_s = float("-inf")

    def __call__(self, frame: Frame) -> Detection | None:
        """A detection when something has moved for long enough, and again each second while it goes on."""
        cells = coarse(frame.pixels)
        if not cells.size:
            return None
        background, now_s = self._background, frame.arrived_s
        pause_s, self._last_s = now_s - self._last_s, now_s
        if background is None or frame.life != self._life or background.shape != cells.shape:
            self._is_quick = self._is_quick and frame.life == self._life
            self._life = frame.life
            self._begin(cells, now_s)
            return None
        self._is_quick |= pause_s < GLANCE_S
        if pause_s > GLANCE_S and self._is_quick:
            # Two glances do not show one thing moving, such as a clock in the picture.
            self._tracks = []
        active, differing = background.moving(cells, self._options.threshold, pause_s=pause_s)
        if differing > _JUMP_SHARE:
            self._begin(cells, now_s)
            return None
        self._learnt_frames += 1
        if now_s - self._learnt_from_s < _LEARN_S or self._learnt_frames < _LEARN_FRAMES:
            return None
        least_blocks = max(1, round(self._options.min_area_percent / 100 * active.size))
        self._tracks = followed(self._tracks, blobs(active, least_blocks), now_s, reach=_REACH_BLOCKS)
        return self._report(frame, active.shape)

    def _begin(self, cells: Bytes, now_s: float) -> None:
        """Learn the scene anew: the camera was away, is set to another size, or the light was switched."""
        self._background = Background(cells)
        self._tracks = []
        self._learnt_from_s = now_s
        self._learnt_frames = 0

    def _report(self, frame: Frame, shape: tuple[int, ...]) -> Detection | None:
        now_s = frame.arrived_s
        moving = [
            track
            for track in self._tracks
            if track.seen_s == now_s
            and track.sightings >= _MIN_SIGHTINGS
            and now_s - track.since_s >= self._options.min_duration_s
        ]
        if not moving or now_s - self._last_report_s < _REPORT_EVERY_S:
            return None
        self._last_report_s = now_s
        area_percent = 100 * sum(track.blob.blocks for track in moving) / (shape[0] * shape[1])
        duration_s = max(now_s - track.since_s for track in moving)
        return Detection(
            camera=self._camera,
            arrived_s=now_s,
            at=frame.at,
            type="motion",
            risk=self._options.risk,
            confidence=_confidence(area_percent / self._options.min_area_percent, max(track.sightings for track in moving)),
            frame_number=frame.number,
            boxes=_boxes([track.blob for track in moving], frame.pixels.shape),
            text=self._words(area_percent, duration_s),
        )

    def _words(self, area_percent: float, duration_s: float) -> str:
        area, duration = f"{area_percent:.1f}", f"{duration_s:.1f}"
        if self._options.language == "fr":
            area, duration = area.replace(".", ","), duration.replace(".", ",")
        return _TEXTS[self._options.language].format(area=area, duration=duration)


def _confidence(times_min_area: float, sightings: int) -> float:
    """0.5 for what is only just large and long enough, towards 0.99 with size and persistence."""
    doubt = 0.5 * min(1.0, 2 / (1 + times_min_area)) * min(1.0, _MIN_SIGHTINGS / sightings + 0.5)
    return round(min(0.99, 1 - doubt), 2)


def _boxes(found: Sequence[Blob], pixels_shape: tuple[int, ...]) -> tuple[Box, ...]:
    """Rectangles in fractions of the picture; the cells were cropped to whole blocks, hence the scale."""
    step = step_of(pixels_shape[1])
    down, across = BLOCK * step / pixels_shape[0], BLOCK * step / pixels_shape[1]
    return tuple(
        Box(
            x=blob.left * across,
            y=blob.top * down,
            width=min(1.0, blob.right * across) - blob.left * across,
            height=min(1.0, blob.bottom * down) - blob.top * down,
        )
        for blob in found
    )
