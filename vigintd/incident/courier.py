"""Delivers the mails that the journal owes, newest first, a few at a time, until each is sent or given up.

Owns the loop over owed mails and the making of an `Alert` from a row: the link is asked of the host when it is
needed and never stored, the snapshot is read from the spool. What is owed when the daemon dies is delivered by
the next one. A mail is tried again by `retry.verdict`, for at most `LIFE_S`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from random import Random

import structlog

from vigintd.alert import Channel
from vigintd.clock import Clock
from vigintd.errors import PermanentError, TransientError
from vigintd.incident.audience import Audience, clip_request
from vigintd.journal import Effect, IncidentRow, Journal
from vigintd.model import Alert, AlertKind, Incident, NoVideo
from vigintd.publish import Host
from vigintd.redact import redacted
from vigintd.retry import Backoff, GiveUp, verdict
from vigintd.spool import Spool

log = structlog.get_logger(__name__)

KIND = "mail"
LIFE_S = 5 * 86_400.0
"""RFC 5321, section 4.5.4.1: a client gives up after four to five days."""
CONCURRENT = 4
"""Deliveries under way at once; what is due beyond that waits for one of them to end."""
BACKOFF = Backoff(first_s=5, cap_s=900)


class Courier:
    """The one who delivers; `send` owes a mail and waits for its first attempt, `run` delivers for ever."""

    def __init__(
        self,
        *,
        journal: Journal,
        spool: Spool,
        channel: Channel,
        host: Host,
        audience: Audience,
        clock: Clock,
        random: Random,
    ) -> None:
        self._journal = journal
        self._spool = spool
        self._channel = channel
        self._host = host
        self._audience = audience
        self._clock = clock
        self._random = random
        self._wake = asyncio.Event()
        self._under_way: set[str] = set()
        self._first_attempts: dict[str, asyncio.Event] = {}

    async def send(self, incident_id: str, kind: AlertKind, recipient: str, no_video: NoVideo | None = None) -> None:
        """Owe one recipient one alert; returns when it has been tried once, delivered or not.

        The row stands before anything is tried. Owing the same alert again changes nothing.
        """
        key = f"{incident_id}/mail/{kind}/{recipient}"
        tried = self._first_attempts.setdefault(key, asyncio.Event())
        try:
            effect = await self._journal.owe(
                key, incident_id, KIND, {"kind": kind, "recipient": recipient, "no_video": no_video}
            )
            if effect.attempts:
                return
            self._wake.set()
            await tried.wait()
        finally:
            self._first_attempts.pop(key, None)

    async def run(self) -> None:
        """Deliver what is owed, for ever."""
        async with asyncio.TaskGroup() as deliveries:
            while True:
                await self.run_once(deliveries)

    async def run_once(self, deliveries: asyncio.TaskGroup) -> None:
        """Start what is due and can be started, then wait for more to come due or for a reason to look again."""
        self._wake.clear()
        waiting = False
        for effect in await self._journal.due(KIND):
            if effect.key in self._under_way:
                continue
            if len(self._under_way) >= CONCURRENT:
                waiting = True
                break
            self._under_way.add(effect.key)
            task = deliveries.create_task(self._deliver(effect), name=f"mail {effect.key}")
            task.add_done_callback(partial(self._ended, effect.key))
        # What is under way or waits for a place is looked at again when a delivery ends.
        delay_s = None if waiting or self._under_way else await self._until_due_s()
        await self._woken(delay_s)

    def _ended(self, key: str, _delivery: asyncio.Task[None]) -> None:
        self._under_way.discard(key)
        if tried := self._first_attempts.get(key):
            tried.set()
        self._wake.set()

    async def _until_due_s(self) -> float | None:
        next_try_at = await self._journal.next_try_at(KIND)
        if next_try_at is None:
            return None
        return max(0.0, (next_try_at - self._clock.now()).total_seconds())

    async def _woken(self, delay_s: float | None) -> None:
        if delay_s is None:
            await self._wake.wait()
            return
        waits = {asyncio.ensure_future(self._wake.wait()), asyncio.ensure_future(self._clock.sleep(delay_s))}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*waits, return_exceptions=True)

    async def _deliver(self, effect: Effect) -> None:
        try:
            await self._channel.send(await self._alert(effect))
        except (TransientError, PermanentError) as error:
            await self._failed(effect, error)
        except Exception as error:  # a defect in one mail may not stop the others
            log.exception("mail.failed", incident=effect.incident_id)
            await self._failed(effect, TransientError(f"{type(error).__name__}: {error}"))
        else:
            await self._journal.settle(effect.key)
            log.info(
                "mail.sent", incident=effect.incident_id, kind=effect.payload["kind"], recipient=effect.payload["recipient"]
            )

    async def _failed(self, effect: Effect, error: TransientError | PermanentError) -> None:
        attempt = effect.attempts + 1
        age_s = (self._clock.now() - effect.owed_at).total_seconds()
        what_next = verdict(error, attempt=attempt, age_s=age_s, life_s=LIFE_S, backoff=BACKOFF, random=self._random)
        said = {"incident": effect.incident_id, "recipient": effect.payload["recipient"], "attempt": attempt}
        if isinstance(what_next, GiveUp):
            await self._journal.bury(effect.key, redacted(what_next.reason))
            log.error("mail.given_up", **said, error=what_next.reason)
        else:
            next_try_at = self._clock.now() + timedelta(seconds=what_next.delay_s)
            await self._journal.postpone(effect.key, redacted(str(error)), next_try_at)
            log.warning("mail.postponed", **said, error=str(error), retry_in_s=round(what_next.delay_s, 1))

    async def _alert(self, effect: Effect) -> Alert:
        row = await self._journal.incident(effect.incident_id)
        if row is None:
            raise PermanentError(f"no incident {effect.incident_id} in the journal")
        kind, recipient = AlertKind(effect.payload["kind"]), str(effect.payload["recipient"])
        no_video = effect.payload["no_video"]
        link, expires_at = (None, None) if kind is AlertKind.TEXT else await self._link(row.incident, recipient)
        return Alert(
            kind=kind,
            incident_id=row.incident.id,
            recipient=recipient,
            language=self._audience.language,
            site=self._audience.site,
            camera=row.incident.camera,
            detection=row.incident.detection,
            link=link,
            expires_at=expires_at,
            expiry_h=self._audience.expiry_h if link else None,
            size_bytes=_finished_size_bytes(row),
            no_video=NoVideo(no_video) if no_video else None,
            snapshot_jpeg=await self._spool.read_kept(row.incident.id, ".jpg"),
        )

    async def _link(self, incident: Incident, recipient: str) -> tuple[str, datetime | None]:
        """Ask the host for the recipient's link: asked with the same id, it answers the same."""
        publication = await self._host.create(clip_request(incident, self._audience))
        if recipient not in publication.links:
            raise PermanentError(f"the host has no link of incident {incident.id} for {recipient}")
        return publication.links[recipient], publication.expires_at


def _finished_size_bytes(row: IncidentRow) -> int | None:
    parts = row.incident.parts
    return sum(part.length_bytes for part in parts) if parts else None
