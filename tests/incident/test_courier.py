"""The courier: what is owed is delivered, newest first, again after a passing failure, never after a final one."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest

from tests.manual_clock import ManualClock
from vigintd import failpoints
from vigintd.errors import HostRefused, HostUnavailable, MailRefused, MailUnavailable
from vigintd.incident.audience import Audience
from vigintd.incident.courier import CONCURRENT, LIFE_S, Courier
from vigintd.journal import EffectKind, EffectState, Journal, Owed
from vigintd.model import Alert, AlertKind, Detection, Incident, NoVideo
from vigintd.publish import ClipRequest, Publication
from vigintd.spool import Spool

ID = "00000000-0000-4000-8000-000000000001"
PEOPLE = ("a@exemple.fr", "b@exemple.fr")


class ScriptedChannel:
    """A channel that fails as it is told, then delivers; a real server's faults are tested with the mail channel."""

    name = "scripted"

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.fired = 0
        self.delivered: list[Alert] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way = 0
        self.most_under_way = 0
        self._changed = asyncio.Condition()

    async def until(self, reached) -> None:
        """Wait until a delivery begins or ends and `reached()` holds."""
        async with self._changed:
            await self._changed.wait_for(reached)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def send(self, alert: Alert) -> None:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await self._tell()
        try:
            await self.gate.wait()
            if self.faults:
                self.fired += 1
                raise self.faults.pop(0)
            self.delivered.append(alert)
        finally:
            self.under_way -= 1
            await self._tell()

    async def probe(self) -> str:
        return "scripted"


class House:
    def __init__(self, clock, journal, spool, channel) -> None:
        self.clock, self.journal, self.spool, self.channel = clock, journal, spool, channel
        self.host_trouble: Exception | None = None
        self.courier = Courier(
            journal=journal,
            spool=spool,
            channel=channel,
            host=self,  # type: ignore[arg-type]  # a courier asks a host for links and nothing else
            audience=Audience("Boutique Rivoli", "fr", PEOPLE, expiry_h=48, text_after_s=20),
            clock=clock,
            random=Random(1),
        )

    async def create(self, request: ClipRequest) -> Publication:
        if self.host_trouble:
            raise self.host_trouble
        links = {who: f"https://v.exemple.fr/video/{request.clip_id}?token={who}" for who in request.recipients}
        return Publication(request.clip_id, links, None)

    async def open(self, incident_id: str = ID, people=PEOPLE, *, playable: bool = True) -> None:
        """An incident, and its alerts, due in twenty seconds."""
        due_at = self.clock.now() + timedelta(seconds=20)
        incident = Incident(incident_id, Detection("entree", self.clock.monotonic_s(), self.clock.now(), "motion"))
        await self.journal.open_incident(incident, [Owed(EffectKind.ALERT, who, due_at) for who in people])
        self.courier.look()
        if playable:
            await self.journal.record_playable(incident_id)

    async def effects(self, kind=EffectKind.ALERT):
        row = await self.journal.incident(ID)
        assert row
        return {effect.what: effect for effect in row.effects if effect.kind is kind}

    def told(self):
        return sorted((alert.recipient, alert.kind, alert.no_video) for alert in self.channel.delivered)


@asynccontextmanager
async def house(tmp_path, *faults: Exception):
    clock, spool, channel = ManualClock(), Spool(tmp_path / "spool"), ScriptedChannel(*faults)
    async with Journal.open(tmp_path / "journal.sqlite3", clock) as journal:
        inside = House(clock, journal, spool, channel)
        running = asyncio.create_task(inside.courier.run())
        yield inside
        running.cancel()
        await asyncio.wait({running})
    await spool.aclose()


async def tell(it: House) -> None:
    """Tell of the incident now, and wait until every mail that is due was tried."""
    await it.courier.hurry(ID)
    await it.courier.drained()


def all_told(kind: AlertKind, no_video: NoVideo | None = None):
    return [(who, kind, no_video) for who in PEOPLE]


async def test_an_alert_has_the_link_when_one_plays(tmp_path):
    async with house(tmp_path) as it:
        await it.spool.keep(ID, ".jpg", b"a picture")
        await it.open()
        await tell(it)
        assert it.told() == all_told(AlertKind.LINK)
        alert = it.channel.delivered[0]
        assert alert.link == f"https://v.exemple.fr/video/{ID}?token={alert.recipient}"
        assert alert.snapshot_jpeg == b"a picture"
        assert alert.size_bytes is None
        assert {effect.state for effect in (await it.effects()).values()} == {EffectState.DONE}
        assert await it.effects(EffectKind.FOLLOW_UP) == {}


async def test_an_alert_goes_without_a_link_by_itself_when_its_time_has_come(tmp_path):
    """Whatever became of the story that opened the incident."""
    async with house(tmp_path) as it:
        await it.open(playable=False)
        await it.clock.asleep()
        await it.clock.advance(19)
        assert it.channel.delivered == []
        await it.clock.advance(1)
        await it.channel.until(lambda: len(it.channel.delivered) == 2)
        assert it.told() == all_told(AlertKind.TEXT, NoVideo.LATE)


async def test_an_alert_without_hope_of_a_link_says_why_and_promises_none(tmp_path):
    async with house(tmp_path) as it:
        await it.open(playable=False)
        row = await it.journal.incident(ID)
        assert row
        await it.journal.record_incident(replace(row.incident, no_video=NoVideo.UNRECORDED))
        await tell(it)
        assert it.told() == all_told(AlertKind.TEXT, NoVideo.UNRECORDED)
        assert await it.effects(EffectKind.FOLLOW_UP) == {}


async def test_who_was_told_without_the_link_gets_it_when_it_plays(tmp_path):
    async with house(tmp_path) as it:
        await it.open(playable=False)
        await tell(it)
        assert it.told() == all_told(AlertKind.TEXT, NoVideo.LATE)
        await it.journal.record_playable(ID)
        await tell(it)
        assert it.told() == sorted(all_told(AlertKind.TEXT, NoVideo.LATE) + all_told(AlertKind.FOLLOW_UP))


async def test_a_text_that_could_not_go_before_the_link_played_becomes_the_mail_with_the_link(tmp_path):
    """Host and mail server away together: one mail with the link, and not first the link and then a text."""
    async with house(tmp_path, MailUnavailable("451"), MailUnavailable("451")) as it:
        await it.open(playable=False)
        await tell(it)
        assert it.channel.fired == 2
        await it.journal.record_playable(ID)
        await it.clock.asleep()
        await it.clock.advance(10)
        await it.channel.until(lambda: len(it.channel.delivered) == 2)
        assert it.told() == all_told(AlertKind.LINK)
        assert await it.effects(EffectKind.FOLLOW_UP) == {}


async def test_a_host_that_takes_the_link_back_does_not_keep_people_in_the_dark(tmp_path):
    async with house(tmp_path) as it:
        it.host_trouble = HostRefused("the key was revoked")
        await it.open()
        await tell(it)
        assert it.told() == all_told(AlertKind.TEXT, NoVideo.REFUSED)


async def test_a_host_that_is_gone_when_the_mail_goes_is_waited_for_no_longer_than_the_text(tmp_path):
    async with house(tmp_path) as it:
        it.host_trouble = HostUnavailable("nobody there")
        await it.open()
        await tell(it)
        assert it.channel.delivered == []
        await it.clock.asleep()
        await it.clock.advance(30)
        await it.channel.until(lambda: len(it.channel.delivered) == 2)
        assert it.told() == all_told(AlertKind.TEXT, NoVideo.LATE)


async def test_the_same_alert_is_never_sent_twice(tmp_path):
    async with house(tmp_path) as it:
        await it.open()
        await tell(it)
        await tell(it)
        assert it.told() == all_told(AlertKind.LINK)


async def test_a_passing_failure_is_tried_again_after_its_wait(tmp_path):
    async with house(tmp_path, MailUnavailable("451 later")) as it:
        await it.open(people=PEOPLE[:1])
        await tell(it)
        assert it.channel.fired == 1
        assert it.channel.delivered == []
        assert (await it.effects())[PEOPLE[0]].last_error == "451 later"
        await it.clock.asleep()
        await it.clock.advance(10)
        await it.channel.until(lambda: it.channel.delivered)


async def test_a_servers_wish_for_a_longer_wait_is_honoured(tmp_path):
    async with house(tmp_path, MailUnavailable("421 busy", retry_after_s=600)) as it:
        await it.open(people=PEOPLE[:1])
        await tell(it)
        effect = (await it.effects())[PEOPLE[0]]
        assert (effect.next_try_at - it.clock.now()).total_seconds() == 600


async def test_a_refused_recipient_is_given_up_and_the_others_get_theirs(tmp_path):
    async with house(tmp_path, MailRefused("550 no such user")) as it:
        await it.open()
        await tell(it)
        states = {effect.state: effect.last_error for effect in (await it.effects()).values()}
        assert it.channel.fired == 1
        assert len(it.channel.delivered) == 1
        assert states == {EffectState.DEAD: "550 no such user", EffectState.DONE: ""}


async def test_a_defect_in_one_mail_is_put_off_and_does_not_stop_the_others(tmp_path):
    async with house(tmp_path, ZeroDivisionError("a defect")) as it:
        await it.open()
        await tell(it)
        assert it.channel.fired == 1
        assert {effect.state for effect in (await it.effects()).values()} == {EffectState.OWED, EffectState.DONE}


async def test_a_journal_that_fails_after_the_sending_neither_ends_the_courier_nor_sends_twice(tmp_path):
    """The mail is under way until its row is settled, however long that takes."""
    async with house(tmp_path) as it:
        await it.open(people=PEOPLE[:1])
        failpoints.arm("journal.settle.before", "error")
        telling = asyncio.create_task(tell(it))
        await it.channel.until(lambda: it.channel.delivered)
        await it.clock.asleep()
        assert failpoints.fired["journal.settle.before"] == 1
        await it.clock.advance(1)
        await telling
        assert len(it.channel.delivered) == 1
        assert (await it.effects())[PEOPLE[0]].state is EffectState.DONE


async def test_no_more_than_so_many_deliveries_are_under_way(tmp_path):
    async with house(tmp_path) as it:
        it.channel.gate.clear()
        people = [f"{number}@exemple.fr" for number in range(CONCURRENT * 2)]
        await it.open(people=people)
        telling = asyncio.create_task(tell(it))
        await it.channel.until(lambda: it.channel.under_way == CONCURRENT)
        it.channel.gate.set()
        await telling
        assert it.channel.most_under_way == CONCURRENT
        assert len(it.channel.delivered) == len(people)


async def test_what_was_owed_before_the_start_is_delivered(tmp_path):
    clock = ManualClock()
    async with Journal.open(tmp_path / "journal.sqlite3", clock) as journal:
        incident = Incident(ID, Detection("gone-from-the-config", 0, clock.now(), "motion"))
        await journal.open_incident(incident, [Owed(EffectKind.ALERT, who) for who in PEOPLE])
        spool, channel = Spool(tmp_path / "spool"), ScriptedChannel()
        inside = House(clock, journal, spool, channel)
        running = asyncio.create_task(inside.courier.run())
        await channel.until(lambda: len(channel.delivered) == 2)
        running.cancel()
        await asyncio.wait({running})
        await spool.aclose()


async def test_before_the_end_everybody_who_waits_is_told(tmp_path):
    """The daemon is stopping and no link has come: the texts go now."""
    async with house(tmp_path) as it:
        await it.open(playable=False)
        await it.courier.tell_all()
        await it.channel.until(lambda: len(it.channel.delivered) == 2)
        assert it.told() == all_told(AlertKind.TEXT, NoVideo.LATE)


async def test_a_mail_whose_server_hangs_holds_up_no_other(tmp_path):
    """One delivery under way, and another alert comes due: it goes in time."""
    async with house(tmp_path) as it:
        it.channel.gate.clear()
        await it.open(people=PEOPLE[:1])
        telling = asyncio.create_task(tell(it))
        await it.channel.until(lambda: it.channel.under_way == 1)
        await it.open("00000000-0000-4000-8000-000000000002", PEOPLE[1:], playable=False)
        await it.clock.asleep()
        await it.clock.advance(20)
        await it.channel.until(lambda: it.channel.under_way == 2)
        it.channel.gate.set()
        await telling


async def test_a_hosts_wish_for_a_later_try_does_not_hold_the_text_back(tmp_path):
    async with house(tmp_path) as it:
        it.host_trouble = HostUnavailable("503", retry_after_s=3600)
        await it.open()
        await tell(it)
        await it.clock.asleep()
        await it.clock.advance(20)
        await it.channel.until(lambda: len(it.channel.delivered) == 2)
        assert it.told() == all_told(AlertKind.TEXT, NoVideo.LATE)


async def test_a_snapshot_that_cannot_be_read_holds_nothing_back(tmp_path):
    async with house(tmp_path) as it:
        (it.spool.root / f"{ID}.jpg").mkdir()
        await it.open()
        await tell(it)
        assert it.told() == all_told(AlertKind.LINK)
        assert it.channel.delivered[0].snapshot_jpeg is None


async def test_a_follow_up_owed_after_the_link_began_to_play_goes_at_once(tmp_path):
    """The link came while the text was on its way."""
    async with house(tmp_path) as it:
        it.channel.gate.clear()
        await it.open(people=PEOPLE[:1], playable=False)
        telling = asyncio.create_task(tell(it))
        await it.channel.until(lambda: it.channel.under_way == 1)
        await it.journal.record_playable(ID)
        it.channel.gate.set()
        await telling
        await it.channel.until(lambda: len(it.channel.delivered) == 2)
        assert [alert.kind for alert in it.channel.delivered] == [AlertKind.TEXT, AlertKind.FOLLOW_UP]


async def test_a_follow_up_waits_for_as_long_as_the_clip_is_published(tmp_path):
    async with house(tmp_path) as it:
        await it.open(people=PEOPLE[:1], playable=False)
        await tell(it)
        (follow_up,) = (await it.effects(EffectKind.FOLLOW_UP)).values()
        assert (follow_up.next_try_at - it.journal.now()).total_seconds() == LIFE_S


@pytest.mark.parametrize("steps", range(1, 12))
async def test_the_courier_can_be_stopped_at_any_step(tmp_path, steps):
    """Cancelled in whatever it waits for, it ends."""
    async with house(tmp_path, MailUnavailable("451 later")) as it:
        await it.open(people=PEOPLE[:1])
        await tell(it)
        await it.clock.asleep()
        (running,) = [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__name__", "") == "run"]
        it.courier.look()
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        done, _ = await asyncio.wait({running}, timeout=10)
        assert done
