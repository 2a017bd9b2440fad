"""What must be known of each codec's bytes to remux it: its set-up in the stream, and which pictures need others.

Owns the table of codecs; H.264's own rules are in `h264`. For HEVC by ITU-T H.265, MPEG-4 part 2 by ISO/IEC 14496-2, AV1
by its bitstream specification, JPEG by ITU-T T.81. Pure: bytes in, bytes out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from vigintd.clip import h264
from vigintd.clip.h264 import Setup


class Syntax(Protocol):
    """How one codec says what its stream is made of."""

    needs_sets: bool
    """No decoder can begin without parameter sets, and MP4 cannot hold them."""

    def read_extradata(self, extradata: bytes) -> Setup:
        """The set-up in a stream's extradata."""
        ...

    def parameter_sets(self, data: bytes) -> tuple[bytes, ...]:
        """What an access unit itself says of its stream, to be compared at key frames."""
        ...

    def joined(self, sets: tuple[bytes, ...]) -> bytes:
        """The sets as they go before an access unit that lacks them."""
        ...

    def needs_earlier(self, key: bytes, data: bytes, *, is_shown_before_key: bool) -> bool:
        """Whether a picture behind the key frame `key` needs pictures from before it, so that it cannot be shown there."""
        ...


class _H264:
    needs_sets = True

    def read_extradata(self, extradata: bytes) -> Setup:
        return h264.read_extradata(extradata)

    def parameter_sets(self, data: bytes) -> tuple[bytes, ...]:
        return h264.parameter_sets(data)

    def joined(self, sets: tuple[bytes, ...]) -> bytes:
        return h264.joined(sets)

    def needs_earlier(self, key: bytes, data: bytes, *, is_shown_before_key: bool) -> bool:
        del data
        # Behind an IDR picture none is shown before it (section 7.4.1.2.4). Behind any other the bytes do not say which
        # pictures look back, so all that are shown before it are taken to.
        return is_shown_before_key and not h264.is_idr(key)


class _Hevc:
    needs_sets = True
    _SETS = range(32, 35)
    """VPS, SPS and PPS (table 7-1)."""
    _SLICES = range(32)
    _SKIPPED_LEADING = range(8, 10)
    """RASL_N and RASL_R: not decodable where decoding begins with their key frame (section 8.1.3)."""

    def read_extradata(self, extradata: bytes) -> Setup:
        """Annex B, or an `hvcC` record (ISO/IEC 14496-15, section 8.3.3.1)."""
        if extradata[:1] != b"\1" or len(extradata) < 23:
            return Setup(self.parameter_sets(extradata), 0)
        found: list[bytes] = []
        at = 23
        for _ in range(extradata[22]):
            kind, count = extradata[at : at + 1], int.from_bytes(extradata[at + 1 : at + 3])
            at += 3
            for _ in range(count):
                size = int.from_bytes(extradata[at : at + 2])
                unit = extradata[at + 2 : at + 2 + size]
                at += 2 + size
                if not unit or len(unit) != size:
                    return Setup(tuple(found), (extradata[21] & 3) + 1)
                if kind[0] & 0x3F in self._SETS:
                    found.append(unit)
        return Setup(tuple(found), (extradata[21] & 3) + 1)

    def parameter_sets(self, data: bytes) -> tuple[bytes, ...]:
        return tuple(unit for unit in h264.leading_units(data, self._is_slice) if self._kind(unit[0]) in self._SETS)

    def joined(self, sets: tuple[bytes, ...]) -> bytes:
        return h264.joined(sets)

    def needs_earlier(self, key: bytes, data: bytes, *, is_shown_before_key: bool) -> bool:
        del key, is_shown_before_key
        slice_at = h264.first_slice(data, self._is_slice)
        return slice_at is not None and self._kind(data[slice_at]) in self._SKIPPED_LEADING

    @classmethod
    def _is_slice(cls, first: int) -> bool:
        return cls._kind(first) in cls._SLICES

    @staticmethod
    def _kind(first: int) -> int:
        return first >> 1 & 0x3F


class _Plain:
    """A codec of which only its parameters are compared."""

    needs_sets = False

    def read_extradata(self, extradata: bytes) -> Setup:
        return Setup(self.parameter_sets(extradata), 0)

    def parameter_sets(self, data: bytes) -> tuple[bytes, ...]:
        del data
        return ()

    def joined(self, sets: tuple[bytes, ...]) -> bytes:
        return b"".join(sets)

    def needs_earlier(self, key: bytes, data: bytes, *, is_shown_before_key: bool) -> bool:
        del key, data
        return is_shown_before_key


class _Mpeg4(_Plain):
    needs_sets = True

    def parameter_sets(self, data: bytes) -> tuple[bytes, ...]:
        """The headers up to the first group or picture (section 6.2.1), of which video_object_layer is the one that counts."""
        layer = next((at for code, at in _start_codes(data) if 0x20 <= code < 0x30), None)
        if layer is None:
            return ()
        end = next((at for code, at in _start_codes(data) if code in (0xB2, 0xB3, 0xB6) and at > layer), len(data))
        begin = next((at for code, at in _start_codes(data) if code != 0xB2), 0)
        return (data[begin:end],)


class _Av1(_Plain):
    needs_sets = True
    _SEQUENCE_HEADER, _TEMPORAL_DELIMITER = 1, 2

    def read_extradata(self, extradata: bytes) -> Setup:
        """An `av1C` record, four bytes and then units, or units alone."""
        return Setup(self.parameter_sets(extradata[4:] if extradata[:1] == b"\x81" else extradata), 0)

    def parameter_sets(self, data: bytes) -> tuple[bytes, ...]:
        """The sequence header units before the first of any other kind (section 5.3.1)."""
        found: list[bytes] = []
        at = 0
        while at < len(data):
            kind, has_extension, has_size = data[at] >> 3 & 0xF, data[at] >> 2 & 1, data[at] >> 1 & 1
            if not has_size or kind not in (self._SEQUENCE_HEADER, self._TEMPORAL_DELIMITER):
                break
            size, begin = _leb128(data, at + 1 + has_extension)
            if begin + size > len(data):
                break
            if kind == self._SEQUENCE_HEADER:
                found.append(data[at : begin + size])
            at = begin + size
        return tuple(found)


class _Jpeg(_Plain):
    def parameter_sets(self, data: bytes) -> tuple[bytes, ...]:
        """Precision, height, width and components, from the frame header (section B.2.2)."""
        at = 2
        while at + 4 <= len(data) and data[at] == 0xFF:
            marker, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                return (data[at + 4 : at + 2 + size],)
            if marker == 0xDA or size < 2:
                break
            at += 2 + size
        return ()

    def joined(self, sets: tuple[bytes, ...]) -> bytes:
        del sets
        return b""  # each picture bears its own


_PLAIN = _Plain()
_TABLE: dict[str, Syntax] = {"h264": _H264(), "hevc": _Hevc(), "mpeg4": _Mpeg4(), "av1": _Av1(), "mjpeg": _Jpeg()}


def syntax(codec: str) -> Syntax:
    """The rules of a codec by FFmpeg's name for it; for one that is not in the table, the few that hold for all."""
    return _TABLE.get(codec, _PLAIN)


def _start_codes(data: bytes) -> Iterator[tuple[int, int]]:
    """Start code values of MPEG-4 part 2 and where each begins, up to the first picture."""
    at = data.find(b"\0\0\1")
    while 0 <= at < len(data) - 3:
        yield data[at + 3], at
        if data[at + 3] == 0xB6:
            return
        at = data.find(b"\0\0\1", at + 3)


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """A number of up to eight bytes (AV1, section 4.10.5) and where it ends."""
    value = 0
    for place in range(8):
        if at >= len(data):
            break
        octet = data[at]
        value, at = value | (octet & 0x7F) << 7 * place, at + 1
        if not octet & 0x80:
            break
    return value, at
