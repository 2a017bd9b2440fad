"""The link host's own database: clips, their parts, who may see them, and the record of every touch.

Owns `linkhost.sqlite3` and every statement on it. Each change has committed, synchronously to disk
(WAL, synchronous=FULL), when its call returns. Nothing in it opens a clip: of API keys it holds hashes, of
links only whom they are for. Rows of clips that are gone stay, with their record.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Self

import aiosqlite
import structlog

from vigintd import metrics
from vigintd.clock import Clock
from vigintd.failpoints import failpoint
from vigintd.linkhost.schema import AGED, MARK, prepare
from vigintd.linkhost.tokens import Grant
from vigintd.linkhost.visitors import Visitor
from vigintd.linkhost.wire import Scalar
from vigintd.lived import Lived, Mark, may_go

MAX_AUDIT_ROWS = 10_000
"""Of one clip; at the edge one last row says that the record is full, and what comes after is only counted."""

StoreError = aiosqlite.Error
"""What any call may raise when the database cannot be used."""

_CLIP = "id, owner, key_id, metadata, created_at, changed_at, expires_at, kept_s, created_lived, deleted_at"

_log = structlog.get_logger(__name__)

_Value = str | int | float | bytes | None


class AuditKind(StrEnum):
    """What happened to a clip."""

    UPLOAD = "upload"
    """Its making: `what` is created, sealed or mismatch."""
    LINK = "link"
    """A link was made for the recipient."""
    PROBE = "probe"
    """Something touched the link: page, status, or any HEAD. Proves nobody's eyes."""
    PLAY = "play"
    """Media bytes were sent: `part`, `first`, `bytes`."""
    EXPIRED = "expired"
    DELETED = "deleted"
    FULL = "full"
    """The record ends here; see `MAX_AUDIT_ROWS`."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One line of a clip's record."""

    at: datetime
    kind: AuditKind
    clip_id: str
    recipient: str = ""
    address: str = ""
    client: str = ""
    detail: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip, as it was announced and has become."""

    id: str
    owner: str
    key_id: str
    metadata: Mapping[str, Scalar]
    created_at: datetime
    changed_at: datetime
    expires_at: datetime
    kept_s: float
    """How long it is kept; its links lead nowhere from `expires_at` on."""
    created_lived: datetime
    """When it was created, in lived time (see `Store.may_go`)."""
    deleted_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """No part will follow."""
        return self.metadata.get("ended") is True

    def expired(self, now: datetime) -> bool:
        """Its time is over."""
        return now >= self.expires_at

    def gone(self, now: datetime) -> bool:
        """Nobody may see it any more."""
        return self.deleted_at is not None or self.expired(now)


@dataclass(frozen=True, slots=True)
class Part:
    """One part: what of it is held for good."""

    clip_id: str
    index: int
    offset_bytes: int
    length_bytes: int | None
    sha256: str | None
    """Hex, once sealed."""
    codec: str
    mismatched: bool
    epoch: int
    changed_at: datetime

    @property
    def sealed(self) -> bool:
        """It will not change any more, and its hash was checked."""
        return self.sha256 is not None


class Store:
    """The database, opened. One connection, used from the loop; changes take their turn."""

    def __init__(self, connection: aiosqlite.Connection, clock: Clock, lived: Lived) -> None:
        self.lived = lived
        """By which clips grow old."""
        self._connection = connection
        self._clock = clock
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path, clock: Clock, *, boot: str | None = None) -> Self:
        """Open or create the database in `path`. Raises `PermanentError` for one from a newer version.

        `boot` is the machine's run (None: asked of the kernel).
        """
        connection = await aiosqlite.connect(path, isolation_level=None)
        try:
            await prepare(connection, path)
            marks = await connection.execute_fetchall("SELECT lived, wall, boot_id, monotonic_s FROM mark")
            store = cls(connection, clock, Lived(clock, next((_mark(row) for row in marks), None), boot=boot))
            await connection.execute(AGED, (_text(store.lived.now()),))
        except BaseException:
            await connection.close()
            raise
        return store

    async def aclose(self) -> None:
        """Close the database."""
        await self.keep_time()
        await self._connection.close()

    async def keep_time(self) -> None:
        """Write down how far lived time has come; what is not is lost with the power. Where it fails, that is said."""
        mark = self.lived.mark()
        async with self._turn:
            try:
                await self._connection.execute(MARK, (_text(mark.lived), _text(mark.wall), mark.boot_id, mark.monotonic_s))
            except StoreError as error:
                _log.warning("linkhost.time_unkept", error=str(error))

    def may_go(self, clip: Clip) -> bool:
        """Its time has passed for good, whatever the wall clock becomes: its files may be deleted, nothing more is taken."""
        return may_go(
            kept_s=clip.kept_s,
            lived_s=(self.lived.now() - clip.created_lived).total_seconds(),
            wall_says_so=clip.expired(self._clock.now()),
        )

    async def replace_api_keys(self, digests: Mapping[str, bytes]) -> None:
        """These names and SHA-256 digests are the API keys from now on."""
        async with self._change():
            await self._connection.execute("DELETE FROM api_key")
            await self._connection.executemany(
                "INSERT INTO api_key (name, sha256) VALUES (?, ?) ON CONFLICT DO NOTHING", digests.items()
            )

    async def api_keys(self) -> list[tuple[str, bytes]]:
        """Name and SHA-256 digest of each API key."""
        return [(str(name), bytes(digest)) for name, digest in await self._all("SELECT name, sha256 FROM api_key")]

    async def create(self, clip: Clip, recipients: Sequence[str], by: Visitor) -> bool:
        """Add a clip with its recipients, and write both down; False, and nothing done, where there is one already."""
        async with self._change("create"):
            cursor = await self._connection.execute(
                "INSERT INTO clip (id, owner, key_id, metadata, created_at, changed_at, expires_at, kept_s, created_lived) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (
                    clip.id,
                    clip.owner,
                    clip.key_id,
                    json.dumps(dict(clip.metadata), ensure_ascii=False),
                    *map(_text, (clip.created_at, clip.changed_at, clip.expires_at)),
                    clip.kept_s,
                    _text(clip.created_lived),
                ),
            )
            if cursor.rowcount == 0:
                return False
            await self._connection.executemany(
                "INSERT INTO recipient (clip_id, name, generation) VALUES (?, ?, 0)", [(clip.id, name) for name in recipients]
            )
            made = AuditRow(
                clip.created_at, AuditKind.UPLOAD, clip.id, "", by.address, by.client, {"what": "created", "by": clip.owner}
            )
            await self._write_down(made)
            for name in recipients:
                await self._write_down(AuditRow(clip.created_at, AuditKind.LINK, clip.id, name, by.address, by.client))
        return True

    async def clip(self, clip_id: str) -> Clip | None:
        """The clip of that id, also when it is gone."""
        rows = await self._all(f"SELECT {_CLIP} FROM clip WHERE id = ?", clip_id)  # noqa: S608 - a constant
        return _clip(rows[0]) if rows else None

    async def renew(self, clip_id: str, expires_at: datetime) -> None:
        """Let the clip's links live until then; how long the clip is kept stays."""
        async with self._change():
            await self._connection.execute("UPDATE clip SET expires_at = ? WHERE id = ?", (_text(expires_at), clip_id))

    async def grants(self, clip_id: str) -> list[Grant]:
        """Whom the clip's links are for, in the order of their creation."""
        rows = await self._all("SELECT name, generation FROM recipient WHERE clip_id = ? ORDER BY rowid", clip_id)
        return [Grant(name, generation) for name, generation in rows]

    async def put_metadata(self, clip_id: str, metadata: Mapping[str, Scalar], now: datetime) -> None:
        """Put the clip's metadata in this place."""
        async with self._change("put_metadata"):
            await self._connection.execute(
                "UPDATE clip SET metadata = ?, changed_at = ? WHERE id = ?",
                (json.dumps(dict(metadata), ensure_ascii=False), _text(now), clip_id),
            )

    async def add_part(self, clip_id: str, index: int, length_bytes: int | None, now: datetime) -> bool:
        """Announce a part; False where it is known."""
        async with self._change("add_part"):
            cursor = await self._connection.execute(
                "INSERT INTO part VALUES (?, ?, 0, ?, NULL, '', 0, random() >> 2, ?) ON CONFLICT DO NOTHING",
                (clip_id, index, length_bytes, _text(now)),
            )
        return cursor.rowcount == 1

    async def part(self, clip_id: str, index: int) -> Part | None:
        """One part, or None."""
        return next((part for part in await self.parts(clip_id) if part.index == index), None)

    async def parts(self, clip_id: str) -> list[Part]:
        """Every part, in their order."""
        rows = await self._all(
            "SELECT clip_id, idx, offset, length, sha256, codec, mismatched, epoch, changed_at "
            "FROM part WHERE clip_id = ? ORDER BY idx",
            clip_id,
        )
        return [_part(row) for row in rows]

    async def commit(self, part: Part, offset_bytes: int, codec: str, length_bytes: int | None, now: datetime) -> None:
        """Bytes up to `offset_bytes` of the part are on disk and checked."""
        async with self._change("commit"):
            await self._connection.execute(
                "UPDATE part SET offset = ?, codec = ?, length = ?, changed_at = ? WHERE clip_id = ? AND idx = ?",
                (offset_bytes, codec, length_bytes, _text(now), part.clip_id, part.index),
            )

    async def seal(self, part: Part, sha256: str, row: AuditRow) -> None:
        """The part is whole and its hash is right."""
        async with self._change("seal"):
            await self._connection.execute(
                "UPDATE part SET sha256 = ?, length = offset, mismatched = 0, changed_at = ? WHERE clip_id = ? AND idx = ?",
                (sha256, _text(row.at), part.clip_id, part.index),
            )
            await self._write_down(row)

    async def reset(self, part: Part, row: AuditRow | None, now: datetime) -> None:
        """The part begins anew at offset 0; with `row`, because its seal did not fit."""
        async with self._change():
            await self._connection.execute(
                "UPDATE part SET offset = 0, length = NULL, codec = '', mismatched = max(mismatched, ?), epoch = epoch + 1, "
                "changed_at = ? WHERE clip_id = ? AND idx = ?",
                (row is not None, _text(now), part.clip_id, part.index),
            )
            if row is not None:
                await self._write_down(row)

    async def remove_part(self, part: Part, row: AuditRow) -> None:
        """Forget a part; with the last one the clip is gone too."""
        async with self._change():
            await self._connection.execute("DELETE FROM part WHERE clip_id = ? AND idx = ?", (part.clip_id, part.index))
            await self._connection.execute(
                "UPDATE clip SET deleted_at = ? WHERE id = ? AND NOT EXISTS (SELECT 1 FROM part WHERE clip_id = clip.id)",
                (_text(row.at), part.clip_id),
            )
            await self._write_down(row)

    async def overdue(self) -> list[str]:
        """Ids of clips that may go and are not deleted yet, first those whose links expired first."""
        rows = await self._all(f"SELECT {_CLIP} FROM clip WHERE deleted_at IS NULL ORDER BY expires_at")  # noqa: S608 - a constant
        return [clip.id for clip in map(_clip, rows) if self.may_go(clip)]

    async def bury(self, clip_id: str, rows: Iterable[AuditRow], now: datetime) -> None:
        """The clip's files are gone; its row and its record stay."""
        async with self._change("bury"):
            await self._connection.execute("UPDATE clip SET deleted_at = ? WHERE id = ?", (_text(now), clip_id))
            for row in rows:
                await self._write_down(row)

    async def write_down(self, row: AuditRow) -> None:
        """Add a line to the record."""
        async with self._change():
            await self._write_down(row)

    async def audit(self, clip_id: str) -> list[AuditRow]:
        """The clip's record, oldest first."""
        rows = await self._all(
            "SELECT at, kind, clip_id, recipient, address, client, detail FROM audit WHERE clip_id = ? ORDER BY id", clip_id
        )
        return [_audit_row(row) for row in rows]

    async def _write_down(self, row: AuditRow) -> None:
        count = await _number(self._connection, "SELECT count(*) FROM audit WHERE clip_id = ?", row.clip_id)
        if row.kind in (AuditKind.PROBE, AuditKind.PLAY) and count >= MAX_AUDIT_ROWS:
            metrics.count("linkhost.audit_full")
            if count > MAX_AUDIT_ROWS:
                return
            row = AuditRow(row.at, AuditKind.FULL, row.clip_id)
        await self._connection.execute(
            "INSERT INTO audit (clip_id, at, kind, recipient, address, client, detail) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (row.clip_id, _text(row.at), row.kind, row.recipient, row.address, row.client, json.dumps(dict(row.detail))),
        )

    async def _all(self, sql: str, *arguments: _Value) -> list[sqlite3.Row]:
        # A turn for readers too: they share the connection and would see half of a change.
        async with self._turn:
            return list(await self._connection.execute_fetchall(sql, arguments))

    @asynccontextmanager
    async def _change(self, what: str = "change") -> AsyncGenerator[None]:
        async with self._turn:
            await self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                failpoint(f"linkhost.{what}.before")
                await self._connection.execute("COMMIT")
                failpoint(f"linkhost.{what}.after")
            except BaseException:
                # A cancelled statement still runs in its thread; this one is queued behind it.
                if self._connection.in_transaction:
                    await self._connection.execute("ROLLBACK")
                raise


async def _number(connection: aiosqlite.Connection, sql: str, *arguments: _Value) -> int:
    rows = list(await connection.execute_fetchall(sql, arguments))
    return int(rows[0][0])


def _text(moment: datetime) -> str:
    # A fixed width, so that text compares as time does.
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _clip(row: sqlite3.Row) -> Clip:
    clip_id, owner, key_id, metadata, created_at, changed_at, expires_at, kept_s, created_lived, deleted_at = row
    created, changed, expires, lived = map(datetime.fromisoformat, (created_at, changed_at, expires_at, created_lived))
    deleted = datetime.fromisoformat(deleted_at) if deleted_at else None
    return Clip(clip_id, owner, key_id, json.loads(metadata), created, changed, expires, kept_s, lived, deleted)


def _mark(row: sqlite3.Row) -> Mark:
    lived, wall, boot_id, monotonic_s = row
    return Mark(datetime.fromisoformat(lived), datetime.fromisoformat(wall), boot_id, monotonic_s)


def _part(row: sqlite3.Row) -> Part:
    clip_id, index, offset, length, sha256, codec, mismatched, epoch, changed_at = row
    return Part(clip_id, index, offset, length, sha256, codec, bool(mismatched), epoch, datetime.fromisoformat(changed_at))


def _audit_row(row: sqlite3.Row) -> AuditRow:
    at, kind, clip_id, recipient, address, client, detail = row
    return AuditRow(datetime.fromisoformat(at), AuditKind(kind), clip_id, recipient, address, client, json.loads(detail))
