"""A fragmented file seen as a plain MP4 in faststart order: what must stand before its bytes, which stay as they are.

Owns the boxes of that head (ISO/IEC 14496-12, section 8): `ftyp`, a `moov` with tables of every sample, and the header
of one `mdat` that holds all fragments. Their own `moof` boxes lie in it as bytes that no table points to, so nothing of the
evidence is copied or moved: byte n of the fragments is byte `len(head) + n` of the plain file.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable, Mapping

from vigintd.fmp4.boxes import boxes, unpack, version_flags
from vigintd.fmp4.samples import Runs, Samples, SampleTables
from vigintd.fmp4.tracks import Track, read_init
from vigintd.model import MEDIA_CLOCK_HZ

_FTYP = b"isom" + struct.pack(">I", 0x200) + b"isomiso2avc1mp41"
_MAX_32 = (1 << 32) - 1

_Change = Callable[[memoryview], bytes]


def faststart_head(init: bytes, tables: SampleTables, fragments_bytes: int) -> bytes:
    """What comes before the `fragments_bytes` that follow `init` (`ftyp` + `moov`) in the file.

    `tables` holds the samples of exactly these fragments. Raises `ValueError` where they have no plain form: no
    picture, times that go back, an edit list of more than one edit, samples outside of the fragments.
    """
    if tables.fault:
        raise ValueError(tables.fault)
    tracks = {track.id: track for track in read_init(init)}
    if not any(track.is_video and _samples(tables, track) for track in tracks.values()):
        raise ValueError("no picture in it")
    for samples in tables.tracks.values():
        _refuse_outside(samples, len(init), len(init) + fragments_bytes)
    moov = next(body for kind, body in boxes(memoryview(init)) if kind == b"moov")
    wide = fragments_bytes + 2 * len(init) + 64 * tables.count > _MAX_32
    mdat = struct.pack(">I4sQ", 1, b"mdat", 16 + fragments_bytes) if wide else struct.pack(">I4s", 8 + fragments_bytes, b"mdat")
    # The tables are as long whatever they point to, so the first round tells where the second has to point.
    length = 0
    for _ in range(2):
        maker = _Maker(tracks, tables, shift=length - len(init), wide=wide)
        head = _box(b"ftyp", _FTYP) + _box(b"moov", maker.moov(moov)) + mdat
        length = len(head)
    return head


class _Maker:
    """Makes `moov` anew out of that of a fragmented file."""

    def __init__(self, tracks: Mapping[int, Track], tables: SampleTables, *, shift: int, wide: bool) -> None:
        self._tracks = tracks
        self._tables = tables
        self._shift = shift
        self._wide = wide
        self._movie_hz = 0
        self._longest = 0

    def moov(self, body: memoryview) -> bytes:
        (self._movie_hz,) = (_timescale(inner) for kind, inner in boxes(body) if kind == b"mvhd")
        traks = b"".join(self._trak(inner) for kind, inner in boxes(body) if kind == b"trak")
        others = b"".join(_box(kind, inner) for kind, inner in boxes(body) if kind not in (b"mvhd", b"trak", b"mvex"))
        (mvhd,) = (_with_times(inner, MEDIA_CLOCK_HZ, self._longest) for kind, inner in boxes(body) if kind == b"mvhd")
        return _box(b"mvhd", mvhd) + traks + others

    def _trak(self, body: memoryview) -> bytes:
        track = next(self._tracks[_track_id(inner)] for kind, inner in boxes(body) if kind == b"tkhd")
        samples = _samples(self._tables, track)
        if samples is None:
            return b""  # players stumble over a track without samples
        edits, duration = self._edits(body, track, samples)
        self._longest = max(self._longest, duration)
        mdia: dict[bytes, _Change] = {
            b"mdhd": lambda inner: _with_times(inner, track.timescale_hz, samples.end - samples.begin),
            b"minf": lambda inner: _changed(inner, {b"stbl": lambda stbl: self._stbl(stbl, samples)}),
        }
        tkhd: dict[bytes, _Change] = {b"tkhd": lambda inner: _with_duration(inner, duration)}
        rest = {b"mdia": lambda inner: _changed(inner, mdia)}
        first = b"".join(_box(kind, tkhd[kind](inner)) for kind, inner in boxes(body) if kind == b"tkhd")
        return _box(b"trak", first + edits + _changed(body, rest, without=(b"tkhd", b"edts")))

    def _edits(self, trak: memoryview, track: Track, samples: Samples) -> tuple[bytes, int]:
        """The edit list (section 8.6.6) that shows every sample when the fragmented file shows it, and its duration."""
        empty, media_time = _edit(trak)
        # A plain file counts from 0; what is shown first is shown so many ticks after the movie's begin.
        begins = samples.shown_from - media_time + _scaled(empty, self._movie_hz, track.timescale_hz)
        media_time = samples.shown_from - samples.begin + max(0, -begins)
        if media_time < 0:
            raise ValueError("a picture is shown before it is decoded")
        delay = _scaled(max(0, begins), track.timescale_hz, MEDIA_CLOCK_HZ)
        ticks = max(0, samples.shown_until - samples.begin - media_time)
        shown = -(-ticks * MEDIA_CLOCK_HZ // track.timescale_hz)
        entries = [(delay, -1)] if delay else []
        entries.append((_small(shown), _small(media_time, 1 << 31)))
        packed = b"".join(struct.pack(">Iihh", _small(duration), at, 1, 0) for duration, at in entries)
        return _box(b"edts", _full(b"elst", 0, struct.pack(">I", len(entries)) + packed)), _small(delay + shown)

    def _stbl(self, body: memoryview, samples: Samples) -> bytes:
        """The sample tables (sections 8.6.1, 8.6.2, 8.7.2 to 8.7.5) behind the description of the samples."""
        described = b"".join(_box(kind, inner) for kind, inner in boxes(body) if kind == b"stsd")
        count = len(samples.sizes)
        tables = [described, _full(b"stts", 0, _runs(samples.deltas))]
        if any(samples.shifts.values):
            tables.append(_full(b"ctts", int(min(samples.shifts.values) < 0), _runs(samples.shifts)))
        if len(samples.keys) < count:
            tables.append(_full(b"stss", 0, struct.pack(">I", len(samples.keys)) + _big_endian(samples.keys)))
        tables.append(_full(b"stsc", 0, _chunks(samples)))
        tables.append(_full(b"stsz", 0, struct.pack(">II", 0, count) + _big_endian(samples.sizes)))
        places = array("Q" if self._wide else "I", (max(0, at + self._shift) for at in samples.chunk_offsets))
        kind = b"co64" if self._wide else b"stco"
        tables.append(_full(kind, 0, struct.pack(">I", len(places)) + _big_endian(places)))
        return b"".join(tables)


def _samples(tables: SampleTables, track: Track) -> Samples | None:
    samples = tables.tracks.get(track.id)
    return samples if samples is not None and samples.sizes else None


def _refuse_outside(samples: Samples, begin: int, end: int) -> None:
    number = 0
    for offset, count in zip(samples.chunk_offsets, _each(samples.chunk_samples), strict=True):
        length = sum(samples.sizes[number : number + count])
        if offset < begin or offset + length > end:
            raise ValueError("samples outside of the fragments")
        number += count


def _each(runs: Runs) -> list[int]:
    return [value for count, value in zip(runs.counts, runs.values, strict=True) for _ in range(count)]


def _edit(trak: memoryview) -> tuple[int, int]:
    """Empty time before a track's media, in ticks of the movie, and where in the media it begins (section 8.6.6)."""
    empty = media_time = seen = 0
    for elst in (inner for kind, edts in boxes(trak) if kind == b"edts" for name, inner in boxes(edts) if name == b"elst"):
        version, _ = version_flags(elst)
        (count,) = unpack(">I", elst, 4)
        layout, step = (">Qqhh", 20) if version else (">Iihh", 12)
        if count > 2 or seen:
            raise ValueError("an edit list of several edits")
        for number in range(count):
            duration, begin, rate, fraction = unpack(layout, elst, 8 + number * step)
            if (rate, fraction) != (1, 0) or begin < -1 or seen:
                raise ValueError("an edit list that does more than to delay")
            if begin == -1:
                empty += duration
            else:
                media_time, seen = begin, 1
    return empty, media_time


def _chunks(samples: Samples) -> bytes:
    """Sample-to-chunk (section 8.7.4): from which chunk on there are how many samples in each."""
    table, chunk = array("I"), 1
    for count, value in zip(samples.chunk_samples.counts, samples.chunk_samples.values, strict=True):
        table.extend((chunk, value, 1))
        chunk += count
    return struct.pack(">I", len(table) // 3) + _big_endian(table)


def _runs(runs: Runs) -> bytes:
    table = array("I", bytes(8 * len(runs.counts)))
    table[0::2] = runs.counts
    table[1::2] = array("I", (value & _MAX_32 for value in runs.values))
    return struct.pack(">I", len(runs.counts)) + _big_endian(table)


def _big_endian(values: array[int]) -> bytes:
    if sys.byteorder == "little":
        values = values[:]
        values.byteswap()
    return values.tobytes()


def _scaled(ticks: int, from_hz: int, to_hz: int) -> int:
    return (2 * ticks * to_hz + from_hz) // (2 * from_hz) if from_hz else 0


def _small(value: int, limit: int = 1 << 32) -> int:
    if not 0 <= value < limit:
        raise ValueError("longer than a plain file can say")
    return value


def _timescale(body: memoryview) -> int:
    version, _ = version_flags(body)
    return unpack(">I", body, 20 if version else 12)[0]


def _track_id(tkhd: memoryview) -> int:
    version, _ = version_flags(tkhd)
    return unpack(">I", tkhd, 20 if version else 12)[0]


def _with_times(body: memoryview, timescale_hz: int, duration: int) -> bytes:
    """A `mvhd` or `mdhd` with this timescale and duration (sections 8.2.2, 8.4.2)."""
    version, _ = version_flags(body)
    return _patched(body, 20 if version else 12, ">IQ" if version else ">II", timescale_hz, _small(duration))


def _with_duration(body: memoryview, duration: int) -> bytes:
    """A `tkhd` with this duration (section 8.3.2)."""
    version, _ = version_flags(body)
    return _patched(body, 28 if version else 20, ">Q" if version else ">I", duration)


def _patched(body: memoryview, at: int, layout: str, *values: int) -> bytes:
    unpack(layout, body, at)
    changed = bytearray(body)
    struct.pack_into(layout, changed, at, *values)
    return bytes(changed)


def _changed(body: memoryview, changes: Mapping[bytes, _Change], without: tuple[bytes, ...] = ()) -> bytes:
    """The boxes in `body`, the bodies of some of them changed."""
    kept = ((kind, inner) for kind, inner in boxes(body) if kind not in without)
    return b"".join(_box(kind, changes[kind](inner) if kind in changes else inner) for kind, inner in kept)


def _full(kind: bytes, version: int, body: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24) + body)


def _box(kind: bytes, body: bytes | memoryview) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body
