"""The journal's file when it is opened: looked over, put aside where it is damaged, brought to this schema.

Owns what counts as damage, and the names and number of damaged files that are kept. What was in them is not known
here: who opened a new journal fills it from what lies in the spool.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import aiosqlite
import structlog

from vigintd.clock import Clock
from vigintd.errors import PermanentError
from vigintd.journal.rows import effect_of, incident_of
from vigintd.journal.schema import SCHEMA_VERSION, STEPS

_log = structlog.get_logger()

CHECK_S = 5.0
"""For so long a file is looked over. A journal of 100,000 incidents (200 MB) takes 0.4 s, and 3 s from a cold disk; of a
larger one the rest is taken for good."""
KEPT = 3
"""Damaged journals that are kept; the oldest goes first. A disk that damages them would fill itself otherwise."""
UNREADABLE = (ValueError, KeyError, TypeError, AssertionError)
"""What a row raises whose values were written over: SQLite keeps no checksums."""

_STEPS_BETWEEN_LOOKS = 10_000
_FARTHEST_VERSION = 1000
"""No vigintd will ever write this; a file that says so was written over."""
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""The file is none of SQLite's, or its tables are not the journal's. A full or read-only disk is no damage."""
_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_FORMATS = (b"\1\1", b"\2\2")
"""Bytes 18 and 19, as a rollback journal or a WAL leaves them; anything else makes SQLite call the file read-only."""
_BESIDE = ("", "-wal", "-shm")
"""How the names of a SQLite file, of its log and of the log's index end."""


class _Damaged(Exception):
    """The file is there and is no whole journal; the message says how."""


if sqlite3.sqlite_version_info < (3, 38):  # pragma: no cover - Debian 12 has 3.40
    raise ImportError(f"vigintd needs SQLite 3.38 or newer; this Python has {sqlite3.sqlite_version}")


async def open_file(path: Path, clock: Clock) -> tuple[aiosqlite.Connection, bool]:
    """A connection to a whole journal of this schema, and whether that was made now: there was none, or a damaged one.

    Raises `PermanentError` where it cannot be opened or written, or is of a newer vigintd.
    """
    try:
        return await _open(path, clock)
    except _Damaged as damage:
        try:
            kept = _put_away(path, clock.now())
        except OSError as error:
            raise PermanentError(f"{path}: the journal is damaged ({damage}) and cannot be moved: {error}") from error
        _log.error("journal.damaged", reason=str(damage), kept_as=str(kept))
    try:
        return await _open(path, clock)
    except _Damaged as again:
        raise PermanentError(f"{path}: the journal cannot be used: {again}") from again


def put_away(path: Path) -> Sequence[Path]:
    """The damaged journals that are kept beside `path`, newest first."""
    return sorted(path.parent.glob(f"{path.name}.damaged-*Z"), reverse=True)


async def _open(path: Path, clock: Clock) -> tuple[aiosqlite.Connection, bool]:
    try:
        _check_header(path)
        database = await aiosqlite.connect(path, isolation_level=None)
    except (sqlite3.Error, OSError) as error:
        raise PermanentError(f"{path}: the journal cannot be opened: {error}") from error
    try:
        return database, await _prepare(database, path, clock)
    except UNREADABLE as error:
        await database.close()
        raise _Damaged(f"what is in it cannot be read: {error}") from error
    except sqlite3.Error as error:
        await database.close()
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:  # what Python itself raises has none
            raise _Damaged(str(error)) from error
        raise PermanentError(f"{path}: the journal cannot be used: {error}") from error
    except BaseException:
        await database.close()
        raise


async def _prepare(database: aiosqlite.Connection, path: Path, clock: Clock) -> bool:
    database.row_factory = sqlite3.Row
    # Text that was written over is what its row makes of it, and no failure of whatever statement comes upon it.
    database.text_factory = lambda text: text.decode("utf-8", "replace")
    await _check_pages(database, clock)
    await database.execute("PRAGMA journal_mode = WAL")
    await database.execute("PRAGMA synchronous = FULL")
    await database.execute("PRAGMA foreign_keys = ON")
    (row,) = await database.execute_fetchall("PRAGMA user_version")
    version: int = row[0]
    if not 0 <= version < _FARTHEST_VERSION:
        raise _Damaged(f"its version reads {version}")
    if version > SCHEMA_VERSION:
        raise PermanentError(f"{path}: the journal is of version {version}; this vigintd knows {SCHEMA_VERSION}")
    if version < SCHEMA_VERSION:
        # One transaction, so that a death in between leaves the old version and nothing else.
        steps = "".join(STEPS[version:])
        await database.executescript(f"BEGIN; {steps} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    await _check_rows(database)
    return version == 0


def _check_header(path: Path) -> None:
    """Of what SQLite answers with something else than damage (https://sqlite.org/fileformat2.html, section 1.3)."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        return
    if header and (len(header) < _HEADER_BYTES or not header.startswith(_MAGIC) or header[18:20] not in _FORMATS):
        raise _Damaged("its header is not SQLite's")


async def _check_pages(database: aiosqlite.Connection, clock: Clock) -> None:
    deadline_s = clock.monotonic_s() + CHECK_S
    await database.set_progress_handler(lambda: clock.monotonic_s() > deadline_s, _STEPS_BETWEEN_LOOKS)
    try:
        (row,) = await database.execute_fetchall("PRAGMA quick_check(1)")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        _log.warning("journal.half_checked", check_s=CHECK_S)
        return
    finally:
        await database.set_progress_handler(lambda: None, 0)
    if row[0] != "ok":
        raise _Damaged(row[0])


async def _check_rows(database: aiosqlite.Connection) -> None:
    """What a start needs must be readable: incidents that are not closed, and what is owed."""
    for row in await database.execute_fetchall("SELECT * FROM incident WHERE state != 'closed'"):
        incident_of(row)
    for row in await database.execute_fetchall("SELECT * FROM effect WHERE state = 'owed'"):
        effect_of(row)


def _put_away(path: Path, now: datetime) -> Path:
    """Rename the journal and what SQLite keeps beside it, durably; answers its new name."""
    kept = path.with_name(f"{path.name}.damaged-{now.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}")
    for end in _BESIDE:
        source = path.with_name(path.name + end)
        if source.exists():
            source.replace(kept.with_name(kept.name + end))
    for old in put_away(path)[KEPT:]:
        for end in _BESIDE:
            old.with_name(old.name + end).unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return kept
