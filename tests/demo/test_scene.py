"""The scene keeps still for as long as it says, then moves."""

from __future__ import annotations

import numpy as np
import pytest

from vigintd.demo import scene


@pytest.fixture(scope="module")
def pictures():
    return list(scene.pictures())


def moved_pixels(a: scene.Picture, b: scene.Picture) -> int:
    return int((np.abs(a.astype(np.int16) - b).max(axis=2) > 8).sum())


def test_it_is_a_whole_loop_of_colour_pictures(pictures):
    """As many pictures as loop seconds and rate say, all of one size."""
    assert len(pictures) == scene.LOOP_S * scene.FPS
    assert {(picture.shape, picture.dtype.name) for picture in pictures} == {((360, 640, 3), "uint8")}


def test_nothing_moves_until_the_pre_roll_can_be_full(pictures):
    """Every picture of the still seconds is the first one, also the one at which it ends."""
    still = pictures[: round(scene.STILL_S * scene.FPS) + 1]
    assert all(np.array_equal(picture, pictures[0]) for picture in still)


def test_somebody_moves_in_every_picture_afterwards(pictures):
    """From the first movement on, for at least four seconds, no picture equals the one before by more than noise."""
    first = round(scene.STILL_S * scene.FPS) + 1
    moves = [moved_pixels(pictures[number], pictures[number - 1]) for number in range(first, first + 4 * scene.FPS)]
    standing = [move for move in moves if move < 100]
    assert len(standing) < scene.FPS // 2, "but for a moment in the open door"
    assert max(moves) > 1500


def test_the_loop_closes_without_a_jump(pictures):
    """The last pictures are the first again."""
    assert all(np.array_equal(picture, pictures[0]) for picture in pictures[round(scene.MOVED_S * scene.FPS) :])


def test_a_person_is_seen_within_the_first_second_of_movement(pictures):
    """The picture in the mail is taken then: the coat's red is in the open door."""
    picture = pictures[round((scene.STILL_S + 0.7) * scene.FPS)]
    door = picture[116:296, 408:488].astype(np.int16)
    red = (door[..., 0] > 90) & (door[..., 1] < 60) & (door[..., 2] < 60)
    assert red.sum() > 500
