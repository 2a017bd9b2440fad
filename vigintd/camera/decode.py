"""From packets to pictures, in the thread that asks.

Owns FFmpeg's decoder, which needs no container: only a packet's data and its parameters. So the same decoder
serves a live stream and packets that a ring has kept. Nothing here waits.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
import av.error
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from vigintd.model import MEDIA_CLOCK_HZ, Packet, StreamParameters

_LUMA_FIRST = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12", "nv21", "gray"}
"""Pixel formats whose first plane is luma, a byte a pixel."""

INTRA_ONLY = {"mjpeg"}
"""Codecs whose pictures stand alone, so that what is not shown need not be decoded."""

_DIGEST_ROWS = 16

_TIME_BASE = Fraction(1, MEDIA_CLOCK_HZ)


@dataclass(frozen=True, slots=True)
class KeyFrame:
    """A key frame that decoded without damage."""

    size_px: tuple[int, int]
    digest: int
    """The same for the same picture (`Picture.digest`)."""


class Picture:
    """One decoded picture."""

    __slots__ = ("_frame", "arrived_s")

    def __init__(self, frame: VideoFrame) -> None:
        self._frame = frame
        self.arrived_s = cast("float", frame.opaque)
        """`Packet.arrived_s` of the packet it came from."""

    @property
    def pts_90k(self) -> int:
        """`Packet.pts_90k` of the packet it came from."""
        return self._frame.pts or 0

    @property
    def is_sound_key(self) -> bool:
        """A key frame that decoded without damage: the only thing that counts as progress."""
        return bool(self._frame.key_frame) and not self._frame.is_corrupt

    @property
    def key_frame(self) -> KeyFrame | None:
        """What to tell of it, if it is a sound one."""
        return KeyFrame(self.size_px, self.digest()) if self.is_sound_key else None

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height."""
        return self._frame.width, self._frame.height

    def luma(self) -> NDArray[np.uint8]:
        """Height × width of luma, read-only; where the decoder's own memory holds it so, a view of that."""
        frame = self._frame
        if frame.format.name not in _LUMA_FIRST:
            frame = frame.reformat(format="gray")
        plane = frame.planes[0]
        # FFmpeg's memory, which lives as long as the view: the plane holds its frame.
        memory = cast("memoryview", plane)
        rows = np.frombuffer(memory, np.uint8).reshape(-1, plane.line_size)
        view = rows[: frame.height, : frame.width]
        view.flags.writeable = False
        return view

    def digest(self) -> int:
        """A number that is the same for the same picture; from a sixteenth of its rows, which noise changes as well."""
        return zlib.crc32(self.luma()[::_DIGEST_ROWS].tobytes())

    def rgb(self) -> NDArray[np.uint8]:
        """Height × width × 3 of RGB, read-only."""
        pixels = np.asarray(self._frame.to_ndarray(format="rgb24"), dtype=np.uint8)
        pixels.flags.writeable = False
        return pixels


class Decoder:
    """A decoder for packets of one set of parameters, single-threaded."""

    def __init__(self, parameters: StreamParameters) -> None:
        context = av.CodecContext.create(parameters.codec, "r")
        assert isinstance(context, VideoCodecContext)
        if parameters.extradata:
            context.extradata = parameters.extradata
        # One thread: frame threads delay pictures and have hung at exit.
        context.thread_count = 1
        context.thread_type = "NONE"
        # No detector minds the blocks, and it saves an eighth to a fifth.
        context.options = {"skip_loop_filter": "all"}
        context.copy_opaque = True
        self._context = context

    def decode(self, packet: Packet) -> list[Picture]:
        """The pictures that come out now: none for damaged data, several after a delay."""
        # A copy in memory that FFmpeg allocates: its readers run a few bytes over the end and want zeros there.
        coded = av.Packet(len(packet.data))
        if packet.data:
            coded.update(packet.data)
        coded.pts, coded.dts, coded.time_base = packet.pts_90k, packet.dts_90k, _TIME_BASE
        coded.opaque = packet.arrived_s
        return self._out(coded)

    def decode_key(self, packet: Packet) -> Picture | None:
        """The picture of a key frame on its own, the decoder being emptied for it; None for damaged data."""
        pictures = self.decode(packet) + self.rest()
        return pictures[0] if pictures else None

    def rest(self) -> list[Picture]:
        """The pictures that were still to come out; the decoder is empty then and wants a key frame next."""
        pictures = self._out(None)
        self._context.flush_buffers()
        return pictures

    def _out(self, coded: av.Packet | None) -> list[Picture]:  # type: ignore[type-arg]  # a packet of no stream
        try:
            return [Picture(frame) for frame in self._context.decode(coded)]
        except (av.error.FFmpegError, ValueError):
            return []


def decoder_for(parameters: StreamParameters) -> Decoder | None:
    """A decoder, or None where FFmpeg has none for this codec or it does not take these parameters."""
    try:
        return Decoder(parameters)
    except (av.error.FFmpegError, ValueError):
        return None
