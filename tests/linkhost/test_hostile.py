"""What those meet who want the host to fail: crowds, readers that never read, endless heads, other keys' uploads."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import threading
from collections.abc import AsyncIterator

import pytest

from tests.linkhost.client import CLIP, GUARD, OTHER_CLIP, OTHER_KEY, Client, b64, inside, path_of
from tests.linkhost.videos import video
from tests.manual_clock import ManualClock
from vigintd import metrics
from vigintd.linkhost import connections
from vigintd.linkhost.files import Files
from vigintd.linkhost.store import Store


@contextlib.asynccontextmanager
async def connected(host) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What still comes until the host closes."""
    received = b""
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionResetError):
            while data := await reader.read(65536):
                received += data
    return received


async def test_a_crowd_that_says_nothing_makes_room_for_who_asks(client, host, monkeypatch):
    """Beyond the bound the oldest silent connection is closed, and a viewer is served as ever."""
    link = await client.publish(video(2))
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 5)
    async with contextlib.AsyncExitStack() as crowd:
        readers = [(await crowd.enter_async_context(connected(host)))[0] for _ in range(20)]
        assert await rest(readers[0]) == b""
        assert (await client.ask("GET", link)).status == 200
        assert metrics.snapshot()["linkhost.connection_dropped"][""] >= 15


async def test_where_all_are_busy_one_more_is_told_so(client, host, session, monkeypatch):
    """503 and the end of the connection; beyond the spare ones there is no answer at all."""
    link = path_of((await client.create()).json["links"][GUARD])
    await client.append(video(2)[:2000], 0)
    followers = [await session.get(client.base + inside(link, "live/0.mp4")) for _ in range(2)]
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 2)
    for spare, beginning in ((1, b"HTTP/1.1 503 "), (0, b"")):
        monkeypatch.setattr(connections, "SPARE_CONNECTIONS", spare)
        async with connected(host) as (reader, writer):
            writer.write(b"GET /robots.txt HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await rest(reader))[:13] == beginning
    for follower in followers:
        follower.close()


async def test_who_takes_nothing_is_one_of_those_that_make_room(client, host, monkeypatch):
    """A connection whose answer nobody takes is dropped before a new one is refused."""
    await client.create()
    await client.append(bytes(1_900_000), 0)
    path = inside(path_of((await client.create()).json["links"][GUARD]), "part/0.mp4")
    monkeypatch.setattr(connections, "STUCK_S", 0)
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 1)
    with socket.socket() as sock:
        await never_read(sock, host, path)
        async with asyncio.timeout(5):
            while "linkhost.connection_dropped" not in metrics.snapshot():
                async with connected(host) as (reader, writer):
                    writer.write(b"GET /robots.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    assert (await rest(reader)).startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 503 "))


async def test_an_answer_that_is_not_taken_is_given_up(client, host, monkeypatch):
    """Whatever was written, and whether its handler still runs or not: after the time allowed the connection ends."""
    await client.create()
    await client.append(bytes(1_900_000), 0)
    path = inside(path_of((await client.create()).json["links"][GUARD]), "part/0.mp4")
    monkeypatch.setattr(connections, "STALL_S", 0.1)
    with socket.socket() as sock:
        await never_read(sock, host, path)
        async with asyncio.timeout(5):
            while "linkhost.stalled_connection" not in metrics.snapshot():
                assert (await client.ask("GET", "/robots.txt")).status == 200


async def never_read(sock: socket.socket, host, path: str) -> None:
    """More answers are asked than the kernel holds, and none is read."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", host.port))
    await loop.sock_sendall(sock, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 3)


async def test_a_head_is_bounded_as_a_whole(host):
    """One header may be long; many long ones end the connection before they fill the memory."""
    line = b"A: " + b"b" * 90_000 + b"\r\n"
    async with connected(host) as (reader, writer):
        writer.write(b"GET /robots.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + line + b"\r\n")
        assert (await rest(reader)).startswith(b"HTTP/1.1 200 ")
    async with connected(host) as (reader, writer):
        writer.write(b"GET /robots.txt HTTP/1.1\r\nHost: x\r\n" + line * 60)
        assert await rest(reader) == b""
    assert metrics.snapshot()["linkhost.heads_too_large"][""] == 1


async def test_a_refusal_that_says_close_closes(host):
    """Whoever has no key does not keep the connection."""
    async with connected(host) as (reader, writer):
        writer.write(b"OPTIONS /api/v1/uploads HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await rest(reader)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nConnection: close\r\n" in answer


async def test_another_key_cannot_disturb_an_upload(client, session, tmp_path):
    """What a stranger to the clip asks is refused before it takes a turn; the body under way arrives."""
    data = bytes(600_000)
    go_on = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield data[:300_000]
        await go_on.wait()
        yield data[300_000:]

    await client.create()
    upload = asyncio.create_task(client.append(data, 0, body=pieces()))
    file = tmp_path / "linkhost" / "clips" / f"{CLIP}.0.mp4"
    async with asyncio.timeout(5):
        while not file.exists() or not file.stat().st_size:
            await client.head()
    stranger = Client(session, client.base, OTHER_KEY)
    assert (await stranger.append(b"x", 0)).status == 404
    assert (await stranger.seal(b"")).status == 404
    assert (await stranger.api("DELETE", f"/uploads/{CLIP}.0")).status == 404
    go_on.set()
    assert (await upload).status == 204


async def test_a_body_that_is_refused_leaves_nothing_on_the_disk(client, tmp_path):
    """What does not fit its checksum, or is too much, is cut off at once and not at the next try."""
    await client.create()
    await client.append(b"a" * 100, 0)
    file = tmp_path / "linkhost" / "clips" / f"{CLIP}.0.mp4"
    wrong = f"sha256 {b64(hashlib.sha256(b'other').digest())}"
    assert (await client.append(bytes(1_000_000), 100, Upload_Checksum=wrong)).status == 460
    assert file.stat().st_size == 100
    assert (await client.append(bytes(2_100_000), 100)).status == 413
    assert file.stat().st_size == 100


async def test_parts_that_are_sealed_leave_viewers_their_threads(tmp_path, monkeypatch):
    """However many parts are hashed at once, a block can be read meanwhile."""
    hashed = threading.Event()
    monkeypatch.setattr(Files, "_sha256", staticmethod(lambda _path, _length: str(hashed.wait(10))))
    files = Files(tmp_path)
    files.path(CLIP, 0).write_bytes(b"abc")
    seals = [asyncio.create_task(files.sha256(CLIP, 0, 3)) for _ in range(8)]
    async with asyncio.timeout(5):
        assert await files.head(CLIP, 0, 3) == b"abc"
        hashed.set()
        assert await asyncio.gather(*seals) == ["True"] * 8
    files.close()


async def test_a_part_announced_again_is_another_one(client, tmp_path):
    """Who followed it before its deletion does not take the new one for the old."""
    await client.create()
    await client.create(part=1)
    store = await Store.open(tmp_path / "linkhost" / "linkhost.sqlite3", ManualClock())
    try:
        before = await store.part(CLIP, 0)
        assert (await client.api("DELETE", f"/uploads/{CLIP}.0")).status == 204
        assert (await client.create()).status == 201
        after = await store.part(CLIP, 0)
    finally:
        await store.aclose()
    assert before is not None
    assert after is not None
    assert before.epoch != after.epoch


@pytest.mark.parametrize("token", ["A" * 43, "A"])
async def test_an_unknown_clip_is_looked_for_as_a_known_one(client, monkeypatch, token):
    """The same questions are asked of the database, so that the time tells little of which clips there are."""
    await client.create()
    asked: list[str] = []
    for name in ("clip", "grants"):
        method = getattr(Store, name)

        async def counted(store: Store, clip_id: str, _method=method, _name: str = name) -> object:
            asked.append(_name)
            return await _method(store, clip_id)

        monkeypatch.setattr(Store, name, counted)
    for clip in (CLIP, OTHER_CLIP):
        assert (await client.ask("GET", f"/video/{clip}?token={token}")).status == 404
    assert asked == ["clip", "grants"] * 2
