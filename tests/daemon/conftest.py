"""Cameras for the stories: a still scene in which a block begins to move."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from vigintd.clip.encode import encode_pictures
from vigintd.demo.rtsp import RtspCamera

FPS = 15
GOP_S = 1.0
STILL_S = 4.0
"""First movement of each loop."""
LOOP_S = 7.0


def block_scene() -> Iterator[NDArray[np.uint8]]:
    """Grey noise for `STILL_S`, then a light block that crosses it."""
    random = np.random.default_rng(7)
    background = random.integers(90, 110, (240, 320, 3), dtype=np.uint8)
    for index in range(round(LOOP_S * FPS)):
        picture = background.copy()
        moved_s = index / FPS - STILL_S
        if moved_s >= 0:
            left = int(20 + 80 * moved_s)
            picture[60:180, left : left + 60] = 230
        yield picture


@pytest.fixture(scope="session")
def block_packets():
    return encode_pictures(block_scene(), fps=FPS, gop=round(GOP_S * FPS))


@pytest.fixture
async def rtsp_cameras(block_packets):
    """Makes built-in cameras that are stopped at the end."""
    cameras = []

    async def start() -> RtspCamera:
        camera = RtspCamera(block_packets, fps=FPS)
        await camera.start()
        cameras.append(camera)
        return camera

    yield start
    for camera in cameras:
        await camera.stop()
