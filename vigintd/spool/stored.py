"""What lies in the spool when nobody writes: sealed parts, and what a writer that died left behind.

Owns reading them back, sealing what was cut, and the survey at a start.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from vigintd.errors import ClipError
from vigintd.fmp4 import FragmentParser
from vigintd.model import MEDIA_CLOCK_HZ, Fragment, Original, SealedPart
from vigintd.spool.disk import Disk, fsync_folder, read_range, remove, seal

INCIDENT_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_BLOCK_BYTES = 512
"""What `st_blocks` counts (stat(2)), whatever the file system's own blocks are."""
_SCANNED_BYTES = 1 << 20
"""Read at a time of a file whose fragments are looked for."""


@dataclass(frozen=True, slots=True)
class Weight:
    """What an incident takes of the disk."""

    size_bytes: int
    has_video: bool
    """A part, or a source, sealed or not."""


class StoredPart:
    """A sealed part of the spool, as an upload reads it."""

    def __init__(self, path: Path, sealed: SealedPart, fragments: Sequence[Fragment], *, disk: Disk) -> None:
        self.index = sealed.index
        self.path = path
        self.sealed = sealed
        self.fragments = fragments
        self.visible_bytes = sealed.length_bytes
        self._disk = disk

    async def beyond(self, offset_bytes: int) -> None:
        """Return at once: the part is sealed."""

    async def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Up to `length_bytes` bytes from `offset_bytes`; empty at or behind the end."""
        length_bytes = min(length_bytes, self.visible_bytes - offset_bytes)
        if offset_bytes < 0 or length_bytes <= 0:
            return b""
        return await self._disk.run(read_range, self.path, offset_bytes, length_bytes)


def survey(root: Path) -> dict[str, dict[str, datetime]]:
    """For each incident the suffixes of its files, and when each was last written; removes what was half written."""
    found: dict[str, dict[str, datetime]] = {}
    for path in root.iterdir():
        incident_id, _, rest = path.name.removeprefix(".").partition(".")
        if not INCIDENT_ID.fullmatch(incident_id):
            continue
        if not path.name.startswith("."):
            found.setdefault(incident_id, {})[f".{rest}"] = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        elif path.suffix == ".tmp":
            path.unlink(missing_ok=True)
    fsync_folder(root)
    return found


def weigh(root: Path) -> dict[str, Weight]:
    """What each incident takes of the disk, by the blocks of its files."""
    found: dict[str, Weight] = {}
    with os.scandir(root) as entries:
        for entry in entries:
            incident_id = entry.name.removeprefix(".").partition(".")[0]
            if not INCIDENT_ID.fullmatch(incident_id):
                continue
            try:
                size_bytes = entry.stat(follow_symlinks=False).st_blocks * _BLOCK_BYTES
            except FileNotFoundError:  # it went meanwhile
                continue
            so_far = found.get(incident_id, Weight(0, has_video=False))
            has_video = so_far.has_video or entry.name.endswith(".mp4")
            found[incident_id] = Weight(so_far.size_bytes + size_bytes, has_video)
    return found


def scan(path: Path) -> list[Fragment]:
    """The whole fragments that a file begins with."""
    parser, found = FragmentParser(), list[Fragment]()
    with path.open("rb", buffering=0) as file:
        while data := file.read(_SCANNED_BYTES):
            try:
                parser.feed_into(data, found)
            except ValueError:
                break  # what a crash left behind the last whole fragment
    return found


def fragments_of(path: Path, sealed: SealedPart) -> list[Fragment]:
    """The fragments of a sealed part; `ClipError` where its file is not as long as it was sealed."""
    try:
        length_bytes = path.stat().st_size
    except FileNotFoundError as error:
        raise ClipError(f"{path.name} is not in the spool any more") from error
    if length_bytes != sealed.length_bytes:
        raise ClipError(f"{path.name} has {length_bytes} bytes, and was sealed with {sealed.length_bytes}")
    return scan(path)


def salvage(root: Path, name: str, partial: str) -> list[SealedPart]:
    """Seal each part of an incident at its last whole fragment; see `Spool.salvage`."""
    is_part = re.compile(re.escape(name) + r"\.\d+\.mp4")
    paths = sorted((path for path in root.glob(f"{name}.*.mp4") if is_part.fullmatch(path.name)), key=_index_of)
    found: list[SealedPart] = []
    for path in paths:
        part = _sealed_before(path) or _seal_again(path, name, partial if path == paths[-1] else "")
        if part is not None:
            found.append(part)
    return found


def _index_of(path: Path) -> int:
    return int(path.name.split(".")[1])


def _sealed_before(path: Path) -> SealedPart | None:
    try:
        fields = json.loads(path.with_suffix(".json").read_bytes())
        fields.pop("incident_id")
        sealed = SealedPart(**fields)
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
    return sealed if path.stat().st_size == sealed.length_bytes else None


def _seal_again(path: Path, incident_id: str, partial: str) -> SealedPart | None:
    fragments = scan(path)
    if len(fragments) < 2:
        remove(path.parent, path.name)
        return None
    last = fragments[-1]
    length_bytes = last.offset_bytes + last.length_bytes
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.ftruncate(descriptor, length_bytes)
        with open(descriptor, "rb", closefd=False) as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        duration_s = (last.start_90k + last.duration_90k) / MEDIA_CLOCK_HZ
        sealed = SealedPart(_index_of(path), length_bytes, sha256, duration_s, partial)
        seal(descriptor, path, length_bytes, sidecar_of(incident_id, sealed))
    finally:
        os.close(descriptor)
    return sealed


def sidecar_of(incident_id: str, sealed: SealedPart | Original) -> bytes:
    """What stands beside a sealed file."""
    return json.dumps({"incident_id": incident_id, **asdict(sealed)}, ensure_ascii=False, indent=1).encode()
