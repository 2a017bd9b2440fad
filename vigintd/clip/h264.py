"""H.264 byte streams: start codes, length prefixes and parameter sets.

Owns the little that must be known of ITU-T H.264 to put a stream into MP4: annex B (start codes), the `avcC` record
and its length-prefixed units (ISO/IEC 14496-15, section 5), and which units are parameter sets. Pure: bytes in, bytes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

START_CODE = b"\0\0\0\1"

_SHORT_START_CODE = b"\0\0\1"
_SLICES = range(1, 6)
"""nal_unit_type of coded slices (table 7-1); parameter sets come before the first of them."""
_IDR = 5
_PARAMETER_SETS = frozenset({7, 8, 13})
"""SPS, PPS and SPS extension."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a stream's extradata says."""

    parameter_sets: tuple[bytes, ...]
    """SPS and PPS without start codes; empty when they only come in-band."""
    length_bytes: int
    """Size of the length before each unit of a packet; 0 when packets are in annex B."""


def read_extradata(extradata: bytes) -> Setup:
    """The set-up in extradata: annex B, an `avcC` record, or nothing. A cut record gives what was whole."""
    if extradata[:1] != b"\1" or len(extradata) < 7:
        return Setup(parameter_sets(extradata), 0)
    found: list[bytes] = []
    at = 5
    for mask in (0x1F, 0xFF):  # count of SPS in five bits, then count of PPS
        count = extradata[at] & mask if at < len(extradata) else 0
        at += 1
        for _ in range(count):
            size = int.from_bytes(extradata[at : at + 2])
            unit = extradata[at + 2 : at + 2 + size]
            at += 2 + size
            if size and len(unit) == size:
                found.append(unit)
    return Setup(tuple(found), (extradata[4] & 3) + 1)


def parameter_sets(data: bytes) -> tuple[bytes, ...]:
    """The parameter sets that stand before the first slice of an annex B access unit, without start codes."""
    return tuple(unit for unit in leading_units(data, is_slice) if unit[0] & 0x1F in _PARAMETER_SETS)


def is_idr(data: bytes) -> bool:
    """Whether an annex B access unit is an IDR picture: nothing behind it looks at anything before it."""
    at = first_slice(data, is_slice)
    return at is not None and data[at] & 0x1F == _IDR


def is_slice(first: int) -> bool:
    """Whether a unit with this first byte is a coded slice."""
    return first & 0x1F in _SLICES


def annex_b(data: bytes, length_bytes: int) -> bytes:
    """An access unit with start codes, from one with length prefixes of `length_bytes` (0: it has them already).

    One that does not add up is returned as it is: better a decoder conceals it than a clip ends over it.
    """
    if not length_bytes:
        return data
    out = bytearray()
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + length_bytes])
        at += length_bytes
        if not 0 < size <= len(data) - at:
            return data
        out += START_CODE
        out += data[at : at + size]
        at += size
    return bytes(out)


def joined(units: Sequence[bytes]) -> bytes:
    """Units as annex B."""
    return b"".join(START_CODE + unit for unit in units)


def leading_units(data: bytes, is_slice: Callable[[int], bool]) -> Iterator[bytes]:
    """Units up to the first slice, so that a large key frame is not searched to its end."""
    at = data.find(_SHORT_START_CODE)
    while at >= 0:
        begin = at + 3
        if begin >= len(data) or is_slice(data[begin]):
            return
        at = data.find(_SHORT_START_CODE, begin)
        end = at if at >= 0 else len(data)
        # A unit never ends in zero bytes (section 7.4.1); those are the next start code's, or padding.
        if unit := data[begin:end].rstrip(b"\0"):
            yield unit


def first_slice(data: bytes, is_slice: Callable[[int], bool]) -> int | None:
    """Where the first slice of an annex B access unit begins, behind its start code."""
    at = data.find(_SHORT_START_CODE)
    while 0 <= at < len(data) - 3:
        if is_slice(data[at + 3]):
            return at + 3
        at = data.find(_SHORT_START_CODE, at + 3)
    return None
