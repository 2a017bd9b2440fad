"""Many cameras, and many programs that trigger them at once, each by a connection of its own to the control socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.daemon.box import camera
from vigintd.demo.rtsp import RtspCamera
from vigintd.model import Packet

AT_ONCE = 500
"""Connections that are open here; a process usually has 1,024 descriptors."""

SERVERS = 5
"""Of all cameras; each has an address of its own, because streams of one address open one after another."""


@asynccontextmanager
async def cameras(count: int, packets: Sequence[Packet], *, fps: float) -> AsyncIterator[dict[str, dict[str, Any]]]:
    """The settings of so many cameras that send these packets, by their names."""
    async with AsyncExitStack() as stack:
        urls = []
        for number in range(min(count, SERVERS)):
            server = RtspCamera(packets, fps=fps)
            urls.append(await server.start(f"127.0.0.{number + 1}"))
            stack.push_async_callback(server.stop)
        yield {f"camera-{number}": camera(urls[number % len(urls)]) for number in range(count)}


@dataclass(frozen=True)
class Told:
    """What one of them was answered."""

    camera: str
    incident_id: str
    opened: bool
    """Or else extended."""


async def trigger_all(socket: Path, cameras: Sequence[str]) -> list[Told]:
    """Trigger each of these, all at once. Raises `AssertionError` where one is not answered 200."""
    room = asyncio.Semaphore(AT_ONCE)

    async def call(camera: str) -> Told:
        async with room:
            return await _trigger(socket, camera)

    return await asyncio.gather(*map(call, cameras))


async def _trigger(socket: Path, camera: str) -> Told:
    body = json.dumps({"camera": camera}).encode()
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        head = f"POST /trigger HTTP/1.1\r\nHost: vigintd\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.read()
    finally:
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    told = json.loads(answer.partition(b"\r\n\r\n")[2])
    return Told(camera, told["incident_id"], told["opened"])
