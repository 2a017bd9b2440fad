"""The courier: what is owed is delivered, newest first, again after a passing failure, never after a final one."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from random import Random

from tests.manual_clock import ManualClock
from vigintd.errors import MailRefused, MailUnavailable
from vigintd.incident.audience import Audience
from vigintd.incident.courier import CONCURRENT, Courier
from vigintd.journal import EffectState, Journal
from vigintd.model import Alert, AlertKind, Detection, Incident, NoVideo
from vigintd.publish import ClipRequest, Publication
from vigintd.spool import Spool

ID = "00000000-0000-4000-8000-000000000001"


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
        self.courier = Courier(
            journal=journal,
            spool=spool,
            channel=channel,
            host=self,  # type: ignore[arg-type]  # a courier asks a host for links and nothing else
            audience=Audience("Boutique Rivoli", "fr", ("a@exemple.fr", "b@exemple.fr"), 48),
            clock=clock,
            random=Random(1),
        )

    async def create(self, request: ClipRequest) -> Publication:
        links = {who: f"https://v.exemple.fr/video/{request.clip_id}?token={who}" for who in request.recipients}
        return Publication(request.clip_id, links, None)

    async def effects(self):
        row = await self.journal.incident(ID)
        assert row
        return {effect.payload["recipient"]: effect for effect in row.effects}


@asynccontextmanager
async def house(tmp_path, *faults: Exception):
    clock, spool, channel = ManualClock(), Spool(tmp_path / "spool"), ScriptedChannel(*faults)
    async with Journal.open(tmp_path / "journal.sqlite3", clock) as journal:
        await journal.open_incident(Incident(ID, Detection("entree", clock.monotonic_s(), clock.now(), "motion")))
        inside = House(clock, journal, spool, channel)
        running = asyncio.create_task(inside.courier.run())
        yield inside
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await spool.aclose()


async def test_a_mail_is_sent_and_its_row_settled(tmp_path):
    async with house(tmp_path) as it:
        await it.spool.keep(ID, ".jpg", b"a picture")
        await it.courier.send(ID, AlertKind.LINK, "a@exemple.fr")
        (alert,) = it.channel.delivered
        assert alert.link == f"https://v.exemple.fr/video/{ID}?token=a@exemple.fr"
        assert alert.snapshot_jpeg == b"a picture"
        assert alert.size_bytes is None
        assert (await it.effects())["a@exemple.fr"].state is EffectState.DONE


async def test_a_text_alert_has_a_reason_and_no_link(tmp_path):
    async with house(tmp_path) as it:
        await it.courier.send(ID, AlertKind.TEXT, "a@exemple.fr", NoVideo.LATE)
        (alert,) = it.channel.delivered
        assert (alert.link, alert.no_video) == (None, NoVideo.LATE)


async def test_the_same_alert_is_never_sent_twice(tmp_path):
    async with house(tmp_path) as it:
        await it.courier.send(ID, AlertKind.LINK, "a@exemple.fr")
        await it.courier.send(ID, AlertKind.LINK, "a@exemple.fr")
        assert len(it.channel.delivered) == 1


async def test_a_passing_failure_is_tried_again_after_its_wait(tmp_path):
    async with house(tmp_path, MailUnavailable("451 later")) as it:
        await it.courier.send(ID, AlertKind.LINK, "a@exemple.fr")
        assert it.channel.fired == 1
        assert it.channel.delivered == []
        assert (await it.effects())["a@exemple.fr"].last_error == "451 later"
        await it.clock.asleep()
        await it.clock.advance(10)
        await it.channel.until(lambda: it.channel.delivered)


async def test_a_servers_wish_for_a_longer_wait_is_honoured(tmp_path):
    async with house(tmp_path, MailUnavailable("421 busy", retry_after_s=600)) as it:
        await it.courier.send(ID, AlertKind.LINK, "a@exemple.fr")
        effect = (await it.effects())["a@exemple.fr"]
        assert (effect.next_try_at - it.clock.now()).total_seconds() == 600


async def test_a_refused_recipient_is_given_up_and_the_others_get_theirs(tmp_path):
    async with house(tmp_path, MailRefused("550 no such user")) as it:
        await it.courier.send(ID, AlertKind.LINK, "a@exemple.fr")
        await it.courier.send(ID, AlertKind.LINK, "b@exemple.fr")
        effects = await it.effects()
        assert it.channel.fired == 1
        assert (effects["a@exemple.fr"].state, effects["a@exemple.fr"].last_error) == (EffectState.DEAD, "550 no such user")
        assert effects["b@exemple.fr"].state is EffectState.DONE


async def test_a_defect_in_one_mail_is_put_off_and_does_not_stop_the_others(tmp_path):
    async with house(tmp_path, ZeroDivisionError("a defect")) as it:
        await it.courier.send(ID, AlertKind.LINK, "a@exemple.fr")
        await it.courier.send(ID, AlertKind.LINK, "b@exemple.fr")
        effects = await it.effects()
        assert it.channel.fired == 1
        assert effects["a@exemple.fr"].state is EffectState.OWED
        assert effects["b@exemple.fr"].state is EffectState.DONE


async def test_no_more_than_so_many_deliveries_are_under_way(tmp_path):
    async with house(tmp_path) as it:
        it.channel.gate.clear()
        sends = [
            asyncio.create_task(it.courier.send(ID, kind, who))
            for kind in AlertKind
            for who in ("a@exemple.fr", "b@exemple.fr")
        ]
        await it.channel.until(lambda: it.channel.under_way == CONCURRENT)
        it.channel.gate.set()
        await asyncio.gather(*sends)
        assert it.channel.most_under_way == CONCURRENT
        assert len(it.channel.delivered) == len(sends)


async def test_what_was_owed_before_the_start_is_delivered(tmp_path):
    clock = ManualClock()
    async with Journal.open(tmp_path / "journal.sqlite3", clock) as journal:
        await journal.open_incident(Incident(ID, Detection("entree", 0, clock.now(), "motion")))
        payload = {"kind": "text", "recipient": "a@exemple.fr", "no_video": "late"}
        await journal.owe(f"{ID}/mail/text/a@exemple.fr", ID, "mail", payload)
        spool, channel = Spool(tmp_path / "spool"), ScriptedChannel()
        inside = House(clock, journal, spool, channel)
        running = asyncio.create_task(inside.courier.run())
        await channel.until(lambda: channel.delivered)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await spool.aclose()


async def test_a_recipient_for_whom_the_host_has_no_link_is_given_up_with_the_reason(tmp_path):
    async with house(tmp_path) as it:
        await it.courier.send(ID, AlertKind.LINK, "c@exemple.fr")
        effect = (await it.effects())["c@exemple.fr"]
        assert it.channel.delivered == []
        assert effect.state is EffectState.DEAD
        assert "c@exemple.fr" in effect.last_error
