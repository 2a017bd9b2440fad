"""The door of the control socket: however many come at once, each is answered, and nobody stays for ever."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.control.test_control import Daemon
from vigintd.control import door
from vigintd.control.client import ControlClient
from vigintd.control.server import ControlServer
from vigintd.errors import ControlError


class Counting(Daemon):
    """Handlers that know how many ask at once."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = 0
        self.most_inside = 0

    async def status(self):
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        await asyncio.sleep(0.001)
        self.inside -= 1
        return {"cameras": {}}


@pytest.fixture
def daemon():
    return Counting()


@pytest.fixture
def path(short_path):
    return short_path / "control.sock"


@pytest.fixture
async def server(path, daemon):
    server = ControlServer(path, daemon)
    await server.start()
    yield server
    await server.aclose()


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """This process can open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def caller(path) -> socket.socket:
    """Somebody who connects and says nothing."""
    silent = socket.socket(socket.AF_UNIX)
    silent.setblocking(False)
    silent.connect(str(path))
    return silent


async def asked(caller: socket.socket) -> None:
    """Ask for the status and be answered; the connection stays."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(caller, b"GET /status HTTP/1.1\r\nHost: vigintd\r\n\r\n")
    async with asyncio.timeout(10):
        assert (await loop.sock_recv(caller, 1000)).startswith(b"HTTP/1.1 200")


async def cut_off(silent: socket.socket) -> None:
    """Wait until the other side has ended it."""
    with suppress(ConnectionResetError):
        async with asyncio.timeout(10):
            assert await asyncio.get_running_loop().sock_recv(silent, 1) == b""


async def test_those_who_find_no_room_wait_outside_and_are_answered(server, path, daemon, monkeypatch):
    monkeypatch.setattr(door, "MOST_INSIDE", 3)
    answers = await asyncio.gather(*(ControlClient(path).status() for _ in range(50)))
    assert answers == [{"cameras": {}}] * 50
    assert daemon.most_inside == 3


async def test_who_says_nothing_does_not_keep_the_others_out(server, path, monkeypatch):
    """Its connection is cut after a while, and makes room."""
    monkeypatch.setattr(door, "MOST_INSIDE", 1)
    monkeypatch.setattr(door, "LIFE_S", 0.05)
    with caller(path) as silent:
        assert await ControlClient(path).status() == {"cameras": {}}
        await cut_off(silent)


async def test_a_daemon_that_can_open_nothing_more_lets_callers_in_later(server, path, daemon, monkeypatch):
    """It says so, and goes on with its other work meanwhile."""
    monkeypatch.setattr(door, "_NO_DESCRIPTOR_S", 0.01)
    told: asyncio.Queue[str] = asyncio.Queue()
    monkeypatch.setattr(door.log, "error", lambda event, **_said: told.put_nowait(event))
    with caller(path) as waiting:
        with no_descriptor_left():
            assert [await told.get(), await told.get()] == ["control.full"] * 2
        await asked(waiting)


async def test_at_the_end_everybody_is_cut_off_inside_and_outside(path, daemon, monkeypatch):
    monkeypatch.setattr(door, "MOST_INSIDE", 1)
    server = ControlServer(path, daemon)
    await server.start()
    with caller(path) as inside, caller(path) as outside:
        await asked(inside)
        await server.aclose()
        await cut_off(inside)
        await cut_off(outside)


async def test_one_who_finds_even_the_queue_full_reads_what_to_do(path):
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        with caller(path), pytest.raises(ControlError, match=r"too many ask vigintd at once .*; try again"):
            await ControlClient(path).trigger("entree")
