"""The door: takes connections in from the network, shakes hands where there is TLS, and lets nobody stand in it.

Owns the listening sockets. A connection counts among the `connections` only once it is through; before that
it is bounded here, in number and in time.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast

import structlog

from vigintd import metrics
from vigintd.linkhost.proxies import HouseholdOf

HANDSHAKE_S = 10.0
"""TLS has so long to be agreed."""
FAREWELL_S = 2.0
"""And so long to be ended in order; who is closed does not count among the connections any more."""
MAX_HANDSHAKES = 100
"""At a time; beyond, the oldest is given up."""
MAX_HANDSHAKES_OF_ONE = 20
"""Of one household, in the same way."""
UNSENT_BYTES = 128 * 1024
"""What the kernel takes of an answer beyond what is on its way, so that we soon see how fast a viewer really reads."""

_PAUSE_S = 0.2
"""After an error of the listening socket itself: no descriptors, no memory, no network."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Entering:
    household: str | None
    taken: socket.socket | None
    """None once it belongs to a transport, which closes it."""


class Door:
    """Some listening sockets, and those that stand before them. Loop only."""

    def __init__(
        self, factory: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext | None, household_of: HouseholdOf
    ) -> None:
        self._factory = factory
        self._context = context
        self._household_of = household_of
        self._listeners: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._entering: dict[asyncio.Task[None], _Entering] = {}

    def open(self, host: str, port: int, *, backlog: int) -> int:
        """Listen on every address that `host` has here; answers the port. Raises `OSError`."""
        self._listeners = _listeners(host, port, backlog)
        self._accepting = [asyncio.create_task(self._accept(one), name="link host door") for one in self._listeners]
        return int(self._listeners[0].getsockname()[1])

    async def aclose(self) -> None:
        """Listen no more; who stands in the door is turned away."""
        for task in (tasks := [*self._accepting, *self._entering]):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for listener in self._listeners:
            listener.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        failed = False
        while True:
            try:
                taken, peer = await loop.sock_accept(listener)
            except OSError as error:
                metrics.count("linkhost.accept_failed")
                if not failed:
                    _log.warning("linkhost.accept_failed", error=error.strerror)
                failed = True
                await asyncio.sleep(_PAUSE_S)
                continue
            failed = False
            self._let_in(taken, self._household_of(peer[0]))
            # What waits already is accepted without a pause, and those who were let in would not get their turn.
            await asyncio.sleep(0)

    def _let_in(self, taken: socket.socket, household: str | None) -> None:
        task = asyncio.create_task(self._enter(taken))
        self._entering[task] = _Entering(household, taken)
        task.add_done_callback(self._entered)
        alike = [
            other for other, entering in self._entering.items() if household is not None and entering.household == household
        ]
        if len(alike) > MAX_HANDSHAKES_OF_ONE or len(self._entering) > MAX_HANDSHAKES:
            metrics.count("linkhost.handshake_dropped")
            oldest = alike[0] if len(alike) > MAX_HANDSHAKES_OF_ONE else next(iter(self._entering))
            oldest.cancel()

    async def _enter(self, taken: socket.socket) -> None:
        try:
            taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
            # From here on a transport closes it, also when this is cancelled.
            self._entering[cast("asyncio.Task[None]", asyncio.current_task())].taken = None
            deadlines = (HANDSHAKE_S, FAREWELL_S) if self._context else (None, None)
            await asyncio.get_running_loop().connect_accepted_socket(
                self._factory,
                taken,
                ssl=self._context,
                ssl_handshake_timeout=deadlines[0],
                ssl_shutdown_timeout=deadlines[1],
            )
        except OSError:
            # Also what is no TLS, and a handshake that takes too long.
            metrics.count("linkhost.handshake_failed")

    def _entered(self, task: asyncio.Task[None]) -> None:
        entering = self._entering.pop(task)
        if entering.taken is not None:
            entering.taken.close()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("linkhost.connection_failed", error=type(error).__name__)


def _listeners(host: str, port: int, backlog: int) -> list[socket.socket]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    lacking: OSError | None = None
    with ExitStack() as undo:
        for family, address in dict.fromkeys((info[0], info[4]) for info in found):
            # Who listens on every address of IPv6 means those of IPv4 too.
            both = address[0] == "::" and socket.has_dualstack_ipv6()
            try:
                listener = socket.create_server(
                    (str(address[0]), int(address[1])), family=family, backlog=backlog, dualstack_ipv6=both
                )
            except OSError as error:
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
                lacking = error  # a name may have addresses that this machine does not
                continue
            undo.callback(listener.close)
            listener.settimeout(0)
            listeners.append(listener)
        if lacking is not None and not listeners:
            raise lacking
        undo.pop_all()
    return listeners
