"""Starting is recovering: what a daemon that died left half done is brought to where the others can go on.

Owns the order of it: first everything in the spool has its row again or is gone; then incidents that were still being
recorded have their clip sealed at its last whole fragment, and it says so. Mails and publications need nothing: they are
owed in the journal, and the courier and the publisher take them from there.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import structlog

from vigintd.clip.job import encode_sources
from vigintd.clock import Clock
from vigintd.errors import VigintdError
from vigintd.failpoints import failpoint
from vigintd.incident.audience import Audience
from vigintd.incident.courier import Courier
from vigintd.incident.orphans import CUT, Orphans
from vigintd.incident.publisher import Publisher
from vigintd.journal import IncidentRow, Journal
from vigintd.model import IncidentState, NoVideo, SealedPart
from vigintd.spool import Spool

log = structlog.get_logger(__name__)

MOST_TAKEOVERS = 3
"""An incident that was taken up so often and never got further is set aside: something in it kills the daemon."""


class Recovery:
    """Takes up what was left; once, at the start, before any camera runs."""

    def __init__(
        self, *, journal: Journal, spool: Spool, courier: Courier, publisher: Publisher, audience: Audience, clock: Clock
    ) -> None:
        self._orphans = Orphans(journal=journal, spool=spool, audience=audience, clock=clock)
        self._journal = journal
        self._spool = spool
        self._courier = courier
        self._publisher = publisher
        self._clock = clock
        self._unencoded: list[IncidentRow] = []
        """Incidents of which only what the camera sent is here."""

    async def run_once(self) -> None:
        """Bring every unfinished incident to where it is owed. One that cannot be taken up holds up no other."""
        failpoint("recovery.survey.before")
        try:
            await self._orphans.run_once()
        except (VigintdError, OSError) as error:  # they stay for the next start
            log.error("spool.unsurveyed", error=str(error))
        failpoint("recovery.survey.after")
        for row in await self._journal.unfinished():
            incident = row.incident
            if incident.state not in (IncidentState.TRIGGERED, IncidentState.RECORDING):
                continue
            try:
                await self._take_up(row)
            except (VigintdError, OSError) as error:
                log.error("incident.not_taken_up", incident=incident.id, camera=incident.camera, error=str(error))
            except Exception:  # a defect, or a row that was written over, may not keep the daemon from starting
                log.exception("incident.not_taken_up", incident=incident.id, camera=incident.camera)
        self._publisher.look()
        self._courier.look()

    async def encode_left(self) -> None:
        """Make the clips of incidents of which only what the camera sent is here, one after another; takes its time."""
        while self._unencoded:
            row = self._unencoded.pop(0)
            incident = row.incident
            try:
                sources = await self._spool.left_sources(incident.id)
                parts = await encode_sources(
                    self._spool,
                    incident.id,
                    sources,
                    first_part=0,
                    on_part=lambda _part: None,
                    clock=self._clock,
                    partial=CUT,
                )
            except (VigintdError, OSError) as error:
                log.error("clip.damaged", incident=incident.id, camera=incident.camera, error=str(error))
                parts = await self._spool.salvage(incident.id, f"{CUT}; {error}")
            await self._seal(row, parts)
            self._publisher.look()

    async def _take_up(self, row: IncidentRow) -> None:
        incident = row.incident
        said = {"incident": incident.id, "camera": incident.camera}
        if await self._journal.take_over(incident.id) > MOST_TAKEOVERS:
            log.error("incident.set_aside", **said, takeovers=MOST_TAKEOVERS)
            parts: tuple[SealedPart, ...] = ()
            problem = f"it was set aside: {MOST_TAKEOVERS} starts in a row did not get beyond it"
        else:
            failpoint("recovery.salvage.before")
            parts = await self._spool.salvage(incident.id, CUT)
            failpoint("recovery.salvage.after")
            if not parts and await self._spool.left_sources(incident.id):
                self._unencoded.append(row)
                return
            problem = ""
        await self._seal(row, parts, problem)

    async def _seal(self, row: IncidentRow, parts: tuple[SealedPart, ...], problem: str = "") -> None:
        """Write down what there is of the clip, and have it told where there is nothing."""
        incident = row.incident
        # Times of arrival are of a clock that has stopped; how long the clip is says when it ended.
        recorded_s = sum(part.duration_s for part in parts) - (incident.pre_roll_s or 0)
        ended_at = incident.detection.at + timedelta(seconds=max(0.0, recorded_s))
        sealed = replace(incident, state=IncidentState.SEALED, parts=parts, ended_at=ended_at, problem=problem)
        if not parts:
            problem = problem or f"{CUT}; nothing of it could be kept"
            sealed = replace(sealed, no_video=NoVideo.UNRECORDED, problem=problem)
        await self._journal.record_incident(sealed)
        size_bytes = sum(part.length_bytes for part in parts)
        log.warning("incident.recovered", incident=incident.id, camera=incident.camera, parts=len(parts), size_bytes=size_bytes)
        if not parts:
            await self._courier.hurry(incident.id)
