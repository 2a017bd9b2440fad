"""What commands print: tables for people, JSON for programs.

Texts from outside (types, analyses, servers' answers) are shown as they are: no markup is read in them, and no
terminal code leaves them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vigintd.cli.check import Finding, State

_FILE_WIDTH = 200
"""Columns where nobody's terminal says how many there are."""

_STATES = {State.OK: ("✓ ok", "green"), State.NOTE: ("! note", "yellow"), State.FAILED: ("✗ failed", "red")}


def print_json(value: object) -> None:
    """One JSON value, readable, on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def busy(words: str) -> AbstractContextManager[object]:
    """Something to look at on stderr while nothing is printed; nothing where nobody looks."""
    return Console(stderr=True).status(words)


def findings_as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """What `vigintd check --json` prints."""
    return {
        "ok": all(finding.state is not State.FAILED for finding in findings),
        "findings": [
            {"what": finding.what, "state": finding.state.value, "result": finding.result, "todo": finding.todo}
            for finding in findings
        ],
    }


def print_findings(findings: Sequence[Finding]) -> None:
    """A row for each thing tried."""
    table = Table("what", "", "result", "what to do", box=None, pad_edge=False)
    for finding in findings:
        word, style = _STATES[finding.state]
        table.add_row(_text(finding.what), Text(word, style=style), _text(finding.result), _text(finding.todo))
    _console().print(table)


def print_incidents(incidents: Sequence[Mapping[str, Any]]) -> None:
    """A row for each incident."""
    if not incidents:
        _console().print("no incident yet")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("at", "camera", "type", "risk", "state", "mailed", "id"):
        table.add_column(heading, no_wrap=heading == "id", min_width=36 if heading == "id" else None, overflow="fold")
    for incident in incidents:
        mailed = incident.get("mailed_at")
        cells = (_local(incident.get("at")), *(incident.get(key) for key in ("camera", "type", "risk", "state")))
        table.add_row(*(_text(cell) for cell in (*cells, _local(mailed, "%H:%M:%S") if mailed else "–", incident.get("id"))))
    _console().print(table)


def print_incident(incident: Mapping[str, Any]) -> None:
    """A line for each thing known, and one for each part and effect."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in incident.items():
        lines = value if isinstance(value, list) else [value]
        for number, line in enumerate(lines):
            table.add_row(key if number == 0 else "", _text(_flat(line)))
    _console().print(table)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let the one place where commands end see it, where rich would end the process itself."""
        raise BrokenPipeError


def _console() -> Console:
    return _Console(
        width=None if sys.stdout.isatty() else _FILE_WIDTH, markup=False, highlight=False, emoji=False, soft_wrap=False
    )


def _flat(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_flat(item)}" for key, item in value.items() if item not in (None, ""))
    return "–" if value in (None, "") else str(value)


def _text(value: object) -> Text:
    words = "" if value is None else str(value)
    return Text("".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in words))


def _local(moment: object, shape: str = "%Y-%m-%d %H:%M:%S") -> str:
    """An ISO 8601 moment on this machine's clock face; what is none stays as it is."""
    try:
        return datetime.fromisoformat(str(moment)).astimezone().strftime(shape)
    except ValueError:
        return str(moment)
