"""From active blocks to things that move: connected blobs, and blobs followed from frame to frame.

Owns "the same thing, a moment later". Times are arguments; the scene and its noise are `background`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

_MAX_BLOBS = 32
"""Of more blobs than this only the largest are followed."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Connected active blocks: their bounding rectangle, in blocks, and how many they are."""

    left: int
    top: int
    right: int
    """One past the last column."""
    bottom: int
    """One past the last row."""
    blocks: int

    def touches(self, other: Blob, reach: int) -> bool:
        """Whether the rectangles overlap or come within `reach` blocks of each other."""
        return (
            self.left < other.right + reach
            and other.left < self.right + reach
            and self.top < other.bottom + reach
            and other.top < self.bottom + reach
        )


@dataclass(frozen=True, slots=True)
class Track:
    """A blob followed over frames."""

    blob: Blob
    since_s: float
    seen_s: float
    sightings: int
    missed: int = 0
    """Frames since it was last seen."""


def blobs(active: NDArray[np.bool_], least_blocks: int) -> list[Blob]:
    """Connected (by side or corner) groups of at least so many blocks, largest first, at most 32."""
    at_rows, at_columns = np.nonzero(active)
    left_over = set(zip(at_rows.tolist(), at_columns.tolist(), strict=True))
    found = []
    while left_over:
        members = list(_connected(left_over))
        if len(members) >= least_blocks:
            rows, columns = [row for row, _ in members], [column for _, column in members]
            found.append(Blob(min(columns), min(rows), max(columns) + 1, max(rows) + 1, len(members)))
    return sorted(found, key=lambda blob: -blob.blocks)[:_MAX_BLOBS]


def _connected(left_over: set[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """One group, taken out of what is left."""
    waiting = [left_over.pop()]
    while waiting:
        row, column = waiting.pop()
        yield row, column
        for neighbour in [(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)]:
            if neighbour in left_over:
                left_over.remove(neighbour)
                waiting.append(neighbour)


def followed(tracks: Sequence[Track], found: Sequence[Blob], now_s: float, *, reach: int, patience: int = 2) -> list[Track]:
    """The tracks after this frame: continued where a blob is near, begun where none was, dropped when unseen for too long.

    That is in more frames than `patience`. A blob continues the oldest track that it touches; two that merge go on as one.
    """
    went_on: list[Track] = []
    left = sorted(tracks, key=lambda track: track.since_s)
    for blob in found:
        near = next((track for track in left if track.blob.touches(blob, reach)), None)
        if near is None:
            went_on.append(Track(blob, now_s, now_s, 1))
        else:
            left.remove(near)
            went_on.append(Track(blob, near.since_s, now_s, near.sightings + 1))
    return went_on + [replace(track, missed=track.missed + 1) for track in left if track.missed < patience]
