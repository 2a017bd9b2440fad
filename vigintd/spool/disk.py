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
from functools import partial as bound
from pathlib import Path
from typing import ParamSpec, TypeVar

from vigintd.failpoints import failpoint

_IO_THREADS = 4
"""Disk calls at once; more wait in line. An fsync is slow on its own account, so a few overlap."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


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
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fsync_folder(path.parent)
    except OSError:
        os.close(descriptor)
        path.unlink(missing_ok=True)  # or no second try could create it
        raise
    return descriptor


def append(descriptor: int, offset: int, data: bytes, sha256: hashlib._Hash) -> None:
    """Write at the end, durably, and only then into the hash."""
    failpoint("spool.append.before")
    try:
        _write_at(descriptor, offset, data)
        os.fsync(descriptor)
        failpoint("spool.append.after")
    except OSError:
        # The next step writes over the rest anyway; cutting it off now gives a full disk its room back.
        with suppress(OSError):
            os.ftruncate(descriptor, offset)
        raise
    # Last, because it cannot fail: the hash never holds a byte that did not become visible.
    sha256.update(data)


def seal(descriptor: int, path: Path, length: int, sidecar: bytes) -> None:
    """Cut the file to its length, durably, and write its sidecar."""
    failpoint("spool.seal.before")
    os.ftruncate(descriptor, length)
    os.fsync(descriptor)
    write_durably(path.with_suffix(".json"), sidecar)
    failpoint("spool.seal.after")


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
        temporary.replace(path)
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
        path.unlink(missing_ok=True)
    fsync_folder(root)
