"""The journal: the SQLite table of incidents, and of every effect owed to the outside.

Owns `journal.sqlite3`, its schema and every statement on it; one that fails is a `JournalUnavailable`. Each call
that changes something has committed, synchronously to disk (WAL, synchronous=FULL), when it returns: write before
you promise. An *effect* is a row before it is tried, keyed so that owing it twice is owing it once, and is settled
once it is done. Decides nothing: when to try again is the courier's, what to do about it the story's.

One connection, used from the event loop; aiosqlite runs its statements in one thread of its own, in order.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Self

import aiosqlite

from vigintd.clock import Clock
from vigintd.errors import JournalUnavailable, PermanentError
from vigintd.failpoints import failpoint
from vigintd.model import Box, Detection, Incident, IncidentState, NoVideo, Original, Risk, SealedPart

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
    no_video    TEXT,                    -- why no link will ever play
    problem     TEXT NOT NULL
) STRICT;
CREATE INDEX incident_by_time ON incident (at DESC);
CREATE TABLE effect (
    key         TEXT PRIMARY KEY,        -- incident_id/kind/what: the idempotency key
    incident_id TEXT NOT NULL REFERENCES incident (id),
    kind        TEXT NOT NULL,           -- alert, follow_up or upload
    what        TEXT NOT NULL,           -- recipient or part: with the incident, enough to do it in another process
    state       TEXT NOT NULL,           -- owed, done, dead
    attempts    INTEGER NOT NULL,
    owed_at     TEXT NOT NULL,
    next_try_at TEXT NOT NULL,
    settled_at  TEXT,
    last_error  TEXT NOT NULL
) STRICT;
CREATE INDEX effect_owed ON effect (kind, next_try_at) WHERE state = 'owed';
CREATE INDEX effect_by_incident ON effect (incident_id);
"""

_STEPS = (
    _SCHEMA,
    "ALTER TABLE incident ADD COLUMN originals TEXT NOT NULL DEFAULT '[]';",  # JSON
)
"""From each version of the schema to the next one; a new journal takes them all."""

SCHEMA_VERSION = len(_STEPS)
"""`PRAGMA user_version` of what this code reads and writes."""

_OWE = (
    "INSERT INTO effect (key, incident_id, kind, what, state, attempts, owed_at, next_try_at, last_error)"
    " VALUES (:key, :incident_id, :kind, :what, 'owed', 0, :now, :due_at, '') ON CONFLICT (key) DO NOTHING"
)

_OPEN = (
    "INSERT INTO incident"
    " (id, camera, state, at, detection, detections, ended_at, pre_roll_s, parts, originals, no_video, problem)"
    " VALUES"
    " (:id, :camera, :state, :at, :detection, :detections, :ended_at, :pre_roll_s, :parts, :originals, :no_video, :problem)"
)

_RECORD = (
    "UPDATE incident SET state = :state, detection = :detection, detections = :detections, ended_at = :ended_at,"
    " pre_roll_s = :pre_roll_s, parts = :parts, originals = :originals, no_video = :no_video, problem = :problem"
    " WHERE id = :id"
)

_FOLLOW_UPS_DUE = (
    "UPDATE effect SET next_try_at = min(next_try_at, :now) WHERE state = 'owed' AND kind = 'follow_up' AND attempts = 0"
    " AND incident_id = (SELECT id FROM incident WHERE id = :incident_id AND playable_at IS NOT NULL)"
)

_Parameters = Mapping[str, object] | tuple[object, ...]


class EffectKind(StrEnum):
    """What is owed."""

    ALERT = "alert"
    """The first mail of an incident to one recipient; due at the latest `alert.text_after_s` after the detection."""
    FOLLOW_UP = "follow_up"
    """The link, to one recipient who was told without it; due when it plays."""
    UPLOAD = "upload"
    """One part of the clip, on the host."""


class EffectState(StrEnum):
    """Where an effect stands."""

    OWED = "owed"
    DONE = "done"
    DEAD = "dead"
    """Given up; `last_error` says why."""


@dataclass(frozen=True, slots=True)
class Owed:
    """An effect as it is owed; incident, kind and what are its idempotency key."""

    kind: EffectKind
    what: str
    """A recipient's address, or a part's index."""
    due_at: datetime | None = None
    """Not tried before; None for at once."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing owed to the outside, and how it stands."""

    key: str
    incident_id: str
    kind: EffectKind
    what: str
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
        self._turn = asyncio.Lock()
        self._jobs: set[asyncio.Task[None]] = set()

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
            journal = cls(database, clock)
            try:
                yield journal
            finally:
                # Commits whose callers did not wait.
                await asyncio.gather(*journal._jobs, return_exceptions=True)
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
            if version > SCHEMA_VERSION:
                raise PermanentError(f"{path}: the journal is of version {version}; this vigintd knows {SCHEMA_VERSION}")
            if version < SCHEMA_VERSION:
                # One transaction, so that a death in between leaves the old version and nothing else.
                steps = "".join(_STEPS[version:])
                await database.executescript(f"BEGIN; {steps} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        except sqlite3.Error as error:
            raise PermanentError(f"{path}: the journal cannot be used: {error}") from error

    async def open_incident(self, incident: Incident, owed: Sequence[Owed]) -> None:
        """Make the row that stands before anything else happens, and in the same commit what is owed from now on."""
        failpoint("journal.open_incident.before")
        columns = {"camera": incident.camera, "at": _stamp(incident.detection.at)} | _incident_columns(incident)
        await self._commit((_OPEN, columns), *((_OWE, self._owed_columns(incident.id, effect)) for effect in owed))
        failpoint("journal.open_incident.after")

    async def record_incident(self, incident: Incident) -> None:
        """Write what the incident has become."""
        await self._commit((_RECORD, _incident_columns(incident)))

    async def record_playable(self, incident_id: str) -> None:
        """The host holds a first fragment that plays, as of now; in the same commit, follow-ups are due."""
        now = _stamp(self._clock.now())
        await self._commit(
            ("UPDATE incident SET playable_at = coalesce(playable_at, ?) WHERE id = ?", (now, incident_id)),
            (_FOLLOW_UPS_DUE, {"incident_id": incident_id, "now": now}),
        )

    async def owe(self, incident_id: str, owed: Owed) -> Effect:
        """Owe an effect from now on; one that is owed, done or dead already stays as it is. Answers the row."""
        failpoint("journal.owe.before")
        columns = self._owed_columns(incident_id, owed)
        await self._commit((_OWE, columns))
        failpoint("journal.owe.after")
        return (await self._effects("WHERE key = ?", (columns["key"],)))[0]

    async def hasten(self, kind: EffectKind, incident_id: str | None = None) -> Sequence[Effect]:
        """Make due now what was never tried, of one incident or (None) of all; answers what is due of them."""
        now = _stamp(self._clock.now())
        untried = "state = 'owed' AND attempts = 0 AND kind = :kind AND incident_id = coalesce(:incident_id, incident_id)"
        parameters = {"kind": kind, "incident_id": incident_id, "now": now}
        sql = f"UPDATE effect SET next_try_at = min(next_try_at, :now) WHERE {untried}"  # noqa: S608 - a clause of this function
        await self._commit((sql, parameters))
        return await self._effects(f"WHERE {untried}", {"kind": kind, "incident_id": incident_id})

    async def settle(self, key: str, then: Owed | None = None) -> None:
        """The effect is done: the other side has accepted it. In the same commit, owe what follows from it.

        A follow-up whose link plays by now is due at once.
        """
        failpoint("journal.settle.before")
        following: list[tuple[str, _Parameters]] = []
        if then is not None:
            columns = self._owed_columns(key.split("/", 1)[0], then)
            following = [(_OWE, columns), (_FOLLOW_UPS_DUE, {"incident_id": columns["incident_id"], "now": columns["now"]})]
        await self._commit(self._attempt_ended(key, EffectState.DONE, "", None), *following)
        failpoint("journal.settle.after")

    async def postpone(self, key: str, error: str, next_try_at: datetime) -> None:
        """An attempt failed; the effect stays owed and is due again at `next_try_at`."""
        await self._commit(self._attempt_ended(key, EffectState.OWED, error, next_try_at))

    async def bury(self, key: str, error: str) -> None:
        """An attempt failed for good."""
        await self._commit(self._attempt_ended(key, EffectState.DEAD, error, None))

    async def due(self, *kinds: EffectKind, now: datetime | None = None, limit: int = 100) -> Sequence[Effect]:
        """Effects of these kinds whose time has come at `now` (None: by the clock), newest owed first."""
        among, parameters = _among(kinds)
        return await self._effects(
            f"WHERE state = 'owed' AND kind IN {among} AND next_try_at <= :now ORDER BY owed_at DESC, key LIMIT :limit",
            parameters | {"now": _stamp(now or self._clock.now()), "limit": limit},
        )

    async def next_try_at(self, *kinds: EffectKind, after: datetime | None = None) -> datetime | None:
        """When the first owed effect of these kinds that is not due at `after` (None: of all) is; None when there is none."""
        among, parameters = _among(kinds)
        parameters["after"] = _stamp(after) if after else ""
        sql = f"SELECT min(next_try_at) FROM effect WHERE state = 'owed' AND kind IN {among} AND next_try_at > :after"  # noqa: S608 - parameters' names
        rows = await self._rows(sql, parameters)
        return _time(rows[0][0])

    async def incidents(self, *, limit: int = 50) -> Sequence[IncidentRow]:
        """The newest incidents, newest first."""
        return await self._incidents("ORDER BY at DESC, id LIMIT ?", (limit,))

    async def incident(self, incident_id: str) -> IncidentRow | None:
        """One incident, or None where there is none of that id."""
        rows = await self._incidents("WHERE id = ?", (incident_id,))
        return rows[0] if rows else None

    async def unfinished(self) -> Sequence[IncidentRow]:
        """Incidents that are not closed, oldest first: what a restart has to take up."""
        return await self._incidents("WHERE state != ? ORDER BY at, id", (IncidentState.CLOSED,))

    async def _incidents(self, where: str, parameters: _Parameters) -> Sequence[IncidentRow]:
        return [
            IncidentRow(
                _incident(row),
                _time(row["playable_at"]),
                tuple(await self._effects("WHERE incident_id = ? ORDER BY owed_at, key", (row["id"],))),
            )
            for row in await self._rows(f"SELECT * FROM incident {where}", parameters)  # noqa: S608 - clauses of this file
        ]

    async def _effects(self, where: str, parameters: _Parameters) -> list[Effect]:
        rows = await self._rows(f"SELECT * FROM effect {where}", parameters)  # noqa: S608 - clauses of this file
        return [_effect(row) for row in rows]

    def _owed_columns(self, incident_id: str, owed: Owed) -> dict[str, object]:
        now = self._clock.now()
        return {
            "key": f"{incident_id}/{owed.kind}/{owed.what}",
            "incident_id": incident_id,
            "kind": owed.kind,
            "what": owed.what,
            "now": _stamp(now),
            "due_at": _stamp(owed.due_at or now),
        }

    def _attempt_ended(
        self, key: str, state: EffectState, error: str, next_try_at: datetime | None
    ) -> tuple[str, tuple[object, ...]]:
        settled_at = None if state is EffectState.OWED else _stamp(self._clock.now())
        sql = (
            "UPDATE effect SET state = ?, attempts = attempts + 1, last_error = ?, settled_at = ?,"
            " next_try_at = coalesce(?, next_try_at) WHERE key = ?"
        )
        return sql, (state, _text(error), settled_at, _stamp(next_try_at) if next_try_at else None, key)

    async def _rows(self, sql: str, parameters: _Parameters) -> list[sqlite3.Row]:
        async with self._turn:
            try:
                return list(await self._database.execute_fetchall(sql, parameters))
            except sqlite3.Error as error:
                raise _unavailable(error) from error

    async def _commit(self, *statements: tuple[str, _Parameters]) -> None:
        """Commit all of them, or none. A caller that is cancelled leaves the commit to finish by itself."""
        job = asyncio.create_task(self._committed(statements))
        self._jobs.add(job)  # the loop itself holds tasks weakly
        job.add_done_callback(self._jobs.discard)
        await asyncio.shield(job)

    async def _committed(self, statements: Sequence[tuple[str, _Parameters]]) -> None:
        async with self._turn:
            try:
                await self._database.execute("BEGIN IMMEDIATE")
                try:
                    for sql, parameters in statements:
                        await self._database.execute(sql, parameters)
                    await self._database.execute("COMMIT")
                except sqlite3.Error:
                    await self._database.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise _unavailable(error) from error


def _unavailable(error: sqlite3.Error) -> JournalUnavailable:
    return JournalUnavailable(f"the journal cannot be used now: {error}")


def _among(kinds: Sequence[EffectKind]) -> tuple[str, dict[str, object]]:
    """The parameters of an IN clause, and their values."""
    names = {f"kind_{number}": kind for number, kind in enumerate(kinds)}
    return "(" + ", ".join(f":{name}" for name in names) + ")", dict(names)


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
        "originals": json.dumps([asdict(original) for original in incident.originals]),
        "no_video": incident.no_video,
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
        originals=tuple(Original(**original) for original in json.loads(row["originals"])),
        no_video=NoVideo(row["no_video"]) if row["no_video"] else None,
        problem=row["problem"],
    )


def _effect(row: sqlite3.Row) -> Effect:
    owed_at, next_try_at = _time(row["owed_at"]), _time(row["next_try_at"])
    assert owed_at
    assert next_try_at
    return Effect(
        key=row["key"],
        incident_id=row["incident_id"],
        kind=EffectKind(row["kind"]),
        what=row["what"],
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
