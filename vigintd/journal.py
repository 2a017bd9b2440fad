"""The journal: the SQLite table of incidents, and of every effect owed to the outside.

Owns `journal.sqlite3`, its schema and every statement on it. Each call that changes something has committed,
synchronously to disk (WAL, synchronous=FULL), when it returns: write before you promise. An *effect* is a row
before it is tried (`owe`), keyed so that owing it twice is owing it once, and is settled once it is done.
Decides nothing: when to try again is the courier's, what to do about it the story's.

One connection, used from the event loop; aiosqlite runs its statements in one thread of its own, in order.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import aiosqlite

from vigintd.clock import Clock
from vigintd.errors import PermanentError
from vigintd.failpoints import failpoint
from vigintd.model import Box, Detection, Incident, IncidentState, Risk, SealedPart

SCHEMA_VERSION = 1
"""`PRAGMA user_version` of what this code reads and writes."""

_SCHEMA = """
CREATE TABLE incident (
    id          TEXT PRIMARY KEY,
    camera      TEXT NOT NULL,
    state       TEXT NOT NULL,
    at          TEXT NOT NULL,           -- wall clock of the detection, ISO 8601 in UTC
    detection   TEXT NOT NULL,           -- JSON
    detections  INTEGER NOT NULL,
    ended_at    TEXT,
    pre_roll_s  REAL,
    parts       TEXT NOT NULL,           -- JSON
    playable_at TEXT,                    -- when the first fragment was accepted by the host
    problem     TEXT NOT NULL
) STRICT;
CREATE INDEX incident_by_time ON incident (at DESC);
CREATE TABLE effect (
    key         TEXT PRIMARY KEY,        -- incident/kind/what: the idempotency key
    incident_id TEXT NOT NULL REFERENCES incident (id),
    kind        TEXT NOT NULL,           -- upload or mail
    payload     TEXT NOT NULL,           -- JSON, enough to do it in another process; never a secret or a link
    state       TEXT NOT NULL,           -- owed, done, dead
    attempts    INTEGER NOT NULL,
    owed_at     TEXT NOT NULL,
    next_try_at TEXT NOT NULL,
    settled_at  TEXT,
    last_error  TEXT NOT NULL
) STRICT;
CREATE INDEX effect_owed ON effect (next_try_at) WHERE state = 'owed';
CREATE INDEX effect_by_incident ON effect (incident_id);
"""


class EffectState(StrEnum):
    """Where an effect stands."""

    OWED = "owed"
    DONE = "done"
    DEAD = "dead"
    """Given up; `last_error` says why."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing owed to the outside."""

    key: str
    incident_id: str
    kind: str
    payload: dict[str, Any]
    state: EffectState
    attempts: int
    owed_at: datetime
    next_try_at: datetime
    settled_at: datetime | None
    last_error: str


@dataclass(frozen=True, slots=True)
class IncidentRow:
    """An incident as the journal holds it, with what only the journal knows."""

    incident: Incident
    playable_at: datetime | None
    effects: tuple[Effect, ...]


class Journal:
    """The open journal; see `open`."""

    def __init__(self, database: aiosqlite.Connection, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, clock: Clock) -> AsyncIterator[Self]:
        """Open the journal at `path`, made when it is not there, and close it at the end.

        Raises `PermanentError` when the file cannot be opened, is no journal, or is of a newer vigintd.
        """
        try:
            database = await aiosqlite.connect(path, isolation_level=None)
        except sqlite3.Error as error:
            raise PermanentError(f"{path}: the journal cannot be opened: {error}") from error
        try:
            await cls._prepare(database, path)
            yield cls(database, clock)
        finally:
            await database.close()

    @staticmethod
    async def _prepare(database: aiosqlite.Connection, path: Path) -> None:
        database.row_factory = sqlite3.Row
        try:
            await database.execute("PRAGMA journal_mode = WAL")
            await database.execute("PRAGMA synchronous = FULL")
            await database.execute("PRAGMA foreign_keys = ON")
            cursor = await database.execute("PRAGMA user_version")
            row = await cursor.fetchone()
            version = row[0] if row else 0
            if version == 0:
                # One transaction, so that a death in between leaves version 0 and nothing else.
                await database.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            elif version != SCHEMA_VERSION:
                raise PermanentError(f"{path}: the journal is of version {version}; this vigintd knows {SCHEMA_VERSION}")
        except sqlite3.Error as error:
            raise PermanentError(f"{path}: the journal cannot be used: {error}") from error

    async def open_incident(self, incident: Incident) -> None:
        """Make the row that stands before anything else happens."""
        failpoint("journal.open_incident.before")
        await self._database.execute(
            "INSERT INTO incident (id, camera, state, at, detection, detections, ended_at, pre_roll_s, parts, problem)"
            " VALUES (:id, :camera, :state, :at, :detection, :detections, :ended_at, :pre_roll_s, :parts, :problem)",
            {"camera": incident.camera, "at": _stamp(incident.detection.at)} | _incident_columns(incident),
        )
        failpoint("journal.open_incident.after")

    async def record_incident(self, incident: Incident) -> None:
        """Write what the incident has become."""
        await self._database.execute(
            "UPDATE incident SET state = :state, detection = :detection, detections = :detections, ended_at = :ended_at,"
            " pre_roll_s = :pre_roll_s, parts = :parts, problem = :problem WHERE id = :id",
            _incident_columns(incident),
        )

    async def record_playable(self, incident_id: str) -> None:
        """The host holds a first fragment that plays, as of now."""
        await self._database.execute(
            "UPDATE incident SET playable_at = coalesce(playable_at, ?) WHERE id = ?", (_stamp(self._clock.now()), incident_id)
        )

    async def owe(self, key: str, incident_id: str, kind: str, payload: dict[str, Any]) -> Effect:
        """Owe an effect from now on; one that is owed, done or dead already stays as it is. Answers the row."""
        failpoint("journal.owe.before")
        now = _stamp(self._clock.now())
        await self._database.execute(
            "INSERT INTO effect (key, incident_id, kind, payload, state, attempts, owed_at, next_try_at, last_error)"
            " VALUES (?, ?, ?, ?, 'owed', 0, ?, ?, '') ON CONFLICT (key) DO NOTHING",
            (key, incident_id, kind, json.dumps(payload), now, now),
        )
        failpoint("journal.owe.after")
        return (await self._effects("WHERE key = ?", (key,)))[0]

    async def settle(self, key: str) -> None:
        """The effect is done: the other side has accepted it."""
        failpoint("journal.settle.before")
        await self._end_attempt(key, EffectState.DONE, "", None)
        failpoint("journal.settle.after")

    async def postpone(self, key: str, error: str, next_try_at: datetime) -> None:
        """An attempt failed; the effect stays owed and is due again at `next_try_at`."""
        await self._end_attempt(key, EffectState.OWED, error, next_try_at)

    async def bury(self, key: str, error: str) -> None:
        """An attempt failed for good."""
        await self._end_attempt(key, EffectState.DEAD, error, None)

    async def _end_attempt(self, key: str, state: EffectState, error: str, next_try_at: datetime | None) -> None:
        settled_at = None if state is EffectState.OWED else _stamp(self._clock.now())
        await self._database.execute(
            "UPDATE effect SET state = ?, attempts = attempts + 1, last_error = ?, settled_at = ?,"
            " next_try_at = coalesce(?, next_try_at) WHERE key = ?",
            (state, _text(error), settled_at, _stamp(next_try_at) if next_try_at else None, key),
        )

    async def due(self, kind: str, *, limit: int = 100) -> Sequence[Effect]:
        """Effects of `kind` whose time has come, newest owed first."""
        return await self._effects(
            "WHERE state = 'owed' AND kind = ? AND next_try_at <= ? ORDER BY owed_at DESC, key LIMIT ?",
            (kind, _stamp(self._clock.now()), limit),
        )

    async def next_try_at(self, kind: str) -> datetime | None:
        """When the first owed effect of `kind` is due, or None when none is owed."""
        cursor = await self._database.execute("SELECT min(next_try_at) FROM effect WHERE state = 'owed' AND kind = ?", (kind,))
        row = await cursor.fetchone()
        return _time(row[0]) if row else None

    async def incidents(self, *, limit: int = 50) -> Sequence[IncidentRow]:
        """The newest incidents, newest first."""
        return await self._incidents("ORDER BY at DESC, id LIMIT ?", (limit,))

    async def incident(self, incident_id: str) -> IncidentRow | None:
        """One incident, or None where there is none of that id."""
        rows = await self._incidents("WHERE id = ?", (incident_id,))
        return rows[0] if rows else None

    async def unfinished(self) -> Sequence[IncidentRow]:
        """Incidents that are not closed, oldest first."""
        return await self._incidents("WHERE state != ? ORDER BY at, id", (IncidentState.CLOSED,))

    async def _incidents(self, where: str, parameters: tuple[object, ...]) -> Sequence[IncidentRow]:
        cursor = await self._database.execute(f"SELECT * FROM incident {where}", parameters)  # noqa: S608 - clauses of this file
        rows = list(await cursor.fetchall())
        return [
            IncidentRow(
                _incident(row),
                _time(row["playable_at"]),
                tuple(await self._effects("WHERE incident_id = ? ORDER BY owed_at, key", (row["id"],))),
            )
            for row in rows
        ]

    async def _effects(self, where: str, parameters: tuple[object, ...]) -> list[Effect]:
        cursor = await self._database.execute(f"SELECT * FROM effect {where}", parameters)  # noqa: S608 - clauses of this file
        return [_effect(row) for row in await cursor.fetchall()]


def _incident_columns(incident: Incident) -> dict[str, object]:
    detection = asdict(incident.detection) | {"at": _stamp(incident.detection.at)}
    return {
        "id": incident.id,
        "state": incident.state,
        "detection": json.dumps(detection),
        "detections": incident.detections,
        "ended_at": _stamp(incident.ended_at) if incident.ended_at else None,
        "pre_roll_s": incident.pre_roll_s,
        "parts": json.dumps([asdict(part) for part in incident.parts]),
        "problem": _text(incident.problem),
    }


def _incident(row: sqlite3.Row) -> Incident:
    fields = json.loads(row["detection"])
    fields["at"] = datetime.fromisoformat(fields["at"])
    fields["risk"] = Risk(fields["risk"])
    fields["boxes"] = tuple(Box(**box) for box in fields["boxes"])
    return Incident(
        id=row["id"],
        detection=Detection(**fields),
        state=IncidentState(row["state"]),
        detections=row["detections"],
        ended_at=_time(row["ended_at"]),
        pre_roll_s=row["pre_roll_s"],
        parts=tuple(SealedPart(**part) for part in json.loads(row["parts"])),
        problem=row["problem"],
    )


def _effect(row: sqlite3.Row) -> Effect:
    owed_at, next_try_at = _time(row["owed_at"]), _time(row["next_try_at"])
    assert owed_at
    assert next_try_at
    return Effect(
        key=row["key"],
        incident_id=row["incident_id"],
        kind=row["kind"],
        payload=json.loads(row["payload"]),
        state=EffectState(row["state"]),
        attempts=row["attempts"],
        owed_at=owed_at,
        next_try_at=next_try_at,
        settled_at=_time(row["settled_at"]),
        last_error=row["last_error"],
    )


def _text(text: str) -> str:
    """SQLite takes no lone surrogates, and a file's name in an error may hold some."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _stamp(moment: datetime) -> str:
    """One fixed width, so that text order is time order."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _time(stamp: str | None) -> datetime | None:
    return datetime.fromisoformat(stamp) if stamp else None
