"""Starting is recovering: what a daemon that died left half done is brought to where the others can go on.

Owns the order of it: first everything in the spool has its row again or is gone; then incidents that were still being
recorded have their clip sealed at its last whole fragment, and it says so. What of it was still to be encoded is encoded
behind the parts that are there, while the cameras run. Mails and publications need nothing: they are owed in the journal,
and the courier and the publisher take them from there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random

import structlog

from vigintd.clip.job import encode_sources
from vigintd.clock import Clock
from vigintd.errors import VigintdError
from vigintd.failpoints import failpoint
from vigintd.incident.audience import Audience
from vigintd.incident.courier import Courier
from vigintd.incident.orphans import CUT, Orphans
from vigintd.incident.publisher import Publisher
from vigintd.incident.reel import Reel
from vigintd.journal import IncidentRow, Journal
from vigintd.model import MEDIA_CLOCK_HZ, IncidentState, NoVideo, SealedPart
from vigintd.retry import Backoff, patiently
from vigintd.spool import SourceFile, Spool

log = structlog.get_logger(__name__)

MOST_TAKEOVERS = 3
"""An incident that was taken up so often and never got further is set aside: something in it kills the daemon."""


CLOSE_S = 0.5
"""So little of a source is not encoded for its own sake: what was encoded of it may end so much earlier than it does."""
JOURNAL_BACKOFF = Backoff(first_s=0.2, cap_s=30)


@dataclass(frozen=True, slots=True)
class _Unencoded:
    """An incident of which something that the camera sent is still to be encoded."""

    row: IncidentRow
    sources: Sequence[SourceFile]
    reel: Reel
    live: ExitStack
    """While it is open, the publisher takes the clip from the reel."""


class Recovery:
    """Takes up what was left; once, at the start, before any camera runs."""

    def __init__(
        self,
        *,
        journal: Journal,
        spool: Spool,
        courier: Courier,
        publisher: Publisher,
        audience: Audience,
        clock: Clock,
        random: Random,
    ) -> None:
        self._orphans = Orphans(journal=journal, spool=spool, audience=audience, clock=clock)
        self._journal = journal
        self._spool = spool
        self._courier = courier
        self._publisher = publisher
        self._clock = clock
        self._random = random
        self._unencoded: list[_Unencoded] = []

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
            if not incident.state.is_under_way:
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
        """Make parts of what the camera sent and no daemon has encoded yet, one incident after another; takes its time.

        Cancelled, it leaves the rest to the next start.
        """
        try:
            while self._unencoded:
                await self._finish(self._unencoded.pop(0))
        finally:
            for left in self._unencoded:
                left.live.close()

    async def _finish(self, left: _Unencoded) -> None:
        """Encode and seal one incident; one that cannot be is the next start's, and holds up no other."""
        said = {"incident": left.row.incident.id, "camera": left.row.incident.camera}
        with left.live:
            try:
                await self._encode(left)
            except (VigintdError, OSError) as error:
                log.error("incident.not_taken_up", **said, error=str(error))
            except Exception:  # a defect in one clip may not end the daemon
                log.exception("incident.not_taken_up", **said)
        self._publisher.look()

    async def _encode(self, left: _Unencoded) -> None:
        incident = left.row.incident
        try:
            encoded = await encode_sources(
                self._spool,
                incident.id,
                left.sources,
                first_part=_parts_after(incident.parts),
                on_part=left.reel.add,
                clock=self._clock,
                partial=CUT,
            )
            parts = (*incident.parts, *encoded)
        except (VigintdError, OSError) as error:
            log.error("clip.damaged", incident=incident.id, camera=incident.camera, error=str(error))
            parts = await self._spool.salvage(incident.id, f"{CUT}; {error}")
        await patiently(
            lambda: self._seal(left.row, parts),
            clock=self._clock,
            random=self._random,
            backoff=JOURNAL_BACKOFF,
            life_s=math.inf,
            on_delay=lambda error, delay_s: log.warning("incident.delayed", error=str(error), retry_in_s=round(delay_s, 1)),
        )

    async def _take_up(self, row: IncidentRow) -> None:
        incident = row.incident
        said = {"incident": incident.id, "camera": incident.camera}
        if await self._journal.take_over(incident.id) > MOST_TAKEOVERS:
            log.error("incident.set_aside", **said, takeovers=MOST_TAKEOVERS)
            # What an earlier start has found to be good; nothing in the spool is touched again.
            problem = f"it was set aside: {MOST_TAKEOVERS} starts in a row did not get beyond it"
            await self._seal(row, incident.parts, problem)
            return
        failpoint("recovery.salvage.before")
        parts = await self._spool.salvage(incident.id, CUT)
        failpoint("recovery.salvage.after")
        sources = unencoded(await self._spool.left_sources(incident.id), parts)
        if sources:
            await self._prepare(replace(row, incident=replace(incident, parts=parts)), sources)
        else:
            await self._seal(row, parts)

    async def _prepare(self, row: IncidentRow, sources: Sequence[SourceFile]) -> None:
        """Have the clip published as far as it is there, and keep the publisher waiting for what will be encoded."""
        incident = row.incident
        stored = [await self._spool.stored_part(incident.id, part) for part in incident.parts]
        await self._journal.record_incident(incident)
        live = ExitStack()
        reel = live.enter_context(self._publisher.live(incident.id))
        reel.pictured.set()
        for part in stored:
            reel.add(part)
        self._unencoded.append(_Unencoded(row, sources, reel, live))

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


def unencoded(sources: Sequence[SourceFile], parts: Sequence[SealedPart]) -> Sequence[SourceFile]:
    """The sources that are not in the parts to their end."""
    if not sources:
        return ()
    encoded_s = sum(part.duration_s for part in parts if part.index >= sources[0].index)
    left = []
    for source in sources:
        length_s = source.duration_90k / MEDIA_CLOCK_HZ
        if length_s > encoded_s + (CLOSE_S if encoded_s else 0):
            source.encoded_90k = round(encoded_s * MEDIA_CLOCK_HZ)
            left.append(source)
        encoded_s = max(0.0, encoded_s - length_s)
    return left


def _parts_after(parts: Sequence[SealedPart]) -> int:
    return parts[-1].index + 1 if parts else 0
