"""A 5 GB upload and ten viewers: `python -m tests.campaigns.uploads [--write]`.

The link host runs in a process of its own, whose memory is looked at all the while. One clip grows, request by request;
half of the viewers follow it from its first byte, the others seek about in it, and in the sealed one's faststart order.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import os
import struct
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from random import Random

import aiohttp
import av
import numpy as np

from tests.campaigns import results
from tests.campaigns.child import Child, child
from tests.campaigns.process import quantile
from tests.linkhost.client import GUARD, Client, inside, path_of
from vigintd import fmp4

VIEWERS = 10
SIZE_MB = 5000
REQUEST_MB = 256

SEEKS = 20
"""Of each viewer who seeks, once it is sealed."""

_LOOK_S = 0.2
_SEEK_BYTES = 4 * 1024 * 1024
_MB = 1024 * 1024
_FPS = 10


@dataclass(frozen=True)
class Figures:
    """What one run measured."""

    viewers: int
    size_mb: float
    fragments: int
    seconds: float
    seal_s: float
    sent_mb: float
    """To all viewers together."""
    seek_p99_s: float
    """Until four megabytes from anywhere were there."""
    rss_mb: tuple[float, float]
    """Of the host before the upload, and the most while it went on, was sealed and was watched."""
    threads: int
    fds: int
    """Most of both."""

    @property
    def grown_mb(self) -> float:
        """How much the host's memory grew."""
        return self.rss_mb[1] - self.rss_mb[0]


class Film:
    """A recording of any length: real fragments of some 700 kB, again and again, with their times going on."""

    def __init__(self) -> None:
        self.head, *self._fragments = _recorded()
        self.count = 0
        self._step = len(self._fragments) * _FPS // 2

    def more(self, size_bytes: int) -> Iterator[bytes]:
        """The head where nothing was given out yet, and fragments of at least so many bytes together."""
        if self.count == 0:
            yield self.head
        while size_bytes > 0:
            lap, place = divmod(self.count, len(self._fragments))
            fragment = bytearray(self._fragments[place])
            at = fragment.index(b"tfdt") + 8
            (begins,) = struct.unpack_from(">Q", fragment, at)
            struct.pack_into(">Q", fragment, at, begins + lap * self._step)
            size_bytes -= len(fragment)
            self.count += 1
            yield bytes(fragment)


@cache
def _recorded() -> list[bytes]:
    """Two seconds of noise, which nothing makes small."""
    file, random = io.BytesIO(), np.random.default_rng(1)
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof+delay_moov", "frag_duration": "500000"}
    with av.open(file, "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=_FPS)
        stream.width, stream.height, stream.pix_fmt = 480, 270, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, _FPS)
        stream.codec_context.gop_size = _FPS // 2
        stream.options = {"preset": "ultrafast", "crf": "4", "x264-params": "bframes=0:scenecut=0"}
        for number in range(2 * _FPS):
            frame = av.VideoFrame.from_ndarray(random.integers(0, 255, (270, 480, 3), np.uint8), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = file.getvalue()
    pieces = [data[f.offset_bytes : f.offset_bytes + f.length_bytes] for f in fmp4.scan(data, strict=False)[0]]
    assert all(piece.find(b"tfdt") > 0 for piece in pieces[1:])
    return pieces


class Audience:
    """Ten viewers of one link."""

    def __init__(self, port: int, link: str, *, viewers: int, seeks: int) -> None:
        self.got_bytes = 0
        self.seeks_s: list[float] = []
        self._port = port
        self._link = link
        self.viewers = viewers
        self._followers = viewers // 2
        self._seekers = viewers - self._followers
        self._seeks = seeks

    async def watch(self, upload: Upload) -> None:
        """Until the clip is sealed, and a little longer."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._followers):
                group.create_task(self._follow(upload))
            for number in range(self._seekers):
                group.create_task(self._seek(upload, Random(number)))

    async def _follow(self, upload: Upload) -> None:
        got = await self._fetch("live/0.mp4", "")
        assert got == upload.size_bytes, (got, upload.size_bytes)

    async def _seek(self, upload: Upload, random: Random) -> None:
        left = self._seeks
        while left:
            place = "part/0.mp4"
            if upload.sealed.is_set():
                left, place = left - 1, "play/0.mp4"
            first = random.randrange(upload.committed_bytes)
            length = min(_SEEK_BYTES, upload.committed_bytes - first)
            begun_s = asyncio.get_running_loop().time()
            assert await self._fetch(place, f"Range: bytes={first}-{first + length - 1}\r\n") == length
            self.seeks_s.append(asyncio.get_running_loop().time() - begun_s)

    async def _fetch(self, place: str, header: str) -> int:
        """Ask by HTTP/1.0, whose bodies have no chunks, and count what comes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=_MB)
        writer.write(f"GET {inside(self._link, place)} HTTP/1.0\r\n{header}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.split()[1] in (b"200", b"206"), head
        got = 0
        while piece := await reader.read(_MB):
            got += len(piece)
            self.got_bytes += len(piece)
        writer.close()
        return got


class Upload:
    """One clip on its way."""

    def __init__(self, client: Client) -> None:
        self.committed_bytes = 0
        self.size_bytes = 0
        self.film = Film()
        self.sealed = asyncio.Event()
        self.seal_s = 0.0
        self._client = client
        self._sha256 = hashlib.sha256()

    async def begin(self) -> str:
        """Announce it, with its first bytes; answers its link."""
        link = path_of((await self._client.create()).json["links"][GUARD])
        await self._request(1)
        return link

    async def run(self, size_bytes: int, request_bytes: int) -> None:
        """Send so much and seal it."""
        while self.committed_bytes < size_bytes:
            await self._request(min(request_bytes, size_bytes - self.committed_bytes))
        self.size_bytes = self.committed_bytes
        begun_s = asyncio.get_running_loop().time()
        sealed = await self._client.seal(b"", length=self.size_bytes, sha256=self._sha256.hexdigest())
        assert sealed.status == 200, sealed.text
        self.seal_s = asyncio.get_running_loop().time() - begun_s
        assert (await self._client.update(ended=True)).status == 200
        self.sealed.set()

    async def _request(self, size_bytes: int) -> None:
        data = await asyncio.to_thread(b"".join, self.film.more(size_bytes))
        await asyncio.to_thread(self._sha256.update, data)
        sent = await self._client.append(data, self.committed_bytes)
        assert sent.status == 204, sent.text
        self.committed_bytes += len(data)


async def measured(
    size_mb: float, *, request_mb: float = REQUEST_MB, viewers: int = VIEWERS, seeks: int = SEEKS, folder: Path | None = None
) -> Figures:
    """One run, with the host's files in `folder` (a temporary one when None)."""
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory(dir=folder) as place:
        free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
        assert free > (size_mb + 1000) * _MB, f"{place} has room for {free // _MB} MB only"
        async with child("tests.campaigns.hosting", place) as (hosting, hello):
            before = (await hosting.ask("usage"))["rss_bytes"]
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(None)) as session:
                upload = Upload(Client(session, f"http://127.0.0.1:{hello['port']}"))
                link = await upload.begin()
                audience = Audience(hello["port"], link, viewers=viewers, seeks=seeks)
                begun_s, looking = loop.time(), asyncio.create_task(_looked(hosting))
                async with asyncio.TaskGroup() as group:
                    group.create_task(upload.run(round(size_mb * _MB), round(request_mb * _MB)))
                    group.create_task(audience.watch(upload))
                took_s = loop.time() - begun_s
                looking.cancel()
                most = await looking
    return _figures(upload, audience, took_s=took_s, before=before, most=most)


async def _looked(hosting: Child) -> dict[str, int]:
    """The most of everything, until cancelled."""
    most = {"rss_bytes": 0, "threads": 0, "fds": 0}
    try:
        while True:
            used = await hosting.ask("usage")
            most = {name: max(value, used[name]) for name, value in most.items()}
            await asyncio.sleep(_LOOK_S)
    except asyncio.CancelledError:
        return most


def _figures(upload: Upload, audience: Audience, *, took_s: float, before: int, most: dict[str, int]) -> Figures:
    return Figures(
        viewers=audience.viewers,
        size_mb=round(upload.size_bytes / _MB, 1),
        fragments=upload.film.count,
        seconds=round(took_s, 1),
        seal_s=round(upload.seal_s, 2),
        sent_mb=round(audience.got_bytes / _MB, 1),
        seek_p99_s=round(quantile(audience.seeks_s, 0.99), 3),
        rss_mb=(round(before / _MB, 1), round(most["rss_bytes"] / _MB, 1)),
        threads=most["threads"],
        fds=most["fds"],
    )


def rows(figures: Figures) -> list[results.Row]:
    """The figures as people read them."""
    return [
        ("uploaded, in fragments", f"{figures.size_mb:.0f} MB, {figures.fragments}", "5 GB"),
        ("viewers, and what they were sent", f"{figures.viewers}, {figures.sent_mb:.0f} MB", "10"),
        ("in all; to seal it", f"{figures.seconds:g} s; {figures.seal_s:g} s", ""),
        ("four megabytes from anywhere, p99", f"{figures.seek_p99_s:g} s", ""),
        ("host's memory, before → most", " → ".join(f"{mb:.1f}" for mb in figures.rss_mb) + " MB", ""),
        ("host's memory grew by", f"{figures.grown_mb:.1f} MB", "< 50 MB"),
        ("host's threads, descriptors, most", f"{figures.threads}, {figures.fds}", ""),
    ]


def main() -> None:
    """Read the command line, measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mb", type=float, default=SIZE_MB)
    parser.add_argument("--folder", type=Path, help="where the host keeps the clip meanwhile")
    parser.add_argument("--write", action="store_true", help="leave the result in docs/bench")
    arguments = parser.parse_args()
    figures = asyncio.run(measured(arguments.size_mb, folder=arguments.folder))
    results.tell(
        "uploads",
        f"An upload of {figures.size_mb / 1000:.1f} GB and {figures.viewers} viewers",
        rows(figures),
        asdict(figures),
        command="make campaign-uploads ARGS='" + " ".join(sys.argv[1:]) + "'",
        write=arguments.write,
    )


if __name__ == "__main__":
    main()
