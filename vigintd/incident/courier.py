"""Delivers the mails that the journal owes, newest first, a few at a time, until each is sent or given up.

Owns the loop over owed mails, and what each says. That is decided when it is sent, not when it is owed: an alert
has a link when one plays by then, and says why when none does; who was told without a link is owed a follow-up.
The link is asked of the host each time and never stored, the snapshot is read from the spool. So what is owed when
the daemon dies is delivered by the next one. A mail is tried again by `retry.verdict`, for at most `LIFE_S`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import TypeVar

import structlog

from vigintd.alert import Channel
from vigintd.clock import Clock, any_set
from vigintd.errors import PermanentError, TransientError, VigintdError
from vigintd.failpoints import failpoint
from vigintd.incident.audience import Audience, clip_request
from vigintd.journal import Effect, EffectKind, IncidentRow, Journal, Owed
from vigintd.model import Alert, AlertKind, Incident, NoVideo
from vigintd.publish import Host
from vigintd.redact import redacted
from vigintd.retry import Backoff, GiveUp, patiently, verdict
from vigintd.spool import Spool

log = structlog.get_logger(__name__)

MAILS = (EffectKind.ALERT, EffectKind.FOLLOW_UP)
LIFE_S = 5 * 86_400.0
"""RFC 5321, section 4.5.4.1: a client gives up after four to five days."""
CONCURRENT = 4
"""Deliveries under way at once; what is due beyond that waits for one of them to end."""
BACKOFF = Backoff(first_s=5, cap_s=900)
JOURNAL_BACKOFF = Backoff(first_s=0.2, cap_s=30)

UNWRITTEN_S = 600.0
"""While the journal takes nothing, each detection is an incident of its own; nobody wants a mail for each."""

_T = TypeVar("_T")


class _LinkLate(TransientError):
    """The host did not answer for its link; the alert goes without one in `left_s` seconds."""

    def __init__(self, message: str, left_s: float) -> None:
        super().__init__(message)
        self.left_s = left_s


class Courier:
    """The one who delivers; `run` does so for ever, `hurry` makes an incident's mails due now."""

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
        self._unwritten_s: dict[str, float] = {}
        """For each camera, when it was last told of an incident that has no row."""
        self._attempt_over = asyncio.Event()
        """Set, and replaced, whenever an attempt has ended."""

    async def hurry(self, incident_id: str) -> None:
        """Send what was never tried of an incident's alerts now."""
        await self._surely(lambda: self._journal.hasten(EffectKind.ALERT, incident_id))
        self._wake.set()

    async def retry(self, incident_id: str | None) -> Sequence[Effect]:
        """Try again now whatever failed, of one incident or (None) of all; answers it as it stood."""
        links_until = self._journal.now() + self._publishing
        failed = await self._journal.revive(incident_id, links_until=links_until)
        self._wake.set()
        return failed

    async def tell_unwritten(self, incident: Incident) -> None:
        """Tell of an incident that has no row: now, once, and as well as can be. A camera says so once in `UNWRITTEN_S`."""
        now_s = self._clock.monotonic_s()
        if now_s < self._unwritten_s.get(incident.camera, -math.inf) + UNWRITTEN_S:
            log.error("mail.unwritten_again", incident=incident.id, camera=incident.camera)
            return
        self._unwritten_s[incident.camera] = now_s
        row = IncidentRow(incident, None, 0, ())
        await asyncio.gather(*(self._send_unwritten(row, recipient) for recipient in self._audience.recipients))

    async def _send_unwritten(self, row: IncidentRow, recipient: str) -> None:
        said = {"incident": row.incident.id, "recipient": recipient}
        try:
            await self._channel.send(await self._worded(row, AlertKind.TEXT, recipient, no_video=NoVideo.UNWRITTEN))
        except VigintdError as error:
            log.error("mail.lost", **said, error=redacted(str(error)))
        except Exception:  # a defect in one mail may not stop the others
            log.exception("mail.lost", **said)
        else:
            log.warning("mail.sent_unwritten", **said)

    def look(self) -> None:
        """More is owed than there was: look again."""
        self._wake.set()

    async def tell_all(self) -> None:
        """Send every alert that was never tried now, with or without its link: there may be no later."""
        await self._surely(lambda: self._journal.hasten(EffectKind.ALERT))
        self._wake.set()

    async def drained(self) -> None:
        """Return when every mail that is due was tried."""
        while self._under_way or await self._is_behind():
            await self._attempt_over.wait()

    async def _is_behind(self) -> bool:
        return bool(await self._surely(lambda: self._journal.due(*MAILS, limit=1)))

    async def run(self) -> None:
        """Deliver what is owed, for ever; a journal that fails for a while only delays it."""
        async with asyncio.TaskGroup() as deliveries:
            while True:
                await self._surely(lambda: self.run_once(deliveries))

    async def run_once(self, deliveries: asyncio.TaskGroup) -> None:
        """Start what is due and can be started, then wait for more to come due or for a reason to look again."""
        self._wake.clear()
        now = self._journal.now()
        for effect in await self._journal.due(*MAILS, now=now):
            if effect.key in self._under_way:
                continue
            if len(self._under_way) >= CONCURRENT:
                break
            self._under_way.add(effect.key)
            task = deliveries.create_task(self._deliver(effect), name=f"mail {effect.key}")
            task.add_done_callback(partial(self._ended, effect.key))
        # What waits for a place is looked at again when a delivery ends.
        full = len(self._under_way) >= CONCURRENT
        await any_set(self._clock, self._wake, within_s=None if full else await self._until_due_s(now))

    def _ended(self, key: str, _delivery: asyncio.Task[None]) -> None:
        self._under_way.discard(key)
        self._attempt_over.set()
        self._attempt_over = asyncio.Event()
        self._wake.set()

    async def _until_due_s(self, now: datetime) -> float | None:
        """Seconds until the next mail is due of those that were not due at `now`."""
        next_try_at = await self._journal.next_try_at(*MAILS, after=now)
        if next_try_at is None:
            return None
        return max(0.0, (next_try_at - self._journal.now()).total_seconds())

    async def _deliver(self, effect: Effect) -> None:
        """Try one mail once, and write down how that went, however long the journal takes."""
        said = {"incident": effect.incident_id, "recipient": effect.what}
        try:
            alert = await self._alert(effect)
            await self._channel.send(alert)
        except (TransientError, PermanentError) as error:
            await self._failed(effect, error)
        except Exception as error:  # a defect in one mail may not stop the others
            log.exception("mail.failed", **said)
            await self._failed(effect, TransientError(f"{type(error).__name__}: {error}"))
        else:
            log.info("mail.sent", kind=alert.kind.value, **said)
            await self._surely(lambda: self._journal.settle(effect.key, self._follow_up(effect, alert)))

    def _follow_up(self, effect: Effect, alert: Alert) -> Owed | None:
        """What is owed after an alert that had to go without its link: due when it plays, which the story will say."""
        if alert.no_video is not NoVideo.LATE:
            return None
        return Owed(EffectKind.FOLLOW_UP, effect.what, due_at=self._journal.now() + self._publishing)

    async def _failed(self, effect: Effect, error: TransientError | PermanentError) -> None:
        attempt = effect.attempts + 1
        age_s = (self._journal.now() - effect.owed_at).total_seconds()
        life_s = LIFE_S + (self._publishing.total_seconds() if effect.kind is EffectKind.FOLLOW_UP else 0)
        what_next = verdict(error, attempt=attempt, age_s=age_s, life_s=life_s, backoff=BACKOFF, random=self._random)
        said = {"incident": effect.incident_id, "recipient": effect.what, "attempt": attempt}
        if isinstance(what_next, GiveUp):
            reason = redacted(what_next.reason)
            log.error("mail.given_up", **said, error=reason)
            await self._surely(lambda: self._journal.bury(effect.key, reason))
        else:
            delay_s = min(what_next.delay_s, error.left_s) if isinstance(error, _LinkLate) else what_next.delay_s
            next_try_at = self._journal.now() + timedelta(seconds=delay_s)
            log.warning("mail.postponed", **said, error=str(error), retry_in_s=round(delay_s, 1))
            await self._surely(lambda: self._journal.postpone(effect.key, redacted(str(error)), next_try_at))

    @property
    def _publishing(self) -> timedelta:
        """For how long a clip may still come to play: as long as it is tried, and at least as long as its link would live."""
        return max(timedelta(hours=self._audience.expiry_h), timedelta(seconds=LIFE_S))

    async def _surely(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """Read or write the journal for as long as it takes; a mail is under way until then, and not sent again."""
        return await patiently(
            call,
            clock=self._clock,
            random=self._random,
            backoff=JOURNAL_BACKOFF,
            life_s=math.inf,
            on_delay=lambda error, delay_s: log.error("courier.delayed", error=str(error), retry_in_s=round(delay_s, 1)),
        )

    # What a mail says

    async def _alert(self, effect: Effect) -> Alert:
        row = await self._journal.incident(effect.incident_id)
        if row is None:
            raise PermanentError(f"no incident {effect.incident_id} in the journal")
        if effect.kind is EffectKind.FOLLOW_UP:
            if row.playable_at is None:
                raise PermanentError("the clip never came")
            link, expires_at = await self._link(row.incident, effect.what)
            return await self._worded(row, AlertKind.FOLLOW_UP, effect.what, link=link, expires_at=expires_at)
        if row.playable_at is None:
            no_video = row.incident.no_video or NoVideo.LATE
            return await self._worded(row, AlertKind.TEXT, effect.what, no_video=no_video)
        try:
            link, expires_at = await self._link(row.incident, effect.what)
        except PermanentError as error:
            log.error("link.refused", incident=effect.incident_id, recipient=effect.what, error=str(error))
            return await self._worded(row, AlertKind.TEXT, effect.what, no_video=NoVideo.REFUSED)
        except TransientError as error:
            left_s = self._audience.text_after_s - (self._journal.now() - effect.owed_at).total_seconds()
            if left_s > 0:
                raise _LinkLate(str(error), left_s) from error
            return await self._worded(row, AlertKind.TEXT, effect.what, no_video=NoVideo.LATE)
        return await self._worded(row, AlertKind.LINK, effect.what, link=link, expires_at=expires_at)

    async def _link(self, incident: Incident, recipient: str) -> tuple[str, datetime | None]:
        """Ask the host for this recipient's link alone: others may have come or gone since the clip was announced."""
        failpoint("mail.link.before")
        publication = await self._host.create(clip_request(incident, self._audience, (recipient,)))
        failpoint("mail.link.after")
        if recipient not in publication.links:
            raise PermanentError(f"the host has no link of incident {incident.id} for {recipient}")
        return publication.links[recipient], publication.expires_at

    async def _worded(
        self,
        row: IncidentRow,
        kind: AlertKind,
        recipient: str,
        *,
        link: str | None = None,
        expires_at: datetime | None = None,
        no_video: NoVideo | None = None,
    ) -> Alert:
        parts = row.incident.parts
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
            size_bytes=sum(part.length_bytes for part in parts) if parts else None,
            no_video=no_video,
            snapshot_jpeg=await self._snapshot(row.incident.id),
        )

    async def _snapshot(self, incident_id: str) -> bytes | None:
        """The picture, where there is one that can be read: no alert waits for it."""
        try:
            return await self._spool.read_kept(incident_id, ".jpg")
        except OSError as error:
            log.warning("snapshot.unreadable", incident=incident_id, error=str(error))
            return None
