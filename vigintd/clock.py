"""Injected time: monotonic seconds for durations, aware wall-clock time for labels.

Owns the only reading of the machine's clocks. Everything that waits or dates something takes a `Clock` by
argument; a test passes one that it moves by hand. A whole process can be given another wall clock by the
environment variable `VIGINTD_TEST_CLOCK_FILE` (see `SystemClock`).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol


class Clock(Protocol):
    """What the rest of the code knows of time. `monotonic_s` and `now` may be called from any thread."""

    def monotonic_s(self) -> float:
        """Seconds on a clock that never goes back, one for all processes of a machine; only differences mean anything."""
        ...

    def now(self) -> datetime:
        """The wall clock, aware, in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of monotonic time."""
        ...


class SystemClock:
    """The machine's clocks, the wall clock shifted by an offset that a test may set for the whole process.

    With `offset_file`, the wall clock is the machine's plus the seconds written in that file, read again at
    every call, so that a test can age links or jump years while the daemon runs. Monotonic time is never
    shifted. A missing or unreadable file is an offset of zero.
    """

    def __init__(self, offset_file: Path | None = None) -> None:
        self._offset_file = offset_file

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> SystemClock:
        """The clock of this process: shifted where `VIGINTD_TEST_CLOCK_FILE` names a file."""
        name = environ.get("VIGINTD_TEST_CLOCK_FILE")
        return cls(Path(name) if name else None)

    def monotonic_s(self) -> float:
        """Seconds of `time.monotonic`."""
        return time.monotonic()

    def now(self) -> datetime:
        """The wall clock in UTC, plus the offset where one is set; an offset beyond the calendar is none."""
        now = datetime.now(UTC)
        try:
            return now + self._offset()
        except OverflowError:
            return now

    async def sleep(self, seconds: float) -> None:
        """`asyncio.sleep`."""
        await asyncio.sleep(seconds)

    def _offset(self) -> timedelta:
        if self._offset_file is None:
            return timedelta()
        try:
            return timedelta(seconds=float(self._offset_file.read_text(encoding="ascii")))
        except (OSError, ValueError, OverflowError):
            return timedelta()


async def first_of(clock: Clock, *futures: asyncio.Future[Any], within_s: float | None = None) -> bool:
    """Wait until one of the futures is done, at most `within_s` seconds (None: for ever); False when none was in time.

    The futures are left as they are, done or not.
    """
    timer: asyncio.Future[Any] | None = None
    if within_s is not None:
        timer = asyncio.ensure_future(clock.sleep(within_s))
    try:
        await asyncio.wait([*futures, timer] if timer else futures, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if timer:
            timer.cancel()
    return any(future.done() for future in futures)


async def any_set(clock: Clock, *events: asyncio.Event, within_s: float | None = None) -> bool:
    """Wait until one of the events is set, at most `within_s` seconds (None: for ever); False when none was in time."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await first_of(clock, *waits, within_s=within_s)
    finally:
        for wait in waits:
            wait.cancel()
    return any(event.is_set() for event in events)
