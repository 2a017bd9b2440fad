"""The hop of packets from a capture thread to the event loop, in batches.

Owns one bounded queue and when the loop looks into it: while packets flow, a few times a second at moments that all
cameras share, and never a wake-up a packet.
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

_EVERY_S = 0.1
"""How often the loop looks. Whoever must not wait so long (a detection, the end of a stream) calls `flush`."""


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
        """The loop will look by itself; the thread need not wake it."""
        self._timer: asyncio.TimerHandle | None = None
        self._dropping = False
        self._closed = False

    def put(self, packet: Packet) -> None:
        """Hand one packet over; from the capture thread, never blocks."""
        if self._closed:
            return
        waiting = self._waiting
        full = len(waiting) >= _MAX_WAITING_PACKETS or self._put_bytes - self._taken_bytes > _MAX_WAITING_BYTES
        if full or (self._dropping and not packet.is_key):
            self._dropping = True
            metrics.count("camera.packets_dropped", self._camera)
            return
        self._dropping = False
        self._put_bytes += packet.size_bytes
        waiting.append(packet)
        if not self._scheduled:
            self._scheduled = True
            # The loop is closed only when the whole process ends.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._look)

    def flush(self) -> None:
        """Deliver now what was put until now; from the loop."""
        waiting = self._waiting
        if self._closed or not waiting:
            return
        batch = [waiting.popleft() for _ in range(len(waiting))]
        self._taken_bytes += sum([packet.size_bytes for packet in batch])
        self._deliver(batch)

    def close(self) -> None:
        """Deliver what was put until now, and nothing more; from the loop."""
        self.flush()
        self._closed = True
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        # Whoever comes first, the thread's call or the timer, replaces the other.
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        # First the flag, then the packets: one that is put in between wakes the loop again for nothing, none is lost.
        self._scheduled = False
        if not self._waiting or self._closed:
            return
        self._scheduled = True
        self.flush()
        now_s = self._loop.time()
        self._timer = self._loop.call_at(now_s - now_s % _EVERY_S + _EVERY_S, self._look)
