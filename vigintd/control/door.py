"""The door of the control socket: lets callers in, a few at once, and each for a while.

Owns how many connections there are and how long one may last. Who finds no room waits in the socket's own queue, which
costs the daemon nothing; where that is full, the caller is told by the kernel. Knows nothing of what is asked. Event loop
only.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

import structlog

MOST_INSIDE = 64
"""Connections at once. A descriptor each, of the usual 1024 of a process; and those who wait for the same row are answered in
one turn of the loop, at about 0.25 ms each."""
QUEUE = 4096
"""Callers that wait to be let in; fewer where net.core.somaxconn is smaller (listen(2))."""
LIFE_S = 30.0
"""A connection is cut after so long, whatever it was about: our own client gives up long before."""
_NO_DESCRIPTOR_S = 1.0
"""Where the process has no descriptor left, nobody is let in for so long."""

log = structlog.get_logger(__name__)


class Door:
    """Gives each caller of a listening socket a protocol, in order, one a turn of the loop, between `open` and `aclose`."""

    def __init__(self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> None:
        self._listener = listener
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._inside = 0
        self._is_watched = False
        self._entering: set[asyncio.Task[object]] = set()
        self._later: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Let callers in."""
        self._listener.listen(QUEUE)
        self._watch()

    async def aclose(self) -> None:
        """Let nobody in any more; who waited is cut off, who is inside stays."""
        self._look_away()
        if self._later is not None:
            self._later.cancel()
        self._listener.close()
        await asyncio.gather(*self._entering, return_exceptions=True)

    def _watch(self) -> None:
        self._is_watched = True
        self._loop.add_reader(self._listener, self._let_in)

    def _look_away(self) -> None:
        if self._is_watched:
            self._is_watched = False
            self._loop.remove_reader(self._listener)

    def _let_in(self) -> None:
        """One caller a turn, so that a thousand of them do not hold the loop up."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            log.error("control.full", error=str(error))
            self._look_away()
            self._later = self._loop.call_later(_NO_DESCRIPTOR_S, self._watch)
            return
        connection.setblocking(False)  # noqa: FBT003 - the standard library's
        self._inside += 1
        if self._inside >= MOST_INSIDE:
            self._look_away()
        caller = _Caller(self._protocol(), self._note_gone)
        entering = self._loop.create_task(self._loop.connect_accepted_socket(lambda: caller, connection))
        self._entering.add(entering)
        entering.add_done_callback(self._entering.discard)

    def _note_gone(self) -> None:
        self._inside -= 1
        if not self._is_watched and self._listener.fileno() >= 0:
            self._watch()


class _Caller(asyncio.Protocol):
    """A connection's protocol, with a word when it ends, and an end in any case."""

    def __init__(self, protocol: asyncio.Protocol, gone: Callable[[], None]) -> None:
        self._protocol = protocol
        self._gone = gone
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        abort = cast("asyncio.Transport", transport).abort
        self._end = asyncio.get_running_loop().call_later(LIFE_S, abort)
        self._protocol.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self._end is not None:
            self._end.cancel()
        self._gone()
        self._protocol.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass on."""
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        """Pass on."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        self._protocol.resume_writing()
