"""The publisher: what is owed to the host gets there, and no backlog keeps today's incident waiting."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from random import Random

from tests.clip.pictures import FPS, coded
from tests.incident.test_courier import ScriptedChannel
from tests.manual_clock import ManualClock
from vigintd.clip.recorder import ClipRecorder
from vigintd.errors import HostRefused, HostUnavailable
from vigintd.incident import Audience, Courier, Publisher
from vigintd.incident.courier import LIFE_S
from vigintd.incident.publisher import BACKLOG
from vigintd.incident.reel import Reel
from vigintd.journal import EffectKind, EffectState, Journal, Owed
from vigintd.model import Detection, Incident, IncidentState, NoVideo
from vigintd.publish import Capabilities, Publication
from vigintd.spool import Spool

AUDIENCE = Audience("Boutique Rivoli", "fr", ("a@exemple.fr",), expiry_h=48, text_after_s=20)


def id_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


class Gate:
    """A host that lets clips in one by one, as the test opens it; or is in trouble."""

    capabilities = Capabilities("creation", "first_fragment", resumable=True, per_recipient=True, revocable=True, audited=True)

    def __init__(self) -> None:
        self.trouble: Exception | None = None
        self.fired = 0
        self.begun: list[str] = []
        self.sealed: dict[str, list[str]] = {}
        self.held: dict[tuple[str, int], bytearray] = {}
        self.open = asyncio.Semaphore(0)
        self._changed = asyncio.Condition()

    async def until(self, reached) -> None:
        async with self._changed, asyncio.timeout(10):
            await self._changed.wait_for(reached)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def create(self, request) -> Publication:
        if self.trouble:
            self.fired += 1
            await self._tell()
            raise self.trouble
        if request.clip_id not in self.begun:
            self.begun.append(request.clip_id)
            await self._tell()
            await self.open.acquire()
        return Publication(request.clip_id, {who: f"https://v/{who}" for who in request.recipients}, None)

    async def offset(self, clip_id, part) -> int:
        return len(self.held.get((clip_id, part), b""))

    async def append(self, clip_id, part, offset, body, _sha256) -> int:
        held = self.held.setdefault((clip_id, part), bytearray())
        assert offset == len(held)
        async for chunk in body:
            held += chunk
        return len(held)

    async def seal(self, clip_id, _part, _length_bytes, sha256) -> None:
        self.sealed.setdefault(clip_id, []).append(sha256)
        await self._tell()

    async def update(self, _clip_id, _metadata) -> None:
        """Nothing more is wanted of it here."""

    async def probe(self) -> str:
        return "a gate"

    async def aclose(self) -> None:
        """Nothing is held open."""


class Yard:
    """A journal and a spool with clips that wait, and a publisher at work."""

    def __init__(self, clock, journal, spool, channel, host) -> None:
        self.clock, self.journal, self.spool, self.channel, self.host = clock, journal, spool, channel, host
        self.courier = Courier(
            journal=journal, spool=spool, channel=channel, host=host, audience=AUDIENCE, clock=clock, random=Random(1)
        )
        self.publisher = Publisher(
            journal=journal,
            spool=spool,
            host=host,
            courier=self.courier,
            audience=AUDIENCE,
            clock=clock,
            random=Random(1),
        )

    async def open(self, number: int, *, alerted: bool = True, text_after_s: float = 20) -> Incident:
        incident = Incident(id_of(number), Detection("entree", self.clock.monotonic_s(), self.clock.now(), "motion"))
        alert = Owed(EffectKind.ALERT, "a@exemple.fr", self.clock.now() + timedelta(seconds=text_after_s))
        await self.journal.open_incident(incident, [Owed(EffectKind.PUBLISH, ""), *([] if alerted else [alert])])
        return incident

    async def leave(self, number: int, *, alerted: bool = True, text_after_s: float = 20, seconds: int = 1) -> str:
        """A sealed clip in the spool, owed to the host; answers its hash."""
        incident = await self.open(number, alerted=alerted, text_after_s=text_after_s)
        recorder = ClipRecorder(self.spool, incident.id, on_part=lambda _part: None)
        await recorder.write(coded(seconds * FPS))
        parts = await recorder.seal()
        await recorder.aclose()
        await self.journal.record_incident(replace(incident, state=IncidentState.SEALED, parts=parts))
        await self.clock.advance(1)
        return parts[0].sha256

    async def until(self, number: int, reached) -> None:
        """Wait until the journal says so of an incident, time passing meanwhile."""
        async with asyncio.timeout(10):
            while not reached(await self.row(number)):
                await self.clock.advance(10)
                await asyncio.sleep(0.001)  # the journal works in a thread of its own

    async def row(self, number: int):
        row = await self.journal.incident(id_of(number))
        assert row
        return row


@asynccontextmanager
async def yard(tmp_path):
    clock, spool, channel, host = ManualClock(), Spool(tmp_path / "spool"), ScriptedChannel(), Gate()
    async with Journal.open(tmp_path / "journal.sqlite3", clock) as journal:
        yield Yard(clock, journal, spool, channel, host)
    await spool.aclose()


@asynccontextmanager
async def at_work(it: Yard):
    tasks = [asyncio.create_task(it.courier.run()), asyncio.create_task(it.publisher.run())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_what_was_left_in_the_spool_is_published_and_its_incident_closed(tmp_path):
    async with yard(tmp_path) as it:
        sha256 = await it.leave(1)
        async with at_work(it):
            it.host.open.release()
            await it.host.until(lambda: it.host.sealed)
            await it.until(1, lambda row: row.incident.state is IncidentState.CLOSED)
        assert it.host.sealed == {id_of(1): [sha256]}
        assert (await it.row(1)).playable_at is not None


async def test_a_backlog_goes_newest_and_oldest_at_once_and_no_more(tmp_path):
    """The newest is wanted most, and the oldest may not wait for ever."""
    async with yard(tmp_path) as it:
        for number in range(1, 6):
            await it.leave(number)
        async with at_work(it):
            await it.host.until(lambda: len(it.host.begun) == len(BACKLOG))
            assert set(it.host.begun) == {id_of(5), id_of(1)}
            it.host.open.release()
            await it.host.until(lambda: len(it.host.begun) == 3)
            (published,) = it.host.sealed
            assert it.host.begun[2] == {id_of(5): id_of(4), id_of(1): id_of(2)}[published]


async def test_a_backlog_keeps_no_clip_under_way_waiting(tmp_path):
    """Today's incident is announced while every place of the backlog is taken."""
    async with yard(tmp_path) as it:
        for number in range(1, 5):
            await it.leave(number)
        async with at_work(it):
            await it.host.until(lambda: len(it.host.begun) == len(BACKLOG))
            with it.publisher.live(id_of(9)) as reel:
                reel.add(await it.spool.new_part(id_of(9), 0))
                await it.open(9)
                it.publisher.look()
                await it.host.until(lambda: id_of(9) in it.host.begun)


async def test_a_host_that_never_comes_back_is_given_up_after_its_life(tmp_path):
    async with yard(tmp_path) as it:
        await it.leave(1)
        it.host.trouble = HostUnavailable("nobody there")
        await it.clock.advance(LIFE_S)
        async with at_work(it):
            await it.until(1, lambda row: row.incident.state is IncidentState.CLOSED)
        row = await it.row(1)
        assert row.effects[0].state is EffectState.DEAD
        assert row.incident.no_video is NoVideo.REFUSED


async def test_a_refusal_is_final_and_people_are_told_why(tmp_path):
    async with yard(tmp_path) as it:
        await it.leave(1, alerted=False)
        it.host.trouble = HostRefused("no room")
        async with at_work(it):
            await it.channel.until(lambda: it.channel.delivered)
        assert it.channel.delivered[0].no_video is NoVideo.REFUSED
        row = await it.row(1)
        assert (row.incident.no_video, row.incident.problem) == (NoVideo.REFUSED, "no room")


async def test_a_clip_whose_file_is_gone_stays_owed(tmp_path):
    """A disk may come back; a defect may be mended."""
    async with yard(tmp_path) as it:
        await it.leave(1)
        it.spool.part_path(id_of(1), 0).unlink()
        async with at_work(it):
            await it.until(1, lambda row: row.effects[0].attempts)
            (effect,) = (await it.row(1)).effects
        assert effect.state is EffectState.OWED
        assert "not in the spool" in effect.last_error


async def test_a_clip_that_nobody_has_sealed_yet_stays_owed(tmp_path):
    """A start that could not take it up says nothing of what lies in the spool."""
    async with yard(tmp_path) as it:
        await it.open(1)
        async with at_work(it):
            await it.until(1, lambda row: row.effects[0].attempts)
        row = await it.row(1)
        assert row.effects[0].state is EffectState.OWED
        assert row.incident.no_video is None


class TestReel:
    async def test_parts_come_as_they_begin_until_the_end(self):
        reel = Reel()

        async def read() -> list[object]:
            return [part async for part in reel.parts()]

        reading = asyncio.create_task(read())
        reel.add("first")  # type: ignore[arg-type]  # a reel looks into no part
        await asyncio.sleep(0)
        reel.add("second")  # type: ignore[arg-type]
        reel.end()
        assert await reading == ["first", "second"]

    async def test_it_may_be_read_again_from_the_first_part(self):
        """A publication that failed begins anew."""
        reel = Reel.of(["only"])  # type: ignore[list-item]  # a reel looks into no part
        for _ in range(2):
            found: list[object] = [part async for part in reel.parts()]
            assert found == ["only"]
