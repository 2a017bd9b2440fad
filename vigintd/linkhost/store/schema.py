"""The database's tables, and their way from version to version.

Owns what the tables refuse by themselves: a line of the record is only ever added, after the last one.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import aiosqlite

from vigintd.errors import PermanentError
from vigintd.linkhost.store.chain import START, following
from vigintd.linkhost.store.rows import AUDIT_COLUMNS, AuditKind, AuditRow, audit_row_of, flat_json, stamp

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

# A replacing INSERT deletes without asking the trigger on DELETE, so the one on INSERT refuses it.
_CHAINED = """
ALTER TABLE audit RENAME TO audit_unchained;
DROP INDEX audit_by_clip;
CREATE TABLE audit (
    seq         INTEGER PRIMARY KEY,
    at          TEXT NOT NULL,
    kind        TEXT NOT NULL,
    clip_id     TEXT NOT NULL,           -- empty for what concerns no clip
    recipient   TEXT NOT NULL,
    address     TEXT NOT NULL,           -- truncated
    client      TEXT NOT NULL,
    detail      TEXT NOT NULL,           -- JSON object
    hash        BLOB NOT NULL            -- see chain.py
) STRICT;
CREATE INDEX audit_by_clip ON audit (clip_id, seq);
CREATE TRIGGER audit_never_changes BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'the record is only added to'); END;
CREATE TRIGGER audit_never_shrinks BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'the record is only added to'); END;
CREATE TRIGGER audit_goes_on BEFORE INSERT ON audit
    WHEN NEW.seq != (SELECT coalesce(max(seq), 0) + 1 FROM audit)
    BEGIN SELECT RAISE(ABORT, 'the record is only added to'); END;

ALTER TABLE clip ADD COLUMN held TEXT NOT NULL DEFAULT '';      -- why it is kept beyond its time, or empty
CREATE INDEX clip_by_time ON clip (created_at DESC);
CREATE INDEX clip_by_owner ON clip (owner) WHERE deleted_at IS NULL;
ALTER TABLE recipient ADD COLUMN revoked_at TEXT;
ALTER TABLE part ADD COLUMN init BLOB;    -- ftyp and moov of a sealed part: with them, a plain copy of it is known again
CREATE INDEX part_by_hash ON part (sha256) WHERE sha256 IS NOT NULL;
CREATE INDEX part_by_length ON part (length - length(init)) WHERE init IS NOT NULL;

DROP TABLE api_key;                      -- there were only configured keys, and each start gives these anew
CREATE TABLE uploader (
    name        TEXT PRIMARY KEY,        -- what its API keys are called
    quota_bytes INTEGER                  -- of what it holds here; NULL for as much as there is room
) STRICT;
CREATE TABLE api_key (
    sha256      BLOB PRIMARY KEY,
    name        TEXT NOT NULL,
    added_at    TEXT NOT NULL
) STRICT;
"""

# Before, a clip went when the wall clock said so.
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

STEPS = (_FIRST, _LIVED, _CHAINED)
"""From each version of the schema to the next one; a new database takes them all."""

_CHAINED_VERSION = STEPS.index(_CHAINED) + 1
SCHEMA_VERSION = len(STEPS)
"""`PRAGMA user_version` of what this code reads and writes."""

INSERT_AUDIT = f"INSERT INTO audit ({AUDIT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants
_PAGE = 1000


async def prepare(connection: aiosqlite.Connection, path: Path, now: datetime) -> None:
    """Bring a new or older database to this version, in one transaction. Raises `PermanentError` for a newer one."""
    await connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;")
    ((version,),) = await connection.execute_fetchall("PRAGMA user_version")
    if version > SCHEMA_VERSION:
        raise PermanentError(f"{path} was written by a newer vigintd (schema {version}); install that version again")
    if version == SCHEMA_VERSION:
        return
    try:
        await connection.executescript(f"BEGIN IMMEDIATE;{''.join(STEPS[version:])}")
        if version < _CHAINED_VERSION:
            await _chain_up(connection, now)
        await connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        await connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            await connection.execute("ROLLBACK")
        raise


async def _chain_up(connection: aiosqlite.Connection, now: datetime) -> None:
    """Bring the lines of a version without hashes into the chain, in their order, and say in it that they came so."""
    head, last_id = START, 0
    while page := list(
        await connection.execute_fetchall(
            "SELECT id, at, kind, clip_id, recipient, address, client, detail, x'' FROM audit_unchained"
            " WHERE id > ? ORDER BY id LIMIT ?",
            (last_id, _PAGE),
        )
    ):
        last_id = page[-1][0]
        lines = []
        for row in map(audit_row_of, page):
            head = following(head, row)
            lines.append(audit_columns(row, head.seq, head.sha256))
        await connection.executemany(INSERT_AUDIT, lines)
    if head.seq:
        row = AuditRow(now, AuditKind.CHAINED, "", detail={"rows": head.seq})
        head = following(head, row)
        await connection.execute(INSERT_AUDIT, audit_columns(row, head.seq, head.sha256))
    await connection.execute("DROP TABLE audit_unchained")


def audit_columns(row: AuditRow, seq: int, sha256: str) -> tuple[object, ...]:
    """A line's columns, in the order of `AUDIT_COLUMNS`."""
    detail = flat_json(row.detail)
    texts = (row.kind.value, row.clip_id, row.recipient, row.address, row.client, detail)
    return (seq, stamp(row.at), *texts, bytes.fromhex(sha256))
