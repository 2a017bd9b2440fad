"""The sidecar of an incident: it follows the row, and stands in nobody's way."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.incident.test_publisher import Yard, id_of, yard
from tests.journal.test_journal import incident
from tests.manual_clock import ManualClock
from vigintd.incident import Memory, memory
from vigintd.incident.memory import GATHER_S, RETRY_S
from vigintd.journal import Effect, EffectKind, EffectState, IncidentRow
from vigintd.model import Incident, IncidentState, NoVideo, Original, Risk, SealedPart


@asynccontextmanager
async def remembered(tmp_path):
    """A yard whose journal is followed; time stands still until a test moves it."""
    async with yard(tmp_path) as it:
        keeper = Memory(journal=it.journal, spool=it.spool, clock=it.clock)
        following = asyncio.create_task(keeper.run())
        yield it, keeper
        following.cancel()
        await asyncio.wait({following})


async def sidecar(it: Yard, number: int) -> IncidentRow:
    content = await it.spool.read_kept(id_of(number), memory.SUFFIX)
    assert content
    return memory.read(id_of(number), content)


async def test_a_sidecar_is_written_with_the_row_and_follows_it(tmp_path):
    """First at once, then with what changed within a second, whoever changed it."""
    async with remembered(tmp_path) as (it, _):
        opened = await it.open(1, alerted=False)
        await it.clock.asleep()
        assert await sidecar(it, 1) == await it.row(1)
        await it.journal.record_incident(replace(opened, state=IncidentState.SEALED, pre_roll_s=9.5))
        await it.journal.settle(f"{opened.id}/alert/a@exemple.fr")
        assert {effect.state for effect in (await sidecar(it, 1)).effects} == {EffectState.OWED}
        await it.clock.advance(GATHER_S)
        await it.clock.asleep()
        assert await sidecar(it, 1) == await it.row(1)


async def test_a_disk_that_does_not_take_it_is_tried_again_and_loses_nothing(tmp_path, monkeypatch):
    async with remembered(tmp_path) as (it, _):
        keep = it.spool.keep
        failed: list[str] = []

        async def failing(incident_id, suffix, data):
            if len(failed) < 2:
                failed.append(incident_id)
                raise OSError(28, "No space left on device")
            return await keep(incident_id, suffix, data)

        monkeypatch.setattr(it.spool, "keep", failing)
        for number in (1, 2):
            await it.open(number)
        for _ in range(2):
            await it.clock.asleep()
            await it.clock.advance(RETRY_S)
        await it.clock.asleep()
        assert failed == [id_of(1)] * 2
        for number in (1, 2):
            assert await sidecar(it, number) == await it.row(number)


async def test_a_daemon_that_died_before_it_wrote_is_made_up_for(tmp_path):
    """What is unfinished at the start is written again."""
    async with yard(tmp_path) as it:
        await it.open(1)
    async with remembered(tmp_path) as (it, _):
        await it.clock.asleep()
        assert await sidecar(it, 1) == await it.row(1)


async def test_a_daemon_that_died_when_all_was_over_is_made_up_for_too(tmp_path):
    """Nobody is told twice should the journal be lost later. An incident that was let go gets no sidecar again."""
    async with remembered(tmp_path) as (it, _):
        opened = [await it.open(number) for number in (1, 2)]
        await it.clock.asleep()
    async with yard(tmp_path) as it:
        for incident in opened:
            await it.journal.record_incident(replace(incident, state=IncidentState.SEALED))
            await it.journal.settle(f"{incident.id}/publish/")
        await it.spool.remove(id_of(2))
    async with remembered(tmp_path) as (it, _):
        await it.clock.asleep()
        assert (await it.row(1)).incident.state is IncidentState.CLOSED
        assert await sidecar(it, 1) == await it.row(1)
        assert await it.spool.incidents() == [id_of(1)]


async def test_two_who_write_at_once_take_turns(tmp_path):
    """At a stop the rest is written while a write may be under way."""
    async with remembered(tmp_path) as (it, keeper):
        await it.open(1)
        await asyncio.gather(*(keeper.run_once() for _ in range(5)))
        assert await sidecar(it, 1) == await it.row(1)
        assert not [path for path in it.spool.root.iterdir() if path.name.startswith(".")]


CLOCK = ManualClock()
TEXT = st.text(st.characters(exclude_categories=()), max_size=40)
EFFECTS = st.builds(
    Effect,
    key=st.just(""),
    incident_id=st.just(incident(CLOCK).id),
    kind=st.sampled_from(EffectKind),
    what=st.emails(),
    state=st.sampled_from(EffectState),
    attempts=st.integers(0, 99),
    owed_at=st.just(CLOCK.now()),
    next_try_at=st.just(CLOCK.now()),
    settled_at=st.none() | st.just(CLOCK.now()),
    last_error=st.text(max_size=40),
)
INCIDENTS = st.builds(
    Incident,
    id=st.just(incident(CLOCK).id),
    detection=st.builds(replace, st.just(incident(CLOCK).detection), text=TEXT, type=TEXT, risk=st.sampled_from(Risk)),
    state=st.sampled_from(IncidentState),
    detections=st.integers(1, 999),
    ended_at=st.none() | st.just(CLOCK.now()),
    pre_roll_s=st.none() | st.floats(0, 60),
    parts=st.lists(st.builds(SealedPart, st.integers(0, 9), st.integers(0), st.just("ab" * 32), st.floats(0, 99))).map(tuple),
    originals=st.lists(st.builds(Original, st.integers(0, 9), st.just("hevc"), st.integers(0), st.just("ab" * 32))).map(tuple),
    no_video=st.none() | st.sampled_from(NoVideo),
    problem=st.text(max_size=40),
)


@given(INCIDENTS, st.none() | st.just(CLOCK.now()), st.integers(0, 3), st.lists(EFFECTS, max_size=3))
def test_a_sidecar_reads_back_as_the_row_it_was_written_from(of, playable_at, takeovers, effects):
    """Whatever a detector said, half characters too."""
    row = IncidentRow(of, playable_at, takeovers, tuple(effects))
    assert memory.read(of.id, memory.written(row)) == replace(row, incident=replace(of, problem=row.incident.problem))
