"""What a scene looks like when nothing moves: a running background of a coarse luma picture.

Owns the arrays of the motion detector, in unsigned bytes throughout (the distance of two bytes is their maximum less their
minimum, and the background is nudged by a level a frame), which is what makes it cheap. Knows nothing of time,
detections or options.
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

    def moving(self, cells: Bytes, threshold: int) -> tuple[Mask, float]:
        """Blocks that differ from the background and are changing, and the share (0–1) of all cells that differ.

        A change that all cells share (exposure, dusk) is taken off first; noise raises the threshold.
        """
        level = brightened(self._level, self._shift(cells))
        since = difference(cells, self._previous)
        self._listen_to_noise(since)
        floor = min(250, max(threshold, round(6 * self._noise)))
        apart = difference(cells, level)
        differs = apart > np.maximum(self._restless, np.uint8(floor))
        changes = since > np.uint8(max(floor // 2, 3))
        active = _blocks(differs) >= _ACTIVE_CELLS
        if active.any():
            # What stood there when the scene was learnt, or has been put down, differs but does not change.
            active &= _near(_blocks(changes) > 1)
        self._learn(cells, level, apart, changes)
        self._previous = cells
        return active, np.count_nonzero(differs) / differs.size

    def _shift(self, cells: Bytes) -> int:
        some = cells[::_SPARSE, ::_SPARSE].astype(np.int16) - self._level[::_SPARSE, ::_SPARSE]
        flat = some.ravel()
        middle = flat.size // 2
        return int(np.partition(flat, middle)[middle])

    def _listen_to_noise(self, since: Bytes) -> None:
        # What moves differs by more than noise does, and shall not count for more.
        now = np.minimum(since[::_SPARSE, ::_SPARSE], np.uint8(64)).mean()
        self._noise += 0.2 * (float(now) - self._noise)

    def _learn(self, cells: Bytes, level: Bytes, apart: Bytes, changes: Mask) -> None:
        # A level a frame, and more where the picture differs but rests: an eighth of the way.
        resting = changes.view(np.uint8) - np.uint8(1)
        step = np.maximum(np.minimum(apart, np.uint8(1)), (apart >> 3) & resting)
        lowest = np.maximum(level, step) - step
        highest = np.minimum(level, ~step) + step
        self._level = np.maximum(np.minimum(cells, highest), lowest)
        # Restlessness is learnt slowly, so that one passer-by does not blind the detector.
        wanted = np.minimum(apart, np.uint8(63)) << 2
        up, down = wanted > self._restless, wanted < self._restless
        self._restless += up.view(np.uint8)
        self._restless -= down.view(np.uint8)


def _blocks(cells: Mask) -> Bytes:
    """How many cells of each block are set."""
    ones = cells.view(np.uint8)
    across = ones[:, 0::BLOCK] + ones[:, 1::BLOCK] + ones[:, 2::BLOCK] + ones[:, 3::BLOCK]
    counts: Bytes = across[0::BLOCK] + across[1::BLOCK] + across[2::BLOCK] + across[3::BLOCK]
    return counts


def _near(blocks: Mask) -> Mask:
    """Blocks that are set or touch one that is."""
    padded = np.zeros((blocks.shape[0] + 2, blocks.shape[1] + 2), np.bool_)
    padded[1:-1, 1:-1] = blocks
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    near: Mask = rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]
    return near
