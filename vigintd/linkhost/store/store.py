"""Clips, their parts and their recipients.

Owns the statements on these tables. What is worth a line of the record is written down in the same commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from vigintd.clock import Clock
from vigintd.linkhost.store.aging import Aging
from vigintd.linkhost.store.audit import Record, add
from vigintd.linkhost.store.database import Database, number
from vigintd.linkhost.store.keys import Keys
from vigintd.linkhost.store.rows import (
    CLIP_COLUMNS,
    PART_COLUMNS,
    AuditKind,
    AuditRow,
    Clip,
    Part,
    clip_of,
    flat_json,
    part_of,
    stamp,
)
from vigintd.linkhost.tokens import Grant
from vigintd.linkhost.visitors import Visitor
from vigintd.linkhost.wire import Scalar
from vigintd.lived import Lived


@dataclass(frozen=True, slots=True)
class Recipient:
    """Somebody who was given a link."""

    grant: Grant
    revoked_at: datetime | None


class Store:
    """The database as the host uses it."""

    def __init__(self, database: Database, aging: Aging, *, reading: bool = False) -> None:
        self._reading = reading
        self._database = database
        self._aging = aging
        self.record = Record(database)
        self.keys = Keys(database)

    @classmethod
    async def open(cls, path: Path, clock: Clock, *, boot: str | None = None) -> Self:
        """Open or create the database in `path`. Raises `PermanentError` for one from a newer version.

        `boot` is the machine's run (None: asked of the kernel).
        """
        database = await Database.open(path, clock)
        try:
            return cls(database, await Aging.begin(database, clock, boot=boot))
        except BaseException:
            await database.aclose()
            raise

    @classmethod
    async def open_to_read(cls, path: Path, clock: Clock) -> Self:
        """Open the database to look into it; nothing in it can be changed. Raises `PermanentError`."""
        database = await Database.open_to_read(path)
        return cls(database, Aging(database, clock, Lived(clock, None)), reading=True)

    async def aclose(self) -> None:
        """Write down how far lived time has come, where it can be, and close the database."""
        if not self._reading:
            await self._aging.keep()
        await self._database.aclose()

    @property
    def lived(self) -> Lived:
        """By which clips grow old."""
        return self._aging.lived

    async def keep_time(self) -> None:
        """Write down how far lived time has come; what is not is lost with the power. Where it fails, that is said."""
        await self._aging.keep()

    def may_go(self, clip: Clip) -> bool:
        """Its time has passed for good, whatever the wall clock becomes: its files may be deleted, nothing more is taken."""
        return self._aging.may_go(clip)

    async def create(self, clip: Clip, recipients: Sequence[str], by: Visitor) -> bool:
        """Add a clip with its recipients, and write both down; False, and nothing done, where there is one already."""
        async with self._database.change("create") as connection:
            cursor = await connection.execute(
                "INSERT INTO clip (id, owner, key_id, metadata, created_at, changed_at, expires_at, created_lived, kept_s) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (
                    *(clip.id, clip.owner, clip.key_id, flat_json(clip.metadata)),
                    *map(stamp, (clip.created_at, clip.changed_at, clip.expires_at, clip.created_lived)),
                    clip.kept_s,
                ),
            )
            if cursor.rowcount == 0:
                return False
            await connection.executemany(
                "INSERT INTO recipient (clip_id, name, generation) VALUES (?, ?, 0)", [(clip.id, name) for name in recipients]
            )
            made = AuditRow(
                clip.created_at, AuditKind.UPLOAD, clip.id, "", by.address, by.client, {"what": "created", "by": clip.owner}
            )
            await add(connection, made)
            for name in recipients:
                await add(connection, AuditRow(clip.created_at, AuditKind.LINK, clip.id, name, by.address, by.client))
        return True

    async def clip(self, clip_id: str) -> Clip | None:
        """The clip of that id, also when it is gone."""
        rows = await self._database.all(f"SELECT {CLIP_COLUMNS} FROM clip WHERE id = ?", clip_id)  # noqa: S608 - constants
        return clip_of(rows[0]) if rows else None

    async def clips(self, *, gone: bool, beginning: str = "", limit: int = 100) -> list[Clip]:
        """The newest clips whose ids begin so, newest first; of those that were deleted only with `gone`."""
        sql = (
            f"SELECT {CLIP_COLUMNS} FROM clip WHERE (?1 OR deleted_at IS NULL) AND substr(id, 1, length(?2)) = ?2"  # noqa: S608 - constants
            " ORDER BY created_at DESC LIMIT ?3"
        )
        return [clip_of(row) for row in await self._database.all(sql, gone, beginning, limit)]

    async def recipients(self, clip_id: str) -> list[Recipient]:
        """Who was given a link, in the order of its creation."""
        rows = await self._database.all(
            "SELECT name, generation, revoked_at FROM recipient WHERE clip_id = ? ORDER BY rowid", clip_id
        )
        return [
            Recipient(Grant(name, generation), datetime.fromisoformat(revoked_at) if revoked_at else None)
            for name, generation, revoked_at in rows
        ]

    async def grants(self, clip_id: str) -> list[Grant]:
        """Whose links open the clip, in the order of their creation."""
        return [recipient.grant for recipient in await self.recipients(clip_id) if recipient.revoked_at is None]

    async def grant(self, clip_id: str, row: AuditRow) -> Grant:
        """The row's recipient is given a link, which no earlier one of theirs is; answers what it is derived from."""
        async with self._database.change() as connection:
            await connection.execute(
                "INSERT INTO recipient (clip_id, name, generation) VALUES (?, ?, 0)"
                " ON CONFLICT (clip_id, name) DO UPDATE SET revoked_at = NULL",
                (clip_id, row.recipient),
            )
            await add(connection, row)
            generation = await number(
                connection, "SELECT generation FROM recipient WHERE clip_id = ? AND name = ?", clip_id, row.recipient
            )
        return Grant(row.recipient, generation)

    async def revoke(self, clip_id: str, rows: Iterable[AuditRow], now: datetime) -> None:
        """No link of these rows' recipients opens the clip any more, whatever is granted later."""
        async with self._database.change() as connection:
            for row in rows:
                await connection.execute(
                    "UPDATE recipient SET generation = generation + 1, revoked_at = ? WHERE clip_id = ? AND name = ?",
                    (stamp(now), clip_id, row.recipient),
                )
                await add(connection, row)

    async def renew(self, clip_id: str, expires_at: datetime) -> None:
        """Let the clip's links live until then; how long the clip is kept stays."""
        async with self._database.change() as connection:
            await connection.execute("UPDATE clip SET expires_at = ? WHERE id = ?", (stamp(expires_at), clip_id))

    async def extend(self, clip: Clip, expires_at: datetime, row: AuditRow) -> None:
        """The clip is kept, and its links live, until then."""
        async with self._database.change() as connection:
            await connection.execute(
                "UPDATE clip SET expires_at = ?, kept_s = max(kept_s, ?) WHERE id = ?",
                (stamp(expires_at), self._aging.kept_s(clip, expires_at), clip.id),
            )
            await add(connection, row)

    async def hold(self, clip: Clip, reason: str, expires_at: datetime, row: AuditRow) -> None:
        """Keep the clip beyond its time, for `reason`; an empty one lets it go again, from `expires_at` on."""
        async with self._database.change() as connection:
            await connection.execute(
                "UPDATE clip SET held = ?, expires_at = ?, kept_s = min(kept_s, ?) WHERE id = ?",
                (reason, stamp(expires_at), clip.kept_s if reason else self._aging.kept_s(clip, expires_at), clip.id),
            )
            await add(connection, row)

    async def put_metadata(self, clip_id: str, metadata: Mapping[str, Scalar], now: datetime) -> None:
        """Put the clip's metadata in this place."""
        async with self._database.change("put_metadata") as connection:
            await connection.execute(
                "UPDATE clip SET metadata = ?, changed_at = ? WHERE id = ?", (flat_json(metadata), stamp(now), clip_id)
            )

    async def add_part(self, clip_id: str, index: int, length_bytes: int | None, now: datetime) -> bool:
        """Announce a part; False where it is known."""
        async with self._database.change("add_part") as connection:
            cursor = await connection.execute(
                "INSERT INTO part (clip_id, idx, offset, length, codec, mismatched, epoch, changed_at)"
                " VALUES (?, ?, 0, ?, '', 0, random() >> 2, ?) ON CONFLICT DO NOTHING",
                (clip_id, index, length_bytes, stamp(now)),
            )
        return cursor.rowcount == 1

    async def part(self, clip_id: str, index: int) -> Part | None:
        """One part, or None."""
        return next((part for part in await self.parts(clip_id) if part.index == index), None)

    async def parts(self, clip_id: str) -> list[Part]:
        """Every part, in their order."""
        sql = f"SELECT {PART_COLUMNS} FROM part WHERE clip_id = ? ORDER BY idx"  # noqa: S608 - constants
        return [part_of(row) for row in await self._database.all(sql, clip_id)]

    async def kept_parts(self) -> list[Part]:
        """Every part of which bytes are held, of clips that are not deleted."""
        columns = ", ".join(f"part.{column}" for column in PART_COLUMNS.split(", "))
        sql = (
            f"SELECT {columns} FROM part JOIN clip ON clip.id = part.clip_id"  # noqa: S608 - constants
            " WHERE clip.deleted_at IS NULL AND part.offset > 0"
        )
        return [part_of(row) for row in await self._database.all(sql)]

    async def sealed_as(self, sha256: str) -> list[Part]:
        """The parts that were sealed with this hash, oldest first, also of clips that are gone."""
        sql = f"SELECT {PART_COLUMNS} FROM part WHERE sha256 = ? ORDER BY changed_at LIMIT 100"  # noqa: S608 - constants
        return [part_of(row) for row in await self._database.all(sql, sha256)]

    async def sealed_with(self, fragments_bytes: int) -> list[tuple[str, bytes]]:
        """SHA-256 and initialisation segment of the sealed parts whose fragments have so many bytes."""
        rows = await self._database.all(
            "SELECT sha256, init FROM part WHERE init IS NOT NULL AND length - length(init) = ? LIMIT 100",
            fragments_bytes,
        )
        return [(sha256, init) for sha256, init in rows]

    async def commit(self, part: Part, offset_bytes: int, codec: str, length_bytes: int | None, now: datetime) -> None:
        """Bytes up to `offset_bytes` of the part are on disk and checked."""
        async with self._database.change("commit") as connection:
            await connection.execute(
                "UPDATE part SET offset = ?, codec = ?, length = ?, changed_at = ? WHERE clip_id = ? AND idx = ?",
                (offset_bytes, codec, length_bytes, stamp(now), part.clip_id, part.index),
            )

    async def seal(self, part: Part, sha256: str, row: AuditRow, init: bytes | None = None) -> None:
        """The part is whole and its hash is right; `init` is what stands before its fragments, where it has any."""
        async with self._database.change("seal") as connection:
            await connection.execute(
                "UPDATE part SET sha256 = ?, init = ?, length = offset, mismatched = 0, changed_at = ?"
                " WHERE clip_id = ? AND idx = ?",
                (sha256, init, stamp(row.at), part.clip_id, part.index),
            )
            await add(connection, row)

    async def reset(self, part: Part, row: AuditRow, *, mismatched: bool) -> None:
        """The part begins anew at offset 0: its seal did not fit, or its bytes were lost."""
        async with self._database.change() as connection:
            await connection.execute(
                "UPDATE part SET offset = 0, length = NULL, sha256 = NULL, init = NULL, codec = '', epoch = epoch + 1,"
                " mismatched = max(mismatched, ?), changed_at = ? WHERE clip_id = ? AND idx = ?",
                (mismatched, stamp(row.at), part.clip_id, part.index),
            )
            await add(connection, row)

    async def remove_part(self, part: Part, row: AuditRow) -> None:
        """Forget a part; with the last one the clip is gone too."""
        async with self._database.change() as connection:
            await connection.execute("DELETE FROM part WHERE clip_id = ? AND idx = ?", (part.clip_id, part.index))
            await connection.execute(
                "UPDATE clip SET deleted_at = ? WHERE id = ? AND NOT EXISTS (SELECT 1 FROM part WHERE clip_id = clip.id)",
                (stamp(row.at), part.clip_id),
            )
            await add(connection, row)

    async def overdue(self) -> list[str]:
        """Ids of clips that may go and are not deleted yet, first those whose links expired first."""
        sql = f"SELECT {CLIP_COLUMNS} FROM clip WHERE deleted_at IS NULL AND held = '' ORDER BY expires_at"  # noqa: S608 - constants
        return [clip.id for clip in map(clip_of, await self._database.all(sql)) if self.may_go(clip)]

    async def bury(self, clip_id: str, rows: Iterable[AuditRow], now: datetime) -> None:
        """The clip's files are gone; its row and its record stay."""
        async with self._database.change("bury") as connection:
            await connection.execute("UPDATE clip SET deleted_at = ? WHERE id = ?", (stamp(now), clip_id))
            for row in rows:
                await add(connection, row)

    async def write_down(self, row: AuditRow) -> None:
        """Add a line to the record."""
        await self.record.write_down(row)

    async def audit(self, clip_id: str) -> list[AuditRow]:
        """The clip's record, oldest first."""
        return await self.record.of_clip(clip_id)
