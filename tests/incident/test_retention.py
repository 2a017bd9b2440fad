"""Retention: what was published leaves the spool when its links expire; what is owed stays."""

from __future__ import annotations

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
        clock.jump(48 * 3600 - 1)
        await retention.run_once()
        assert await spool.incidents() == [ID]
        clock.jump(1)
        await retention.run_once()
        assert await spool.incidents() == []
        assert list(spool.root.iterdir()) == []


@pytest.mark.parametrize("settled", [[EffectKind.ALERT], [EffectKind.PUBLISH]])
async def test_what_is_owed_stays_however_old(tmp_path, settled):
    """Nothing that was promised is removed."""
    async with spooled(tmp_path, settled=settled) as (retention, spool, clock):
        clock.jump(365 * 86_400)
        await retention.run_once()
        assert await spool.incidents() == [ID]


async def test_what_the_journal_does_not_know_is_left_alone(tmp_path):
    async with spooled(tmp_path, settled=[*EffectKind]) as (retention, spool, clock):
        other = ID.replace("1", "2")
        await spool.keep(other, ".jpg", b"whose?")
        clock.jump(365 * 86_400)
        await retention.run_once()
        assert await spool.incidents() == [other]
