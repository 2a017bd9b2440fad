"""Media times rise, whatever the source's clock does."""

from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from vigintd.camera.times import MediaTimes

STEP = 3600


def test_ticks_of_90_khz_pass_through():
    """The clock of RTP video is ours."""
    times = MediaTimes(Fraction(1, 90_000))
    assert times.next(STEP, 0, 0.0) == (STEP, 0)
    assert times.next(2 * STEP, STEP, 0.04) == (2 * STEP, STEP)


def test_other_ticks_are_rescaled():
    """A file that counts in thousandths."""
    times = MediaTimes(Fraction(1, 1000))
    assert times.next(40, 0, 0.0) == (3600, 0)


def test_what_is_left_out_follows_from_what_came_before():
    """Without a decode time it is decoded when it is shown; without both, a step after the last."""
    times = MediaTimes(Fraction(1, 90_000))
    times.next(0, 0, 0.0)
    assert times.next(STEP, None, 0.04) == (STEP, STEP)
    assert times.next(None, None, 0.08) == (2 * STEP, 2 * STEP)


def test_a_step_back_of_a_little_is_made_good():
    """A muxer wants strictly rising decode times."""
    times = MediaTimes(Fraction(1, 90_000))
    times.next(STEP, STEP, 0.0)
    assert times.next(STEP, STEP, 0.04) == (STEP + 1, STEP + 1)


def test_a_jump_of_the_sources_clock_takes_the_time_between_arrivals():
    """Back to nothing, or hours ahead: the recording's length stays that of the wall clock."""
    times = MediaTimes(Fraction(1, 90_000))
    times.next(10_000_000, 10_000_000, 0.0)
    assert times.next(0, 0, 0.5) == (10_045_000, 10_045_000)
    assert times.next(STEP, STEP, 0.54) == (10_045_000 + STEP, 10_045_000 + STEP)
    assert times.next(10**9, 10**9, 1.54)[1] == 10_045_000 + STEP + 90_000


def test_a_pause_of_the_camera_stays_as_long_as_it_was():
    """Time stamps and arrivals agree, so nothing is bent."""
    times = MediaTimes(Fraction(1, 90_000))
    times.next(0, 0, 0.0)
    assert times.next(20 * 90_000, 20 * 90_000, 20.0)[1] == 20 * 90_000


def test_a_source_without_a_clock_is_dated_by_arrival():
    """Motion JPEG over HTTP has no times of its own."""
    times = MediaTimes(Fraction(1, 90_000))
    assert times.at_arrival(1.0) == (90_000, 90_000)
    assert times.at_arrival(1.0) == (90_001, 90_001)


stamps = st.none() | st.integers(-(2**40), 2**40)


@given(steps=st.lists(st.tuples(stamps, stamps, st.floats(0, 30)), max_size=40))
def test_decode_times_rise_for_any_source(steps):
    """And nothing is shown before it is decoded."""
    times, now_s = MediaTimes(Fraction(1, 90_000)), 0.0
    got = [times.next(0, 0, 0.0)]
    for pts, dts, wait_s in steps:
        now_s += wait_s
        got.append(times.next(pts, dts, now_s))
    assert all(later[1] > earlier[1] for earlier, later in pairwise(got))
    assert all(pts >= dts for pts, dts in got)
