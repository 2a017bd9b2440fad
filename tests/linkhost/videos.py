"""Fragmented MP4 as the recorder makes it: H.264, half-second fragments, a picture that says what second it is."""

from __future__ import annotations

import io
from fractions import Fraction
from functools import cache

import av
import numpy as np

from vigintd import fmp4

FPS = 10
_FLAGS = "frag_keyframe+empty_moov+default_base_moof+delay_moov"


@cache
def video(seconds: float, *, width: int = 320, height: int = 180, hue: int = 0, gop: int = FPS) -> bytes:
    """`seconds` of a bar that moves over a coloured ground, with a key frame each `gop` pictures."""
    file = io.BytesIO()
    options = {"movflags": _FLAGS, "frag_duration": "500000"}
    with av.open(file, "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, FPS)
        stream.codec_context.gop_size, stream.codec_context.thread_count = gop, 1
        stream.options = {"preset": "ultrafast", "x264-params": "bframes=0:scenecut=0"}
        for number in range(int(seconds * FPS)):
            picture = np.full((height, width, 3), (30 + hue, 60, 90), np.uint8)
            left = number * 4 % width
            picture[height // 3 : height * 2 // 3, left : left + 40] = (240, 220, 120)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return whole(file.getvalue())


def whole(data: bytes) -> bytes:
    """`data` without the index that the muxer puts at its end."""
    fragments, length = fmp4.scan(data, strict=False)
    assert len(fragments) > 2
    return data[:length]


def fragments(data: bytes) -> list[bytes]:
    """The head and the fragments, one by one."""
    return [data[f.offset_bytes : f.offset_bytes + f.length_bytes] for f in fmp4.scan(data)[0]]
