"""Whole fragments in bytes that arrive as they may.

Owns what follows the initialisation segment: the order of boxes, and the time and key of a `moof` (ISO/IEC 14496-12,
section 8.8).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from vigintd.fmp4.boxes import boxes, header, unpack, version_flags
from vigintd.fmp4.tracks import Track, read_moov
from vigintd.model import MEDIA_CLOCK_HZ, Fragment

MAX_HEADER_BYTES = 1 << 20
"""Largest `moov` or `moof` accepted, and so the most that a parser ever holds; ours are under 2 KB."""

_MAX_TICKS = 1 << 62
"""Times beyond this are nonsense, and would not fit where others store them."""

NON_SYNC_SAMPLE = 0x0001_0000
"""`sample_is_non_sync_sample` (ISO/IEC 14496-12, section 8.8.3.1)."""

OnMoof = Callable[[int, memoryview, Sequence[Track]], None]
"""Takes where a `moof` box begins in the file, its body, and the tracks of the file."""

_BEFORE_MOOV = frozenset({b"free", b"skip"})
_BEFORE_MOOF = frozenset({b"free", b"skip", b"styp", b"sidx", b"prft", b"emsg", b"uuid"})


def scan(
    data: bytes | memoryview, offset: int = 0, tracks: Sequence[Track] = (), *, strict: bool = True
) -> tuple[list[Fragment], int]:
    """The whole fragments in `data` and how many of its bytes they cover.

    `data` begins a file, or, with `tracks` (see `read_init`), a fragment at byte `offset` of one. What is not a
    fragment raises `ValueError`; with `strict=False` it ends the scan, which is what recovery wants of a torn tail.
    """
    parser = FragmentParser(offset, tracks)
    found: list[Fragment] = []
    try:
        parser.feed_into(data, found)
    except ValueError:
        if strict:
            raise
    return found, parser.whole_bytes - offset


class FragmentParser:
    """Finds whole fragments in bytes that arrive in pieces.

    The first fragment is `ftyp` + `moov`; each other one is `moof` + `mdat` with whatever small boxes precede them.
    Media data is counted, not kept: what is held is never more than one `moov` or `moof` box.
    """

    def __init__(self, offset: int = 0, tracks: Sequence[Track] = (), on_moof: OnMoof | None = None) -> None:
        """`on_moof` is shown each `moof` that makes sense."""
        self._on_moof = on_moof
        self.tracks: tuple[Track, ...] = tuple(tracks)
        """Known once the first fragment was whole."""
        self.whole_bytes = offset
        """Where the last whole fragment ends."""
        self.position = offset
        """How far the file was fed."""
        self._held = bytearray()
        self._wanted = 8
        self._payload_left = 0
        self._kind = b""
        self._seen_ftyp = bool(self.tracks)
        self._pending: Fragment | None = None
        """What a `moof` said, until its `mdat` is whole."""
        self.broken = ""
        """Why nothing more can be fed; empty as long as it can."""

    def feed(self, data: bytes | memoryview) -> list[Fragment]:
        """The fragments that became whole by these bytes, which follow all bytes fed before.

        Raises `ValueError` at the first byte that cannot belong, and ever after.
        """
        found: list[Fragment] = []
        self.feed_into(data, found)
        return found

    def feed_into(self, data: bytes | memoryview, found: list[Fragment]) -> None:
        """As `feed`, into the caller's list: what was found before a fault is there when it raises."""
        if self.broken:
            raise ValueError(self.broken)
        try:
            self._consume(memoryview(data), found)
        except ValueError as error:
            self.broken = str(error)
            raise

    def skip(self, length_bytes: int, found: list[Fragment]) -> int:
        """Pass over at most so many bytes that need not be read, and say how many; then `position` is what comes next."""
        step = min(self._payload_left, length_bytes)
        if step:
            self._payload_left -= step
            self.position += step
            if not self._payload_left:
                self._on_box_end(found)
        return step

    def _consume(self, view: memoryview, found: list[Fragment]) -> None:
        at = 0
        while at < len(view):
            if step := self.skip(len(view) - at, found):
                at += step
                continue
            step = min(self._wanted - len(self._held), len(view) - at)
            self._held += view[at : at + step]
            self.position += step
            at += step
            if len(self._held) == self._wanted and self._on_held(found):
                self._on_box_end(found)

    def _on_held(self, found: list[Fragment]) -> bool:
        """Decide on a whole header, or on a whole box that is kept; true when a box without kept bytes ended."""
        found_header = header(self._held)
        if found_header is None:
            self._wanted = 16
            return False
        kind, header_bytes, size = found_header
        self._check_order(kind)
        self._kind = kind
        if kind in (b"moov", b"moof"):
            if size > MAX_HEADER_BYTES:
                raise ValueError(f"a {kind.decode()} box of {size} bytes")
            if len(self._held) < size:
                self._wanted = size
                return False
            self._on_kept(kind, memoryview(bytes(self._held))[header_bytes:], found)
        else:
            self._payload_left = size - header_bytes
        self._held.clear()
        self._wanted = 8
        return not self._payload_left

    def _check_order(self, kind: bytes) -> None:
        if self._pending is not None:
            allowed = kind == b"mdat"
        elif self.tracks:
            allowed = kind == b"moof" or kind in _BEFORE_MOOF
        elif self._seen_ftyp:
            allowed = kind == b"moov" or kind in _BEFORE_MOOV
        else:
            allowed = kind == b"ftyp"
        if not allowed:
            raise ValueError(f"a box {kind!r} at byte {self.position - len(self._held)} does not belong there")

    def _on_kept(self, kind: bytes, body: memoryview, found: list[Fragment]) -> None:
        if kind == b"moov":
            self.tracks = read_moov(body)
            self._emit(Fragment(0, 0, 0, 0, is_key=False), found)
        else:
            self._pending = _read_moof(body, self.tracks)
            if self._on_moof is not None:
                self._on_moof(self.position - len(self._held), body, self.tracks)

    def _on_box_end(self, found: list[Fragment]) -> None:
        if self._kind == b"ftyp":
            self._seen_ftyp = True
        elif self._kind == b"mdat" and self._pending is not None:
            self._emit(self._pending, found)
            self._pending = None

    def _emit(self, fragment: Fragment, found: list[Fragment]) -> None:
        length = self.position - self.whole_bytes
        found.append(replace(fragment, offset_bytes=self.whole_bytes, length_bytes=length))
        self.whole_bytes = self.position


def _read_moof(body: memoryview, tracks: Sequence[Track]) -> Fragment:
    """Time and key of a fragment by its video track; by its first track where it has no video."""
    known = {track.id: track for track in tracks}
    runs: dict[int, Fragment] = {}
    for kind, inner in boxes(body):
        if kind == b"traf":
            track, fragment = _read_traf(inner, known)
            runs.setdefault(track.id, fragment)
    if not runs:
        raise ValueError("a moof box without samples")
    video = next((runs[track.id] for track in tracks if track.is_video and track.id in runs), None)
    return video or replace(next(iter(runs.values())), is_key=False)


def _read_traf(body: memoryview, known: dict[int, Track]) -> tuple[Track, Fragment]:
    track: Track | None = None
    start = duration = 0
    first_flags: int | None = None
    for kind, inner in boxes(body):
        if kind == b"tfhd":
            track = read_tfhd(inner, known)
        elif kind == b"tfdt":
            version, _ = version_flags(inner)
            (start,) = unpack(">Q" if version else ">I", inner, 4)
        elif kind == b"trun":
            if track is None:
                raise ValueError("a trun box before its tfhd")
            run_duration, run_flags = _read_trun(inner, track)
            duration += run_duration
            first_flags = run_flags if first_flags is None else first_flags
    if track is None or first_flags is None:
        raise ValueError("a traf box without samples")
    end = start + duration
    start_90k = start * MEDIA_CLOCK_HZ // track.timescale_hz
    # The end is converted, not the duration, so that fragments join without a rounding gap.
    end_90k = end * MEDIA_CLOCK_HZ // track.timescale_hz
    if max(end, end_90k) > _MAX_TICKS:
        raise ValueError("a time beyond all sense")
    return track, Fragment(0, 0, start_90k, end_90k - start_90k, is_key=not first_flags & NON_SYNC_SAMPLE)


def read_tfhd(body: memoryview, known: Mapping[int, Track]) -> Track:
    """The track with the defaults of this fragment (section 8.8.7)."""
    _, flags = version_flags(body)
    (track_id,) = unpack(">I", body, 4)
    if track_id not in known:
        raise ValueError(f"a fragment of track {track_id}, which is not in moov")
    track = known[track_id]
    at = 8 + (8 if flags & 0x1 else 0) + (4 if flags & 0x2 else 0)
    if flags & 0x8:
        track = replace(track, default_duration=unpack(">I", body, at)[0])
        at += 4
    if flags & 0x10:
        track = replace(track, default_size=unpack(">I", body, at)[0])
        at += 4
    if flags & 0x20:
        track = replace(track, default_flags=unpack(">I", body, at)[0])
    return track


def _read_trun(body: memoryview, track: Track) -> tuple[int, int | None]:
    """Duration of a run of samples in ticks, and the flags of its first sample (section 8.8.8); None when empty."""
    _, flags = version_flags(body)
    (count,) = unpack(">I", body, 4)
    if not count:
        return 0, None
    at = 8 + (4 if flags & 0x1 else 0)
    first_flags = unpack(">I", body, at)[0] if flags & 0x4 else track.default_flags
    at += 4 if flags & 0x4 else 0
    has_duration, has_size, has_flags, has_offset = (bool(flags & bit) for bit in (0x100, 0x200, 0x400, 0x800))
    stride = 4 * (has_duration + has_size + has_flags + has_offset)
    # Without fields a sample takes no bytes and the count may say anything, so it is only ever multiplied.
    if at + count * stride > len(body):
        raise ValueError("a trun box too short for its samples")
    if has_flags and not flags & 0x4:
        (first_flags,) = unpack(">I", body, at + 4 * (has_duration + has_size))
    if not has_duration:
        return count * track.default_duration, first_flags
    return sum(int.from_bytes(body[i : i + 4]) for i in range(at, at + count * stride, stride)), first_flags
