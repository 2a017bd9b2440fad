"""What the database holds, as values: clips, their parts, and the lines of the record.

Owns the columns' meaning, and how a value becomes a column and back; nothing that runs.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from vigintd.linkhost.wire import Scalar


class AuditKind(StrEnum):
    """What happened."""

    UPLOAD = "upload"
    """Of a clip's making: `what` is created, sealed, mismatch, or lost (the disk lost its bytes)."""
    LINK = "link"
    """A link was made for the recipient; with `what` shown, told again to whoever runs the host."""
    PROBE = "probe"
    """Something touched the link: page, status, or any HEAD. Proves nobody's eyes."""
    PLAY = "play"
    """Media bytes were sent: `part`, `first`, `bytes`, `of` (what there was of the part), `how`."""
    DOWNLOAD = "download"
    """A whole finished part was asked for, as a file; details as of `play`."""
    EXTENDED = "extended"
    """`until` when the links live now."""
    REVOKED = "revoked"
    """The recipient's links open nothing any more."""
    HELD = "held"
    """Kept beyond its time from now on; `reason` is why."""
    RELEASED = "released"
    EXPIRED = "expired"
    DELETED = "deleted"
    KEY = "key"
    """Of no clip: an API key was `added` or `removed` (`what`), of that `name`."""
    CHAINED = "chained"
    """Of no clip: the `rows` before this one were written without hashes, and are vouched for only from here on."""
    CUT = "cut"
    """Of no clip: at a start, the line that was `noted` last was not here any more; what stood between is lost."""
    FULL = "full"
    """The clip's touches are written down no more; see `MAX_AUDIT_ROWS`."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One line of the record."""

    at: datetime
    kind: AuditKind
    clip_id: str
    """Empty for what concerns no clip."""
    recipient: str = ""
    address: str = ""
    client: str = ""
    detail: Mapping[str, Scalar] = field(default_factory=dict)
    seq: int = 0
    """Its place in the record, from 1; 0 as long as it is not written."""
    sha256: str = ""
    """Hex; of this row and, through the one before it, of all that came before."""

    def as_json(self) -> dict[str, object]:
        """For programs; all that is hashed of it is in it."""
        return {
            "seq": self.seq,
            "at": self.at.isoformat(),
            "kind": self.kind.value,
            "clip": self.clip_id,
            "recipient": self.recipient,
            "address": self.address,
            "client": self.client,
            "detail": dict(self.detail),
            "sha256": self.sha256,
        }


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip, as it was announced and has become."""

    id: str
    owner: str
    key_id: str
    metadata: Mapping[str, Scalar]
    created_at: datetime
    changed_at: datetime
    expires_at: datetime
    kept_s: float
    """How long it is kept; its links lead nowhere from `expires_at` on."""
    created_lived: datetime
    """When it was created, in lived time (see `Store.may_go`)."""
    deleted_at: datetime | None = None
    held: str = ""
    """Why it is kept beyond its time, or empty."""

    @property
    def ended(self) -> bool:
        """No part will follow."""
        return self.metadata.get("ended") is True

    def expired(self, now: datetime) -> bool:
        """Its time is over."""
        return now >= self.expires_at

    def gone(self, now: datetime) -> bool:
        """Nobody may see it any more."""
        return self.deleted_at is not None or self.expired(now)


@dataclass(frozen=True, slots=True)
class Part:
    """One part: what of it is held for good."""

    clip_id: str
    index: int
    offset_bytes: int
    length_bytes: int | None
    sha256: str | None
    """Hex, once sealed."""
    codec: str
    mismatched: bool
    epoch: int
    changed_at: datetime

    @property
    def sealed(self) -> bool:
        """It will not change any more, and its hash was checked."""
        return self.sha256 is not None


CLIP_COLUMNS = "id, owner, key_id, metadata, created_at, changed_at, expires_at, kept_s, created_lived, deleted_at, held"
PART_COLUMNS = "clip_id, idx, offset, length, sha256, codec, mismatched, epoch, changed_at"
AUDIT_COLUMNS = "seq, at, kind, clip_id, recipient, address, client, detail, hash"


def stamp(moment: datetime) -> str:
    """A moment as it is written: ISO 8601 in UTC, of a fixed width, so that text compares as time does."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def flat_json(values: Mapping[str, Scalar]) -> str:
    """Metadata or a row's detail as it is written."""
    return json.dumps(dict(values), ensure_ascii=False)


def clip_of(row: sqlite3.Row) -> Clip:
    """The clip of its `CLIP_COLUMNS`."""
    clip_id, owner, key_id, metadata, created_at, changed_at, expires_at, kept_s, created_lived, deleted_at, held = row
    created, changed, expires, lived = map(datetime.fromisoformat, (created_at, changed_at, expires_at, created_lived))
    deleted = datetime.fromisoformat(deleted_at) if deleted_at else None
    return Clip(clip_id, owner, key_id, json.loads(metadata), created, changed, expires, kept_s, lived, deleted, held)


def part_of(row: sqlite3.Row) -> Part:
    """The part of its `PART_COLUMNS`."""
    clip_id, index, offset, length, sha256, codec, mismatched, epoch, changed_at = row
    return Part(clip_id, index, offset, length, sha256, codec, bool(mismatched), epoch, datetime.fromisoformat(changed_at))


def audit_row_of(row: sqlite3.Row) -> AuditRow:
    """The line of its `AUDIT_COLUMNS`."""
    seq, at, kind, clip_id, recipient, address, client, detail, digest = row
    moment = datetime.fromisoformat(at)
    return AuditRow(moment, AuditKind(kind), clip_id, recipient, address, client, json.loads(detail), seq, bytes(digest).hex())
