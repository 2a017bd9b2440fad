"""Files that grow by whole fragments: parts of a clip, and the sources of parts that must be encoded.

Owns what is visible of them, and when: written, fsynced, hashed, and only then seen by anybody.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog

from vigintd.errors import ClipError
from vigintd.model import Fragment, Original, SealedPart
from vigintd.spool.disk import Disk, NotDurable, length_of, read_range, remove
from vigintd.spool.disk import append as disk_append
from vigintd.spool.disk import seal as disk_seal
from vigintd.spool.stored import sidecar_of

_log = structlog.get_logger("spool")

_T = TypeVar("_T")
_Seal = TypeVar("_Seal", SealedPart, Original)


class _GrowingFile(Generic[_Seal]):
    """A file that grows by whole fragments until it is sealed.

    One writer, any number of followers. All attributes are those of the loop's side: they say what is on the disk
    for good, never more.
    """

    def __init__(
        self,
        incident_id: str,
        index: int,
        path: Path,
        descriptor: int | None,
        *,
        disk: Disk,
        on_close: Callable[[Any], None],
    ) -> None:
        self.incident_id = incident_id
        self.index = index
        self.path = path
        self.visible_bytes = 0
        self.sealed: _Seal | None = None
        self._disk = disk
        self._on_close = on_close
        self._descriptor = descriptor
        self._hash = hashlib.sha256()
        self._fragments: list[Fragment] = []
        self._is_damaged = False
        self._turn = asyncio.Lock()
        self._grown = asyncio.Event()
        self._jobs: set[asyncio.Task[Any]] = set()

    @property
    def fragments(self) -> Sequence[Fragment]:
        """Every visible fragment, the leading ftyp+moov first; grows in place."""
        return self._fragments

    async def append(self, data: bytes, fragments: Sequence[Fragment]) -> None:
        """Add whole fragments: written, fsynced, hashed, and only then visible to followers.

        `data` is exactly these fragments, which continue the file. When it raises `OSError`, nothing of it became
        visible and the same call may be made again; but after `NotDurable` the file takes nothing more, and can only be sealed
        as it is. A caller that is cancelled leaves the step to finish by itself.
        """
        await self._unbroken(self._append(data, tuple(fragments)))

    @property
    def complete(self) -> bool:
        """Nothing more will come, and nothing is missing at the end."""
        return self.sealed is not None

    async def beyond(self, offset_bytes: int) -> None:
        """Return as soon as more than `offset_bytes` are visible, or the file is complete.

        Raises `ClipError` for one that was closed without a seal: nothing more will come, and there is no hash.
        """
        while self.visible_bytes <= offset_bytes and not self.complete:
            if self._descriptor is None:
                raise ClipError(f"{self.path.name} was closed without a seal")
            await self._grown.wait()

    async def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Up to `length_bytes` visible bytes from `offset_bytes`; empty at or behind the visible end."""
        length_bytes = min(length_bytes, self.visible_bytes - offset_bytes)
        if offset_bytes < 0 or length_bytes <= 0:
            return b""
        return await self._disk.run(read_range, self.path, offset_bytes, length_bytes)

    async def discard(self) -> None:
        """Give up a file of which nothing became visible: it goes."""
        await self.close()
        if not self._fragments:
            await self._disk.run(remove, self.path.parent, self.path.name)

    async def close(self) -> None:
        """Close the file behind the last step under way; for the spool, and for a part that is given up."""
        async with self._turn:
            self._on_close(self)
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
            self._wake()

    async def _append(self, data: bytes, fragments: tuple[Fragment, ...]) -> None:
        async with self._turn:
            if self.sealed is not None or self._descriptor is None:
                raise ValueError(f"{self.path.name} does not grow any more")
            end = self.visible_bytes
            for fragment in fragments:
                if fragment.offset_bytes != end:
                    raise ValueError(f"a fragment at byte {fragment.offset_bytes} where {end} is due")
                end += fragment.length_bytes
            if end != self.visible_bytes + len(data):
                raise ValueError(f"{len(data)} bytes are not the {end - self.visible_bytes} of their fragments")
            if self._is_damaged:
                raise NotDurable(errno.EIO, f"{self.path.name} was damaged by its disk")
            try:
                await self._disk.run(disk_append, self._descriptor, self.visible_bytes, data, self._hash)
            except NotDurable:
                self._is_damaged = True
                raise
            self._fragments.extend(fragments)
            self.visible_bytes = end
            self._wake()

    async def _seal(self, describe: Callable[[str], _Seal]) -> _Seal:
        """Seal by what is said of the file with this SHA-256."""
        async with self._turn:
            if self.sealed is not None:
                return self.sealed
            if self._descriptor is None:
                raise ValueError(f"{self.path.name} was closed without a seal")
            sealed = describe(self._hash.hexdigest())
            sidecar = sidecar_of(self.incident_id, sealed)
            try:
                await self._disk.run(disk_seal, self._descriptor, self.path, self.visible_bytes, sidecar)
            except OSError as error:
                if await self._disk.run(length_of, self._descriptor) != self.visible_bytes:
                    raise
                # What is visible was durable before; nothing is left to be made so.
                _log.warning("spool.seal_refused", incident=self.incident_id, file=self.path.name, error=str(error))
            self.sealed = sealed
            self._wake()
        await self.close()
        return sealed

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    async def _unbroken(self, step: Coroutine[Any, Any, _T]) -> _T:
        """Run a step to its end whatever becomes of the caller: disk and attributes never part."""
        job = asyncio.create_task(step)
        self._jobs.add(job)  # the loop itself holds tasks weakly
        job.add_done_callback(self._jobs.discard)
        return await asyncio.shield(job)


class PartFile(_GrowingFile[SealedPart]):
    """One part of a clip."""

    async def seal(self, *, duration_s: float, partial: str = "", reduced: str = "") -> SealedPart:
        """End the part and write its sidecar, durably; see `SealedPart` for `partial` and `reduced`.

        The SHA-256 is over the whole file. Asked again, the answer is the same. A disk that is full by then, or fails, costs
        the sidecar alone.
        """

        def describe(sha256: str) -> SealedPart:
            return SealedPart(self.index, self.visible_bytes, sha256, duration_s, partial, reduced)

        return await self._unbroken(self._seal(describe))


class SourceFile(_GrowingFile[Original]):
    """What the camera sent, as it came, for parts that must be encoded; no upload ever sees it."""

    _ended = False
    encoded_90k = 0
    """So much of its beginning is in parts already that another life of the daemon made."""

    @property
    def complete(self) -> bool:
        """Nothing more will come: it is sealed, or ended without a seal, or another life of the daemon left it."""
        return self._ended or self.sealed is not None

    async def seal(self, *, codec: str) -> Original:
        """End the source and write its sidecar, durably, as a part's is. Asked again, the answer is the same."""
        return await self._unbroken(self._seal(lambda sha256: Original(self.index, codec, self.visible_bytes, sha256)))

    async def end(self) -> None:
        """End the source without a seal, because its disk refused one: there is no hash, and what is visible is all."""
        self._ended = True
        await self.close()

    async def drop(self) -> None:
        """Delete the source and its sidecar: its parts are sealed, and nobody asked to keep it."""
        await self.close()
        await self._disk.run(remove, self.path.parent, f"{self.path.stem}.*")

    @property
    def duration_90k(self) -> int:
        """How long it is, as far as it is visible."""
        return self._fragments[-1].start_90k + self._fragments[-1].duration_90k if self._fragments else 0

    def adopt(self, fragments: Sequence[Fragment]) -> None:
        """Take these fragments for what is visible of a file that nobody writes any more."""
        self._fragments.extend(fragments)
        self.visible_bytes = sum(fragment.length_bytes for fragment in fragments)
        self._ended = True
