"""The pace of what comes faster than real time: files, and playlists whose segments come whole."""

from __future__ import annotations

import threading

from vigintd.clock import Clock
from vigintd.model import MEDIA_CLOCK_HZ

_LATE_S = 1.0
"""What is later than this has had a pause; it goes on in real time from there, instead of being caught up with."""


class Pace:
    """Waits until a packet is due in real time."""

    def __init__(self, clock: Clock, stop: threading.Event) -> None:
        self._clock = clock
        self._stop = stop
        self._began_s: float | None = None
        self._first_dts = 0

    def wait_for(self, dts_90k: int) -> float:
        """When the packet of that time was due, in monotonic seconds, once it is; at once when stopped."""
        now_s = self._clock.monotonic_s()
        if self._began_s is None:
            self._began_s, self._first_dts = now_s, dts_90k
        due_s = self._began_s + (dts_90k - self._first_dts) / MEDIA_CLOCK_HZ
        if now_s - due_s > _LATE_S:
            self._began_s += now_s - due_s
        self._stop.wait(max(0.0, due_s - now_s))
        return max(due_s, now_s)
