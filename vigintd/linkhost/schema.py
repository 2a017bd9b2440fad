"""The tables of the link host's database, and their way from version to version.

Owns the schema and nothing that is asked of it.
"""

from __future__ import annotations

from pathlib import Path

import aiosqlite

from vigintd.errors import PermanentError

SCHEMA_VERSION = 2
"""`PRAGMA user_version` of what this code reads and writes."""

_FIRST = """
CREATE TABLE api_key (
    sha256      BLOB PRIMARY KEY,
    name        TEXT NOT NULL
) STRICT;
CREATE TABLE clip (
    id          TEXT PRIMARY KEY,
    owner       TEXT NOT NULL,           -- name of the API key that created it
    key_id      TEXT NOT NULL,           -- which link key its links are made with
    metadata    TEXT NOT NULL,           -- JSON object
    created_at  TEXT NOT NULL,           -- ISO 8601 in UTC, as every time here
    changed_at  TEXT NOT NULL,
    expires_at  TEXT NOT NULL,
    deleted_at  TEXT
) STRICT;
CREATE INDEX clip_to_expire ON clip (expires_at) WHERE deleted_at IS NULL;
CREATE TABLE recipient (
    clip_id     TEXT NOT NULL REFERENCES clip (id),
    name        TEXT NOT NULL,
    generation  INTEGER NOT NULL,
    PRIMARY KEY (clip_id, name)
) STRICT;
CREATE TABLE part (
    clip_id     TEXT NOT NULL REFERENCES clip (id),
    idx         INTEGER NOT NULL,
    offset      INTEGER NOT NULL,        -- bytes that are on disk and checked
    length      INTEGER,                 -- declared by the uploader, or by the seal
    sha256      TEXT,                    -- of the whole part, once sealed
    codec       TEXT NOT NULL,           -- RFC 6381, or empty as long as it is not known
    mismatched  INTEGER NOT NULL,        -- the last seal did not fit the bytes
    epoch       INTEGER NOT NULL,        -- another one each time that it begins anew, also after a deletion
    changed_at  TEXT NOT NULL,
    PRIMARY KEY (clip_id, idx)
) STRICT;
CREATE TABLE audit (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    clip_id     TEXT NOT NULL,
    at          TEXT NOT NULL,
    kind        TEXT NOT NULL,
    recipient   TEXT NOT NULL,
    address     TEXT NOT NULL,           -- truncated
    client      TEXT NOT NULL,
    detail      TEXT NOT NULL            -- JSON object
) STRICT;
CREATE INDEX audit_by_clip ON audit (clip_id, id);
"""

_LIVED = """
ALTER TABLE clip ADD COLUMN kept_s REAL NOT NULL DEFAULT 0;         -- how long the clip is kept, once there
ALTER TABLE clip ADD COLUMN created_lived TEXT NOT NULL DEFAULT ''; -- `created_at` in lived time
CREATE TABLE mark (
    only_one    INTEGER PRIMARY KEY CHECK (only_one = 1),
    lived       TEXT NOT NULL,
    wall        TEXT NOT NULL,
    boot_id     TEXT NOT NULL,
    monotonic_s REAL NOT NULL
) STRICT;
"""
"""Before, a clip went when the wall clock said so."""

AGED = (
    "UPDATE clip SET created_lived = ?, kept_s = round(86400 * (julianday(expires_at) - julianday(created_at)))"
    " WHERE created_lived = ''"
)
"""Clips of a database that knew no lived time are kept as long again."""

MARK = (
    "INSERT INTO mark (only_one, lived, wall, boot_id, monotonic_s) VALUES (1, ?, ?, ?, ?) ON CONFLICT (only_one)"
    " DO UPDATE SET lived = excluded.lived, wall = excluded.wall, boot_id = excluded.boot_id,"
    " monotonic_s = excluded.monotonic_s"
)


async def prepare(connection: aiosqlite.Connection, path: Path) -> None:
    """Bring the database to this schema. Raises `PermanentError` for one from a newer version."""
    await connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;")
    ((version,),) = await connection.execute_fetchall("PRAGMA user_version")
    if version > SCHEMA_VERSION:
        raise PermanentError(f"{path} was written by a newer vigintd (schema {version}); install that version again")
    if version < SCHEMA_VERSION:
        steps = "".join((_FIRST, _LIVED)[version:])
        await connection.executescript(f"BEGIN; {steps} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
