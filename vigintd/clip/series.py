"""Files of one clip on their way to the disk, one after another.

Owns the order: a file is ended before the next begins, and a piece leaves the queue only once it is on the disk, so that
a failing disk may be tried again. Loop only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import structlog

from vigintd.clip.part import Piece
from vigintd.errors import TransientError
from vigintd.model import MEDIA_CLOCK_HZ
from vigintd.spool import PartFile, SourceFile, Spool

_log = structlog.get_logger("clip")

_File = TypeVar("_File", bound=PartFile | SourceFile)


class Series(Generic[_File]):
    """The parts, or the sources, of one clip. `on_file` is called once a file's first fragment is visible."""

    def __init__(
        self,
        create: Callable[[int], Awaitable[_File]],
        seal: Callable[[_File, Piece, str], Awaitable[object]],
        on_file: Callable[[_File], None],
    ) -> None:
        self.files: list[_File] = []
        """Those of which something is visible."""
        self._create = create
        self._seal = seal
        self._on_file = on_file
        self._owed: deque[Piece] = deque()
        """Pieces not on the disk yet: at most what one visit brings, or what a failing disk left."""
        self._growing: tuple[_File, Piece] | None = None

    def owe(self, pieces: Sequence[Piece]) -> None:
        """Take pieces, to be brought to the disk by the next `store`."""
        self._owed.extend(pieces)

    async def store(self) -> None:
        """Bring what is owed to the disk. Raises `OSError`; the same call may then be made again."""
        while self._owed:
            piece = self._owed[0]
            if self._growing is not None and self._growing[0].index != piece.index:
                await self.end()
            if self._growing is None:
                self._growing = await self._create(piece.index), piece
            file, _ = self._growing
            await file.append(piece.data, piece.fragments)
            self._owed.popleft()
            if file not in self.files:
                self.files.append(file)
                self._on_file(file)

    async def end(self, partial: str = "") -> None:
        """Seal the file that grows, if one does; `partial` says why it ends too early."""
        if self._growing is None:
            return
        file, piece = self._growing
        if file.fragments:
            await self._seal(file, piece, partial)
        else:
            await file.discard()
        self._growing = None

    async def leave(self, partial: str) -> None:
        """The disk damaged the file that grows: end it at what is visible of it, and forget what was to follow there."""
        self.give_up()
        growing = self._growing
        try:
            await self.end(partial)
        finally:
            self._growing = None
            if growing is not None:
                await growing[0].close()

    def give_up(self) -> None:
        """What is owed will not come to the disk any more."""
        self._owed.clear()

    async def close(self) -> None:
        """Close the file that grows as it is."""
        if self._growing is not None:
            await self._growing[0].close()


def parts(spool: Spool, incident_id: str, on_part: Callable[[PartFile], None]) -> Series[PartFile]:
    """The parts of a clip."""

    async def create(index: int) -> PartFile:
        return await spool.new_part(incident_id, index)

    async def seal(file: PartFile, piece: Piece, partial: str) -> None:
        last = file.fragments[-1]
        duration_s = (last.start_90k + last.duration_90k) / MEDIA_CLOCK_HZ
        await file.seal(duration_s=duration_s, partial=partial, reduced=piece.reduced)

    return Series(create, seal, on_part)


def sources(spool: Spool, incident_id: str, on_source: Callable[[SourceFile], None]) -> Series[SourceFile]:
    """The sources of a clip."""

    async def create(index: int) -> SourceFile:
        return await spool.new_source(incident_id, index)

    async def seal(file: SourceFile, piece: Piece, partial: str) -> None:
        del partial  # a source is what it is
        try:
            await file.seal(codec=piece.shape.codec)
        except (OSError, TransientError) as error:
            # Its parts can be made all the same, and shall not wait for its hash.
            _log.warning("clip.source_unsealed", incident=incident_id, error=str(error))
            await file.end()

    return Series(create, seal, on_source)
