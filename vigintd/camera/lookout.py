"""The thread in which an adaptively watched stream is decoded and seen.

Owns the queue between the capture thread and it, bounded in packets and in bytes: at the edge what waits is skipped up to the
newest key frame, and counted. So a detector that is slow or hangs costs pictures, never packets. What is decoded is
`attention`'s choice.
"""

from __future__ import annotations

import threading
from collections import deque

import structlog

from vigintd import metrics
from vigintd.camera import turns
from vigintd.camera.attention import Attention
from vigintd.camera.decode import Picture
from vigintd.camera.showing import Showing
from vigintd.model import Packet

MOST_PACKETS = 600
"""That wait to be seen: 24 seconds at 25 a second. What is seen later than that helps nobody."""

_CALL_EVERY_S = 0.2
"""The thread is called so often and takes what has come: five pictures a second are shown, and each call costs."""

_LAST_PICTURE_S = 0.1

_log = structlog.get_logger()


class Lookout:
    """Sees one life of one stream. `put` and `close` belong to the capture thread and do not wait for a detector."""

    def __init__(self, camera: str, showing: Showing, *, limit_bytes: int) -> None:
        """`limit_bytes` bounds all coded bytes kept here, those that wait and those kept for looking back."""
        self._camera = camera
        self._showing = showing
        self._attention = Attention(showing, limit_bytes=limit_bytes // 2)
        self._limit_bytes = limit_bytes // 2
        self._turn = turns.watching()
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Packet, Picture | None]] = deque()
        self._waiting_bytes = 0
        self._wants_key = False
        self._has_skipped = False
        self._is_called = False
        self._is_closed = False
        self._next_call_s = float("-inf")
        self._thread: threading.Thread | None = None

    @property
    def waiting_bytes(self) -> int:
        """Coded bytes that wait to be seen."""
        return self._waiting_bytes

    @property
    def is_awake(self) -> bool:
        """Whether every packet is being decoded."""
        return self._attention.is_awake

    def take_key(self) -> Picture | None:
        """The newest key frame that was decoded without damage, once."""
        try:
            return self._attention.keys.pop()
        except IndexError:
            return None

    def put(self, packet: Packet, picture: Picture | None) -> None:
        """Have a packet seen; `picture` is what a key frame decoded to, where it was decoded, without damage."""
        if self._thread is None:
            # Not before there is something to see: a life that never opens needs no thread.
            self._thread = threading.Thread(target=self._run, name=f"lookout-{self._camera}", daemon=True)
            self._thread.start()
        with self._changed:
            if self._wants_key and not packet.is_key:
                metrics.count("camera.look_back_skipped", self._camera)
                return
            self._wants_key = False
            self._waiting.append((packet, picture))
            self._waiting_bytes += len(packet.data)
            if self._waiting_bytes > self._limit_bytes or len(self._waiting) > MOST_PACKETS:
                self._skip()
            if packet.arrived_s >= self._next_call_s or picture is not None:
                self._next_call_s = packet.arrived_s + _CALL_EVERY_S
                self._call()

    def drain(self, within_s: float) -> bool:
        """Wait until all that was put has been seen; False when that takes longer."""
        with self._changed:
            if self._waiting:
                self._call()
            return self._changed.wait_for(lambda: not self._is_called, within_s)

    def close(self, within_s: float) -> None:
        """Have what still waits seen, for so long at most, and end the thread; one in a hanging detector ends with it."""
        is_seen = self.drain(within_s)
        with self._changed:
            self._is_closed = self._showing.is_over = True
            if self._waiting:
                metrics.count("camera.look_back_skipped", self._camera, len(self._waiting))
                self._waiting.clear()
                self._waiting_bytes = 0
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(within_s if is_seen else _LAST_PICTURE_S)

    def _call(self) -> None:
        if not self._is_called:
            self._is_called = True
            self._changed.notify_all()

    def _skip(self) -> None:
        """Go on at the newest key frame; at the next one, where none waits or that alone is too much."""
        newest = max((number for number, (packet, _) in enumerate(self._waiting) if packet.is_key), default=0)
        count = newest or len(self._waiting)
        for _ in range(count):
            packet, _ = self._waiting.popleft()
            self._waiting_bytes -= len(packet.data)
        self._wants_key = not self._waiting
        self._has_skipped = True
        metrics.count("camera.look_back_skipped", self._camera, count)

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._is_called = False
                    self._changed.notify_all()
                self._changed.wait_for(lambda: self._is_called or self._is_closed)
                if self._is_closed:
                    return
                if not self._waiting:
                    continue
                packet, picture = self._waiting.popleft()
                self._waiting_bytes -= len(packet.data)
                has_skipped, self._has_skipped = self._has_skipped, False
            self._see(packet, picture, has_skipped=has_skipped)

    def _see(self, packet: Packet, picture: Picture | None, *, has_skipped: bool) -> None:
        try:
            if has_skipped:
                self._attention.lose_touch()
            with self._turn:
                self._attention.take(packet, picture)
        except Exception as error:  # noqa: BLE001 - the thread's end would be the end of seeing; it goes on at a key frame
            metrics.count("camera.look_back_failed", self._camera)
            _log.error("camera.look_back_failed", camera=self._camera, error=repr(error))
            self._attention.lose_touch()
