"""What leaves the spool, and when: clips that were published, once their links have expired.

Owns that rule and nothing else. What was not published stays, however old: it is owed. Goes by the wall clock, as
links do; a clip is removed here no sooner than its link has expired on the host.
"""

from __future__ import annotations

from datetime import timedelta

import structlog

from vigintd.clock import Clock
from vigintd.errors import VigintdError
from vigintd.journal import EffectKind, EffectState, IncidentRow, Journal
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
            if row is not None and self._is_over(row):
                await self._spool.remove(incident_id)
                log.info("spool.expired", incident=incident_id)

    def _is_over(self, row: IncidentRow) -> bool:
        incident = row.incident
        nothing_there = not incident.parts and not self._spool.part_path(incident.id, 0).exists()
        was_published = nothing_there or any(
            effect.kind is EffectKind.PUBLISH and effect.state is EffectState.DONE for effect in row.effects
        )
        ended_at = incident.ended_at or incident.detection.at
        return incident.state is IncidentState.CLOSED and was_published and self._clock.now() >= ended_at + self._kept
