"""Incidents by the hash of what was sealed of them: a question of its own, on a connection of its own.

Reads only, so that it works beside a daemon that writes and without one; the journal's own connection is not kept busy,
because there is no index on what is asked.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import aiosqlite

from vigintd.errors import JournalUnavailable
from vigintd.journal.rows import incident_of
from vigintd.journal.schema import SCHEMA_VERSION
from vigintd.model import Incident

MAX_FOUND = 100


async def incidents_sealed_as(path: Path, sha256: str) -> list[Incident]:
    """Incidents of which a part or an original was sealed with this hash (hex), oldest first; none where no journal is.

    Raises `JournalUnavailable`.
    """
    if not _is_there(path):
        return []
    try:
        async with aiosqlite.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True) as database:  # noqa: ASYNC240 - no disk is asked
            database.row_factory = sqlite3.Row
            ((version,),) = await database.execute_fetchall("PRAGMA user_version")
            if version != SCHEMA_VERSION:
                raise JournalUnavailable(f"{path} is of another version of vigintd; start this one once to bring it up to date")
            rows = await database.execute_fetchall(
                "SELECT * FROM incident WHERE instr(parts, ?1) OR instr(originals, ?1) ORDER BY at LIMIT ?2",
                (f'"{sha256}"', MAX_FOUND),
            )
    except (sqlite3.Error, OSError) as error:
        raise JournalUnavailable(f"{path}: the journal cannot be read: {error}") from error
    return [incident_of(row) for row in rows]


def _is_there(path: Path) -> bool:
    return path.exists()
