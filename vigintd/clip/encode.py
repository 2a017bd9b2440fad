"""H.264 from what is not: other codecs for the clip, and plain pictures for the demo.

Owns libx264, its options, and the bound on how many pictures this process encodes at once. Blocking: callers bring a
thread of their own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray

from vigintd import metrics
from vigintd.clip import h264
from vigintd.clip.libav import JPEG_RANGE, MPEG_RANGE, TIME_BASE, av_packet, is_full_range, open_decoder
from vigintd.clip.mux import Sample
from vigintd.clip.timeline import Times
from vigintd.model import MEDIA_CLOCK_HZ, Packet, StreamParameters

_KEY_EVERY_90K = MEDIA_CLOCK_HZ
"""A key frame at least each second, so that a viewer can begin anywhere."""

_AT_ONCE = threading.BoundedSemaphore(max(1, (os.cpu_count() or 1) // 2))
"""Pictures encoded at the same moment in this process; the others wait, each for one picture. Half the cores stay for
cameras and the loop."""


class Transcoder:
    """Packets of any codec FFmpeg decodes, to H.264 samples: yuv420p, no B-frames, a key frame each second.

    The picture size is that of the first decoded picture (made even), whatever comes later.
    """

    def __init__(self, parameters: StreamParameters) -> None:
        """`ClipError` where FFmpeg has no decoder for the codec."""
        self._decoder = open_decoder(parameters)
        self._encoder: av.VideoCodecContext | None = None
        self._first_pts = 0
        self._last_pts = -1
        self._last_key = 0

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of what comes out; (0, 0) before anything did."""
        return (self._encoder.width, self._encoder.height) if self._encoder else (0, 0)

    def samples(self, packet: Packet, times: Times) -> list[Sample]:
        """What this packet gives: nothing, or a picture, in rare cases more. What cannot be decoded is counted."""
        source = av_packet(packet.data, times.pts_90k, times.dts_90k, is_key=packet.is_key)
        return self._recode(source, times.duration_90k)

    def flush(self) -> list[Sample]:
        """What is still inside; nothing may follow."""
        found = self._recode(None, 0)
        return [*found, *self._encode(None, 0)] if self._encoder else found

    def _recode(self, source: av.Packet[Any] | None, duration_90k: int) -> list[Sample]:
        with _AT_ONCE:
            try:
                frames = self._decoder.decode(source)
            except av.FFmpegError:
                metrics.count("clip.packets_undecodable")
                return []
            return [sample for frame in frames for sample in self._encode(frame, duration_90k)]

    def _encode(self, frame: av.VideoFrame | None, duration_90k: int) -> list[Sample]:
        if frame is not None:
            if self._encoder is None:
                self._encoder = _open_encoder(frame.width & ~1, frame.height & ~1)
                self._first_pts = frame.pts or 0
            pts = max((frame.pts or 0) - self._first_pts, self._last_pts + 1)
            is_key = self._last_pts < 0 or pts - self._last_key >= _KEY_EVERY_90K
            frame = _fitted(frame, self._encoder)
            frame.pts, frame.time_base = pts, TIME_BASE
            # A decoded picture carries the type it had, which the encoder would take for a wish.
            frame.pict_type = PictureType.I if is_key else PictureType.NONE
            self._last_pts = pts
            self._last_key = pts if is_key else self._last_key
        assert self._encoder is not None
        return [
            Sample(bytes(packet), packet.pts or 0, packet.dts or 0, duration_90k, packet.is_keyframe)
            for packet in self._encoder.encode(frame)
        ]


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
        with _AT_ONCE:
            (coded,) = encoder.encode(frame)  # zerolatency: one in, one out
        data = bytes(coded)
        if not parameters.extradata:
            parameters = StreamParameters("h264", width_px, height_px, h264.joined(h264.parameter_sets(data)))
        next_pts = round((number + 1) * MEDIA_CLOCK_HZ / fps)
        arrived_s = start_s + number / fps
        packets.append(Packet(data, frame.pts, frame.pts, next_pts - frame.pts, coded.is_keyframe, arrived_s, parameters))
    return packets


def decoded_size_px(data: bytes) -> tuple[int, int] | None:
    """Width and height that an H.264 key frame's own parameter sets say, whatever was said of the stream before."""
    decoder = open_decoder(StreamParameters("h264", 0, 0, b""))
    with suppress(av.FFmpegError):
        decoder.decode(av_packet(data, 0, 0, is_key=True))
    return (decoder.width, decoder.height) if decoder.width and decoder.height else None


def _open_encoder(width_px: int, height_px: int, *, crf: int = 23, fps: float = 25) -> av.VideoCodecContext:
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
        "preset": "veryfast",
        "tune": "zerolatency",
        "profile": "main",
        "crf": str(crf),
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
