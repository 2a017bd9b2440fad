"""What is known of the fragments of parts: where they lie, how long they are, and how a finished part plays at once.

Owns the reading of boxes out of parts' files, as far as they have grown; media data is passed over unread. An index is
kept as long as it is in use, within a bound on all of them, and made again when it is asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from vigintd import fmp4, metrics
from vigintd.linkhost.files import Files, Outgoing
from vigintd.linkhost.store import Part
from vigintd.model import MEDIA_CLOCK_HZ, Fragment

MAX_FRAGMENTS = 50_000
"""Of one part: seven hours of half seconds. A part of more has no index."""
MAX_READ_BYTES = 64 << 20
"""What is read of one part's file: its boxes without their media data. Beyond, it has no index."""
MAX_HELD_SAMPLES = 2_000_000
"""Of all indexes, whose memory goes by their samples (at most 100 MB, usually a tenth); beyond, the least used go."""
_MAX_HELD = 64

_WINDOW_BYTES = 1024
"""A `moof` of half a second with the header of its `mdat` fits in."""

_log = structlog.get_logger(__name__)


class NoIndex(ValueError):
    """The part is no fragmented MP4, or one beyond the bounds."""


@dataclass(frozen=True, slots=True)
class Film:
    """A sealed part as a plain MP4 in faststart order: `head`, then the part's bytes from `begin_bytes` on."""

    head: bytes = b""
    begin_bytes: int = 0

    def tag(self, part: Part) -> str:
        """An entity tag (RFC 9110, section 8.8.3) of a sealed part as this film."""
        return f'"{part.sha256}{hashlib.sha256(self.head).hexdigest() if self.head else ""}"'

    def size(self, part_bytes: int) -> int:
        """Of the whole, where the part has so many bytes."""
        return len(self.head) + part_bytes - self.begin_bytes

    async def read(self, file: Outgoing, offset_bytes: int, length_bytes: int) -> bytes:
        """At most `length_bytes` from `offset_bytes` of the film, whose part is `file`; fewer at an edge."""
        behind_head = offset_bytes - len(self.head)
        if behind_head < 0:
            return self.head[offset_bytes : offset_bytes + length_bytes]
        return await file.read(self.begin_bytes + behind_head, length_bytes)

    def of_part(self, first: int, length_bytes: int) -> tuple[int, int]:
        """Which bytes of the part lie in these of the film: the first, and how many."""
        ahead = max(0, len(self.head) - first)
        return max(0, first - len(self.head)) + self.begin_bytes, max(0, length_bytes - ahead)


PLAIN = Film()
"""A part as it is."""


@dataclass(slots=True)
class _Index:
    path: Path
    tables: fmp4.SampleTables
    parser: fmp4.FragmentParser
    fragments: list[Fragment] = field(default_factory=list)
    film: Film | None = None
    read_bytes: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def read_on(self, length_bytes: int) -> None:
        """Take in what the file has become, up to `length_bytes`. Blocks on the disk; raises `OSError`."""
        if self.parser.broken or self.parser.position >= length_bytes:
            return
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            while (left := length_bytes - self.parser.position) > 0:
                if self.parser.skip(left, self.fragments):
                    continue
                data = os.pread(descriptor, min(_WINDOW_BYTES, left), self.parser.position)
                self.read_bytes += len(data)
                if not data or self.read_bytes > MAX_READ_BYTES or len(self.fragments) > MAX_FRAGMENTS:
                    raise NoIndex("more boxes than a clip has")
                self.parser.feed_into(data, self.fragments)
        except ValueError as error:
            self.parser.broken = str(error)
        finally:
            os.close(descriptor)

    def make_film(self, length_bytes: int) -> Film:
        """Blocks on the disk. What has no plain form, or is not whole fragments, is shown as it is."""
        if self.film is None:
            try:
                self.film = self._film(length_bytes)
            except ValueError as error:
                metrics.count("linkhost.no_faststart")
                _log.info("linkhost.no_faststart", file=self.path.name, error=str(error))
                self.film = PLAIN
        return self.film

    def _film(self, length_bytes: int) -> Film:
        self.read_on(length_bytes)
        if self.parser.broken or self.parser.whole_bytes != length_bytes:
            raise NoIndex(self.parser.broken or "its last fragment is cut")
        init_bytes = self.fragments[0].length_bytes
        with self.path.open("rb") as file:
            # ftyp comes from a stranger, and may be of any size; moov was bounded by the parser.
            init = file.read(min(init_bytes, 2 * fmp4.MAX_HEADER_BYTES))
        return Film(fmp4.faststart_head(init, self.tables, length_bytes - init_bytes), init_bytes)


class Indexes:
    """The indexes of the parts that are being looked at."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._held: OrderedDict[tuple[str, int, int], _Index] = OrderedDict()

    async def fragments(self, part: Part) -> Sequence[Fragment]:
        """The whole fragments of a part, the first being its initialisation segment; none where it is no fragmented MP4.

        Raises `OSError` where the part's file cannot be read.
        """
        index = self._index(part)
        async with index.turn:
            await self._files.blocking(index.read_on, part.offset_bytes)
        self._make_room()
        return index.fragments

    async def film(self, part: Part) -> Film:
        """How a sealed part is shown as a plain MP4. Raises `OSError`."""
        index = self._index(part)
        async with index.turn:
            film = await self._files.blocking(index.make_film, part.offset_bytes)
        self._make_room()
        return film

    async def duration_s(self, part: Part) -> float:
        """How much of it can be shown, in seconds; 0 where that is not known. Raises `OSError`."""
        fragments = (await self.fragments(part))[1:]
        if not fragments:
            return 0
        first, last = fragments[0], fragments[-1]
        return max(0, last.start_90k + last.duration_90k - first.start_90k) / MEDIA_CLOCK_HZ

    def _index(self, part: Part) -> _Index:
        key = (part.clip_id, part.index, part.epoch)
        if key not in self._held:
            tables = fmp4.SampleTables()
            path = self._files.path(part.clip_id, part.index)
            self._held[key] = _Index(path, tables, fmp4.FragmentParser(on_moof=tables.take))
        self._held.move_to_end(key)
        return self._held[key]

    def _make_room(self) -> None:
        held = sum(index.tables.count for index in self._held.values())
        while len(self._held) > 1 and (len(self._held) > _MAX_HELD or held > MAX_HELD_SAMPLES):
            _, index = self._held.popitem(last=False)
            held -= index.tables.count
