"""The open journal: every statement that reads or changes it.

Owns the one connection, the order of commits, and what a failing statement means (`JournalUnavailable`).
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Self

import aiosqlite
import structlog

from vigintd.clock import Clock
from vigintd.errors import JournalUnavailable
from vigintd.failpoints import failpoint
from vigintd.journal.opening import UNREADABLE, is_damage, open_file, put_away, read_mark, suspect
from vigintd.journal.rows import (
    Effect,
    EffectKind,
    EffectState,
    IncidentRow,
    Owed,
    effect_columns,
    effect_of,
    incident_columns,
    incident_of,
    mark_columns,
    moved,
    plain_text,
    stamp,
    time_of,
)
from vigintd.journal.schema import (
    ADOPT,
    ADOPT_EFFECT,
    ADVANCED,
    AGAIN,
    CLOSE,
    DONE_ALREADY,
    FOLLOW_UPS_DUE,
    MARK,
    NOTED,
    OPEN,
    OWE,
    OWING,
    PROMISED,
    RECORD,
    REVIVE,
)
from vigintd.lived import Lived
from vigintd.model import Incident, IncidentState, NoVideo

_log = structlog.get_logger()

_Parameters = Mapping[str, object] | tuple[object, ...]


class Journal:
    """The open journal; see `open`."""

    def __init__(self, database: aiosqlite.Connection, path: Path, clock: Clock, lived: Lived, *, is_new: bool) -> None:
        self.is_new = is_new
        """It was made when it was opened: there was none, or what was there was damaged."""
        self.on_change: Callable[[str], None] = lambda _incident_id: None
        """Called with the incident's id after every commit that changed one, or what is owed of it."""
        self.damaged = asyncio.Event()
        """Set when the file turned out to be damaged while it was open; opening it anew is what mends that."""
        self.lived = lived
        """The time that the journal goes by; see `now`."""
        self._database = database
        self._path = path
        self._clock = clock
        self._turn = asyncio.Lock()
        self._jobs: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, clock: Clock, *, boot: str | None = None) -> AsyncIterator[Self]:
        """Open the journal at `path`, made when it is not there, and close it at the end.

        One that is damaged is set aside, and a new one made: see `is_new` and `set_aside`. Raises `PermanentError` when
        the file cannot be opened or written, or is of a newer vigintd. `boot` is the machine's run (None: asked of the kernel).
        """
        database, is_new = await open_file(path, clock)
        try:
            journal = cls(database, path, clock, Lived(clock, await read_mark(database), boot=boot), is_new=is_new)
            await journal.keep_time()
            try:
                yield journal
            finally:
                # Commits whose callers did not wait.
                await asyncio.gather(*journal._jobs, return_exceptions=True)
                await journal.keep_time()
        finally:
            await database.close()

    def now(self) -> datetime:
        """What is due, and how old it is, goes by this time, which nobody can set: lived time (see `lived`)."""
        return self.lived.now()

    async def keep_time(self) -> None:
        """Write down how far lived time has come; what is not is lost with the power. Where it fails, that is said."""
        async with self._turn:
            try:
                await self._database.execute(MARK, mark_columns(self.lived.mark()))
            except sqlite3.Error as error:
                _log.warning("journal.time_unkept", error=str(self._unavailable(error)))

    def set_aside(self) -> Sequence[Path]:
        """Damaged journals that lie beside this one, newest first; who has looked into one may delete it."""
        return put_away(self._path)

    async def open_incident(self, incident: Incident, owed: Sequence[Owed]) -> None:
        """Make the row that stands before anything else happens, and in the same commit what is owed from now on."""
        columns = _opening_columns(IncidentRow(incident, None, 0, (), self._ended_lived(incident)))
        owing = [(OWE, self._owed_columns(incident.id, effect)) for effect in owed]
        await self._commit("open_incident", (OPEN, columns), *owing, about=incident.id)

    async def record_incident(self, incident: Incident) -> None:
        """Write what the incident has become. Its state only ever moves on, and the first problem stays."""
        ended_lived = self._ended_lived(incident)
        columns = incident_columns(incident) | {"ended_lived": stamp(ended_lived) if ended_lived else None}
        await self._commit("record_incident", (RECORD, columns), about=incident.id, closing=True)

    async def adopt(self, rows: Sequence[IncidentRow]) -> None:
        """Take incidents of which there is no row as they are said to be, with all that is owed of them, in one commit.

        Everything keeps its age and its wait, by this journal's time.
        """
        rows = [self._moved(row) for row in rows]
        incidents = [(ADOPT, _opening_columns(row)) for row in rows]
        effects = [(ADOPT_EFFECT, effect_columns(effect)) for row in rows for effect in row.effects]
        await self._commit("adopt", *incidents, *effects, about=[row.incident.id for row in rows])

    async def catch_up(self, row: IncidentRow) -> None:
        """The incident was once further on than its row says: what was recorded and done by then counts."""
        row, incident_id = self._moved(row), row.incident.id
        is_published = any(each.kind is EffectKind.PUBLISH and each.state is EffectState.DONE for each in row.effects)
        reached = row.incident
        if reached.state is IncidentState.CLOSED:  # which it is again when nothing is owed
            reached = replace(reached, state=IncidentState.PUBLISHED if is_published else IncidentState.SEALED)
        effects = [(ADOPT_EFFECT, effect_columns(effect)) for effect in row.effects]
        done = [(DONE_ALREADY, effect_columns(effect)) for effect in row.effects if effect.state is EffectState.DONE]
        record = (RECORD, _opening_columns(replace(row, incident=reached)))
        await self._commit("adopt", record, *effects, *done, about=incident_id, closing=True)

    def _moved(self, row: IncidentRow) -> IncidentRow:
        row = moved(row, self.now() - row.as_of) if row.as_of else row
        return replace(row, ended_lived=row.ended_lived or self._ended_lived(row.incident))

    async def take_over(self, incident_id: str) -> int:
        """A starting daemon takes up an unfinished incident; answers how often that has happened, this time included."""
        sql = "UPDATE incident SET takeovers = takeovers + 1 WHERE id = ?"
        await self._commit("take_over", (sql, (incident_id,)), about=incident_id)
        row = await self.incident(incident_id)
        return row.takeovers if row else 0

    async def record_playable(self, incident_id: str) -> None:
        """The host holds a first fragment that plays, as of now; in the same commit, follow-ups are due."""
        playable_at = stamp(self._clock.now())
        await self._commit(
            "record_playable",
            ("UPDATE incident SET playable_at = coalesce(playable_at, ?) WHERE id = ?", (playable_at, incident_id)),
            (FOLLOW_UPS_DUE, {"incident_id": incident_id, "now": stamp(self.now())}),
            about=incident_id,
        )

    async def hasten(self, kind: EffectKind, incident_id: str | None = None) -> Sequence[Effect]:
        """Make due now what was never tried, of one incident or (None) of all; answers what is due of them."""
        now = stamp(self.now())
        untried = "state = 'owed' AND attempts = 0 AND kind = :kind AND incident_id = coalesce(:incident_id, incident_id)"
        parameters = {"kind": kind, "incident_id": incident_id, "now": now}
        sql = f"UPDATE effect SET next_try_at = min(next_try_at, :now) WHERE {untried}"  # noqa: S608 - a clause of this function
        await self._commit("hasten", (sql, parameters), about=())
        return await self._effects(f"WHERE {untried}", {"kind": kind, "incident_id": incident_id})

    async def settle(self, key: str, then: Owed | None = None) -> None:
        """The effect is done: the other side has accepted it. In the same commit, owe what follows from it.

        A follow-up whose link plays by now is due at once. A clip that is published makes its incident so.
        """
        incident_id = key.split("/", 1)[0]
        following: list[tuple[str, _Parameters]] = []
        if key.split("/")[1] == EffectKind.PUBLISH:
            sql = f"UPDATE incident SET {ADVANCED} WHERE id = :id"  # noqa: S608 - constants
            following = [(sql, {"id": incident_id, "state": IncidentState.PUBLISHED})]
        if then is not None:
            columns = self._owed_columns(incident_id, then)
            following += [(OWE, columns), (FOLLOW_UPS_DUE, {"incident_id": incident_id, "now": columns["now"]})]
        done = self._attempt_ended(key, EffectState.DONE, "", None)
        await self._commit("settle", done, *following, about=incident_id, closing=True)

    async def postpone(self, key: str, error: str, next_try_at: datetime) -> None:
        """An attempt failed; the effect stays owed and is due again at `next_try_at`, by `now`."""
        ended = self._attempt_ended(key, EffectState.OWED, error, next_try_at)
        await self._commit("postpone", ended, about=key.split("/", 1)[0])

    async def promised(self, *, limit: int = 10_000) -> Sequence[Effect]:
        """Follow-ups that wait for a link which does not play yet, newest owed first; each ends when it comes due."""
        now = {"now": stamp(self.now()), "limit": limit}
        rows = await self._rows(f"SELECT effect.* FROM effect {PROMISED} ORDER BY effect.owed_at DESC, key LIMIT :limit", now)  # noqa: S608 - a constant
        return [effect_of(row) for row in rows]

    async def note_reminded(self, promises: Sequence[Effect]) -> None:
        """Those who wait for these were told just now that they are still owed."""
        sql, now = "UPDATE effect SET reminded_at = ? WHERE key = ?", stamp(self.now())
        about = {promise.incident_id for promise in promises}
        await self._commit("settle", *((sql, (now, promise.key)) for promise in promises), about=about)

    async def bury(self, key: str, error: str, *, no_video: NoVideo | None = None) -> None:
        """An attempt failed for good. In the same commit, an incident whose clip it was says so.

        `no_video` is then why no link will ever play (None where one does). What an incident said before stays.
        """
        incident_id = key.split("/", 1)[0]
        noting: list[tuple[str, _Parameters]] = []
        if key.split("/")[1] == EffectKind.PUBLISH:
            sql = f"UPDATE incident SET {NOTED} WHERE id = :id"  # noqa: S608 - constants
            noting = [(sql, {"id": incident_id, "no_video": no_video, "problem": plain_text(error)})]
        ended = self._attempt_ended(key, EffectState.DEAD, error, None)
        await self._commit("bury", *noting, ended, about=incident_id, closing=True)

    async def revive(self, incident_id: str | None, *, links_until: datetime) -> Sequence[Effect]:
        """Try again now what failed, of one incident or (None) of all; answers it as it stood.

        What was given up is owed anew from now on, as if never tried, and its incident is open again. A follow-up waits
        for its link until `links_until`. What had only been put off is due now.
        """
        parameters = {"incident_id": incident_id, "now": stamp(self.now()), "links_until": stamp(links_until)}
        failed = await self._effects(f"WHERE {AGAIN} ORDER BY owed_at DESC, key", {"incident_id": incident_id})
        if failed:
            statements = [(sql, parameters) for sql in REVIVE]
            await self._commit("revive", *statements, about={effect.incident_id for effect in failed})
        return failed

    async def due(
        self, *kinds: EffectKind, now: datetime | None = None, oldest_first: bool = False, limit: int = 100
    ) -> Sequence[Effect]:
        """Effects of these kinds whose time has come at `now` (None: now), newest owed first or oldest first."""
        among, parameters = _among(kinds)
        order = "ASC" if oldest_first else "DESC"
        return await self._effects(
            f"WHERE state = 'owed' AND kind IN {among} AND next_try_at <= :now ORDER BY owed_at {order}, key LIMIT :limit",
            parameters | {"now": stamp(now or self.now()), "limit": limit},
        )

    async def next_try_at(self, *kinds: EffectKind, after: datetime | None = None) -> datetime | None:
        """When the first owed effect of these kinds that is not due at `after` (None: of all) is; None when there is none."""
        among, parameters = _among(kinds)
        parameters["after"] = stamp(after) if after else ""
        sql = f"SELECT min(next_try_at) FROM effect WHERE state = 'owed' AND kind IN {among} AND next_try_at > :after"  # noqa: S608 - parameters' names
        rows = await self._rows(sql, parameters)
        return time_of(rows[0][0])

    async def incidents(self, *, limit: int = 50, owing: bool = False) -> Sequence[IncidentRow]:
        """The newest incidents, newest first; with `owing`, of those of which something is owed or was given up."""
        where = f"WHERE {OWING} " if owing else ""
        return await self._incidents(f"{where}ORDER BY at DESC, id LIMIT ?", (limit,))

    async def known(self, incident_ids: Collection[str]) -> set[str]:
        """Those of `incident_ids` of which there is a row."""
        sql = "SELECT id FROM incident WHERE id IN (SELECT value FROM json_each(?))"
        return {row["id"] for row in await self._rows(sql, (json.dumps(sorted(incident_ids)),))}

    async def incident(self, incident_id: str) -> IncidentRow | None:
        """One incident, or None where there is none of that id."""
        rows = await self._incidents("WHERE id = ?", (incident_id,))
        return rows[0] if rows else None

    async def unfinished(self) -> Sequence[IncidentRow]:
        """Incidents that are not closed, oldest first: what a restart has to take up."""
        return await self._incidents("WHERE state != ? ORDER BY at, id", (IncidentState.CLOSED,))

    async def _incidents(self, where: str, parameters: _Parameters) -> Sequence[IncidentRow]:
        found = []
        for row in await self._rows(f"SELECT * FROM incident {where}", parameters):  # noqa: S608 - clauses of this file
            try:
                effects = tuple(await self._effects("WHERE incident_id = ? ORDER BY owed_at, key", (row["id"],)))
                playable_at, ended_lived = time_of(row["playable_at"]), time_of(row["ended_lived"])
                found.append(IncidentRow(incident_of(row), playable_at, row["takeovers"], effects, ended_lived, self.now()))
            except UNREADABLE as error:  # a bad sector under one row is that row's alone
                _log.error("journal.unreadable", incident=row["id"], error=str(error))
        return found

    async def _effects(self, where: str, parameters: _Parameters) -> list[Effect]:
        rows = await self._rows(f"SELECT * FROM effect {where}", parameters)  # noqa: S608 - clauses of this file
        return [effect_of(row) for row in rows]

    def _ended_lived(self, incident: Incident) -> datetime | None:
        return self.now() if incident.ended_at or not incident.state.is_under_way else None

    def _owed_columns(self, incident_id: str, owed: Owed) -> dict[str, object]:
        now = self.now()
        return {
            "key": f"{incident_id}/{owed.kind}/{owed.what}",
            "incident_id": incident_id,
            "kind": owed.kind,
            "what": owed.what,
            "now": stamp(now),
            "due_at": stamp(owed.due_at or now),
        }

    def _attempt_ended(
        self, key: str, state: EffectState, error: str, next_try_at: datetime | None
    ) -> tuple[str, tuple[object, ...]]:
        settled_at = None if state is EffectState.OWED else stamp(self._clock.now())
        sql = (
            "UPDATE effect SET state = ?, attempts = attempts + 1, last_error = ?, settled_at = ?,"
            " next_try_at = coalesce(?, next_try_at) WHERE key = ?"
        )
        return sql, (state, plain_text(error), settled_at, stamp(next_try_at) if next_try_at else None, key)

    def _unavailable(self, error: sqlite3.Error) -> JournalUnavailable:
        if is_damage(error) and not self.damaged.is_set():
            _log.error("journal.damaged", reason=str(error))
            suspect(self._path)
            self.damaged.set()
        return JournalUnavailable(f"the journal cannot be used now: {error}")

    async def _rows(self, sql: str, parameters: _Parameters) -> list[sqlite3.Row]:
        async with self._turn:
            try:
                return list(await self._database.execute_fetchall(sql, parameters))
            except sqlite3.Error as error:
                raise self._unavailable(error) from error

    async def _commit(
        self, what: str, *statements: tuple[str, _Parameters], about: str | Iterable[str], closing: bool = False
    ) -> None:
        """Commit all of them, or none; `about` which incidents they are is told to `on_change`.

        With `closing`, an incident closes in the same commit if nothing is owed of it any more. A caller that is cancelled
        leaves the commit to finish by itself. `what` is its name among failpoints.
        """
        changed = [about] if isinstance(about, str) else list(about)
        job = asyncio.create_task(self._committed(what, statements, changed, closing=closing))
        self._jobs.add(job)  # the loop itself holds tasks weakly
        job.add_done_callback(self._jobs.discard)
        await asyncio.shield(job)

    async def _committed(
        self, what: str, statements: Sequence[tuple[str, _Parameters]], about: Sequence[str], *, closing: bool
    ) -> None:
        closed = []
        async with self._turn:
            try:
                await self._database.execute("BEGIN IMMEDIATE")
                try:
                    for sql, parameters in statements:
                        await self._database.execute(sql, parameters)
                    if closing:
                        closed = [id_ for id_ in about if (await self._database.execute(CLOSE, {"id": id_})).rowcount]
                    failpoint(f"journal.{what}.before")
                    await self._database.execute("COMMIT")
                    failpoint(f"journal.{what}.after")
                except Exception:
                    # A full disk and an I/O error have rolled back already (https://sqlite.org/lang_transaction.html, 3).
                    if self._database.in_transaction:
                        await self._database.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise self._unavailable(error) from error
        for incident_id in closed:
            _log.info("incident.closed", incident=incident_id)
        for incident_id in about:
            self.on_change(incident_id)


def _opening_columns(row: IncidentRow) -> dict[str, object]:
    incident = row.incident
    playable_at = stamp(row.playable_at) if row.playable_at else None
    ended_lived = stamp(row.ended_lived) if row.ended_lived else None
    only_here = {"camera": incident.camera, "at": stamp(incident.detection.at), "takeovers": row.takeovers}
    return incident_columns(incident) | only_here | {"playable_at": playable_at, "ended_lived": ended_lived}


def _among(kinds: Sequence[EffectKind]) -> tuple[str, dict[str, object]]:
    """The parameters of an IN clause, and their values."""
    names = {f"kind_{number}": kind for number, kind in enumerate(kinds)}
    return "(" + ", ".join(f":{name}" for name in names) + ")", dict(names)
