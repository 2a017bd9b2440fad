"""A journal whose file is damaged: set aside, never deleted unseen, and never the reason why a daemon does not start."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import aiosqlite
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.journal.test_journal import alert, incident
from tests.manual_clock import ManualClock
from vigintd.errors import JournalUnavailable, PermanentError
from vigintd.journal import EffectKind, Journal, opening
from vigintd.journal.opening import KEPT
from vigintd.journal.schema import SCHEMA_VERSION
from vigintd.model import IncidentState

PAGE_BYTES = 4096


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.sqlite3"


async def filled(path: Path, clock: ManualClock, incidents: int = 60) -> bytes:
    """A closed journal of several pages; answers its bytes."""
    async with Journal.open(path, clock) as journal:
        for number in range(incidents):
            await journal.open_incident(incident(clock, number, text="la vitrine " * 20), [alert("a"), alert("b")])
    return path.read_bytes()


def overwritten(content: bytes, offset: int, by: bytes) -> bytes:
    return content[:offset] + by + content[offset + len(by) :]


def noise(length: int) -> bytes:
    return random.Random(7).randbytes(length)


DAMAGES = {
    "a page": lambda content: overwritten(content, 3 * PAGE_BYTES, noise(PAGE_BYTES)),
    "a page of zeros": lambda content: overwritten(content, PAGE_BYTES, bytes(PAGE_BYTES)),
    "the header": lambda content: overwritten(content, 0, noise(100)),
    "the version": lambda content: overwritten(content, 60, b"\xff\xff\xff\xff"),
    "the format": lambda content: overwritten(content, 18, b"\x07\x07"),
    "cut in half": lambda content: content[: len(content) // 2],
    "cut after a few bytes": lambda content: content[:50],
    "not SQLite at all": lambda _content: b"not a database, and long enough to be taken for one" * 40,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
async def test_a_damaged_journal_is_set_aside_and_a_new_one_made(path, clock, damage):
    """What was there is kept as it was, for whoever can save something from it; the log says where."""
    damaged = damage(await filled(path, clock))
    path.write_bytes(damaged)
    with capture_logs() as logs:
        async with Journal.open(path, clock) as journal:
            assert journal.is_new
            (kept,) = journal.set_aside()
            assert await journal.incidents() == []
            await journal.open_incident(incident(clock), [alert("a")])
    assert kept.name == "journal.sqlite3.damaged-20260314T092653.000000Z"
    assert kept.read_bytes() == damaged
    (log,) = [log for log in logs if log["event"] == "journal.damaged"]
    assert (log["log_level"], log["kept_as"]) == ("error", str(kept))
    async with Journal.open(path, clock) as journal:
        assert not journal.is_new
        assert len(await journal.incidents()) == 1


async def test_somebody_elses_database_is_set_aside_too(path, clock):
    """Its tables are not the journal's, whatever version it says it is of."""
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    database.execute("CREATE TABLE recipe (name TEXT)")
    database.close()
    async with Journal.open(path, clock) as journal:
        assert journal.is_new
        (kept,) = journal.set_aside()
    with closing(sqlite3.connect(kept)) as other:
        assert other.execute("SELECT name FROM sqlite_schema").fetchall() == [("recipe",)]


async def test_an_empty_file_is_a_new_journal(path, clock):
    path.touch()
    async with Journal.open(path, clock) as journal:
        assert journal.is_new
        assert journal.set_aside() == []


async def test_the_log_of_a_damaged_journal_goes_with_it(path, clock):
    """It may hold the last commits; and beside a new journal it would be another's."""
    await filled(path, clock)
    path.write_bytes(noise(PAGE_BYTES))
    path.with_name("journal.sqlite3-wal").write_bytes(b"the last commits")
    async with Journal.open(path, clock) as journal:
        (kept,) = journal.set_aside()
        assert kept.with_name(f"{kept.name}-wal").read_bytes() == b"the last commits"


async def test_only_a_few_damaged_journals_are_kept(path, clock):
    """A disk that goes on damaging them does not fill itself with them; the oldest go."""
    for number in range(KEPT + 2):
        path.write_bytes(b"damaged %d" % number)
        path.with_name("journal.sqlite3-wal").write_bytes(b"log")
        await clock.advance(1)
        async with Journal.open(path, clock) as journal:
            kept = journal.set_aside()
    assert [file.read_bytes() for file in kept] == [b"damaged %d" % number for number in (4, 3, 2)]
    assert len(list(path.parent.glob("*-wal"))) == KEPT


async def test_a_journal_that_cannot_be_moved_is_said(path, clock, monkeypatch):
    """A read-only disk is nobody's damage to mend."""
    path.write_bytes(noise(PAGE_BYTES))

    def failing(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(PermanentError, match=r"journal\.sqlite3.*Read-only file system"):
        async with Journal.open(path, clock):
            pass


async def test_a_journal_in_somebody_elses_hands_is_not_damaged(path, clock, monkeypatch):
    await filled(path, clock, 1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    connect = aiosqlite.connect
    monkeypatch.setattr(aiosqlite, "connect", lambda *args, **how: connect(*args, timeout=0.01, **how))
    with pytest.raises(PermanentError, match="locked"):
        async with Journal.open(path, clock):
            pass
    other.close()
    async with Journal.open(path, clock) as journal:
        assert len(await journal.incidents()) == 1


async def test_a_start_waits_for_the_check_only_so_long(path, clock, monkeypatch):
    """A journal too large to be looked over in time is used, and the log says that its rest is taken for good."""
    await filled(path, clock)
    monkeypatch.setattr(opening, "CHECK_S", -1)
    monkeypatch.setattr(opening, "_STEPS_BETWEEN_LOOKS", 10)
    with capture_logs() as logs:
        async with Journal.open(path, clock) as journal:
            assert not journal.is_new
            assert len(await journal.incidents(limit=100)) == 60
    assert "journal.half_checked" in [log["event"] for log in logs]


def failing_disk(monkeypatch, times: int) -> list[str]:
    """Let so many openings fail as on a disk that cannot read; answers which have."""
    failed: list[str] = []
    connect = aiosqlite.connect

    def connecting(path: Path, **how: bool | None) -> aiosqlite.Connection:
        if len(failed) < times:
            failed.append(path.name)
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
            raise error
        return connect(path, isolation_level=None)

    monkeypatch.setattr(aiosqlite, "connect", connecting)
    monkeypatch.setattr(opening, "AGAIN_S", (0, 0, 0))
    return failed


async def test_a_disk_that_fails_for_a_moment_costs_no_journal(path, clock, monkeypatch):
    await filled(path, clock, 2)
    failed = failing_disk(monkeypatch, 3)
    async with Journal.open(path, clock) as journal:
        assert len(failed) == 3
        assert not journal.is_new
        assert len(await journal.incidents()) == 2


async def test_a_journal_that_no_disk_reads_any_more_is_set_aside_as_a_damaged_one(path, clock, monkeypatch):
    """A daemon that never starts again would tell nobody of anything."""
    content = await filled(path, clock, 2)
    failed = failing_disk(monkeypatch, 4)
    async with Journal.open(path, clock) as journal:
        assert len(failed) == 4
        assert journal.is_new
        assert [kept.read_bytes() for kept in journal.set_aside()] == [content]


async def test_where_no_new_journal_can_be_made_the_old_one_stays_in_its_place(path, clock, monkeypatch):
    """Start after start: none sets aside what another has made, until nothing is left of the first."""
    content = await filled(path, clock, 2)
    failed = failing_disk(monkeypatch, 1000)
    for start in range(1, KEPT + 3):
        with pytest.raises(PermanentError, match="disk I/O error; look after the disk"):
            async with Journal.open(path, clock):
                pass
        assert len(failed) == 5 * start
        assert path.read_bytes() == content
        assert list(path.parent.iterdir()) == [path]


async def test_the_journal_that_was_just_set_aside_is_kept_whatever_the_clock_says(path, clock):
    """By its name it may be the oldest: the clock that named the others was ahead."""
    for number in range(KEPT + 1):
        path.write_bytes(b"damaged %d" % number)
        async with Journal.open(path, clock) as journal:
            kept = {file.read_bytes() for file in journal.set_aside()}
        assert b"damaged %d" % number in kept
        clock.jump(-86_400)
    assert len(kept) == KEPT


async def test_damage_under_way_is_noticed_and_mended_by_opening_it_anew(path, clock):
    """What was written before is in the pages' copies for a while; then every statement says that it cannot be done."""
    await filled(path, clock, 60)
    async with Journal.open(path, clock) as journal:
        path.write_bytes(path.read_bytes()[:PAGE_BYTES] + noise(path.stat().st_size - PAGE_BYTES))
        await journal._database.execute("PRAGMA shrink_memory")
        with capture_logs() as logs:
            for _ in range(2):
                with pytest.raises(JournalUnavailable, match="malformed"):
                    await journal.open_incident(incident(clock, 99), [alert("a")])
        assert journal.damaged.is_set()
        assert [log["event"] for log in logs] == ["journal.damaged"]
    async with Journal.open(path, clock) as journal:
        assert journal.is_new
        assert not journal.damaged.is_set()


async def test_damage_that_was_met_under_way_is_believed_by_the_next_start(path, clock):
    """It may lie where no look-over finds it; a daemon would end by it again and again."""
    content = await filled(path, clock, 60)
    async with Journal.open(path, clock) as journal:
        path.write_bytes(content[:PAGE_BYTES] + noise(len(content) - PAGE_BYTES))
        await journal._database.execute("PRAGMA shrink_memory")
        with pytest.raises(JournalUnavailable, match="malformed"):
            await journal.incidents()
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    path.write_bytes(content)
    for is_new in (True, False):
        async with Journal.open(path, clock) as journal:
            assert journal.is_new is is_new
            assert len(journal.set_aside()) == 1


async def test_an_index_that_does_not_fit_its_table_is_damage(path, clock):
    """Each page is well-formed; whoever reads by the index finds rows that are not there."""
    await filled(path, clock, 2)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA writable_schema = ON")
        (page,) = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'incident_by_time'").fetchone()
        database.execute("UPDATE sqlite_schema SET sql = replace(sql, 'at DESC', 'camera DESC') WHERE rootpage = ?", (page,))
    async with Journal.open(path, clock) as journal:
        assert journal.is_new


def scribble(path: Path, incident_id: str, state: str) -> None:
    """Write over values as a bad sector does; the pages stay well-formed."""
    database = sqlite3.connect(path)
    with database:
        sql = "UPDATE incident SET detection = substr(detection, 9), state = ? WHERE id = ?"
        assert database.execute(sql, (state, incident_id)).rowcount == 1
    database.close()


async def test_a_full_journal_says_so_and_works_again_when_there_is_room(path, clock):
    """SQLite's own SQLITE_FULL."""
    async with Journal.open(path, clock) as journal:
        await journal._database.execute("PRAGMA max_page_count = 1")  # no page more than there is
        with pytest.raises(JournalUnavailable, match="full"):
            await journal.open_incident(incident(clock, text="x" * 10_000), [alert("a")])
        await journal._database.execute("PRAGMA max_page_count = 1000")
        await journal.open_incident(incident(clock, text="x" * 10_000), [alert("a")])
        assert len(await journal.due(EffectKind.ALERT)) == 1


async def test_a_row_that_a_start_needs_and_cannot_read_is_damage(path, clock):
    await filled(path, clock, 2)
    scribble(path, incident(clock, 1).id, "sealed")
    async with Journal.open(path, clock) as journal:
        assert journal.is_new


@pytest.mark.parametrize(
    "scribbling",
    ["state = char(0) || 'wed'", "next_try_at = 'soon'", "incident_id = 'x'", "what = 'b@exemple.fr'", "kind = 'follow_up'"],
)
async def test_something_owed_that_is_not_what_it_was_is_damage(path, clock, scribbling):
    """Its alert would go to somebody else, or never."""
    await filled(path, clock, 2)
    with closing(sqlite3.connect(path)) as database, database:
        assert database.execute(f"UPDATE effect SET {scribbling} WHERE what = 'a'").rowcount == 2
    async with Journal.open(path, clock) as journal:
        assert journal.is_new


async def test_a_closed_row_that_cannot_be_read_costs_nobody_else_anything(path, clock):
    async with Journal.open(path, clock) as journal:
        for number in (1, 2):
            await journal.open_incident(incident(clock, number), [])
            await journal.record_incident(replace(incident(clock, number), state=IncidentState.CLOSED))
    scribble(path, incident(clock, 1).id, "closed")
    async with Journal.open(path, clock) as journal:
        assert not journal.is_new
        with capture_logs() as logs:
            assert [row.incident.id for row in await journal.incidents()] == [incident(clock, 2).id]
        assert ("journal.unreadable", incident(clock, 1).id) in [(log["event"], log.get("incident")) for log in logs]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_wherever_the_damage_lies_the_journal_opens_and_is_whole(tmp_path_factory, data):
    """Either it holds every row, readable, or it is a new one and the old is kept; a newer vigintd's is refused."""
    path, clock = tmp_path_factory.mktemp("journal") / "journal.sqlite3", ManualClock()
    content = await filled(path, clock, 12)
    offset = data.draw(st.integers(0, len(content) - 1))
    by = data.draw(st.binary(min_size=1, max_size=300))
    path.write_bytes(overwritten(content, offset, by)[: len(content)])
    try:
        async with Journal.open(path, clock) as journal:
            rows = await journal.incidents(limit=100)
            assert (len(rows), len(journal.set_aside())) == ((0, 1) if journal.is_new else (12, 0))
    except PermanentError as error:
        assert "this vigintd knows" in str(error)  # noqa: PT017 - one outcome of two
        assert offset <= 63 < offset + len(by)
