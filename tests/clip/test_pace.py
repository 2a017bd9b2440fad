"""An encode that does not keep up gives way: first the size, then the rate, and no further than it must."""

import pytest

from vigintd.clip.pace import BEHIND_S, ENOUGH, WINDOW_S, Pace, Reduction

TICKS = 3600
FAR_90K = round(BEHIND_S * 90_000) + 1


def steps(pace: Pace, cost_s, *, pictures: int = 2000, behind_90k: int = FAR_90K) -> list[Reduction]:
    """The steps taken over so many pictures, each of which costs what `cost_s` says of the size now."""
    return [pace.step_down() for _ in range(pictures) if pace.note(TICKS, cost_s(pace.now), behind_90k)]


def test_the_size_gives_way_before_the_rate():
    """Down to 640 pixels of width, the shape kept, then every second picture, then every fourth, and that is all."""
    assert steps(Pace(2560, 1440), lambda _: 1.0) == [
        Reduction(1920, 1080),
        Reduction(1280, 720),
        Reduction(960, 540),
        Reduction(640, 360),
        Reduction(640, 360, 2),
        Reduction(640, 360, 4),
    ]


def test_a_small_picture_gives_way_in_rate_only():
    """What is not wider than 640 pixels keeps its size."""
    assert steps(Pace(352, 288), lambda _: 1.0) == [Reduction(352, 288, 2), Reduction(352, 288, 4)]


def test_no_more_is_given_up_than_is_needed():
    """A cost that goes with the pixels ends at the first size that keeps up."""
    pace = Pace(1920, 1080)
    assert steps(pace, lambda now: 0.06 * now.width_px * now.height_px / (1920 * 1080)) == [Reduction(1280, 720)]
    assert pace.is_reduced


@pytest.mark.parametrize(("speed", "gives_way"), [(ENOUGH * 1.01, False), (ENOUGH * 0.99, True)])
def test_who_makes_up_for_the_pre_roll_in_time_is_let_alone(speed, gives_way):
    """A little faster than the clock is enough."""
    assert bool(steps(Pace(1920, 1080), lambda _: 0.04 / speed, pictures=200)) is gives_way


def test_who_is_not_behind_is_let_alone():
    """However slow, what is up with its source costs nobody anything."""
    assert steps(Pace(1920, 1080), lambda _: 1.0, behind_90k=FAR_90K - 1) == []


def test_one_slow_picture_is_no_reason():
    """The work of a whole window is judged, not a moment's."""
    pace = Pace(1920, 1080)
    costs = iter([WINDOW_S * 0.5] + [0.01] * 500)
    assert steps(pace, lambda _: next(costs), pictures=500) == []


def test_it_is_said_in_words():
    """Size, and rate where that gave way too."""
    pace = Pace(1280, 720)
    assert (pace.worded, pace.is_reduced) == ("1280x720", False)
    steps(pace, lambda _: 1.0)
    assert pace.worded == "640x360 at 6.25 fps"
    assert Reduction(1280, 720, 2).worded(25) == "1280x720 at 12.5 fps"
