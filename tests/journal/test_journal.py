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
from vigintd.errors import JournalUnavailable
from vigintd.failpoints import FailpointError
from vigintd.journal import EffectKind, EffectState, Journal, Owed
from vigintd.model import Box, Detection, Incident, IncidentState, NoVideo, Risk, SealedPart


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
        await journal.open_incident(opened, [])
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
        no_video=NoVideo.REFUSED,
        problem="disque plein \udcff",
    )
    async with Journal.open(path, clock) as journal:
        await journal.open_incident(opened, [alert("a@exemple.fr")])
        await journal.record_incident(become)
        await journal.record_playable(opened.id)
    async with Journal.open(path, clock) as journal:
        row = await journal.incident(opened.id)
    assert row is not None
    assert row.incident == replace(become, problem="disque plein ?")
    assert row.playable_at == clock.now()


async def test_the_first_playable_moment_is_kept(path, clock):
    async with Journal.open(path, clock) as journal:
        await journal.open_incident(incident(clock), [])
        first = clock.now()
        await journal.record_playable(incident(clock).id)
        await clock.advance(5)
        await journal.record_playable(incident(clock).id)
        row = await journal.incident(incident(clock).id)
    assert row is not None
    assert row.playable_at == first


def alert(who: str, due_at=None) -> Owed:
    return Owed(EffectKind.ALERT, who, due_at)


async def test_the_alerts_of_an_incident_stand_in_the_same_commit_as_its_row(path, clock):
    """Due when the text alert is due, unless somebody hastens them."""
    due_at = clock.now() + timedelta(seconds=20)
    async with Journal.open(path, clock) as journal:
        await journal.open_incident(incident(clock), [alert("a", due_at), alert("b", due_at)])
        assert await journal.due(EffectKind.ALERT) == []
        assert await journal.next_try_at(EffectKind.ALERT) == due_at
        await clock.advance(20)
        assert {effect.what for effect in await journal.due(EffectKind.ALERT)} == {"a", "b"}


async def test_a_row_that_cannot_be_made_leaves_no_alert_either(path, clock):
    async with Journal.open(path, clock) as journal:
        await journal.open_incident(incident(clock), [])
        with pytest.raises(JournalUnavailable):
            await journal.open_incident(incident(clock), [alert("a")])
        assert await journal.due(EffectKind.ALERT) == []
        await journal.open_incident(incident(clock, 2), [alert("b")])
        assert [effect.what for effect in await journal.due(EffectKind.ALERT)] == ["b"]


async def test_owing_the_same_effect_twice_is_owing_it_once(path, clock):
    async with Journal.open(path, clock) as journal:
        await journal.open_incident(incident(clock), [alert("a")])
        for _ in range(2):
            await journal.settle(f"{incident(clock).id}/alert/a", then=Owed(EffectKind.FOLLOW_UP, "a"))
            for effect in await journal.due(EffectKind.FOLLOW_UP):
                await journal.settle(effect.key)
        row = await journal.incident(incident(clock).id)
    assert row
    follow_up = next(effect for effect in row.effects if effect.kind is EffectKind.FOLLOW_UP)
    assert (follow_up.state, follow_up.attempts) == (EffectState.DONE, 1)


async def test_what_follows_from_an_effect_is_owed_when_it_is_settled(path, clock):
    async with Journal.open(path, clock) as journal:
        await journal.open_incident(incident(clock), [alert("a")])
        await journal.settle(f"{incident(clock).id}/alert/a", then=Owed(EffectKind.FOLLOW_UP, "a"))
        assert await journal.due(EffectKind.ALERT) == []
        assert [effect.what for effect in await journal.due(EffectKind.FOLLOW_UP)] == ["a"]


async def test_an_effect_of_no_incident_cannot_be_owed(path, clock):
    async with Journal.open(path, clock) as journal:
        with pytest.raises(JournalUnavailable):
            await journal.settle("no such incident/alert/a", then=Owed(EffectKind.FOLLOW_UP, "a"))


async def test_due_effects_come_newest_first_and_only_of_the_kinds_asked(path, clock):
    async with Journal.open(path, clock) as journal:
        each = (alert("old"), Owed(EffectKind.PUBLISH, ""), alert("new"), Owed(EffectKind.FOLLOW_UP, "newest"))
        for number, owed in enumerate(each, 1):
            await journal.open_incident(incident(clock, number), [owed])
            await clock.advance(1)
        mails = (EffectKind.ALERT, EffectKind.FOLLOW_UP)
        assert [effect.what for effect in await journal.due(*mails)] == ["newest", "new", "old"]
        assert [effect.what for effect in await journal.due(*mails, limit=1)] == ["newest"]


async def test_an_incident_is_closed_by_what_was_owed_last_and_not_before(path, clock):
    """Whether it was done or given up; what follows from it is owed first."""
    opened = incident(clock)
    late = Owed(EffectKind.FOLLOW_UP, "a@exemple.fr")
    async with Journal.open(path, clock) as journal:

        async def state() -> IncidentState:
            row = await journal.incident(opened.id)
            assert row
            return row.incident.state

        await journal.open_incident(opened, [alert("a@exemple.fr"), Owed(EffectKind.PUBLISH, "")])
        await journal.settle(f"{opened.id}/alert/a@exemple.fr", late)
        await journal.settle(f"{opened.id}/publish/")
        assert await state() is IncidentState.PUBLISHED
        await journal.bury(f"{opened.id}/follow_up/a@exemple.fr", "no such user")
        assert await state() is IncidentState.CLOSED


async def test_an_incident_that_still_records_is_not_closed_by_its_alerts(path, clock):
    opened = incident(clock)
    async with Journal.open(path, clock) as journal:
        await journal.open_incident(opened, [alert("a@exemple.fr")])
        await journal.settle(f"{opened.id}/alert/a@exemple.fr")
        row = await journal.incident(opened.id)
        assert row
        assert row.incident.state is IncidentState.TRIGGERED
        await journal.record_incident(replace(opened, state=IncidentState.SEALED))
        row = await journal.incident(opened.id)
    assert row
    assert row.incident.state is IncidentState.CLOSED


async def test_states_only_move_on_and_the_first_problem_stays(path, clock):
    """Whoever writes last may know less."""
    opened = incident(clock)
    async with Journal.open(path, clock) as journal:
        await journal.open_incident(opened, [alert("a@exemple.fr"), Owed(EffectKind.PUBLISH, "")])
        await journal.record_incident(replace(opened, state=IncidentState.SEALED))
        await journal.bury(f"{opened.id}/publish/", "no room", no_video=NoVideo.REFUSED)
        await journal.bury(f"{opened.id}/publish/", "the disk is full", no_video=NoVideo.UNRECORDED)
        await journal.record_incident(replace(opened, state=IncidentState.RECORDING, detections=2))
        row = await journal.incident(opened.id)
    assert row
    assert row.incident == replace(
        opened, state=IncidentState.SEALED, detections=2, no_video=NoVideo.REFUSED, problem="no room"
    )


async def test_it_is_counted_how_often_an_incident_was_taken_over(path, clock):
    for expected in (1, 2):
        async with Journal.open(path, clock) as journal:
            if expected == 1:
                await journal.open_incident(incident(clock), [])
            assert await journal.take_over(incident(clock).id) == expected


async def test_only_what_was_never_tried_is_hastened(path, clock):
    """A server's wish for a later try is not overridden."""
    later = clock.now() + timedelta(seconds=60)
    async with Journal.open(path, clock) as journal:
        for number in (1, 2):
            await journal.open_incident(incident(clock, number), [alert("a", later), alert("b", later)])
        tried = incident(clock, 1).id + "/alert/a"
        await journal.postpone(tried, "451 later", later)
        hastened = await journal.hasten(EffectKind.ALERT, incident(clock, 1).id)
        assert [effect.what for effect in hastened] == ["b"]
        assert [effect.key for effect in await journal.due(EffectKind.ALERT)] == [incident(clock, 1).id + "/alert/b"]
        assert len(await journal.hasten(EffectKind.ALERT)) == 3


async def test_a_postponed_effect_is_due_again_when_its_time_has_come(path, clock):
    async with Journal.open(path, clock) as journal:
        await journal.open_incident(incident(clock), [alert("a")])
        (effect,) = await journal.due(EffectKind.ALERT)
        again_at = clock.now() + timedelta(seconds=60)
        await journal.postpone(effect.key, "451 later", again_at)
        assert await journal.due(EffectKind.ALERT) == []
        assert await journal.next_try_at(EffectKind.ALERT) == again_at
        await clock.advance(60)
        (effect,) = await journal.due(EffectKind.ALERT)
    assert (effect.attempts, effect.last_error) == (1, "451 later")


async def test_a_buried_effect_is_never_due_and_says_why(path, clock):
    async with Journal.open(path, clock) as journal:
        await journal.open_incident(incident(clock), [alert("a")])
        (effect,) = await journal.due(EffectKind.ALERT)
        await journal.bury(effect.key, "550 no such user")
        assert await journal.due(EffectKind.ALERT) == []
        assert await journal.next_try_at(EffectKind.ALERT) is None
        row = await journal.incident(incident(clock).id)
    assert row is not None
    assert (row.effects[0].state, row.effects[0].last_error) == (EffectState.DEAD, "550 no such user")


async def test_a_locked_journal_is_unavailable_and_works_again_when_it_is_let_go(path, clock):
    """Another process that holds the file for longer than SQLite waits."""
    async with Journal.open(path, clock) as journal:
        await journal._database.execute("PRAGMA busy_timeout = 1")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(JournalUnavailable, match="locked"):
            await journal.open_incident(incident(clock), [alert("a")])
        other.execute("ROLLBACK")
        other.close()
        await journal.open_incident(incident(clock), [alert("a")])
        assert len(await journal.due(EffectKind.ALERT)) == 1


async def test_incidents_are_listed_newest_first_and_unfinished_ones_oldest_first(path, clock):
    async with Journal.open(path, clock) as journal:
        for number in (1, 2, 3):
            await journal.open_incident(incident(clock, number), [])
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
        await journal.open_incident(incident(clock), [])
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
                await journal.open_incident(incident(clock), [])
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
