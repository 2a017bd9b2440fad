"""Shared by the tests of publishing: a tus server, a part that grows on disk, and a clock that does not wait."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import av
import numpy as np
import pytest

from tests.publish.tus_server import TusServer
from vigintd import failpoints
from vigintd.model import Fragment, SealedPart
from vigintd.publish.tus import TusHost

CLIP = "0b9f6a4e-6c1d-4f0e-9a57-3c1f9d3f7a10"
KEY = "a-key-that-nobody-may-read"


class Clock:
    """Time that passes only by sleeping, and then at once; every wait is noted."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.waits: list[float] = []

    def monotonic_s(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2026, 11, 22, 13, 37, 24, tzinfo=UTC)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.seconds += seconds
        await asyncio.sleep(0)


class Part:
    """A part in a real file that grows when a test says so."""

    def __init__(self, path: Path, index: int = 0) -> None:
        self.path = path
        self.index = index
        self.fragments: list[Fragment] = []
        self.visible_bytes = 0
        self.sealed: SealedPart | None = None
        self.longest_read_bytes = 0
        self.coming: Iterator[bytes] | None = None
        """Fragments that are written one by one, each when the reader has caught up; then the part is sealed."""
        self.waited_for = asyncio.Event()
        """Set once the reader has asked for more than there is."""
        self._grown = asyncio.Condition()
        path.touch()

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()

    async def grow(self, *fragments: bytes) -> None:
        with self.path.open("ab") as file:
            for data in fragments:
                file.write(data)
                self.fragments.append(Fragment(self.visible_bytes, len(data), 0, 0, is_key=True))
                self.visible_bytes += len(data)
        await self._wake()

    async def seal(self, trailer: bytes = b"") -> None:
        with self.path.open("ab") as file:
            file.write(trailer)
        self.visible_bytes += len(trailer)
        self.sealed = SealedPart(self.index, self.visible_bytes, hashlib.sha256(self.data).hexdigest(), 1.0)
        await self._wake()

    async def beyond(self, offset_bytes: int) -> None:
        if self.coming is not None and self.visible_bytes <= offset_bytes and self.sealed is None:
            fragment = next(self.coming, None)
            await (self.grow(fragment) if fragment else self.seal())
        if self.visible_bytes <= offset_bytes:
            self.waited_for.set()
        async with self._grown:
            await self._grown.wait_for(lambda: self.visible_bytes > offset_bytes or self.sealed is not None)

    async def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        assert offset_bytes + length_bytes <= self.visible_bytes, "reads only what is visible"
        self.longest_read_bytes = max(self.longest_read_bytes, length_bytes)
        with self.path.open("rb") as file:
            file.seek(offset_bytes)
            return file.read(length_bytes)

    async def _wake(self) -> None:
        async with self._grown:
            self._grown.notify_all()


@pytest.fixture(scope="session")
def film() -> list[bytes]:
    """A second of H.264 as the fragments of an MP4: ftyp+moov first, then moof+mdat pairs."""
    file = io.BytesIO()
    flags = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    with av.open(file, "w", format="mp4", container_options=flags) as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "5", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(25):
            picture = np.full((48, 64, 3), number * 10, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    fragments, head = [], b""
    data = file.getvalue()
    while data:
        size = int.from_bytes(data[:4])
        kind, head, data = data[4:8], head + data[:size], data[size:]
        if kind in (b"moov", b"mdat"):
            fragments.append(head)
            head = b""
    return fragments


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def part(tmp_path: Path) -> Part:
    return Part(tmp_path / f"{CLIP}.0.mp4")


@pytest.fixture
async def server() -> AsyncIterator[TusServer]:
    server = TusServer(key=KEY)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def host(server: TusServer) -> AsyncIterator[TusHost]:
    host = TusHost(server.base, KEY, timeout_s=5)
    yield host
    await host.aclose()


@pytest.fixture(autouse=True)
def no_failpoint_stays_armed() -> Iterator[None]:
    yield
    failpoints.disarm()
