"""What lies in the spool and belongs to no row, or knows more than its row: taken into the journal again, or removed.

Owns that decision; made at the start, before any camera runs, when nothing in the spool is new. An incident with a
sidecar is what its sidecar says. A clip without one is sealed, published and told to everybody: better twice than never.
What holds no video and of which nothing is known goes. In this way also a journal that was lost is filled again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from vigintd.alert.words import words
from vigintd.clock import Clock
from vigintd.errors import VigintdError
from vigintd.incident import memory
from vigintd.incident.audience import Audience
from vigintd.journal import Effect, EffectKind, EffectState, IncidentRow, Journal
from vigintd.model import Detection, Incident, IncidentState, SealedPart
from vigintd.spool import Spool

log = structlog.get_logger(__name__)

AT_ONCE = 100
"""Incidents taken into the journal in one commit."""
CUT = "vigintd was stopped while it recorded"

_PART = re.compile(r"\.\d+\.mp4")
_WORTHLESS = re.compile(r"\.jpg|\.json|\.\d+\.json|\.incident\.json|\.\d+\.mp4")
"""Without a clip that can be sealed, nobody misses these; anything else stays for whoever knows what it is."""


class Orphans:
    """Brings spool and journal together again."""

    def __init__(self, *, journal: Journal, spool: Spool, audience: Audience, clock: Clock) -> None:
        self._journal = journal
        self._spool = spool
        self._audience = audience
        self._clock = clock

    async def run_once(self) -> None:
        """Adopt or remove every orphan. One that cannot be read holds up no other, and is looked at again the next time."""
        found = await self._spool.survey()
        orphans = sorted(found.keys() - await self._journal.known(found.keys()))
        counts: Counter[str] = Counter()
        for start in range(0, len(orphans), AT_ONCE):
            rows = []
            for incident_id in orphans[start : start + AT_ONCE]:
                try:
                    row = await self._row(incident_id, found[incident_id], counts)
                except (VigintdError, OSError) as error:
                    log.error("spool.orphan", incident=incident_id, error=str(error))
                    counts["left"] += 1
                    continue
                except Exception:  # a defect met in one may not keep the daemon from starting
                    log.exception("spool.orphan", incident=incident_id)
                    counts["left"] += 1
                    continue
                if row is not None:
                    rows.append(self._marked(row))
                    counts["owed"] += sum(effect.state is EffectState.OWED for effect in row.effects)
            await self._journal.adopt(rows)
            counts["adopted"] += len(rows)
        self._say(counts)
        await self._catch_up(found)

    async def _catch_up(self, found: Mapping[str, Mapping[str, datetime]]) -> None:
        """A sidecar follows its row; where it is ahead, a disk has lost what it said it had written."""
        for row in await self._journal.unfinished():
            incident_id = row.incident.id
            if memory.SUFFIX not in found.get(incident_id, ()):
                continue
            try:
                known = memory.read(incident_id, await self._spool.read_kept(incident_id, memory.SUFFIX) or b"")
            except (ValueError, OSError):
                continue  # the row is there, and its sidecar will be written anew
            if is_ahead(known, row):
                log.error("incident.caught_up", incident=incident_id, state=known.incident.state.value)
                await self._journal.catch_up(known)

    def _say(self, counts: Mapping[str, int]) -> None:
        said = {name: counts.get(name, 0) for name in ("adopted", "guessed", "owed", "removed", "left")}
        damaged = [str(path) for path in self._journal.set_aside()]
        if self._journal.is_new and (damaged or counts.get("adopted")):
            log.error("journal.rebuilt", **said, damaged=damaged)
        elif any(said.values()):
            log.warning("spool.orphans", **said)

    async def _row(self, incident_id: str, files: Mapping[str, datetime], counts: Counter[str]) -> IncidentRow | None:
        sidecar = await self._spool.read_kept(incident_id, memory.SUFFIX) if memory.SUFFIX in files else None
        if sidecar is not None:
            try:
                return memory.read(incident_id, sidecar)
            except ValueError as error:
                log.error("sidecar.unreadable", incident=incident_id, error=str(error))
        parts = await self._spool.salvage(incident_id, CUT) if any(map(_PART.fullmatch, files)) else ()
        if parts:
            counts["guessed"] += 1
            written_at = files.get(f".{parts[0].index}.mp4", self._clock.now())
            return self._guessed(incident_id, parts, written_at - timedelta(seconds=parts[0].duration_s))
        if all(map(_WORTHLESS.fullmatch, files)):
            await self._spool.remove(incident_id)
            log.info("spool.removed", incident=incident_id, files=sorted(files))
            counts["removed"] += 1
        else:
            log.error("spool.orphan", incident=incident_id, error=f"nothing is known of {', '.join(sorted(files))}")
            counts["left"] += 1
        return None

    def _guessed(self, incident_id: str, parts: tuple[SealedPart, ...], at: datetime) -> IncidentRow:
        """The row of a clip of which nothing else is known: everybody is to be told, and it is to be published."""
        log.warning("incident.guessed", incident=incident_id, parts=len(parts))
        unknown = words(self._audience.language).unknown_camera
        detection = Detection(camera=unknown, arrived_s=0.0, at=at, type="", detector="recovery")
        ended_at = at + timedelta(seconds=sum(part.duration_s for part in parts))
        incident = Incident(incident_id, detection, state=IncidentState.SEALED, parts=parts, ended_at=ended_at)
        kinds = [(EffectKind.ALERT, recipient) for recipient in self._audience.recipients] + [(EffectKind.PUBLISH, "")]
        return IncidentRow(incident, None, 0, tuple(self._owed(incident_id, kind, what) for kind, what in kinds))

    def _owed(self, incident_id: str, kind: EffectKind, what: str) -> Effect:
        now = self._journal.now()
        wait_s = self._audience.text_after_s if kind is EffectKind.ALERT else 0
        return Effect(
            key=f"{incident_id}/{kind}/{what}",
            incident_id=incident_id,
            kind=kind,
            what=what,
            state=EffectState.OWED,
            attempts=0,
            owed_at=now,
            next_try_at=now + timedelta(seconds=wait_s),
            settled_at=None,
            last_error="",
        )

    def _marked(self, row: IncidentRow) -> IncidentRow:
        """Who is still to be told is told as well that the record was lost, and that this may come twice."""
        if not any(effect.state is EffectState.OWED and effect.kind is not EffectKind.PUBLISH for effect in row.effects):
            return row
        restored, text = words(self._audience.language).restored, row.incident.detection.text
        if restored in text:
            return row
        detection = replace(row.incident.detection, text="\n\n".join(filter(None, (text, restored))))
        return replace(row, incident=replace(row.incident, detection=detection))


def is_ahead(known: IncidentRow, row: IncidentRow) -> bool:
    """Whether the incident was once further on than its row says. What somebody has retried was not."""
    done = {effect.key for effect in row.effects if effect.state is EffectState.DONE}
    was_over = row.incident.state.is_under_way and not known.incident.state.is_under_way
    return was_over or any(effect.state is EffectState.DONE and effect.key not in done for effect in known.effects)
