"""The spool's folder: which file belongs to which incident, and who may write or read it.

Owns names and the life of files; what a file holds is `growing`'s and `stored`'s.
"""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from vigintd.model import SealedPart
from vigintd.spool.disk import Disk, Measure, create, measure, read_or_none, remove, write_durably
from vigintd.spool.growing import PartFile, SourceFile
from vigintd.spool.stored import INCIDENT_ID, StoredPart, Weight, fragments_of, salvage, scan, survey, weigh

_File = TypeVar("_File", PartFile, SourceFile)

_SUFFIX = re.compile(r"(?:\.[a-z0-9_]{1,32}){1,4}")


class Spool:
    """The files of every incident on this box.

    `{id}.{part}.mp4` is a part, `{id}.{n}.source.mp4` what the camera sent for parts that must be encoded, each with a
    sidecar (`.json` for `.mp4`) once it is sealed; `{id}{suffix}` is what else was kept. `OSError` (disk full, read-only,
    gone) comes out as it is; nothing half-written is ever visible.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root = root
        self._disk = Disk()
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
            source.adopt(await self._disk.run(scan, path))
            sources.append(source)
        return sources

    async def stored_part(self, incident_id: str, sealed: SealedPart) -> StoredPart:
        """A sealed part, to be read again; `ClipError` where its file is not as long as it was sealed."""
        path = self.part_path(incident_id, sealed.index)
        return StoredPart(path, sealed, await self._disk.run(fragments_of, path, sealed), disk=self._disk)

    async def salvage(self, incident_id: str, partial: str) -> tuple[SealedPart, ...]:
        """Seal what a writer that died left of an incident: each part at its last whole fragment, durably.

        `partial` says why the last part ends there. Parts that were sealed stay as they are; of a part without a single
        whole fragment nothing stays. Done again, the answer is the same. Not for a part that is being written.
        """
        return tuple(await self._disk.run(salvage, self.root, self._path(incident_id, "").name, partial))

    async def keep(self, incident_id: str, suffix: str, data: bytes) -> Path:
        """Write a small file of the incident, whole and durable or not at all; replaces one of the same name."""
        path = self._path(incident_id, suffix)
        await self._disk.run(write_durably, path, data)
        return path

    async def read_kept(self, incident_id: str, suffix: str) -> bytes | None:
        """What `keep` wrote, or None."""
        return await self._disk.run(read_or_none, self._path(incident_id, suffix))

    async def remove(self, incident_id: str) -> None:
        """Delete everything of an incident; nothing there is no fault. A part still written is closed first."""
        pattern = self._path(incident_id, "").name + ".*"
        for file in [file for file in self._writing if file.incident_id == incident_id]:
            await file.close()
        await self._disk.run(remove, self.root, pattern)

    async def incidents(self) -> list[str]:
        """Ids of the incidents of which anything is here, sorted."""
        names = await self._disk.run(os.listdir, self.root)
        return sorted({name.partition(".")[0] for name in names if INCIDENT_ID.fullmatch(name.partition(".")[0])})

    async def weigh(self) -> dict[str, Weight]:
        """What each incident takes of the disk."""
        return await self._disk.run(weigh, self.root)

    async def measure(self) -> Measure:
        """How the spool's disk is."""
        return await self._disk.run(measure, self.root)

    async def survey(self) -> dict[str, dict[str, datetime]]:
        """For each incident the suffixes of its files, and when each was last written; removes what was half written.

        For the start, before anybody writes here. Files with other names are somebody else's, and left alone.
        """
        return await self._disk.run(survey, self.root)

    async def aclose(self) -> None:
        """Let what is being written finish, close all files and end the threads; unsealed files stay as they are."""
        for file in list(self._writing):
            await file.close()
        self._disk.close()

    async def _new(self, kind: type[_File], incident_id: str, index: int, path: Path) -> _File:
        descriptor = await self._disk.run(create, path)
        file = kind(incident_id, index, path, descriptor, disk=self._disk, on_close=self._writing.discard)
        self._writing.add(file)
        return file

    def _path(self, incident_id: str, suffix: str) -> Path:
        if not INCIDENT_ID.fullmatch(incident_id):
            raise ValueError(f"not an incident's id: {incident_id!r}")
        if suffix and not _SUFFIX.fullmatch(suffix):
            raise ValueError(f"not a suffix of a spooled file: {suffix!r}")
        return self.root / f"{incident_id}{suffix}"
