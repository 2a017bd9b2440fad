"""What waits for the disk, and in which order it must: write, fsync, rename, fsync of the folder.

Owns the threads of this room and every call that touches a file. Knows paths and bytes, not incidents.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial as bound
from pathlib import Path
from typing import ParamSpec, TypeVar

import structlog

from vigintd.failpoints import failpoint

_log = structlog.get_logger("spool")

_IO_THREADS = 4
"""Disk calls at once; more wait in line. An fsync is slow on its own account, so a few overlap."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class NotDurable(OSError):
    """An fsync failed, and nothing more goes into that file.

    The kernel may have marked as clean what it could not write, so that no later fsync would prove anything of it.
    """


class Disk:
    """The threads on which this room waits for the disk."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_IO_THREADS, thread_name_prefix="spool")

    async def run(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Make a call that may wait for the disk."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, bound(call, *args, **kwargs))

    def close(self) -> None:
        """End the threads behind what they are at."""
        self._threads.shutdown(wait=False)


def create(path: Path) -> int:
    """Create an empty file, durably; answers its descriptor."""
    failpoint("spool.create.before")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fsync_folder(path.parent)
    except OSError:
        os.close(descriptor)
        path.unlink(missing_ok=True)  # or no second try could create it
        raise
    failpoint("spool.create.after")
    return descriptor


def append(descriptor: int, offset: int, data: bytes, sha256: hashlib._Hash) -> None:
    """Write at the end, durably, and only then into the hash. Raises `NotDurable` where the fsync fails."""
    failpoint("spool.append.before")
    try:
        _write_at(descriptor, offset, data)
        failpoint("spool.append.written")
        _fsync(descriptor)
        failpoint("spool.append.after")
    except OSError:
        # The next step writes over the rest anyway; cutting it off now gives a full disk its room back.
        with suppress(OSError):
            os.ftruncate(descriptor, offset)
        raise
    # Last, because it cannot fail: the hash never holds a byte that did not become visible.
    sha256.update(data)


def seal(descriptor: int, path: Path, length: int, sidecar: bytes) -> None:
    """Cut the file to its length, durably, and write its sidecar; a disk that is full costs the sidecar alone."""
    failpoint("spool.seal.before")
    os.ftruncate(descriptor, length)
    os.fsync(descriptor)
    try:
        write_durably(path.with_suffix(".json"), sidecar)
    except OSError as error:
        # The journal holds the seal too, and without either it is made again from the file.
        _log.warning("spool.sidecar_unwritten", file=path.name, error=str(error))
    failpoint("spool.seal.after")


def _fsync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise NotDurable(error.errno, error.strerror) from error


def _write_at(descriptor: int, offset: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        offset += written
        view = view[written:]


def write_durably(path: Path, data: bytes) -> None:
    """Temp, fsync, rename, fsync of the folder: after a crash the old file is there or the new one, whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_at(descriptor, 0, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        failpoint("spool.rename.before")
        temporary.replace(path)
        failpoint("spool.rename.after")
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make what was created, renamed or deleted in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Measure:
    """How a disk was found."""

    disk_bytes: int
    free_bytes: int
    """To this user."""
    is_read_only: bool


def measure(root: Path) -> Measure:
    """How the disk on which a folder lies is."""
    found = os.statvfs(root)
    sizes = (found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)
    return Measure(*sizes, is_read_only=bool(found.f_flag & os.ST_RDONLY))


def length_of(descriptor: int) -> int:
    """Bytes of an open file."""
    return os.fstat(descriptor).st_size


def read_range(path: Path, offset: int, length: int) -> bytes:
    """Up to `length` bytes from `offset`."""
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), length, offset)


def read_or_none(path: Path) -> bytes | None:
    """A small file, or None where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def remove(root: Path, pattern: str) -> None:
    """Delete every file of this pattern, and what was half written of it, durably."""
    for path in [*root.glob(pattern), *root.glob(f".{pattern}")]:
        failpoint("spool.remove.before")
        path.unlink(missing_ok=True)
        failpoint("spool.remove.after")
    fsync_folder(root)
