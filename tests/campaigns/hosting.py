"""A link host in a process of its own: `python -m tests.campaigns.hosting FOLDER`; `usage` is answered by what it uses."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.campaigns.child import serve
from tests.campaigns.process import usage
from tests.linkhost.client import BASE_URL, KEY
from vigintd import logs, metrics
from vigintd.clock import SystemClock
from vigintd.linkhost import LinkHost


async def host(folder: Path) -> None:
    """Serve until nobody asks any more."""
    # What it has to say goes to the parent's output of errors; the other one is for answers.
    logs.configure("json", level="warning", stream=sys.stderr)
    running = LinkHost(folder, base_url=BASE_URL, api_keys={"nvr": KEY}, clock=SystemClock())
    await running.start(listen=("127.0.0.1", 0), unix_path=None)

    def answer(word: str) -> dict[str, Any]:
        return asdict(usage()) if word == "usage" else metrics.snapshot()

    await serve({"port": running.port}, answer)
    await running.aclose()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    asyncio.run(host(parser.parse_args().folder))


if __name__ == "__main__":
    main()
