"""The record of every touch: a chain that shows what was changed, and nothing in it that opens a clip."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.linkhost.client import BASE_URL, CLIP, GUARD, KEY, OTHER_CLIP, Client, inside
from tests.linkhost.videos import video
from vigintd.linkhost import AuditKind, AuditRow, LinkHost
from vigintd.linkhost.store import Check, Head, Store
from vigintd.linkhost.store.chain import START, following
from vigintd.linkhost.store.schema import STEPS

NOW = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)


def written(rows: list[AuditRow]) -> list[AuditRow]:
    """These rows as the record would hold them."""
    head, found = START, []
    for row in rows:
        head = following(head, row)
        found.append(replace(row, seq=head.seq, sha256=head.sha256))
    return found


def verdict(rows: list[AuditRow], *noted: Head) -> str:
    """What a check of these rows says."""
    check = Check(noted)
    check.take(rows)
    check.end()
    return check.problem


RECORD = written(
    [AuditRow(NOW + timedelta(seconds=n), AuditKind.PROBE, CLIP, GUARD, detail={"what": "page"}) for n in range(9)]
)
LAST = Head(RECORD[-1].seq, RECORD[-1].sha256)


def test_a_line_is_hashed_as_documented():
    """SHA-256 over the hash before and the line as canonical JSON, as docs/design/record.md shows it."""
    row = AuditRow(NOW, AuditKind.PROBE, CLIP, "été@x", "203.0.113.0/24", "Firefox, Linux", {"what": "page", "clicked": True})
    text = (
        f'[1,"2026-03-14T09:26:53.000000+00:00","probe","{CLIP}","été@x","203.0.113.0/24","Firefox, Linux",'
        '{"clicked":true,"what":"page"}]'
    )
    assert following(START, row) == Head(1, hashlib.sha256(bytes(32) + text.encode()).hexdigest())


def test_a_record_that_nobody_touched_is_whole():
    assert verdict(RECORD, LAST, START) == ""


@given(st.data())
def test_whatever_is_changed_in_a_line_shows(data):
    """Every field of every line counts."""
    at = data.draw(st.integers(0, len(RECORD) - 1))
    changes = [
        {"at": NOW - timedelta(days=1)},
        {"kind": AuditKind.PLAY},
        {"clip_id": CLIP[::-1]},
        {"recipient": "patron@exemple.fr"},
        {"address": "198.51.100.0/24"},
        {"client": "curl"},
        {"detail": {}},
        {"sha256": "00" * 32},
    ]
    rows = [*RECORD[:at], replace(RECORD[at], **data.draw(st.sampled_from(changes))), *RECORD[at + 1 :]]
    assert f"line {at + 1} " in verdict(rows)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (RECORD[:3] + RECORD[4:], "line 4 is missing"),
        (RECORD[1:], "line 1 is missing"),
        ([*RECORD[:4], RECORD[3], *RECORD[4:]], "line 5 is missing; line 4"),
        ([*RECORD[:4], RECORD[5], RECORD[4], *RECORD[6:]], "line 5 is missing"),
        (RECORD[:-1], "ends at line 8, but line 9 was noted"),
        ([], "ends at line 0, but line 9 was noted"),
        (written([replace(row, client="curl") for row in RECORD]), "line 9 is not the one that was noted"),
    ],
    ids=["one removed", "the first removed", "one twice", "two swapped", "its end cut off", "all gone", "written anew"],
)
def test_what_is_removed_inserted_or_written_anew_shows(rows, problem):
    assert problem in verdict(rows, LAST)


def test_a_cut_end_does_not_show_without_a_head():
    """Which is why heads are noted, beside the database and in the log."""
    assert verdict(RECORD[:-1]) == ""


@pytest.mark.parametrize(
    "text", ["", "9", "9:ab", f"x:{'ab' * 32}", f"9:{'AB' * 32}", f"-1:{'ab' * 32}", f"{'9' * 20}:{'ab' * 32}"]
)
def test_what_is_no_head_is_said(text):
    with pytest.raises(ValueError, match="a number, a colon and 64 hex digits"):
        Head.parse(text)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET client = 'nobody'",
        "DELETE FROM audit WHERE seq = 1",
        "INSERT OR REPLACE INTO audit SELECT seq, at, kind, clip_id, recipient, address, 'x', detail, hash FROM audit LIMIT 1",
        "INSERT INTO audit SELECT 99, at, kind, clip_id, recipient, address, client, detail, hash FROM audit LIMIT 1",
    ],
    ids=["changed", "removed", "replaced", "with a gap"],
)
async def test_the_database_itself_refuses_to_change_the_record(client, tmp_path, statement):
    await client.create()
    with (
        closing(sqlite3.connect(tmp_path / "linkhost" / "linkhost.sqlite3")) as database,
        pytest.raises(sqlite3.IntegrityError, match="the record is only added to"),
    ):
        database.execute(statement)


async def test_everything_that_happens_is_one_chain(client, host):
    """Uploads, links, touches and plays of all clips follow each other without a gap."""
    link = await client.publish(video(2))
    await asyncio.gather(
        *(client.ask("GET", link) for _ in range(5)), *(client.ask("GET", inside(link, "status")) for _ in range(3))
    )
    rows = list(await host.record.page(0))
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
    assert verdict(rows, await host.record.head()) == ""
    assert await host.record.page(len(rows)) == []
    assert [row.seq for row in await host.record.page(2, clip_id=CLIP, limit=2)] == [3, 4]


async def test_the_head_is_noted_beside_the_database_and_in_the_log(host, client, clock, tmp_path, log_text):
    """Each minute in a file, when there is something new; once a day in the log."""
    path = tmp_path / "linkhost" / "audit.head"
    before = path.read_text()
    await client.create()
    await host.run_once()
    head = await host.record.head()
    assert before != path.read_text() == f"{head}\n"
    assert await host.noted_head() == head
    assert path.stat().st_mode & 0o777 == 0o600
    clock.jump(24 * 3600 - 1)
    await client.create(OTHER_CLIP)
    await host.run_once()
    assert logged_heads(log_text()) == [str(head)]
    clock.jump(1)
    await host.run_once()
    assert logged_heads(log_text()) == [str(head), str(await host.record.head())]


def logged_heads(log: str) -> list[str]:
    return [json.loads(line)["head"] for line in log.splitlines() if "linkhost.audit_head" in line]


async def test_the_head_is_noted_when_the_host_ends(tmp_path, clock, session):
    """What came in the last minute is not left out."""
    host = LinkHost(tmp_path, base_url=BASE_URL, api_keys={"nvr": KEY}, clock=clock)
    await host.start(listen=("127.0.0.1", 0), unix_path=None)
    await Client(session, f"http://127.0.0.1:{host.port}").create()
    head = await host.record.head()
    await host.aclose()
    assert (tmp_path / "audit.head").read_text() == f"{head}\n"


async def test_a_note_that_cannot_be_written_stops_nothing(host, client, tmp_path, log_text):
    """It is said, and the next one is tried."""
    (tmp_path / "linkhost" / "audit.head.new").mkdir()
    await client.create()
    await host.aclose()
    assert "linkhost.head_unnoted" in log_text()


async def test_an_older_copy_that_was_put_back_is_said_at_the_start(tmp_path, clock, session, log_text):
    """The note says how far the record went; and that stays on record when the note is written anew."""
    host = LinkHost(tmp_path, base_url=BASE_URL, api_keys={"nvr": KEY}, clock=clock)
    await host.start(listen=("127.0.0.1", 0), unix_path=None)
    await Client(session, f"http://127.0.0.1:{host.port}").create()
    await host.run_once()
    head = await host.record.head()
    await host.aclose()
    for path in tmp_path.glob("linkhost.sqlite3*"):
        path.unlink()
    await host.start(listen=None, unix_path=None)
    rows = list(await host.record.page(0))
    assert await host.noted_head() == await host.record.head() != head
    await host.aclose()
    assert "linkhost.audit_cut" in log_text()
    assert [(row.kind, dict(row.detail)) for row in rows] == [(AuditKind.CUT, {"noted": str(head)})]
    assert "line 1 says that lines before it were lost" in verdict(rows)


async def test_what_an_older_version_wrote_is_taken_into_the_chain(tmp_path, clock):
    """In its order, once, and with a line that says from where on it is vouched for."""
    path = tmp_path / "linkhost.sqlite3"
    old(path, touches=2500)
    for _ in range(2):
        store = await Store.open(path, clock)
        rows = [*await store.record.page(0), *await store.record.page(2000)]
        clip = await store.clip(CLIP)
        parts = await store.parts(CLIP)
        assert [grant.recipient for grant in await store.grants(CLIP)] == [GUARD]
        assert verdict(rows, await store.record.head()) == ""
        await store.aclose()
        assert clip is not None
        assert (clip.held, clip.owner, len(parts), parts[0].sealed) == ("", "nvr", 1, True)
    assert [row.detail["n"] for row in rows[:-1]] == list(range(2500))
    assert (rows[-1].kind, dict(rows[-1].detail), rows[-1].at) == (AuditKind.CHAINED, {"rows": 2500}, NOW)


def old(path: Path, touches: int) -> None:
    """A database as version 1 left it."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript(STEPS[0])
        database.execute("PRAGMA user_version = 1")
        at = NOW.isoformat(timespec="microseconds")
        database.execute("INSERT INTO api_key VALUES (x'00', 'nvr')")
        database.execute("INSERT INTO clip VALUES (?, 'nvr', 'k', '{}', ?, ?, ?, NULL)", (CLIP, at, at, at))
        database.execute("INSERT INTO recipient VALUES (?, ?, 0)", (CLIP, GUARD))
        database.execute("INSERT INTO part VALUES (?, 0, 3, 3, ?, '', 0, 1, ?)", (CLIP, "ab" * 32, at))
        rows = [(CLIP, at, "probe", GUARD, "local", "", json.dumps({"n": n, "é": "à"})) for n in range(touches)]
        database.executemany(
            "INSERT INTO audit (clip_id, at, kind, recipient, address, client, detail) VALUES (?, ?, ?, ?, ?, ?, ?)", rows
        )
        database.commit()
