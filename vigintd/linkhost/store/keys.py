"""Who may upload: names, the hashes of their API keys, and how much each may hold here.

Owns the statements on `uploader` and `api_key`. A key itself is in no table, and one that is configured not even by its
hash: who starts the host gives it anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from vigintd.linkhost.store.audit import add
from vigintd.linkhost.store.database import Database, number
from vigintd.linkhost.store.rows import AuditKind, AuditRow, stamp

MAX_KEYS_A_NAME = 2
"""The one in use and the one that takes its place."""
ID_CHARS = 12
"""Hex digits of a key's hash that are its id: enough to tell keys apart, useless to whoever reads them."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key, as far as it is known here."""

    name: str
    digest: bytes
    """SHA-256 of the key, which is random and long: no slower hash is needed."""
    added_at: datetime

    @property
    def id(self) -> str:
        """What tells it from another key of the same name."""
        return self.digest.hex()[:ID_CHARS]


@dataclass(frozen=True, slots=True)
class Uploader:
    """A name under which clips are uploaded."""

    name: str
    quota_bytes: int | None
    held_bytes: int


class Keys:
    """The API keys in an opened database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[ApiKey]:
        """Every key, by name and age."""
        rows = await self._database.all("SELECT name, sha256, added_at FROM api_key ORDER BY name, added_at")
        return [ApiKey(name, digest, datetime.fromisoformat(at)) for name, digest, at in rows]

    async def add(self, key: ApiKey, quota_bytes: int | None) -> bool:
        """Take this key too; False, and nothing done, where its name has as many as it may. `quota_bytes` None: as before."""
        async with self._database.change() as connection:
            if await number(connection, "SELECT count(*) FROM api_key WHERE name = ?", key.name) >= MAX_KEYS_A_NAME:
                return False
            await connection.execute(
                "INSERT INTO uploader (name, quota_bytes) VALUES (?1, ?2)"
                " ON CONFLICT (name) DO UPDATE SET quota_bytes = coalesce(?2, quota_bytes)",
                (key.name, quota_bytes),
            )
            await connection.execute(
                "INSERT INTO api_key (sha256, name, added_at) VALUES (?, ?, ?)", (key.digest, key.name, stamp(key.added_at))
            )
            await add(connection, AuditRow(key.added_at, AuditKind.KEY, "", detail=_detail("added", key)))
        return True

    async def remove(self, key: ApiKey, now: datetime) -> None:
        """Take this key no more; the clips of its name stay."""
        async with self._database.change() as connection:
            await connection.execute("DELETE FROM api_key WHERE sha256 = ?", (key.digest,))
            await add(connection, AuditRow(now, AuditKind.KEY, "", detail=_detail("removed", key)))

    async def uploader(self, name: str) -> Uploader:
        """What this name may hold, and holds."""
        rows = await self._database.all(
            "SELECT (SELECT quota_bytes FROM uploader WHERE name = ?1), (SELECT coalesce(sum(part.offset), 0)"
            " FROM clip JOIN part ON part.clip_id = clip.id WHERE clip.owner = ?1 AND clip.deleted_at IS NULL)",
            name,
        )
        quota_bytes, held_bytes = rows[0]
        return Uploader(name, quota_bytes, held_bytes)


def _detail(what: str, key: ApiKey) -> dict[str, str]:
    return {"what": what, "name": key.name, "key": key.id}
