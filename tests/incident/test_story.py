"""The story: how long an incident lasts, and who is told what and when, by a clock that moves by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from tests.clip.pictures import FPS, coded, later
from tests.incident.test_courier import ScriptedChannel
from tests.manual_clock import ManualClock
from vigintd import failpoints
from vigintd.clip.recorder import ClipRecorder
from vigintd.errors import HostRefused, HostUnavailable
from vigintd.incident import Audience, Bounds, Courier, Plan, Publisher, Rooms, Space, Story
from vigintd.incident.story import BATCH_S
from vigintd.journal import EffectState, IncidentRow, Journal
from vigintd.model import AlertKind, Detection, IncidentState, NoVideo, Risk
from vigintd.publish import Capabilities, Publication
from vigintd.ring import Ring
from vigintd.spool import Spool

ID = "00000000-0000-4000-8000-000000000001"
PLAN = Plan(
    audience=Audience("Boutique Rivoli", "fr", ("a@exemple.fr", "b@exemple.fr"), expiry_h=48, text_after_s=20),
    pre_roll_s=2,
    post_roll_s=3,
    max_clip_s=20,
)


@dataclass
class ScriptedHost:
    """A host in memory, absent or refusing for as long as it is told."""

    trouble: Exception | None = None
    playable_at: str = "first_fragment"
    fired: int = 0
    held: dict[int, bytearray] = field(default_factory=dict)
    metadata: dict[str, object] = field(default_factory=dict)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities("creation", self.playable_at, True, True, True, True)  # type: ignore[arg-type]

    def _fault(self) -> None:
        if self.trouble:
            self.fired += 1
            raise self.trouble

    async def create(self, request) -> Publication:
        self._fault()
        return Publication(request.clip_id, {who: f"https://v/video/{who}" for who in request.recipients}, None)

    async def offset(self, _clip_id, part) -> int:
        self._fault()
        return len(self.held.get(part, b""))

    async def append(self, _clip_id, part, offset, body: AsyncIterator[bytes], _sha256) -> int:
        self._fault()
        held = self.held.setdefault(part, bytearray())
        assert offset == len(held)
        async for chunk in body:
            held += chunk
        return len(held)

    async def seal(self, _clip_id, _part, _length_bytes, _sha256) -> None:
        self._fault()

    async def update(self, _clip_id, metadata) -> None:
        self._fault()
        self.metadata.update(metadata)

    async def probe(self) -> str:
        return "scripted"

    async def aclose(self) -> None:
        """Nothing is held open."""


class Stage:
    """A story and all it needs, its ring filled with the five seconds before the detection."""

    def __init__(self, clock, journal, spool, channel, host, *, plan: Plan, filled: bool) -> None:
        self.clock, self.journal, self.spool, self.channel, self.host = clock, journal, spool, channel, host
        self.ring = Ring(camera="entree", span_s=10, limit_bytes=1 << 24)
        self.courier = Courier(
            journal=journal, spool=spool, channel=channel, host=host, audience=plan.audience, clock=clock, random=Random(1)
        )
        self.publisher = Publisher(
            journal=journal,
            spool=spool,
            host=host,
            courier=self.courier,
            audience=plan.audience,
            clock=clock,
            random=Random(1),
        )
        self.space = Space(journal=journal, spool=spool, bounds=Bounds(keep_free_mb=0), expiry_h=48, clock=clock)
        rooms = Rooms(
            journal=journal,
            spool=spool,
            host=host,
            courier=self.courier,
            publisher=self.publisher,
            space=self.space,
            clock=clock,
            random=Random(1),
        )
        packets = coded(5 * FPS)
        if filled:
            self.ring.append(later(packets, arrival_s=clock.monotonic_s() - packets[-1].arrived_s))
        self._changed = asyncio.Event()
        journal.on_change = lambda _incident_id: self._changed.set()
        self.detection = Detection("entree", clock.monotonic_s(), clock.now(), "motion")
        self.story = Story(ID, self.detection, plan=plan, ring=self.ring, rooms=rooms)

    def detect(self, **changes: Any) -> bool:
        return self.story.extend(replace(self.detection, arrived_s=self.clock.monotonic_s(), **changes))

    async def over(self, living: asyncio.Task[None]) -> IncidentRow:
        """The incident once it owes nothing any more."""
        await living
        while True:
            self._changed.clear()
            row: IncidentRow | None = await self.journal.incident(ID)
            assert row
            if row.incident.state is IncidentState.CLOSED:
                return row
            await self._changed.wait()

    async def told(self) -> list[tuple[str, AlertKind, NoVideo | None]]:
        """Who was told what, in order of their names."""
        return sorted((alert.recipient, alert.kind, alert.no_video) for alert in self.channel.delivered)


@asynccontextmanager
async def stage(tmp_path, host: ScriptedHost, *, plan: Plan = PLAN, filled: bool = True):
    clock, spool, channel = ManualClock(), Spool(tmp_path / "spool"), ScriptedChannel()
    async with Journal.open(tmp_path / "journal.sqlite3", clock) as journal:
        it = Stage(clock, journal, spool, channel, host, plan=plan, filled=filled)
        others = [asyncio.create_task(it.courier.run()), asyncio.create_task(it.publisher.run())]
        living = asyncio.create_task(it.story.run())
        await it.story.acknowledged.wait()
        yield it, living
        it.ring.close()
        for task in (living, *others):
            task.cancel()
        await asyncio.gather(living, *others, return_exceptions=True)
    await spool.aclose()


def both(kind: AlertKind, no_video: NoVideo | None = None) -> list[tuple[str, AlertKind, NoVideo | None]]:
    return [(who, kind, no_video) for who in PLAN.audience.recipients]


async def test_the_link_goes_out_as_soon_as_the_first_fragment_plays(tmp_path):
    """No time passes between the detection and the mail with the link."""
    async with stage(tmp_path, ScriptedHost()) as (it, _):
        await it.channel.until(lambda: len(it.channel.delivered) == 2)
        assert await it.told() == both(AlertKind.LINK)
        assert all(alert.snapshot_jpeg for alert in it.channel.delivered)


async def test_the_clip_begins_at_the_key_frame_at_or_before_the_pre_roll(tmp_path):
    async with stage(tmp_path, ScriptedHost()) as (it, _):
        await it.channel.until(lambda: len(it.channel.delivered) == 2)
        row = await it.journal.incident(ID)
        assert row
        # Key frames lie a second apart, the newest picture is of the detection's moment: the GOP that holds -2 s.
        assert row.incident.pre_roll_s is not None
        assert 2 <= row.incident.pre_roll_s < 3


async def test_a_refusal_sends_the_text_at_once(tmp_path):
    """A host that will never take it is not waited for."""
    host = ScriptedHost(trouble=HostRefused("no room"))
    async with stage(tmp_path, host) as (it, _):
        await it.channel.until(lambda: len(it.channel.delivered) == 2)
        assert host.fired
        assert await it.told() == both(AlertKind.TEXT, NoVideo.REFUSED)


async def test_a_silent_host_is_waited_for_until_text_after_s_and_no_longer(tmp_path):
    host = ScriptedHost(trouble=HostUnavailable("nobody there"))
    async with stage(tmp_path, host) as (it, _):
        await it.clock.asleep(3)
        await it.clock.advance(19.9)
        assert host.fired
        assert it.channel.delivered == []
        await it.clock.advance(0.1)
        await it.channel.until(lambda: len(it.channel.delivered) == 2)
        assert await it.told() == both(AlertKind.TEXT, NoVideo.LATE)


async def test_the_link_follows_when_the_host_comes_back(tmp_path):
    host = ScriptedHost(trouble=HostUnavailable("nobody there"))
    async with stage(tmp_path, host) as (it, living):
        await it.clock.asleep(3)
        await it.clock.advance(20)
        await it.channel.until(lambda: len(it.channel.delivered) == 2)
        await it.clock.asleep(2)  # the host's next try, and the courier's
        host.trouble = None
        await it.clock.advance(120)
        await it.channel.until(lambda: len(it.channel.delivered) == 4)
        assert await it.told() == sorted(both(AlertKind.TEXT, NoVideo.LATE) + both(AlertKind.FOLLOW_UP))
        await it.over(living)
        assert host.metadata["ended"] is True


async def test_a_host_whose_links_play_only_at_the_end_gets_a_text_first_and_a_follow_up(tmp_path):
    """When the clip outlasts `text_after_s`, the text goes; the link follows once the clip is sealed there."""
    plan = replace(PLAN, post_roll_s=30, max_clip_s=60)
    async with stage(tmp_path, ScriptedHost(playable_at="end"), plan=plan) as (it, living):
        await it.clock.asleep(2)
        await it.clock.advance(20)
        await it.channel.until(lambda: len(it.channel.delivered) == 2)
        await it.clock.asleep(1)
        await it.clock.advance(10 + BATCH_S)
        await it.channel.until(lambda: len(it.channel.delivered) == 4)
        assert await it.told() == sorted(both(AlertKind.TEXT, NoVideo.LATE) + both(AlertKind.FOLLOW_UP))
        await it.over(living)


async def test_a_camera_that_shows_nothing_leaves_a_text_alert_that_says_so(tmp_path):
    async with stage(tmp_path, ScriptedHost(), filled=False) as (it, living):
        await it.clock.asleep(2)
        await it.clock.advance(3 + BATCH_S)
        await it.channel.until(lambda: len(it.channel.delivered) == 2)
        assert await it.told() == both(AlertKind.TEXT, NoVideo.UNRECORDED)
        assert (await it.over(living)).incident.state is IncidentState.CLOSED


async def test_an_incident_ends_post_roll_after_its_last_detection(tmp_path):
    async with stage(tmp_path, ScriptedHost()) as (it, living):
        await it.clock.asleep()
        await it.clock.advance(2.9)
        assert it.detect()
        await it.clock.advance(2.9)
        assert it.detect()
        await it.clock.advance(3 + BATCH_S)
        assert not it.detect()
        incident = (await it.over(living)).incident
        assert (incident.detections, incident.state) == (3, IncidentState.CLOSED)


async def test_an_incident_never_lasts_longer_than_max_clip(tmp_path):
    """However long it goes on, the clip ends `max_clip_s` after its first picture; what comes later is another incident."""
    async with stage(tmp_path, ScriptedHost()) as (it, living):
        await it.clock.asleep()
        lasted_s = 0
        while it.detect():
            await it.clock.advance(1)
            lasted_s += 1
        await it.clock.advance(BATCH_S)
        await it.over(living)
        assert lasted_s == PLAN.max_clip_s - PLAN.pre_roll_s


async def test_a_later_detection_raises_the_risk_and_never_lowers_it(tmp_path):
    async with stage(tmp_path, ScriptedHost()) as (it, _):
        await it.clock.asleep()
        for risk, becomes in (
            (Risk.MEDIUM, Risk.MEDIUM),
            (Risk.LOW, Risk.MEDIUM),
            (Risk.HIGH, Risk.HIGH),
            (Risk.UNKNOWN, Risk.HIGH),
        ):
            assert it.detect(risk=risk)
            assert it.story.incident.detection.risk is becomes


async def test_a_stopped_camera_ends_the_clip_and_the_clip_says_so(tmp_path):
    async with stage(tmp_path, ScriptedHost()) as (it, living):
        await it.channel.until(lambda: len(it.channel.delivered) == 2)
        it.ring.close()
        (part,) = (await it.over(living)).incident.parts
        assert "stopped" in part.partial


async def test_an_outage_before_the_end_is_told_beside_it(tmp_path):
    """What stopped the clip hides nothing of what is missing within it."""
    async with stage(tmp_path, ScriptedHost()) as (it, living):
        await it.clock.asleep()
        await it.clock.advance(2)
        it.ring.append(later(coded(FPS), arrival_s=it.clock.monotonic_s() - 100))
        it.ring.close()
        (part,) = (await it.over(living)).incident.parts
        assert part.partial == "the camera was away for 2.0 s at 3 s; the camera was stopped"


def assert_all_went_well(it: Stage, row: IncidentRow) -> None:
    assert row.incident.state is IncidentState.CLOSED
    assert row.incident.problem == ""
    assert {effect.state for effect in row.effects} == {EffectState.DONE}
    assert it.host.metadata["ended"] is True


async def test_a_journal_that_cannot_settle_at_first_ends_with_all_settled(tmp_path):
    failpoints.arm("journal.settle.before", "error")
    async with stage(tmp_path, ScriptedHost()) as (it, living):
        await it.channel.until(lambda: len(it.channel.delivered) == 2)
        await it.clock.asleep(2)  # the end of the recording, and the journal's next try
        assert failpoints.fired["journal.settle.before"] == 1
        await it.clock.advance(4)
        assert_all_went_well(it, await it.over(living))
        assert await it.told() == both(AlertKind.LINK)


async def test_a_recorder_that_cannot_be_closed_leaves_nobody_waiting(tmp_path, monkeypatch):
    async def broken(self) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(ClipRecorder, "aclose", broken)
    async with stage(tmp_path, ScriptedHost()) as (it, living):
        await it.clock.asleep()
        await it.clock.advance(3 + BATCH_S)
        assert (await it.over(living)).incident.state is IncidentState.CLOSED
        assert "Input/output error" in it.story.incident.problem
