"""Checks the record of the running link host, line by line, here: the daemon is asked for the lines and not for a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vigintd.control.link_client import LinkClient
from vigintd.errors import ControlError
from vigintd.linkhost.store import AuditKind, AuditRow, Check, Head


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of a check."""

    head: Head
    problem: str
    noted: bool
    """A head that was noted before was found again, so that a cut end would have shown."""

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {"whole": not self.problem, "lines": self.head.seq, "head": str(self.head), "problem": self.problem or None}

    def sentence(self) -> str:
        """For people, when nothing is wrong."""
        noted = "" if self.noted else "; no earlier head was found, so that a cut end would not show"
        return f"the record is whole: {self.head.seq} lines{noted}\nhead {self.head}"


async def checked(client: LinkClient, head: str | None) -> Checked:
    """Check the whole record against `head` and what the host noted itself. Raises `ValueError` where `head` is none."""
    given = None if head is None else Head.parse(head)
    heads = await client.heads()
    try:
        noted = [Head.parse(heads["noted"])] if heads.get("noted") else []
        check = Check([*noted, *([given] if given else [])])
        async for row in client.audit():
            check.take([_row(row)])
    except (KeyError, TypeError, ValueError) as error:
        raise ControlError(f"the lines of the record cannot be read: {error}") from error
    check.end()
    return Checked(check.head, check.problem, bool(noted or given))


def _row(row: Mapping[str, Any]) -> AuditRow:
    return AuditRow(
        datetime.fromisoformat(row["at"]),
        AuditKind(row["kind"]),
        *(row["clip"], row["recipient"], row["address"], row["client"], row["detail"], row["seq"], row["sha256"]),
    )
