"""A TCP proxy before a real server, whose faults a test switches on.

Owns the pumping of bytes, the finding of the place where a fault shows, and the count of how often it did; what faults do is in
`network_faults`. Knows no protocol: a place is known by what passes there. So it sees into no TLS; a fault that has to, a
scripted server must make.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, TypeVar

PIECE_BYTES = 64 << 10

Way = Literal["up", "down"]
"""From the client to the server, or back."""


@dataclass(frozen=True)
class Spot:
    """A place in what goes one way: `skip` bytes behind the last of `after`, each of which is sought behind the one before."""

    way: Way
    after: tuple[bytes, ...] = ()
    skip: int = 0


class _Seeker:
    """Looks for a spot in bytes that come in pieces."""

    def __init__(self, spot: Spot) -> None:
        self._marks = list(spot.after)
        self._skip = spot.skip
        self._tail = b""
        self._found = False

    def find(self, piece: bytes) -> int | None:
        """The index in `piece` of the first byte at the spot, once."""
        if self._found:
            return None
        at = 0
        while self._marks:
            seen = self._tail + piece[at:]
            index = seen.find(self._marks[0])
            if index < 0:
                # So much may be the beginning of the mark.
                self._tail = seen[len(seen) - min(len(seen), len(self._marks[0]) - 1) :]
                return None
            at += index + len(self._marks.pop(0)) - len(self._tail)
            self._tail = b""
        if at + self._skip >= len(piece):
            self._skip -= len(piece) - at
            return None
        self._found = True
        return at + self._skip


class Over(Exception):
    """The connection has ended by a fault."""


class Fault:
    """What goes wrong at a spot, on at most `times` connections; `fired` counts them."""

    def __init__(self, spot: Spot, *, times: int = 1) -> None:
        self.spot = spot
        self.fired = 0
        self._times = times

    @property
    def spent(self) -> bool:
        """It shows no more."""
        return self.fired >= self._times

    def reached(self, link: Link, piece: bytes) -> int | None:
        """Where in `piece` it shows, if it does."""
        return link.seekers.setdefault(self, _Seeker(self.spot)).find(piece)

    async def act(self, link: Link, piece: bytes, at: int) -> bytes:
        """Do it to `piece`, in which the spot is at `at`; answers what goes on of it, or raises `Over`."""
        return piece


@dataclass(eq=False)
class Link:
    """One connection of a client, and the one to the server that was made for it."""

    ends: dict[Way, tuple[asyncio.StreamReader, asyncio.StreamWriter]]
    """For each way, where it is read and where it is written."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    seekers: dict[Fault, _Seeker] = field(default_factory=dict)

    async def receive(self, way: Way) -> bytes:
        """The next piece; nothing when there will be none."""
        return await self.ends[way][0].read(PIECE_BYTES)

    async def send(self, way: Way, data: bytes) -> None:
        """Pass it on."""
        writer = self.ends[way][1]
        writer.write(data)
        await writer.drain()

    async def drain(self, way: Way) -> None:
        """Read to the end what goes no further; unread, it would turn the end into a reset, which overtakes an answer."""
        while await self.receive(way):
            pass

    def end(self, way: Way) -> None:
        """FIN to whom this way leads."""
        writer = self.ends[way][1]
        if not writer.is_closing():
            with suppress(OSError):  # it went first
                writer.write_eof()

    def reset(self) -> None:
        """RST to both."""
        for _, writer in self.ends.values():
            if not writer.is_closing():
                sock: socket.socket = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        self.over.set()


_Fault = TypeVar("_Fault", bound=Fault)


class FaultProxy:
    """Listens on a port of this machine for the server at `host`, `port`."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._faults: list[Fault] = []
        self._links: dict[Link, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None
        self.port = 0
        self.connections = 0

    async def up(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def down(self) -> None:
        """Refuse connections, and reset those there are."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        tasks = list(self._links.values())
        for link in tuple(self._links):
            link.reset()
        await asyncio.gather(*tasks)
        await server.wait_closed()

    def strike(self, fault: _Fault) -> _Fault:
        """Switch a fault on, beside those that are."""
        self._faults.append(fault)
        return fault

    def recover(self) -> None:
        """Switch every fault off."""
        self._faults.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            from_server, to_server = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        link = Link({"up": (reader, to_server), "down": (from_server, writer)})
        task = asyncio.current_task()
        assert task
        self._links[link] = task
        try:
            await asyncio.gather(self._pump(link, "up"), self._pump(link, "down"))
        finally:
            link.over.set()
            del self._links[link]
            writer.close()
            to_server.close()

    async def _pump(self, link: Link, way: Way) -> None:
        try:
            while piece := await link.receive(way):
                for fault in tuple(self._faults):
                    at = fault.reached(link, piece) if fault.spot.way == way and not fault.spent else None
                    if at is not None:
                        fault.fired += 1
                        piece = await fault.act(link, piece, at)
                await link.send(way, piece)
        except Over:
            pass
        except OSError:
            link.reset()
        link.end(way)
