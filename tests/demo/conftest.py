"""Small H.264 streams for the built-in camera, and FFmpeg to watch it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import av
import numpy as np
import pytest

from vigintd.clip.encode import encode_pictures
from vigintd.model import Packet

FPS = 30
GOP = 6
PACKETS = 18


def noise_packets(*, seed: int, count: int = PACKETS, size: tuple[int, int] = (240, 320)) -> list[Packet]:
    """Pictures that hardly compress, so that access units are longer than an RTP packet."""
    random = np.random.default_rng(seed)
    pictures = (random.integers(0, 255, (*size, 3), dtype=np.uint8) for _ in range(count))
    return encode_pictures(pictures, fps=FPS, gop=GOP)


@pytest.fixture(scope="session")
def packets() -> list[Packet]:
    return noise_packets(seed=1)


@dataclass
class Seen:
    """What a client of FFmpeg got."""

    data: list[bytes] = field(default_factory=list)
    pts: list[int] = field(default_factory=list)
    """Of the packets that have one; FFmpeg gives the first none."""
    keys: list[bool] = field(default_factory=list)
    pictures: int = 0


def _watch(url: str, count: int, began: Callable[[], None], options: dict[str, str]) -> Seen:
    seen = Seen()
    with av.open(url, options=options | {"analyzeduration": "200000"}, timeout=(10, None)) as stream:
        began()
        for coded in stream.demux(video=0):
            if not coded.size:
                break
            seen.data.append(bytes(coded))
            if coded.pts is not None:
                seen.pts.append(coded.pts)
            seen.keys.append(coded.is_keyframe)
            seen.pictures += len(coded.decode())
            if len(seen.data) == count:
                break
    return seen


async def watch(url: str, count: int, *, began: asyncio.Event | None = None, transport: str | None = "tcp") -> Seen:
    """Read `count` packets (or to the end) by FFmpeg, on a thread."""
    loop = asyncio.get_running_loop()

    def tell() -> None:
        if began:
            loop.call_soon_threadsafe(began.set)

    return await asyncio.to_thread(_watch, url, count, tell, {"rtsp_transport": transport} if transport else {})
