"""AAC as bytes: its two forms of set-up, and the header that lets a frame describe itself.

Owns the little of ISO/IEC 14496-3 and 13818-7 that putting AAC into MP4 takes. Pure: bytes in, bytes out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

FRAME_SAMPLES = 1024
"""Samples of each channel in one frame, before spectral band replication."""

RATES_HZ = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
"""By sampling frequency index (ISO/IEC 14496-3, table 1.18)."""

_HEADER_BYTES = 7
_MAX_FRAME_BYTES = (1 << 13) - 1
_SPECTRAL_BANDS = (5, 29)
"""Object types that only say that replication (and parametric stereo) goes on top of another type."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a decoder must know before the first frame."""

    object_type: int
    """1–4: what a header can say; 2 is LC, what cameras send."""
    rate_index: int
    channels: int
    """1 or 2."""

    @property
    def rate_hz(self) -> int:
        """Samples a second of the core, before any replication."""
        return RATES_HZ[self.rate_index]


def read_config(config: bytes) -> Setup | None:
    """The set-up in an AudioSpecificConfig (section 1.6.2.1); None for what a self-describing frame cannot say."""
    bits = int.from_bytes(config[:4].ljust(4, b"\0"))
    object_type, rate_index, channels = bits >> 27, bits >> 23 & 0xF, bits >> 19 & 0xF
    rest = bits & 0x7_FFFF
    if object_type in _SPECTRAL_BANDS:
        if rest >> 15 == 0xF:
            return None
        object_type, rest = rest >> 10 & 0x1F, (rest & 0x3FF) << 9
    is_long = not rest >> 18  # frameLengthFlag: 1024 samples, not 960
    if len(config) < 2 or not 1 <= object_type <= 4 or not is_long:
        return None
    return _known(object_type, rate_index, channels)


def read_header(data: bytes) -> Setup | None:
    """The set-up in the ADTS header (ISO/IEC 13818-7, section 6.2) that begins a frame; None where there is none."""
    if len(data) < _HEADER_BYTES or data[0] != 0xFF or data[1] & 0xF6 != 0xF0:
        return None
    return _known((data[2] >> 6) + 1, data[2] >> 2 & 0xF, (data[2] & 1) << 2 | data[3] >> 6)


def config(setup: Setup) -> bytes:
    """The set-up as an AudioSpecificConfig."""
    return (setup.object_type << 11 | setup.rate_index << 7 | setup.channels << 3).to_bytes(2)


def with_header(frame: bytes, setup: Setup) -> bytes:
    """A bare frame as one that describes itself; empty where it is too long for its header."""
    size = len(frame) + _HEADER_BYTES
    if size > _MAX_FRAME_BYTES:
        return b""
    kind = (setup.object_type - 1) << 6 | setup.rate_index << 2 | setup.channels >> 2
    head = (0xFFF1 << 40) | kind << 32 | (setup.channels & 3) << 30 | size << 13 | 0x7FF << 2
    return head.to_bytes(_HEADER_BYTES) + frame


def frames(data: bytes) -> Iterator[bytes]:
    """The self-describing frames that follow each other in `data`; what is cut or none ends it."""
    at = 0
    while read_header(data[at : at + _HEADER_BYTES]) is not None:
        size = int.from_bytes(data[at + 3 : at + 6]) >> 5 & 0x1FFF
        if size < _HEADER_BYTES or at + size > len(data):
            return
        yield data[at : at + size]
        at += size


def _known(object_type: int, rate_index: int, channels: int) -> Setup | None:
    if rate_index >= len(RATES_HZ) or channels not in (1, 2):
        return None
    return Setup(object_type, rate_index, channels)
