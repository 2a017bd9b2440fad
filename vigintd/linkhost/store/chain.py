"""The chain that the lines of the record form: each one's hash is over itself and the hash before it. Pure.

Owns the encoding and the check. Whoever changes, removes or inserts a line changes every hash after it; who cuts off
the end, or writes the whole chain anew, is found out by a head that was noted elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from vigintd.linkhost.store.rows import AuditKind, AuditRow, stamp

_HEAD = re.compile(r"([0-9]{1,15}):([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Head:
    """The last line of the record at some moment: its place, and the hash that stands for all up to there."""

    seq: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.sha256}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """A head as `str` writes it. Raises `ValueError`."""
        match = _HEAD.fullmatch(text.strip())
        if match is None:
            raise ValueError("a head is a number, a colon and 64 hex digits")
        return cls(int(match[1]), match[2])


START = Head(0, "00" * 32)
"""Before the first line."""


def encoded(row: AuditRow, seq: int) -> bytes:
    """What of a line is hashed: a JSON array of its fields, in the canonical form of RFC 8785."""
    fields = [seq, stamp(row.at), row.kind, row.clip_id, row.recipient, row.address, row.client, dict(row.detail)]
    return json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8", "replace")


def following(head: Head, row: AuditRow) -> Head:
    """The head once `row` stands after it: SHA-256 over the 32 bytes of the hash before and the line's encoding."""
    seq = head.seq + 1
    return Head(seq, hashlib.sha256(bytes.fromhex(head.sha256) + encoded(row, seq)).hexdigest())


class Check:
    """Goes along the record, page by page, from its first line on."""

    def __init__(self, noted: Iterable[Head] = ()) -> None:
        """`noted`: heads that were seen before, each of which must be found on the way."""
        self.head = START
        self.problem = ""
        """What is wrong, in one sentence; empty as long as nothing is."""
        self._noted = {head.seq: head for head in noted if head != START}

    def take(self, rows: Iterable[AuditRow]) -> None:
        """Check the next lines; after a problem nothing more is looked at."""
        for row in rows:
            if self.problem:
                return
            self._take(row)

    def end(self) -> None:
        """Say that there are no more lines."""
        if not self.problem and self._noted:
            last = max(self._noted)
            self.problem = (
                f"the record ends at line {self.head.seq}, but line {last} was noted before:"
                " its end was cut off, or an older copy was put back"
            )

    def _take(self, row: AuditRow) -> None:
        expected = following(self.head, row)
        if row.seq != expected.seq:
            self.problem = f"line {expected.seq} is missing; line {row.seq} comes instead"
        elif row.sha256 != expected.sha256:
            self.problem = f"line {row.seq} or one before it is not as it was written"
        elif self._noted.pop(row.seq, expected) != expected:
            self.problem = f"line {row.seq} is not the one that was noted before: the record was written anew"
        elif row.kind is AuditKind.CUT:
            self.problem = f"line {row.seq} says that lines before it were lost: an older copy was put back, or its end cut off"
        else:
            self.head = expected
