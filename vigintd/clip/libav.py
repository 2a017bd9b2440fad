"""What every part of this room asks of FFmpeg in the same way: packets, decoders, colour ranges.

Owns the traps: memory that FFmpeg may read beyond, threads it may start, errors that may hold an address.
"""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from typing import Any

import av

from vigintd.errors import ClipError
from vigintd.model import MEDIA_CLOCK_HZ, StreamParameters
from vigintd.redact import redacted

TIME_BASE = Fraction(1, MEDIA_CLOCK_HZ)

_DECODERS = {"av1": "libdav1d"}
"""Where FFmpeg's decoder of that name is for hardware alone."""

MPEG_RANGE, JPEG_RANGE = 1, 2
"""AVCOL_RANGE_MPEG (luma 16–235) and AVCOL_RANGE_JPEG (0–255)."""


def av_packet(data: bytes, pts_90k: int, dts_90k: int, *, is_key: bool) -> av.Packet[Any]:
    """FFmpeg's packet around a copy of the data.

    A copy, because its readers run a few bytes over the end: `av.Packet(data)` would lend them the bytes object alone,
    and what lies behind it in memory then decides what some decoders see (MPEG-4 part 2 loses pictures). Memory that
    FFmpeg allocates has the zeros it wants there.
    """
    packet: av.Packet[Any] = av.Packet(len(data))
    if data:
        packet.update(data)
    packet.pts, packet.dts, packet.time_base = pts_90k, dts_90k, TIME_BASE
    packet.is_keyframe = is_key
    return packet


def codec_name(name: str) -> str:
    """The codec that a decoder of FFmpeg's is for; a stream is often called by its decoder."""
    return next((codec for codec, decoder in _DECODERS.items() if decoder == name), name)


def open_decoder(parameters: StreamParameters) -> av.VideoCodecContext:
    """A decoder of one thread; `ClipError` where FFmpeg has none for the codec."""
    try:
        decoder = av.CodecContext.create(_DECODERS.get(parameters.codec, parameters.codec), "r")
        if not isinstance(decoder, av.VideoCodecContext):
            raise ClipError(f"{parameters.codec} is not a video codec")
        if parameters.extradata:
            decoder.extradata = parameters.extradata
        decoder.width, decoder.height = parameters.width_px, parameters.height_px
        decoder.thread_count = 1
    except (av.FFmpegError, ValueError) as error:
        raise ClipError(f"video of the codec {parameters.codec} cannot be decoded: {redacted(str(error))}") from error
    return decoder


def decoded_size_px(codec: str, data: bytes) -> tuple[int, int] | None:
    """Width and height that a key frame's own parameter sets say, whatever was said of the stream before."""
    decoder = open_decoder(StreamParameters(codec, 0, 0, b""))
    with suppress(av.FFmpegError):
        decoder.decode(av_packet(data, 0, 0, is_key=True))
    return (decoder.width, decoder.height) if decoder.width and decoder.height else None


def pixel_aspect(decoder: av.VideoCodecContext) -> Fraction:
    """Width of a pixel by its height, as the stream has it; 1 where it does not say, or says what cannot be."""
    said = decoder.sample_aspect_ratio
    return said if said and Fraction(1, 4) < said < 4 else Fraction(1)


def is_full_range(frame: av.VideoFrame) -> bool:
    """Does the picture use 0–255? By what it says of itself, or by one of FFmpeg's older formats."""
    return frame.color_range == JPEG_RANGE or frame.format.name.startswith("yuvj")
