"""A campaign's result: printed as a table, and written as JSON and Markdown where that is asked for.

Owns what every result says of where it comes from: machine, versions, date and command.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import av
import numpy as np
from rich.console import Console
from rich.table import Table

from vigintd import __version__

FOLDER = Path(__file__).parents[2] / "docs" / "bench"

Row = tuple[str, str, str]
"""What was measured, its figure, and the goal where there is one."""


def machine() -> dict[str, str]:
    """Where and with what it was measured."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "pyav": av.__version__,
        "ffmpeg": av.ffmpeg_version_info,
        "numpy": np.__version__,
        "vigintd": __version__,
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def tell(name: str, title: str, rows: Sequence[Row], figures: Mapping[str, object], *, command: str, write: bool) -> None:
    """Print the rows; with `write`, leave `NAME.json` and `NAME.md` in docs/bench."""
    table = Table(title=title)
    for column in ("", "measured", "goal"):
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    Console(file=sys.stdout).print(table)
    if not write:
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    told = {"campaign": name, "command": command, "machine": machine(), "figures": dict(figures)}
    (FOLDER / f"{name}.json").write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = [f"# {title}", "", f"`{command}`", "", "| | measured | goal |", "|---|---|---|"]
    lines += [f"| {what} | {figure} | {goal} |" for what, figure, goal in rows]
    lines += ["", ", ".join(f"{key} {value}" for key, value in machine().items()) + ".", ""]
    (FOLDER / f"{name}.md").write_text("\n".join(lines), encoding="utf-8")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
