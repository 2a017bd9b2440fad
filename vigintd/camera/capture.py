"""The capture thread: one for each life of each stream.

Owns the thread that alone opens, reads, decodes and closes a stream, and what of it the event loop may see.
A daemon thread of its own, never the default executor: that has few threads and carries DNS.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from vigintd.camera import sockets
from vigintd.camera.feed import Feed, KeyFrame
from vigintd.camera.handover import Handover
from vigintd.camera.reasons import lost
from vigintd.camera.stream import OpenStream, Stream, StreamRequest, Wire
from vigintd.clock import Clock
from vigintd.errors import StreamLost
from vigintd.model import Packet, StreamParameters

_PEEK_AT = 0.75
"""Of the time for opening: the moment to look whether the camera says anything."""

_LATE = 0.8
"""Of the time until then: what was heard within it is more than the answers with which a camera begins."""

_T = TypeVar("_T")


@dataclass(slots=True)
class Progress:
    """How far one life of a stream has come. Written by its thread, read by the loop."""

    opened_s: float | None = None
    last_packet_s: float | None = None
    last_key_s: float | None = None
    """When a key frame was last decoded."""
    longest_gop_s: float = 0.0
    """Between two decoded key frames."""


class Capture:
    """One life of one stream, from opening to closing, in a thread of its own."""

    def __init__(
        self,
        camera: str,
        request: StreamRequest,
        *,
        open_stream: OpenStream,
        feed: Feed,
        clock: Clock,
        deliver: Callable[[list[Packet]], None] | None,
        on_key: Callable[[StreamParameters, int], None],
    ) -> None:
        """`deliver` gets batches of packets and `on_key` each decoded key frame's parameters and digest, on the loop.

        Without `deliver` packets are only looked at.
        """
        self._request = request
        self._open_stream = open_stream
        self._feed = feed
        self._clock = clock
        self._on_key = on_key
        self._loop = asyncio.get_running_loop()
        self._handover = Handover(camera, self._loop, deliver) if deliver is not None else None
        # A plain flag: it is read for each packet and nobody waits for it.
        self._stopped = False
        self._stream: Stream | None = None
        self._last_wire: Wire | None = None
        self._attempt: sockets.Attempt | None = None
        self._peek: asyncio.TimerHandle | None = None
        self.is_heard = False
        """While it was being opened bytes came from it, and not only at the beginning."""
        self._thread = threading.Thread(target=self._run, name=f"capture-{camera}", daemon=True)
        self.progress = Progress()
        self.opened: asyncio.Future[None] = self._loop.create_future()
        """Done once the stream is open: another deadline holds from then on."""
        self.ended: asyncio.Future[StreamLost] = self._loop.create_future()
        """Done once the thread has let go of its stream; says why it did."""

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()
        delay_s = _PEEK_AT * self._request.open_timeout_s
        self._peek = self._loop.call_later(delay_s, self._listen, delay_s)

    @property
    def is_alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    @property
    def is_resolving(self) -> bool:
        """Whether it waits for the resolver to say where the stream's host is."""
        return self._attempt is not None and self._attempt.is_resolving

    def wire(self) -> Wire | None:
        """How the stream's connection is, or was when the stream broke."""
        return self._last_wire or (self._stream.wire() if self._stream is not None else None)

    def flush(self) -> None:
        """Deliver now what has been read until now; from the loop."""
        if self._handover is not None:
            self._handover.flush()

    def stop(self) -> None:
        """Deliver nothing from now on, and end the thread as soon as its stream lets it; never blocks for that."""
        self._stopped = True
        if self._peek is not None:
            self._peek.cancel()
        if self._handover is not None:
            self._handover.close()
        if self._stream is not None:
            self._stream.interrupt()

    def _run(self) -> None:
        try:
            reason = self._live()
        except StreamLost as error:
            reason = error
        except Exception as error:  # noqa: BLE001 - the thread's end: a bug here must be heard of on the loop
            reason = lost("failed", self._request.label, f"{type(error).__name__}: {error}")
        self._tell(self._end, reason)

    def _live(self) -> StreamLost:
        try:
            with sockets.attempting(self._request.url) as self._attempt:
                stream = self._open_stream(self._request, self._clock)
            try:
                # First the stream, then the look at the flag: whoever stops sets the flag first and then looks here.
                self._stream = stream
                self.progress.opened_s = self._clock.monotonic_s()
                self._tell(self._note_opened, None)
                if not self._stopped:
                    self._read(stream)
            except StreamLost:
                self._last_wire = stream.wire()
                raise
            finally:
                stream.close()
        finally:
            self._feed.close()
        return lost("ended", self._request.label)

    def _read(self, stream: Stream) -> None:
        # The way of every packet of every camera: nothing is made or looked up here that need not be.
        progress, see = self.progress, self._feed.see
        put = self._handover.put if self._handover is not None else None
        for packet in stream.packets():
            if self._stopped:
                return
            progress.last_packet_s = packet.arrived_s
            # Before it is decoded, so that a detection never comes ahead of its packet.
            if put is not None:
                put(packet)
            key = see(packet)
            if key is not None:
                self._note_key(packet, key)

    def _note_key(self, packet: Packet, key: KeyFrame) -> None:
        progress = self.progress
        if progress.last_key_s is not None:
            progress.longest_gop_s = max(progress.longest_gop_s, packet.arrived_s - progress.last_key_s)
        progress.last_key_s = packet.arrived_s
        self._tell(self._key, (packet.parameters, key.digest))

    def _key(self, told: tuple[StreamParameters, int]) -> None:
        if not self._stopped:
            # Whoever hears that the stream is live finds its packets.
            self.flush()
            self._on_key(*told)

    def _listen(self, waited_s: float) -> None:
        if not self.opened.done() and not self.ended.done() and self._attempt is not None:
            wire = self._attempt.wire()
            self.is_heard = wire is not None and wire.heard_ago_s < _LATE * waited_s

    def _note_opened(self, _nothing: None) -> None:
        if not self.opened.done():
            self.opened.set_result(None)

    def _end(self, reason: StreamLost) -> None:
        self.flush()
        if not self.ended.done():
            self.ended.set_result(reason)

    def _tell(self, hear: Callable[[_T], None], what: _T) -> None:
        # The loop is closed only when the whole process ends.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(hear, what)
