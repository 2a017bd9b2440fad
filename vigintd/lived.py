"""Lived time: the time that this box has really lived through, across restarts, whatever its wall clock says.

Owns the reckoning. Lived time begins as the wall clock's time and from then on only goes on: with the monotonic clock while
a process runs, and while none runs as long as the machine is not started anew. What a wall clock says of a time when the
machine was off nobody can check, so that counts nothing. Lived time is thus never ahead of what has passed, and what goes by
it is late at worst: nothing is deleted, given up or put off because somebody set a clock. It is no label: people are
told the wall clock's time. Whoever keeps moments of lived time keeps a `Mark` beside them, and goes on from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from vigintd.clock import Clock

STEP_S = 5.0
"""A wall clock is set when it moves so much against the monotonic one. NTP that slews moves both."""
FAR_AHEAD_S = 30 * 86_400.0
"""A box may have been off for so long; beyond, its clock is as likely wrong."""
LATE_FACTOR = 2.0
"""What has lived so many times its time goes, though the wall clock says that its time has not come."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One moment on every clock: the high-water mark from which a later process goes on."""

    lived: datetime
    wall: datetime
    boot_id: str
    """The kernel's name of this run of the machine; empty where it has none, and then no two are the same."""
    monotonic_s: float
    """On Linux one clock for all processes since the machine was started."""

    def same_boot(self, other: Mark) -> bool:
        """Both are of one run of the machine, so that their monotonic seconds can be compared."""
        return bool(self.boot_id) and self.boot_id == other.boot_id and self.monotonic_s <= other.monotonic_s


@dataclass(frozen=True, slots=True)
class Notice:
    """What an operator is told of the wall clock."""

    event: str
    """`clock.jumped`, `clock.behind` or `clock.ahead`."""
    by_s: float
    """Ahead is positive."""


class Lived:
    """Lived time of this process, going on from the mark of one before it (None: there was none)."""

    def __init__(self, clock: Clock, mark: Mark | None, *, boot: str | None = None) -> None:
        self.resumed_from = mark
        self._clock = clock
        self._boot_id = boot_id() if boot is None else boot
        self._began_s = clock.monotonic_s()
        began = Mark(clock.now(), clock.now(), self._boot_id, self._began_s)
        self._began = resumed(mark, began) if mark else began.lived

    def now(self) -> datetime:
        """The lived time; may be called from any thread."""
        return self._began + timedelta(seconds=self._clock.monotonic_s() - self._began_s)

    def wall(self, moment: datetime) -> datetime:
        """When a moment of lived time comes, or came, by the wall clock as it goes now: what people are told of it."""
        return self._clock.now() + (moment - self.now())

    def mark(self) -> Mark:
        """This moment, to be kept."""
        return Mark(self.now(), self._clock.now(), self._boot_id, self._clock.monotonic_s())


def resumed(mark: Mark, now: Mark) -> datetime:
    """The lived time of `now`, of which only the other clocks are known yet, after `mark`."""
    away_s = now.monotonic_s - mark.monotonic_s if mark.same_boot(now) else 0.0
    return mark.lived + timedelta(seconds=away_s)


def notice(before: Mark, now: Mark) -> Notice | None:
    """What is to be told of the wall clock between two marks, or None when it went as clocks do."""
    passed_s = (now.wall - before.wall).total_seconds()
    if before.same_boot(now):
        jumped_s = passed_s - (now.monotonic_s - before.monotonic_s)
        return Notice("clock.jumped", round(jumped_s, 1)) if abs(jumped_s) > STEP_S else None
    if passed_s < -STEP_S:
        return Notice("clock.behind", round(passed_s, 1))
    return Notice("clock.ahead", round(passed_s, 1)) if passed_s > FAR_AHEAD_S else None


def may_go(*, kept_s: float, lived_s: float, wall_says_so: bool) -> bool:
    """Whether something that is kept for `kept_s` and has lived `lived_s` may be deleted.

    The wall clock is asked as well, since people were told a date. It is not asked for ever: something that was dated
    by a clock years ahead would stay as long.
    """
    return lived_s >= kept_s and (wall_says_so or lived_s >= LATE_FACTOR * kept_s)


def boot_id() -> str:
    """The kernel's name of this run of the machine, or nothing where that cannot be read (proc(5))."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
