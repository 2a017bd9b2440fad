"""The bytes of parts, on disk: written behind the committed offset, read at any place, gone at expiry.

Owns the folder of clips and a small executor for everything that can block on a disk. What of a file counts
is the store's to say: bytes beyond the committed offset are an upload that did not finish, and are cut off
when the next one begins. A file that is reset or removed is unlinked, so who reads it goes on reading the old one.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from vigintd.failpoints import failpoint
from vigintd.linkhost.keyfile import fsync_folder

BLOCK_BYTES = 64 * 1024
"""What is read and sent at a time."""

_WRITE_BYTES = 256 * 1024
"""What is gathered before one write; the bound of an upload's memory."""
_HASH_BYTES = 1024 * 1024
_THREADS = 4
_HASHERS = 2

_T = TypeVar("_T")


class ShortFile(OSError):
    """The file holds fewer bytes than were once committed: the disk lost them."""


class Incoming:
    """One body on its way into a part's file, hashed as it comes. Not durable before `sync`."""

    def __init__(self, files: Files, descriptor: int, *, created: bool) -> None:
        self._files = files
        self._descriptor = descriptor
        self._created = created
        self._pending = bytearray()
        self._sha256 = hashlib.sha256()

    async def write(self, data: bytes) -> None:
        """Take `data` as the next bytes."""
        self._pending += data
        if len(self._pending) >= _WRITE_BYTES:
            await self._flush()

    async def digest(self) -> bytes:
        """SHA-256 of everything written."""
        await self._flush()
        return self._sha256.digest()

    async def sync(self) -> None:
        """Everything written, and the file's name, are on disk."""
        await self._flush()
        await self._files.blocking(self._sync)

    async def _flush(self) -> None:
        if self._pending:
            data, self._pending = bytes(self._pending), bytearray()
            await self._files.blocking(self._write, data)

    def _write(self, data: bytes) -> None:
        self._sha256.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def _sync(self) -> None:
        os.fsync(self._descriptor)
        if self._created:
            fsync_folder(self._files.folder)


class Outgoing:
    """A part's file opened for reading."""

    def __init__(self, files: Files, descriptor: int) -> None:
        self._files = files
        self._descriptor = descriptor

    async def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """At most `length_bytes` from `offset_bytes`; fewer at the end of the file."""
        return await self._files.blocking(os.pread, self._descriptor, length_bytes, offset_bytes)


class Files:
    """The folder of clips, created with mode 0700. Nothing is taken while less than `keep_free_bytes` are free there."""

    def __init__(self, folder: Path, *, keep_free_bytes: int = 0) -> None:
        self.folder = folder
        self._keep_free_bytes = keep_free_bytes
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="vigintd-linkhost")
        # A whole part takes seconds to hash; viewers need threads meanwhile.
        self._hashing = asyncio.Semaphore(_HASHERS)

    def path(self, clip_id: str, part: int) -> Path:
        """Where a part lies."""
        return self.folder / f"{clip_id}.{part}.mp4"

    async def blocking(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Run something that may wait for a disk, off the loop; a cancelled caller still waits for its end.

        Otherwise a descriptor could be closed, and given to another file, under a write that is under way.
        """
        future = asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            future.exception()
            raise

    @asynccontextmanager
    async def incoming(self, clip_id: str, part: int, offset_bytes: int) -> AsyncGenerator[Incoming]:
        """Open a part for the bytes from `offset_bytes` on; what lay beyond is cut off, and again after a fault.

        Raises `ShortFile`, and other `OSError` where the disk has no room.
        """
        descriptor, created = await self.blocking(self._open_at, clip_id, part, offset_bytes)
        try:
            yield Incoming(self, descriptor, created=created)
        except BaseException:
            # What will not be committed must not fill the disk until somebody writes here again.
            await self.blocking(os.ftruncate, descriptor, offset_bytes)
            raise
        finally:
            await self.blocking(os.close, descriptor)

    @asynccontextmanager
    async def outgoing(self, clip_id: str, part: int) -> AsyncGenerator[Outgoing]:
        """Open a part for reading. Raises `FileNotFoundError`."""
        descriptor = await self.blocking(os.open, self.path(clip_id, part), os.O_RDONLY | os.O_NOFOLLOW)
        try:
            yield Outgoing(self, descriptor)
        finally:
            await self.blocking(os.close, descriptor)

    async def head(self, clip_id: str, part: int, length_bytes: int) -> bytes:
        """The first bytes of a part."""
        async with self.outgoing(clip_id, part) as file:
            return await file.read(0, length_bytes)

    async def sha256(self, clip_id: str, part: int, length_bytes: int) -> str:
        """Hex digest over the first `length_bytes` as they lie on disk."""
        async with self._hashing:
            return await self.blocking(self._sha256, self.path(clip_id, part), length_bytes)

    async def remove(self, clip_id: str, part: int) -> None:
        """Unlink a part durably; nothing to do where there is none."""
        await self.blocking(self._remove, self.path(clip_id, part))

    async def names(self) -> list[tuple[str, int, Path]]:
        """Clip, part and path of every part that lies in the folder."""
        return await self.blocking(self._names)

    def close(self) -> None:
        """Take no more work; the threads end with what is under way."""
        self._executor.shutdown(wait=False)

    def _open_at(self, clip_id: str, part: int, offset_bytes: int) -> tuple[int, bool]:
        path = self.path(clip_id, part)
        found = os.statvfs(self.folder)
        if found.f_bavail * found.f_frsize < self._keep_free_bytes:
            raise OSError(errno.ENOSPC, "what is left of the disk is kept free")
        created = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            _refuse_short(path, os.fstat(descriptor).st_size, offset_bytes)
            os.ftruncate(descriptor, offset_bytes)
            os.lseek(descriptor, offset_bytes, os.SEEK_SET)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, created

    @staticmethod
    def _sha256(path: Path, length_bytes: int) -> str:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while length_bytes > 0 and (data := file.read(min(_HASH_BYTES, length_bytes))):
                digest.update(data)
                length_bytes -= len(data)
        return digest.hexdigest()

    def _remove(self, path: Path) -> None:
        failpoint("linkhost.remove.before")
        path.unlink(missing_ok=True)
        fsync_folder(self.folder)
        failpoint("linkhost.remove.after")

    def _names(self) -> list[tuple[str, int, Path]]:
        found = []
        for path in self.folder.glob("*.mp4"):
            clip_id, _, part = path.stem.rpartition(".")
            if clip_id and part.isdecimal():
                found.append((clip_id, int(part), path))
        return found


def _refuse_short(path: Path, size_bytes: int, offset_bytes: int) -> None:
    if size_bytes < offset_bytes:
        raise ShortFile(f"{path.name} holds {size_bytes} bytes of {offset_bytes} that were committed")
