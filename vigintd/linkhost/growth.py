"""Word of a growing clip: readers wait here for the next change, and writers for their turn at a part.

Owns what lives only while the process does. Loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Growth:
    """Tells everyone who follows a clip that it has changed. Holds one future a clip that is being followed."""

    def __init__(self) -> None:
        self._tickets: dict[str, asyncio.Future[None]] = {}
        self.closed = False

    def ticket(self, clip_id: str) -> asyncio.Future[None]:
        """Done at the next change. Take it, then look at the clip, then wait: so no change is missed.

        Shared: wait for it with `asyncio.wait`, which does not cancel it.
        """
        ticket = self._tickets.get(clip_id)
        if ticket is None:
            ticket = self._tickets[clip_id] = asyncio.get_running_loop().create_future()
            if self.closed:
                ticket.set_result(None)
        return ticket

    def changed(self, clip_id: str) -> None:
        """Bytes were committed, a part was sealed or reset, the metadata or the clip's being changed."""
        ticket = self._tickets.pop(clip_id, None)
        if ticket is not None and not ticket.done():
            ticket.set_result(None)

    def close(self) -> None:
        """Wake every follower for the last time; they end."""
        self.closed = True
        for clip_id in list(self._tickets):
            self.changed(clip_id)


class Superseded(Exception):
    """A newer request of the same client wants the part; the old one's connection is as good as dead."""


class Turn:
    """The right to change one part, held by one request at a time."""

    def __init__(self) -> None:
        self._superseded = False
        self._deadline: asyncio.Timeout | None = None

    def supersede(self) -> None:
        """Ask the holder to give up waiting for its client; what it does after that it finishes."""
        self._superseded = True
        if self._deadline is not None:
            self._deadline.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def patience(self, seconds: float) -> AsyncGenerator[None]:
        """Wait at most so long for the client. Raises `TimeoutError`, or `Superseded` where another took over."""
        if self._superseded:
            raise Superseded
        try:
            async with asyncio.timeout(seconds) as self._deadline:
                yield
        except TimeoutError:
            if self._superseded:
                raise Superseded from None
            raise
        finally:
            self._deadline = None


class _Line:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.holder: Turn | None = None
        self.members = 0


class Turns:
    """Gives out turns by part: whoever comes makes the holder hurry, then waits for it to finish."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, int], _Line] = {}

    @asynccontextmanager
    async def take(self, clip_id: str, part: int) -> AsyncGenerator[Turn]:
        """Hold the turn of this part."""
        key = (clip_id, part)
        line = self._lines.setdefault(key, _Line())
        line.members += 1
        try:
            if line.holder is not None:
                line.holder.supersede()
            async with line.lock:
                line.holder = Turn()
                try:
                    yield line.holder
                finally:
                    line.holder = None
        finally:
            line.members -= 1
            if line.members == 0:
                del self._lines[key]
