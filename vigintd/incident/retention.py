"""What leaves the spool, and when: clips that were published, once their links have expired.

Owns that rule and nothing else. What was not published stays, however old: it is owed. A clip goes when its time has passed
by lived time and by the wall clock, so that no clock that was set removes one early (see `lived.may_go`).
"""

from __future__ import annotations

from datetime import timedelta

import structlog

from vigintd.clock import Clock
from vigintd.errors import VigintdError
from vigintd.journal import EffectKind, EffectState, IncidentRow, Journal
from vigintd.lived import may_go
from vigintd.model import IncidentState
from vigintd.spool import Spool

log = structlog.get_logger(__name__)

EVERY_S = 600.0


class Retention:
    """Removes from the spool what nobody may see any more."""

    def __init__(self, *, journal: Journal, spool: Spool, expiry_h: float, clock: Clock) -> None:
        self._journal = journal
        self._spool = spool
        self._kept = timedelta(hours=expiry_h)
        self._clock = clock

    async def run(self) -> None:
        """Look now and then, for ever."""
        while True:
            try:
                await self.run_once()
            except (VigintdError, OSError) as error:
                log.error("spool.unswept", error=str(error))
            await self._clock.sleep(EVERY_S)

    async def run_once(self) -> None:
        """Remove every clip, sidecar and snapshot whose time has passed."""
        for incident_id in await self._spool.incidents():
            row = await self._journal.incident(incident_id)
            if row is None or not self._is_over(row):
                continue
            try:
                await self._spool.remove(incident_id)
            except OSError as error:  # the others go all the same
                log.error("spool.unremoved", incident=incident_id, error=str(error))
            else:
                log.info("spool.expired", incident=incident_id)

    def _is_over(self, row: IncidentRow) -> bool:
        incident = row.incident
        nothing_there = not incident.parts and not self._spool.part_path(incident.id, 0).exists()
        was_published = nothing_there or any(
            effect.kind is EffectKind.PUBLISH and effect.state is EffectState.DONE for effect in row.effects
        )
        if incident.state is not IncidentState.CLOSED or not was_published or row.ended_lived is None:
            return False
        return may_go(
            kept_s=self._kept.total_seconds(),
            lived_s=(self._journal.now() - row.ended_lived).total_seconds(),
            wall_says_so=self._clock.now() >= (incident.ended_at or incident.detection.at) + self._kept,
        )
