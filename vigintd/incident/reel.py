"""An incident's clip as its publisher sees it: its parts in order, whether they still grow or lie sealed in the spool.

Owns the hand-over between who records and who publishes, and nothing else. Event loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Self

from vigintd.publish.uploader import GrowingPart


class Reel:
    """Parts in order, as they begin, until there will be no more. The recorder caps their number."""

    def __init__(self) -> None:
        self.pictured = asyncio.Event()
        """The snapshot is kept, or could not be had: alerts need not wait for it."""
        self._parts: list[GrowingPart] = []
        self._is_over = False
        self._changed = asyncio.Event()

    @classmethod
    def of(cls, parts: Sequence[GrowingPart]) -> Self:
        """A clip that is over already."""
        reel = cls()
        reel.pictured.set()
        for part in parts:
            reel.add(part)
        reel.end()
        return reel

    def add(self, part: GrowingPart) -> None:
        """One more part has begun."""
        self._parts.append(part)
        self._changed.set()

    def end(self) -> None:
        """No more parts will come."""
        self._is_over = True
        self._changed.set()

    async def begins(self) -> bool:
        """Wait for the first part; False when it is over without one."""
        while not (self._parts or self._is_over):
            self._changed.clear()
            await self._changed.wait()
        return bool(self._parts)

    async def parts(self) -> AsyncGenerator[GrowingPart]:
        """Every part from the first on, each as soon as it has begun; ends when no more will come."""
        number = 0
        while True:
            self._changed.clear()
            if number < len(self._parts):
                yield self._parts[number]
                number += 1
            elif self._is_over:
                return
            else:
                await self._changed.wait()
