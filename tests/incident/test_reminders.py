"""The daily reminder: one mail a recipient and day while videos that were promised are missing, and none beyond."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.manual_clock import ManualClock
from vigintd import failpoints
from vigintd.errors import MailRefused, MailUnavailable
from vigintd.failpoints import FailpointError
from vigintd.incident import Reminders
from vigintd.incident.audience import Audience
from vigintd.incident.reminders import LOOK_S, MOST_LISTED
from vigintd.journal import EffectKind, Journal, Owed
from vigintd.model import Detection, Incident, IncidentState, NoVideo, Reminder, SealedPart

DAY_S = 86_400.0
A, B = "a@exemple.fr", "b@exemple.fr"


def id_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


class Desk:
    """Incidents whose alerts went without their links, and who is reminded of them."""

    def __init__(self, clock: ManualClock, journal: Journal) -> None:
        self.clock, self.journal = clock, journal
        self.faults: list[Exception] = []
        self.fired = 0
        self.sent: list[Reminder] = []
        audience = Audience("Boutique Rivoli", "fr", (A, B), expiry_h=48, text_after_s=20)
        self.reminders = Reminders(journal=journal, remind=self._send, audience=audience, clock=clock)

    async def _send(self, reminder: Reminder) -> None:
        if self.faults:
            self.fired += 1
            raise self.faults.pop(0)
        self.sent.append(reminder)

    async def promise(self, number: int, *recipients: str) -> Incident:
        """An incident is over and recorded; its recipients were told that the video would follow."""
        opened = Incident(id_of(number), Detection(f"camera {number}", 0, self.clock.now(), "motion"))
        publish = Owed(EffectKind.PUBLISH, "")
        await self.journal.open_incident(opened, [*(Owed(EffectKind.ALERT, who) for who in recipients), publish])
        over = replace(opened, state=IncidentState.SEALED, parts=(SealedPart(0, 1, "00" * 32, 1),), ended_at=self.clock.now())
        await self.journal.record_incident(over)
        for who in recipients:
            until = self.journal.now() + timedelta(days=5)
            await self.journal.settle(f"{opened.id}/alert/{who}", Owed(EffectKind.FOLLOW_UP, who, until))
        return opened

    async def after(self, seconds: float) -> list[Reminder]:
        """What is sent when so much time has passed."""
        await self.clock.advance(seconds)
        self.sent.clear()
        await self.reminders.run_once()
        return list(self.sent)


@asynccontextmanager
async def desk(tmp_path, clock: ManualClock | None = None):
    clock = clock or ManualClock()
    async with Journal.open(tmp_path / "journal.sqlite3", clock) as journal:
        yield Desk(clock, journal)


def cameras(reminder: Reminder) -> list[str]:
    return [video.camera for video in reminder.missing]


async def test_after_a_day_each_recipient_is_told_once_of_all_that_is_missing(tmp_path):
    async with desk(tmp_path) as it:
        await it.promise(1, A, B)
        await it.clock.advance(60)
        await it.promise(2, A)
        assert await it.after(DAY_S - 61) == []
        told = {reminder.recipient: reminder for reminder in await it.after(1)}
        assert {who: cameras(reminder) for who, reminder in told.items()} == {A: ["camera 2", "camera 1"], B: ["camera 1"]}
        assert not told[A].is_last
        assert told[A].missing[0].no_video is None
        assert await it.after(DAY_S - 1) == []
        assert len(await it.after(1)) == 2


async def test_nobody_is_reminded_of_what_came_or_of_what_nobody_was_promised(tmp_path):
    """The link plays, and only its mail is still owed; or the alert had its link, and no follow-up is."""
    async with desk(tmp_path) as it:
        await it.journal.record_playable((await it.promise(1, A)).id)
        await it.promise(2)
        assert await it.after(2 * DAY_S) == []


async def test_it_ends_when_the_link_is_promised_no_more_and_the_last_one_says_so(tmp_path):
    async with desk(tmp_path) as it:
        await it.promise(1, A)
        days = [[reminder.is_last for reminder in await it.after(DAY_S)] for _ in range(7)]
        assert days == [[False], [False], [False], [True], [], [], []]


async def test_a_restart_reminds_nobody_again(tmp_path):
    """Nor does a clock that was set, nor a journal that was lost and filled again."""
    clock = ManualClock()
    async with desk(tmp_path, clock) as it:
        opened = await it.promise(1, A)
        assert len(await it.after(DAY_S)) == 1
        row = await it.journal.incident(opened.id)
        assert row
    clock.jump(730 * DAY_S)
    async with desk(tmp_path, clock) as it:
        assert await it.after(DAY_S - 1) == []
        assert len(await it.after(1)) == 1
    (tmp_path / "journal.sqlite3").unlink()
    async with desk(tmp_path, clock) as it:
        await it.journal.adopt([row])
        assert await it.after(DAY_S - 1) == []
        assert len(await it.after(1)) == 1


async def test_one_that_is_sent_again_is_the_same(tmp_path):
    """After a passing failure; and when the daemon died between the server's answer and the commit."""
    async with desk(tmp_path) as it:
        await it.promise(1, A)
        it.faults = [MailUnavailable("451")]
        assert await it.after(DAY_S) == []
        failpoints.arm("journal.settle.before", "error")
        with pytest.raises(FailpointError):
            await it.after(LOOK_S)
        assert (it.fired, failpoints.fired["journal.settle.before"]) == (1, 1)
        first = it.sent[0].day
        (again,) = await it.after(LOOK_S)
        (tomorrow,) = await it.after(DAY_S)
        assert first == again.day != tomorrow.day


async def test_a_recipient_who_is_refused_is_tried_again_the_next_day_and_keeps_nobody_waiting(tmp_path):
    async with desk(tmp_path) as it:
        await it.promise(1, A, B)
        it.faults = [MailRefused("550"), ZeroDivisionError("a defect")]
        assert await it.after(DAY_S) == []
        assert it.fired == 2
        assert await it.after(DAY_S - 1) == []
        assert len(await it.after(1)) == 2


@pytest.mark.parametrize(("no_video", "days"), [(NoVideo.REFUSED, 4), (NoVideo.UNRECORDED, 1)])
async def test_a_video_that_was_given_up_is_said_to_be(tmp_path, no_video, days):
    """While somebody may yet have it sent again; one of which nothing was recorded is told once."""
    async with desk(tmp_path) as it:
        opened = await it.promise(1, A)
        await it.journal.bury(f"{opened.id}/publish/", "no", no_video=no_video)
        told = [reminder for _ in range(6) for reminder in await it.after(DAY_S)]
        assert [reminder.missing[0].no_video for reminder in told] == [no_video] * days


async def test_a_mail_stays_short_however_much_is_missing(tmp_path):
    async with desk(tmp_path) as it:
        for number in range(MOST_LISTED + 5):
            await it.promise(number, A)
            await it.clock.advance(1)
        (reminder,) = await it.after(DAY_S)
        assert len(reminder.missing) == MOST_LISTED
        assert reminder.more == 5
        assert reminder.missing[0].camera == f"camera {MOST_LISTED + 4}"


async def test_it_looks_by_itself_and_a_failing_journal_only_delays_it(tmp_path):
    async with desk(tmp_path) as it:
        await it.promise(1, A)
        await it.clock.advance(DAY_S)
        failpoints.arm("journal.settle.before", "error")
        running = asyncio.create_task(it.reminders.run())
        await it.clock.asleep()
        assert failpoints.fired["journal.settle.before"] == 1
        await it.clock.advance(LOOK_S)
        await it.clock.asleep()
        running.cancel()
        await asyncio.wait({running})
        assert len(it.sent) == 2
        assert await it.after(DAY_S - 1) == []
