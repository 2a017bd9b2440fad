"""The sound of a stream, until the next picture takes it along.

Owns what has been heard since the last picture, its bounds, and its place in the media time of the pictures. Nothing
is decoded here.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from fractions import Fraction

import av
import av.error
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext

from vigintd import metrics
from vigintd.camera.times import MediaTimes, to_90k
from vigintd.model import MEDIA_CLOCK_HZ, AudioChunk, AudioParameters

_MAX_CHUNKS = 512
_MAX_BYTES = 512 * 1024
"""Some ten seconds of AAC or G.711. When no picture comes for so long, the oldest are dropped and counted
(`camera.sound_dropped`)."""

_APART_90K = 2 * MEDIA_CLOCK_HZ
"""Sound that would lie further than this from its arrival has a clock of its own, unrelated to the pictures'."""


@dataclass(frozen=True, slots=True)
class _Heard:
    data: bytes
    pts: int | None
    duration: int
    arrived_s: float


class Sound:
    """The sound of one opened stream."""

    def __init__(self, stream: AudioStream) -> None:
        context = stream.codec_context
        extradata = bytes(context.extradata or b"")
        self._parameters = AudioParameters(context.name, context.sample_rate or 0, context.channels or 0, extradata)
        # A transport stream repeats the set-up in each packet (ADTS, ISO/IEC 13818-7 section 6.2); MP4 wants it once, apart.
        needs_setup = context.name == "aac" and not extradata
        self._unpack = BitStreamFilterContext("aac_adtstoasc", stream) if needs_setup else None
        self._to_90k = to_90k(stream.time_base or Fraction(1, MEDIA_CLOCK_HZ))
        self._heard: deque[_Heard] = deque()
        self._size_bytes = 0
        self._shift_90k = 0
        self._begin_90k: int | None = None
        self._end_90k = 0

    def hear(self, coded: av.Packet[AudioStream], arrived_s: float) -> None:
        """Keep one packet of the demuxer for the next picture."""
        for packet in self._unpacked(coded):
            heard = _Heard(bytes(packet), packet.pts, packet.duration or 0, arrived_s)
            self._heard.append(heard)
            self._size_bytes += len(heard.data)
        while len(self._heard) > _MAX_CHUNKS or self._size_bytes > _MAX_BYTES:
            self._size_bytes -= len(self._heard.popleft().data)
            metrics.count("camera.sound_dropped")

    def take(self, times: MediaTimes) -> tuple[AudioChunk, ...]:
        """What was heard since the last picture, in the time of the picture that takes it along."""
        if not self._heard:
            return ()
        chunks = tuple(self._placed(heard, times) for heard in self._heard)
        self.forget()
        return chunks

    def forget(self) -> None:
        """Let go of what was heard: no picture will take it along."""
        self._heard.clear()
        self._size_bytes = 0

    def forget_before(self, moment_s: float) -> None:
        """The same, of what arrived before the first picture."""
        while self._heard and self._heard[0].arrived_s < moment_s:
            self._size_bytes -= len(self._heard.popleft().data)

    def _placed(self, heard: _Heard, times: MediaTimes) -> AudioChunk:
        duration = self._to_90k(heard.duration)
        by_arrival = times.at(heard.arrived_s)
        if heard.pts is None:
            begin = by_arrival if self._begin_90k is None else self._end_90k
        else:
            begin = self._to_90k(heard.pts) + times.offset_90k + self._shift_90k
        if abs(begin - by_arrival) > _APART_90K:
            self._shift_90k += by_arrival - begin
            begin = by_arrival
        if self._begin_90k is not None:
            begin = max(begin, self._begin_90k + 1)
        self._begin_90k, self._end_90k = begin, begin + duration
        return AudioChunk(heard.data, begin, duration, self._parameters)

    def _unpacked(self, coded: av.Packet[AudioStream]) -> list[av.Packet[AudioStream]]:
        if self._unpack is None:
            return [coded]
        try:
            unpacked = self._unpack.filter(coded)
        except (av.error.FFmpegError, ValueError):
            return []  # damaged, and nobody's ear will miss it
        for packet in unpacked:
            if packet.has_sidedata("new_extradata"):
                extradata = bytes(packet.get_sidedata("new_extradata"))
                if extradata != self._parameters.extradata:
                    known = self._parameters
                    self._parameters = AudioParameters(known.codec, known.sample_rate_hz, known.channels, extradata)
        return unpacked
