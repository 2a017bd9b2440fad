"""The camera source on FFmpeg: RTSP, HTTP, files and video devices.

Owns opening, demuxing and closing, all in the thread that opened, and the pace of files. Detection, rings and
reconnecting are not its business.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import av
import av.error
import av.logging
from av.container import InputContainer
from av.video.stream import VideoStream

from vigintd.camera.access_units import AccessUnits
from vigintd.camera.address import Source, source_of
from vigintd.camera.decode import decoder_for
from vigintd.camera.parameters import ParameterTracker
from vigintd.camera.reasons import lost, lost_while_opening, lost_while_reading
from vigintd.camera.sockets import Claim, Peer, claim, resolve
from vigintd.camera.stream import StreamRequest
from vigintd.camera.times import MediaTimes
from vigintd.clock import Clock
from vigintd.errors import StreamLost
from vigintd.model import MEDIA_CLOCK_HZ, Packet, StreamParameters

# Before any thread: FFmpeg's log callback and the interpreter's lock can wait for each other.
av.logging.set_level(None)

_UNTIMED_FORMATS = {"mpjpeg", "mjpeg", "mjpeg_2000"}
"""Formats whose times FFmpeg makes up from an assumed rate; the time of arrival is truer."""


def open_av_stream(request: StreamRequest, clock: Clock) -> AvStream:
    """Open a source by FFmpeg; see `stream.OpenStream`."""
    began_s = clock.monotonic_s()
    failure: StreamLost | None = None
    try:
        source = source_of(request)
        peers = resolve(source.host, source.port or 0) if source.host else frozenset()
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
    if not container.streams.video:
        container.close()
        raise lost("garbage", request.label, "it has no video")
    return AvStream(container, source, peers, request, clock)


class AvStream:
    """One opened container; see `stream.Stream`."""

    def __init__(
        self, container: InputContainer, source: Source, peers: frozenset[Peer], request: StreamRequest, clock: Clock
    ) -> None:
        self._container = container
        self._video = container.streams.video[0]
        self._source = source
        self._peers = peers
        self._label = request.label
        self._clock = clock
        self._stop = threading.Event()
        self._claiming = threading.Lock()
        self._claim: Claim | None = None
        self._closed = False
        self._tracker = ParameterTracker(_parameters_of(self._video), _size_by_decoding)
        self._times = MediaTimes(self._video.time_base or Fraction(1, MEDIA_CLOCK_HZ))
        self._units = AccessUnits(self._tracker.current.codec)
        self._last_pts: int | None = None
        self._pace = _Pace(clock, self._stop) if source.is_file else None
        self._timed_by_arrival = container.format.name in _UNTIMED_FORMATS
        self._claim_socket()

    def packets(self) -> Iterator[Packet]:
        """See `stream.Stream`; a file is paced to real time and begins anew at its end, times going on."""
        failure: StreamLost | None = None
        try:
            while not self._stop.is_set():
                yield from self._read_to_end()
                if not self._source.is_file or self._stop.is_set():
                    return
                if not self._times.started:
                    raise lost("garbage", self._label, "no key frame in it has a time")
                self._container.seek(0)
        except (av.error.FFmpegError, OSError) as error:
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

    def close(self) -> None:
        """See `stream.Stream`."""
        with self._claiming:
            if self._closed:
                return
            self._closed = True
            if self._claim is not None:
                self._claim.release()
        self._stop.set()
        self._container.close()

    def _claim_socket(self) -> None:
        """Tried again at each key frame, because several streams that open at once from one recorder look alike."""
        with self._claiming:
            if self._peers and self._claim is None and not self._closed:
                self._claim = claim(self._peers)

    def _read_to_end(self) -> Iterator[Packet]:
        for coded in self._container.demux(self._video):
            if self._stop.is_set():
                return
            # A demuxer flushes with empty packets.
            packet = self._packet(coded) if coded.size else None
            if packet is None:
                continue
            same_time = coded.pts is not None and coded.pts == self._last_pts
            self._last_pts = coded.pts
            for whole in self._units.take(packet, same_time=same_time):
                yield self._finished(whole)
        for whole in self._units.rest():
            yield self._finished(whole)

    def _finished(self, packet: Packet) -> Packet:
        if self._pace is not None:
            packet = self._pace.wait_for(packet)
        if not packet.is_key:
            # Parameters change at key frames, and one that was held may have come between.
            current = self._tracker.current
            return packet if packet.parameters is current else replace(packet, parameters=current)
        self._claim_socket()
        return self._tracker.at_key(packet)

    def _packet(self, coded: av.Packet[VideoStream]) -> Packet | None:
        """Our packet, or None before the first key frame that has both times."""
        arrived_s = self._clock.monotonic_s()
        if self._timed_by_arrival:
            times = self._times.at_arrival(arrived_s)
        elif self._times.started or (coded.is_keyframe and coded.pts is not None and coded.dts is not None):
            times = self._times.next(coded.pts, coded.dts, arrived_s)
        else:
            return None
        pts, dts = times
        duration = self._times.rescaled(coded.duration or 0)
        return Packet(bytes(coded), pts, dts, duration, coded.is_keyframe, arrived_s, self._tracker.current)


class _Pace:
    """Waits until a packet of a file is due in real time."""

    def __init__(self, clock: Clock, stop: threading.Event) -> None:
        self._clock = clock
        self._stop = stop
        self._began_s: float | None = None
        self._first_dts = 0

    def wait_for(self, packet: Packet) -> Packet:
        """The packet, dated when it was due; at once when stopped."""
        now_s = self._clock.monotonic_s()
        if self._began_s is None:
            self._began_s, self._first_dts = now_s, packet.dts_90k
        due_s = self._began_s + (packet.dts_90k - self._first_dts) / MEDIA_CLOCK_HZ
        self._stop.wait(max(0.0, due_s - now_s))
        return replace(packet, arrived_s=max(due_s, now_s))


def _parameters_of(video: VideoStream) -> StreamParameters:
    context = video.codec_context
    return StreamParameters(context.name, context.width or 0, context.height or 0, bytes(context.extradata or b""))


def _size_by_decoding(packet: Packet) -> tuple[int, int] | None:
    decoder = decoder_for(packet.parameters)
    picture = decoder.decode_key(packet) if decoder is not None else None
    return picture.size_px if picture is not None else None
