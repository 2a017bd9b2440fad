"""The proxy does to a connection what its faults say, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.real.fault_proxy import FaultProxy, Spot
from tests.real.network_faults import Answer, Corrupt, HalfClose, Latency, Rate, Reset, Stall

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Server:
    """Keeps what it hears, says it back in capitals, and at its end says goodbye."""

    def __init__(self) -> None:
        self.heard = b""
        self.broken = asyncio.Event()
        self.ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(100):
                self.heard += piece
                writer.write(piece.upper())
                await writer.drain()
            self.ended.set()
            writer.write(b"BYE")
            await writer.drain()
        except ConnectionError:
            self.broken.set()
        writer.close()


@asynccontextmanager
async def line() -> AsyncIterator[tuple[FaultProxy, Server]]:
    behind = Server()
    listener = await asyncio.start_server(behind.serve, "127.0.0.1", 0)
    proxy = FaultProxy("127.0.0.1", listener.sockets[0].getsockname()[1])
    await proxy.up()
    try:
        async with asyncio.timeout(10):
            yield proxy, behind
    finally:
        await proxy.down()
        listener.close()
        await listener.wait_closed()


@asynccontextmanager
async def calling(proxy: FaultProxy) -> AsyncIterator[Ends]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def say(ends: Ends, *pieces: bytes) -> None:
    for piece in pieces:
        ends[1].write(piece)
        await ends[1].drain()
        await asyncio.sleep(0)


async def test_without_a_fault_everything_passes_to_the_end():
    async with line() as (proxy, server), calling(proxy) as ends:
        await say(ends, b"hello, ", b"world")
        ends[1].write_eof()
        assert await ends[0].read() == b"HELLO, WORLDBYE"
        assert server.heard == b"hello, world"
        assert proxy.connections == 1


@pytest.mark.parametrize("pieces", [(b"a mark and",), (b"a ma", b"rk a", b"nd"), tuple(b"%c" % byte for byte in b"a mark and")])
async def test_a_spot_is_found_however_the_bytes_are_cut(pieces):
    """Two marks, and then two bytes: what comes before passes, and nothing else, and both ends are reset."""
    async with line() as (proxy, server), calling(proxy) as ends:
        fault = proxy.strike(Reset(Spot("up", (b"a", b"rk "), 2)))
        await say(ends, *pieces)
        with pytest.raises(ConnectionResetError):
            await ends[0].read()
        await server.broken.wait()
        assert server.heard == b"a mark an"
        assert fault.fired == 1


async def test_a_fault_shows_as_often_as_it_was_meant_to():
    async with line() as (proxy, _server):
        fault = proxy.strike(Corrupt(Spot("down", (), 1), mask=b"\x20", times=2))
        for heard in (b"HeLLO", b"HeLLO", b"HELLO"):
            async with calling(proxy) as ends:
                await say(ends, b"hello")
                assert await ends[0].readexactly(5) == heard
        assert fault.fired == 2


async def test_a_stalled_line_lives_and_is_silent():
    async with line() as (proxy, server), calling(proxy) as ends:
        fault = proxy.strike(Stall(Spot("up", (), 3)))
        await say(ends, b"hello")
        assert await ends[0].readexactly(3) == b"HEL"
        assert (fault.fired, server.heard) == (1, b"hel")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ends[0].read(1), 0.05)  # nothing comes: there is nothing else to wait for


async def test_a_line_that_is_half_closed_still_carries_the_other_way():
    async with line() as (proxy, server), calling(proxy) as ends:
        fault = proxy.strike(HalfClose(Spot("up", (), 3)))
        await say(ends, b"hello")
        assert await ends[0].read() == b"HELBYE"
        await server.ended.wait()
        assert fault.fired == 1


async def test_somebody_else_may_answer():
    async with line() as (proxy, server), calling(proxy) as ends:
        fault = proxy.strike(Answer(Spot("up", (b"hel",)), b"not here"))
        await say(ends, b"hello")
        assert await ends[0].read() == b"not here"
        ends[1].write_eof()
        await server.ended.wait()
        assert (fault.fired, server.heard) == (1, b"")


async def test_slow_lines_lose_nothing():
    async with line() as (proxy, _server), calling(proxy) as ends:
        faults = [proxy.strike(Latency("up", 0.01)), proxy.strike(Rate("down", 1000, 2))]
        before_s = asyncio.get_running_loop().time()
        await say(ends, b"hello, world")
        assert await ends[0].readexactly(12) == b"HELLO, WORLD"
        assert asyncio.get_running_loop().time() - before_s > 0.02
        assert all(fault.fired for fault in faults)


async def test_a_server_that_is_down_refuses_and_comes_back_on_its_port():
    async with line() as (proxy, _server), calling(proxy) as ends:
        await say(ends, b"hello")
        await ends[0].readexactly(5)
        await proxy.down()
        with pytest.raises(ConnectionResetError):
            await ends[0].read()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
        await proxy.up()
        async with calling(proxy) as again:
            await say(again, b"again")
            assert await again[0].readexactly(5) == b"AGAIN"
