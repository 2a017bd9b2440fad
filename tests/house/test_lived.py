"""Lived time: it goes on as the box lives, whatever anybody sets its wall clock to, and across restarts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manual_clock import ManualClock
from vigintd.clock import SystemClock
from vigintd.lived import FAR_AHEAD_S, STEP_S, Lived, Mark, boot_id, may_go, notice, resumed

NOW = datetime(2026, 3, 14, tzinfo=UTC)
DAY_S = 86_400.0
YEARS_2_S = 730 * DAY_S
MARK = Mark(NOW, NOW, "a boot", 1000.0)

spans_s = st.floats(0, 1e9)
jumps_s = st.floats(-1e9, 1e9)


def later(mark: Mark, *, wall_s: float, monotonic_s: float, boot: str = "a boot") -> Mark:
    """The other clocks after a mark; what has been lived is to be reckoned."""
    return Mark(NOW, mark.wall + timedelta(seconds=wall_s), boot, mark.monotonic_s + monotonic_s)


async def test_it_begins_as_the_wall_clock_and_then_minds_it_no_more():
    clock = ManualClock()
    lived = Lived(clock, None, boot="a boot")
    began = clock.now()
    assert lived.now() == began
    clock.jump(YEARS_2_S)
    await clock.advance(60)
    clock.jump(-3 * YEARS_2_S)
    assert lived.now() == began + timedelta(seconds=60)


async def test_it_goes_on_while_no_process_runs_as_long_as_the_machine_does():
    """To the second, whatever the wall clock did meanwhile."""
    clock = ManualClock()
    mark = Lived(clock, None, boot="a boot").mark()
    await clock.advance(3600)
    clock.jump(-DAY_S)
    assert Lived(clock, mark, boot="a boot").now() == mark.lived + timedelta(hours=1)


@pytest.mark.parametrize("boot", ["another boot", ""])
async def test_a_time_when_the_machine_was_off_counts_nothing(boot):
    """Only its wall clock says how long that was, and it may be wrong. Without a name no two runs are the same."""
    clock = ManualClock()
    mark = replace(Lived(clock, None, boot="a boot").mark(), boot_id=boot and "a boot")
    await clock.advance(3600)
    lived = Lived(clock, mark, boot=boot)
    assert lived.now() == mark.lived
    await clock.advance(5)
    assert lived.now() == mark.lived + timedelta(seconds=5)


@given(wall_s=jumps_s, monotonic_s=jumps_s, boot=st.sampled_from(["a boot", "another"]))
def test_it_is_never_ahead_of_what_has_passed_and_never_goes_back(wall_s, monotonic_s, boot):
    """A monotonic clock that went back is another machine's, whatever its name."""
    lived = resumed(MARK, later(MARK, wall_s=wall_s, monotonic_s=monotonic_s, boot=boot))
    assert timedelta() <= lived - MARK.lived <= timedelta(seconds=max(0, monotonic_s) + 1e-5)


@pytest.mark.parametrize("jump_s", [YEARS_2_S, -DAY_S, STEP_S + 0.1, -STEP_S - 0.1])
def test_a_jump_within_one_run_of_the_machine_is_told_to_the_second(jump_s):
    told = notice(MARK, later(MARK, wall_s=600 + jump_s, monotonic_s=600))
    assert told
    assert (told.event, told.by_s) == ("clock.jumped", round(jump_s, 1))


@given(monotonic_s=spans_s, off_s=st.floats(-STEP_S + 0.01, STEP_S - 0.01))
def test_a_clock_that_is_kept_right_is_nothing_to_tell(monotonic_s, off_s):
    assert notice(MARK, later(MARK, wall_s=monotonic_s + off_s, monotonic_s=monotonic_s)) is None


@pytest.mark.parametrize(
    ("wall_s", "event"),
    [(-DAY_S, "clock.behind"), (-1, None), (3600, None), (FAR_AHEAD_S - 1, None), (YEARS_2_S, "clock.ahead")],
)
def test_after_a_start_of_the_machine_only_a_clock_that_cannot_be_right_is_told(wall_s, event):
    """How long it was off nobody knows; the time at which it was still on is surely over."""
    told = notice(MARK, later(MARK, wall_s=wall_s, monotonic_s=-990, boot="another"))
    assert (told and told.event) == event


@given(kept_s=spans_s, lived_s=spans_s, wall_says_so=st.booleans())
def test_nothing_goes_before_it_has_lived_its_time_and_nothing_stays_after_twice_that(kept_s, lived_s, wall_says_so):
    goes = may_go(kept_s=kept_s, lived_s=lived_s, wall_says_so=wall_says_so)
    assert goes or lived_s < 2 * kept_s
    assert not goes or lived_s >= kept_s
    assert goes == wall_says_so or not kept_s <= lived_s < 2 * kept_s


async def test_people_are_told_a_moment_by_the_wall_clock_as_it_goes_now():
    clock = ManualClock()
    lived = Lived(clock, None)
    due = lived.now() + timedelta(minutes=5)
    clock.jump(-DAY_S)
    await clock.advance(60)
    assert lived.wall(due) == clock.now() + timedelta(minutes=4)


def test_this_machine_has_a_name_for_its_run_and_one_monotonic_clock():
    assert boot_id() == boot_id() != ""
    mark = Lived(SystemClock(), None).mark()
    assert 0 <= (Lived(SystemClock(), mark).now() - mark.lived).total_seconds() < 5
