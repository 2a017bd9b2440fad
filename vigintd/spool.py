"""The spool: the folder where clips are written before anything else may be told of them.

Owns the files of that folder, their names, their durability and the hash that is their evidence. Knows bytes and fragments,
not video: who writes here has cut them (see `fmp4`). Every call that may wait for the disk runs on threads of its own, so that
a slow disk holds up neither the loop nor name look-ups. What may be deleted, and when, is decided elsewhere.
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
from typing import Any, Generic, ParamSpec, TypeVar

from vigintd.errors import ClipError
from vigintd.failpoints import failpoint
from vigintd.fmp4 import FragmentParser
from vigintd.model import Fragment, Original, SealedPart

_IO_THREADS = 4
"""Disk calls at once; more wait in line. An fsync is slow, so a few overlap."""

_INCIDENT_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SUFFIX = re.compile(r"(?:\.[a-z0-9_]{1,32}){1,4}")

_SCAN_BYTES = 1 << 20
"""What is read at a time of a source that another life of the daemon left."""

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Seal = TypeVar("_Seal", SealedPart, Original)
_File = TypeVar("_File", "PartFile", "SourceFile")


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

    `{id}.{part}.mp4` is a part, `{id}.{n}.source.mp4` what the camera sent for parts that must be encoded, each with a
    sidecar (`.json` for `.mp4`) once it is sealed; `{id}{suffix}` is what else was kept. `OSError` (disk full, read-only,
    gone) comes out as it is; nothing half-written is ever visible.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root = root
        self._disk = _Disk()
        self._writing: set[PartFile | SourceFile] = set()

    def part_path(self, incident_id: str, index: int) -> Path:
        """Where part `index` (from 0) of an incident is or would be."""
        return self._path(incident_id, f".{index:d}.mp4")

    async def new_part(self, incident_id: str, index: int) -> PartFile:
        """Create an empty part, durably; `FileExistsError` where there is one."""
        return await self._new(PartFile, incident_id, index, self.part_path(incident_id, index))

    def source_path(self, incident_id: str, index: int) -> Path:
        """Where source `index` (from 0) of an incident is or would be."""
        return self._path(incident_id, f".{index:d}.source.mp4")

    async def new_source(self, incident_id: str, index: int) -> SourceFile:
        """Create an empty source, durably; `FileExistsError` where there is one."""
        return await self._new(SourceFile, incident_id, index, self.source_path(incident_id, index))

    async def left_sources(self, incident_id: str) -> list[SourceFile]:
        """The sources that lie here of an incident, in order, each up to its last whole fragment; they do not grow."""
        name = re.compile(re.escape(self._path(incident_id, "").name) + r"\.(\d+)\.source\.mp4")
        found = filter(None, map(name.fullmatch, await self._disk.run(os.listdir, self.root)))
        sources = []
        for index in sorted(int(match[1]) for match in found):
            path = self.source_path(incident_id, index)
            source = SourceFile(incident_id, index, path, None, disk=self._disk, on_close=self._writing.discard)
            source.adopt(await self._disk.run(_whole_fragments, path))
            sources.append(source)
        return sources

    async def keep(self, incident_id: str, suffix: str, data: bytes) -> Path:
        """Write a small file of the incident, whole and durable or not at all; replaces one of the same name."""
        await self._disk.run(_write_durably, path := self._path(incident_id, suffix), data)
        return path

    async def read_kept(self, incident_id: str, suffix: str) -> bytes | None:
        """What `keep` wrote, or None."""
        return await self._disk.run(_read_or_none, self._path(incident_id, suffix))

    async def remove(self, incident_id: str) -> None:
        """Delete everything of an incident; nothing there is no fault. A part still written is closed first."""
        pattern = self._path(incident_id, "").name + ".*"
        for file in [file for file in self._writing if file.incident_id == incident_id]:
            await file.close()
        await self._disk.run(_remove, self.root, pattern)

    async def incidents(self) -> list[str]:
        """Ids of the incidents of which anything is here, sorted."""
        names = await self._disk.run(os.listdir, self.root)
        return sorted({name.partition(".")[0] for name in names if _INCIDENT_ID.fullmatch(name.partition(".")[0])})

    async def aclose(self) -> None:
        """Let what is being written finish, close all files and end the threads; unsealed files stay as they are."""
        for file in list(self._writing):
            await file.close()
        self._disk.close()

    async def _new(self, kind: type[_File], incident_id: str, index: int, path: Path) -> _File:
        descriptor = await self._disk.run(_create, path)
        file = kind(incident_id, index, path, descriptor, disk=self._disk, on_close=self._writing.discard)
        self._writing.add(file)
        return file

    def _path(self, incident_id: str, suffix: str) -> Path:
        if not _INCIDENT_ID.fullmatch(incident_id):
            raise ValueError(f"not an incident's id: {incident_id!r}")
        if suffix and not _SUFFIX.fullmatch(suffix):
            raise ValueError(f"not a suffix of a spooled file: {suffix!r}")
        return self.root / f"{incident_id}{suffix}"


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
        disk: _Disk,
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
        return await self._disk.run(_read_range, self.path, offset_bytes, length_bytes)

    async def discard(self) -> None:
        """Give up a file of which nothing became visible: it goes."""
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

    async def _seal(self, describe: Callable[[str], _Seal]) -> _Seal:
        """Seal by what is said of the file with this SHA-256."""
        async with self._turn:
            if self.sealed is not None:
                return self.sealed
            if self._descriptor is None:
                raise ValueError(f"{self.path.name} was closed without a seal")
            sealed = describe(self._hash.hexdigest())
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


class PartFile(_GrowingFile[SealedPart]):
    """One part of a clip."""

    async def seal(self, *, duration_s: float, partial: str = "", reduced: str = "") -> SealedPart:
        """End the part and write its sidecar, durably; see `SealedPart` for `partial` and `reduced`.

        The SHA-256 is over the whole file. Asked again, the answer is the same.
        """

        def describe(sha256: str) -> SealedPart:
            return SealedPart(self.index, self.visible_bytes, sha256, duration_s, partial, reduced)

        return await self._unbroken(self._seal(describe))


class SourceFile(_GrowingFile[Original]):
    """What the camera sent, as it came, for parts that must be encoded; no upload ever sees it."""

    _ended = False

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
        await self._disk.run(_remove, self.path.parent, f"{self.path.stem}.*")

    def adopt(self, fragments: Sequence[Fragment]) -> None:
        """Take these fragments for what is visible of a file that nobody writes any more."""
        self._fragments.extend(fragments)
        self.visible_bytes = sum(fragment.length_bytes for fragment in fragments)
        self._ended = True


def _create(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _fsync_folder(path.parent)
    except OSError:
        os.close(descriptor)
        path.unlink(missing_ok=True)  # or no second try could create it
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


def _whole_fragments(path: Path) -> list[Fragment]:
    parser = FragmentParser()
    found: list[Fragment] = []
    with path.open("rb") as file, suppress(ValueError):  # a torn tail ends it
        while data := file.read(_SCAN_BYTES):
            parser.feed_into(data, found)
    return found


def _read_or_none(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _remove(root: Path, pattern: str) -> None:
    for path in [*root.glob(pattern), *root.glob(f".{pattern}")]:
        path.unlink(missing_ok=True)
    _fsync_folder(root)
