"""What strangers and hostile uploaders send, one by one, with proof that it was really sent."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser

import pytest

from tests.linkhost.client import CLIP, GUARD, KEY, METADATA, OTHER_CLIP, inside, path_of, rows, upload_metadata
from tests.linkhost.videos import video
from vigintd.linkhost import AuditKind

CLIMBS = (
    "..",
    "..%2f..%2flinkhost.sqlite3",
    "%2e%2e%2flink.key",
    "..%5clink.key",
    "..%c0%aflink.key",
    "%252e%252e%252flink.key",
    "%00",
    "0%00.mp4",
    "%0d%0aSet-Cookie:%20a=b",
    "%ef%bc%90",
    "\u0660".encode().decode("latin-1"),
    "~root",
    "-1",
    "00",
    "a" * 4000,
)
PLACES = (
    "/{}",
    "/video/{}?token={token}",
    f"/video/{CLIP}/{{}}?token={{token}}",
    f"/video/{CLIP}/part/{{}}.mp4?token={{token}}",
    f"/video/{CLIP}/live/{{}}.mp4?token={{token}}",
    f"/video/{CLIP}/play/{{}}.mp4?token={{token}}",
    f"/video/{CLIP}/download/{{}}?token={{token}}",
    f"/video/{CLIP}/hls/{{}}/0.m4s?token={{token}}",
    f"/video/{CLIP}/hls/0/{{}}.m4s?token={{token}}",
    "/assets/{}",
    "/api/v1/uploads/{}.0",
    f"/api/v1/uploads/{CLIP}.{{}}",
    f"/api/v1/uploads/{CLIP}.0/{{}}",
    "/api/v1/clips/{}",
)


@contextlib.asynccontextmanager
async def connected(host) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def said(host, request: bytes) -> bytes:
    """All that the host says to these bytes, until it closes."""
    async with connected(host) as (reader, writer), asyncio.timeout(5):
        writer.write(request)
        return await reader.read()


def line(method: str, target: str, *headers: str) -> bytes:
    return "\r\n".join((f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", *headers, "", "")).encode("latin-1")


@pytest.mark.parametrize("place", PLACES)
async def test_no_piece_of_a_path_climbs(client, host, tmp_path, place):
    """With the right token and the right key: nothing is decoded, nothing beside the folder is read or made."""
    link = await client.publish(video(2))
    before = sorted(tmp_path.rglob("*"))
    for climb in CLIMBS:
        target = place.format(climb, token=link.partition("token=")[2])
        for method in ("GET", "HEAD", "PATCH", "DELETE"):
            answer = await said(host, line(method, target, f"Authorization: Bearer {KEY}"))
            assert re.match(rb"HTTP/1.[01] (404|405|400|410|415) ", answer), (method, target, answer[:80])
            assert b"set-cookie" not in answer.lower()
            assert b"SQLite" not in answer
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "token",
    [
        "",
        "A",
        "A" * 42,
        "A" * 44,
        "A" * 7000,
        "%00" * 43,
        "%c3%a9" * 43,
        "A" * 42 + "=",
        "A" * 42 + "%0a",
        "A" * 42 + "+",
        "[]",
        "{}",
    ],
)
async def test_a_token_of_another_shape_is_as_wrong_as_any(client, host, token):
    """Over-long, of another alphabet, with NUL or a line's end: the same 404 as for a wrong one, byte for byte."""
    await client.publish(video(2))
    wrong = await said(host, line("GET", f"/video/{CLIP}?token={'A' * 43}"))
    misshapen = await said(host, line("GET", f"/video/{CLIP}?token={token}"))
    assert wrong.startswith(b"HTTP/1.1 404 ")
    without_date = re.compile(rb"\r\nDate: [^\r]*")
    assert without_date.sub(b"", misshapen) == without_date.sub(b"", wrong)


async def test_nothing_is_said_back_to_trace_connect_or_http_2(client, host):
    """No method echoes what was sent, tunnels, or changes the protocol."""
    link = await client.publish(video(2))
    for request in (
        line("TRACE", link, "X-Secret: s3cr3t"),
        line("OPTIONS", "*", "X-Secret: s3cr3t"),
        line("CONNECT", "127.0.0.1:25", "X-Secret: s3cr3t"),
        line("GET", link, "Upgrade: h2c", "HTTP2-Settings: AAMAAABk", "X-Secret: s3cr3t").replace(
            b"Connection: close", b"Connection: Upgrade, HTTP2-Settings, close"
        ),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    ):
        answer = await said(host, request)
        assert b"s3cr3t" not in answer
        assert not answer.startswith((b"HTTP/1.1 101", b"HTTP/2"))
        if not request.startswith(b"GET"):
            assert re.match(rb"HTTP/1.[01] 4\d\d ", answer), answer[:80]


@pytest.mark.parametrize(
    "request_line",
    [b"s3cr3t" * 2000 + b" / HTTP/1.1", b"GET /s3cr3t HTTP/9.9", b"GET http://[s3cr3t/ HTTP/1.1", b"GET /s3cr3t\r X: y"],
)
async def test_what_is_no_request_is_not_said_back(host, request_line):
    """400 and two words."""
    answer = await said(host, request_line + b"\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 400 ")
    assert answer.endswith(b"\r\n\r\nBad Request"), answer


async def test_head_counts_for_nothing(client, host):
    """Of every place: no body, no play, and what GET would say of the whole; a Range is not for HEAD."""
    link = await client.publish(data := video(2))
    for place in ("", "/status", "/part/0.mp4", "/live/0.mp4"):
        path = inside(link, place[1:]) if place else link
        answer = await client.ask("HEAD", path, Range="bytes=0-1")
        assert (answer.status, answer.body) == (200, b"")
    assert (await client.ask("HEAD", inside(link, "part/0.mp4"))).headers["Content-Length"] == str(len(data))
    record = await host.audit(CLIP)
    assert not [row for row in record if row.kind == AuditKind.PLAY]
    assert len([row for row in record if row.kind == AuditKind.PROBE]) == 5


@pytest.mark.parametrize(
    ("asked", "status", "wanted"),
    [
        ("bytes=0-0", 206, (0, 0)),
        ("bytes=-1", 206, (-1, -1)),
        ("bytes=-999999999", 206, (0, -1)),
        ("bytes=5-999999999", 206, (5, -1)),
        ("BYTES=1-2", 206, (1, 2)),
        ("bytes= 1-2 ", 206, (1, 2)),
        ("bytes=2-1", 200, (0, -1)),
        ("bytes=-", 200, (0, -1)),
        ("bytes=--1", 200, (0, -1)),
        ("bytes=0-1-2", 200, (0, -1)),
        ("bytes=0x0-0x1", 200, (0, -1)),
        ("bytes=+0-1", 200, (0, -1)),
        ("bytes=\u0660-\u0669", 200, (0, -1)),
        ("bytes 0-1", 200, (0, -1)),
        ("seconds=0-1", 200, (0, -1)),
        ("bytes=0-0,1-1", 200, (0, -1)),
        ("bytes=0-" + ",0-" * 20_000, 200, (0, -1)),
        ("bytes=" + "9" * 5000 + "-", 200, (0, -1)),
        ("bytes=999999999-", 416, (0, -1)),
        ("bytes=-0", 416, (0, -1)),
    ],
)
async def test_every_oddity_of_a_range_is_answered_by_at_most_the_part(client, host, asked, status, wanted):
    """RFC 9110, section 14: one range of bytes, or the whole, or none; never more bytes than there are."""
    link = await client.publish(data := video(2))
    answer = await said(host, line("GET", inside(link, "part/0.mp4"), f"Range: {asked}".encode().decode("latin-1")))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == str(status).encode()
    size = len(data)
    first, last = (place % size for place in wanted)
    assert body == (b"" if status == 416 else data[first : last + 1])
    told = {206: f"bytes {first}-{last}/{size}", 416: f"bytes */{size}"}.get(status)
    assert (f"\r\nContent-Range: {told}\r\n".encode() in head) == (told is not None)


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip", "identity, gzip"])
async def test_a_coded_body_is_not_taken_anywhere(client, coding):
    """No few bytes become many."""
    await client.create()
    assert (await client.append(b"abc", 0, Content_Encoding=coding)).status == 415
    assert (await client.api("PATCH", f"/clips/{CLIP}", data=b"{}", Content_Encoding=coding)).status == 415


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"Content-Length: +5\r\n\r\nabcde",
        b"Content-Length: 5, 5\r\n\r\nabcde",
        b"Content-Length: -1\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 100_000 + b"\r\n\r\n",
    ],
)
async def test_a_body_whose_length_is_in_doubt_smuggles_nothing(client, host, framing):
    """What follows it is never answered as a request of its own."""
    await client.create()
    begin = f"PATCH /api/v1/clips/{CLIP} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n".encode()
    async with connected(host) as (reader, writer), asyncio.timeout(5):
        writer.write(begin + framing + b"GET /robots.txt HTTP/1.1\r\nHost: x\r\n\r\n")
        writer.write_eof()
        with contextlib.suppress(ConnectionResetError):
            answer = await reader.read()
            assert b"User-agent" not in answer
            assert answer.count(b"HTTP/1.") <= 1


@pytest.mark.parametrize(
    "clip", ["../../etc/passwd", "/etc/passwd", CLIP + "/../x", CLIP.upper(), CLIP + "\0", "..", f"{CLIP}\n"]
)
async def test_a_clip_is_no_path(client, tmp_path, clip):
    """What names it is a UUID in its one form; no file comes of anything else."""
    before = sorted(tmp_path.rglob("*"))
    made = await client.api(
        "POST",
        "/uploads",
        Upload_Defer_Length="1",
        Upload_Metadata=upload_metadata(clip, 0, recipients=[GUARD], expiry_h=1, metadata={}),
    )
    assert made.status == 400
    assert sorted(tmp_path.rglob("*")) == before


async def test_two_uploads_under_one_key_are_one_clip(client, session):
    """Announced ten times at once and sent twice at once: one link, one body, and the other is told where it stands."""
    made = await asyncio.gather(*(client.create() for _ in range(10)))
    assert {answer.status for answer in made} == {200, 201}
    assert len({answer.body for answer in made}) == 1
    data, other = bytes(400_000), bytes([1]) * 400_000
    sent = await asyncio.gather(client.append(data, 0), client.append(other, 0))
    assert sorted(answer.status for answer in sent) == [204, 409]
    kept = data if sent[0].status == 204 else other
    assert (await client.seal(kept)).status == 200
    assert (await client.seal(kept)).status == 200
    assert (await client.seal(data if kept is other else other)).status == 409


HOSTILE = (
    "<script>alert(1)</script>",
    "</title></style></script><svg onload=alert(1)>",
    "\"' autofocus onfocus=alert(1) x='",
    "javascript:alert(1)//",
    "\r\nSet-Cookie: a=b\r\n\r\n<script>",
    "{{ 7 * 7 }}{% raw %}",
    "../../../etc/passwd",
    "\u202egnp.exe\u2066",
)


class Read(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("hostile", HOSTILE)
async def test_a_script_in_every_field_is_text_on_the_page(client, clock, hostile):
    """The page has the tags that it has with harmless words, and the hostile ones stand in it as they were sent."""
    harmless = path_of((await client.create(OTHER_CLIP)).json["links"][GUARD])
    fields = {name: hostile for name, value in METADATA.items() if isinstance(value, str) and name != "language"}
    link = path_of((await client.create(metadata={**METADATA, **fields, hostile: hostile})).json["links"][GUARD])
    for finished in (False, True):
        if finished:
            for clip in (CLIP, OTHER_CLIP):
                await client.append(video(2), 0, clip)
                await client.seal(video(2), clip)
                await client.update(clip, ended=True)
        read, expected = Read((await client.ask("GET", link)).text), Read((await client.ask("GET", harmless)).text)
        loading = ("script", "style", "link", "img", "svg", "iframe", "object", "video", "source", "form")
        found, wanted = ([tag for tag, _ in page.tags if tag in loading] for page in (read, expected))
        assert found == wanted
        assert not [name for _, attributes in read.tags for name in attributes if name.startswith("on")]
        assert not [value for _, attributes in read.tags for value in attributes.values() if "javascript:" in (value or "")]
        assert " ".join(hostile.split()) in " ".join(read.text.split())
    media = await client.ask("HEAD", inside(link, "part/0.mp4"))
    assert re.fullmatch(r'inline; filename="[A-Za-z0-9-]+\.mp4"', media.headers["Content-Disposition"])
    assert "Set-Cookie" not in media.headers


async def test_a_visitor_who_calls_themselves_a_script_is_an_unknown_one(client, host):
    """Of a User-Agent only a known family is kept, whatever it holds."""
    link = await client.publish(video(2))
    await client.ask("GET", link, User_Agent="<script>alert(1)</script>" * 100)
    (row,) = await rows(host, AuditKind.PROBE, 1)
    assert row.client == "unknown"
