"""What the journal holds, as values: incidents with their effects, and how each is written down.

Owns the columns' meaning and nothing that runs.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from vigintd.lived import Mark
from vigintd.model import Box, Detection, Incident, IncidentState, NoVideo, Original, Risk, SealedPart

_NESTED = ("detection", "parts", "originals")
"""Columns of an incident that hold JSON."""


class EffectKind(StrEnum):
    """What is owed."""

    ALERT = "alert"
    """The first mail of an incident to one recipient; due at the latest `alert.text_after_s` after the detection."""
    FOLLOW_UP = "follow_up"
    """The link, to one recipient who was told without it; due when it plays."""
    PUBLISH = "publish"
    """The whole clip on the host: announced, every part verified, and told that it is over."""


class EffectState(StrEnum):
    """Where an effect stands."""

    OWED = "owed"
    DONE = "done"
    DEAD = "dead"
    """Given up; `last_error` says why."""


@dataclass(frozen=True, slots=True)
class Owed:
    """An effect as it is owed; incident, kind and what are its idempotency key."""

    kind: EffectKind
    what: str
    """A recipient's address; empty for a clip."""
    due_at: datetime | None = None
    """Not tried before, by `Journal.now`; None for at once."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing owed to the outside, and how it stands. `settled_at` is a label; the other times are of `Journal.now`."""

    key: str
    incident_id: str
    kind: EffectKind
    what: str
    state: EffectState
    attempts: int
    owed_at: datetime
    next_try_at: datetime
    settled_at: datetime | None
    last_error: str
    reminded_at: datetime | None = None
    """When its recipient was last told that it is still owed."""


@dataclass(frozen=True, slots=True)
class IncidentRow:
    """An incident as the journal holds it, with what only the journal knows."""

    incident: Incident
    playable_at: datetime | None
    takeovers: int
    """How often a starting daemon has taken it up unfinished."""
    effects: tuple[Effect, ...]
    ended_lived: datetime | None = None
    """When the clip was over, by `Journal.now`; None while it is not."""
    as_of: datetime | None = field(default=None, compare=False)
    """When this was read, by `Journal.now`; None for what no journal has held."""


def incident_columns(incident: Incident) -> dict[str, object]:
    """What is written of an incident, by the columns' names."""
    detection = asdict(incident.detection) | {"at": stamp(incident.detection.at)}
    return {
        "id": incident.id,
        "state": incident.state,
        "detection": json.dumps(detection),
        "detections": incident.detections,
        "ended_at": stamp(incident.ended_at) if incident.ended_at else None,
        "pre_roll_s": incident.pre_roll_s,
        "parts": json.dumps([asdict(part) for part in incident.parts]),
        "originals": json.dumps([asdict(original) for original in incident.originals]),
        "no_video": incident.no_video,
        "problem": plain_text(incident.problem),
    }


def incident_of(row: sqlite3.Row | Mapping[str, Any]) -> Incident:
    """The incident of its row."""
    fields = json.loads(row["detection"])
    fields["at"] = datetime.fromisoformat(fields["at"])
    fields["risk"] = Risk(fields["risk"])
    fields["boxes"] = tuple(Box(**box) for box in fields["boxes"])
    return Incident(
        id=row["id"],
        detection=Detection(**fields),
        state=IncidentState(row["state"]),
        detections=row["detections"],
        ended_at=time_of(row["ended_at"]),
        pre_roll_s=row["pre_roll_s"],
        parts=tuple(SealedPart(**part) for part in json.loads(row["parts"])),
        originals=tuple(Original(**original) for original in json.loads(row["originals"])),
        no_video=NoVideo(row["no_video"]) if row["no_video"] else None,
        problem=row["problem"],
    )


def effect_of(row: sqlite3.Row | Mapping[str, Any]) -> Effect:
    """The effect of its row."""
    owed_at, next_try_at = time_of(row["owed_at"]), time_of(row["next_try_at"])
    assert owed_at
    assert next_try_at
    return Effect(
        key=row["key"],
        incident_id=row["incident_id"],
        kind=EffectKind(row["kind"]),
        what=row["what"],
        state=EffectState(row["state"]),
        attempts=row["attempts"],
        owed_at=owed_at,
        next_try_at=next_try_at,
        settled_at=time_of(row["settled_at"]),
        last_error=row["last_error"],
        reminded_at=time_of(row["reminded_at"]),
    )


def effect_columns(effect: Effect) -> dict[str, object]:
    """What is written of an effect, by the columns' names."""
    return {
        "key": effect.key,
        "incident_id": effect.incident_id,
        "kind": effect.kind,
        "what": effect.what,
        "state": effect.state,
        "attempts": effect.attempts,
        "owed_at": stamp(effect.owed_at),
        "next_try_at": stamp(effect.next_try_at),
        "settled_at": stamp(effect.settled_at) if effect.settled_at else None,
        "last_error": plain_text(effect.last_error),
        "reminded_at": stamp(effect.reminded_at) if effect.reminded_at else None,
    }


def as_plain(row: IncidentRow) -> dict[str, Any]:
    """A whole row with its effects as JSON can hold it; `of_plain` reads it back."""
    columns: dict[str, Any] = incident_columns(row.incident)
    return (
        columns
        | {name: json.loads(columns[name]) for name in _NESTED}
        | {
            "playable_at": stamp(row.playable_at) if row.playable_at else None,
            "takeovers": row.takeovers,
            "ended_lived": stamp(row.ended_lived) if row.ended_lived else None,
            "as_of": stamp(row.as_of) if row.as_of else None,
            "effects": [effect_columns(effect) for effect in row.effects],
        }
    )


def of_plain(plain: Mapping[str, Any]) -> IncidentRow:
    """What `as_plain` wrote. Raises `ValueError`, `KeyError`, `TypeError` or `AssertionError` for anything else."""
    incident = incident_of({**plain, **{name: json.dumps(plain[name]) for name in _NESTED}})
    effects = tuple(effect_of({"reminded_at": None, **effect, "incident_id": incident.id}) for effect in plain["effects"])
    # An older vigintd wrote no lived time.
    lived = [time_of(plain.get(name)) for name in ("ended_lived", "as_of")]
    return IncidentRow(incident, time_of(plain["playable_at"]), int(plain["takeovers"]), effects, *lived)


def moved(row: IncidentRow, by: timedelta) -> IncidentRow:
    """The row with the times that are no labels moved, from one journal's time to another's."""
    effects = (
        replace(
            effect,
            owed_at=effect.owed_at + by,
            next_try_at=effect.next_try_at + by,
            reminded_at=effect.reminded_at and effect.reminded_at + by,
        )
        for effect in row.effects
    )
    return replace(row, effects=tuple(effects), ended_lived=row.ended_lived and row.ended_lived + by)


def mark_columns(mark: Mark) -> dict[str, object]:
    """What is written of a mark, by the columns' names."""
    return {
        "lived": stamp(mark.lived),
        "wall": stamp(mark.wall),
        "boot_id": mark.boot_id,
        "monotonic_s": mark.monotonic_s,
    }


def mark_of(row: sqlite3.Row | Mapping[str, Any]) -> Mark:
    """The mark of its row."""
    lived, wall = datetime.fromisoformat(row["lived"]), datetime.fromisoformat(row["wall"])
    return Mark(lived, wall, row["boot_id"], row["monotonic_s"])


def plain_text(text: str) -> str:
    """SQLite takes no lone surrogates, and a file's name in an error may hold some."""
    return text.encode("utf-8", "replace").decode("utf-8")


def stamp(moment: datetime) -> str:
    """One fixed width, so that text order is time order."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def time_of(stamp: str | None) -> datetime | None:
    """What `stamp` wrote, or None."""
    return datetime.fromisoformat(stamp) if stamp else None
