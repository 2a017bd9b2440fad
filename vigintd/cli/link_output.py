"""How clips, their links, the record and API keys are printed."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Literal

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vigintd.cli.output import local_time, plain_text, print_lines, short_ids, width_columns

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins so is run by spreadsheets, and recipients are whatever an uploader says."""
_COLUMNS = ("seq", "at", "kind", "clip", "recipient", "address", "client", "detail", "sha256")
_FILE_WIDTH = 10_000


def print_links(clips: Sequence[Mapping[str, Any]]) -> None:
    """A row for each clip, or two lines where a row is too long."""
    if not clips:
        print_lines(Text("no clip is published here"))
        return
    ids = short_ids([str(clip.get("id")) for clip in clips])
    table = Table("id", "at", "camera", "state", "links until", "watched by", box=None, pad_edge=False)
    rows = [(id_, *_clip_cells(clip)) for id_, clip in zip(ids, clips, strict=True)]
    for row in rows:
        table.add_row(*map(plain_text, row))
    _print_wide(table, (line for row in rows for line in _two_lines(row)))


def _clip_cells(clip: Mapping[str, Any]) -> tuple[object, ...]:
    recipients = clip.get("recipients") or []
    watched = sum(bool(recipient.get("played")) for recipient in recipients)
    state = f"{clip.get('state')}, held" if clip.get("held") else clip.get("state")
    moment = clip.get("at") or clip.get("created_at")
    return local_time(moment), clip.get("camera"), state, local_time(clip.get("expires_at")), f"{watched} of {len(recipients)}"


def _two_lines(row: Sequence[object]) -> Iterator[RenderableType]:
    id_, at, camera, state, until, watched = row
    yield Text.assemble((str(id_), "bold"), "  ", plain_text(at), "  ", plain_text(camera), overflow="fold")
    yield Padding(
        Text.assemble(plain_text(f"{state}, links until {until}, watched by {watched}"), overflow="fold"), (0, 0, 0, 2)
    )


def print_clip(clip: Mapping[str, Any]) -> None:
    """All that is known of one clip: facts, then a line for each recipient and visit."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key in ("id", "site", "camera", "at", "type", "state", "uploaded_by", "created_at", "expires_at", "deleted_at", "held"):
        value = clip.get(key)
        shown = local_time(value) if key.endswith("at") and value else value
        table.add_row(key.replace("_", " "), plain_text("–" if shown is None else shown))
    for part in clip.get("parts") or ():
        table.add_row("part", plain_text(f"{part.get('bytes')} bytes, SHA-256 {part.get('sha256') or 'not sealed yet'}"))
    for recipient in clip.get("recipients") or ():
        table.add_row("recipient", plain_text(_recipient(recipient)))
    for visit in clip.get("visits") or ():
        table.add_row(visit.get("kind", ""), plain_text(_visit(visit)))
    print_lines(table)


def _recipient(recipient: Mapping[str, Any]) -> str:
    revoked = f", revoked {local_time(recipient['revoked_at'])}" if recipient.get("revoked_at") else ""
    return f"{recipient.get('recipient')}{revoked}{'' if recipient.get('played') else ', not watched'}"


def _visit(visit: Mapping[str, Any]) -> str:
    share = "" if visit.get("kind") == "probe" else f"{float(visit.get('share') or 0):.0%} of the clip, "
    signals = ", ".join(visit.get("signals") or ()) or "no signal"
    who = f"{visit.get('client') or 'unknown'} at {visit.get('address')}"
    seems = visit.get("seems")
    verdict = seems if seems == "unclear" else f"perhaps a {seems}"
    return f"{local_time(visit.get('from'))}, {visit.get('recipient')}, {share}{who}: {verdict} ({signals})"


async def print_record(rows: AsyncIterator[Mapping[str, Any]], form: Literal["json", "csv", "table"]) -> None:
    """The record as it comes: a line for each, a JSON array, or CSV (RFC 4180)."""
    count = 0
    writer = csv.writer(sys.stdout)
    if form == "csv":
        writer.writerow(_COLUMNS)
    async for row in rows:
        match form:
            case "json":
                sys.stdout.write(("[\n" if count == 0 else ",\n") + json.dumps(row, ensure_ascii=False))
            case "csv":
                writer.writerow([_cell(row.get(column)) for column in _COLUMNS])
            case "table":
                print_lines(_line(row))
        count += 1
    if form == "json":
        sys.stdout.write("\n]\n" if count else "[]\n")
    elif form == "table" and count == 0:
        print_lines(Text("nothing is on record"))


def _cell(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping) else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _line(row: Mapping[str, Any]) -> Text:
    detail = ", ".join(f"{key} {value}" for key, value in (row.get("detail") or {}).items())
    who = " ".join(str(row.get(key)) for key in ("recipient", "address", "client") if row.get(key))
    words = (str(row.get("seq")), local_time(row.get("at")), str(row.get("clip"))[:8] or "–", str(row.get("kind")), who, detail)
    return Text.assemble(plain_text("  ".join(filter(None, words))), overflow="fold")


def print_keys(keys: Sequence[Mapping[str, Any]]) -> None:
    """A row for each API key."""
    if not keys:
        print_lines(Text("nobody may upload here"))
        return
    table = Table("name", "key", "since", "holds", "quota", box=None, pad_edge=False)
    for key in keys:
        since = "configured" if key.get("configured") else local_time(key.get("added_at"))
        quota = _megabytes(key["quota_bytes"]) if key.get("quota_bytes") else "–"
        cells = (key.get("name"), key.get("key"), since, _megabytes(key.get("held_bytes") or 0), quota)
        table.add_row(*map(plain_text, cells))
    print_lines(table)


def _megabytes(size_bytes: float) -> str:
    return f"{size_bytes / (1 << 20):.0f} MB"


def _print_wide(table: Table, otherwise: Iterator[RenderableType]) -> None:
    if Console(width=_FILE_WIDTH).measure(table).maximum <= width_columns():
        print_lines(table)
    else:
        print_lines(*otherwise)
