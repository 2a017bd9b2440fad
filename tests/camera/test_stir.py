"""Stir: whether something might move, from key frames and from pictures in a row."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.detect.frames import noisy, room, with_person
from vigintd.camera.stir import Stir

ROOM = room()


def quiet(stir: Stir, *, until_s: int = 30, picture_at: Callable[[int], np.ndarray] = lambda _: ROOM) -> None:
    """Key frames every two seconds of a scene in which nothing moves, whatever they hint at."""
    stir.meet(noisy(picture_at(0), 2, 0), is_still=False)
    for t in range(2, until_s, 2):
        picture = noisy(picture_at(t), 2, t)
        if stir.might(picture, t):
            stir.meet(picture, is_still=False)
            stir.rest(in_vain=True)


def test_key_frames_of_a_still_scene_give_no_hint():
    stir = Stir()
    quiet(stir)
    assert not any(stir.might(noisy(ROOM, 2, t), t) for t in range(30, 60, 2))


@pytest.mark.parametrize("size", [(60, 20), (18, 7)])
@pytest.mark.parametrize("grey", [10, 90])
def test_somebody_new_in_a_key_frame_does(size, grey):
    stir = Stir()
    quiet(stir)
    assert stir.might(noisy(with_person(ROOM, 0.5, size=size, grey=grey), 2, 99), 30)


def test_a_hint_is_as_if_the_picture_had_not_been_shown():
    """It comes again, after what lay between."""
    stir = Stir()
    quiet(stir)
    assert stir.might(with_person(ROOM, 0.5), 30)
    assert stir.might(with_person(ROOM, 0.5), 32)


def test_light_that_all_cells_share_gives_none():
    stir = Stir()
    quiet(stir)
    assert not any(stir.might(np.clip(noisy(ROOM, 2, t) - np.uint8(t // 2), 0, 255), t) for t in range(30, 60, 2))


def test_where_hints_came_to_nothing_they_end_and_elsewhere_not():
    """A clock in the picture."""

    def clock(t: int) -> np.ndarray:
        picture = ROOM.copy()
        picture[10:20, 10:60] = np.random.default_rng(t).integers(0, 2, (2, 10)).repeat(5, 0).repeat(5, 1) * 235
        return picture

    stir = Stir()
    quiet(stir, until_s=60, picture_at=clock)
    assert not any(stir.might(noisy(clock(t), 2, t), t) for t in range(60, 90, 2))
    assert stir.might(with_person(clock(90), 0.5), 90)


def test_somebody_who_walks_moves_within_a_second():
    stir = Stir()
    quiet(stir)
    pictures = [noisy(with_person(ROOM, number / 25), 2, number) for number in range(6)]
    assert any(stir.moves(picture, 30 + number / 5) for number, picture in enumerate(pictures))


def test_what_ticks_does_not_move():
    """A change each second, and none between."""
    stir = Stir()
    assert stir.moves(ROOM, 29)
    pictures = [with_person(ROOM, 0.2 + 0.4 * (number // 5 % 2), size=(12, 12)) for number in range(50)]
    assert not any(stir.moves(noisy(picture, 1, number), 30 + number / 5) for number, picture in enumerate(pictures))


def test_a_picture_too_small_to_have_blocks_might_be_anything():
    """And breaks nothing."""
    stir = Stir()
    stir.meet(np.zeros((2, 3), np.uint8), is_still=True)
    assert stir.might(np.zeros((2, 3), np.uint8), 1)
    assert not stir.moves(np.zeros((2, 3), np.uint8), 2)
