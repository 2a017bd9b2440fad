"""What commands print: tables for people, JSON for programs.

Texts from outside (types, analyses, servers' answers) are shown as they are: no markup is read in them, and no
terminal code leaves them.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vigintd.cli.check import Finding, State

_FILE_WIDTH = 10_000
"""Columns where nobody's terminal says how many there are: a row is one line, whoever searches it."""
_FINDINGS_WIDTH = 100
"""With fewer columns, a table would be of words cut to pieces; there are lines instead."""
_SHORT_ID = 8
_GIVEN_UP = (
    "What was given up is not tried again by itself: mend what its error says, then: vigintd incidents retry ID (or --all)"
)

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
            | ({"facts": finding.facts} if finding.facts else {})
            for finding in findings
        ],
    }


def print_findings(findings: Sequence[Finding]) -> None:
    """A row for each thing tried; on a narrow terminal a line, and one below it for what to do."""
    if width_columns() < _FINDINGS_WIDTH:
        print_lines(*(line for finding in findings for line in _finding_lines(finding)))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("what", "", "result", "what to do"):
        table.add_column(heading, no_wrap=not heading, overflow="fold")
    for finding in findings:
        word, style = _STATES[finding.state]
        table.add_row(plain_text(finding.what), Text(word, style=style), plain_text(finding.result), plain_text(finding.todo))
    print_lines(table)


def _finding_lines(finding: Finding) -> Iterator[RenderableType]:
    word, style = _STATES[finding.state]
    yield Text.assemble((word, style), " ", plain_text(finding.what), ": ", plain_text(finding.result), overflow="fold")
    if finding.todo:
        yield Padding(Text.assemble("→ ", plain_text(finding.todo), overflow="fold"), (0, 0, 0, 2))


def print_incidents(incidents: Sequence[Mapping[str, Any]]) -> None:
    """A row for each incident, with as much of its id as tells it from the others; two lines where a row is too long."""
    if not incidents:
        print_lines(Text("no incident yet"))
        return
    ids = short_ids([str(incident.get("id")) for incident in incidents])
    table = Table("id", "at", "camera", "type", "risk", "state", "mailed", box=None, pad_edge=False)
    for id_, incident in zip(ids, incidents, strict=True):
        cells = (incident.get(key) for key in ("camera", "type", "risk", "state"))
        table.add_row(*(plain_text(cell) for cell in (id_, local_time(incident.get("at")), *cells, _mailed(incident))))
    if Console(width=_FILE_WIDTH).measure(table).maximum <= width_columns():
        print_lines(table)
    else:
        print_lines(*(line for id_, incident in zip(ids, incidents, strict=True) for line in _incident_lines(id_, incident)))


def _incident_lines(id_: str, incident: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield Text.assemble(
        (id_, "bold"),
        "  ",
        plain_text(local_time(incident.get("at"))),
        "  ",
        plain_text(incident.get("camera")),
        overflow="fold",
    )
    words = (incident.get("type"), incident.get("risk"), incident.get("state"), f"mailed {_mailed(incident)}")
    yield Padding(Text(", ", overflow="fold").join(plain_text(word) for word in words), (0, 0, 0, 2))


def print_owed(incidents: Sequence[Mapping[str, Any]]) -> None:
    """A row for each thing that is still to be done or was given up; three lines where a row is too long."""
    owed = [(incident, effect) for incident in incidents for effect in incident.get("effects", ()) if _is_open(effect)]
    if not owed:
        print_lines(Text("nothing is owed"))
        return
    ids = short_ids([str(incident.get("id")) for incident, _ in owed])
    table = Table("id", "at", "camera", "owed", "to", "tries", "next try", "last error", box=None, pad_edge=False)
    for id_, (incident, effect) in zip(ids, owed, strict=True):
        cells = (
            id_,
            local_time(incident.get("at")),
            incident.get("camera"),
            *_owed_cells(effect),
            effect.get("last_error") or "–",
        )
        table.add_row(*map(plain_text, cells))
    if Console(width=_FILE_WIDTH).measure(table).maximum <= width_columns():
        print_lines(table)
    else:
        print_lines(*(line for id_, pair in zip(ids, owed, strict=True) for line in _owed_lines(id_, *pair)))
    if any(effect.get("state") == "dead" for _, effect in owed):
        print_lines(Text(_GIVEN_UP, overflow="fold"))


def _owed_lines(id_: str, incident: Mapping[str, Any], effect: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield from list(_incident_lines(id_, incident))[:1]
    kind, to, tries, next_try = _owed_cells(effect)
    words = (kind, f"to {to}", f"tries {tries}", next_try if effect.get("state") == "dead" else f"next try {next_try}")
    yield Padding(Text(", ", overflow="fold").join(map(plain_text, words)), (0, 0, 0, 2))
    if effect.get("last_error"):
        yield Padding(Text.assemble(plain_text(effect["last_error"]), overflow="fold"), (0, 0, 0, 2))


def _owed_cells(effect: Mapping[str, Any]) -> tuple[object, ...]:
    moment = "given up" if effect.get("state") == "dead" else local_time(effect.get("next_try_at"))
    return effect.get("kind"), effect.get("what") or "host", effect.get("attempts"), moment


def _is_open(effect: Mapping[str, Any]) -> bool:
    return effect.get("state") in ("owed", "dead")


def print_retried(effects: Sequence[Mapping[str, Any]]) -> None:
    """A line for each thing that is tried again."""
    if not effects:
        print_lines(Text("nothing to retry: nothing failed"))
        return
    ids = short_ids([str(effect.get("incident_id")) for effect in effects])
    print_lines(
        *(
            Text.assemble(
                "retrying ",
                plain_text(effect.get("kind")),
                " to ",
                plain_text(effect.get("what") or "host"),
                f" of {id_}",
                overflow="fold",
            )
            for id_, effect in zip(ids, effects, strict=True)
        )
    )


def _mailed(incident: Mapping[str, Any]) -> str:
    moment = incident.get("mailed_at")
    return local_time(moment, "%H:%M:%S") if moment else "–"


def short_ids(ids: Sequence[str]) -> list[str]:
    """The beginnings of `ids`, as long as they must be for no two different ones to begin alike."""
    whole = len(set(ids))
    longest = max(map(len, ids))
    length = next((n for n in range(_SHORT_ID, longest) if len({id_[:n] for id_ in ids}) == whole), longest)
    return [id_[:length] for id_ in ids]


def print_incident(incident: Mapping[str, Any]) -> None:
    """A line for each thing known, and one for each part and effect."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in incident.items():
        lines = value if isinstance(value, list) else [value]
        for number, line in enumerate(lines):
            table.add_row(key if number == 0 else "", plain_text(_flat(line)))
    print_lines(table)


def width_columns() -> int:
    """Columns of the terminal, or what $COLUMNS says."""
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return shutil.get_terminal_size().columns
    return _FILE_WIDTH


def print_lines(*lines: RenderableType) -> None:
    """Print without the blanks that fill a table's last column, and with every failure to do so an error of stdout."""
    console = Console(width=width_columns(), markup=False, highlight=False, emoji=False, soft_wrap=False)
    with console.capture() as printed:
        console.print(*lines, sep="\n")
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in printed.get().splitlines()))


def _flat(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_flat(item)}" for key, item in value.items() if item not in (None, ""))
    return "–" if value in (None, "") else str(value)


def plain_text(value: object) -> Text:
    """A value as it is, without markup; what does not print, and could steer a terminal, is replaced."""
    words = "" if value is None else str(value)
    return Text("".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in words))


def local_time(moment: object, shape: str = "%Y-%m-%d %H:%M:%S") -> str:
    """An ISO 8601 moment on this machine's clock face; what is none stays as it is."""
    try:
        return datetime.fromisoformat(str(moment)).astimezone().strftime(shape)
    except ValueError:
        return str(moment)
