"""`vigintd verify`: whether a file is a clip of this box, and the same as when it was sealed.

Owns what is said of it. The hashes are read where they lie, so that it works beside a running daemon and without one.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from vigintd.cli.options import ConfigOption, JsonOption
from vigintd.errors import PermanentError

if TYPE_CHECKING:
    from vigintd.linkhost.evidence import Evidence
    from vigintd.model import Incident


_BLOCK_BYTES = 1 << 20


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="A clip, as it was downloaded or kept.")],
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Say whether a file is a clip of this box: of which camera and incident, and unchanged since it was sealed.

    Exit code 0 when it is, 1 when it is not. Asks for the state folder only, as its owner or root.
    """
    from vigintd.cli import output  # noqa: PLC0415  (see the package)
    from vigintd.config import load_places  # noqa: PLC0415

    state_dir = load_places(config).state_dir
    try:
        with file.open("rb") as opened, output.busy("reading the file…"):
            found = asyncio.run(_look_up(state_dir, opened))
    except OSError as error:
        raise PermanentError(f"{error.filename or file}: {error.strerror}") from error
    if as_json:
        output.print_json({"file": str(file), "unchanged": bool(found["found"])} | found)
    elif found["found"]:
        output.print_lines(*(output.plain_text(line) for clip in found["found"] for line in _lines(file, clip, found)))
    else:
        typer.echo(f"{file}: not a clip of this box, or changed since it was sealed (SHA-256 {found['sha256']})")
    if not found["found"]:
        raise typer.Exit(1)


async def _look_up(state_dir: Path, file: BinaryIO) -> dict[str, Any]:
    from vigintd.linkhost.evidence import original_of  # noqa: PLC0415

    if not state_dir.is_dir():  # noqa: ASYNC240 - a command has nothing else to do
        raise PermanentError(f"{state_dir} is no state folder; is --config the one that vigintd runs with?")
    presented = sha256 = _sha256(file)
    clips = await _sealed_as(state_dir, sha256)
    if not clips and (original := await original_of(state_dir / "linkhost", file)):
        sha256 = original
        clips = await _sealed_as(state_dir, sha256)
    return {"sha256": presented, "evidence_sha256": sha256 if clips else None, "found": clips}


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()


async def _sealed_as(state_dir: Path, sha256: str) -> list[dict[str, Any]]:
    from vigintd.journal.evidence import incidents_sealed_as  # noqa: PLC0415
    from vigintd.linkhost.evidence import sealed_as  # noqa: PLC0415

    found = {evidence.clip.id: _published(evidence) for evidence in await sealed_as(state_dir / "linkhost", sha256)}
    for incident in await incidents_sealed_as(state_dir / "journal.sqlite3", sha256):
        found[incident.id] = found.get(incident.id, {}) | _recorded(sha256, incident)
    return [{"incident_id": incident_id} | facts for incident_id, facts in found.items()]


def _published(evidence: Evidence) -> dict[str, Any]:
    clip, part = evidence.clip, evidence.part
    return {
        **{key: clip.metadata.get(key) for key in ("site", "camera", "at", "type")},
        "part": part.index + 1,
        "parts": evidence.parts,
        "bytes": part.offset_bytes,
        "sealed_at": part.changed_at.isoformat(),
        "uploaded_by": clip.owner,
        "deleted_at": clip.deleted_at.isoformat() if clip.deleted_at else None,
    }


def _recorded(sha256: str, incident: Incident) -> dict[str, Any]:
    """What the journal says of it: it is the recorder's own word, and so replaces the host's."""
    facts: dict[str, Any] = {
        "camera": incident.camera,
        "at": incident.detection.at.isoformat(),
        "type": incident.detection.type,
        "ended_at": incident.ended_at.isoformat() if incident.ended_at else None,
    }
    for part in incident.parts:
        if part.sha256 == sha256:
            facts |= {"part": part.index + 1, "parts": len(incident.parts), "bytes": part.length_bytes}
            facts |= {"duration_s": part.duration_s}
    for original in incident.originals:
        if original.sha256 == sha256:
            facts |= {"bytes": original.length_bytes, "original": True}
    return facts


def _lines(file: Path, clip: dict[str, Any], found: dict[str, Any]) -> list[str]:
    from vigintd.cli.output import local_time  # noqa: PLC0415

    sealed = clip.get("sealed_at") or clip.get("ended_at")
    since = f" at {local_time(sealed)}" if sealed else ""
    what = "the plain copy of a clip" if found["sha256"] != found["evidence_sha256"] else "a clip"
    if clip.get("original"):
        what = "what the camera sent for a clip"
    of = f"part {clip['part']} of {clip['parts']}, " if (clip.get("parts") or 1) > 1 else ""
    site = f" ({clip['site']})" if clip.get("site") else ""
    lines = [
        f"{file}: {what} of this box, unchanged since it was sealed{since}",
        f"  camera {clip.get('camera')}{site}, {clip.get('type')} at {local_time(clip.get('at'))}",
        f"  {of}incident {clip['incident_id']}",
        f"  SHA-256 {found['evidence_sha256']}",
    ]
    if clip.get("deleted_at"):
        lines.append(f"  the link host's own copy was deleted at {local_time(clip['deleted_at'])}")
    return lines
