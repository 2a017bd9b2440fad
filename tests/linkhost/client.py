"""Speaks to a link host over real sockets: the uploader's side of the wire and a viewer's."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from vigintd.linkhost import AuditKind, AuditRow, LinkHost

CLIP = "0b9d3a52-6f0e-4c55-9a0e-2f6c1d7e8a90"
OTHER_CLIP = "7c1f7f0e-0d52-4f0e-8d66-8a5b1c2d3e4f"
KEY = "clef-de-test-nvr-0123456789"
OTHER_KEY = "clef-de-test-autre-9876543210"
BASE_URL = "https://videos.exemple.fr"
GUARD = "gardien@exemple.fr"

METADATA = {
    "site": "Boutique Rivoli",
    "camera": "entree",
    "at": "2026-03-14T10:26:53+01:00",
    "type": "vol à l'étalage",
    "risk": "HIGH",
    "confidence": 0.87,
    "text": "Une personne glisse un article sous son manteau.",
    "language": "fr",
}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


def b64(value: bytes | str) -> str:
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()


def upload_metadata(clip: str, part: int, **fields: Any) -> str:
    values = {"clip": clip, "part": str(part), **{key: v if isinstance(v, str) else json.dumps(v) for key, v in fields.items()}}
    return ",".join(f"{key} {b64(value)}" for key, value in values.items())


class Client:
    """One API key's uploads, and anybody's views."""

    def __init__(self, session: aiohttp.ClientSession, base: str, key: str = KEY) -> None:
        self.session = session
        self.base = base
        self.key = key

    async def ask(self, method: str, path: str, *, data: Any = None, **headers: str) -> Answer:
        """One request; `_` in a header's name stands for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = URL(self.base + path, encoded=True)
        async with self.session.request(method, url, data=data, headers=named, allow_redirects=False) as response:
            return Answer(response.status, response.headers, await response.read())

    async def api(self, method: str, path: str, *, data: Any = None, **headers: str) -> Answer:
        return await self.ask(method, f"/api/v1{path}", data=data, Authorization=f"Bearer {self.key}", **headers)

    async def create(self, clip: str = CLIP, part: int = 0, **fields: Any) -> Answer:
        if part == 0:
            fields = {"recipients": [GUARD], "expiry_h": 48, "metadata": METADATA, **fields}
        return await self.api(
            "POST",
            "/uploads",
            Tus_Resumable="1.0.0",
            Upload_Defer_Length="1",
            Upload_Metadata=upload_metadata(clip, part, **fields),
        )

    async def append(
        self, data: bytes, offset: int, clip: str = CLIP, part: int = 0, *, body: Any = None, **headers: str
    ) -> Answer:
        async def pieces() -> AsyncIterator[bytes]:
            for at in range(0, len(data), 50_000):
                yield data[at : at + 50_000]

        sent = {
            "Content_Type": "application/offset+octet-stream",
            "Upload_Offset": str(offset),
            "Upload_Checksum": f"sha256 {b64(hashlib.sha256(data).digest())}",
            **headers,
        }
        return await self.api("PATCH", f"/uploads/{clip}.{part}", data=pieces() if body is None else body, **sent)

    async def head(self, clip: str = CLIP, part: int = 0) -> Answer:
        return await self.api("HEAD", f"/uploads/{clip}.{part}")

    async def seal(self, data: bytes, clip: str = CLIP, part: int = 0, **wrong: Any) -> Answer:
        value = {"length": len(data), "sha256": hashlib.sha256(data).hexdigest(), **wrong}
        return await self.api("POST", f"/uploads/{clip}.{part}/seal", data=json.dumps(value))

    async def update(self, clip: str = CLIP, **metadata: Any) -> Answer:
        return await self.api("PATCH", f"/clips/{clip}", data=json.dumps(metadata))

    async def publish(self, data: bytes, clip: str = CLIP, **fields: Any) -> str:
        """A whole clip of one part, finished; answers its link as a path with its token."""
        created = await self.create(clip, **fields)
        assert created.status == 201, created.text
        assert (await self.append(data, 0, clip)).status == 204
        assert (await self.seal(data, clip)).status == 200
        assert (await self.update(clip, ended=True)).status == 200
        return path_of(created.json["links"][GUARD])


def path_of(link: str) -> str:
    """The path and query that a browser asks for when it opens this link."""
    parts = urlsplit(link)
    return f"{parts.path}?{parts.query}"


def inside(link: str, place: str) -> str:
    """The path of something that belongs to the page of `link`, such as `status` or `part/0.mp4`."""
    path, _, query = link.partition("?")
    return f"{path}/{place}?{query}"


async def rows(host: LinkHost, kind: AuditKind, count: int, clip: str = CLIP) -> list[AuditRow]:
    """The rows of this kind, once there are so many; media is written down just after its last byte left."""
    return await eventually(host, lambda row: row.kind == kind, count, clip)


async def eventually(host: LinkHost, wanted: Callable[[AuditRow], bool], count: int, clip: str = CLIP) -> list[AuditRow]:
    async with asyncio.timeout(5):
        while len(found := [row for row in await host.audit(clip) if wanted(row)]) < count:
            pass
    return found
