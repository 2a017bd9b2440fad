"""The machine's clocks, and the wall clock that a test may shift."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from vigintd.clock import SystemClock

SLACK = timedelta(seconds=5)


def test_without_a_file_it_is_the_machines_clock():
    """Aware and in UTC."""
    clock = SystemClock.from_environment({})
    assert clock.now().tzinfo is UTC
    assert abs(clock.now() - datetime.now(UTC)) < SLACK


def test_the_file_shifts_the_wall_clock_while_the_process_runs(tmp_path):
    """It is read at every call, and leaves monotonic time alone."""
    file = tmp_path / "offset"
    clock = SystemClock.from_environment({"VIGINTD_TEST_CLOCK_FILE": str(file)})
    assert abs(clock.now() - datetime.now(UTC)) < SLACK
    before_s = clock.monotonic_s()
    file.write_text("172800")
    assert abs(clock.now() - datetime.now(UTC) - timedelta(hours=48)) < SLACK
    file.write_text("-31536000.5\n")
    assert abs(clock.now() - datetime.now(UTC) + timedelta(days=365)) < SLACK
    assert 0 <= clock.monotonic_s() - before_s < 5


@pytest.mark.parametrize("text", ["", "tomorrow", "nan", "inf", "1e15", "86399999999999", "-1e11", "é"])
def test_a_file_that_means_nothing_is_no_offset(tmp_path, text):
    """Nor is one beyond the calendar."""
    file = tmp_path / "offset"
    file.write_text(text, encoding="utf-8")
    assert abs(SystemClock(file).now() - datetime.now(UTC)) < SLACK


async def test_sleeping_takes_the_loops_time():
    """It returns not before the time has passed."""
    loop = asyncio.get_running_loop()
    before_s = loop.time()
    await SystemClock().sleep(0.01)
    assert loop.time() - before_s >= 0.009
