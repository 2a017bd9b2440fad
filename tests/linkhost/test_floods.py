"""Crowds and dawdlers: whoever holds on to a connection costs little, and keeps nobody else from watching."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tracemalloc

import pytest

from tests.linkhost.attackers import slow_head, stalled_reader
from tests.linkhost.client import BASE_URL, CLIP, GUARD, OTHER_CLIP, inside, path_of
from tests.linkhost.videos import fragments, video
from vigintd import metrics
from vigintd.linkhost import LinkHost
from vigintd.linkhost.store import Store


async def large(client) -> str:
    """The path of two megabytes, more than the kernel holds for who reads nothing."""
    path = path_of((await client.create()).json["links"][GUARD])
    await client.append(bytes(1_900_000), 0)
    return inside(path, "part/0.mp4")


async def test_who_reads_nothing_costs_a_block_each(client, host):
    """Thirty viewers of two megabytes who take nothing: far less than what they asked for is held."""
    path = await large(client)
    async with contextlib.AsyncExitStack() as crowd:
        tracemalloc.start()
        crowd.callback(tracemalloc.stop)
        for _ in range(30):
            await crowd.enter_async_context(stalled_reader(host.port, path))
        assert (await client.ask("GET", "/robots.txt")).status == 200
        assert tracemalloc.get_traced_memory()[1] < 30 * 300_000


async def test_a_hundred_that_come_at_once_all_come_in(client, host):
    """They stand in the backlog together, and none of them is taken for one who stalls."""
    requests = [asyncio.create_task(one_request(host.port)) for _ in range(120)]
    assert await asyncio.gather(*requests) == [b"HTTP/1.1 200"] * 120
    assert "linkhost.handshake_dropped" not in metrics.snapshot()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
async def test_every_address_of_ipv6_is_every_address(tmp_path, clock):
    """`[::]` is reached by IPv4 as well."""
    other = LinkHost(tmp_path / "other", base_url=BASE_URL, api_keys={}, clock=clock)
    await other.start(listen=("::", 0), unix_path=None)
    try:
        assert await one_request(other.port) == b"HTTP/1.1 200"
        assert await one_request(other.port, "::1") == b"HTTP/1.1 200"
    finally:
        await other.aclose()


async def one_request(port: int, address: str = "127.0.0.1") -> bytes:
    reader, writer = await asyncio.open_connection(address, port)
    writer.write(b"GET /robots.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer[:12]


async def test_what_strangers_left_behind_ends_with_the_host(tmp_path, clock, log_text, monkeypatch):
    """A request whose client has gone is still under way when the host stops: it ends before the database does."""
    monkeypatch.setattr("vigintd.linkhost.host.SHUTDOWN_S", 0.1)
    other = LinkHost(tmp_path / "other", base_url=BASE_URL, api_keys={}, clock=clock)
    await other.start(listen=("127.0.0.1", 0), unix_path=None)
    asked, ended = asyncio.Event(), asyncio.Event()

    async def forever(_store: Store, _clip_id: str) -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(Store, "clip", forever)
    _, writer = await asyncio.open_connection("127.0.0.1", other.port)
    writer.write(f"GET /video/{CLIP}?token=x HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await asked.wait()
    writer.transport.abort()
    async with asyncio.timeout(5):
        await other.aclose()
    assert ended.is_set()
    assert "request_failed" not in log_text()


async def test_two_hundred_slow_heads_and_fifty_stalled_readers_leave_a_viewer_served(client, host):
    """All of them are still there when the viewer has the whole clip."""
    link = await client.publish(data := video(2), clip=OTHER_CLIP)
    path = await large(client)
    async with contextlib.AsyncExitStack() as crowd:
        slow = [await crowd.enter_async_context(slow_head(host.port)) for _ in range(200)]
        stalled = [await crowd.enter_async_context(stalled_reader(host.port, path)) for _ in range(50)]
        assert (await client.ask("GET", inside(link, "part/0.mp4"))).body == data
        assert not any(reader.at_eof() for reader in slow)
        for sock in stalled:
            assert sock.recv(1, socket.MSG_PEEK) == b"T"
    assert "linkhost.connection_dropped" not in metrics.snapshot()


async def test_a_slow_phone_is_served_to_the_end_where_a_stalled_one_is_not(client, host, monkeypatch):
    """What counts is that it goes on: much longer in all than the silence that is allowed, and never so long at once."""
    monkeypatch.setattr("vigintd.linkhost.media.STALL_S", 2.0)
    path = await large(client)
    loop = asyncio.get_running_loop()
    async with stalled_reader(host.port, path):
        with socket.socket() as phone:
            phone.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            phone.setblocking(False)
            await loop.sock_connect(phone, ("127.0.0.1", host.port))
            await loop.sock_sendall(phone, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            begun_s, got = loop.time(), 0
            while piece := await loop.sock_recv(phone, 100_000):
                got += len(piece)
                await asyncio.sleep(0.12)  # a phone on a slow line
        assert loop.time() - begun_s > 2
        assert got > 1_900_000
    assert metrics.snapshot()["linkhost.stalled_reader"][""] == 1


async def test_a_follower_that_speaks_http_1_0_gets_the_bytes_as_they_come(client, host):
    """Without chunks, and the end of the connection is the end of the part."""
    pieces = fragments(data := video(2))
    path = inside(path_of((await client.create()).json["links"][GUARD]), "live/0.mp4")
    await client.append(pieces[0], 0)
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"chunked" not in head.lower()
        assert await reader.readexactly(len(pieces[0])) == pieces[0]
        await client.append(data[len(pieces[0]) :], len(pieces[0]))
        await client.seal(data)
        assert await reader.read() == data[len(pieces[0]) :]
        writer.close()


async def test_a_follower_that_speaks_http_1_0_is_told_of_a_break(client, host):
    """By a reset: an orderly end would pass for the end of the part."""
    path = inside(path_of((await client.create()).json["links"][GUARD]), "live/0.mp4")
    await client.create(part=1)
    await client.append(b"a" * 1000, 0)
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        await reader.readuntil(b"a" * 1000)
        assert (await client.api("DELETE", f"/uploads/{CLIP}.0")).status == 204
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
