"""The hop of packets from a capture thread to the event loop, in batches.

Owns one bounded queue and when the loop is woken: once for all that waits, not once a packet.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from vigintd import metrics
from vigintd.model import Packet

_MAX_WAITING_BYTES = 8 * 1024 * 1024
_MAX_WAITING_PACKETS = 1024
"""Some ten seconds of one camera: a loop that is so late has lost the pre-roll anyway."""


class Handover:
    """Packets from one thread to the loop.

    When more waits than the bound, packets are dropped up to the next key frame for which there is room, and
    counted (`camera.packets_dropped`).
    """

    def __init__(self, camera: str, loop: asyncio.AbstractEventLoop, deliver: Callable[[list[Packet]], None]) -> None:
        self._camera = camera
        self._loop = loop
        self._deliver = deliver
        self._waiting: deque[Packet] = deque()
        # Each is written by one side only, so no lock is held while the other side waits.
        self._put_bytes = 0
        self._taken_bytes = 0
        self._scheduled = False
        self._dropping = False
        self._closed = False

    def put(self, packet: Packet) -> None:
        """Hand one packet over; from the capture thread, never blocks."""
        if self._closed:
            return
        full = len(self._waiting) >= _MAX_WAITING_PACKETS or self._put_bytes - self._taken_bytes > _MAX_WAITING_BYTES
        self._dropping = full or (self._dropping and not packet.is_key)
        if self._dropping:
            metrics.count("camera.packets_dropped", self._camera)
            return
        self._put_bytes += len(packet.data)
        self._waiting.append(packet)
        if not self._scheduled:
            self._scheduled = True
            # The loop is closed only when the whole process ends.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._drain)

    def close(self) -> None:
        """Deliver nothing more; from the loop."""
        self._closed = True
        self._waiting.clear()

    def _drain(self) -> None:
        # First the flag, then the packets: one that is put in between wakes the loop again for nothing, none is lost.
        self._scheduled = False
        batch: list[Packet] = []
        while self._waiting:
            batch.append(self._waiting.popleft())
        self._taken_bytes += sum(len(packet.data) for packet in batch)
        if batch and not self._closed:
            self._deliver(batch)
