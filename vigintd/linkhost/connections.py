"""Connections kept few, small and moving, whoever is at their other end.

Owns what aiohttp leaves without a bound: how many there are, how much of request heads one may bring before it is
answered, and how long what was written for a client may lie here untaken. Knows nothing of what is asked.
"""

from __future__ import annotations

import asyncio
from typing import cast

from aiohttp import StreamReader, web

from vigintd import metrics

MAX_CONNECTIONS = 400
"""Beyond, the oldest that only waits makes room; well under the usual 1024 descriptors of a process."""
SPARE_CONNECTIONS = 100
"""So many more, where all are busy, are told 503; beyond, they are closed without a word."""
MAX_HEADS_BYTES = 128 * 1024
"""Of all request heads that were not answered yet; one header may have most of it."""
STALL_S = 75.0
"""A client that does not take what was written for it in this time is let go; media has a shorter deadline of its own."""
STUCK_S = 5.0
"""A client that has taken nothing for so long makes room when there are too many."""


class Server(web.Server):
    """Makes connections and bounds their number."""

    @property
    def open_connections(self) -> int:
        """How many hold a descriptor, now and in a moment."""
        return sum(map(_there, self._connections.values()))

    def __call__(self) -> Connection:
        """A protocol for a new connection."""
        return Connection(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Take it in; beyond the bound another leaves, or else it does itself."""
        super().connection_made(handler, transport)
        excess = self.open_connections - MAX_CONNECTIONS
        if excess <= 0:
            return
        kept = ((cast("Connection", held), its) for held, its in self._connections.items() if _there(its))
        waiting = next((its for held, its in kept if held.only_waits), None)
        if waiting is not None:
            metrics.count("linkhost.connection_dropped")
            waiting.abort()
        elif excess > SPARE_CONNECTIONS:
            metrics.count("linkhost.connection_dropped")
            # Not before aiohttp has begun with it, which it would take for a fault of its own.
            self._loop.call_soon(transport.abort)


class Connection(web.RequestHandler):
    """One connection."""

    __slots__ = ("_body", "_heads_bytes", "_stalled")

    def __init__(self, server: Server, **settings: object) -> None:
        super().__init__(server, **settings)  # type: ignore[arg-type]  # passed on
        self._body: StreamReader | None = None
        self._heads_bytes = 0
        self._stalled: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """There is no whole request that is not answered."""
        return self._waiter is not None and not self._waiter.done()

    @property
    def only_waits(self) -> bool:
        """It is idle, or its client has taken nothing for long: it can be let go to make room."""
        return self.idle or (self._stalled is not None and self._stalled.when() < self._loop.time() + STALL_S - STUCK_S)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # `pause_writing` is then called for any byte that is not taken at once, also under the last answer.
        cast("asyncio.Transport", transport).set_write_buffer_limits(high=0)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._forget_stall()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Something that was written waits for the client."""
        super().pause_writing()
        if self.transport is not None:
            self._stalled = self._loop.call_later(STALL_S, _let_go, self.transport)

    def resume_writing(self) -> None:
        """All that was written has left."""
        self._forget_stall()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Read on, while the heads that wait for their end or their answer are few bytes."""
        was_idle, heads = self.idle, self._request_count
        in_body = self._body is not None and not self._body.is_eof()
        super().data_received(data)
        if self._request_count > heads:
            self._body = self._messages[-1][1]
            if was_idle:
                self._heads_bytes = 0
                return
        if in_body:
            return
        self._heads_bytes += len(data)
        if self._heads_bytes > MAX_HEADS_BYTES and self.transport is not None:
            metrics.count("linkhost.heads_too_large")
            self.transport.abort()

    def _forget_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


def _there(transport: asyncio.Transport) -> bool:
    # One that closes stays as long as it holds bytes that its client does not take.
    return not transport.is_closing() or transport.get_write_buffer_size() > 0


def _let_go(transport: asyncio.Transport) -> None:
    metrics.count("linkhost.stalled_connection")
    transport.abort()
