"""The encode job's thread side: fragments of sources in, finished pieces of parts out.

Owns what becomes of a source: H.264 is copied, anything else decoded and encoded, its picture giving way when that is
too slow; its sound goes along as it is. Everything it needs is in the source. Touches no file and no loop.
"""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import av
import structlog

from vigintd import metrics
from vigintd.clip.compose import MAX_PARTS
from vigintd.clip.encode import Encoder, at_once
from vigintd.clip.libav import codec_name, open_decoder, pixel_aspect
from vigintd.clip.mux import Shape
from vigintd.clip.pace import Pace
from vigintd.clip.part import Part, Piece
from vigintd.clip.remux import Remux
from vigintd.clip.timeline import USUAL_DURATION_90K, Times
from vigintd.errors import ClipError
from vigintd.model import MEDIA_CLOCK_HZ, AudioChunk, AudioParameters, Packet, StreamParameters

_OPTIONS = {"fpsprobesize": "0", "analyzeduration": "1"}
"""The file says everything; looking further would decode a picture of each fragment twice."""

_MOST_EARLY = 256
"""Chunks of sound that wait for a first picture: some seconds."""

_log = structlog.get_logger("clip")


class Rewriter:
    """Sources one after another into parts. Every method but `stop` on the same one thread."""

    def __init__(self, incident_id: str, *, first_part: int, monotonic_s: Callable[[], float]) -> None:
        self._incident_id = incident_id
        self._monotonic_s = monotonic_s
        self._next_part = first_part
        self._stopped = threading.Event()
        self._way: _Copying | _Encoding | None = None

    def feed(self, init: bytes, fragment: bytes, begin_90k: int, source_end_90k: int) -> list[Piece]:
        """Take the next fragment of a source; answers what became whole.

        `init` is the source's header, `begin_90k` the key frame to begin at, without what lies before it (0: all of it),
        `source_end_90k` where what is on the disk of it ends. `ClipError` where
        FFmpeg cannot decode it, `av.FFmpegError` where it cannot take its own work back.
        """
        ready: list[Piece] = []
        with av.open(io.BytesIO(init + fragment), "r", format="mp4", options=_OPTIONS) as container:
            for packet in container.demux():
                if self._stopped.is_set():
                    break
                if packet.size and (not begin_90k or _time_90k(packet) >= begin_90k):
                    self._way = self._way or self._begin(container, begin_90k)
                    _take(self._way, packet, source_end_90k, ready)
        if self._way is not None and (piece := self._way.take()):
            ready.append(piece)
        return ready

    def end_source(self) -> list[Piece]:
        """The source is over: finish its last part. `ClipError` where there is none, as nothing could be decoded."""
        way, self._way = self._way, None
        return way.finish() if way else []

    def give_up(self) -> None:
        """Let go of a source that cannot be gone on with; what was whole of its parts has been answered."""
        self._way = None

    def stop(self) -> None:
        """Leave everything as it is, at the next picture; from any thread."""
        self._stopped.set()

    def _begin(self, container: av.container.InputContainer, begin_90k: int) -> _Copying | _Encoding:
        context = container.streams.video[0].codec_context
        sound = next((_audio_parameters(stream) for stream in container.streams.audio), None)
        codec = codec_name(context.name)
        parameters = StreamParameters(codec, context.width, context.height, bytes(context.extradata or b""))
        if codec == "h264":
            return _Copying(parameters, self._new_part(sound), begin_90k)
        return _Encoding(parameters, self._new_part(sound), self._has_room, self._monotonic_s, self._say)

    def _new_part(self, sound: AudioParameters | None) -> Callable[[int, int], Part]:
        def new_part(width_px: int, height_px: int) -> Part:
            self._next_part += 1
            return Part(self._next_part - 1, Shape("h264", width_px, height_px), sound=sound, is_sound_known=True)

        return new_part

    def _has_room(self) -> bool:
        return self._next_part < MAX_PARTS

    def _say(self, before: str, after: str) -> None:
        _log.warning("clip.reduced", incident=self._incident_id, **{"from": before, "to": after})
        metrics.count("clip.reduced")


class _Copying:
    """H.264 that follows another codec in the same clip."""

    def __init__(self, parameters: StreamParameters, new_part: Callable[[int, int], Part], begin_90k: int) -> None:
        """`begin_90k` is where the part begins, in the time of the source."""
        self._parameters = parameters
        self._begin_90k = begin_90k
        self._part = new_part(parameters.width_px, parameters.height_px)
        self._remux: Remux | None = None

    def see(self, packet: av.Packet[Any], source_end_90k: int) -> list[Piece]:
        del source_end_90k
        pts_90k, dts_90k = ((time or 0) - self._begin_90k for time in (packet.pts, packet.dts))
        times = Times(pts_90k, dts_90k, packet.duration or USUAL_DURATION_90K)
        own = Packet(bytes(packet), times.pts_90k, times.dts_90k, times.duration_90k, packet.is_keyframe, 0.0, self._parameters)
        self._remux = self._remux or Remux(own)
        self._part.write(self._remux.sample(own, times))
        return []

    def hear(self, chunk: AudioChunk) -> None:
        self._part.hear(chunk, chunk.pts_90k - self._begin_90k)

    def take(self) -> Piece | None:
        return self._part.take()

    def finish(self) -> list[Piece]:
        self._part.finish()
        piece = self._part.take()
        return [piece] if piece else []


class _Encoding:
    """Any other codec, at first in the size it has."""

    def __init__(
        self,
        parameters: StreamParameters,
        new_part: Callable[[int, int], Part],
        has_room: Callable[[], bool],
        monotonic_s: Callable[[], float],
        say: Callable[[str, str], None],
    ) -> None:
        self._decoder = open_decoder(parameters)
        self._new_part = new_part
        self._has_room = has_room
        self._monotonic_s = monotonic_s
        self._say = say
        self._pace: Pace | None = None
        self._encoder: Encoder | None = None
        self._part: Part | None = None
        self._begin_90k = 0
        """Where the part begins, in the time of the source."""
        self._duration_90k = USUAL_DURATION_90K
        """Of the picture that came last."""
        self._seen = 0
        self._early_sound: deque[AudioChunk] = deque(maxlen=_MOST_EARLY)
        """Before the part's first picture, which is soon: a source begins with a key frame. Else the oldest goes."""

    def see(self, packet: av.Packet[Any], source_end_90k: int) -> list[Piece]:
        begun_s = self._monotonic_s()
        self._duration_90k = duration_90k = packet.duration or USUAL_DURATION_90K
        with at_once():
            frames = self._decoded(packet)
            for frame in frames:
                self._encode(frame, duration_90k)
        if self._pace is None or not frames:
            return []
        behind_90k = source_end_90k - (packet.dts or 0)
        work_s = self._monotonic_s() - begun_s
        if self._pace.note(len(frames) * duration_90k, work_s, behind_90k) and self._has_room():
            return self._reduce()
        return []

    def hear(self, chunk: AudioChunk) -> None:
        if self._part is None:
            self._early_sound.append(chunk)
        else:
            self._part.hear(chunk, chunk.pts_90k - self._begin_90k)

    def take(self) -> Piece | None:
        return self._part.take() if self._part else None

    def finish(self) -> list[Piece]:
        with at_once():
            for frame in self._decoded(None):
                self._encode(frame, self._duration_90k)
        if self._pace is None:
            raise ClipError("none of its pictures could be decoded")
        return self._end_part()

    def _decoded(self, packet: av.Packet[Any] | None) -> list[av.VideoFrame]:
        try:
            return self._decoder.decode(packet)
        except av.FFmpegError:
            metrics.count("clip.packets_undecodable")
            return []

    def _encode(self, frame: av.VideoFrame, duration_90k: int) -> None:
        self._pace = self._pace or Pace(frame.width & ~1, frame.height & ~1)
        now = self._pace.now
        self._seen += 1
        if self._part is not None and self._seen % now.every:
            return
        if self._part is None or self._encoder is None:
            self._begin_part(frame)
        assert self._part is not None
        assert self._encoder is not None
        for sample in self._encoder.encode(frame, (frame.pts or 0) - self._begin_90k, duration_90k * now.every):
            self._part.write(sample)

    def _begin_part(self, frame: av.VideoFrame) -> None:
        assert self._pace is not None
        now = self._pace.now
        self._encoder = Encoder(now.width_px, now.height_px, pixel_aspect(self._decoder))
        self._part = self._new_part(*self._encoder.size_px)
        self._part.reduced = self._pace.worded if self._pace.is_reduced else ""
        self._begin_90k = frame.pts or 0
        while self._early_sound:
            self.hear(self._early_sound.popleft())

    def _reduce(self) -> list[Piece]:
        """End the part; the next picture begins another, which costs less."""
        assert self._pace is not None
        before = self._pace.worded
        self._pace.step_down()
        self._say(before, self._pace.worded)
        return self._end_part()

    def _end_part(self) -> list[Piece]:
        part, self._part, self._encoder = self._part, None, None
        if part is None:
            return []
        part.finish()
        piece = part.take()
        return [piece] if piece else []


def key_before(init: bytes, fragment: bytes, moment_90k: int) -> int | None:
    """When the last key frame of a source's fragment is decoded that lies at or before this moment; None without one."""
    with av.open(io.BytesIO(init + fragment), "r", format="mp4", options=_OPTIONS) as container:
        times = [_time_90k(packet) for packet in container.demux(video=0) if packet.size and packet.is_keyframe]
    return max((time for time in times if time <= moment_90k), default=None)


def _time_90k(packet: av.Packet[Any]) -> int:
    return round((packet.dts or 0) * packet.time_base * MEDIA_CLOCK_HZ)


def _take(way: _Copying | _Encoding, packet: av.Packet[Any], source_end_90k: int, ready: list[Piece]) -> None:
    if packet.stream.type == "audio":
        way.hear(_chunk(packet))
    else:
        ready += way.see(packet, source_end_90k)


def _audio_parameters(stream: av.AudioStream) -> AudioParameters:
    context = stream.codec_context
    return AudioParameters(context.name, context.sample_rate, context.channels, bytes(context.extradata or b""))


def _chunk(packet: av.Packet[Any]) -> AudioChunk:
    def ticks(value: int | None) -> int:
        return round((value or 0) * packet.time_base * MEDIA_CLOCK_HZ)

    return AudioChunk(bytes(packet), ticks(packet.pts), ticks(packet.duration), _audio_parameters(packet.stream))
