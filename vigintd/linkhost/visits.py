"""Who came, read from a clip's record: touches put together to visits, and what speaks for a person or a machine. Pure.

Owns the signals and what they mean (docs/design/record.md has the table). Nothing here is proof of eyes: a visit
without media bytes is a probe, one with them a play, and either is told with its signals.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from vigintd.linkhost.store import AuditKind, AuditRow

PAUSE = timedelta(minutes=30)
"""A longer silence begins another visit."""
EARLY = timedelta(seconds=10)
"""So soon after the mail nobody has read it; mail scanners have."""
TOGETHER = timedelta(seconds=10)
"""Links of two recipients that one network opens within so long."""
STAYED = timedelta(seconds=10)
"""A visit of so long is more than a look by a machine."""
LITTLE = 0.05
"""A smaller share of a clip's bytes is a taste."""
MOST = 0.5

_TOOLS = frozenset({"robot", "curl", "wget", "Python", "FFmpeg", "vigintd", "unknown"})
_FILES = frozenset({"part", "play"})
"""Places that players ask in ranges, and the page's script does not ask."""
_MEDIA = frozenset({AuditKind.PLAY, AuditKind.DOWNLOAD})
_VISITS = _MEDIA | {AuditKind.PROBE}


class Signal(StrEnum):
    """What speaks for a machine, and from `CLICKED` on for a person."""

    HEAD = "head"
    """Everything was asked by HEAD."""
    AGENT = "agent"
    """The program names itself a robot or a tool, or does not say what it is."""
    PREFETCH = "prefetch"
    """The browser fetched ahead, before anybody clicked."""
    EARLY = "early"
    """It came within seconds of the mail."""
    TOGETHER = "together"
    """The same network opened another recipient's link of this clip at the same time."""
    NO_RANGE = "no_range"
    """A whole file was taken without Range; players ask for ranges."""
    LITTLE = "little"
    """Only a taste of the clip was fetched."""
    CLICKED = "clicked"
    """The browser says that a person's act opened the page."""
    ACTED = "acted"
    """Somebody touched the page while it played."""
    SCRIPT = "script"
    """The page's own script ran."""
    MOST = "most"
    """Half of the clip or more was fetched."""
    STAYED = "stayed"
    """It lasted."""

    @property
    def doubts(self) -> bool:
        """Speaks for a machine."""
        return self not in _FOR_A_PERSON


_FOR_A_PERSON = frozenset({Signal.CLICKED, Signal.ACTED, Signal.SCRIPT, Signal.MOST, Signal.STAYED})


@dataclass(frozen=True, slots=True)
class Visit:
    """What one program at one network did with one recipient's link, without a long pause."""

    recipient: str
    address: str
    client: str
    rows: tuple[AuditRow, ...]
    signals: tuple[Signal, ...]
    share: float
    """Of the clip's bytes, from 0 to 1, each counted once."""

    @property
    def kind(self) -> AuditKind:
        """The most that is proven: a probe, or with media bytes a play or a download."""
        kinds = {row.kind for row in self.rows}
        return next((kind for kind in (AuditKind.DOWNLOAD, AuditKind.PLAY) if kind in kinds), AuditKind.PROBE)

    @property
    def seems(self) -> str:
        """`machine`, `person`, or `unclear` where signals are missing or speak against each other."""
        doubts = {signal.doubts for signal in self.signals}
        return {frozenset({True}): "machine", frozenset({False}): "person"}.get(frozenset(doubts), "unclear")

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "recipient": self.recipient,
            "address": self.address,
            "client": self.client,
            "from": self.rows[0].at.isoformat(),
            "until": self.rows[-1].at.isoformat(),
            "kind": self.kind.value,
            "share": round(self.share, 3),
            "seems": self.seems,
            "signals": [signal.value for signal in self.signals],
        }


def visits(rows: Sequence[AuditRow], sizes: Mapping[int, int], mailed: Mapping[str, datetime] | None = None) -> list[Visit]:
    """The visits of a clip's record, in the order of their beginning.

    `sizes` are the bytes of its parts. `mailed` is when each recipient's link was sent; of whom it says nothing, the
    moment their link was made counts.
    """
    sent = {row.recipient: row.at for row in reversed(rows) if row.kind is AuditKind.LINK} | dict(mailed or {})
    touches = [row for row in rows if row.kind in _VISITS]
    moments = _Moments(touches)
    return [_visit(group, moments, sizes, sent.get(group[0].recipient)) for group in _grouped(touches)]


def _grouped(rows: Iterable[AuditRow]) -> list[list[AuditRow]]:
    groups: list[list[AuditRow]] = []
    latest: dict[tuple[str, str, str], list[AuditRow]] = {}
    for row in rows:
        who = (row.recipient, row.address, row.client)
        group = latest.get(who)
        if group is None or row.at - group[-1].at > PAUSE:
            group = latest[who] = []
            groups.append(group)
        group.append(row)
    return groups


def _visit(group: list[AuditRow], moments: _Moments, sizes: Mapping[int, int], sent_at: datetime | None) -> Visit:
    first, last = group[0], group[-1]
    media = [row for row in group if row.kind in _MEDIA]
    share = _share(media, sizes)
    asked = [str(row.detail.get("what", "")) for row in group if row.kind is AuditKind.PROBE]
    found = {
        Signal.HEAD: not media and all(what.startswith("HEAD") for what in asked),
        Signal.AGENT: first.client.partition(",")[0] in _TOOLS,
        Signal.PREFETCH: any(row.detail.get("prefetch") for row in group),
        Signal.EARLY: sent_at is not None and timedelta(0) <= first.at - sent_at < EARLY,
        Signal.TOGETHER: moments.together(first),
        Signal.NO_RANGE: any(row.detail.get("by") in _FILES and not row.detail.get("range") for row in media)
        and not any(row.kind is AuditKind.DOWNLOAD for row in media),
        Signal.LITTLE: bool(media) and share < LITTLE,
        Signal.CLICKED: any(row.detail.get("clicked") for row in group),
        Signal.ACTED: any(row.detail.get("by") == "watched" for row in media),
        Signal.SCRIPT: "status" in asked or "refresh" in asked,
        Signal.MOST: share >= MOST,
        Signal.STAYED: last.at - first.at >= STAYED,
    }
    return Visit(
        *(first.recipient, first.address, first.client), tuple(group), tuple(s for s, is_so in found.items() if is_so), share
    )


class _Moments:
    """When each recipient's link was touched, by network."""

    def __init__(self, rows: Iterable[AuditRow]) -> None:
        self._of: dict[str, dict[str, list[datetime]]] = {}
        for row in sorted(rows, key=lambda row: row.at):
            self._of.setdefault(row.address, {}).setdefault(row.recipient, []).append(row.at)

    def together(self, row: AuditRow) -> bool:
        """Whether the same network touched another recipient's link at the same time."""
        return any(
            _any_between(moments, row.at - TOGETHER, row.at + TOGETHER)
            for recipient, moments in self._of[row.address].items()
            if recipient != row.recipient
        )


def _any_between(moments: Sequence[datetime], begin: datetime, end: datetime) -> bool:
    at = bisect_left(moments, begin)
    return at < len(moments) and moments[at] <= end


def _share(media: Iterable[AuditRow], sizes: Mapping[int, int]) -> float:
    """The part of all bytes that was sent at least once."""
    spans: dict[int, list[tuple[int, int]]] = {}
    for row in media:
        part, first, length = (_number(row, key) for key in ("part", "first", "bytes"))
        spans.setdefault(part, []).append((first, min(first + length, sizes.get(part, 0))))
    covered = 0
    for part_spans in spans.values():
        reached = 0
        for begin, end in sorted(part_spans):
            covered += max(0, end - max(begin, reached))
            reached = max(reached, end)
    return covered / max(1, sum(sizes.values()))


def _number(row: AuditRow, key: str) -> int:
    value = row.detail.get(key)
    return value if isinstance(value, int) else 0
