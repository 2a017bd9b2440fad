"""Boxes of ISO base media (ISO/IEC 14496-12, section 4.2): where one begins and ends, and what its fields hold.

Owns the bounds: no field is read beyond its box, no box beyond the one that holds it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator


def header(data: bytes | bytearray | memoryview) -> tuple[bytes, int, int] | None:
    """Kind, header length and whole length of the box that begins here; None when its header is not whole."""
    if len(data) < 8:
        return None
    size, kind = struct.unpack_from(">I4s", data)
    header_bytes = 8
    if size == 1:
        if len(data) < 16:
            return None
        (size,) = struct.unpack_from(">Q", data, 8)
        header_bytes = 16
    if size < header_bytes:
        # 0 means "to the end of the file" (section 4.2.2), which a growing file has none of.
        raise ValueError(f"a box {kind!r} of {size} bytes")
    return kind, header_bytes, size


def boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The kinds and bodies of the boxes that fill `data`; `ValueError` where one reaches beyond it."""
    at = 0
    while at < len(data):
        found = header(data[at : at + 16])
        if found is None:
            raise ValueError("a box is cut")
        kind, header_bytes, size = found
        if at + size > len(data):
            raise ValueError(f"a box {kind!r} reaches beyond the box that holds it")
        yield kind, data[at + header_bytes : at + size]
        at += size


def unpack(layout: str, data: memoryview, at: int = 0) -> tuple[int, ...]:
    """The fields at byte `at`; `ValueError` where the box is too short for them."""
    try:
        return struct.unpack_from(layout, data, at)
    except struct.error as error:
        raise ValueError("a box is too short for its fields") from error


def version_flags(body: memoryview) -> tuple[int, int]:
    """What every FullBox begins with (section 4.2.2)."""
    (word,) = unpack(">I", body)
    return word >> 24, word & 0xFF_FFFF
