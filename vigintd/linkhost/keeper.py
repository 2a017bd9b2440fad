"""What leaves the host, and when: clips at their expiry, files without rows, rows without files.

Owns these rules, and the note beside the database of how far the record goes. A step that a crash cuts short is
finished by the next start.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from vigintd import metrics
from vigintd.clock import Clock
from vigintd.linkhost import keyfile
from vigintd.linkhost.files import Files
from vigintd.linkhost.growth import Growth
from vigintd.linkhost.passes import Passes
from vigintd.linkhost.store import AuditKind, AuditRow, Head, Part, Store, StoreError
from vigintd.linkhost.store.chain import START
from vigintd.linkhost.wire import Scalar

KEEP_S = 300.0
"""So much lived time is lost at most when the machine loses its power."""
LOG_HEAD_EVERY = timedelta(hours=24)

_log = structlog.get_logger(__name__)


class Keeper:
    """Looks after one host's folder. `head_path` is where the record's last line is noted."""

    def __init__(self, *, store: Store, files: Files, growth: Growth, passes: Passes, clock: Clock, head_path: Path) -> None:
        self._store = store
        self._files = files
        self._growth = growth
        self._passes = passes
        self._clock = clock
        self._head_path = head_path
        self._kept_s = -math.inf
        self._noted: Head | None = None
        self._logged_at: datetime | None = None

    async def begin(self) -> None:
        """Finish what a crash cut short, before anybody asks."""
        await self._look_at_head()
        await self._remove_strays()
        await self._reset_lost()

    async def run_once(self) -> None:
        """Delete the files of clips whose time has passed, by lived time too; their row and their record stay.

        Then note the record's head, and from time to time how far lived time has come.
        """
        for clip_id in await self._store.overdue():
            try:
                await self._expire(clip_id)
            except OSError as error:  # the others go all the same
                _log.error("linkhost.expiry_failed", clip=clip_id, error=str(error))
        await self.note_head()
        if self._clock.monotonic_s() >= self._kept_s + KEEP_S:
            self._kept_s = self._clock.monotonic_s()
            await self._store.keep_time()

    async def note_head(self) -> None:
        """Write beside the database how far the record goes, and once a day into the log, which others keep.

        Where that cannot be done now, it is said, and tried again with the next one.
        """
        try:
            head = await self._store.record.head()
            if head != self._noted:
                await self._files.blocking(keyfile.replace_durably, self._head_path, f"{head}\n".encode())
                self._noted = head
        except (OSError, StoreError) as error:
            # A full disk keeps nobody from watching, nor the host from starting.
            _log.warning("linkhost.head_unnoted", error=str(error))
            return
        now = self._clock.now()
        if head != START and (self._logged_at is None or now - self._logged_at >= LOG_HEAD_EVERY):
            self._logged_at = now
            _log.info("linkhost.audit_head", head=str(head))

    async def noted(self) -> Head | None:
        """The head as it was noted last; None where there is no note that can be read."""
        try:
            text = await self._files.blocking(self._head_path.read_text, "ascii")
            return Head.parse(text)
        except (OSError, ValueError):
            return None

    async def _expire(self, clip_id: str) -> None:
        parts = await self._store.parts(clip_id)
        self._passes.void(clip_id)
        for part in parts:
            await self._files.remove(clip_id, part.index)
        now = self._clock.now()
        size_bytes = sum(part.offset_bytes for part in parts)
        rows = [
            AuditRow(now, AuditKind.EXPIRED, clip_id),
            AuditRow(now, AuditKind.DELETED, clip_id, detail={"bytes": size_bytes, "by": "expiry"}),
        ]
        await self._store.bury(clip_id, rows, now)
        self._growth.changed(clip_id)
        _log.info("linkhost.clip_expired", clip=clip_id, bytes=size_bytes)

    async def _look_at_head(self) -> None:
        noted = self._noted = await self.noted()
        if noted is not None and not await self._store.record.holds(noted):
            metrics.count("linkhost.audit_cut")
            problem = "the record does not hold the line that was noted last: an older copy was put back, or it was changed"
            _log.error("linkhost.audit_cut", noted=str(noted), problem=problem)
            # The note gives way to a new one; that it was there stays in the record.
            await self._store.record.write_down(AuditRow(self._clock.now(), AuditKind.CUT, "", detail={"noted": str(noted)}))

    async def _remove_strays(self) -> None:
        """Remove files of which the store knows nothing: deletions that a crash cut short."""
        for clip_id, index, path in await self._files.names():
            clip = await self._store.clip(clip_id)
            if clip is None or clip.deleted_at is not None or await self._store.part(clip_id, index) is None:
                _log.warning("linkhost.stray_file", file=path.name)
                await self._files.remove(clip_id, index)

    async def _reset_lost(self) -> None:
        """Parts whose files are gone begin anew: an uploader that still has their bytes sends them again."""
        held = {(clip_id, index) for clip_id, index, _ in await self._files.names()}
        for part in await self._store.kept_parts():
            if (part.clip_id, part.index) not in held:
                _log.error("linkhost.file_lost", clip=part.clip_id, part=part.index, bytes=part.offset_bytes)
                await self._store.reset(part, lost(part, self._clock.now()), mismatched=False)


def lost(part: Part, now: datetime) -> AuditRow:
    """The line that says that the disk lost what was held of a part."""
    detail: dict[str, Scalar] = {"what": "lost", "part": part.index, "bytes": part.offset_bytes}
    return AuditRow(now, AuditKind.UPLOAD, part.clip_id, detail=detail)
