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

from vigintd.camera.feed import Feed
from vigintd.camera.handover import Handover
from vigintd.camera.reasons import lost
from vigintd.camera.stream import OpenStream, Stream, StreamRequest
from vigintd.clock import Clock
from vigintd.errors import StreamLost
from vigintd.model import Packet, StreamParameters

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
    packets: int = 0


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
        deliver: Callable[[list[Packet]], None],
        on_key: Callable[[StreamParameters], None],
    ) -> None:
        """`deliver` gets batches of packets and `on_key` each decoded key frame's parameters, on the loop."""
        self._camera = camera
        self._request = request
        self._open_stream = open_stream
        self._feed = feed
        self._clock = clock
        self._on_key = on_key
        self._loop = asyncio.get_running_loop()
        self._handover = Handover(camera, self._loop, deliver)
        self._stop = threading.Event()
        self._stream: Stream | None = None
        self._thread = threading.Thread(target=self._run, name=f"capture-{camera}", daemon=True)
        self.progress = Progress()
        self.ended: asyncio.Future[StreamLost] = self._loop.create_future()
        """Done once the thread has let go of its stream; says why it did."""

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Deliver nothing from now on, and end the thread as soon as its stream lets it; never blocks for that."""
        self._stop.set()
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
        stream = self._open_stream(self._request, self._clock)
        try:
            # First the stream, then the look at the flag: whoever stops sets the flag first and then looks here.
            self._stream = stream
            self.progress.opened_s = self._clock.monotonic_s()
            if not self._stop.is_set():
                self._read(stream)
        finally:
            stream.close()
        return lost("ended", self._request.label)

    def _read(self, stream: Stream) -> None:
        for packet in stream.packets():
            if self._stop.is_set():
                return
            self.progress.packets += 1
            self.progress.last_packet_s = packet.arrived_s
            # Before it is decoded, so that a detection never comes ahead of its packet.
            self._handover.put(packet)
            if self._feed.see(packet) is not None:
                self._note_key(packet)

    def _note_key(self, packet: Packet) -> None:
        progress = self.progress
        if progress.last_key_s is not None:
            progress.longest_gop_s = max(progress.longest_gop_s, packet.arrived_s - progress.last_key_s)
        progress.last_key_s = packet.arrived_s
        self._tell(self._key, packet.parameters)

    def _key(self, parameters: StreamParameters) -> None:
        if not self._stop.is_set():
            self._on_key(parameters)

    def _end(self, reason: StreamLost) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)

    def _tell(self, hear: Callable[[_T], None], what: _T) -> None:
        # The loop is closed only when the whole process ends.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(hear, what)
