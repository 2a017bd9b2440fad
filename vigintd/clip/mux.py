"""The muxer: coded pictures and sound in, bytes of whole MP4 fragments out.

Owns the one FFmpeg container of a file and the flags that make it grow by whole fragments. All calls on one thread.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext

from vigintd.clip.aac import FRAME_SAMPLES
from vigintd.clip.libav import TIME_BASE, av_packet
from vigintd.errors import ClipError
from vigintd.fmp4 import FragmentParser
from vigintd.model import MEDIA_CLOCK_HZ, Fragment

FRAGMENT_90K = MEDIA_CLOCK_HZ // 2

_MAX_FRAGMENT_BYTES = 4 << 20
"""A fragment ends here too, whatever the clock says: it is what an encode job holds in memory."""

# delay_moov waits for the first packet, out of which the parameter sets come; skip_trailer leaves nothing
# behind the last fragment, so that the file is whole fragments and nothing else.
_FLAGS = "empty_moov+default_base_moof+delay_moov+skip_trailer"
_OPTIONS = {
    "frag_duration": str(FRAGMENT_90K * 1_000_000 // MEDIA_CLOCK_HZ),
    "frag_size": str(_MAX_FRAGMENT_BYTES),
    # Without it the tail of a fragment that is over stays in FFmpeg's buffer until the next one.
    "flush_packets": "1",
    # Microseconds. Otherwise pictures are held back for up to ten seconds, waiting for sound that may not come.
    "max_interleave_delta": "1",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """What a file is made for; it holds nothing else."""

    codec: str
    """FFmpeg's name; H.264 in a part, what the camera sends in a source."""
    width_px: int
    height_px: int
    is_source: bool = False
    """A source is not for players: key frames end no fragment, which keeps all-intra video from having one a picture."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One access unit (H.264 and HEVC in annex B) with its place in the file."""

    data: bytes
    pts_90k: int
    dts_90k: int
    duration_90k: int
    is_key: bool


@dataclass(frozen=True, slots=True)
class SoundSample:
    """One frame of AAC that describes itself (ADTS), with its place in the file in samples."""

    data: bytes
    begin: int


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


class FileMuxer:
    """One file in the making. The first sample is a key frame with its parameter sets in-band."""

    def __init__(self, shape: Shape, sound_rate_hz: int | None = None) -> None:
        """With `sound_rate_hz`, there is a track of AAC, and no fragment before its first frame. See `check_codec`."""
        self._sink = _Sink()
        flags = _FLAGS if shape.is_source else f"{_FLAGS}+frag_keyframe"
        self._container = av.open(self._sink, "w", format="mp4", options={**_OPTIONS, "movflags": flags})
        self._stream = self._container.add_mux_stream(
            shape.codec, width=shape.width_px, height=shape.height_px, time_base=TIME_BASE
        )
        self._sound: AudioStream | None = None
        if sound_rate_hz:
            stream = self._container.add_mux_stream("aac", rate=sound_rate_hz, time_base=Fraction(1, sound_rate_hz))
            assert isinstance(stream, AudioStream)
            self._sound, self._unpack = stream, BitStreamFilterContext("aac_adtstoasc", stream)
        self._sound_tick = Fraction(1, sound_rate_hz or 1)
        self._parser = FragmentParser()
        self._unfinished = b""

    def write(self, sample: Sample) -> None:
        """Add one sample; `av.FFmpegError` where FFmpeg will not take it."""
        packet = av_packet(sample.data, sample.pts_90k, sample.dts_90k, is_key=sample.is_key)
        packet.duration = sample.duration_90k
        packet.stream = self._stream
        self._container.mux_one(packet)

    def write_sound(self, sample: SoundSample) -> None:
        """Add one frame of sound, none of which may lie before another; `av.FFmpegError` as above."""
        assert self._sound is not None
        packet = av_packet(sample.data, sample.begin, sample.begin, is_key=True)
        packet.time_base, packet.duration = self._sound_tick, FRAME_SAMPLES
        packet.stream = self._sound
        # It takes the header off, and tells the muxer what stood in it.
        for bare in self._unpack.filter(packet):
            bare.stream = self._sound
            self._container.mux_one(bare)

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


@functools.cache
def check_codec(codec: str) -> None:
    """Raise `ClipError` where MP4 does not hold video of this codec."""
    try:
        with av.open(_Sink(), "w", format="mp4") as container:
            container.add_mux_stream(codec, width=2, height=2)
    except ValueError as error:
        raise ClipError(
            f"video of the codec {codec} cannot be recorded: MP4 does not hold it; set the camera to H.264, H.265 or MJPEG"
        ) from error
