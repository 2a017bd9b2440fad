"""The daily reminder: who was told that a video would follow, and still has no link, is told once a day that it is owed.

Owns when that is, and what one such mail holds: everything that its recipient waits for. What was promised stands in the
journal as an owed follow-up, and beside it when its recipient was last reminded, so that no restart reminds twice. It
ends when the links play, or when they are promised no more; the last reminder says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

import structlog

from vigintd.clock import Clock
from vigintd.errors import PermanentError, TransientError, VigintdError
from vigintd.incident.audience import Audience
from vigintd.journal import Effect, Journal
from vigintd.model import MissingVideo, Reminder
from vigintd.redact import redacted

log = structlog.get_logger(__name__)

DAY = timedelta(days=1)
LOOK_S = 600.0
"""Between two looks; also the wait after a mail server's passing failure."""
MOST_LISTED = 20
"""Of one mail; of the others it tells the number."""


class Reminders:
    """Who reminds; `run` does so for ever. One mail at a time: no alert waits for a reminder, and none is urgent."""

    def __init__(
        self, *, journal: Journal, remind: Callable[[Reminder], Awaitable[None]], audience: Audience, clock: Clock
    ) -> None:
        self._journal = journal
        self._remind = remind
        self._audience = audience
        self._clock = clock

    async def run(self) -> None:
        """Look now and then, for ever."""
        while True:
            try:
                await self.run_once()
            except VigintdError as error:
                log.error("reminders.delayed", error=str(error))
            await self._clock.sleep(LOOK_S)

    async def run_once(self) -> None:
        """Remind everybody whose day has come."""
        waiting: dict[str, list[Effect]] = defaultdict(list)
        for promise in await self._journal.promised():
            waiting[promise.what].append(promise)
        for recipient, promises in waiting.items():
            since = waits_since(promises)
            if self._journal.now() >= since + DAY:
                await self._tell(recipient, promises, since)

    async def _tell(self, recipient: str, promises: Sequence[Effect], since: datetime) -> None:
        said = {"recipient": recipient, "videos": len(promises)}
        try:
            await self._remind(await self._reminder(recipient, promises, since))
        except TransientError as error:
            log.warning("reminder.postponed", **said, error=redacted(str(error)), retry_in_s=LOOK_S)
            return
        except PermanentError as error:  # tomorrow is another day
            log.error("reminder.given_up", **said, error=redacted(str(error)))
        except Exception:  # a defect in one mail may not stop the others, nor come back every few minutes
            log.exception("reminder.given_up", **said)
        else:
            log.info("reminder.sent", **said)
        await self._journal.note_reminded(promises)

    async def _reminder(self, recipient: str, promises: Sequence[Effect], since: datetime) -> Reminder:
        missing = []
        for promise in promises[:MOST_LISTED]:
            row = await self._journal.incident(promise.incident_id)
            if row is not None:
                detection, until = row.incident.detection, self._journal.lived.wall(promise.next_try_at)
                missing.append(MissingVideo(detection.camera, detection.at, detection.type, row.incident.no_video, until))
        return Reminder(
            recipient=recipient,
            language=self._audience.language,
            site=self._audience.site,
            day=since.isoformat(),
            missing=tuple(missing),
            more=len(promises) - len(missing),
            is_last=max(promise.next_try_at for promise in promises) <= self._journal.now() + DAY,
        )


def waits_since(promises: Sequence[Effect]) -> datetime:
    """Since when, by the journal's time, their recipient has heard nothing of these promises."""
    reminded = [promise.reminded_at for promise in promises if promise.reminded_at]
    return max(reminded) if reminded else min(promise.owed_at for promise in promises)
