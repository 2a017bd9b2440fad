"""The upload side of the wire: tus 1.0, seal, metadata; every promise that `publish` relies on."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.linkhost.client import CLIP, GUARD, KEY, OTHER_CLIP, OTHER_KEY, Client, b64, inside, path_of, upload_metadata
from tests.linkhost.videos import fragments, video
from vigintd.linkhost import AuditKind


async def test_options_say_what_the_host_can_do(client):
    """Version, extensions, checksum and largest size are announced, to whoever has a key."""
    answer = await client.api("OPTIONS", "/uploads")
    assert answer.status == 204
    assert answer.headers["Tus-Version"] == answer.headers["Tus-Resumable"] == "1.0.0"
    assert set(answer.headers["Tus-Extension"].split(",")) == {
        "creation",
        "creation-defer-length",
        "checksum",
        "expiration",
        "termination",
    }
    assert answer.headers["Tus-Checksum-Algorithm"] == "sha256"
    assert answer.headers["Tus-Max-Size"] == "2000000"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("OPTIONS", "/uploads"),
        ("POST", "/uploads"),
        ("HEAD", f"/uploads/{CLIP}.0"),
        ("PATCH", f"/uploads/{CLIP}.0"),
        ("DELETE", f"/uploads/{CLIP}.0"),
        ("POST", f"/uploads/{CLIP}.0/seal"),
        ("PATCH", f"/clips/{CLIP}"),
    ],
)
async def test_nothing_is_done_without_a_known_key(client, method, path):
    """Every place of the API answers 401 to a missing, wrong or cut key."""
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {KEY[:-1]}"}, {"X_API_Key": ""}):
        answer = await client.ask(method, f"/api/v1{path}", **headers)
        assert answer.status == 401
        if method != "HEAD":
            assert set(answer.json) == {"error"}


async def test_a_key_may_come_by_either_header(client):
    """`Authorization: Bearer` and `X-API-Key` are the same."""
    assert (await client.ask("OPTIONS", "/api/v1/uploads", X_API_Key=KEY)).status == 204
    assert (await client.ask("OPTIONS", "/api/v1/uploads", Authorization=f"bearer {KEY}")).status == 204


async def test_creation_answers_with_a_link_for_each_recipient(client):
    """The link is known before any byte is there; asked again, the answer is the same with 200."""
    answer = await client.create(recipients=[GUARD, "patron@exemple.fr"])
    assert answer.status == 201
    assert answer.headers["Location"] == f"/api/v1/uploads/{CLIP}.0"
    assert answer.headers["Upload-Expires"] == "Mon, 16 Mar 2026 09:26:53 GMT"
    assert answer.json["clip_id"] == CLIP
    assert answer.json["expires_at"] == "2026-03-16T09:26:53+00:00"
    links = answer.json["links"]
    assert set(links) == {GUARD, "patron@exemple.fr"}
    assert len(set(links.values())) == 2
    for link in links.values():
        address, _, token = link.partition("?token=")
        assert address == f"https://videos.exemple.fr/video/{CLIP}"
        assert len(token) == 43
        assert (await client.ask("GET", path_of(link))).status == 200
    again = await client.create(recipients=[GUARD, "patron@exemple.fr"])
    assert again.status == 200
    assert again.json == answer.json


async def test_two_creations_at_once_make_one_clip(client, host):
    """However many ask at the same moment, one creates and all are told the same."""
    answers = await asyncio.gather(*(client.create() for _ in range(5)))
    assert sorted(answer.status for answer in answers) == [200, 200, 200, 200, 201]
    assert len({answer.body for answer in answers}) == 1
    kinds = [row.kind for row in await host.audit(CLIP)]
    assert kinds == [AuditKind.UPLOAD, AuditKind.LINK]


async def test_a_clip_belongs_to_the_key_that_created_it(client, session):
    """Another key is refused at creation and sees nothing else of it."""
    await client.create()
    stranger = Client(session, client.base, OTHER_KEY)
    assert (await stranger.create()).status == 409
    assert (await stranger.head()).status == 404
    assert (await stranger.append(b"x", 0)).status == 404
    assert (await stranger.seal(b"")).status == 404
    assert (await stranger.update(risk="LOW")).status == 404
    assert (await stranger.api("DELETE", f"/uploads/{CLIP}.0")).status == 404
    assert (await client.head()).status == 200


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"recipients": []}, 400),
        ({"recipients": "x"}, 400),
        ({"recipients": [1]}, 400),
        ({"recipients": ["\ud800"]}, 400),
        ({"recipients": [f"{n}@exemple.fr" for n in range(51)]}, 413),
        ({"recipients": ["a" * 255]}, 413),
        ({"expiry_h": 0}, 400),
        ({"expiry_h": -1}, 400),
        ({"expiry_h": 721}, 400),
        ({"expiry_h": "nan"}, 400),
        ({"expiry_h": "inf"}, 400),
        ({"metadata": []}, 400),
        ({"metadata": {"a": {"b": 1}}}, 400),
        ({"metadata": "{"}, 400),
        ({"metadata": '{"confidence": NaN}'}, 400),
        ({"metadata": '{"a":' + "[" * 5000}, 400),
        ({"metadata": {f"k{n}": 1 for n in range(65)}}, 413),
        ({"metadata": {"text": "x" * 20_000}}, 413),
    ],
)
async def test_a_malformed_or_oversized_creation_is_refused(client, fields, status):
    """Each field of a creation has its bounds, and nothing is created beyond them."""
    answer = await client.create(**fields)
    assert answer.status == status
    assert set(answer.json) == {"error"}
    assert (await client.head()).status == 404


@pytest.mark.parametrize(
    "metadata",
    [
        "",
        "clip !!!",
        f"clip {b64('../../etc/passwd')},part {b64('0')}",
        f"clip {b64(CLIP.upper())},part {b64('0')}",
        f"clip {b64(CLIP)},part {b64('-1')}",
        f"clip {b64(CLIP)},part {b64('1000')}",
        f"clip {b64(CLIP)},part {b64('0')}",
        f"clip {b64(CLIP)},clip {b64(CLIP)}",
        "clip " + b64(bytes([255, 254])),
    ],
)
async def test_a_creation_without_a_proper_clip_and_part_is_refused(client, metadata):
    """A clip is a canonical UUID and a part a small number; nothing else reaches a file's name."""
    answer = await client.api("POST", "/uploads", Upload_Defer_Length="1", Upload_Metadata=metadata)
    assert answer.status == 400


async def test_a_length_is_either_deferred_or_declared(client):
    """tus: one of the two headers, not both and not none; a declared length bounds the part."""
    metadata = upload_metadata(CLIP, 0, recipients=[GUARD], expiry_h=1, metadata={})
    for headers in (
        {},
        {"Upload_Defer_Length": "1", "Upload_Length": "5"},
        {"Upload_Defer_Length": "2"},
        {"Upload_Length": "x"},
    ):
        assert (await client.api("POST", "/uploads", Upload_Metadata=metadata, **headers)).status == 400
    assert (await client.api("POST", "/uploads", Upload_Metadata=metadata, Upload_Length="2000001")).status == 413
    assert (await client.api("POST", "/uploads", Upload_Metadata=metadata, Upload_Length="5")).status == 201
    assert (await client.head()).headers["Upload-Length"] == "5"
    assert (await client.append(b"123456", 0)).status == 413
    assert (await client.append(b"12345", 0)).status == 204


async def test_another_version_of_tus_is_refused(client):
    """412 names the version that is spoken here."""
    answer = await client.api("HEAD", f"/uploads/{CLIP}.0", Tus_Resumable="0.2.2")
    assert answer.status == 412
    assert answer.headers["Tus-Version"] == "1.0.0"


async def test_bytes_are_committed_request_by_request(client):
    """Each body moves the offset on; HEAD tells it and is never kept by a cache."""
    await client.create()
    offset = 0
    for piece in fragments(video(2)):
        answer = await client.append(piece, offset)
        offset += len(piece)
        assert answer.status == 204
        assert answer.headers["Upload-Offset"] == str(offset)
    head = await client.head()
    assert head.status == 200
    assert head.headers["Upload-Offset"] == str(offset)
    assert head.headers["Upload-Defer-Length"] == "1"
    assert head.headers["Cache-Control"] == "no-store"


async def test_a_wrong_offset_is_refused_and_changes_nothing(client):
    """409 before and after the committed offset; the body is not kept."""
    await client.create()
    await client.append(b"a" * 100, 0)
    for offset in (0, 99, 101):
        assert (await client.append(b"b" * 10, offset)).status == 409
    assert (await client.head()).headers["Upload-Offset"] == "100"


async def test_a_body_that_does_not_fit_its_checksum_is_discarded(client, tmp_path):
    """460; the same place can be sent again, and holds the right bytes then."""
    await client.create()
    await client.append(b"a" * 100, 0)
    wrong = f"sha256 {b64(hashlib.sha256(b'other').digest())}"
    assert (await client.append(b"b" * 300_000, 100, Upload_Checksum=wrong)).status == 460
    assert (await client.head()).headers["Upload-Offset"] == "100"
    assert (await client.append(b"c" * 10, 100)).status == 204
    assert (tmp_path / "linkhost" / "clips" / f"{CLIP}.0.mp4").read_bytes() == b"a" * 100 + b"c" * 10


@pytest.mark.parametrize("checksum", ["", "md5 abc", "sha256 !!!", f"sha256 {b64(b'short')}", "sha256"])
async def test_a_body_without_a_proper_checksum_is_refused(client, checksum):
    """The checksum is required: what cannot be checked is not kept."""
    await client.create()
    assert (await client.append(b"x", 0, Upload_Checksum=checksum)).status == 400


async def test_a_body_of_another_kind_is_refused(client):
    """415 for another content type and for any content coding."""
    await client.create()
    assert (await client.append(b"x", 0, Content_Type="video/mp4")).status == 415
    assert (await client.append(b"x", 0, body=b"x", Content_Encoding="gzip")).status == 415


async def test_a_clip_has_a_largest_size(client):
    """413 as soon as the bytes come to more, over all parts, chunked or announced; what was committed stays."""
    await client.create()
    await client.create(part=1)
    assert (await client.append(b"a" * 1_500_000, 0)).status == 204
    assert (await client.append(b"b" * 600_000, 0, part=1)).status == 413
    assert (await client.append(b"b" * 600_000, 0, part=1, body=b"b" * 600_000)).status == 413
    assert (await client.append(b"b" * 500_000, 0, part=1)).status == 204
    assert (await client.head()).headers["Upload-Offset"] == "1500000"


async def test_an_upload_that_breaks_off_goes_on_where_it_was(client, host, session):
    """Half a body is not committed; the next request begins at the old offset and ends with the right bytes."""
    data = video(2)
    await client.create()
    first = fragments(data)[0]
    await client.append(first, 0)

    async def cut() -> AsyncIterator[bytes]:
        yield data[len(first) : len(first) + 3000]
        raise RuntimeError("cut")

    with pytest.raises((RuntimeError, aiohttp.ClientError)):
        await client.append(data[len(first) :], len(first), body=cut())
    assert (await client.head()).headers["Upload-Offset"] == str(len(first))
    assert (await client.append(data[len(first) :], len(first))).status == 204
    assert (await client.seal(data)).json == {"verified": True}


async def test_a_newer_request_takes_over_from_one_that_hangs(client):
    """A connection that died in the middle of a body does not block its client's next try."""
    await client.create()
    begun, never = asyncio.Event(), asyncio.Event()

    async def hangs() -> AsyncIterator[bytes]:
        yield b"a" * 1000
        begun.set()
        await never.wait()

    hanging = asyncio.create_task(client.append(b"a" * 2000, 0, body=hangs()))
    await begun.wait()
    # The first body has arrived at the host once it holds the part's turn; until then the second just comes first.
    answer = await client.append(b"b" * 10, 0)
    assert answer.status == 204
    never.set()
    with contextlib.suppress(aiohttp.ClientError):
        assert (await hanging).status in (400, 409)
    assert (await client.head()).headers["Upload-Offset"] == "10"


async def test_a_seal_checks_length_and_hash_over_the_whole_part(client):
    """A sealed part says its length and digest, takes no more bytes, and may be sealed again with the same only."""
    data = video(2)
    await client.create()
    await client.append(data, 0)
    assert (await client.seal(data)).json == {"verified": True}
    assert (await client.seal(data)).json == {"verified": True}
    assert (await client.seal(data, length=1)).status == 409
    head = await client.head()
    assert head.headers["Upload-Length"] == head.headers["Upload-Offset"] == str(len(data))
    assert "Upload-Defer-Length" not in head.headers
    assert head.headers["Repr-Digest"] == f"sha-256=:{b64(hashlib.sha256(data).digest())}:"
    assert (await client.append(b"x", len(data))).status == 403


@pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"length": 7}])
async def test_a_seal_that_does_not_fit_sends_the_part_back_to_its_beginning(client, host, wrong):
    """422, audited, shown as not verified; sent again and sealed right, all is well."""
    data = video(2)
    link = path_of((await client.create()).json["links"][GUARD])
    await client.append(data, 0)
    assert (await client.seal(data, **wrong)).status == 422
    assert (await client.head()).headers["Upload-Offset"] == "0"
    assert "Intégrité non vérifiée" in (await client.ask("GET", link)).text
    status = (await client.ask("GET", inside(link, "status"))).json
    assert status["parts"][0]["mismatched"] is True
    assert status["verified"] is False
    await client.append(data, 0)
    assert (await client.seal(data)).status == 200
    assert "Intégrité non vérifiée" not in (await client.ask("GET", link)).text
    steps = [row.detail["what"] for row in await host.audit(CLIP) if row.kind == AuditKind.UPLOAD]
    assert steps == ["created", "mismatch", "sealed"]


@pytest.mark.parametrize(
    "value", [{}, {"length": -1, "sha256": "0" * 64}, {"length": True, "sha256": "0" * 64}, {"length": 1, "sha256": "Z"}]
)
async def test_a_malformed_seal_is_refused(client, value):
    """400 for anything but a length and 64 hex digits; the part is left alone."""
    await client.create()
    await client.append(b"x", 0)
    assert (await client.api("POST", f"/uploads/{CLIP}.0/seal", data=json.dumps(value))).status == 400
    assert (await client.head()).headers["Upload-Offset"] == "1"


async def test_a_json_body_is_bounded(client):
    """More than 64 kB of JSON is 413, and what is no object 400."""
    await client.create()
    assert (await client.api("PATCH", f"/clips/{CLIP}", data=b'{"a": "' + b"x" * 70_000)).status == 413
    assert (await client.api("PATCH", f"/clips/{CLIP}", data=b"[]")).status == 400
    assert (await client.api("PATCH", f"/clips/{CLIP}", data=b"\xff")).status == 400


async def test_further_parts_ride_on_the_clip(client):
    """Part 1 needs only clip and number, has an offset of its own, and the same links."""
    links = (await client.create()).json["links"]
    second = await client.create(part=1)
    assert second.status == 201
    assert second.headers["Location"].endswith(f"{CLIP}.1")
    assert second.json["links"] == links
    assert (await client.create(OTHER_CLIP, part=1)).status == 404
    await client.append(b"abc", 0, part=1)
    assert (await client.head(part=1)).headers["Upload-Offset"] == "3"
    assert (await client.head()).headers["Upload-Offset"] == "0"


async def test_metadata_is_merged_into_what_creation_said(client):
    """What the incident has become replaces key by key; the rest stays."""
    link = path_of((await client.create()).json["links"][GUARD])
    assert (await client.update(risk="LOW", text="Fausse alerte.")).status == 200
    page = (await client.ask("GET", link)).text
    assert "Faible" in page
    assert "Fausse alerte." in page
    assert "entree" in page
    assert (await client.update(OTHER_CLIP, risk="LOW")).status == 404


async def test_a_deleted_part_is_gone(client, host, tmp_path):
    """204, then 404; with its last part the clip is over, which its links say."""
    link = await client.publish(video(2))
    await client.create(part=1)
    assert (await client.api("DELETE", f"/uploads/{CLIP}.1")).status == 204
    assert (await client.api("DELETE", f"/uploads/{CLIP}.1")).status == 404
    assert (await client.ask("GET", link)).status == 200
    assert (await client.api("DELETE", f"/uploads/{CLIP}.0")).status == 204
    assert (await client.head()).status == 404
    assert list((tmp_path / "linkhost" / "clips").iterdir()) == []
    assert (await client.ask("GET", link)).status == 410
    assert (await client.create()).status == 410
    assert [row.kind for row in await host.audit(CLIP)].count(AuditKind.DELETED) == 2


async def test_an_expired_clip_takes_nothing_more(client, clock):
    """410 to everything, from the second of expiry on."""
    await client.create(expiry_h=1)
    await clock.advance(3599)
    assert (await client.head()).status == 200
    await clock.advance(1)
    assert (await client.head()).status == 410
    assert (await client.append(b"x", 0)).status == 410
    assert (await client.seal(b"")).status == 410
    assert (await client.update(risk="LOW")).status == 410
    assert (await client.create()).status == 410


async def test_bytes_that_the_disk_lost_are_asked_for_again(client, tmp_path):
    """A file shorter than its committed offset begins anew, instead of becoming a clip with a hole."""
    await client.create()
    await client.append(b"a" * 100, 0)
    (tmp_path / "linkhost" / "clips" / f"{CLIP}.0.mp4").write_bytes(b"a" * 50)
    assert (await client.append(b"b", 100)).status == 409
    assert (await client.head()).headers["Upload-Offset"] == "0"
    assert (await client.append(b"a" * 100, 0)).status == 204


async def test_a_client_may_ask_before_it_sends_its_body(client, host):
    """`Expect: 100-continue` is answered, as curl and others wait for it."""
    await client.create()
    body = b"abc"
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
    head = (
        f"PATCH /api/v1/uploads/{CLIP}.0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nExpect: 100-continue\r\n"
        f"Content-Type: application/offset+octet-stream\r\nUpload-Offset: 0\r\nContent-Length: {len(body)}\r\n"
        f"Upload-Checksum: sha256 {base64.b64encode(hashlib.sha256(body).digest()).decode()}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode())
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await reader.read()).startswith(b"HTTP/1.1 204 ")
    writer.close()
    await writer.wait_closed()
