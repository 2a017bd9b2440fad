"""The camera source on FFmpeg: RTSP, HTTP, HLS, RTMP, files and video devices.

Owns opening, demuxing and closing, all in the thread that opened. Detection, rings and
reconnecting are not its business.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import cast

import av
import av.error
import av.logging
from av.audio.stream import AudioStream
from av.codec.context import CodecContext
from av.container import InputContainer
from av.stream import Discard
from av.video.stream import VideoStream

from vigintd.camera.access_units import AccessUnits, Unit
from vigintd.camera.address import Source, source_of
from vigintd.camera.beginning import Beginning
from vigintd.camera.decode import decoder_for
from vigintd.camera.pace import Pace
from vigintd.camera.parameters import ParameterTracker
from vigintd.camera.reasons import lost, lost_while_opening, lost_while_reading
from vigintd.camera.sockets import Attempt, Claim, resolve
from vigintd.camera.sound import Sound
from vigintd.camera.stream import StreamRequest, Wire
from vigintd.camera.times import MediaTimes
from vigintd.clock import Clock
from vigintd.errors import StreamLost
from vigintd.model import MEDIA_CLOCK_HZ, Packet, StreamParameters

# Before any thread: FFmpeg's log callback and the interpreter's lock can wait for each other.
av.logging.set_level(None)

_UNTIMED_FORMATS = {"mpjpeg", "mjpeg", "mjpeg_2000"}
"""Formats whose times FFmpeg makes up from an assumed rate; the time of arrival is truer."""

_CLAIM_EVERY_S = 2.0
"""How often a stream looks for its socket, at its key frames, while it has none."""


def open_av_stream(request: StreamRequest, clock: Clock) -> AvStream:
    """Open a source by FFmpeg; see `stream.OpenStream`."""
    began_s = clock.monotonic_s()
    failure: StreamLost | None = None
    try:
        source = source_of(request)
        attempt = resolve(source.host, source.port or 0) if source.host else None
        # Only opening has PyAV's time-out (its polling would cost the interpreter's lock at each read); it alone
        # ends an endless chain of redirects.
        container = av.open(source.place, format=source.format, options=source.options, timeout=(request.open_timeout_s, None))
    except (av.error.FFmpegError, ValueError, OSError) as error:
        waited_s = clock.monotonic_s() - began_s
        patience_s = min(request.open_timeout_s, request.stall_timeout_s)
        failure = lost_while_opening(error, request.label, waited_s=waited_s, patience_s=patience_s)
    if failure is not None:
        # Raised here and not above, so that FFmpeg's error is not even its context: its text holds the credentials.
        raise failure
    streams = container.streams.video
    if not any(map(_has_codec, streams)):
        container.close()
        if streams:
            raise lost("unsupported", request.label, "its codec has no name in FFmpeg")
        raise lost("no_video", request.label)
    return AvStream(container, source, attempt, request, clock)


class AvStream:
    """One opened container; see `stream.Stream`."""

    def __init__(
        self, container: InputContainer, source: Source, attempt: Attempt | None, request: StreamRequest, clock: Clock
    ) -> None:
        self._container = container
        self._video = _chosen(container)
        self._audio = _audible(container) if request.audio else None
        self._sound = Sound(self._audio) if self._audio is not None else None
        self._source = source
        self._label = request.label
        self._clock = clock
        self._stop = threading.Event()
        self._claiming = threading.Lock()
        self._claim: Claim | None = None
        self._closed = False
        self._tracker = ParameterTracker(_parameters_of(self._video), _size_by_decoding)
        # Whole segments come at once, over connections that change; FFmpeg also finds playlists by their content type.
        is_playlist = container.format.name == "hls"
        is_paced = source.is_file or is_playlist
        self._attempt = None if is_playlist else attempt
        self._claim_again_s = float("-inf")
        time_base = self._video.time_base or Fraction(1, MEDIA_CLOCK_HZ)
        self._times = MediaTimes(time_base, paced=is_paced)
        self._units = AccessUnits(self._tracker.current.codec)
        self._pace = Pace(clock, self._stop) if is_paced else None
        self._timed_by_arrival = container.format.name in _UNTIMED_FORMATS
        self._beginning = None if self._timed_by_arrival else Beginning(float(1 / time_base))
        self._claim_socket()

    def packets(self) -> Iterator[Packet]:
        """See `stream.Stream`; a file begins anew at its end, times going on."""
        failure: StreamLost | None = None
        try:
            while not self._stop.is_set():
                yield from self._read_to_end()
                if not self._source.is_file or self._stop.is_set():
                    return
                if not self._times.started:
                    raise lost("garbage", self._label, "there is no key frame in it")
                if self._sound is not None:
                    self._sound.forget()
                self._container.seek(0)
        except (av.error.FFmpegError, OSError) as error:
            # FFmpeg knows no better word for an RTMP server that has closed.
            if not (self._source.scheme in ("rtmp", "rtmps") and error.errno == errno.EIO):
                failure = lost_while_reading(error, self._label)
        if failure is not None and not self._stop.is_set():
            raise failure

    def interrupt(self) -> None:
        """See `stream.Stream`."""
        self._stop.set()
        self._claim_socket()
        with self._claiming:
            if self._claim is not None:
                self._claim.shut()

    def wire(self) -> Wire | None:
        """See `stream.Stream`."""
        claim = self._claim
        return claim.wire() if claim is not None else None

    def close(self) -> None:
        """See `stream.Stream`."""
        with self._claiming:
            if self._closed:
                return
            self._closed = True
        self._stop.set()
        try:
            self._container.close()
        finally:
            if self._claim is not None:
                self._claim.release()

    def _claim_socket(self) -> None:
        with self._claiming:
            if self._attempt is not None and self._claim is None and not self._closed:
                self._claim = self._attempt.claim()

    def _read_to_end(self) -> Iterator[Packet]:
        for unit in self._units_to_end():
            for dated in self._dated(unit):
                yield self._packet(dated)
        if self._beginning is not None:
            for dated in self._beginning.rest():
                yield self._packet(dated)

    def _units_to_end(self) -> Iterator[Unit]:
        video_index, wanted = self._video.index, self._wanted()
        for coded in self._container.demux(*wanted):
            if self._stop.is_set():
                return
            # A demuxer flushes with empty packets.
            if not coded.size:
                continue
            arrived_s = self._clock.monotonic_s()
            if coded.stream_index != video_index:
                if self._sound is not None:
                    self._sound.hear(cast("av.Packet[AudioStream]", coded), arrived_s)
                continue
            is_key = coded.is_keyframe
            setup = bytes(coded.get_sidedata("new_extradata")) if is_key and coded.has_sidedata("new_extradata") else None
            unit = Unit(bytes(coded), coded.pts, coded.dts, coded.duration or 0, is_key, arrived_s, setup)
            yield from self._units.take(unit)
        yield from self._units.rest()

    def _wanted(self) -> Sequence[VideoStream | AudioStream]:
        return (self._video,) if self._audio is None else (self._video, self._audio)

    def _dated(self, unit: Unit) -> Sequence[Unit]:
        """The unit itself, but for the first ones of a stream."""
        if self._beginning is None:
            return (unit,)
        dated = self._beginning.take(unit)
        if dated:
            self._beginning = None
        return dated

    def _packet(self, unit: Unit) -> Packet:
        arrived_s = unit.arrived_s
        if self._timed_by_arrival:
            pts, dts = self._times.at_arrival(arrived_s)
        else:
            is_first = not self._times.started
            pts, dts = self._times.next(unit.pts, unit.dts, arrived_s)
            if is_first and self._sound is not None:
                self._sound.forget_before(arrived_s)
        audio = self._sound.take(self._times) if self._sound is not None else ()
        if self._pace is not None:
            arrived_s = self._pace.wait_for(dts)
        duration = self._times.to_90k(unit.duration)
        packet = Packet(unit.data, pts, dts, duration, unit.is_key, arrived_s, self._tracker.current, audio)
        if not unit.is_key:
            return packet
        if self._claim is None and arrived_s >= self._claim_again_s:
            # Streams that opened at one moment look alike until all but one are claimed. One that was sent on elsewhere has
            # nothing to claim, ever, and looking is not for nothing.
            self._claim_again_s = arrived_s + _CLAIM_EVERY_S
            self._claim_socket()
        packet = self._tracker.at_key(packet, unit.extradata)
        self._units.now_of(packet.parameters.codec)
        return packet


def _chosen(container: InputContainer) -> VideoStream:
    """The largest picture of a source that offers several (a playlist of variants); the others are not fetched."""
    streams = container.streams.video
    known = filter(_has_codec, streams)
    chosen = max(known, key=lambda video: (video.codec_context.width or 0) * (video.codec_context.height or 0))
    for video in streams:
        if video is not chosen:
            video.discard = Discard.all
    return chosen


def _audible(container: InputContainer) -> AudioStream | None:
    return next(filter(_has_codec, container.streams.audio), None)


def _has_codec(stream: VideoStream | AudioStream) -> bool:
    """Whether FFmpeg has a name for the stream's codec; otherwise there is no context, whatever PyAV's types say."""
    context: CodecContext | None = stream.codec_context
    return context is not None


def _parameters_of(video: VideoStream) -> StreamParameters:
    context = video.codec_context
    return StreamParameters(context.name, context.width or 0, context.height or 0, bytes(context.extradata or b""))


def _size_by_decoding(packet: Packet) -> tuple[int, int] | None:
    decoder = decoder_for(packet.parameters)
    picture = decoder.decode_key(packet) if decoder is not None else None
    return picture.size_px if picture is not None else None
