"""Journals of other versions: an older one is brought up with all it holds, a newer one is left alone."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict

import pytest

from tests.journal.test_journal import incident
from tests.manual_clock import ManualClock
from vigintd.errors import PermanentError
from vigintd.journal import EffectKind, Journal
from vigintd.journal.schema import STEPS


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.sqlite3"


async def test_a_journal_of_the_first_version_is_brought_up_and_keeps_what_it_holds(path, clock):
    """Incidents stay; an upload that was owed part by part is owed as one publication."""
    stamp = "2026-11-22T10:00:00.000000+00:00"
    detection = json.dumps(asdict(incident(clock).detection) | {"at": stamp})
    states = {"closed": "done", "recording": "owed", "published": "owed"}
    with sqlite3.connect(path) as database:
        database.executescript(f"{STEPS[0]} PRAGMA user_version = 1;")
        for number, state in enumerate(states):
            row = (str(number), "entree", state, stamp, detection, 1, None, None, "[]", None, None, "")
            database.execute(f"INSERT INTO incident VALUES ({', '.join('?' * len(row))})", row)
            effect = (f"{number}/upload/0", str(number), "upload", "0", states[state], 1, stamp, stamp, None, "")
            database.execute(f"INSERT INTO effect VALUES ({', '.join('?' * len(effect))})", effect)
    database.close()
    async with Journal.open(path, clock) as journal:
        rows = [await journal.incident(str(number)) for number in range(len(states))]
    assert [row and row.incident.state for row in rows] == [*states]
    effects = [[(effect.kind, effect.state) for effect in row.effects] for row in rows if row]
    assert effects == [[(EffectKind.PUBLISH, state)] for state in states.values()]


@pytest.mark.parametrize("version", range(1, len(STEPS)))
async def test_a_journal_of_an_older_version_is_brought_up_with_all_it_holds(path, clock, version):
    """Each incident with what is owed of it; one that is over counts as old from now on."""
    owed, over = older_journal(path, clock, version)
    began = clock.now()
    async with Journal.open(path, clock) as journal:
        rows = [await journal.incident(incident_id) for incident_id in (owed, over)]
        await clock.advance(60)
    assert [row and row.incident.state for row in rows] == ["recording", "closed"]
    assert [row and row.ended_lived for row in rows] == [None, began]
    states = [{(effect.kind, effect.state) for effect in row.effects} for row in rows if row]
    assert states == [{("alert", "owed"), ("publish", "owed")}, {("alert", "done"), ("publish", "done")}]
    async with Journal.open(path, clock) as journal:
        assert await journal.incident(over) == rows[1]


async def test_a_death_while_an_older_journal_is_brought_up_leaves_it_as_it_was(path, clock):
    """What is over has its age in the same commit as the new version, or would never leave the spool."""
    _, over = older_journal(path, clock, len(STEPS) - 1)
    with sqlite3.connect(path) as database:
        database.execute("CREATE TRIGGER dying BEFORE UPDATE ON incident BEGIN SELECT raise(ABORT, 'a death'); END")
    database.close()
    with pytest.raises(PermanentError, match="a death"):
        async with Journal.open(path, clock):
            pass
    with sqlite3.connect(path) as database:
        database.execute("DROP TRIGGER dying")
    database.close()
    async with Journal.open(path, clock) as journal:
        row = await journal.incident(over)
    assert row
    assert row.ended_lived == clock.now()


def older_journal(path, clock, version: int) -> tuple[str, str]:
    """A journal as a vigintd of that version left it: an incident that is recorded and one that is over; their ids."""
    stamp = "2026-11-22T10:00:00.000000+00:00"
    detection = json.dumps(asdict(incident(clock).detection) | {"at": stamp})
    columns = "id, camera, state, at, detection, detections, parts, problem"
    with sqlite3.connect(path) as database:
        database.executescript(f"{''.join(STEPS[:version])} PRAGMA user_version = {version};")
        for number, (state, settled) in enumerate({"recording": "owed", "closed": "done"}.items()):
            row = (str(number), "entree", state, stamp, detection, 1, "[]", "")
            database.execute(f"INSERT INTO incident ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            for kind, what in (("alert", "a@exemple.fr"), ("upload", "0") if version < 3 else ("publish", "")):
                effect = (f"{number}/{kind}/{what}", str(number), kind, what, settled, 1, stamp, stamp, None, "")
                names = "key, incident_id, kind, what, state, attempts, owed_at, next_try_at, settled_at, last_error"
                database.execute(f"INSERT INTO effect ({names}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", effect)
    database.close()
    return "0", "1"


async def test_a_journal_of_a_newer_vigintd_is_refused(path, clock):
    async with Journal.open(path, clock):
        pass
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(PermanentError, match="version 99"):
        async with Journal.open(path, clock):
            pass
