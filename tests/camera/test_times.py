"""Media times rise and keep to the wall clock, whatever the source's clock does."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vigintd.camera.times import MediaTimes, to_90k

STEP = 3600
SECOND = 90_000


def live() -> MediaTimes:
    return MediaTimes(Fraction(1, SECOND))


def test_ticks_of_90_khz_pass_through():
    """The clock of RTP video is ours."""
    times = live()
    assert times.next(STEP, 0, 0.0) == (STEP, 0)
    assert times.next(2 * STEP, STEP, 0.04) == (2 * STEP, STEP)


def test_other_ticks_are_rescaled():
    """A file that counts in thousandths."""
    times = MediaTimes(Fraction(1, 1000))
    assert times.next(40, 0, 0.0) == (3600, 0)


@given(ticks=st.integers(-(2**62), 2**62), base=st.fractions(Fraction(1, 10**9), 1, max_denominator=10**9))
def test_rescaling_is_exact(ticks, base):
    """To the nearest tick, for any time base and any length."""
    assert abs(to_90k(base)(ticks) - ticks * base * SECOND) <= Fraction(1, 2)


def test_what_is_left_out_follows_from_what_came_before():
    """Without a decode time it is decoded when it is shown; without both, a step after the last."""
    times = live()
    times.next(0, 0, 0.0)
    assert times.next(STEP, None, 0.04) == (STEP, STEP)
    assert times.next(None, None, 0.08) == (2 * STEP, 2 * STEP)


def test_a_step_back_of_a_little_is_made_good():
    """A muxer wants strictly rising decode times."""
    times = live()
    times.next(STEP, STEP, 0.0)
    assert times.next(STEP, STEP, 0.04) == (STEP + 1, STEP + 1)


@pytest.mark.parametrize("jump", [0, 10**9, -(10**9), 2**33, -(2**33), 3 * SECOND])
def test_a_jump_of_the_sources_clock_takes_the_time_between_arrivals(jump):
    """Back to nothing, hours either way, a counter of 33 bits that wraps, or a reconnection a little ahead."""
    times = live()
    times.next(10_000_000, 10_000_000, 0.0)
    start = 10_000_000 + jump if jump else 0
    assert times.next(start, start, 0.5) == (10_045_000, 10_045_000)
    assert times.next(start + STEP, start + STEP, 0.54) == (10_045_000 + STEP, 10_045_000 + STEP)


def test_a_pause_of_the_camera_stays_as_long_as_it_was():
    """Time stamps and arrivals agree, so nothing is bent."""
    times = live()
    times.next(0, 0, 0.0)
    assert times.next(20 * SECOND, 20 * SECOND, 20.0)[1] == 20 * SECOND


def test_what_a_network_held_up_keeps_its_times():
    """Ten seconds of pictures arrive at once: each is a step after the other, and nothing is made longer in the end."""
    times = live()
    for number in range(100):
        times.next(number * STEP, number * STEP, number * 0.04)
    got = [times.next(number * STEP, number * STEP, 14.0 + number / 10_000)[1] for number in range(100, 350)]
    assert all(later - earlier == STEP for earlier, later in pairwise(got))
    assert abs(got[-1] - 349 * STEP) <= SECOND // 10


def test_what_a_camera_had_kept_at_the_beginning_keeps_its_times():
    """A server that hands over its last GOP at once; from then on its clock is believed."""
    times = live()
    got = [times.next(number * STEP, number * STEP, 0.001 * number)[1] for number in range(250)]
    got += [times.next(number * STEP, number * STEP, 0.25 + (number - 250) * 0.04)[1] for number in range(250, 500)]
    assert got == [number * STEP for number in range(500)]


def test_a_clock_that_stood_still_is_made_good_after_a_second():
    """A pause that the time stamps do not show, and no burst after it: the recording would be too short."""
    times = live()
    times.next(0, 0, 0.0)
    got = [times.next(number * STEP, number * STEP, 20 + number * 0.04)[1] for number in range(1, 40)]
    assert abs(got[-1] - (20 + 39 * 0.04) * SECOND) < SECOND


def test_a_file_is_never_bent():
    """It is paced by its own times; only where they jump the next step is like the last."""
    times = MediaTimes(Fraction(1, SECOND), paced=True)
    assert [times.next(at, at, 0.0)[1] for at in (0, STEP, 9 * SECOND, 0, STEP)] == [
        0,
        STEP,
        9 * SECOND,
        18 * SECOND - STEP,
        18 * SECOND,
    ]


def test_a_source_without_a_clock_is_dated_by_arrival():
    """Motion JPEG over HTTP has no times of its own."""
    times = live()
    assert times.at_arrival(1.0) == (90_000, 90_000)
    assert times.at_arrival(1.0) == (90_001, 90_001)
    assert times.at(1.5) == 90_001 + SECOND // 2


stamps = st.none() | st.integers(-(2**40), 2**40)


@settings(deadline=None)
@given(steps=st.lists(st.tuples(stamps, stamps, st.floats(0, 30)), max_size=40), paced=st.booleans())
def test_decode_times_rise_for_any_source(steps, paced):
    """And nothing is shown before it is decoded."""
    times, now_s = MediaTimes(Fraction(1, SECOND), paced=paced), 0.0
    got = [times.next(0, 0, 0.0)]
    for pts, dts, wait_s in steps:
        now_s += wait_s
        got.append(times.next(pts, dts, now_s))
    assert all(later[1] > earlier[1] for earlier, later in pairwise(got))
    assert all(pts >= dts for pts, dts in got)


@settings(deadline=None)
@given(
    speed=st.floats(0.9, 1.1),
    fps=st.sampled_from([1, 5, 12.5, 25]),
    jitter_s=st.lists(st.floats(0, 0.2), min_size=1, max_size=7),
    jumps=st.dictionaries(st.integers(5, 590), st.integers(-(2**34), 2**34) | st.integers(-SECOND, 5 * SECOND), max_size=4),
    without_dts=st.booleans(),
)
def test_a_live_clock_stays_within_a_second_of_the_arrivals(speed, fps, jitter_s, jumps, without_dts):
    """A tenth fast or slow, jumping, wrapping, jittering, with and without decode times."""
    times, raw, furthest = live(), 0.0, 0.0
    count = max(100, round(30 * fps))
    first = None
    for number in range(count):
        raw += SECOND / fps * speed + jumps.get(number, 0)
        arrived_s = number / fps + jitter_s[number % len(jitter_s)]
        ticks = round(raw)
        _, dts = times.next(ticks, None if without_dts and number else ticks, arrived_s)
        first = dts if first is None else first
        furthest = max(furthest, abs((dts - first) / SECOND - (arrived_s - jitter_s[0])))
    # The jitter of the two arrivals compared is no fault of the times.
    assert furthest <= 1 + 2 * 0.2 + 1 / fps
