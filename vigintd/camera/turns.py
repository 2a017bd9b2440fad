"""Turns at work on pictures, so that the threads of many streams do not stand in each other's way.

Owns the process's queues: one a core for decoding, half as many for watching. PyAV and numpy let go of the interpreter's
lock for each picture and each array, dozens of times for a frame that is watched; with more such threads at work than
cores, each of those times is a wait for a thread that itself waits for a core. With 64 cameras on two cores the event
loop then came seconds late and packets were lost. So pictures are worked on in turn, while readers and the loop find a core.
"""

from __future__ import annotations

import os
import threading
from itertools import count
from types import TracebackType

from vigintd import metrics

HANGS_AFTER_S = 2.0
"""A turn that lasts longer hangs in somebody's detector: it is passed over, and the others go on without it."""


class Queue:
    """Those who work one after another."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def pass_over(self, lock: threading.Lock) -> None:
        """Whoever holds this lock may keep it; from now on turns are by another one."""
        if self.lock is lock:
            self.lock = threading.Lock()
            metrics.count("camera.turns_passed_over")


class Turn:
    """One thread's turn in a queue, again and again: `with turn: …`."""

    def __init__(self, queue: Queue, *, hangs_after_s: float = HANGS_AFTER_S) -> None:
        self._queue = queue
        self._hangs_after_s = hangs_after_s
        self._held: threading.Lock | None = None

    def __enter__(self) -> None:
        lock = self._queue.lock
        while not lock.acquire(timeout=self._hangs_after_s):
            self._queue.pass_over(lock)
            lock = self._queue.lock
        self._held = lock

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None) -> None:
        assert self._held is not None
        self._held.release()


_CORES = os.cpu_count() or 1
_DECODING = [Queue() for _ in range(_CORES)]
_WATCHING = [Queue() for _ in range(max(1, _CORES // 2))]
_numbers = count()


def decoding() -> Turn:
    """A turn at decoding, for one thread."""
    return Turn(_DECODING[next(_numbers) % len(_DECODING)])


def watching() -> Turn:
    """A turn at looking at pictures, for one thread; not to be waited for within a turn at decoding."""
    return Turn(_WATCHING[next(_numbers) % len(_WATCHING)])
