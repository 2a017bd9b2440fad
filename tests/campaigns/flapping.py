"""Cameras that break their streams again and again: `python -m tests.campaigns.flapping CAMERAS`.

Owns when and how each breaks: by reset, by an orderly end, by falling silent until its client has left, and by
refusing connections for a while. `count` is answered by how often each has really happened.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from typing import Any

from tests.campaigns.child import serve
from tests.campaigns.footage import Footage, encoded
from tests.real.faults import Silent
from tests.real.scripted_camera import ScriptedCamera
from vigintd.model import Packet

BREAKS = ("reset", "end", "silence", "refusal")

_FOOTAGE = Footage(320, 240, 50, 300_000, loop_s=1, gop_s=0.1)
_LIFE_UNITS = 30
"""A life lasts so many access units: time to be opened, and a few key frames."""
_REFUSE_S = 0.15
_LOOK_S = 0.02


class FlappingCamera:
    """One of them."""

    def __init__(self, packets: Sequence[Packet], *, fired: Counter[str]) -> None:
        self.camera = ScriptedCamera(packets, fps=_FOOTAGE.fps)
        self._fired = fired

    async def run(self) -> None:
        """Break each life, each time in another way."""
        for way in cycle(BREAKS):
            await self._life_is_over()
            clients = len(self.camera.playing)
            await self._break(way)
            # What hit nobody did not happen.
            self._fired[way] += clients

    async def _life_is_over(self) -> None:
        while not self.camera.playing:  # noqa: ASYNC110 - a camera has no event for it
            await asyncio.sleep(_LOOK_S)
        begin = self.camera.units_sent
        while self.camera.playing and self.camera.units_sent - begin < _LIFE_UNITS:
            await self.camera.sent.wait()

    async def _break(self, way: str) -> None:
        camera = self.camera
        if way == "silence":
            camera.strike(Silent())
            while camera.playing:  # noqa: ASYNC110 - a camera has no event for it
                await asyncio.sleep(_LOOK_S)
            camera.recover()
        elif way == "refusal":
            port = camera.port
            await camera.stop()
            await asyncio.sleep(_REFUSE_S)
            await camera.start(port=port)
        else:
            camera.drop_clients(reset=way == "reset")


async def flap(count: int) -> None:
    """Flap until nobody asks any more."""
    packets = encoded(_FOOTAGE)
    fired: Counter[str] = Counter()
    flapping = [FlappingCamera(packets, fired=fired) for _ in range(count)]
    urls = [await one.camera.start() for one in flapping]
    tasks = [asyncio.create_task(one.run()) for one in flapping]

    def answer(_word: str) -> dict[str, Any]:
        for task in tasks:
            if task.done():
                task.result()
        return dict(fired)

    await serve({"urls": urls}, answer)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for one in flapping:
        await one.camera.stop()


def main() -> None:
    """Read the command line and flap."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cameras", type=int)
    asyncio.run(flap(parser.parse_args().cameras))


if __name__ == "__main__":
    main()
