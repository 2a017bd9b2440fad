"""vigintd with a measure in its own event loop: `python -m tests.bench.lagging run --config FILE …`.

At each SIGUSR1 it logs how late the loop was since the last one (`bench.lag`, milliseconds); the first one only begins.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

import structlog

from tests.campaigns.many_cameras import Lag
from tests.campaigns.process import quantile
from vigintd import logs
from vigintd.clock import SystemClock
from vigintd.config import Settings, load
from vigintd.daemon import serve


async def watched(settings: Settings) -> None:
    """Serve as `vigintd run` does, measured."""
    lag = Lag()

    def tell() -> None:
        late_ms = [1000 * late_s for late_s in lag.late_s]
        lag.late_s.clear()
        shares = {"p50": 0.5, "p99": 0.99, "most": 1.0}
        figures = {name: round(quantile(late_ms, share), 2) for name, share in shares.items()}
        structlog.get_logger(__name__).info("bench.lag", **figures, looks=len(late_ms))

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell)
    async with asyncio.TaskGroup() as tasks:
        measuring = tasks.create_task(lag.run())
        await serve(settings, clock=SystemClock())
        measuring.cancel()


def main() -> None:
    """Read the command line as `vigintd run` has it, and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["run"])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--log-format", choices=["json"])
    parser.add_argument("--log-level")
    arguments = parser.parse_args()
    logs.configure("json", level=arguments.log_level)
    asyncio.run(watched(load(arguments.config)))


if __name__ == "__main__":
    main()
