"""What must be on the disk of a box whose incidents are all over, and nothing else.

Owns which file belongs to whom; reads the folders themselves, and of the daemon only what it says of its incidents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_DATABASE = ("", "-wal", "-shm")
STANDING = frozenset(
    {"lock", "run/control.sock", "run/linkhost.sock", "linkhost/link.key", "linkhost/audit.head"}
    | {f"journal.sqlite3{end}" for end in _DATABASE}
    | {f"linkhost/linkhost.sqlite3{end}" for end in _DATABASE}
)
"""Files of a state folder that belong to no incident."""


def faults(state_dir: Path, incidents: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong with the files of these incidents: too many, missing, or other bytes than were sealed."""
    found = {str(path.relative_to(state_dir)) for path in state_dir.rglob("*") if not path.is_dir()}
    wanted = {name: part for incident in incidents for part in incident["parts"] for name in _clips(incident, part)}
    allowed = {f"spool/{incident['id']}{suffix}" for incident in incidents for suffix in _beside(incident)}
    strays = [f"{name} belongs to nobody" for name in sorted(found - STANDING - allowed - wanted.keys())]
    missing = [f"{name} is missing" for name in sorted(wanted.keys() - found)]
    other = [f"{name} holds other bytes" for name in sorted(wanted.keys() & found) if _differs(state_dir / name, wanted[name])]
    return strays + missing + other


def _clips(incident: Mapping[str, Any], part: Mapping[str, Any]) -> Iterator[str]:
    for folder in ("spool", "linkhost/clips"):
        yield f"{folder}/{incident['id']}.{part['index']}.mp4"


def _beside(incident: Mapping[str, Any]) -> Iterator[str]:
    yield ".incident.json"
    yield ".jpg"
    for part in incident["parts"]:
        yield f".{part['index']}.json"


def _differs(path: Path, part: Mapping[str, Any]) -> bool:
    return hashlib.sha256(path.read_bytes()).hexdigest() != str(part["sha256"])
