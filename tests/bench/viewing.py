"""How soon a viewer has the first byte while the link host is attacked: `python -m tests.bench.viewing`.

200 connections send a head that never ends, and 50 readers of large answers take nothing. Printed, never asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import platform
import statistics
import tempfile

import aiohttp
from rich.console import Console
from rich.table import Table

from tests.campaigns.child import child
from tests.linkhost.attackers import slow_head, stalled_reader
from tests.linkhost.client import GUARD, OTHER_CLIP, Client, inside, path_of
from tests.linkhost.videos import video

SLOW_HEADS = 200
STALLED_READERS = 50
GOAL_S = 0.5
_LARGE_BYTES = 8 * 1024 * 1024


async def first_byte_s(port: int, path: str) -> float:
    """From the beginning of a new connection to the first byte of the answer."""
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert await reader.readexactly(12) == b"HTTP/1.1 200"
    took_s = loop.time() - begun_s
    await reader.read()
    writer.close()
    return took_s


async def measured(requests: int) -> dict[str, list[float]]:
    """First bytes of the page and of its video, in peace and under attack."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        async with child("tests.campaigns.hosting", folder) as (_, hello), aiohttp.ClientSession() as session:
            port = hello["port"]
            client = Client(session, f"http://127.0.0.1:{port}")
            link = await client.publish(video(2), OTHER_CLIP)
            large = inside(path_of((await client.create()).json["links"][GUARD]), "part/0.mp4")
            await client.append(bytes(_LARGE_BYTES), 0)
            places = {"page": link, "video": inside(link, "part/0.mp4")}
            async with contextlib.AsyncExitStack() as attack:
                for when in ("in peace", "attacked"):
                    for place, path in places.items():
                        found[f"{place}, {when}"] = [await first_byte_s(port, path) for _ in range(requests)]
                    if when == "in peace":
                        for _ in range(SLOW_HEADS):
                            await attack.enter_async_context(slow_head(port))
                        for _ in range(STALLED_READERS):
                            await attack.enter_async_context(stalled_reader(port, large))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100)
    found = asyncio.run(measured(parser.parse_args().requests))
    table = Table(
        title=f"a viewer's first byte, {SLOW_HEADS} slow heads and {STALLED_READERS} stalled readers, "
        f"Python {platform.python_version()} on {platform.machine()}; goal {GOAL_S:g} s"
    )
    for column in ("", "median", "p99", "most"):
        table.add_column(column)
    for what, values in found.items():
        p99 = sorted(values)[int(0.99 * (len(values) - 1))]
        table.add_row(what, *(f"{value * 1000:.1f} ms" for value in (statistics.median(values), p99, max(values))))
    Console().print(table)


if __name__ == "__main__":
    main()
