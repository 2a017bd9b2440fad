"""Every sample of a fragmented file, gathered from its `moof` boxes (ISO/IEC 14496-12, section 8.8).

Owns where each lies, when it is decoded and shown, and whether it is a key; writes no box (see `faststart`).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from vigintd.fmp4.boxes import boxes, unpack, version_flags
from vigintd.fmp4.fragments import NON_SYNC_SAMPLE, read_tfhd
from vigintd.fmp4.tracks import Track

MAX_SAMPLES = 500_000
"""Of all tracks: more than five hours at 25 pictures a second, and at most 26 MB of memory. Beyond, `ValueError`."""

_MAX_DELTA = (1 << 32) - 1
_MAX_SHIFT = 1 << 31


class Runs:
    """Values in their order, those that repeat as one."""

    def __init__(self) -> None:
        self.counts = array("I")
        self.values = array("q")

    def add(self, value: int) -> None:
        """One more."""
        if self.values and self.values[-1] == value:
            self.counts[-1] += 1
        else:
            self.counts.append(1)
            self.values.append(value)

    def drop(self) -> int:
        """Take the last away."""
        value = self.values[-1]
        self.counts[-1] -= 1
        if not self.counts[-1]:
            self.counts.pop()
            self.values.pop()
        return value


@dataclass(slots=True)
class Samples:
    """The samples of one track; times are ticks of the track."""

    begin: int = 0
    """Decode time of the first."""
    end: int = 0
    """Decode time of what would follow the last."""
    shown_from: int = 0
    shown_until: int = 0
    """When the earliest is shown, and when the last is over."""
    sizes: array[int] = field(default_factory=lambda: array("I"))
    deltas: Runs = field(default_factory=Runs)
    shifts: Runs = field(default_factory=Runs)
    """From decoding to showing."""
    keys: array[int] = field(default_factory=lambda: array("I"))
    """Their numbers, counted from 1."""
    chunk_offsets: array[int] = field(default_factory=lambda: array("Q"))
    """Where samples lie one after the other, in the fragmented file."""
    chunk_samples: Runs = field(default_factory=Runs)

    def go_to(self, start: int) -> None:
        """The next sample is decoded at `start`: the one before it lasts until then."""
        if not self.sizes:
            self.begin = self.end = start
        elif start != self.end:
            delta = self.deltas.drop() + start - self.end
            if not 0 <= delta <= _MAX_DELTA:
                raise ValueError("a fragment goes back in time, or far ahead")
            self.deltas.add(delta)
            self.end = start

    def add(self, duration: int, size: int, flags: int, shift: int) -> None:
        """The next sample."""
        if not -_MAX_SHIFT <= shift < _MAX_SHIFT:
            raise ValueError("a sample is shown at a time beyond all sense")
        shown = self.end + shift
        self.shown_from = min(self.shown_from, shown) if self.sizes else shown
        self.shown_until = max(self.shown_until, shown + duration)
        self.sizes.append(size)
        self.deltas.add(duration)
        self.shifts.add(shift)
        if not flags & NON_SYNC_SAMPLE:
            self.keys.append(len(self.sizes))
        self.end += duration


class SampleTables:
    """Gathers the samples of every track, `moof` by `moof`."""

    def __init__(self) -> None:
        self.tracks: dict[int, Samples] = {}
        """By the track's number; those that have samples."""
        self.count = 0
        """Of all tracks."""
        self.fault = ""
        """Why there are no tables of this file; empty as long as there are."""

    def take(self, moof_offset: int, body: memoryview, tracks: Sequence[Track]) -> None:
        """Add what a `moof` at `moof_offset` says; where it makes no sense, or is too much, there is a `fault` from then on."""
        known = {track.id: track for track in tracks}
        data_end = moof_offset
        try:
            for kind, inner in boxes(body):
                if kind == b"traf" and not self.fault:
                    data_end = self._take_traf(inner, known, moof_offset, data_end)
        except ValueError as error:
            self.fault = str(error)
            self.tracks.clear()
            self.count = 0

    def _take_traf(self, body: memoryview, known: dict[int, Track], moof_offset: int, data_end: int) -> int:
        """Answers where its data ends: there that of the next begins when nothing is said of it (section 8.8.7.1)."""
        track: Track | None = None
        samples, base, at = Samples(), moof_offset, data_end
        for kind, inner in boxes(body):
            if kind == b"tfhd":
                track = read_tfhd(inner, known)
                samples = self.tracks.setdefault(track.id, samples)
                _, flags = version_flags(inner)
                if flags & 0x1:
                    (base,) = unpack(">Q", inner, 8)
                elif not flags & 0x2_0000:
                    base = data_end
                at = base
            elif kind == b"tfdt":
                version, _ = version_flags(inner)
                samples.go_to(unpack(">Q" if version else ">I", inner, 4)[0])
            elif kind == b"trun":
                assert track is not None  # the parser has read this moof before
                at = self._take_trun(inner, track, samples, base, at)
        return at

    def _take_trun(self, body: memoryview, track: Track, samples: Samples, base: int, at: int) -> int:
        _, flags = version_flags(body)
        (count,) = unpack(">I", body, 4)
        self.count += count
        if self.count > MAX_SAMPLES:
            raise ValueError(f"more than {MAX_SAMPLES} samples")
        if flags & 0x1:
            at = base + unpack(">i", body, 8)[0]
        if not count:
            return at
        if not 0 <= at < 1 << 63:
            raise ValueError("samples outside of the file")
        samples.chunk_offsets.append(at)
        samples.chunk_samples.add(count)
        for duration, size, sample_flags, shift in _read_trun(body, track, count):
            samples.add(duration, size, sample_flags, shift)
            at += size
        return at


def _read_trun(body: memoryview, track: Track, count: int) -> Iterator[tuple[int, int, int, int]]:
    """Duration, size, flags and shift of each sample of a run (section 8.8.8)."""
    version, flags = version_flags(body)
    at = 8 + (4 if flags & 0x1 else 0)
    first_flags = unpack(">I", body, at)[0] if flags & 0x4 else None
    at += 4 if flags & 0x4 else 0
    has_duration, has_size, has_flags, has_shift = (bool(flags & bit) for bit in (0x100, 0x200, 0x400, 0x800))
    stride = has_duration + has_size + has_flags + has_shift
    words = iter(unpack(f">{count * stride}I", body, at))
    signed = version > 0
    for _ in range(count):
        duration = next(words) if has_duration else track.default_duration
        size = next(words) if has_size else track.default_size
        sample_flags = next(words) if has_flags else track.default_flags
        shift = next(words) if has_shift else 0
        if first_flags is not None:
            sample_flags, first_flags = first_flags, None
        # Version 0 is unsigned by the standard; a negative shift in it would be beyond all sense, and is refused.
        yield duration, size, sample_flags, shift - (1 << 32) if signed and shift >> 31 else shift
