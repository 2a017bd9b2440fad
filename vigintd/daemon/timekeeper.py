"""Keeps lived time, and says when somebody has set the wall clock.

Owns when that is looked at and written down. Nothing depends on being told: what is due and what may be deleted goes by
lived time in any case (see `lived`).
"""

from __future__ import annotations

import structlog

from vigintd.clock import Clock
from vigintd.journal import Journal
from vigintd.lived import notice

log = structlog.get_logger(__name__)

LOOK_S = 2.0
KEEP_S = 300.0
"""So much lived time is lost at most when the machine loses its power; a process that dies loses none."""


class Timekeeper:
    """Watches the clocks; `run` does so for ever."""

    def __init__(self, *, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._seen = journal.lived.resumed_from or journal.lived.mark()
        self._kept_s = clock.monotonic_s()

    async def run(self) -> None:
        """Look now and then, for ever."""
        while True:
            await self.run_once()
            await self._clock.sleep(LOOK_S)

    async def run_once(self) -> None:
        """Say what the wall clock did since the last look; the first one looks back at the process before this one."""
        now = self._journal.lived.mark()
        said = notice(self._seen, now)
        if said:
            log.warning(said.event, by_s=said.by_s, wall=now.wall.isoformat(timespec="seconds"))
        self._seen = now
        if said or now.monotonic_s >= self._kept_s + KEEP_S:
            self._kept_s = now.monotonic_s
            await self._journal.keep_time()
