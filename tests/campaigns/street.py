"""A street of cheap cameras in a process of its own: `python -m tests.campaigns.street MAIN SUB [--small]`.

Owns the cameras that send and the count of what they sent. Its hello says where they are and how each packet of the loop
ends, so that a receiver knows which one came first. `count` is answered by what each has sent; `hold` makes all of them
keep silent first.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence
from typing import Any

from tests.campaigns.child import serve
from tests.campaigns.footage import MAIN, SMALL_MAIN, SMALL_SUB, SUB, encoded
from vigintd.demo.rtsp import Client, RtspCamera
from vigintd.model import Packet

_TAIL_BYTES = 24


class CountingCamera(RtspCamera):
    """Counts the access units that it sent, until it is held."""

    def __init__(self, packets: Sequence[Packet], *, fps: float) -> None:
        super().__init__(packets, fps=fps)
        self.sent = 0
        self.is_held = False

    def deliver(self, client: Client, data: bytes) -> None:
        """Send and count, or keep silent."""
        if self.is_held:
            return
        # Reports travel on the channel beside the pictures'.
        if data[1] == client.channel:
            self.sent += 1
        super().deliver(client, data)


async def street(mains: int, subs: int, *, small: bool) -> None:
    """Send until nobody asks any more."""
    main, sub = (SMALL_MAIN, SMALL_SUB) if small else (MAIN, SUB)
    main_packets = encoded(main)
    sub_packets = encoded(sub) if subs else []
    cameras = [CountingCamera(main_packets, fps=main.fps) for _ in range(mains)]
    cameras += [CountingCamera(sub_packets, fps=sub.fps) for _ in range(subs)]
    urls = [await camera.start() for camera in cameras]
    tails = [packet.data[-_TAIL_BYTES:].hex() for packet in main_packets]

    def answer(word: str) -> dict[str, Any]:
        if word == "hold":
            for camera in cameras:
                camera.is_held = True
        used = os.times()
        sent = [camera.sent for camera in cameras]
        return {"sent": sent[:mains], "sub_sent": sum(sent[mains:]), "cpu_s": used.user + used.system}

    await serve({"main": urls[:mains], "sub": urls[mains:], "tails": tails}, answer)
    for camera in cameras:
        await camera.stop()


def main() -> None:
    """Read the command line and send."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("main", type=int)
    parser.add_argument("sub", type=int)
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    asyncio.run(street(arguments.main, arguments.sub, small=arguments.small))


if __name__ == "__main__":
    main()
