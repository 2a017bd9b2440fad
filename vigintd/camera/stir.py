"""Whether something might move: the motion detector's eyes, keener than any setting of it.

Owns the hint that a key frame far from the one before it gives, and what it has learnt of how far they usually are (noise,
a clock in the picture, hints that came to nothing). Luma in, yes or no out; times are arguments.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vigintd.detect import GLANCE_S
from vigintd.detect.background import BLOCK, Background, brightened, coarse, difference, shift
from vigintd.detect.blobs import Track, blobs, followed

_LEVELS = 5
"""Grey levels a cell must differ; the keenest motion detector wants 6."""

_NOISES = 4.0
"""The same in times of the noise; every motion detector wants 6."""

_ACTIVE_CELLS = 5
"""So many of a block's cells must differ, as for a motion detector."""

_LEAST_APART = 4.0
_TIMES_USUAL = 1.5
"""Between key frames a block must differ by so many levels, and by so much more than it usually does."""

_RISING, _FALLING = 0.2, 0.01
"""How fast the usual difference is learnt. It falls slowly: the minutes of a clock change once a minute."""

_JUMP_SHARE = 0.5
_MIN_SIGHTINGS = 3
_REACH_BLOCKS = 2


class Stir:
    """Watches one scene at one size, picture by picture in order."""

    def __init__(self) -> None:
        self._background: Background | None = None
        self._tracks: list[Track] = []
        self._last_s = 0.0
        self._key: NDArray[np.uint8] | None = None
        self._usual = np.zeros(0, np.float32)
        self._hint: NDArray[np.float32] | None = None

    def meet(self, luma: NDArray[np.uint8], *, is_still: bool) -> None:
        """A key frame on the way; `is_still` when nothing has moved since the one before it."""
        cells = coarse(luma)
        if is_still and self._key is not None and self._key.shape == cells.shape and cells.size:
            self._learn(_apart(self._key, cells))
        self._key = cells

    def rest(self, *, in_vain: bool) -> None:
        """From here on only key frames come; `in_vain` when nothing had moved since the last hint."""
        hint, self._hint = self._hint, None
        if hint is not None and in_vain:
            self._usual = np.maximum(self._usual, hint) if self._usual.shape == hint.shape else hint

    def might(self, luma: NDArray[np.uint8], now_s: float) -> bool:
        """Whether this key frame is so far from the one before it that what lay between should be looked at."""
        cells = coarse(luma)
        if self._key is None or self._key.shape != cells.shape or not cells.size:
            return True
        apart = _apart(self._key, cells)
        usual = np.maximum(self._usual, self._usual.mean()) if self._usual.shape == apart.shape else np.zeros_like(apart)
        if (apart > np.maximum(_LEAST_APART, _TIMES_USUAL * usual + 1)).any():
            self._hint = apart
            return True
        self._learn(apart)
        self._key = cells
        self.moves(luma, now_s)
        return False

    def _learn(self, apart: NDArray[np.float32]) -> None:
        if self._usual.shape != apart.shape:
            self._usual = apart
            return
        rises = apart > self._usual
        self._usual += (apart - self._usual) * np.where(rises, np.float32(_RISING), np.float32(_FALLING))

    def moves(self, luma: NDArray[np.uint8], now_s: float) -> bool:
        """Whether something has moved over the last few pictures, this being the newest."""
        cells = coarse(luma)
        if not cells.size:
            return False
        pause_s, self._last_s = now_s - self._last_s, now_s
        if pause_s > GLANCE_S:
            self._tracks = []
        if self._background is not None and self._background.shape == cells.shape:
            active, differing = self._background.moving(cells, _LEVELS, pause_s=pause_s, noises=_NOISES)
            if differing <= _JUMP_SHARE:
                self._tracks = followed(self._tracks, blobs(active, 1), now_s, reach=_REACH_BLOCKS)
                return any(track.seen_s == now_s and track.sightings >= _MIN_SIGHTINGS for track in self._tracks)
        # Another light or another scene: it is learnt anew, here as in every detector, which takes a while.
        self._background, self._tracks = Background(cells), []
        return True


def _apart(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How far apart two pictures are, block by block: what so many of its cells as count differ at least.

    A change that all cells share is taken off first.
    """
    apart = difference(other, brightened(one, shift(other, one)))
    rows, columns = apart.shape[0] // BLOCK, apart.shape[1] // BLOCK
    cells = apart.reshape(rows, BLOCK, columns, BLOCK).transpose(0, 2, 1, 3).reshape(rows * columns, BLOCK * BLOCK)
    place = BLOCK * BLOCK - _ACTIVE_CELLS
    return np.partition(cells, place, axis=1)[:, place].astype(np.float32)
