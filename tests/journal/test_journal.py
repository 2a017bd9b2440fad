"""The journal: a row before anything is tried, an effect owed once, and all of it there after a restart."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.manual_clock import ManualClock
from vigintd import failpoints
from vigintd.errors import PermanentError
from vigintd.failpoints import FailpointError
from vigintd.journal import EffectState, Journal
from vigintd.model import Box, Detection, Incident, IncidentState, Risk, SealedPart


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.sqlite3"


def incident(clock, number=1, text="") -> Incident:
    detection = Detection(
        camera="entree",
        arrived_s=clock.monotonic_s(),
        at=clock.now(),
        type="vol à l'étalage",
        risk=Risk.HIGH,
        confidence=0.87,
        frame_number=42,
        boxes=(Box(0.1, 0.2, 0.3, 0.4),),
        text=text,
        detector="mouvement",
    )
    return Incident(f"00000000-0000-4000-8000-{number:012d}", detection)


async def test_an_incident_reads_back_as_it_was_written(path, clock):
    opened = incident(clock, text="lone surrogate \ud800, NUL \0, emoji 🚨")
    async with Journal.open(path, clock) as journal:
        await journal.open_incident(opened)
        row = await journal.incident(opened.id)
    assert row is not None
    assert row.incident == opened
    assert row.effects == ()


async def test_what_an_incident_has_become_survives_a_restart(path, clock):
    opened = incident(clock)
    become = replace(
        opened,
        state=IncidentState.SEALED,
        detections=7,
        ended_at=clock.now() + timedelta(seconds=30),
        pre_roll_s=9.5,
        parts=(SealedPart(0, 1234, "ab" * 32, 29.5), SealedPart(1, 99, "cd" * 32, 1.0, "the camera was stopped")),
        problem="disque plein \udcff",
    )
    async with Journal.open(path, clock) as journal:
        await journal.open_incident(opened)
        await journal.record_incident(become)
        await journal.record_playable(opened.id)
    async with Journal.open(path, clock) as journal:
        row = await journal.incident(opened.id)
    assert row is not None
    assert row.incident == replace(become, problem="disque plein ?")
    assert row.playable_at == clock.now()


async def test_the_first_playable_moment_is_kept(path, clock):
    async with Journal.open(path, clock) as journal:
        await journal.open_incident(incident(clock))
        first = clock.now()
        await journal.record_playable(incident(clock).id)
        await clock.advance(5)
        await journal.record_playable(incident(clock).id)
        row = await journal.incident(incident(clock).id)
    assert row is not None
    assert row.playable_at == first


async def test_owing_the_same_effect_twice_is_owing_it_once(path, clock):
    async with Journal.open(path, clock) as journal:
        await journal.open_incident(incident(clock))
        first = await journal.owe("k", incident(clock).id, "mail", {"n": 1})
        await journal.settle("k")
        again = await journal.owe("k", incident(clock).id, "mail", {"n": 2})
    assert first.state is EffectState.OWED
    assert again.state is EffectState.DONE
    assert again.payload == {"n": 1}
    assert again.attempts == 1


async def test_an_effect_of_no_incident_cannot_be_owed(path, clock):
    async with Journal.open(path, clock) as journal:
        with pytest.raises(sqlite3.IntegrityError):
            await journal.owe("k", "no such incident", "mail", {})


async def test_due_effects_come_newest_first_and_only_of_the_kind_asked(path, clock):
    async with Journal.open(path, clock) as journal:
        await journal.open_incident(incident(clock))
        for key, kind in (("old", "mail"), ("film", "upload"), ("new", "mail")):
            await journal.owe(key, incident(clock).id, kind, {})
            await clock.advance(1)
        assert [effect.key for effect in await journal.due("mail")] == ["new", "old"]
        assert [effect.key for effect in await journal.due("mail", limit=1)] == ["new"]


async def test_a_postponed_effect_is_due_again_when_its_time_has_come(path, clock):
    async with Journal.open(path, clock) as journal:
        await journal.open_incident(incident(clock))
        await journal.owe("k", incident(clock).id, "mail", {})
        again_at = clock.now() + timedelta(seconds=60)
        await journal.postpone("k", "451 later", again_at)
        assert await journal.due("mail") == []
        assert await journal.next_try_at("mail") == again_at
        await clock.advance(60)
        (effect,) = await journal.due("mail")
    assert (effect.attempts, effect.last_error) == (1, "451 later")


async def test_a_buried_effect_is_never_due_and_says_why(path, clock):
    async with Journal.open(path, clock) as journal:
        await journal.open_incident(incident(clock))
        await journal.owe("k", incident(clock).id, "mail", {})
        await journal.bury("k", "550 no such user")
        assert await journal.due("mail") == []
        assert await journal.next_try_at("mail") is None
        row = await journal.incident(incident(clock).id)
    assert row is not None
    assert (row.effects[0].state, row.effects[0].last_error) == (EffectState.DEAD, "550 no such user")


async def test_incidents_are_listed_newest_first_and_unfinished_ones_oldest_first(path, clock):
    async with Journal.open(path, clock) as journal:
        for number in (1, 2, 3):
            await journal.open_incident(incident(clock, number))
            await clock.advance(1)
        await journal.record_incident(replace(incident(clock, 2), state=IncidentState.CLOSED))
        assert [row.incident.id[-1] for row in await journal.incidents(limit=2)] == ["3", "2"]
        assert [row.incident.id[-1] for row in await journal.unfinished()] == ["1", "3"]


async def test_the_row_is_on_disk_when_the_call_returns(path, clock):
    """A process that is killed right after the call leaves the row for the next one."""
    script = f"""
import asyncio, sys
sys.path.insert(0, {str(Path.cwd())!r})
from pathlib import Path
from tests.journal.test_journal import incident
from tests.manual_clock import ManualClock
from vigintd import failpoints
from vigintd.journal import Journal
async def main():
    clock = ManualClock()
    async with Journal.open(Path({str(path)!r}), clock) as journal:
        failpoints.arm("journal.open_incident.after", "kill")
        await journal.open_incident(incident(clock))
asyncio.run(main())
"""
    killed = subprocess.run([sys.executable, "-c", script], check=False)  # noqa: ASYNC221 - nothing else runs in this loop
    assert killed.returncode == -signal.SIGKILL
    async with Journal.open(path, clock) as journal:
        assert len(await journal.unfinished()) == 1


async def test_a_failing_point_before_the_row_leaves_no_row(path, clock):
    failpoints.arm("journal.open_incident.before", "error")
    try:
        async with Journal.open(path, clock) as journal:
            with pytest.raises(FailpointError):
                await journal.open_incident(incident(clock))
            assert failpoints.fired["journal.open_incident.before"] == 1
            assert await journal.incidents() == []
    finally:
        failpoints.disarm()


async def test_the_journal_commits_to_disk_at_every_call(path, clock):
    async with Journal.open(path, clock) as journal:
        database = journal._database
        mode = await (await database.execute("PRAGMA journal_mode")).fetchone()
        synchronous = await (await database.execute("PRAGMA synchronous")).fetchone()
    assert mode is not None
    assert synchronous is not None
    assert (mode[0], synchronous[0]) == ("wal", 2)


@pytest.mark.parametrize("content", [b"not a database, and long enough to be taken for one" * 40])
async def test_a_file_that_is_no_journal_is_said_and_left_alone(path, clock, content):
    path.write_bytes(content)
    with pytest.raises(PermanentError, match=r"journal\.sqlite3"):
        async with Journal.open(path, clock):
            pass
    assert path.read_bytes() == content


async def test_a_journal_of_a_newer_vigintd_is_refused(path, clock):
    async with Journal.open(path, clock):
        pass
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(PermanentError, match="version 99"):
        async with Journal.open(path, clock):
            pass
