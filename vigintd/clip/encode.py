"""H.264 from what is not: other codecs for the clip, and plain pictures for the demo.

Owns libx264, its options, and the bound on how many pictures this process encodes at once. Blocking: callers bring a
thread of their own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from fractions import Fraction

import av
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray

from vigintd.clip import h264
from vigintd.clip.libav import JPEG_RANGE, MPEG_RANGE, TIME_BASE, is_full_range
from vigintd.clip.mux import Sample
from vigintd.model import MEDIA_CLOCK_HZ, Packet, StreamParameters

_KEY_EVERY_90K = MEDIA_CLOCK_HZ
"""A key frame at least each second, so that a viewer can begin anywhere."""

_AT_ONCE = threading.BoundedSemaphore(max(1, (os.cpu_count() or 1) // 2))
"""Pictures encoded at the same moment in this process; the others wait, each for one picture. Half the cores stay for
cameras and the loop."""

_LARGE_PX = 1280 * 720
"""Pictures with more pixels than this are encoded by the cheaper of the two ways; see `_ways`."""


class Encoder:
    """Pictures to H.264 samples of one size: yuv420p, no B-frames, a key frame each second."""

    def __init__(self, width_px: int, height_px: int, pixel_aspect: Fraction | None = None) -> None:
        """`pixel_aspect`: width of a pixel by its height; None where they are square."""
        self.size_px = width_px & ~1, height_px & ~1
        """Width and height of what comes out."""
        self._encoder = _open_encoder(*self.size_px)
        if pixel_aspect:
            self._encoder.sample_aspect_ratio = pixel_aspect
        self._last_pts = -1
        self._last_key = 0

    def encode(self, frame: av.VideoFrame, pts_90k: int, duration_90k: int) -> list[Sample]:
        """The sample of a picture shown at `pts_90k`, moved a little where that is not behind the one before it."""
        pts = max(pts_90k, self._last_pts + 1)
        is_key = self._last_pts < 0 or pts - self._last_key >= _KEY_EVERY_90K
        frame = _fitted(frame, self._encoder)
        frame.pts, frame.time_base = pts, TIME_BASE
        # A decoded picture carries the type it had, which the encoder would take for a wish.
        frame.pict_type = PictureType.I if is_key else PictureType.NONE
        self._last_pts = pts
        self._last_key = pts if is_key else self._last_key
        return [
            Sample(bytes(packet), packet.pts or 0, packet.dts or 0, duration_90k, packet.is_keyframe)
            for packet in self._encoder.encode(frame)  # zerolatency: one in, one out
        ]


@contextmanager
def at_once() -> Generator[None]:
    """Wait for a turn to decode and encode one picture."""
    with _AT_ONCE:
        yield


def encode_pictures(
    pictures: Iterable[NDArray[np.uint8]], *, fps: float, gop: int, crf: int = 26, start_s: float = 0.0
) -> list[Packet]:
    """H.264 of RGB pictures (height × width × 3, even sizes, all alike), one packet a picture, shown at `fps`.

    Packets are in annex B, every `gop`-th is a key frame with SPS and PPS in-band, none is a B-frame. The first arrives
    at monotonic second `start_s`. Blocking: belongs on a thread.
    """
    packets: list[Packet] = []
    encoder: av.VideoCodecContext | None = None
    parameters = StreamParameters("h264", 0, 0, b"")
    for number, picture in enumerate(pictures):
        height_px, width_px, _ = picture.shape
        encoder = encoder or _open_encoder(width_px, height_px, crf=crf, fps=fps)
        frame = _fitted(av.VideoFrame.from_ndarray(picture, format="rgb24"), encoder)
        frame.pts, frame.time_base = round(number * MEDIA_CLOCK_HZ / fps), TIME_BASE
        frame.pict_type = PictureType.NONE if number % gop else PictureType.I
        with at_once():
            (coded,) = encoder.encode(frame)  # zerolatency: one in, one out
        data = bytes(coded)
        if not parameters.extradata:
            parameters = StreamParameters("h264", width_px, height_px, h264.joined(h264.parameter_sets(data)))
        next_pts = round((number + 1) * MEDIA_CLOCK_HZ / fps)
        arrived_s = start_s + number / fps
        packets.append(Packet(data, frame.pts, frame.pts, next_pts - frame.pts, coded.is_keyframe, arrived_s, parameters))
    return packets


def _ways(width_px: int, height_px: int) -> dict[str, str]:
    """Preset and quality by size, so that decoding and encoding 25 pictures a second fits on one core.

    Up to 720p "veryfast"; above it "ultrafast" with two things put back that cost a tenth and save a third of the bytes.
    """
    if width_px * height_px <= _LARGE_PX:
        return {"preset": "veryfast", "crf": "23"}
    return {"preset": "ultrafast", "crf": "26", "x264-params": "cabac=1:deblock=0,0"}


def _open_encoder(width_px: int, height_px: int, *, crf: int | None = None, fps: float = 25) -> av.VideoCodecContext:
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width_px, height_px, "yuv420p"
    encoder.time_base = TIME_BASE
    encoder.framerate = Fraction(fps).limit_denominator(1001)
    # Key frames are asked for one by one; this is only the encoder's own upper bound.
    encoder.gop_size = 10_000
    # One thread: the bound on encodes is then one on cores, and a picture is one slice.
    encoder.thread_count = 1
    encoder.color_range = MPEG_RANGE
    encoder.options = {
        **_ways(width_px, height_px),
        **({"crf": str(crf)} if crf is not None else {}),
        "tune": "zerolatency",
        "profile": "main",
        "forced-idr": "1",
        "sc_threshold": "0",
    }
    return encoder


def _fitted(frame: av.VideoFrame, encoder: av.VideoCodecContext) -> av.VideoFrame:
    """The picture in the encoder's size, as yuv420p in limited range, which is what every player expects."""
    is_full = is_full_range(frame)
    same_size = (frame.width, frame.height) == (encoder.width, encoder.height)
    if same_size and frame.format.name == "yuv420p" and not is_full:
        return frame
    return frame.reformat(
        encoder.width,
        encoder.height,
        "yuv420p",
        src_color_range=JPEG_RANGE if is_full else None,
        dst_color_range=MPEG_RANGE,
    )
