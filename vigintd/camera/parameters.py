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

_HEADER_BYTES = {"h264": 1, "hevc": 2}
"""Length of a NAL unit's header."""

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

    def at_key(self, packet: Packet, extradata: bytes | None = None) -> Packet:
        """The key frame with the parameters that hold from it on: its own where it brings new ones.

        `extradata` is a new set-up that came beside it (RTMP sends one where the picture changes). A size that is
        still unknown is found by decoding the key frame; as long as that fails it stays 0 × 0.
        """
        before = self._current
        if extradata is not None and extradata != before.extradata:
            self._current = replace(before, extradata=extradata)
            self._known = frozenset(parameter_sets(before.codec, extradata))
        if self._is_annex_b:
            self._note_sets(packet.data)
        if self._current is not before or not before.width_px or not before.height_px:
            size = self._size_of(replace(packet, parameters=self._current))
            if size is not None:
                self._current = replace(self._current, width_px=size[0], height_px=size[1])
        return packet if packet.parameters is self._current else replace(packet, parameters=self._current)

    def _note_sets(self, data: bytes) -> None:
        codec = codec_of(self._current.codec, data)
        sets = tuple(parameter_sets(codec, data))
        if set(sets) - self._known:
            self._known = frozenset(sets)
            in_band = b"".join(b"\x00" + _START_CODE + nal for nal in dict.fromkeys(sets))
            self._current = replace(self._current, codec=codec, extradata=in_band)

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


def begins_picture(codec: str, data: bytes) -> bool:
    """Whether the first slice of an Annex B access unit is the first of its picture.

    `first_mb_in_slice` is 0 (ITU-T H.264 section 7.3.3), `first_slice_segment_in_pic_flag` is set (H.265 section
    7.3.6.1): in both the first bit of the slice's header is 1. What has no slices begins a picture.
    """
    if codec not in _HEADER_BYTES:
        return True
    begin = data.find(_START_CODE, first_slice(codec, data))
    at = begin + len(_START_CODE) + _HEADER_BYTES[codec]
    return begin < 0 or at >= len(data) or bool(data[at] & 0x80)


def codec_of(declared: str, data: bytes) -> str:
    """The codec of a key frame: the declared one, or the other of H.264 and HEVC where it brings only that one's sets.

    A transport stream may change its codec while its demuxer goes on calling it by the old name.
    """
    if declared not in _HEADER_BYTES or any(parameter_sets(declared, data)):
        return declared
    other = "hevc" if declared == "h264" else "h264"
    wanted = {0x40, 0x42, 0x44} if other == "hevc" else {0x07, 0x08}
    found = {nal[0] & (0x7E if other == "hevc" else 0x1F) for nal in parameter_sets(other, data)}
    return other if found >= wanted else declared


def _head(codec: str, data: bytes) -> Iterator[tuple[int, int, bool]]:
    """Begin, end and "is a parameter set" of each NAL unit ahead of the first slice."""
    if codec not in _HEADER_BYTES:
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
