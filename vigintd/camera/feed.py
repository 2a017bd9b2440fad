"""What of a stream is decoded, and who is shown it.

Owns the choice: every picture where somebody watches (pictures build on one another) and only some of them
shown; key frames alone, and few, where nobody does. Works in the capture thread. A key frame that decodes is the only sign
that a stream is alive, so there is always something decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import structlog

from vigintd import metrics
from vigintd.camera.decode import Decoder, Picture, decoder_for
from vigintd.clock import Clock
from vigintd.detect.watch import Watch
from vigintd.model import Frame, Packet, StreamParameters

_PROGRESS_EVERY_S = 1.0
"""Where nobody watches, one key frame decoded a second is proof enough."""

_INTRA_ONLY = {"mjpeg"}
"""Codecs whose pictures stand alone, so that what is not shown need not be decoded."""

_log = structlog.get_logger()


class PictureCount:
    """Counts a camera's decoded pictures, on over the lives of its streams."""

    def __init__(self) -> None:
        self.value = 0

    def next(self) -> int:
        """The number of one more picture, from 1."""
        self.value += 1
        return self.value


class Feed:
    """Decodes one life of one stream, from one thread."""

    def __init__(self, camera: str, watches: Sequence[Watch], *, count: PictureCount, detect_fps: float, clock: Clock) -> None:
        self._camera = camera
        self._watches = watches
        self._count = count
        self._interval_s = 1 / detect_fps
        self._clock = clock
        self._parameters: StreamParameters | None = None
        self._decoder: Decoder | None = None
        self._next_shown_s = float("-inf")
        self._next_progress_s = float("-inf")

    def see(self, packet: Packet) -> tuple[int, int] | None:
        """Decode what is needed of the packet; the size of the picture when a key frame decoded without damage."""
        if packet.parameters is not self._parameters:
            if not packet.is_key:
                return None
            self._parameters = packet.parameters
            self._decoder = decoder_for(packet.parameters)
        if self._decoder is None:
            return None
        return self._watch(self._decoder, packet) if self._watches else self._progress(self._decoder, packet)

    def _progress(self, decoder: Decoder, packet: Packet) -> tuple[int, int] | None:
        if not packet.is_key or packet.arrived_s < self._next_progress_s:
            return None
        picture = decoder.decode_key(packet)
        if picture is not None:
            self._count.next()
        if picture is None or not picture.is_sound_key:
            return None
        self._next_progress_s = packet.arrived_s + _PROGRESS_EVERY_S
        return picture.size_px

    def _watch(self, decoder: Decoder, packet: Packet) -> tuple[int, int] | None:
        if packet.parameters.codec in _INTRA_ONLY and packet.arrived_s < self._next_shown_s:
            return None
        size_px = None
        for picture in decoder.decode(packet):
            number = self._count.next()
            if picture.is_sound_key:
                size_px = picture.size_px
            if picture.arrived_s >= self._next_shown_s:
                # A grid rather than a distance, so that a rate that is no divisor is still kept on average.
                self._next_shown_s = max(self._next_shown_s + self._interval_s, picture.arrived_s)
                self._show(picture, number)
        return size_px

    def _show(self, picture: Picture, number: int) -> None:
        at = self._clock.now() - timedelta(seconds=self._clock.monotonic_s() - picture.arrived_s)
        for pixels in ("luma", "rgb"):
            watches = [watch for watch in self._watches if watch.pixels == pixels]
            if not watches:
                continue
            array = picture.luma() if pixels == "luma" else picture.rgb()
            frame = Frame(self._camera, number, picture.arrived_s, at, array)
            for watch in watches:
                self._offer(watch, frame)

    def _offer(self, watch: Watch, frame: Frame) -> None:
        try:
            watch.offer(frame)
        except Exception as error:  # noqa: BLE001 - whatever a watch does, no packet is lost for it
            metrics.count("camera.watch_failed", self._camera)
            _log.error("camera.watch_failed", camera=self._camera, error=repr(error))
