"""Whether a file is a clip that was sealed here: looked up by its SHA-256 in the folder of a host.

Owns also how the plain copy is known again that a player is given of a finished part: its fragments are the evidence's
bytes, and its head is the one that follows from them. Reads only, so that it works beside a host that runs and without
one. Blocks on the disk: for commands.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vigintd import fmp4
from vigintd.clock import SystemClock
from vigintd.errors import PermanentError
from vigintd.fmp4.boxes import header
from vigintd.linkhost.store import Clip, Part, Store, StoreError

DATABASE = "linkhost.sqlite3"
"""The database's name in the host's folder."""

MAX_HEAD_BYTES = 64 << 20
"""What stands before the media data of a plain copy; a longer one is not ours."""
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Evidence:
    """One part whose seal has the hash in question."""

    clip: Clip
    part: Part
    parts: int
    """How many its clip has."""


async def sealed_as(folder: Path, sha256: str) -> list[Evidence]:
    """The parts that were sealed with this hash (hex), oldest first, also of clips that are gone; none where no host is.

    Raises `PermanentError`.
    """
    async with _reading(folder) as store:
        return [await _of(store, part) for part in await store.sealed_as(sha256)] if store else []


async def original_of(folder: Path, file: BinaryIO) -> str:
    """The SHA-256 of the part of which `file` is the plain copy, whole and unchanged; empty where it is none.

    Reads the file to its end. Raises `PermanentError`, and `OSError` where the file cannot be read.
    """
    head = _plain_head(file)
    if head is None:
        return ""
    fragments_bytes = file.seek(0, 2) - len(head)
    async with _reading(folder) as store:
        known = await store.sealed_with(fragments_bytes) if store else []
    return next((sha256 for sha256, init in known if _follows(file, head, sha256, init)), "")


async def _of(store: Store, part: Part) -> Evidence:
    clip = await store.clip(part.clip_id)
    assert clip is not None, "each part's clip is there for good"
    return Evidence(clip, part, len(await store.parts(clip.id)))


@asynccontextmanager
async def _reading(folder: Path) -> AsyncGenerator[Store | None]:
    path = folder / DATABASE
    if not path.exists():
        yield None
        return
    try:
        store = await Store.open_to_read(path, SystemClock())
        try:
            yield store
        finally:
            await store.aclose()
    except StoreError as error:
        raise PermanentError(f"{path} cannot be read: {error}") from error


def _plain_head(file: BinaryIO) -> bytes | None:
    """What stands before the media data of a file whose last box is its one `mdat`; None where it is built otherwise."""
    size_bytes = file.seek(0, 2)
    at = 0
    while at < min(size_bytes, MAX_HEAD_BYTES):
        file.seek(at)
        try:
            found = header(file.read(16))
        except ValueError:
            return None
        if found is None:
            return None
        kind, header_bytes, box_bytes = found
        if kind == b"mdat":
            if at + box_bytes != size_bytes:
                return None
            file.seek(0)
            return file.read(at + header_bytes)
        at += box_bytes
    return None


def _follows(file: BinaryIO, head: bytes, sha256: str, init: bytes) -> bool:
    """Whether the fragments behind `head` are those of this part, and `head` is the one that follows from them."""
    tables = fmp4.SampleTables()
    parser = fmp4.FragmentParser(on_moof=tables.take)
    digest = hashlib.sha256()
    file.seek(len(head))
    try:
        for block in _blocks(init, file):
            digest.update(block)
            parser.feed(block)
        return digest.hexdigest() == sha256 and head == fmp4.faststart_head(init, tables, parser.position - len(init))
    except ValueError:
        return False


def _blocks(init: bytes, file: BinaryIO) -> Iterator[bytes]:
    yield init
    while block := file.read(_BLOCK_BYTES):
        yield block
