"""Plain HTTP requests, as a phone's browser makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")


async def fetch(url: str, **headers: str) -> Answer:
    """GET, without following anything."""
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers, allow_redirects=False) as response:
        return Answer(response.status, dict(response.headers), await response.read())
