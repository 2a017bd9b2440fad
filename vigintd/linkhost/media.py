"""Media bytes on their way to a viewer: small blocks, a bounded number of readers, nobody waited for for ever.

Owns the sending; what may be sent to whom was decided before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from aiohttp import hdrs, web

from vigintd import metrics
from vigintd.clock import Clock
from vigintd.linkhost import connections
from vigintd.linkhost.files import BLOCK_BYTES, Files
from vigintd.linkhost.indexes import Film
from vigintd.linkhost.passes import Pass
from vigintd.linkhost.store import Part
from vigintd.linkhost.web import Request
from vigintd.linkhost.wire import Refusal

STALL_S = 60.0
"""A reader who takes nothing for so long is let go; a player that was paused asks again."""
READER_S = 4 * 3600.0
"""The longest that one answer may take."""
LOOK_S = 2.0
"""How often a follower to whom nothing can be sent is looked after."""
MAX_READERS = 100
"""Media answers at a time; beyond, 503."""


Read = Callable[[int, int], Awaitable[bytes]]
"""Takes offset and length; answers at most so many bytes, and fewer at the end."""


class Sender:
    """Sends one part's bytes as one answer's body. `sent` counts what went to the connection."""

    def __init__(self, read: Read, request: Request, response: web.StreamResponse, allowed: Pass, clock: Clock) -> None:
        self.sent = 0
        self._read = read
        self._request = request
        self._response = response
        self._allowed = allowed
        self._clock = clock
        self._end_s = asyncio.get_running_loop().time() + READER_S

    @property
    def over(self) -> bool:
        """The clip's time or this answer's has passed, or the link was revoked."""
        return asyncio.get_running_loop().time() > self._end_s or self._allowed.over(self._clock.now())

    async def send(self, offset_bytes: int, length_bytes: int) -> None:
        """Send these bytes. Raises `ConnectionResetError`, with the connection broken off, where that cannot go on."""
        end = offset_bytes + length_bytes
        while offset_bytes < end:
            block = await self._read(offset_bytes, min(BLOCK_BYTES, end - offset_bytes))
            if not block or self.over:
                self.break_off()
            try:
                async with asyncio.timeout(STALL_S):
                    await self._response.write(block)
            except TimeoutError:
                metrics.count("linkhost.stalled_reader")
                self.break_off()
            offset_bytes += len(block)
            self.sent += len(block)

    async def wait(self, growth: asyncio.Future[None], seconds: float) -> bool:
        """Wait for more to send; False when it does not come, or the viewer has left."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + seconds
        while not growth.done() and loop.time() < end_s:
            # aiohttp does not end a handler whose client has left, so we look from time to time.
            if self._request.transport is None or self._request.transport.is_closing():
                return False
            await asyncio.wait([growth], timeout=LOOK_S)
        return growth.done()

    def break_off(self) -> None:
        """End the connection at once, so that nobody takes what was sent for the whole."""
        if self._request.transport is not None:
            connections.reset(self._request.transport)
        raise ConnectionResetError


class Readers:
    """Opens parts for sending, so many at a time."""

    def __init__(self, files: Files, clock: Clock, limit: int = MAX_READERS) -> None:
        self._files = files
        self._clock = clock
        self._free = limit

    @asynccontextmanager
    async def sending(
        self, request: Request, response: web.StreamResponse, allowed: Pass, part: Part, film: Film
    ) -> AsyncGenerator[Sender]:
        """Begin the answer and lend a sender for its body: the part as it is, or as `film` says."""
        if self._free == 0:
            metrics.count("linkhost.too_many_readers")
            raise Refusal(503, "too many viewers at once", {hdrs.RETRY_AFTER: "5"})
        self._free -= 1
        try:
            async with self._files.outgoing(part.clip_id, part.index) as file:
                await response.prepare(request)
                yield Sender(partial(film.read, file), request, response, allowed, self._clock)
        except FileNotFoundError as error:
            raise Refusal(404, "the part is gone") from error
        finally:
            self._free += 1
