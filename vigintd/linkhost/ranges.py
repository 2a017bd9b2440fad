"""The Range header of RFC 9110, section 14: one range of bytes, or all of them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

# 18 digits hold every file there is, and keep a stranger's number small.
_ONE_RANGE = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `first` to `last`, both included."""

    first: int
    last: int

    @property
    def length(self) -> int:
        """Number of bytes."""
        return self.last - self.first + 1


class Unsatisfiable(ValueError):
    """The range begins at or after the end: 416."""


def parse(header: str | None, size_bytes: int) -> ByteRange | None:
    """The range asked of something of `size_bytes`, or None for the whole.

    A missing, malformed or foreign header and a list of several ranges mean the whole, as section 14.2 lets a
    server do. Raises `Unsatisfiable` where no byte is meant.
    """
    match = _ONE_RANGE.fullmatch(header) if header is not None else None
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        suffix = int(match[2])
        if suffix == 0 or size_bytes == 0:
            raise Unsatisfiable
        return ByteRange(max(0, size_bytes - suffix), size_bytes - 1)
    first = int(match[1])
    last = int(match[2]) if match[2] else size_bytes - 1
    if match[2] and last < first:
        return None
    if first >= size_bytes:
        raise Unsatisfiable
    return ByteRange(first, min(last, size_bytes - 1))
