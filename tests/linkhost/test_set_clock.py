"""A clock that somebody sets: links go by it, and deletion does not."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest

from tests.linkhost.client import BASE_URL, CLIP, GUARD, KEY, Client, path_of
from tests.linkhost.videos import fragments, video
from tests.manual_clock import ManualClock
from vigintd.linkhost import LinkHost
from vigintd.linkhost.schema import _FIRST
from vigintd.linkhost.store import Clip, Store
from vigintd.linkhost.visitors import Visitor

DAY_S = 86_400
YEARS_2_S = 730 * DAY_S


async def test_a_clock_that_runs_ahead_closes_links_and_deletes_nothing(client, host, clock):
    """When it is right again, everything is as it was; and the clip goes at its time."""
    link = await client.publish(video(2))
    clock.jump(YEARS_2_S)
    await host.run_once()
    assert (await client.ask("GET", link)).status == 410
    clock.jump(-YEARS_2_S)
    await clock.advance(48 * 3600 - 1)
    await host.run_once()
    assert (await client.ask("GET", link)).status == 200
    await clock.advance(1)
    await host.run_once()
    assert (await host.audit(CLIP))[-1].detail["by"] == "expiry"


async def test_a_clock_that_is_set_back_keeps_a_clip_no_longer_than_that(client, host, clock, tmp_path):
    """A day back: a day longer. Years back: twice as long as it was to be kept, and not for years."""
    clips = tmp_path / "linkhost" / "clips"
    for back_s, stays_s in ((DAY_S, 3 * DAY_S), (YEARS_2_S, 4 * DAY_S)):
        clip = CLIP[:-1] + str(back_s % 7)
        await client.publish(video(2), clip)
        clock.jump(-back_s)
        await clock.advance(stays_s - 1)
        await host.run_once()
        assert [path.name for path in clips.iterdir()] == [f"{clip}.0.mp4"]
        await clock.advance(1)
        await host.run_once()
        assert list(clips.iterdir()) == []


async def test_neither_a_restart_nor_a_wrong_clock_at_a_start_deletes(tmp_path, clock, session):
    for jump_s in (YEARS_2_S, -YEARS_2_S - DAY_S, DAY_S):
        host = LinkHost(tmp_path / "links", base_url=BASE_URL, api_keys={"nvr": KEY}, clock=clock)
        await host.start(listen=("127.0.0.1", 0), unix_path=None)
        client = Client(session, f"http://127.0.0.1:{host.port}")
        if jump_s == YEARS_2_S:
            link = await client.publish(video(2))
        assert len(list((tmp_path / "links" / "clips").iterdir())) == 1
        clock.jump(jump_s)
        await host.aclose()
    await host.start(listen=("127.0.0.1", 0), unix_path=None)
    assert (await Client(session, f"http://127.0.0.1:{host.port}").ask("GET", link)).status == 200
    await host.aclose()


async def test_a_clip_under_way_goes_on_though_its_links_have_expired_by_a_clock_that_was_set(client, clock):
    """Its uploader is refused nothing, and whoever is still owed the link gets one that lives."""
    data = video(2)
    first, *others = fragments(data)
    await client.create()
    await client.append(first, 0)
    clock.jump(YEARS_2_S)
    offset = len(first)
    for piece in others:
        assert (await client.append(piece, offset)).status == 204
        offset += len(piece)
    assert (await client.seal(data)).status == 200
    again = await client.create()
    assert again.status == 200
    assert again.json["expires_at"] == (clock.now() + timedelta(hours=48)).isoformat()
    assert (await client.ask("GET", path_of(again.json["links"][GUARD]))).status == 200


async def test_a_link_that_lives_anew_makes_no_clip_older(client, host, clock, tmp_path):
    """It was dated by a clock years ahead; the clip itself goes when it is twice as old as it might become."""
    await client.publish(video(2))
    clock.jump(YEARS_2_S)
    assert (await client.create()).status == 200
    clock.jump(-YEARS_2_S)
    await clock.advance(4 * DAY_S - 1)
    assert (await client.create()).status == 200
    await clock.advance(1)
    await host.run_once()
    assert list((tmp_path / "linkhost" / "clips").iterdir()) == []
    assert (await client.create()).status == 410


async def a_clip(store: Store, clock: ManualClock) -> None:
    now = clock.now()
    clip = Clip(CLIP, "nvr", "k", {}, now, now, now + timedelta(days=2), 2.0 * DAY_S, store.lived.now())
    assert await store.create(clip, [GUARD], Visitor("local", "test"))


async def test_a_machine_that_was_off_for_long_has_not_lived_that_long(tmp_path):
    """Its clock may be right; nobody can know."""
    clock = ManualClock()
    store = await Store.open(tmp_path / "db", clock, boot="first")
    await a_clip(store, clock)
    await clock.advance(DAY_S)
    await store.aclose()
    clock.jump(5 * DAY_S)
    store = await Store.open(tmp_path / "db", clock, boot="second")
    try:
        assert await store.overdue() == []
        await clock.advance(DAY_S - 1)
        assert await store.overdue() == []
        await clock.advance(1)
        assert await store.overdue() == [CLIP]
    finally:
        await store.aclose()


async def test_a_database_that_knew_no_lived_time_is_brought_up_and_keeps_its_clips_as_long_again(tmp_path):
    clock = ManualClock()
    created, expires = (moment.isoformat(timespec="microseconds") for moment in (clock.now(), clock.now() + timedelta(days=2)))
    with closing(sqlite3.connect(tmp_path / "db")) as database, database:
        database.executescript(f"{_FIRST} PRAGMA user_version = 1;")
        row = (CLIP, "nvr", "k", "{}", created, created, expires, None)
        database.execute("INSERT INTO clip VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    clock.jump(YEARS_2_S)
    store = await Store.open(tmp_path / "db", clock)
    try:
        clip = await store.clip(CLIP)
        assert clip
        assert clip.kept_s == pytest.approx(2 * DAY_S)
        await clock.advance(2 * DAY_S - 1)
        assert await store.overdue() == []
        await clock.advance(1)
        assert await store.overdue() == [CLIP]
    finally:
        await store.aclose()
