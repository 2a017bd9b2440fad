"""A clock that moves by hand."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from datetime import UTC, datetime, timedelta


class ManualClock:
    """Both clocks stand still until `advance`; sleepers wake in the order of their times."""

    def __init__(self, now: datetime = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC), monotonic_s: float = 1000.0) -> None:
        self._now = now
        self._monotonic_s = monotonic_s
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._slept = asyncio.Condition()

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def now(self) -> datetime:
        return self._now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic_s + seconds, next(self._order), waiter))
        async with self._slept:
            self._slept.notify_all()
        await waiter

    async def asleep(self, count: int = 1) -> None:
        """Wait until at least so many sleepers wait."""
        async with self._slept:
            await self._slept.wait_for(lambda: sum(not sleeper.done() for _, _, sleeper in self._sleepers) >= count)

    async def advance(self, seconds: float) -> None:
        """Move both clocks on, waking every sleeper at its own moment."""
        end_s = self._monotonic_s + seconds
        # The wall clock counts in whole microseconds, so moments that are the same differ by a few.
        while self._sleepers and self._sleepers[0][0] <= end_s + 1e-4:
            wake_s, _, waiter = heapq.heappop(self._sleepers)
            self._move(wake_s - self._monotonic_s)
            if not waiter.done():
                waiter.set_result(None)
            # Let what was woken run, and perhaps sleep again, before time goes on.
            for _ in range(10):
                await asyncio.sleep(0)
        self._move(max(0.0, end_s - self._monotonic_s))

    def jump(self, seconds: float) -> None:
        """Set the wall clock alone on or back, as an operator or NTP does."""
        self._now += timedelta(seconds=seconds)

    def _move(self, seconds: float) -> None:
        self._monotonic_s += seconds
        self._now += timedelta(seconds=seconds)
