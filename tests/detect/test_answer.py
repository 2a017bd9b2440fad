"""What a detector answers, made plain at the border."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from tests.detect.frames import frame, room
from vigintd.detect.answer import plain
from vigintd.model import Box, Detection, Risk

FRAME = frame(3, room())
ANSWER = Detection("whatever", FRAME.arrived_s, FRAME.at, "person")


def made_plain(**changes: Any) -> Detection:
    found = plain(replace(ANSWER, **changes), FRAME, camera="entree", detector="yolox")
    assert found is not None
    return found


def test_no_answer_is_no_detection():
    assert plain(None, FRAME, camera="entree", detector="yolox") is None


def test_it_is_of_the_camera_that_was_watched_and_of_the_detector_that_watched():
    found = made_plain()
    assert (found.camera, found.detector) == ("entree", "yolox")


@pytest.mark.parametrize(("given", "kept"), [(np.float32(0.5), 0.5), (1.7, 1.0), (-1, 0.0), (float("nan"), None), (None, None)])
def test_a_confidence_is_a_plain_number_from_0_to_1_or_none(given, kept):
    found = made_plain(confidence=given).confidence
    assert found == kept
    assert found is None or type(found) is float


def test_numbers_of_numpy_become_plain():
    """The journal writes JSON."""
    found = made_plain(frame_number=np.int64(7), boxes=[Box(*np.array([0.5, 0.25, 0.5, 0.5], np.float32))], risk="HIGH")
    assert type(found.frame_number) is int
    assert found.boxes == (Box(0.5, 0.25, 0.5, 0.5),)
    assert type(found.boxes[0].x) is float
    assert found.risk is Risk.HIGH


@pytest.mark.parametrize("other_clock", [1.8e9, 0.04, -1e12, float("inf"), float("-inf"), float("nan")])
def test_a_time_of_another_clock_is_the_frames(other_clock):
    """An incident's end is reckoned from it."""
    shown = replace(FRAME, arrived_s=5000.0)
    found = plain(replace(ANSWER, arrived_s=other_clock), shown, camera="entree", detector="yolox")
    assert found is not None
    assert found.arrived_s == shown.arrived_s


def test_a_moment_shortly_before_the_frame_is_kept():
    """A detector that confirms over several frames dates its answer back."""
    assert made_plain(arrived_s=FRAME.arrived_s - 2).arrived_s == FRAME.arrived_s - 2


@pytest.mark.parametrize("wrong", [{"risk": "terrible"}, {"at": datetime(2026, 1, 1)}, {"confidence": "high"}])  # noqa: DTZ001 - the fault
def test_what_is_no_detection_at_all_is_the_detectors_failure(wrong):
    with pytest.raises((TypeError, ValueError)):
        made_plain(**wrong)
