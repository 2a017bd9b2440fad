"""What the campaigns' cameras show: a wall with a camera's noise, and something that walks past it now and then.

Owns the drawing and its one encoding, as a cheap IP camera does it: constant bit rate, no B-frames, one slice a picture.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from vigintd.model import MEDIA_CLOCK_HZ, Packet, StreamParameters

_NOISE_LEVELS = 2.5
_WALKS_FROM, _WALKS_TO = 0.5, 0.8
"""The part of a loop in which something moves."""


@dataclass(frozen=True)
class Footage:
    """How one loop is encoded."""

    width_px: int
    height_px: int
    fps: int
    bits_per_s: int
    loop_s: float = 10.0
    gop_s: float = 2.0


MAIN = Footage(1920, 1080, 25, 4_000_000)
SUB = Footage(640, 360, 10, 320_000)
SMALL_MAIN = Footage(320, 240, 25, 400_000, loop_s=2, gop_s=0.2)
SMALL_SUB = Footage(320, 240, 10, 200_000, loop_s=2, gop_s=0.5)


def encoded(footage: Footage) -> list[Packet]:
    """One loop as packets in Annex B, the first one a key frame."""
    gop = round(footage.gop_s * footage.fps)
    rate = footage.bits_per_s // 1000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loop.ts"
        with av.open(path, "w") as container:
            stream = container.add_stream("libx264", rate=footage.fps)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = footage.width_px, footage.height_px, "yuv420p"
            stream.codec_context.gop_size = gop
            stream.codec_context.time_base = Fraction(1, footage.fps)
            stream.codec_context.options = {
                "preset": "veryfast",
                "x264-params": f"bframes=0:scenecut=0:rc-lookahead=0:sliced-threads=0:keyint={gop}:min-keyint={gop}"
                f":bitrate={rate}:vbv-maxrate={rate}:vbv-bufsize={rate}",
            }
            for number, luma in enumerate(_pictures(footage)):
                grey = np.full((footage.height_px // 2, footage.width_px), 128, np.uint8)
                frame = av.VideoFrame.from_ndarray(np.vstack((luma, grey)), format="yuv420p")
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return _packets(path)


def _pictures(footage: Footage) -> Iterator[NDArray[np.uint8]]:
    """Luma of one loop."""
    random = np.random.default_rng(1)
    height, width = footage.height_px, footage.width_px
    coarse = random.integers(60, 190, (height // 8 + 1, width // 8 + 1)).astype(np.float32)
    wall = coarse.repeat(8, 0).repeat(8, 1)[:height, :width]
    noise = random.normal(0, _NOISE_LEVELS, (height + 64, width + 64)).astype(np.float32)
    count = round(footage.loop_s * footage.fps)
    for number in range(count):
        down, right = random.integers(0, 64, 2)
        picture = wall + noise[down : down + height, right : right + width]
        way = (number / count - _WALKS_FROM) / (_WALKS_TO - _WALKS_FROM)
        if 0 <= way <= 1:
            left = round(way * width * 0.85)
            picture[height // 4 : height * 3 // 4, left : left + width // 12] *= 0.3
        yield np.clip(picture, 0, 255).astype(np.uint8)


def _packets(path: Path) -> list[Packet]:
    with av.open(path) as container:
        video = container.streams.video[0]
        context = video.codec_context
        parameters = StreamParameters(context.name, context.width, context.height, bytes(context.extradata or b""))
        scale = (video.time_base or Fraction(1, MEDIA_CLOCK_HZ)) * MEDIA_CLOCK_HZ
        return [
            Packet(bytes(coded), round(coded.pts * scale), round(coded.dts * scale), 0, coded.is_keyframe, 0.0, parameters)
            for coded in container.demux(video)
            if coded.size and coded.pts is not None and coded.dts is not None
        ]
