"""Room on the spool's disk: how much clips may take, what goes when that runs short, and when nothing more is recorded.

Owns the bounds and the order in which clips leave before their time. What is published and told goes, oldest first; what is
owed never does: its clip stays until it is published, or until it is given up, told, and so old that its links would have
expired. A disk may thus be full of what is owed; then recording ends until there is room, and alerts go all the same. What has
expired goes by `retention`, whether room is short or not.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import IntEnum

import structlog

from vigintd.clock import Clock, any_set
from vigintd.errors import TransientError
from vigintd.journal import EffectKind, EffectState, IncidentRow, Journal
from vigintd.model import IncidentState
from vigintd.spool import Measure, Spool, Weight

log = structlog.get_logger(__name__)

MIB = 1024 * 1024

BUSY_S = 2.0
"""From look to look while something is recorded, or nothing can be: 64 cameras of 8 Mbit/s fill half the headroom meanwhile."""
IDLE_S = 60.0
BARREN_S = 5.0
"""Who found nothing that may go reads all rows again after so long at the earliest."""
AT_ONCE = 64
"""Clips that go in one look, so that whoever waits for one does not wait long; the next look follows at once."""
READ_ONLY = "the disk is read-only"
_HEADROOM_BYTES = 256 * MIB


class Rank(IntEnum):
    """In which order clips go when room is short."""

    EXPIRED = 0
    """Published, and its links lead nowhere any more."""
    PUBLISHED = 1
    """The host has it, verified, and those who could be told were told. Without a video there was nothing to publish."""
    WITH_ORIGINAL = 2
    """The same, but what the camera sent lies here alone, because somebody wished it."""
    GIVEN_UP = 3
    """The host never took it, which was told, and a link would have expired by now."""


@dataclass(frozen=True, slots=True)
class Held:
    """What an incident holds of the disk; `rank` is None while something is owed of it."""

    incident_id: str
    size_bytes: int
    ended_at: datetime
    rank: Rank | None


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much clips may take; None is as it is not configured."""

    keep_free_mb: float | None = None
    max_mb: float | None = None

    def keep_free_bytes(self, disk_bytes: int) -> int:
        """How much of a disk of this size stays free, for the journal and for everything else on the box.

        When nothing is said: 5 %, at least 1 GiB and at most 10, but never more than a quarter of a small disk.
        """
        if self.keep_free_mb is not None:
            return round(self.keep_free_mb * MIB)
        return min(max(disk_bytes // 20, 1024 * MIB), 10_240 * MIB, disk_bytes // 4)

    def headroom_bytes(self, disk_bytes: int) -> int:
        """Where less than this is left to the bounds, clips begin to go; what is recorded until the next look must fit in."""
        most_bytes = disk_bytes if self.max_mb is None else min(disk_bytes, round(self.max_mb * MIB))
        return min(_HEADROOM_BYTES, most_bytes // 16)

    def left_bytes(self, disk: Measure, spool_bytes: int | None) -> int:
        """How much more may be recorded; negative beyond a bound. What the spool holds is None where it need not be known."""
        left_bytes = disk.free_bytes - self.keep_free_bytes(disk.disk_bytes)
        if self.max_mb is not None and spool_bytes is not None:
            left_bytes = min(left_bytes, round(self.max_mb * MIB) - spool_bytes)
        return left_bytes

    def words(self, disk: Measure) -> str:
        """Why nothing is recorded, for a user."""
        if disk.is_read_only:
            return READ_ONLY
        keep_bytes = self.keep_free_bytes(disk.disk_bytes)
        if disk.free_bytes <= keep_bytes:
            return f"the disk is full: {disk.free_bytes // MIB} MB of it are free, and {keep_bytes // MIB} MB are kept free"
        return f"the disk is full: the spool holds the {self.max_mb:g} MB that spool.max_mb allows"


def rank(row: IncidentRow, *, has_video: bool, now: datetime, kept: timedelta) -> Rank | None:
    """When a clip may go; None while it is owed. `kept` is how long links live, `now` the journal's time."""
    incident, effects = row.incident, row.effects
    if incident.state is not IncidentState.CLOSED or any(effect.state is EffectState.OWED for effect in effects):
        return None
    done = {effect.kind for effect in effects if effect.state is EffectState.DONE}
    if EffectKind.ALERT not in done:
        return None
    has_expired = row.ended_lived is not None and now >= row.ended_lived + kept
    if has_video and EffectKind.PUBLISH not in done:
        return Rank.GIVEN_UP if has_expired else None
    if has_expired:
        return Rank.EXPIRED
    return Rank.WITH_ORIGINAL if incident.originals else Rank.PUBLISHED


def to_remove(held: Iterable[Held], lack_bytes: int) -> list[Held]:
    """What goes, in this order, so that `lack_bytes` come free: no more than that takes, or all that may go."""
    chosen = []
    free_to_go = [(each.rank, each.ended_at, each) for each in held if each.rank is not None and each.size_bytes]
    for _, _, each in sorted(free_to_go, key=lambda item: item[:2]):
        if lack_bytes <= 0:
            break
        chosen.append(each)
        lack_bytes -= each.size_bytes
    return chosen


def disk_trouble(error: OSError) -> str:
    """What a disk's error means, for a user."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    if error.errno == errno.EROFS:
        return READ_ONLY
    return f"the disk failed: {error.strerror or error}"


class Space:
    """Keeps the bounds; `run` does so for ever. What waits for the disk waits on the spool's threads."""

    def __init__(self, *, journal: Journal, spool: Spool, bounds: Bounds, expiry_h: float, clock: Clock) -> None:
        self.full = ""
        """Why nothing may be recorded now, in words for a user; empty while there is room."""
        self._journal = journal
        self._spool = spool
        self._bounds = bounds
        self._kept = timedelta(hours=expiry_h)
        self._clock = clock
        self._disk: Measure | None = None
        self._spool_bytes: int | None = None
        self._recordings = 0
        self._barren_until_s = 0.0
        self._is_blind = False
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()

    def status(self) -> dict[str, object]:
        """How the disk was found the last time, as plain values."""
        disk = asdict(self._disk) if self._disk else {}
        return {"full": self.full, "spool_bytes": self._spool_bytes, **disk}

    @contextmanager
    def recording(self) -> Iterator[None]:
        """While something is recorded, the disk is looked at more often; at once where it begins."""
        self._recordings += 1
        self._wake.set()
        try:
            yield
        finally:
            self._recordings -= 1

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            self._wake.clear()
            await self.run_once()
            is_busy = bool(self._recordings or self.full)
            await any_set(self._clock, self._wake, within_s=BUSY_S if is_busy else IDLE_S)

    async def run_once(self) -> bool:
        """Look once, and let go what may go if room is short; answers whether something may be recorded.

        A disk that cannot be looked at changes nothing: whoever writes to it will see.
        """
        async with self._turn:
            try:
                await self._look()
            except (TransientError, OSError) as error:
                if not self._is_blind:
                    log.error("disk.unmeasured", error=str(error))
                self._is_blind = True
            except Exception:  # a defect here may not stop what is recorded
                log.exception("disk.unmeasured")
            else:
                self._is_blind = False
        return not self.full

    async def _look(self) -> None:
        weights = await self._measure()
        headroom_bytes, left_bytes = self._left_bytes()
        assert self._disk
        may_remove = not self._disk.is_read_only and self._clock.monotonic_s() >= self._barren_until_s
        if left_bytes < headroom_bytes and may_remove:
            # Twice what is needed, so that this is not begun again with each look.
            if await self._make_room(2 * headroom_bytes - left_bytes, weights):
                self._wake.set()
                return
            await self._measure()
        self._judge()

    async def _make_room(self, lack_bytes: int, weights: Mapping[str, Weight]) -> bool:
        """Let go what may go, as far as it is needed; answers whether more is to go with the next look."""
        tried, freed_bytes, held = 0, 0, list[Held]()
        try:
            held = await self._held(weights)
            while chosen := to_remove(held, lack_bytes - freed_bytes)[: AT_ONCE - tried]:
                freed_bytes += await self._remove(chosen, weights)
                tried += len(chosen)
                held = [each for each in held if each not in chosen]
        except TransientError as error:  # what was found of the disk is told all the same
            log.error("spool.unremoved", error=str(error))
        if not freed_bytes:
            self._barren_until_s = self._clock.monotonic_s() + BARREN_S
        return bool(freed_bytes and to_remove(held, lack_bytes - freed_bytes))

    async def _measure(self) -> Mapping[str, Weight]:
        """See how the disk is; the spool is weighed only where that may matter."""
        self._disk, self._spool_bytes = await self._spool.measure(), None
        headroom_bytes, left_bytes = self._left_bytes()
        if self._bounds.max_mb is None and left_bytes >= headroom_bytes:
            return {}
        weights = await self._spool.weigh()
        self._spool_bytes = sum(weight.size_bytes for weight in weights.values())
        return weights

    def _left_bytes(self) -> tuple[int, int]:
        """The headroom, and what is left to the bounds."""
        assert self._disk
        return self._bounds.headroom_bytes(self._disk.disk_bytes), self._bounds.left_bytes(self._disk, self._spool_bytes)

    async def _held(self, weights: Mapping[str, Weight]) -> list[Held]:
        found = (await self._one(incident_id, weight) for incident_id, weight in weights.items())
        return [held async for held in found if held is not None]

    async def _one(self, incident_id: str, weight: Weight) -> Held | None:
        row = await self._journal.incident(incident_id)
        if row is None:
            return None
        may_go = rank(row, has_video=weight.has_video, now=self._journal.now(), kept=self._kept)
        return Held(incident_id, weight.size_bytes, row.incident.ended_at or row.incident.detection.at, may_go)

    async def _remove(self, chosen: Sequence[Held], weights: Mapping[str, Weight]) -> int:
        """Answers how many bytes came free."""
        freed_bytes = 0
        for held in chosen:
            # Somebody may have asked for it to be published again since.
            now = await self._one(held.incident_id, weights[held.incident_id])
            if now is None or now.rank is None:
                continue
            try:
                await self._spool.remove(held.incident_id)
            except OSError as error:  # the others may go all the same
                log.error("spool.unremoved", incident=held.incident_id, error=str(error))
            else:
                log.warning(
                    "spool.made_room", incident=held.incident_id, size_bytes=held.size_bytes, rank=now.rank.name.lower()
                )
                freed_bytes += held.size_bytes
        return freed_bytes

    def _judge(self) -> None:
        assert self._disk
        headroom_bytes, left_bytes = self._left_bytes()
        said = {"free_bytes": self._disk.free_bytes, "spool_bytes": self._spool_bytes}
        if not self.full and (left_bytes <= 0 or self._disk.is_read_only):
            self.full = self._bounds.words(self._disk)
            log.error("disk.full", reason=self.full, **said)
        elif self.full and left_bytes >= headroom_bytes and not self._disk.is_read_only:
            self.full = ""
            log.warning("disk.room", **said)
