"""The muxer: coded pictures in, bytes of whole MP4 fragments out.

Owns the one FFmpeg container of a part and the flags that make it grow by whole fragments. All calls on one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import av

from vigintd.clip.libav import TIME_BASE, av_packet
from vigintd.fmp4 import FragmentParser
from vigintd.model import MEDIA_CLOCK_HZ, Fragment

FRAGMENT_90K = MEDIA_CLOCK_HZ // 2

_OPTIONS = {
    # delay_moov waits for the first packet, out of which the parameter sets come; skip_trailer leaves nothing
    # behind the last fragment, so that the file is whole fragments and nothing else.
    "movflags": "frag_keyframe+empty_moov+default_base_moof+delay_moov+skip_trailer",
    "frag_duration": str(FRAGMENT_90K * 1_000_000 // MEDIA_CLOCK_HZ),
    # Without it the tail of a fragment that is over stays in FFmpeg's buffer until the next one.
    "flush_packets": "1",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One H.264 access unit in annex B with its place in the part."""

    data: bytes
    pts_90k: int
    dts_90k: int
    duration_90k: int
    is_key: bool


class _Sink:
    """What FFmpeg writes into."""

    name = "clip"

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data


class PartMuxer:
    """One part's file in the making. The first sample is a key frame with its parameter sets in-band."""

    def __init__(self, width_px: int, height_px: int) -> None:
        self._sink = _Sink()
        self._container = av.open(self._sink, "w", format="mp4", options=_OPTIONS)
        self._stream = self._container.add_mux_stream("h264", width=width_px, height=height_px, time_base=TIME_BASE)
        self._parser = FragmentParser()
        self._unfinished = b""

    def write(self, sample: Sample) -> None:
        """Add one sample; `av.FFmpegError` where FFmpeg will not take it."""
        packet = av_packet(sample.data, sample.pts_90k, sample.dts_90k, is_key=sample.is_key)
        packet.duration = sample.duration_90k
        packet.stream = self._stream
        self._container.mux_one(packet)

    def take(self) -> tuple[bytes, Sequence[Fragment]]:
        """The fragments that became whole since the last call, and exactly their bytes."""
        data = self._unfinished + self._sink.take()
        begin = self._parser.whole_bytes
        fragments = self._parser.feed(data[len(self._unfinished) :])
        whole = self._parser.whole_bytes - begin
        self._unfinished = data[whole:]
        return data[:whole], fragments

    def close(self) -> None:
        """End the last fragment, to be fetched by `take`, and let go of the container."""
        self._container.close()
