"""The spool: the folder where clips are written before anything else may be told of them.

Owns the files of that folder, their names, their durability and the hash that is their evidence. Knows bytes
and fragments, not video: who writes here has cut them (see `fmp4`). Every call that may wait for the disk runs on
threads of its own, so that a slow disk holds up neither the loop nor name look-ups. What may be deleted, and
when, is not decided here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial as bound
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from vigintd.errors import ClipError
from vigintd.failpoints import failpoint
from vigintd.model import Fragment, SealedPart

_IO_THREADS = 4
"""Disk calls at once; more wait in line. An fsync is slow on its own account, so a few overlap."""

_INCIDENT_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SUFFIX = re.compile(r"(?:\.[a-z0-9_]{1,32}){1,4}")

_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Disk:
    """The threads on which this room waits for the disk."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_IO_THREADS, thread_name_prefix="spool")

    async def run(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, bound(call, *args, **kwargs))

    def close(self) -> None:
        self._threads.shutdown(wait=False)


class Spool:
    """The files of every incident on this box.

    `{id}.{part}.mp4` is a part, `{id}.{part}.json` its sidecar once it is sealed, `{id}{suffix}` what else was kept.
    `OSError` (disk full, read-only, gone) comes out as it is; nothing half-written is ever visible.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root = root
        self._disk = _Disk()
        self._writing: set[PartFile] = set()

    def part_path(self, incident_id: str, index: int) -> Path:
        """Where part `index` (from 0) of an incident is or would be."""
        return self._path(incident_id, f".{index:d}.mp4")

    async def new_part(self, incident_id: str, index: int) -> PartFile:
        """Create an empty part, durably; `FileExistsError` where there is one."""
        path = self.part_path(incident_id, index)
        descriptor = await self._disk.run(_create, path)
        part = PartFile(incident_id, index, path, descriptor, disk=self._disk, on_close=self._writing.discard)
        self._writing.add(part)
        return part

    async def keep(self, incident_id: str, suffix: str, data: bytes) -> Path:
        """Write a small file of the incident, whole and durable or not at all; replaces one of the same name."""
        path = self._path(incident_id, suffix)
        await self._disk.run(_write_durably, path, data)
        return path

    async def read_kept(self, incident_id: str, suffix: str) -> bytes | None:
        """What `keep` wrote, or None."""
        return await self._disk.run(_read_or_none, self._path(incident_id, suffix))

    async def remove(self, incident_id: str) -> None:
        """Delete everything of an incident; nothing there is no fault. A part still written is closed first."""
        pattern = self._path(incident_id, "").name + ".*"
        for part in [part for part in self._writing if part.incident_id == incident_id]:
            await part.close()
        await self._disk.run(_remove, self.root, pattern)

    async def incidents(self) -> list[str]:
        """Ids of the incidents of which anything is here, sorted."""
        names = await self._disk.run(os.listdir, self.root)
        return sorted({name.partition(".")[0] for name in names if _INCIDENT_ID.fullmatch(name.partition(".")[0])})

    async def aclose(self) -> None:
        """Let what is being written finish, close all files and end the threads; unsealed parts stay as they are."""
        for part in list(self._writing):
            await part.close()
        self._disk.close()

    def _path(self, incident_id: str, suffix: str) -> Path:
        if not _INCIDENT_ID.fullmatch(incident_id):
            raise ValueError(f"not an incident's id: {incident_id!r}")
        if suffix and not _SUFFIX.fullmatch(suffix):
            raise ValueError(f"not a suffix of a spooled file: {suffix!r}")
        return self.root / f"{incident_id}{suffix}"


class PartFile:
    """One part of a clip, growing by whole fragments until it is sealed.

    One writer, any number of followers. All attributes are those of the loop's side: they say what is on the disk
    for good, never more.
    """

    def __init__(
        self,
        incident_id: str,
        index: int,
        path: Path,
        descriptor: int,
        *,
        disk: _Disk,
        on_close: Callable[[PartFile], None],
    ) -> None:
        self.incident_id = incident_id
        self.index = index
        self.path = path
        self.visible_bytes = 0
        self.sealed: SealedPart | None = None
        self._disk = disk
        self._on_close = on_close
        self._descriptor: int | None = descriptor
        self._hash = hashlib.sha256()
        self._fragments: list[Fragment] = []
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
        visible and the same call may be made again. A caller that is cancelled leaves the step to finish by itself.
        """
        await self._unbroken(self._append(data, tuple(fragments)))

    async def seal(self, *, duration_s: float, partial: str = "") -> SealedPart:
        """End the part and write its sidecar, durably; `partial` says why it ends too early, if it does.

        The SHA-256 is over the whole file. Asked again, the answer is the same.
        """
        return await self._unbroken(self._seal(duration_s, partial))

    async def beyond(self, offset_bytes: int) -> None:
        """Return as soon as more than `offset_bytes` are visible, or the part is sealed.

        Raises `ClipError` for a part that was closed without a seal: nothing more will come, and there is no hash.
        """
        while self.visible_bytes <= offset_bytes and self.sealed is None:
            if self._descriptor is None:
                raise ClipError(f"{self.path.name} was closed without a seal")
            await self._grown.wait()

    async def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Up to `length_bytes` visible bytes from `offset_bytes`; empty at or behind the visible end."""
        length_bytes = min(length_bytes, self.visible_bytes - offset_bytes)
        if offset_bytes < 0 or length_bytes <= 0:
            return b""
        return await self._disk.run(_read_range, self.path, offset_bytes, length_bytes)

    async def discard(self) -> None:
        """Give up a part of which nothing became visible: its file goes."""
        await self.close()
        if not self._fragments:
            await self._disk.run(_remove, self.path.parent, self.path.name)

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
            await self._disk.run(_append, self._descriptor, self.visible_bytes, data, self._hash)
            self._fragments.extend(fragments)
            self.visible_bytes = end
            self._wake()

    async def _seal(self, duration_s: float, partial: str) -> SealedPart:
        async with self._turn:
            if self.sealed is not None:
                return self.sealed
            if self._descriptor is None:
                raise ValueError(f"{self.path.name} was closed without a seal")
            sealed = SealedPart(self.index, self.visible_bytes, self._hash.hexdigest(), duration_s, partial)
            sidecar = json.dumps({"incident_id": self.incident_id, **asdict(sealed)}, ensure_ascii=False, indent=1)
            await self._disk.run(_seal, self._descriptor, self.path, self.visible_bytes, sidecar.encode())
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


def _create(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _fsync_folder(path.parent)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _append(descriptor: int, offset: int, data: bytes, sha256: hashlib._Hash) -> None:
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


def _seal(descriptor: int, path: Path, length: int, sidecar: bytes) -> None:
    failpoint("spool.seal.before")
    os.ftruncate(descriptor, length)
    os.fsync(descriptor)
    _write_durably(path.with_suffix(".json"), sidecar)
    failpoint("spool.seal.after")


def _write_at(descriptor: int, offset: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        offset += written
        view = view[written:]


def _write_durably(path: Path, data: bytes) -> None:
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
    _fsync_folder(path.parent)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_range(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), length, offset)


def _read_or_none(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _remove(root: Path, pattern: str) -> None:
    for path in [*root.glob(pattern), *root.glob(f".{pattern}")]:
        path.unlink(missing_ok=True)
    _fsync_folder(root)
