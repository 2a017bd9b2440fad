"""The journal goes by lived time: across restarts, wrong clocks and a machine that was off."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.journal.test_journal import alert, incident
from tests.manual_clock import ManualClock
from vigintd.journal import EffectKind, Journal, as_plain, of_plain
from vigintd.model import IncidentState

DAY_S = 86_400
YEARS_2_S = 730 * DAY_S
MINUTE = timedelta(minutes=1)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.sqlite3"


@pytest.mark.parametrize("jump_s", [YEARS_2_S, -DAY_S])
async def test_what_is_due_in_a_minute_is_due_in_a_minute_whatever_the_clock_is_set_to(path, clock, jump_s):
    """While the journal is open, and while it is closed; time passes in either case."""
    async with Journal.open(path, clock) as journal:
        await journal.open_incident(incident(clock), [alert("a", journal.now() + 3 * MINUTE)])
        clock.jump(jump_s)
        await clock.advance(60)
        assert await journal.next_try_at(EffectKind.ALERT) == journal.now() + 2 * MINUTE
        assert await journal.due(EffectKind.ALERT) == []
    clock.jump(jump_s)
    await clock.advance(60)
    async with Journal.open(path, clock) as journal:
        assert await journal.next_try_at(EffectKind.ALERT) == journal.now() + MINUTE
        await clock.advance(60)
        (effect,) = await journal.due(EffectKind.ALERT)
        assert journal.now() - effect.owed_at == 3 * MINUTE


async def test_a_machine_that_was_off_makes_nothing_older_and_no_wait_longer(path, clock):
    async with Journal.open(path, clock, boot="first") as journal:
        await journal.open_incident(incident(clock), [alert("a", journal.now() + 3 * MINUTE)])
        await clock.advance(60)
    clock.jump(-YEARS_2_S)
    async with Journal.open(path, clock, boot="second") as journal:
        assert await journal.next_try_at(EffectKind.ALERT) == journal.now() + 2 * MINUTE


async def test_what_was_lived_since_the_last_mark_is_lost_with_the_power(path, clock):
    """And no more than that; a process that dies alone loses nothing."""
    async with Journal.open(path, clock, boot="first") as journal:
        kept = journal.now()
        await clock.advance(600)
        for boot, now in (("first", journal.now()), ("second", kept)):
            copy = path.with_name(f"copy-{boot}.sqlite3")
            with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
            async with Journal.open(copy, clock, boot=boot) as other:
                assert other.now() == now
        await journal.keep_time()
        path.with_name("copy-second.sqlite3").unlink()
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        async with Journal.open(copy, clock, boot="second") as other:
            assert other.now() == journal.now()


async def test_labels_are_told_by_the_wall_clock(path, clock):
    async with Journal.open(path, clock) as journal:
        await journal.open_incident(incident(clock), [alert("a")])
        clock.jump(DAY_S)
        await journal.record_playable(incident(clock).id)
        await journal.settle(f"{incident(clock).id}/alert/a")
        row = await journal.incident(incident(clock).id)
        assert row
        assert row.playable_at == row.effects[0].settled_at == clock.now()


async def test_a_clip_is_as_old_as_it_was_first_said_to_be_over(path, clock):
    async with Journal.open(path, clock) as journal:
        opened = incident(clock)
        await journal.open_incident(opened, [alert("a")])
        over = replace(opened, state=IncidentState.SEALED, ended_at=clock.now())
        for state, lived in ((opened, None), (over, journal.now() + MINUTE), (over, journal.now() + MINUTE)):
            await journal.record_incident(state)
            row = await journal.incident(opened.id)
            assert row
            assert row.ended_lived == lived
            await clock.advance(60)


@pytest.mark.parametrize("jump_s", [YEARS_2_S, -YEARS_2_S])
async def test_a_row_taken_over_from_a_sidecar_keeps_its_age_and_its_wait(path, tmp_path, clock, jump_s):
    """The new journal's time began as a clock that is wrong."""
    async with Journal.open(path, clock) as journal:
        opened = replace(incident(clock), state=IncidentState.SEALED, ended_at=clock.now())
        await journal.open_incident(opened, [alert("a", journal.now() + 3 * MINUTE)])
        await clock.advance(60)
        row = await journal.incident(opened.id)
        assert row
        sidecar = as_plain(row)
    clock.jump(jump_s)
    async with Journal.open(tmp_path / "new.sqlite3", clock) as journal:
        await journal.adopt([of_plain(sidecar)])
        row = await journal.incident(opened.id)
        assert row
        (effect,) = row.effects
        assert (journal.now() - effect.owed_at, effect.next_try_at - journal.now()) == (MINUTE, 2 * MINUTE)
        assert row.ended_lived == journal.now() - MINUTE


async def test_a_journal_that_knew_no_lived_time_is_brought_up_and_its_clips_are_kept_as_long_again(path, clock):
    """Whatever its clock says meanwhile."""
    async with Journal.open(path, clock) as journal:
        await journal.open_incident(incident(clock), [])
        await journal.record_incident(replace(incident(clock), state=IncidentState.SEALED, ended_at=clock.now()))
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(
            "DROP TABLE mark; ALTER TABLE incident DROP COLUMN ended_lived; ALTER TABLE effect DROP COLUMN reminded_at;"
            "PRAGMA user_version = 4;"
        )
    clock.jump(YEARS_2_S)
    async with Journal.open(path, clock) as journal:
        row = await journal.incident(incident(clock).id)
        assert row
        assert row.ended_lived == journal.now()
