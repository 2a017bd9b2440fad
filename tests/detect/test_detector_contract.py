"""The detector contract: what every installed detector promises to whoever runs it."""

import inspect
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from tests.detect.frames import HEIGHT, WIDTH, frame, noisy, room, with_person
from vigintd.config import DetectorSettings
from vigintd.detect import Detector, Pixels, registry
from vigintd.model import Detection, Frame


@pytest.fixture(params=registry.kinds())
def detector(request: pytest.FixtureRequest) -> Detector:
    """One of each kind that is installed, with its default options."""
    return registry.build("essai", DetectorSettings(kind=request.param), "entree", language="fr")


def frames(pixels: Pixels) -> list[Frame]:
    """Eight seconds in which somebody walks through a room."""
    made = []
    for number in range(40):
        picture = room() if number < 15 else with_person(room(), (number - 15) / 25)
        luma = noisy(picture, 2, number)
        array = luma if pixels == "luma" else np.repeat(luma[:, :, None], 3, axis=2)
        array.flags.writeable = False
        made.append(frame(number, array))
    return made


async def answers(detector: Detector, shown: list[Frame]) -> list[Detection]:
    got = []
    for one in shown:
        answer = detector(one)
        if inspect.isawaitable(answer):
            answer = await answer
        assert answer is None or isinstance(answer, Detection)
        if answer is not None:
            got.append(answer)
    return got


async def test_it_says_what_pixels_it_wants(detector):
    """Before it is shown any."""
    assert detector.pixels in get_args(Pixels)


async def test_it_answers_with_detections_of_frames_it_was_shown(detector):
    """Dated as the frame was, its boxes inside the picture, its confidence between 0 and 1."""
    shown = frames(detector.pixels)
    moments = {one.arrived_s: one for one in shown}
    for detection in await answers(detector, shown):
        assert detection.camera == "entree"
        assert detection.at == moments[detection.arrived_s].at
        assert detection.type
        assert detection.confidence is None or 0 <= detection.confidence <= 1
        for box in detection.boxes:
            assert min(box.x, box.y) >= 0
            assert max(box.x + box.width, box.y + box.height) <= 1.0001


async def test_it_survives_skips_repeats_and_other_sizes(detector):
    """Frames are skipped under load, and cameras are set to other sizes."""
    shown = frames(detector.pixels)
    small = [replace(one, pixels=one.pixels[: HEIGHT // 2, : WIDTH // 2]) for one in shown[20:]]
    await answers(detector, [*shown[::7], shown[5], shown[5], *small, *shown[:3]])


async def test_it_leaves_the_frames_as_they_are(detector):
    """Others are shown the same array."""
    shown = frames(detector.pixels)
    before = [one.pixels.copy() for one in shown]
    await answers(detector, shown)
    assert all(np.array_equal(one.pixels, copy) for one, copy in zip(shown, before, strict=True))
