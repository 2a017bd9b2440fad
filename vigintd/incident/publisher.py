"""Brings the clips that the journal owes to the host: those under way while they grow, and what was left behind.

Owns the loop over owed publications, and when a clip counts as playable, published or refused. A clip under way is never
kept waiting by a backlog. What a dead daemon or an absent host left is sent from the spool, a few at a time, and goes on
at the host's own offset. A publication is tried again by `retry.verdict`, for at most `LIFE_S`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Literal, TypeVar

import structlog

from vigintd.clock import Clock, any_set
from vigintd.errors import ClipError, PermanentError, TransientError
from vigintd.incident.audience import Audience, clip_request
from vigintd.incident.courier import LIFE_S, Courier
from vigintd.incident.reel import Reel
from vigintd.journal import Effect, EffectKind, IncidentRow, Journal
from vigintd.model import NoVideo
from vigintd.publish import Host
from vigintd.publish.uploader import BodyLimit, GrowingPart, upload_part
from vigintd.redact import redacted
from vigintd.retry import Backoff, GiveUp, patiently, verdict
from vigintd.spool import Spool

log = structlog.get_logger(__name__)

Place = Literal["live", "newest", "oldest"]
BACKLOG: tuple[Place, ...] = ("newest", "oldest")
"""Clips sent from the spool at once: the newest that waits, because it is wanted most, and the oldest, so that none waits
for ever. Those under way need no place: the recorder bounds them, one a camera."""
LINGER_S = 60.0
"""For so long a host's failures are waited out in one go, with `HOST_BACKOFF`; then the clip makes way for others."""
HOST_BACKOFF = Backoff(first_s=1, cap_s=20)
BACKOFF = Backoff(first_s=5, cap_s=300)
JOURNAL_BACKOFF = Backoff(first_s=0.2, cap_s=30)

_T = TypeVar("_T")


class _Unrecorded(PermanentError):
    """There is nothing to publish."""


class Publisher:
    """The one who publishes; `run` does so for ever."""

    def __init__(
        self, *, journal: Journal, spool: Spool, host: Host, courier: Courier, audience: Audience, clock: Clock, random: Random
    ) -> None:
        self._journal = journal
        self._spool = spool
        self._host = host
        self._courier = courier
        self._audience = audience
        self._clock = clock
        self._random = random
        self._limit = BodyLimit()
        self._wake = asyncio.Event()
        self._live: dict[str, Reel] = {}
        self._under_way: dict[str, Place] = {}
        """Key of each publication under way, and the place it holds."""
        self._ended = asyncio.Event()
        """Set, and replaced, whenever a publication has ended."""

    @contextmanager
    def live(self, incident_id: str) -> Iterator[Reel]:
        """The reel of a clip under way; once left, the clip is in the spool and in the journal, and taken from there."""
        reel = self._live[incident_id] = Reel()
        try:
            yield reel
        finally:
            reel.pictured.set()
            reel.end()
            del self._live[incident_id]

    def look(self) -> None:
        """More is owed than there was: look again."""
        self._wake.set()

    async def drained(self) -> None:
        """Return when no clip is under way any more, published or not."""
        while "live" in self._under_way.values():
            await self._ended.wait()

    async def run(self) -> None:
        """Publish what is owed, for ever; a journal that fails for a while only delays it."""
        async with asyncio.TaskGroup() as publications:
            while True:
                await self._surely(lambda: self.run_once(publications))

    async def run_once(self, publications: asyncio.TaskGroup) -> None:
        """Start what is due and can be started, then wait for more to come due or for a reason to look again."""
        self._wake.clear()
        now = self._journal.now()
        for effect in await self._journal.due(EffectKind.PUBLISH, now=now):
            if effect.incident_id in self._live:
                self._start(publications, effect, "live")
        for place in BACKLOG:
            await self._start_backlog(publications, place, now)
        full = all(place in self._under_way.values() for place in BACKLOG)
        next_try_at = await self._journal.next_try_at(EffectKind.PUBLISH, after=now)
        left_s = None if next_try_at is None else max(0.0, (next_try_at - self._journal.now()).total_seconds())
        await any_set(self._clock, self._wake, within_s=None if full else left_s)

    async def _start_backlog(self, publications: asyncio.TaskGroup, place: Place, now: datetime) -> None:
        if place in self._under_way.values():
            return
        limit = len(self._under_way) + len(self._live) + 1
        due = await self._journal.due(EffectKind.PUBLISH, now=now, oldest_first=place == "oldest", limit=limit)
        for effect in due:
            if effect.incident_id not in self._live and self._start(publications, effect, place):
                return

    def _start(self, publications: asyncio.TaskGroup, effect: Effect, place: Place) -> bool:
        if effect.key in self._under_way:
            return False
        self._under_way[effect.key] = place
        publication = self._publish(effect, self._live.get(effect.incident_id))
        task = publications.create_task(publication, name=f"publish {effect.incident_id}")
        task.add_done_callback(partial(self._note_ended, effect.key))
        return True

    def _note_ended(self, key: str, _publication: asyncio.Task[None]) -> None:
        del self._under_way[key]
        self._ended.set()
        self._ended = asyncio.Event()
        self._wake.set()

    # One publication

    async def _publish(self, effect: Effect, reel: Reel | None) -> None:
        """Try one publication once, and write down how that went, however long the journal takes."""
        structlog.contextvars.bind_contextvars(incident=effect.incident_id)
        playable = asyncio.Event()
        telling: asyncio.Task[None] | None = None
        try:
            reel = reel or await self._from_spool(effect.incident_id)
            telling = asyncio.create_task(self._tell(effect.incident_id, reel, playable))
            await self._bring(effect.incident_id, reel, playable)
        except PermanentError as error:
            # A part that was closed without a seal is in the spool; whoever closed it, or the next start, seals it.
            await self._failed(effect, TransientError(str(error)) if isinstance(error, ClipError) else error)
        except (TransientError, OSError) as error:
            await self._failed(effect, error if isinstance(error, TransientError) else TransientError(str(error)))
        except Exception as error:  # a defect in one publication may not stop the others
            log.exception("publish.failed")
            await self._failed(effect, TransientError(f"{type(error).__name__}: {error}"))
        else:
            log.info("clip.published")
            await self._surely(lambda: self._journal.settle(effect.key))
        finally:
            if telling is not None:
                if not playable.is_set():
                    telling.cancel()
                with suppress(asyncio.CancelledError):
                    await telling

    async def _from_spool(self, incident_id: str) -> Reel:
        row = await self._row(incident_id)
        return Reel.of([await self._spool.stored_part(incident_id, part) for part in row.incident.parts])

    async def _bring(self, incident_id: str, reel: Reel, playable: asyncio.Event) -> None:
        """Announce the clip, bring every part, and tell the host what the incident has become.

        A host hears of a clip when there is something of it; where nothing was recorded nobody has a link to it.
        """
        begins = await reel.begins()
        row = await self._row(incident_id)
        incident, audience = row.incident, self._audience
        if not begins and incident.state.is_under_way:
            raise TransientError("nobody has sealed it yet")
        if not begins and row.playable_at is None:
            raise _Unrecorded(incident.problem or "nothing was recorded")
        await self._patiently(lambda: self._host.create(clip_request(incident, audience, audience.recipients)))
        parts = 0
        async for part in reel.parts():
            await upload_part(
                self._host,
                incident_id,
                part,
                clock=self._clock,
                random=self._random,
                backoff=HOST_BACKOFF,
                life_s=LINGER_S,
                on_accepted=partial(self._note_accepted, part, playable),
                limit=self._limit,
            )
            playable.set()
            parts += 1
        incident = (await self._row(incident_id)).incident
        become = {"ended": True, "risk": incident.detection.risk.value, "detections": incident.detections}
        await self._patiently(lambda: self._host.update(incident_id, become))
        if not parts:
            raise _Unrecorded(incident.problem or "nothing was recorded")

    def _note_accepted(self, part: GrowingPart, playable: asyncio.Event, offset_bytes: int) -> None:
        """A link plays from the first fragment behind the header on, where the host plays what grows."""
        if self._host.capabilities.playable_at == "first_fragment" and len(part.fragments) > 1:
            first = part.fragments[1]
            if offset_bytes >= first.offset_bytes + first.length_bytes:
                playable.set()

    async def _tell(self, incident_id: str, reel: Reel, playable: asyncio.Event) -> None:
        """Have the alerts sent with the link as soon as it plays."""
        await playable.wait()
        await reel.pictured.wait()
        log.info("incident.playable")
        await self._surely(lambda: self._journal.record_playable(incident_id))
        await self._courier.hurry(incident_id)

    async def _failed(self, effect: Effect, error: TransientError | PermanentError) -> None:
        attempt = effect.attempts + 1
        age_s = (self._journal.now() - effect.owed_at).total_seconds()
        what_next = verdict(error, attempt=attempt, age_s=age_s, life_s=LIFE_S, backoff=BACKOFF, random=self._random)
        if isinstance(what_next, GiveUp):
            reason = redacted(what_next.reason)
            log.error("publish.given_up", error=reason, attempt=attempt)
            why = NoVideo.UNRECORDED if isinstance(error, _Unrecorded) else NoVideo.REFUSED
            await self._surely(lambda: self._give_up(effect, reason, why))
            await self._courier.hurry(effect.incident_id)
        else:
            next_try_at = self._journal.now() + timedelta(seconds=what_next.delay_s)
            log.warning("publish.postponed", error=str(error), attempt=attempt, retry_in_s=round(what_next.delay_s, 1))
            await self._surely(lambda: self._journal.postpone(effect.key, redacted(str(error)), next_try_at))

    async def _give_up(self, effect: Effect, reason: str, why: NoVideo) -> None:
        row = await self._row(effect.incident_id)
        await self._journal.bury(effect.key, reason, no_video=why if row.playable_at is None else None)

    async def _row(self, incident_id: str) -> IncidentRow:
        row = await self._surely(lambda: self._journal.incident(incident_id))
        if row is None:
            raise PermanentError(f"no incident {incident_id} in the journal")
        return row

    async def _patiently(self, call: Callable[[], Awaitable[object]]) -> None:
        await patiently(
            call,
            clock=self._clock,
            random=self._random,
            backoff=HOST_BACKOFF,
            life_s=LINGER_S,
            on_delay=lambda error, delay_s: log.warning("publish.delayed", error=str(error), retry_in_s=round(delay_s, 1)),
        )

    async def _surely(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """Read or write the journal for as long as it takes."""
        return await patiently(
            call,
            clock=self._clock,
            random=self._random,
            backoff=JOURNAL_BACKOFF,
            life_s=math.inf,
            on_delay=lambda error, delay_s: log.error("publisher.delayed", error=str(error), retry_in_s=round(delay_s, 1)),
        )
