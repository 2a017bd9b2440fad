"""What is done with links: told again, made to live longer, revoked, held; and that it holds at once and for good."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import aiohttp
import pytest

from tests.linkhost.client import BASE_URL, CLIP, GUARD, KEY, OTHER_CLIP, Client, inside, path_of, rows
from tests.linkhost.videos import fragments, video
from vigintd.linkhost import AuditKind, LinkHost, Refusal
from vigintd.linkhost.files import Outgoing
from vigintd.publish import ClipRequest
from vigintd.publish.tus import TusHost

OWNER = "patron@exemple.fr"
BOTH = [GUARD, OWNER]


async def published(client, clip=CLIP, **fields):
    """A finished clip for two; the path of each one's link."""
    await client.publish(video(2), clip, recipients=BOTH, **fields)
    links = (await client.create(clip)).json["links"]
    return path_of(links[GUARD]), path_of(links[OWNER])


@pytest.fixture
def clip_of(host):
    """The clip as the links know it."""
    return lambda beginning=CLIP: host.links.clip(beginning)


# Revoking


async def test_revoking_one_recipient_stops_that_one_at_the_next_range(client, host, clip_of):
    """The same 404 as a stranger's, on the page and on every byte; the others go on."""
    guard, owner = await published(client)
    for link in (guard, owner):
        assert (await client.ask("GET", inside(link, "part/0.mp4"), Range="bytes=0-9")).status == 206
    assert await host.links.revoke(await clip_of(), GUARD) == [GUARD]
    stranger = await client.ask("GET", f"/video/{CLIP}?token={'A' * 43}")
    for path in (guard, *(inside(guard, place) for place in ("status", "part/0.mp4", "live/0.mp4"))):
        answer = await client.ask("GET", path, Range="bytes=10-19")
        assert (answer.status, answer.body) == (404, stranger.body)
    assert (await client.ask("GET", inside(owner, "part/0.mp4"), Range="bytes=10-19")).status == 206
    assert [row.recipient for row in await rows(host, AuditKind.REVOKED, 1)] == [GUARD]


async def test_revoking_cuts_a_live_follower_at_once(client, host, clip_of, session):
    """Who follows the recording is broken off though nothing more comes; another recipient follows on."""
    links = (await client.create(recipients=BOTH)).json["links"]
    pieces = fragments(video(2))
    await client.append(pieces[0], 0)
    guard, owner = (client.base + inside(path_of(links[name]), "live/0.mp4") for name in BOTH)
    async with session.get(guard) as cut, session.get(owner) as spared:
        for answer in (cut, spared):
            await answer.content.readexactly(len(pieces[0]))
        await host.links.revoke(await clip_of(), GUARD)
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await cut.content.read()
        await client.append(pieces[1], len(pieces[0]))
        assert await spared.content.readexactly(len(pieces[1])) == pieces[1]


async def test_revoking_ends_a_download_under_way(client, host, clip_of, session, monkeypatch):
    """Not only the next request: the answer that is being sent breaks off at its next block."""
    guard, _ = await published(client)
    read, revoked, second = Outgoing.read, asyncio.Event(), asyncio.Event()

    async def slow(file, offset_bytes, length_bytes):
        if offset_bytes:
            second.set()
            await revoked.wait()
        return await read(file, offset_bytes, min(length_bytes, 1000))

    monkeypatch.setattr(Outgoing, "read", slow)
    async with session.get(client.base + inside(guard, "part/0.mp4")) as answer:
        await second.wait()
        await host.links.revoke(await clip_of(), GUARD)
        revoked.set()
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await answer.content.read()
    (play,) = await rows(host, AuditKind.PLAY, 1)
    assert play.detail["bytes"] == 1000


async def test_a_revocation_between_the_check_and_the_first_byte_counts(client, host, clip_of, monkeypatch):
    """Whoever was let in a moment before is looked at once more when the answer begins."""
    guard, _ = await published(client)
    clip = await clip_of()
    grants, asked = host.links._store.grants, 0

    async def revoked_meanwhile(clip_id):
        nonlocal asked
        found, asked = await grants(clip_id), asked + 1
        if asked == 1:
            await host.links.revoke(clip, GUARD)
        return found

    monkeypatch.setattr(host.links._store, "grants", revoked_meanwhile)
    assert (await client.ask("GET", inside(guard, "part/0.mp4"))).status == 404
    assert asked == 2


async def test_every_link_of_a_clip_is_revoked_together(client, host, clip_of):
    """Once; those of other clips stay."""
    guard, owner = await published(client)
    other, _ = await published(client, OTHER_CLIP)
    assert await host.links.revoke(await clip_of(), None) == BOTH
    assert await host.links.revoke(await clip_of(), None) == []
    assert await host.links.revoke(await clip_of(), GUARD) == []
    assert {(await client.ask("GET", link)).status for link in (guard, owner)} == {404}
    assert (await client.ask("GET", other)).status == 200


async def test_a_revoked_link_stays_so_after_a_restart(tmp_path, clock, session):
    """Also where the uploader announces the clip once more: it is told whose link there is not."""
    host = LinkHost(tmp_path, base_url=BASE_URL, api_keys={"nvr": KEY}, clock=clock)
    await host.start(listen=("127.0.0.1", 0), unix_path=None)
    guard, owner = await published(Client(session, f"http://127.0.0.1:{host.port}"))
    await host.links.revoke(await host.links.clip(CLIP), GUARD)
    await host.aclose()
    await host.start(listen=("127.0.0.1", 0), unix_path=None)
    client = Client(session, f"http://127.0.0.1:{host.port}")
    again = (await client.create(recipients=BOTH)).json
    assert (list(again["links"]), again["revoked"]) == ([OWNER], [GUARD])
    assert [(await client.ask("GET", link)).status for link in (guard, owner)] == [404, 200]
    await host.aclose()


async def test_an_uploader_goes_on_without_the_revoked_link(short_path, tmp_path, clock):
    """It publishes for the rest; whom it would mail a new link to, it has none for."""
    path = short_path / "linkhost.sock"
    host = LinkHost(tmp_path, base_url=BASE_URL, api_keys={"nvr": KEY}, clock=clock)
    await host.start(listen=None, unix_path=path)
    uploader = TusHost("http://linkhost", KEY, unix_path=path)
    try:
        request = ClipRequest(CLIP, tuple(BOTH), 48.0, {})
        before = await uploader.create(request)
        await host.links.revoke(await host.links.clip(CLIP), GUARD)
        after = await uploader.create(request)
        assert dict(after.links) == {OWNER: before.links[OWNER]}
        assert (await uploader.create(replace(request, recipients=(GUARD,)))).links == {}
    finally:
        await uploader.aclose()
        await host.aclose()


# Living longer


async def test_an_extended_link_lives_longer(client, host, clock, clip_of):
    """Until the time that is answered, and not a moment longer."""
    guard, _ = await published(client, expiry_h=1)
    until = await host.links.extend(await clip_of(), 2)
    assert until == clock.now() + timedelta(hours=3)
    await clock.advance(3 * 3600 - 1)
    await host.run_once()
    assert (await client.ask("GET", guard)).status == 200
    await clock.advance(1)
    assert (await client.ask("GET", guard)).status == 410
    (row,) = await rows(host, AuditKind.EXTENDED, 1)
    assert row.detail == {"hours": 2, "until": until.isoformat()}


async def test_a_follower_is_not_cut_at_a_time_that_was_moved(client, host, clock, clip_of, session):
    """Who was let in before the extension sees what comes after the old expiry."""
    link = path_of((await client.create(expiry_h=1)).json["links"][GUARD])
    pieces = fragments(video(2))
    await client.append(pieces[0], 0)
    async with session.get(client.base + inside(link, "live/0.mp4")) as answer:
        await answer.content.readexactly(len(pieces[0]))
        await host.links.extend(await clip_of(), 1)
        await clock.advance(3600)
        await client.append(pieces[1], len(pieces[0]))
        assert await answer.content.readexactly(len(pieces[1])) == pieces[1]


@pytest.mark.parametrize(
    ("hours", "problem"),
    [
        (0, "hours are more than 0"),
        (-1, "hours are more than 0"),
        (float("nan"), "hours are more than 0"),
        (721, "at most 720"),
        (700, "at most 30 days: 672 hours are left to extend by"),
    ],
)
async def test_no_link_lives_longer_than_thirty_days(client, host, clip_of, hours, problem):
    """Unless the clip is held; the refusal says how much is left."""
    await published(client)
    with pytest.raises(Refusal, match=problem):
        await host.links.extend(await clip_of(), hours)
    assert await host.links.extend(await clip_of(), 672)


# Granted


async def test_one_more_recipient_is_given_a_link(client, host, clip_of):
    """Of their own; who has one is told the same again."""
    guard, _ = await published(client)
    link = path_of(await host.links.grant(await clip_of(), "police@exemple.fr"))
    assert (await client.ask("GET", link)).status == 200
    assert path_of(await host.links.grant(await clip_of(), GUARD)) == guard
    assert [row.recipient for row in await rows(host, AuditKind.LINK, 3)] == [*BOTH, "police@exemple.fr"]


async def test_whose_link_was_revoked_is_given_another_one_on_purpose_only(client, host, clip_of):
    """The revoked link stays worthless for ever."""
    guard, _ = await published(client)
    await host.links.revoke(await clip_of(), GUARD)
    with pytest.raises(Refusal, match=f"the link of {GUARD} was revoked"):
        await host.links.grant(await clip_of(), GUARD)
    link = path_of(await host.links.grant(await clip_of(), GUARD, again=True))
    assert [(await client.ask("GET", path)).status for path in (guard, link)] == [404, 200]
    await host.links.revoke(await clip_of(), GUARD)
    again = path_of(await host.links.grant(await clip_of(), GUARD, again=True))
    assert len({guard, link, again}) == 3
    assert [(await client.ask("GET", path)).status for path in (guard, link, again)] == [404, 404, 200]


async def test_a_clip_has_so_many_recipients_and_no_more(client, host, clip_of):
    await client.create(recipients=[f"{n}@exemple.fr" for n in range(50)])
    with pytest.raises(Refusal, match="at most 50 recipients"):
        await host.links.grant(await clip_of(), GUARD)
    for name in ("", "x" * 255, "a\0b"):
        with pytest.raises(Refusal, match="recipient is"):
            await host.links.grant(await clip_of(), name)


# Held


async def test_a_held_clip_is_kept_beyond_its_time_until_it_is_released(client, host, clock, clip_of, tmp_path):
    """Its links expire as ever; both is in the record, with the reason."""
    guard, _ = await published(client, expiry_h=1)
    await host.links.hold(await clip_of(), "  réquisition 2026/114\0  ")
    await clock.advance(40 * 24 * 3600)
    await host.run_once()
    assert (await client.ask("GET", guard)).status == 410
    assert (tmp_path / "linkhost" / "clips" / f"{CLIP}.0.mp4").exists()
    await host.links.release(await clip_of())
    await host.run_once()
    assert not (tmp_path / "linkhost" / "clips" / f"{CLIP}.0.mp4").exists()
    record = await host.audit(CLIP)
    assert [row.kind for row in record][-5:] == [
        *(AuditKind.HELD, AuditKind.PROBE, AuditKind.RELEASED, AuditKind.EXPIRED, AuditKind.DELETED)
    ]
    assert record[-5].detail == {"reason": "réquisition 2026/114"}


async def test_a_held_clips_links_can_be_extended_beyond_thirty_days(client, host, clock, clip_of):
    """And end with the hold."""
    guard, _ = await published(client, expiry_h=1)
    await host.links.hold(await clip_of(), "police")
    await clock.advance(40 * 24 * 3600)
    assert (await client.ask("GET", guard)).status == 410
    await host.links.extend(await clip_of(), 48)
    assert (await client.ask("GET", guard)).status == 200
    assert await host.links.release(await clip_of()) == clock.now()
    assert (await client.ask("GET", guard)).status == 410


async def test_what_makes_no_sense_is_refused_with_the_reason(client, host, clock, clip_of):
    guard, _ = await published(client, expiry_h=1)
    clip = await clip_of()
    for refused, problem in (
        (host.links.revoke(clip, "nobody@exemple.fr"), f"made for nobody@exemple.fr; there are: {GUARD}, {OWNER}"),
        (host.links.link(clip, "nobody@exemple.fr"), "made for nobody@exemple.fr"),
        (host.links.hold(clip, " \0"), "a reason of at most 500 characters is required"),
        (host.links.hold(clip, "x" * 501), "a reason of at most 500 characters is required"),
        (host.links.release(clip), "the clip is not held"),
        (host.links.clip("ffff"), "there is no clip ffff"),
        (host.links.clip(""), "there is no clip"),
        (host.links.clip("%"), "there is no clip"),
    ):
        with pytest.raises(Refusal, match=problem):
            await refused
    await clock.advance(3600)
    await host.run_once()
    gone = await clip_of()
    for refused in (host.links.extend(gone, 1), host.links.hold(gone, "late"), host.links.link(gone, GUARD)):
        with pytest.raises(Refusal, match="nothing"):
            await refused
    assert await host.links.revoke(gone, GUARD) == [GUARD], "410 says that it was right once; a stranger reads 404"
    assert (await client.ask("GET", guard)).status == 404


# Seen and told


async def test_a_link_is_told_again_to_whoever_runs_the_host(client, host, clip_of):
    """The same one, and it is written down that it was told; a revoked one is told to nobody."""
    guard, _ = await published(client)
    link = await host.links.link(await clip_of(), GUARD)
    assert path_of(link) == guard
    assert [row.detail.get("what") for row in await rows(host, AuditKind.LINK, 3)] == [None, None, "shown"]
    await host.links.revoke(await clip_of(), GUARD)
    with pytest.raises(Refusal, match=f"the link of {GUARD} was revoked"):
        await host.links.link(await clip_of(), GUARD)


async def test_clips_are_listed_newest_first_with_whoever_watched(client, host, clock, clip_of):
    """By the beginning of an id too; what is deleted only when asked for; and no token anywhere."""
    guard, _ = await published(client, expiry_h=1)
    await clock.advance(60)
    await published(client, OTHER_CLIP)
    await client.ask("GET", inside(guard, "part/0.mp4"))
    await rows(host, AuditKind.PLAY, 1)
    listed = await host.links.listed(gone=False, limit=10)
    assert [clip["id"] for clip in listed] == [OTHER_CLIP, CLIP]
    assert [recipient["played"] for recipient in listed[1]["recipients"]] == [True, False]
    assert (listed[1]["state"], listed[1]["camera"], listed[1]["uploaded_by"]) == ("finished", "entree", "nvr")
    shown = await host.links.shown(await clip_of(CLIP[:5].upper()), {})
    assert [visit["kind"] for visit in shown["visits"]] == ["play"]
    assert "token" not in str(shown) + str(listed)
    await clock.advance(3600)
    await host.run_once()
    assert [clip["id"] for clip in await host.links.listed(gone=False, limit=10)] == [OTHER_CLIP]
    assert (await host.links.listed(gone=True, limit=10))[1]["state"] == "deleted"
    assert len(await host.links.listed(gone=True, limit=1)) == 1


async def test_the_beginning_of_several_ids_names_none(client, host):
    first, second = CLIP, CLIP[:-1] + "f"
    for clip in (first, second):
        await client.create(clip)
    with pytest.raises(Refusal, match=f"several clips begin with {CLIP[:8]}: .*write more of the id"):
        await host.links.clip(CLIP[:8])
    assert (await host.links.clip(first)).id == first


# What a crash leaves


async def test_a_row_without_its_file_begins_anew(tmp_path, clock, session, log_text):
    """It is in the record, and an uploader that has the bytes sends them again; other parts are not touched."""
    host = LinkHost(tmp_path, base_url=BASE_URL, api_keys={"nvr": KEY}, clock=clock)
    await host.start(listen=("127.0.0.1", 0), unix_path=None)
    data = video(2)
    client = Client(session, f"http://127.0.0.1:{host.port}")
    await client.publish(data)
    await client.publish(data, OTHER_CLIP)
    await host.aclose()
    (tmp_path / "clips" / f"{CLIP}.0.mp4").unlink()
    await host.start(listen=("127.0.0.1", 0), unix_path=None)
    client = Client(session, f"http://127.0.0.1:{host.port}")
    assert "linkhost.file_lost" in log_text()
    assert (await host.audit(CLIP))[-1].detail == {"what": "lost", "part": 0, "bytes": len(data)}
    assert (await client.head()).headers["Upload-Offset"] == "0"
    assert (await client.append(data, 0)).status == 204
    assert (await client.seal(data)).status == 200
    assert (await client.head(OTHER_CLIP)).headers["Upload-Offset"] == str(len(data))
    await host.aclose()


async def test_deletions_stay_on_record(client, host, clock):
    """A register of what is gone: when, how much, and by what."""
    await published(client, expiry_h=1)
    await published(client, OTHER_CLIP)
    assert (await client.api("DELETE", f"/uploads/{OTHER_CLIP}.0")).status == 204
    await clock.advance(3600)
    await host.run_once()
    await host.run_once()
    deleted = [row for row in await host.record.page(0) if row.kind is AuditKind.DELETED]
    assert [(row.clip_id, row.detail["by"]) for row in deleted] == [(OTHER_CLIP, "nvr"), (CLIP, "expiry")]
    assert [row.at for row in deleted] == [clock.now() - timedelta(hours=1), clock.now()]


async def test_many_changes_at_once_make_one_record(client, host, clip_of):
    """Revocations, extensions and touches that come together follow each other."""
    guard, owner = await published(client)
    clip = await clip_of()
    await asyncio.gather(
        host.links.revoke(clip, GUARD),
        host.links.extend(clip, 1),
        host.links.hold(clip, "x"),
        *(client.ask("GET", link) for link in (guard, owner) for _ in range(5)),
    )
    seqs = [row.seq for row in await host.record.page(0)]
    assert seqs == list(range(1, len(seqs) + 1))
