"""How soon people are told: `vigintd demo --once --json` several times, with the medians. Printed, never asserted."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys

from rich.console import Console
from rich.table import Table

FIGURES = ("detection_to_mail_s", "detection_to_playable_s")


def main() -> None:
    """Run the demo so many times and print what it measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    results = []
    for _ in range(runs):
        demo = subprocess.run(
            [sys.executable, "-m", "vigintd", "demo", "--once", "--json"], stdout=subprocess.PIPE, check=True, timeout=180
        )
        results.append(json.loads(demo.stdout))
    table = Table(title=f"vigintd demo, {runs} runs, Python {platform.python_version()} on {platform.machine()}")
    for column in ("", "median", "least", "most"):
        table.add_column(column)
    for figure in FIGURES:
        values = [float(result[figure]) for result in results]
        table.add_row(figure, *(f"{value:.3f} s" for value in (statistics.median(values), min(values), max(values))))
    Console().print(table)


if __name__ == "__main__":
    main()
