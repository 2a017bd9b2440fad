"""The still picture of a detection: a colour JPEG decoded from coded packets.

Owns the choice of the picture, its size and its encoding. Decoding runs on two threads of its own, because a mail
waits for it and a long group of pictures takes a second.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import chain

import av

from vigintd.clip.libav import JPEG_RANGE, av_packet, is_full_range, open_decoder, pixel_aspect
from vigintd.errors import ClipError
from vigintd.model import Packet

_QUALITY = 4
"""MJPEG quantiser, 2 (best) to 31: about 60 KB for a street at 768×576."""

_MOST_WAITING = 16
"""Snapshots under way or waiting; beyond that a snapshot is refused and the alert goes without."""

_threads = ThreadPoolExecutor(2, thread_name_prefix="snapshot")
_waiting = threading.BoundedSemaphore(_MOST_WAITING)


async def snapshot_jpeg(
    packets: Sequence[Packet], moment_s: float, *, max_width_px: int = 1280, deadline_s: float = 2.0
) -> bytes:
    """The picture shown at monotonic second `moment_s`: the last whose packet had arrived by then.

    Decoded from the key frame before it; where `packets` begin later, their first key frame is it. Past `deadline_s`
    seconds the newest picture decoded by then is taken. Wider pictures are scaled to `max_width_px`. `ClipError` when
    nothing decodes, when even one picture takes twice the deadline, or when too many snapshots wait.
    """
    wanted = _group_at(packets, moment_s)
    if not _waiting.acquire(blocking=False):
        raise ClipError("too many snapshots at once")
    job = _threads.submit(_picture, wanted, time.monotonic() + deadline_s, max_width_px)
    job.add_done_callback(lambda _: _waiting.release())
    try:
        async with asyncio.timeout(2 * deadline_s):
            return await asyncio.wrap_future(job)
    except TimeoutError as error:
        raise ClipError("the snapshot took too long") from error


def _group_at(packets: Sequence[Packet], moment_s: float) -> Sequence[Packet]:
    """The packets to decode: from the last key frame by the moment (or the first of all) to the moment."""
    begin: int | None = None
    end = 0
    for number, packet in enumerate(packets):
        if begin is not None and packet.arrived_s > moment_s:
            break
        if packet.is_key:
            begin = number
        end = number + 1
    if begin is None:
        raise ClipError("no key frame to take a picture from")
    return packets[begin:end]


def _picture(packets: Sequence[Packet], deadline: float, max_width_px: int) -> bytes:
    try:
        decoder = open_decoder(packets[0].parameters)
        frame = _decoded(decoder, packets, deadline)
        if frame is None:
            raise ClipError("no picture could be decoded")
        return _jpeg(frame, pixel_aspect(decoder), max_width_px)
    except av.FFmpegError as error:
        raise ClipError("no picture could be made of the stream") from error


def _decoded(decoder: av.VideoCodecContext, packets: Sequence[Packet], deadline: float) -> av.VideoFrame | None:
    """The last picture, in the order of showing, that is whole; a damaged one only where there is no other."""
    best: av.VideoFrame | None = None
    sources = (av_packet(packet.data, packet.pts_90k, packet.dts_90k, is_key=packet.is_key) for packet in packets)
    for source in chain(sources, [None]):
        try:
            frames = decoder.decode(source)
        except av.FFmpegError:
            continue  # damaged on the way; the next ones may do
        for frame in frames:
            if best is None or not frame.is_corrupt or best.is_corrupt:
                best = frame
        if best is not None and time.monotonic() >= deadline:
            break
    return best


def _jpeg(frame: av.VideoFrame, shape: Fraction, max_width_px: int) -> bytes:
    """The picture with square pixels, no wider than asked, in full range as JPEG has it (ITU-T T.871, section 7)."""
    shown_px = frame.width * shape
    width_px = min(max_width_px, int(shown_px)) & ~1
    height_px = max(round(frame.height * width_px / shown_px), 2) & ~1
    picture = frame.reformat(
        max(width_px, 2),
        height_px,
        "yuvj420p",
        src_color_range=JPEG_RANGE if is_full_range(frame) else None,
        dst_colorspace="ITU601",
        dst_color_range=JPEG_RANGE,
    )
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = picture.width, picture.height, "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    encoder.color_range = JPEG_RANGE
    # Square pixels said aloud make FFmpeg write the JFIF header that mail programs look for.
    encoder.sample_aspect_ratio = Fraction(1)
    encoder.qmin = encoder.qmax = _QUALITY
    encoder.thread_count = 1
    picture.pts, picture.time_base = 0, Fraction(1, 25)
    return b"".join(bytes(packet) for packet in (*encoder.encode(picture), *encoder.encode(None)))
