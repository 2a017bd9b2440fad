"""Retention: what was published leaves the spool when its time has passed, really passed; what is owed stays."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tests.incident.test_courier import ID
from tests.manual_clock import ManualClock
from vigintd.incident import Retention
from vigintd.journal import EffectKind, Journal, Owed
from vigintd.model import Detection, Incident, IncidentState, SealedPart
from vigintd.spool import Spool

DAY_S = 86_400
DAYS_2_S = 2 * DAY_S
"""As long as links live here."""
YEARS_2_S = 730 * DAY_S


@asynccontextmanager
async def spooled(tmp_path, *, settled: Sequence[EffectKind]):
    """A clip and a snapshot in the spool, of an incident that ended now and owes all but what is settled."""
    clock, spool = ManualClock(), Spool(tmp_path / "spool")
    async with Journal.open(tmp_path / "journal.sqlite3", clock) as journal:
        incident = Incident(ID, Detection("entree", 0, clock.now(), "motion"))
        await journal.open_incident(incident, [Owed(EffectKind.PUBLISH, ""), Owed(EffectKind.ALERT, "a@exemple.fr")])
        part = await spool.new_part(ID, 0)
        await part.seal(duration_s=1)
        await spool.keep(ID, ".jpg", b"a picture")
        parts = (SealedPart(0, 0, "00" * 32, 1),)
        await journal.record_incident(replace(incident, state=IncidentState.SEALED, parts=parts, ended_at=clock.now()))
        row = await journal.incident(ID)
        assert row
        for effect in row.effects:
            if effect.kind in settled:
                await journal.settle(effect.key)
        yield Retention(journal=journal, spool=spool, expiry_h=48, clock=clock), spool, clock
    await spool.aclose()


async def test_a_published_clip_leaves_the_spool_when_its_links_expire_and_not_before(tmp_path):
    """With its sidecar and its snapshot."""
    async with spooled(tmp_path, settled=[*EffectKind]) as (retention, spool, clock):
        await clock.advance(DAYS_2_S - 1)
        await retention.run_once()
        assert await spool.incidents() == [ID]
        await clock.advance(1)
        await retention.run_once()
        assert await spool.incidents() == []
        assert list(spool.root.iterdir()) == []


@pytest.mark.parametrize("jump_s", [YEARS_2_S, -DAY_S])
async def test_a_clock_that_was_set_removes_nothing_and_keeps_nothing_for_ever(tmp_path, jump_s):
    """By the second where it is ahead; where it is behind, when it has caught up."""
    async with spooled(tmp_path, settled=[*EffectKind]) as (retention, spool, clock):
        clock.jump(jump_s)
        await clock.advance(DAYS_2_S - 1)
        await retention.run_once()
        assert await spool.incidents() == [ID]
        await clock.advance(1 + max(0, -jump_s))
        await retention.run_once()
        assert await spool.incidents() == []


async def test_a_clip_that_was_dated_years_ahead_goes_all_the_same(tmp_path):
    """The clock was wrong when it was recorded, and is right now: it goes when it is twice as old as it might become."""
    async with spooled(tmp_path, settled=[*EffectKind]) as (retention, spool, clock):
        clock.jump(-YEARS_2_S)
        await clock.advance(2 * DAYS_2_S - 1)
        await retention.run_once()
        assert await spool.incidents() == [ID]
        await clock.advance(1)
        await retention.run_once()
        assert await spool.incidents() == []


@pytest.mark.parametrize("settled", [[EffectKind.ALERT], [EffectKind.PUBLISH]])
async def test_what_is_owed_stays_however_old(tmp_path, settled):
    """Nothing that was promised is removed."""
    async with spooled(tmp_path, settled=settled) as (retention, spool, clock):
        await clock.advance(365 * DAY_S)
        await retention.run_once()
        assert await spool.incidents() == [ID]


async def test_what_the_journal_does_not_know_is_left_alone(tmp_path):
    async with spooled(tmp_path, settled=[*EffectKind]) as (retention, spool, clock):
        other = ID.replace("1", "2")
        await spool.keep(other, ".jpg", b"whose?")
        await clock.advance(365 * DAY_S)
        await retention.run_once()
        assert await spool.incidents() == [other]


async def test_a_clip_that_cannot_be_removed_keeps_no_other(tmp_path, monkeypatch):
    async with spooled(tmp_path, settled=[*EffectKind]) as (retention, spool, clock):
        older, failed = ID.replace("1", "0"), list[str]()
        row = await retention._journal.incident(ID)
        assert row
        await spool.keep(older, ".jpg", b"a picture")
        closed = replace(row, incident=replace(row.incident, id=older, parts=()), effects=())
        await retention._journal.adopt([closed])
        await clock.advance(DAYS_2_S)
        remove = spool.remove

        async def failing(incident_id: str) -> None:
            if incident_id == older:
                failed.append(incident_id)
                raise PermissionError(errno.EPERM, "Operation not permitted")
            await remove(incident_id)

        monkeypatch.setattr(spool, "remove", failing)
        await retention.run_once()
        assert failed == [older]
        assert await spool.incidents() == [older]
