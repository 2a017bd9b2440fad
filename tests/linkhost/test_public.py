"""What strangers meet: headers, methods, odd paths, deadlines, malformed requests."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from tests.linkhost.client import CLIP, GUARD, KEY, inside, path_of
from tests.linkhost.videos import video
from vigintd import metrics
from vigintd.linkhost import LinkHost, media, web


async def raw(host, request: bytes) -> bytes:
    """What the host says to these bytes until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_every_answer_bears_the_security_headers_and_no_server(client):
    """Pages, status, media, refusals and the API: strict policy, nothing kept, nothing sniffed, nobody named."""
    link = await client.publish(video(2))
    for path in (
        link,
        inside(link, "status"),
        inside(link, "part/0.mp4"),
        inside(link, "live/0.mp4"),
        "/nothing",
        "/api/v1/x",
        "/robots.txt",
    ):
        answer = await client.ask("GET", path)
        assert answer.headers["Cache-Control"] == "no-store", path
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Robots-Tag"].startswith("noindex")
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert "Server" not in answer.headers


async def test_the_page_loads_nothing_from_anywhere_else(client):
    """Script, style and icon come from this host under hashed names, without the token in their addresses."""
    link = await client.publish(video(2))
    page = (await client.ask("GET", link)).text
    assert "//" not in page.replace("http://www.w3.org/2000/svg", "")
    assets = {piece.split('"')[0] for piece in page.split('="../assets/')[1:]}
    assert len(assets) == 3
    for name in assets:
        answer = await client.ask("GET", f"/assets/{name}")
        assert answer.status == 200
        assert "immutable" in answer.headers["Cache-Control"]
        assert answer.headers["Content-Type"].split(";")[0] in ("text/css", "text/javascript", "image/svg+xml")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_a_link_answers_to_get_and_head_only(client, method):
    """Any other method is 405 and says what is allowed."""
    link = await client.publish(video(2))
    answer = await client.ask(method, link)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET"


@pytest.mark.parametrize(
    "path",
    [
        "/video/../linkhost.sqlite3",
        "/video/..%2f..%2flink.key",
        "/assets/../store.py",
        "/assets/..%2fstore.py",
        "/assets/viewer.js",
        f"/video/{CLIP}/part/..%2f0.mp4",
        f"/video/{CLIP}/part/0.mp4%00",
        f"/video/{CLIP}%0d%0aX: y",
        "//etc/passwd",
        "/" + "a" * 8000,
    ],
)
async def test_a_path_that_climbs_finds_nothing(client, host, path):
    """No piece of a path is decoded, and none reaches the disk."""
    await client.publish(video(2))
    answer = await raw(host, f"GET {path.replace(' ', '%20')} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 ")


async def test_a_malformed_request_learns_nothing(host):
    """400 without Server header or version, and only its number is kept."""
    for request in (
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET / HTTP/1.1\r\nA : b\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"x" * 10_000 + b"\r\n\r\n",
    ):
        answer = await raw(host, request)
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
        assert b"Server:" not in answer
        assert b"aiohttp" not in answer
    assert metrics.snapshot()["linkhost.malformed_request"][""] >= 1


async def test_two_lengths_are_one_too_many(host):
    """Content-Length beside Transfer-Encoding is refused: no request is smuggled behind another."""
    answer = await raw(
        host,
        b"POST /api/v1/uploads HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    )
    assert answer.split(b" ")[1] == b"400"
    assert answer.count(b"HTTP/1.") == 1


async def test_a_head_that_does_not_come_is_not_waited_for(client, tmp_path, clock, monkeypatch):
    """A connection that has not brought a whole head by its deadline is closed without a word."""
    monkeypatch.setattr(web, "HEADERS_S", 0.05)
    host = LinkHost(tmp_path / "other", base_url="http://x", api_keys={"nvr": KEY}, clock=clock)
    await host.start(listen=("127.0.0.1", 0), unix_path=None)
    try:
        async with asyncio.timeout(5):
            assert await raw(host, b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ") == b""
    finally:
        await host.aclose()


async def test_a_body_that_stops_coming_is_given_up(client, host, monkeypatch):
    """408 after the silence allowed, and the offset is where it was."""
    monkeypatch.setattr("vigintd.linkhost.uploads.BODY_IDLE_S", 0.05)
    await client.create()
    head = (
        f"PATCH /api/v1/uploads/{CLIP}.0 HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nUpload-Offset: 0\r\nContent-Length: 100\r\n"
        f"Content-Type: application/offset+octet-stream\r\nUpload-Checksum: sha256 {'A' * 43}=\r\n\r\nabc"
    )
    answer = await raw(host, head.encode())
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert (await client.head()).headers["Upload-Offset"] == "0"


async def test_a_reader_who_takes_nothing_is_let_go(client, host, monkeypatch):
    """A stalled viewer is cut off at its deadline, and counted; another is served meanwhile."""
    monkeypatch.setattr("vigintd.linkhost.media.STALL_S", 0.1)
    await client.create()
    data = bytes(1_900_000)
    link = path_of((await client.create()).json["links"][GUARD])
    await client.append(data, 0)
    path = inside(link, "part/0.mp4")
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", host.port))
        await loop.sock_sendall(sock, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 3)
        assert (await client.ask("GET", path)).body == data
        async with asyncio.timeout(5):
            while "linkhost.stalled_reader" not in metrics.snapshot():
                assert (await client.ask("GET", "/robots.txt")).status == 200


async def test_so_many_readers_and_no_more(client, host, session):
    """Beyond the bound a viewer is asked to come back, and is served once another has left."""
    link = path_of((await client.create()).json["links"][GUARD])
    await client.append(video(2)[:2000], 0)
    live, part = inside(link, "live/0.mp4"), inside(link, "part/0.mp4")
    followers = [await session.get(client.base + live) for _ in range(media.MAX_READERS)]
    refused = await client.ask("GET", part)
    assert refused.status == 503
    assert refused.headers["Retry-After"] == "5"
    for follower in followers:
        follower.close()
    async with asyncio.timeout(5):
        await client.append(b"more", 2000)  # a follower that left is noticed at the next bytes
        while (await client.ask("GET", part)).status == 503:
            pass


async def test_no_secret_is_in_any_log(log_text, host, client):
    """Whatever is asked, by whom ever: no token and no API key in a log line."""
    link = await client.publish(video(2))
    token = link.partition("token=")[2]
    for path in (link, inside(link, "part/0.mp4"), link[:-1], inside(link, "x")):
        await client.ask("GET", path)
    await client.seal(b"", sha256="0" * 64)
    await raw(host, f"GET {link} HTTP/1.1\r\nbad header\r\n\r\n".encode())
    await raw(host, f"BAD {link} \r\n\r\n".encode())
    text = log_text()
    assert "linkhost.clip_created" in text
    assert token[:-1] not in text
    assert KEY not in text
    for line in text.splitlines():
        json.loads(line)


async def test_a_fault_of_our_own_says_nothing(client, monkeypatch, host):
    """500 with a plain page or sentence; what happened is in the log alone."""

    def broken(*_arguments):
        raise ValueError("secret detail")

    monkeypatch.setattr("vigintd.linkhost.viewer.tokens.holder", broken)
    link = await client.publish(video(2))
    answer = await client.ask("GET", link)
    assert answer.status == 500
    assert "secret detail" not in answer.text
