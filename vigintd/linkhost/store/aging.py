"""How old clips are by lived time, and the mark by which the next process goes on from this one's.

Owns the statements on `mark`. What lived time is, and why, `vigintd.lived` says.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import Self

import structlog

from vigintd.clock import Clock
from vigintd.linkhost.store.database import Database, StoreError
from vigintd.linkhost.store.rows import Clip, stamp
from vigintd.linkhost.store.schema import AGED, MARK
from vigintd.lived import Lived, Mark, may_go

_log = structlog.get_logger(__name__)


class Aging:
    """Lived time of one database. `lived` is the clock by which its clips grow old."""

    def __init__(self, database: Database, clock: Clock, lived: Lived) -> None:
        self.lived = lived
        self._database = database
        self._clock = clock

    @classmethod
    async def begin(cls, database: Database, clock: Clock, *, boot: str | None) -> Self:
        """Go on from the mark of an earlier process; `boot` is the machine's run (None: asked of the kernel)."""
        marks = [_mark(row) for row in await database.all("SELECT lived, wall, boot_id, monotonic_s FROM mark")]
        aging = cls(database, clock, Lived(clock, next(iter(marks), None), boot=boot))
        async with database.change() as connection:
            await connection.execute(AGED, (stamp(aging.lived.now()),))
        return aging

    async def keep(self) -> None:
        """Write down how far lived time has come; what is not is lost with the power. Where it fails, that is said."""
        mark = self.lived.mark()
        try:
            async with self._database.change() as connection:
                await connection.execute(MARK, (stamp(mark.lived), stamp(mark.wall), mark.boot_id, mark.monotonic_s))
        except StoreError as error:
            _log.warning("linkhost.time_unkept", error=str(error))

    def may_go(self, clip: Clip) -> bool:
        """Its time has passed for good, whatever the wall clock becomes: its files may be deleted, nothing more is taken."""
        wall_says_so = clip.expired(self._clock.now())
        return not clip.held and may_go(kept_s=clip.kept_s, lived_s=self._lived_s(clip), wall_says_so=wall_says_so)

    def kept_s(self, clip: Clip, until: datetime) -> float:
        """For how long a clip is kept that is to be there until this moment of the wall clock."""
        return max(0.0, self._lived_s(clip) + (until - self._clock.now()).total_seconds())

    def _lived_s(self, clip: Clip) -> float:
        return (self.lived.now() - clip.created_lived).total_seconds()


def _mark(row: sqlite3.Row) -> Mark:
    lived, wall, boot_id, monotonic_s = row
    return Mark(datetime.fromisoformat(lived), datetime.fromisoformat(wall), boot_id, monotonic_s)
