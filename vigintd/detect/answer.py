"""What a detector answers, made plain: the border between a plug-in's values and the rest of the house.

Owns the checks. Models answer in numbers of numpy and in times of their own; a journal takes neither.
"""

from __future__ import annotations

import math
from dataclasses import replace

from vigintd.model import Box, Detection, Frame, Risk

OLDEST_S = 60.0
"""An answer that is older than this against its frame is dated by another clock."""


def plain(answer: object, frame: Frame, *, camera: str, detector: str) -> Detection | None:
    """The answer to `frame` in plain values, or None. It is of no later moment than the frame that was shown.

    A confidence outside 0–1 is brought inside, one that is no number is none. Raises `TypeError` or `ValueError` for
    what is no detection at all.
    """
    if answer is None:
        return None
    if not isinstance(answer, Detection):
        raise TypeError(f"a detector answers with a Detection or None, not with {type(answer).__name__}")
    if answer.at.tzinfo is None:
        raise ValueError("a detection's time has no zone")
    arrived_s = float(answer.arrived_s)
    return replace(
        answer,
        camera=camera,
        # Where it is no number, or of another clock, it is the frame's: an incident's end is reckoned from it.
        arrived_s=arrived_s if frame.arrived_s - OLDEST_S <= arrived_s <= frame.arrived_s else frame.arrived_s,
        type=str(answer.type),
        risk=Risk(answer.risk),
        confidence=_confidence(answer.confidence),
        frame_number=None if answer.frame_number is None else int(answer.frame_number),
        boxes=tuple(Box(float(box.x), float(box.y), float(box.width), float(box.height)) for box in answer.boxes),
        text=str(answer.text),
        detector=str(answer.detector) or detector,
    )


def _confidence(value: float | None) -> float | None:
    if value is None or math.isnan(value):
        return None
    return min(max(float(value), 0.0), 1.0)
