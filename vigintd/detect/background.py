"""What a scene looks like when nothing moves: a running background of a coarse luma picture.

Owns the arrays of the motion detector, in unsigned bytes throughout (the distance of two bytes is their maximum less their
minimum, and the background is nudged by a level a frame), which is what makes it cheap. How long ago the last frame was
is an argument; detections and options are not its business.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]

BLOCK = 4
"""Cells a side of a block; blocks are what movement is made of."""

_CELLS_ACROSS = 160
_ACTIVE_CELLS = 5
"""Of a block's 16 cells so many must differ: lone cells are noise."""

_SPARSE = 5
"""Every so many cells, both ways, are enough for a median."""

_FRAMES_A_SECOND = 5
_MOST_FRAMES_AT_ONCE = 10
"""A frame after a pause teaches as much as those that were not shown would have, but one look is worth no more than this."""

_LONG_S = 1.0
"""Over a longer pause light changes too, and that is no noise."""

_FOUR_ONES = np.uint32(0x01010101)


def step_of(width_px: int) -> int:
    """How many pixels a cell is wide and high, for a picture of this width."""
    return max(1, round(width_px / _CELLS_ACROSS))


def coarse(luma: Bytes) -> Bytes:
    """About 160 × 90 cells of a picture, each the mean of two of its pixels, cropped to whole blocks."""
    step = step_of(luma.shape[1])
    rows, columns = (length // (step * BLOCK) * BLOCK for length in luma.shape)
    cells = luma[: rows * step : step, : columns * step : step]
    beside = luma[step // 2 : rows * step : step, step // 2 : columns * step : step]
    return (cells >> 1) + (beside >> 1)


def difference(one: Bytes, other: Bytes) -> Bytes:
    """How far apart, cell by cell."""
    return np.maximum(one, other) - np.minimum(one, other)


def brightened(cells: Bytes, levels: int) -> Bytes:
    """All cells lighter by so many levels (darker when negative), within 0–255."""
    if levels >= 0:
        return np.minimum(cells, np.uint8(255 - levels)) + np.uint8(levels)
    return np.maximum(cells, np.uint8(-levels)) - np.uint8(-levels)


def shift(one: Bytes, other: Bytes) -> int:
    """By how many levels `one` is lighter than `other` (darker when negative), in the middle of its cells."""
    flat = (one[::_SPARSE, ::_SPARSE].astype(np.int16) - other[::_SPARSE, ::_SPARSE]).ravel()
    middle = flat.size // 2
    return int(np.partition(flat, middle)[middle])


class Background:
    """A running background of one scene at one size."""

    def __init__(self, first: Bytes) -> None:
        self._level = first.copy()
        self._previous = first
        self._restless = np.zeros_like(first)
        """How much a cell differs in ordinary life: leaves, water, a flickering lamp."""
        self._noise = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns of cells."""
        return self._level.shape

    def moving(self, cells: Bytes, threshold: int, *, pause_s: float = 0.2, noises: float = 6.0) -> tuple[Mask, float]:
        """Blocks that differ from the background and are changing, and the share (0–1) of all cells that differ.

        A change that all cells share (exposure, dusk) is taken off first; noise raises the threshold, to so many times
        its own size. `pause_s` is the time since the last call.
        """
        level = brightened(self._level, shift(cells, self._level))
        since = difference(cells, self._previous)
        self._listen_to_noise(cells, since, pause_s)
        floor = min(250, max(threshold, round(noises * self._noise)))
        apart = difference(cells, level)
        differs = apart > np.maximum(self._restless, np.uint8(floor))
        changes = since > np.uint8(max(floor // 2, 3, round(3 * self._noise)))
        active = _blocks(differs) >= _ACTIVE_CELLS
        if active.any():
            # What stood there when the scene was learnt, or has been put down, differs but does not change.
            active &= _near(_blocks(changes) > 1)
        self._learn(cells, level, apart, changes, min(_MOST_FRAMES_AT_ONCE, max(1, int(pause_s * _FRAMES_A_SECOND))))
        self._previous = cells
        return active, np.count_nonzero(differs) / differs.size

    def _listen_to_noise(self, cells: Bytes, since: Bytes, pause_s: float) -> None:
        if pause_s > _LONG_S:
            since = difference(cells, brightened(self._previous, shift(cells, self._previous)))
        # What moves differs by more than noise does, and shall not count for more.
        now = np.minimum(since[::_SPARSE, ::_SPARSE], np.uint8(64)).mean()
        self._noise += 0.2 * (float(now) - self._noise)

    def _learn(self, cells: Bytes, level: Bytes, apart: Bytes, changes: Mask, frames: int) -> None:
        # A level a frame, and more where the picture differs but rests: an eighth of the way.
        resting = changes.view(np.uint8) - np.uint8(1)
        step = np.maximum(np.minimum(apart, np.uint8(frames)), (apart >> 3) & resting)
        # Up or down: no step is longer than the way, so that bytes that wrap around come out right.
        down = (cells > level).view(np.uint8) - np.uint8(1)
        self._level = level + ((step ^ down) - down)
        # Restlessness is learnt slowly, so that one passer-by does not blind the detector.
        wanted = np.minimum(apart, np.uint8(63)) << 2
        up, less = wanted > self._restless, wanted < self._restless
        self._restless += up.view(np.uint8)
        self._restless -= less.view(np.uint8)


def _blocks(cells: Mask) -> Bytes:
    """How many cells of each block are set."""
    # Four cells side by side are a word, whose bytes a multiplication adds up in its highest byte; rows are added before.
    words = cells.view(np.uint32)
    down = words[0::BLOCK] + words[1::BLOCK] + words[2::BLOCK] + words[3::BLOCK]
    counts: Bytes = ((down * _FOUR_ONES) >> np.uint32(24)).astype(np.uint8)
    return counts


def _near(blocks: Mask) -> Mask:
    """Blocks that are set or touch one that is."""
    padded = np.zeros((blocks.shape[0] + 2, blocks.shape[1] + 2), np.bool_)
    padded[1:-1, 1:-1] = blocks
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    near: Mask = rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]
    return near
