"""What was given up can be tried again: it is owed anew, its incident is open again, and nobody is promised too much."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

from tests.journal.test_journal import alert, incident
from tests.manual_clock import ManualClock
from vigintd.journal import Effect, EffectKind, EffectState, IncidentRow, Journal, Owed
from vigintd.model import Incident, IncidentState, NoVideo, SealedPart

PARTS = (SealedPart(0, 1234, "ab" * 32, 29.5),)
PUBLISH = Owed(EffectKind.PUBLISH, "")


class Desk:
    def __init__(self, clock: ManualClock, journal: Journal) -> None:
        self.clock, self.journal = clock, journal

    async def open(self, number: int = 1, *, parts: tuple[SealedPart, ...] = PARTS) -> Incident:
        """A sealed incident that owes one alert and its publication."""
        opened = incident(self.clock, number)
        await self.journal.open_incident(opened, [alert("a"), PUBLISH])
        await self.journal.record_incident(replace(opened, state=IncidentState.SEALED, parts=parts))
        return opened

    async def give_up_publishing(self, opened: Incident, why: str = "no room") -> None:
        await self.journal.bury(f"{opened.id}/publish/", why, no_video=NoVideo.REFUSED)

    async def revive(self, opened: Incident | None = None) -> list[str]:
        revived = await self.journal.revive(opened.id if opened else None, links_until=self.links_until)
        return sorted(effect.key.split("/", 1)[1] for effect in revived)

    @property
    def links_until(self):
        return self.clock.now() + timedelta(hours=48)

    async def row(self, opened: Incident) -> IncidentRow:
        row = await self.journal.incident(opened.id)
        assert row
        return row

    async def effects(self, opened: Incident) -> dict[EffectKind, Effect]:
        return {effect.kind: effect for effect in (await self.row(opened)).effects}


@asynccontextmanager
async def desk(tmp_path):
    clock = ManualClock()
    async with Journal.open(tmp_path / "journal.sqlite3", clock) as journal:
        yield Desk(clock, journal)


async def test_an_alert_that_was_given_up_begins_a_new_life(tmp_path):
    """Its age and its delays count from now on; its incident is open again, and published as before."""
    async with desk(tmp_path) as it:
        opened = await it.open()
        await it.journal.settle(f"{opened.id}/publish/")
        await it.journal.bury(f"{opened.id}/alert/a", "535 wrong password")
        assert (await it.row(opened)).incident.state is IncidentState.CLOSED
        await it.clock.advance(10 * 86_400)
        assert await it.revive(opened) == ["alert/a"]
        effect = (await it.effects(opened))[EffectKind.ALERT]
        assert (effect.state, effect.attempts, effect.settled_at) == (EffectState.OWED, 0, None)
        assert effect.owed_at == effect.next_try_at == it.clock.now()
        assert (await it.row(opened)).incident.state is IncidentState.PUBLISHED
        await it.journal.settle(effect.key)
        assert (await it.row(opened)).incident.state is IncidentState.CLOSED


async def test_a_clip_that_was_refused_may_come_after_all(tmp_path):
    """Nothing says any more that it never will, and who was told so is owed the link."""
    async with desk(tmp_path) as it:
        opened = await it.open()
        await it.give_up_publishing(opened)
        await it.journal.settle(f"{opened.id}/alert/a")
        assert (await it.row(opened)).incident.state is IncidentState.CLOSED
        assert await it.revive(opened) == ["publish/"]
        now = (await it.row(opened)).incident
        assert (now.state, now.no_video, now.problem) == (IncidentState.SEALED, None, "")
        effects = await it.effects(opened)
        assert effects[EffectKind.PUBLISH].next_try_at == it.clock.now()
        assert effects[EffectKind.FOLLOW_UP].next_try_at == it.links_until
        await it.journal.record_playable(opened.id)
        assert [effect.what for effect in await it.journal.due(EffectKind.FOLLOW_UP)] == ["a"]


async def test_who_has_the_link_already_is_owed_none(tmp_path):
    """The clip played, and broke off for good later."""
    async with desk(tmp_path) as it:
        opened = await it.open()
        await it.journal.record_playable(opened.id)
        await it.journal.settle(f"{opened.id}/alert/a")
        await it.journal.bury(f"{opened.id}/publish/", "gave up after 40 attempts")
        assert await it.revive(opened) == ["publish/"]
        assert EffectKind.FOLLOW_UP not in await it.effects(opened)


async def test_another_problem_stays(tmp_path):
    """That the host takes the clip now mends no camera."""
    async with desk(tmp_path) as it:
        opened = await it.open()
        row = await it.row(opened)
        await it.journal.record_incident(replace(row.incident, problem="the lens is dirty"))
        await it.give_up_publishing(opened)
        await it.revive(opened)
        assert (await it.row(opened)).incident.problem == "the lens is dirty"


async def test_a_follow_up_waits_for_its_link_again(tmp_path):
    async with desk(tmp_path) as it:
        opened = await it.open()
        await it.journal.settle(f"{opened.id}/alert/a", Owed(EffectKind.FOLLOW_UP, "a", it.links_until))
        await it.journal.bury(f"{opened.id}/publish/", "gave up")
        await it.journal.bury(f"{opened.id}/follow_up/a", "the clip never came")
        assert await it.revive(opened) == ["follow_up/a", "publish/"]
        assert (await it.effects(opened))[EffectKind.FOLLOW_UP].next_try_at == it.links_until


async def test_what_waits_for_its_next_try_is_due_now_and_keeps_its_age(tmp_path):
    """The server is back, and somebody says so; what was never tried waits for its time."""
    async with desk(tmp_path) as it:
        opened = incident(it.clock)
        later = it.clock.now() + timedelta(hours=1)
        await it.journal.open_incident(opened, [alert("tried"), alert("untried", later)])
        await it.journal.postpone(f"{opened.id}/alert/tried", "451", later)
        owed_at = it.clock.now()
        await it.clock.advance(60)
        assert await it.revive(opened) == ["alert/tried"]
        (effect,) = await it.journal.due(EffectKind.ALERT)
        assert (effect.what, effect.attempts, effect.owed_at) == ("tried", 1, owed_at)


async def test_a_clip_of_which_nothing_was_recorded_is_not_tried_again_nor_listed(tmp_path):
    """However often: there is nothing to publish. Its alert is another matter."""
    async with desk(tmp_path) as it:
        opened = await it.open(parts=())
        await it.journal.bury(f"{opened.id}/publish/", "nothing was recorded")
        await it.journal.settle(f"{opened.id}/alert/a")
        assert await it.revive(opened) == []
        assert (await it.row(opened)).incident.state is IncidentState.CLOSED
        assert await it.journal.incidents(owing=True) == []
        other = await it.open(2, parts=())
        await it.journal.bury(f"{other.id}/publish/", "nothing was recorded")
        await it.journal.bury(f"{other.id}/alert/a", "550 no such user")
        assert await it.revive(other) == ["alert/a"]


async def test_all_incidents_are_revived_at_once_and_others_are_left_alone(tmp_path):
    async with desk(tmp_path) as it:
        given_up = [await it.open(number) for number in (1, 2)]
        for opened in given_up:
            await it.give_up_publishing(opened)
        well = await it.open(3)
        await it.journal.settle(f"{well.id}/alert/a")
        before = await it.row(well)
        assert await it.revive(given_up[0]) == ["publish/"]
        await it.journal.bury(f"{given_up[0].id}/publish/", "again")
        assert await it.revive() == ["publish/", "publish/"]
        assert await it.row(well) == before


async def test_what_owes_or_gave_up_something_is_listed_newest_first(tmp_path):
    async with desk(tmp_path) as it:
        for number in (1, 2, 3):
            opened = await it.open(number)
            await it.clock.advance(1)
            await it.journal.settle(f"{opened.id}/alert/a")
            if number == 2:
                await it.journal.settle(f"{opened.id}/publish/")
        await it.journal.bury(f"{incident(it.clock, 1).id}/publish/", "no room")
        assert [row.incident.id[-1] for row in await it.journal.incidents(owing=True)] == ["3", "1"]
        assert [row.incident.id[-1] for row in await it.journal.incidents(owing=True, limit=1)] == ["3"]
        assert len(await it.journal.incidents()) == 3
