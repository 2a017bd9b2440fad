"""A clock that is moved by hand, and stands still while a publication or a delivery is at work.

Owns the question whether they are: by the names of their tasks, and whether these sleep.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tests.manual_clock import ManualClock

AT_WORK = ("publish ", "mail ")
"""How publisher and courier name what they have begun."""


class PacedClock(ManualClock):
    """Knows who sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self._sleeping: set[asyncio.Task[Any] | None] = set()

    async def sleep(self, seconds: float) -> None:
        task = asyncio.current_task()
        self._sleeping.add(task)
        try:
            await super().sleep(seconds)
        finally:
            self._sleeping.discard(task)

    async def pass_some(self, step_s: float) -> None:
        """Let `step_s` pass, if everybody only waits for that."""
        if all(task in self._sleeping for task in asyncio.all_tasks() if task.get_name().startswith(AT_WORK)):
            await self.advance(step_s)
        await asyncio.sleep(0.001)  # what is on the line, and the journal's thread, need real time
