"""The journal's file when it is opened: looked over, put aside where it is damaged, brought to this schema.

Owns what counts as damage, and the names and number of damaged files that are kept. What was in them is not known
here: who opened a new journal fills it from what lies in the spool.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC
from pathlib import Path

import aiosqlite
import structlog

from vigintd.clock import Clock
from vigintd.errors import PermanentError
from vigintd.journal.rows import effect_of, incident_of, mark_of, stamp, time_of
from vigintd.journal.schema import AGED, SCHEMA_VERSION, STEPS
from vigintd.lived import Mark

_log = structlog.get_logger()

CHECK_S = 5.0
"""For so long a file is looked over. A journal of 100,000 incidents (200 MB) takes 3 s; of a larger one the rest is taken for
good."""
KEPT = 3
"""Damaged journals that are kept; the oldest goes first. A disk that damages them would fill itself otherwise."""
AGAIN_S = (0.5, 1.5, 3.0)
"""A disk that cannot read or write the file is given so many chances, with these waits between them."""
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
_SUSPECT = ".suspect"
"""Ends the name of an empty file beside a journal that was found damaged while it was open."""
_BESIDE = (_SUSPECT, "", "-wal", "-shm")
"""How the names of that, of a SQLite file, of its log and of the log's index end; in this order they are moved."""


class _Damaged(Exception):
    """The file is there and is no whole journal; the message says how."""


class _DiskFailed(_Damaged):
    """The disk could not read or write the file; it may the next time."""


if sqlite3.sqlite_version_info < (3, 38):  # pragma: no cover - Debian 12 has 3.40
    raise ImportError(f"vigintd needs SQLite 3.38 or newer; this Python has {sqlite3.sqlite_version}")


async def open_file(path: Path, clock: Clock) -> tuple[aiosqlite.Connection, bool]:
    """A connection to a whole journal of this schema, and whether that was made now: there was none, or a damaged one.

    Raises `PermanentError` where it cannot be opened or written, or is of a newer vigintd; what was there is then as it was.
    """
    try:
        return await _open_patiently(path, clock)
    except _Damaged as damage:
        try:
            kept = _move(path, path.with_name(f"{path.name}.damaged-{clock.now().astimezone(UTC):%Y%m%dT%H%M%S.%fZ}"))
        except OSError as error:
            raise PermanentError(f"{path}: the journal is damaged ({damage}) and cannot be moved: {error}") from error
        _log.error("journal.damaged", reason=str(damage), kept_as=str(kept))
    try:
        opened = await _open(path, clock)
    except (_Damaged, PermanentError) as again:
        # Otherwise one start after another would set aside what the one before had made, and the journal itself be lost.
        with suppress(OSError):
            _move(kept, path)
        raise PermanentError(f"{path}: the journal cannot be used, nor a new one made: {again}; look after the disk") from again
    # By its name the one just kept may be the oldest: the clock that named the others may have been wrong.
    for old in [other for other in put_away(path) if other != kept][KEPT - 1 :]:
        for end in _BESIDE:
            old.with_name(old.name + end).unlink(missing_ok=True)
    return opened


async def _open_patiently(path: Path, clock: Clock) -> tuple[aiosqlite.Connection, bool]:
    for wait_s in AGAIN_S:
        try:
            return await _open(path, clock)
        except _DiskFailed as error:
            _log.warning("journal.delayed", error=str(error), retry_in_s=wait_s)
        await clock.sleep(wait_s)
    return await _open(path, clock)


async def read_mark(database: aiosqlite.Connection) -> Mark | None:
    """How far lived time had come when it was last written down, or None where it never was."""
    return next((mark_of(row) for row in await database.execute_fetchall("SELECT * FROM mark")), None)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an open journal says of its file that it is none any more."""
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def suspect(path: Path) -> None:
    """Have the next opening set this journal aside, though it may find nothing; what an open one came upon is enough."""
    with suppress(OSError):
        path.with_name(path.name + _SUSPECT).touch(mode=0o600)


def put_away(path: Path) -> Sequence[Path]:
    """The damaged journals that are kept beside `path`, newest first."""
    return sorted(path.parent.glob(f"{path.name}.damaged-*Z"), reverse=True)


async def _open(path: Path, clock: Clock) -> tuple[aiosqlite.Connection, bool]:
    try:
        _check_header(path)
        database = await aiosqlite.connect(path, isolation_level=None)
    except (sqlite3.Error, OSError) as error:
        if _is_disk_failure(error):
            raise _DiskFailed(str(error)) from error
        raise PermanentError(f"{path}: the journal cannot be opened: {error}") from error
    try:
        return database, await _prepare(database, path, clock)
    except UNREADABLE as error:
        await database.close()
        raise _Damaged(f"what is in it cannot be read: {error}") from error
    except sqlite3.Error as error:
        await database.close()
        if _code(error) in _DAMAGE:
            raise _Damaged(str(error)) from error
        if _is_disk_failure(error):
            raise _DiskFailed(str(error)) from error
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
        steps = "".join(STEPS[version:]) + AGED.format(now=stamp(clock.now()))
        await database.executescript(f"BEGIN; {steps} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    await _check_rows(database)
    return version == 0


def _check_header(path: Path) -> None:
    """Of what SQLite answers with something else than damage (https://sqlite.org/fileformat2.html, section 1.3)."""
    if path.with_name(path.name + _SUSPECT).exists():
        raise _Damaged("it was found damaged while it was open")
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
        # Not quick_check: an index that does not fit its table is found out by whoever reads by it, with the daemon running.
        (row,) = await database.execute_fetchall("PRAGMA integrity_check(1)")
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
    """What a start needs must be readable: incidents that are not closed, their effects, and whatever is owed."""
    for row in await database.execute_fetchall("SELECT * FROM incident WHERE state != 'closed'"):
        incident_of(row), time_of(row["playable_at"]), time_of(row["ended_lived"])
    of_these = "state NOT IN ('done', 'dead') OR incident_id IN (SELECT id FROM incident WHERE state != 'closed')"
    for row in await database.execute_fetchall(f"SELECT * FROM effect WHERE {of_these}"):  # noqa: S608 - a constant
        effect = effect_of(row)
        if effect.key != f"{effect.incident_id}/{effect.kind}/{effect.what}":
            raise _Damaged(f"its effect {effect.key} is not what its key says")
    await read_mark(database)


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; what Python itself raises has none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _is_disk_failure(error: sqlite3.Error | OSError) -> bool:
    return error.errno == errno.EIO if isinstance(error, OSError) else _code(error) == sqlite3.SQLITE_IOERR


def _move(path: Path, to: Path) -> Path:
    """Rename a journal and what SQLite keeps beside it, durably; answers its new name. What is there already goes."""
    for end in _BESIDE:
        source, target = (file.with_name(file.name + end) for file in (path, to))
        if source.exists():
            source.replace(target)
        else:
            target.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return to
