"""The record of every touch: lines that are only ever added, each chained to the one before.

Owns the statements on `audit`, and the bound of one clip's lines.
"""

from __future__ import annotations

from collections.abc import Sequence

import aiosqlite

from vigintd import metrics
from vigintd.linkhost.store.chain import START, Head, following
from vigintd.linkhost.store.database import Database, number
from vigintd.linkhost.store.rows import AUDIT_COLUMNS, AuditKind, AuditRow, audit_row_of
from vigintd.linkhost.store.schema import INSERT_AUDIT, audit_columns

MAX_AUDIT_ROWS = 10_000
"""Of one clip; at the edge one last row says that the record is full, and touches that come after are only counted."""

MAX_PAGE = 2000
"""Lines in one answer."""

_TOUCHES = frozenset({AuditKind.PROBE, AuditKind.PLAY, AuditKind.DOWNLOAD})


class Record:
    """The record in an opened database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write_down(self, *rows: AuditRow) -> None:
        """Add these lines."""
        async with self._database.change() as connection:
            for row in rows:
                await add(connection, row)

    async def of_clip(self, clip_id: str) -> list[AuditRow]:
        """The clip's lines, oldest first."""
        sql = f"SELECT {AUDIT_COLUMNS} FROM audit WHERE clip_id = ? ORDER BY seq"  # noqa: S608 - constants
        return [audit_row_of(row) for row in await self._database.all(sql, clip_id)]

    async def page(
        self, after: int, *, clip_id: str | None = None, owner: str | None = None, limit: int = MAX_PAGE
    ) -> Sequence[AuditRow]:
        """The next lines after place `after`: of one clip, of the clips of one owner, or of the whole record."""
        sql = (
            f"SELECT {AUDIT_COLUMNS} FROM audit WHERE seq > ?1 AND (?2 IS NULL OR clip_id = ?2)"  # noqa: S608 - constants
            " AND (?3 IS NULL OR (SELECT owner FROM clip WHERE clip.id = clip_id) = ?3) ORDER BY seq LIMIT ?4"
        )
        return [audit_row_of(row) for row in await self._database.all(sql, after, clip_id, owner, min(limit, MAX_PAGE))]

    async def players(self, clip_id: str) -> frozenset[str]:
        """The recipients with whose links media of the clip was fetched."""
        sql = "SELECT DISTINCT recipient FROM audit WHERE clip_id = ? AND kind IN ('play', 'download')"
        return frozenset(str(row[0]) for row in await self._database.all(sql, clip_id))

    async def head(self) -> Head:
        """The last line as it stands."""
        return _head(await self._database.all(_LAST))

    async def holds(self, head: Head) -> bool:
        """Whether the line of this place is there, with this hash."""
        rows = await self._database.all("SELECT 1 FROM audit WHERE seq = ? AND hash = ?", head.seq, bytes.fromhex(head.sha256))
        return bool(rows) or head == START


_LAST = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1"


async def add(connection: aiosqlite.Connection, row: AuditRow) -> None:
    """Add a line, inside a change."""
    if row.kind in _TOUCHES:
        count = await number(connection, "SELECT count(*) FROM audit WHERE clip_id = ?", row.clip_id)
        if count >= MAX_AUDIT_ROWS:
            metrics.count("linkhost.audit_full")
            if await number(connection, "SELECT count(*) FROM audit WHERE clip_id = ? AND kind = 'full'", row.clip_id):
                return
            row = AuditRow(row.at, AuditKind.FULL, row.clip_id)
    head = following(_head(list(await connection.execute_fetchall(_LAST))), row)
    await connection.execute(INSERT_AUDIT, audit_columns(row, head.seq, head.sha256))


def _head(rows: Sequence[Sequence[object]]) -> Head:
    if not rows:
        return START
    seq, digest = rows[0]
    assert isinstance(seq, int)
    assert isinstance(digest, bytes)
    return Head(seq, digest.hex())
