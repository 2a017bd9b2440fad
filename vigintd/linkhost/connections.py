"""Connections kept few, small and moving, whoever is at their other end.

Owns what aiohttp leaves without a bound: how many there are, how much of request heads one may bring before it is
answered, and how long what was written for a client may lie here untaken. Knows nothing of what is asked.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any, cast

from aiohttp import StreamReader, web

from vigintd import metrics
from vigintd.linkhost.proxies import HouseholdOf

MAX_CONNECTIONS = 400
"""Beyond, the oldest that only waits makes room; well under the usual 1024 descriptors of a process."""
MAX_OF_ONE = 100
"""Of one household, in the same way: it may be a phone network, or a site that uploads for many cameras."""
SPARE_CONNECTIONS = 100
"""So many more, where all are busy, are told 503; beyond, they are closed without a word."""
MAX_HEADS_BYTES = 128 * 1024
"""Of all request heads that were not answered yet; one header may have most of it."""
STALL_S = 75.0
"""A client that does not take what was written for it in this time is let go; media has a shorter deadline of its own."""
STUCK_S = 5.0
"""A client that has taken nothing for so long makes room when there are too many."""


Handler = Callable[[Any], Awaitable[web.StreamResponse]]


class Server(web.Server):
    """Makes connections and bounds their number, in all and for each household."""

    def __init__(self, handler: Handler, household_of: HouseholdOf, **settings: object) -> None:
        super().__init__(handler, **settings)  # type: ignore[arg-type]  # passed on
        self._household_of = household_of

    @property
    def open_connections(self) -> int:
        """How many hold a descriptor, now and in a moment."""
        return sum(map(_there, self._connections.values()))

    def __call__(self) -> Connection:
        """A protocol for a new connection."""
        return Connection(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Take it in; beyond a bound another leaves, or else it does itself."""
        super().connection_made(handler, transport)
        made = cast("Connection", handler)
        made.household = self._household_of(_peer(transport))
        kept = [(cast("Connection", held), its) for held, its in self._connections.items() if _there(its)]
        alike = [(held, its) for held, its in kept if made.household is not None and held.household == made.household]
        if len(alike) > MAX_OF_ONE:
            self._make_room(alike, transport, alone=True)
        elif len(kept) > MAX_CONNECTIONS:
            self._make_room(kept, transport, alone=len(kept) - MAX_CONNECTIONS > SPARE_CONNECTIONS)

    def _make_room(
        self, kept: Sequence[tuple[Connection, asyncio.Transport]], newest: asyncio.Transport, *, alone: bool
    ) -> None:
        """Let the oldest go that only waits; where none does and `alone`, the newest itself."""
        waiting = next((its for held, its in kept if held.only_waits and its is not newest), None)
        if waiting is not None:
            metrics.count("linkhost.connection_dropped")
            waiting.abort()
        elif alone:
            metrics.count("linkhost.connection_dropped")
            # Not before aiohttp has begun with it, which it would take for a fault of its own.
            self._loop.call_soon(newest.abort)


class Connection(web.RequestHandler):
    """One connection."""

    __slots__ = ("_body", "_heads_bytes", "_stalled", "household")

    def __init__(self, server: Server, **settings: object) -> None:
        super().__init__(server, **settings)  # type: ignore[arg-type]  # passed on
        self.household: str | None = None
        """For whose share it counts."""
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
        # `pause_writing` is then called as soon as two bytes are not taken at once, also under the last answer. Not at
        # one: with TLS that would be called for no byte at all.
        cast("asyncio.Transport", transport).set_write_buffer_limits(high=1, low=0)
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

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer to what is no request: aiohttp's, without its opinion of what was wrong, which holds what was sent."""
        return super().handle_error(request, status, exc, message and HTTPStatus(status).phrase)

    def _forget_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


def reset(transport: asyncio.Transport) -> None:
    """Break the connection off by a reset (RFC 9293, section 3.5.1), whatever still waits to be sent.

    An orderly end would be taken for the end of an answer that has no length, as those of HTTP/1.0, which proxies speak.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        with suppress(OSError):  # it is gone already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _there(transport: asyncio.Transport) -> bool:
    # One that closes stays as long as it holds bytes that its client does not take.
    return not transport.is_closing() or transport.get_write_buffer_size() > 0


def _peer(transport: asyncio.Transport) -> str | None:
    peer = transport.get_extra_info("peername")
    # A unix socket's peer has no name, or an empty text for one.
    return str(peer[0]) if isinstance(peer, tuple) else None


def _let_go(transport: asyncio.Transport) -> None:
    metrics.count("linkhost.stalled_connection")
    reset(transport)
