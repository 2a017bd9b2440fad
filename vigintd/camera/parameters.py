"""A stream's parameters as a value, replaced when a key frame brings others.

Owns the comparison of parameter sets in the stream (H.264: ITU-T H.264 section 7.4.1.2.1, SPS and PPS; HEVC: ITU-T
H.265 section 7.4.2.4.4, VPS, SPS and PPS), because neither FFmpeg's demuxer nor its muxer says that they have changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from vigintd.model import Packet, StreamParameters

_START_CODE = b"\x00\x00\x01"

_MAX_SET_BYTES = 4096
"""No real parameter set is longer; what claims to be is damage."""

SizeOf = Callable[[Packet], tuple[int, int] | None]
"""Width and height of a key frame, by decoding it; None when it does not decode."""


class ParameterTracker:
    """The parameters of one stream as they are at its newest key frame."""

    def __init__(self, initial: StreamParameters, size_of: SizeOf) -> None:
        self._current = initial
        self._size_of = size_of
        self._known = frozenset(parameter_sets(initial.codec, initial.extradata))

    @property
    def current(self) -> StreamParameters:
        """The same value until it changes."""
        return self._current

    def at_key(self, packet: Packet) -> Packet:
        """The key frame with the parameters that hold from it on: its own where it brings new ones.

        A size that is still unknown is found by decoding the key frame; as long as that fails it stays 0 × 0.
        """
        sets = tuple(parameter_sets(self._current.codec, packet.data)) if self._is_annex_b else ()
        changed = bool(set(sets) - self._known)
        if changed:
            self._known = frozenset(sets)
            extradata = b"".join(b"\x00" + _START_CODE + nal for nal in dict.fromkeys(sets))
            self._current = replace(self._current, extradata=extradata)
        if changed or not self._current.width_px or not self._current.height_px:
            size = self._size_of(replace(packet, parameters=self._current))
            if size is not None:
                self._current = replace(self._current, width_px=size[0], height_px=size[1])
        return packet if packet.parameters is self._current else replace(packet, parameters=self._current)

    @property
    def _is_annex_b(self) -> bool:
        """An avcC or hvcC record begins with its version, 1; packets are then not divided by start codes."""
        return self._current.codec in ("h264", "hevc") and self._current.extradata[:1] != b"\x01"


def parameter_sets(codec: str, data: bytes) -> Iterator[bytes]:
    """The parameter sets at the beginning of an Annex B access unit, without start codes, in order.

    Looks no further than the first slice, where they must already have come.
    """
    for begin, end, is_set in _head(codec, data):
        if is_set:
            nal = data[begin:end].rstrip(b"\x00")
            if len(nal) <= _MAX_SET_BYTES:
                yield nal


def first_slice(codec: str, data: bytes) -> int:
    """Where the start code of the first slice of an Annex B access unit begins; its end when there is none."""
    return max((end for _, end, _ in _head(codec, data)), default=0)


def _head(codec: str, data: bytes) -> Iterator[tuple[int, int, bool]]:
    """Begin, end and "is a parameter set" of each NAL unit ahead of the first slice."""
    if codec not in ("h264", "hevc"):
        return
    begin = data.find(_START_CODE)
    while 0 <= begin < len(data) - 3:
        begin += 3
        is_set, is_slice = _kind(codec, data[begin])
        if is_slice:
            return
        end = data.find(_START_CODE, begin)
        yield begin, end if end >= 0 else len(data), is_set
        begin = end


def _kind(codec: str, header: int) -> tuple[bool, bool]:
    """Whether a NAL unit with this first byte is a parameter set, and whether it is a slice."""
    if codec == "h264":
        unit = header & 0x1F
        return unit in (7, 8), 1 <= unit <= 5
    unit = (header >> 1) & 0x3F
    return unit in (32, 33, 34), unit < 32
