"""A thousand triggers at once, of one camera and of twenty: answers, mails, and how late the daemon's loop was meanwhile.

`python -m tests.bench.triggers`. Printed, never asserted.
"""

from __future__ import annotations

import asyncio
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from signal import SIGUSR1
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.daemon.box import boxed
from tests.daemon.conftest import FPS, GOP_S, block_scene
from tests.daemon.crowd import cameras, trigger_all
from vigintd.clip.encode import encode_pictures
from vigintd.model import Packet

TRIGGERS = 1000


@dataclass(frozen=True)
class Figures:
    """What one burst did."""

    cameras: int
    incidents: int
    mails: int
    answered_s: float
    """From the first trigger to the last answer."""
    lag: dict[str, Any]
    """Of the daemon's loop, in milliseconds, from the first trigger to the last mail."""


async def measured(count: int, packets: list[Packet]) -> Figures:
    """One burst over so many cameras, by a daemon of its own."""
    with tempfile.TemporaryDirectory(prefix="vgt-") as name:
        folder = Path(name)
        async with cameras(count, packets, fps=FPS) as configured, boxed(folder, folder, configured) as box:
            box.program = "tests.bench.lagging"
            await box.start()
            for camera in configured:
                await box.event("camera.live", camera=camera)
            box.signal(SIGUSR1)
            await box.event("bench.lag")
            began_s = time.monotonic()
            told = await trigger_all(box.state_dir / "run" / "control.sock", list(configured) * (TRIGGERS // count))
            answered_s = time.monotonic() - began_s
            incidents = {one.incident_id for one in told}
            for incident_id in incidents:
                await box.event("mail.sent", incident=incident_id)
            box.signal(SIGUSR1)
            lag = await box.event("bench.lag", nth=2)
            return Figures(count, len(incidents), len(box.mailbox.letters), answered_s, lag)


def main() -> None:
    """Measure both bursts and print them."""
    packets = list(encode_pictures(block_scene(), fps=FPS, gop=round(GOP_S * FPS)))
    table = Table(title=f"{TRIGGERS} triggers at once, Python {platform.python_version()} on {platform.machine()}")
    for column in ("cameras", "incidents", "mails", "answered in", "loop lag p50", "p99", "most"):
        table.add_column(column)
    for count in (1, 20):
        figures = asyncio.run(measured(count, packets))
        counts = (str(value) for value in (figures.cameras, figures.incidents, figures.mails))
        lags = (f"{figures.lag[name]:.1f} ms" for name in ("p50", "p99", "most"))
        table.add_row(*counts, f"{figures.answered_s:.2f} s", *lags)
    Console().print(table)


if __name__ == "__main__":
    main()
