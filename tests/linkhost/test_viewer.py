"""The viewer's side: who may see what, ranges, following a growing part, the page, the record."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import aiohttp
import pytest

from tests.linkhost.client import CLIP, GUARD, METADATA, OTHER_CLIP, eventually, inside, path_of, rows
from tests.linkhost.videos import fragments, video
from vigintd.linkhost import AuditKind

PLACES = ["", "/status", "/part/0.mp4", "/live/0.mp4"]


def tokened(place: str, token: str, clip: str = CLIP) -> str:
    return f"/video/{clip}{place}?token={token}"


async def test_every_wrong_token_gets_one_same_404_page(client):
    """Wrong, cut, long, empty, missing, doubled, of another clip or for an unknown clip: the same bytes everywhere."""
    link = await client.publish(video(2))
    other = await client.publish(video(2), OTHER_CLIP)
    right, foreign = link.partition("token=")[2], other.partition("token=")[2]
    assert right != foreign
    wrong = [
        "A" * 43,
        right[:-1],
        right[:-1] + ("A" if right[-1] != "A" else "B"),
        right + "A",
        "",
        foreign,
        right.lower(),
        "%00" * 43,
    ]
    paths = [tokened(place, token) for place in PLACES for token in wrong]
    paths += [f"/video/{CLIP}{place}" for place in PLACES]
    paths += [f"/video/{CLIP}{place}?token={right}&token={right}" for place in PLACES]
    paths += [tokened(place, right, clip) for place in PLACES for clip in ("0" * 8 + CLIP[8:], CLIP.upper(), "x")]
    paths += ["/", "/video/", "/nothing", "/assets/x.js", f"/video/{CLIP}/part/1000.mp4?token={right}"]
    answers = {path: await client.ask("GET", path) for path in paths}
    assert {answer.status for answer in answers.values()} == {404}
    assert len({answer.body for answer in answers.values()}) == 1
    assert len({str(sorted((k, v) for k, v in answer.headers.items() if k != "Date")) for answer in answers.values()}) == 1
    for path in paths:
        head = await client.ask("HEAD", path)
        assert (head.status, head.body) == (404, b"")
        assert head.headers["Content-Length"] == str(len(answers[path].body))


async def test_an_expired_link_is_gone_on_every_request(client, clock, host, tmp_path):
    """410 from the second of expiry, before and after the files were deleted, and over a wrong token still 404."""
    link = await client.publish(video(2))
    await clock.advance(48 * 3600 - 1)
    assert (await client.ask("GET", link)).status == 200
    await clock.advance(1)
    for deleted in (False, True):
        for place in PLACES:
            answer = await client.ask("GET", link.replace(CLIP, CLIP + place))
            assert answer.status == 410
            assert "n’est plus disponible" in answer.text
            assert (await client.ask("GET", tokened(place, "A" * 43))).status == 404
        if not deleted:
            assert len(list((tmp_path / "linkhost" / "clips").iterdir())) == 1
            await host.run_once()
            assert list((tmp_path / "linkhost" / "clips").iterdir()) == []
    kinds = [row.kind for row in await host.audit(CLIP)]
    assert kinds.count(AuditKind.EXPIRED) == kinds.count(AuditKind.DELETED) == 1


async def test_a_range_is_answered_to_the_byte(client):
    """Single ranges give 206 with exactly their bytes; Safari's first two bytes among them."""
    data = video(3)
    part = inside(await client.publish(data), "part/0.mp4")
    size = len(data)
    for asked, first, last in [
        ("bytes=0-1", 0, 1),
        ("bytes=0-", 0, size - 1),
        (f"bytes=100-{size * 2}", 100, size - 1),
        ("bytes=-500", size - 500, size - 1),
        (f"bytes=-{size * 2}", 0, size - 1),
        (f"bytes={size - 1}-", size - 1, size - 1),
        ("BYTES=5-9", 5, 9),
    ]:
        answer = await client.ask("GET", part, Range=asked)
        assert answer.status == 206, asked
        assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
        assert answer.headers["Content-Length"] == str(last - first + 1)
        assert answer.headers["Content-Type"] == "video/mp4"
        assert answer.body == data[first : last + 1]


@pytest.mark.parametrize(
    "asked",
    [
        None,
        "bytes=0-1,5-6",
        "bytes=5-2",
        "bytes=-",
        "bytes=a-b",
        "seconds=0-1",
        "bytes 0-1",
        "bytes=0-1-2",
        "bytes=" + "9" * 400 + "-",
    ],
)
async def test_what_is_no_single_range_gets_the_whole(client, asked):
    """Without a Range, with several, and with a malformed or foreign one the answer is 200 with everything."""
    data = video(2)
    part = inside(await client.publish(data), "part/0.mp4")
    answer = await client.ask("GET", part, **({} if asked is None else {"Range": asked}))
    assert answer.status == 200
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.body == data


@pytest.mark.parametrize("asked", ["bytes=999999999-", "bytes=-0"])
async def test_a_range_without_any_byte_is_refused(client, asked):
    """416 says how long the part is."""
    data = video(2)
    answer = await client.ask("GET", inside(await client.publish(data), "part/0.mp4"), Range=asked)
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(data)}"
    assert answer.body == b""


async def test_a_sealed_part_names_its_bytes(client):
    """Its digest is in ETag and Repr-Digest; a Range for other bytes (If-Range) gets the whole; HEAD says the same."""
    data = video(2)
    part = inside(await client.publish(data), "part/0.mp4")
    etag = f'"{hashlib.sha256(data).hexdigest()}"'
    assert (await client.ask("GET", part, Range="bytes=0-1", If_Range=etag)).status == 206
    whole = await client.ask("GET", part, Range="bytes=0-1", If_Range='"other"')
    assert (whole.status, whole.body) == (200, data)
    assert whole.headers["ETag"] == etag
    assert whole.headers["Content-Disposition"] == 'inline; filename="vigint-entree-2026-03-14T10-26-53.mp4"'
    head = await client.ask("HEAD", part)
    assert head.body == b""
    drop = ("Date",)
    assert {k: v for k, v in head.headers.items() if k not in drop} == {k: v for k, v in whole.headers.items() if k not in drop}
    partial = await client.ask("HEAD", part, Range="bytes=0-1")
    assert (partial.status, partial.headers["Content-Length"]) == (206, "2")


async def test_a_growing_part_can_be_followed_until_it_is_sealed(client, session):
    """The stream begins at byte 0, brings each fragment as soon as it is committed, and ends with the seal."""
    data = video(3)
    pieces = fragments(data)
    link = path_of((await client.create()).json["links"][GUARD])
    assert (await client.ask("GET", inside(link, "live/0.mp4"))).status == 404
    await client.append(pieces[0], 0)
    async with session.get(client.base + inside(link, "live/0.mp4")) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "video/mp4"
        assert "Content-Length" not in answer.headers
        got = await answer.content.readexactly(len(pieces[0]))
        for piece in pieces[1:]:
            assert (await client.append(piece, len(got))).status == 204
            got += await answer.content.readexactly(len(piece))
        assert got == data
        await client.seal(data)
        assert await answer.content.read() == b""
    late = await client.ask("GET", inside(link, "live/0.mp4"))
    assert (late.status, late.body) == (200, data)


async def test_a_follower_is_cut_off_when_what_it_saw_is_void(client, session):
    """After a seal that does not fit, the stream breaks off instead of ending as if it were whole."""
    data = video(2)
    link = path_of((await client.create()).json["links"][GUARD])
    await client.append(data, 0)
    async with session.get(client.base + inside(link, "live/0.mp4")) as answer:
        await answer.content.readexactly(len(data))
        await client.seal(data, sha256="0" * 64)
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await answer.content.read()


async def test_a_part_that_still_grows_can_be_read_as_far_as_it_is(client):
    """Ranges count what is committed; there is no ETag, for the bytes are not final."""
    data = video(2)
    link = path_of((await client.create()).json["links"][GUARD])
    await client.append(data[:3000], 0)
    answer = await client.ask("GET", inside(link, "part/0.mp4"), Range="bytes=0-")
    assert answer.headers["Content-Range"] == "bytes 0-2999/3000"
    assert "ETag" not in answer.headers


async def test_status_tells_how_far_the_clip_is(client, clock):
    """Recording, interrupted while nothing comes, recording again, finished: as the page shows it."""
    data = video(2)
    link = path_of((await client.create()).json["links"][GUARD])

    async def status() -> Any:
        answer = await client.ask("GET", inside(link, "status"))
        assert answer.headers["Content-Type"] == "application/json"
        return answer.json

    assert (await status())["state"] == "recording"
    await client.append(data, 0)
    now = await status()
    assert now["parts"] == [
        {
            "index": 0,
            "bytes": len(data),
            "sealed": False,
            "sha256": None,
            "mime": now["parts"][0]["mime"],
            "mismatched": False,
        }
    ]
    assert re.fullmatch(r'video/mp4; codecs="avc1\.[0-9A-F]{6}"', now["parts"][0]["mime"])
    clock.jump(61)
    interrupted = await status()
    assert interrupted["state"] == "interrupted"
    assert "Enregistrement interrompu" in (await client.ask("GET", link)).text
    await client.seal(data)
    assert (await status())["state"] == "recording"
    await client.update(ended=True)
    finished = await status()
    assert finished["state"] == "finished"
    assert finished["verified"] is True
    assert finished["bytes"] == len(data)
    assert len({now["version"], interrupted["version"], finished["version"]}) == 3


async def test_the_page_says_all_that_is_known(client):
    """Site, camera, time, type, risk, confidence, analysis, size, SHA-256 and expiry, in French."""
    data = video(2)
    page = (await client.ask("GET", await client.publish(data))).text
    assert '<html lang="fr">' in page
    for text in (
        "Boutique Rivoli",
        "entree",
        "samedi 14 mars 2026 à 10:26:53 (UTC+01:00)",
        "Vol à l&#39;étalage",
        "Élevé",
        "87\N{NO-BREAK SPACE}%",
        "Une personne glisse un article sous son manteau.",
        f"{len(data) / 1000:.1f}".replace(".", ",") + " ko",
        hashlib.sha256(data).hexdigest(),
        "lundi 16 mars 2026 à 10:26 (UTC+01:00)",
        "Enregistrement terminé",
        "Intégrité vérifiée",
        "Télécharger la vidéo",
        f'src="{CLIP}/part/0.mp4?token=',
    ):
        assert text in page, text


@pytest.mark.parametrize(
    ("of_clip", "of_browser", "language"),
    [
        ("en", "fr", "en"),
        ("fr", "en", "fr"),
        (None, "en-GB,en;q=0.9,fr;q=0.8", "en"),
        (None, "de,fr;q=0.5,en;q=0.4", "fr"),
        (None, "de", "fr"),
        (None, "", "fr"),
        (None, ";q=x,,*;q=0,en;q=nan", "fr"),
        ("xx", "en", "en"),
    ],
)
async def test_the_page_speaks_the_recipients_language_then_the_browsers(client, of_clip, of_browser, language):
    """The clip's language first, then Accept-Language, then the host's own."""
    link = await client.publish(video(2), metadata={**METADATA, "language": of_clip})
    page = (await client.ask("GET", link, Accept_Language=of_browser)).text
    assert f'<html lang="{language}">' in page


async def test_what_vigintd_itself_detects_is_translated(client):
    """`motion` and an unknown risk are words of the product, not of the page."""
    link = await client.publish(video(2), metadata={"type": "motion", "language": "en", "at": "2026-03-14T09:26:53+00:00"})
    page = (await client.ask("GET", link)).text
    assert "Motion detected" in page
    assert "Unknown" in page
    assert "Saturday 14 March 2026 at 09:26:53 (UTC)" in page


@pytest.mark.parametrize(
    "hostile", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "javascript:alert(1)"]
)
async def test_metadata_is_only_ever_text(client, hostile):
    """Markup, attributes and template code in any field come out as text, and in no file's name."""
    fields = dict.fromkeys(METADATA, hostile)
    link = await client.publish(video(2), metadata=fields)
    page = (await client.ask("GET", link)).text
    assert "<script>" not in page
    assert "<img src=x" not in page
    assert "49" not in re.sub(r"[0-9a-f]{32,}|token=[^\"]+", "", page)
    assert page.count("<script ") == 1
    disposition = (await client.ask("HEAD", inside(link, "part/0.mp4"))).headers["Content-Disposition"]
    assert re.fullmatch(r'inline; filename="[A-Za-z0-9-]+\.mp4"', disposition)


@pytest.mark.parametrize(
    "metadata",
    [{}, {"at": "not a time"}, {"at": 5, "confidence": "high", "risk": None}, {"at": "2026-03-14T09:26:53"}, {"confidence": 7}],
)
async def test_a_page_can_be_made_of_any_metadata(client, metadata):
    """Missing and odd fields leave gaps, not errors."""
    assert (await client.ask("GET", await client.publish(video(2), metadata=metadata))).status == 200


async def test_a_file_that_is_no_video_does_no_harm(client):
    """Strangers' bytes are kept and shown as they are; their type has no codec."""
    for clip, junk in ((CLIP, b"\0" * 1000), (OTHER_CLIP, b"\xff\xff\xff\xffftyp" + b"moov" * 300)):
        link = await client.publish(junk, clip)
        assert (await client.ask("GET", link)).status == 200
        assert (await client.ask("GET", inside(link, "status"))).json["parts"][0]["mime"] == "video/mp4"


async def test_every_touch_is_written_down_as_what_it_was(client, host):
    """Link made, page touched, HEAD and media played are told apart, with a truncated address and a family of clients."""
    data = video(2)
    link = await client.publish(data)
    phone = (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 Version/17.4 Mobile/15E148 Safari/604.1"
    )
    await client.ask("GET", link, User_Agent=phone)
    await client.ask("HEAD", link, User_Agent="curl/8.5")
    await client.ask("HEAD", inside(link, "part/0.mp4"))
    await client.ask("GET", inside(link, "part/0.mp4"), Range="bytes=10-19", User_Agent=phone)
    await client.ask("GET", inside(link, "live/0.mp4"))
    plays = await rows(host, AuditKind.PLAY, 2)
    assert [dict(row.detail) for row in plays] == [
        {"part": 0, "first": 10, "bytes": 10},
        {"part": 0, "first": 0, "bytes": len(data)},
    ]
    record = await host.audit(CLIP)
    assert [(row.kind.value, row.detail.get("what")) for row in record] == [
        ("upload", "created"),
        ("link", None),
        ("upload", "sealed"),
        ("probe", "page"),
        ("probe", "HEAD page"),
        ("probe", "HEAD media"),
        ("play", None),
        ("play", None),
    ]
    assert {row.recipient for row in record} == {"", GUARD}
    assert {row.address for row in record} == {"127.0.0.0/24"}
    assert (record[3].client, record[4].client) == ("Safari, iPhone", "curl")
    assert "token" not in str(record)
    assert link.partition("token=")[2] not in str(record)


async def test_a_page_that_polls_is_one_touch(client, host, clock):
    """Its status and its renewals are written down once in ten minutes, not once a second."""
    link = await client.publish(video(2))
    for _ in range(5):
        await client.ask("GET", inside(link, "status"))
        await client.ask("GET", link, Vigint_Refresh="1")
    await clock.advance(601)
    await client.ask("GET", inside(link, "status"))
    touched = [row.detail["what"] for row in await rows(host, AuditKind.PROBE, 3)]
    assert touched == ["status", "refresh", "status"]


async def test_half_a_play_is_written_down_with_what_was_sent(client, host, session):
    """A viewer who leaves in the middle has played what was sent until then."""
    data = video(2)
    link = path_of((await client.create()).json["links"][GUARD])
    await client.append(data, 0)
    async with session.get(client.base + inside(link, "live/0.mp4")) as answer:
        await answer.content.readexactly(len(data))
    await client.seal(data)
    (row,) = await rows(host, AuditKind.PLAY, 1)
    assert row.detail["bytes"] == len(data)


async def test_a_record_has_a_largest_length(client, host, monkeypatch):
    """At the bound one row says that the record is full; uploads are still written down."""
    monkeypatch.setattr("vigintd.linkhost.store.MAX_AUDIT_ROWS", 5)
    link = await client.publish(video(2))
    for _ in range(5):
        await client.ask("GET", link)
    await client.create(part=1)
    await client.seal(b"", part=1)
    kinds = [row.kind for row in await host.audit(CLIP)]
    assert kinds[-2:] == [AuditKind.FULL, AuditKind.UPLOAD]
    assert len(kinds) == 7
    assert (await eventually(host, lambda row: row.kind == AuditKind.FULL, 1))[0].recipient == ""


async def test_an_answer_under_way_ends_at_expiry(client, host, clock, session):
    """A follower that was let in before sees nothing of what comes after the clip's time."""
    link = path_of((await client.create(expiry_h=1)).json["links"][GUARD])
    pieces = fragments(video(2))
    await client.append(pieces[0], 0)
    async with session.get(client.base + inside(link, "live/0.mp4")) as answer:
        await answer.content.readexactly(len(pieces[0]))
        await clock.advance(3600)
        await host.run_once()
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await answer.content.read()
