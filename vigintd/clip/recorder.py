"""The recorder: one incident's packets become parts in the spool, visible fragment by fragment.

Owns the clip's one thread and the way from there to the spool, and nothing of what a part holds (`compose`) or how it
reaches the disk (`spool`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial as bound
from typing import Any, ParamSpec, TypeVar

import structlog

from vigintd import metrics
from vigintd.clip.compose import Composer, Piece
from vigintd.errors import ClipError, VigintdError
from vigintd.model import MEDIA_CLOCK_HZ, Packet, SealedPart
from vigintd.spool import PartFile, Spool

_log = structlog.get_logger("clip")

_REMUXED_AT_ONCE = 64
"""Packets between two visits to the disk: two milliseconds of remuxing, so a long pre-roll is visible from its first
fragments on, at few fsyncs."""
_ENCODED_AT_ONCE = 8

_P = ParamSpec("_P")
_T = TypeVar("_T")


class ClipRecorder:
    """Writes one clip. One caller writes; `on_part` is called on the loop once a part's first fragment is visible.

    H.264 is remuxed as it is; anything else is encoded, so that `write` takes as long as encoding does and a follower
    of a ring, waiting for it, falls behind instead of piling packets up.
    """

    def __init__(self, spool: Spool, incident_id: str, *, on_part: Callable[[PartFile], None]) -> None:
        self.started_s: float | None = None
        """`Packet.arrived_s` of the first packet written; None before."""
        self._spool = spool
        self._incident_id = incident_id
        self._on_part = on_part
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="clip")
        self._composer = Composer()
        self._turn = asyncio.Lock()
        self._jobs: set[asyncio.Task[Any]] = set()
        self._owed: deque[Piece] = deque()
        """Pieces not on the disk yet: at most what one visit brings, or what a failing disk left."""
        self._parts: list[PartFile] = []
        self._growing: PartFile | None = None
        self._is_over = False
        self._is_closed = False
        self._sealed: tuple[SealedPart, ...] | None = None
        self._loss = ""

    async def write(self, packets: Sequence[Packet]) -> None:
        """Add packets, in arrival order; what precedes the first key frame is dropped and counted.

        On return every whole fragment is visible. Raises `OSError` where the disk fails: packets not written by then
        are lost, the clip goes on at the next key frame when called again, and what was visible stays good. Raises
        `ClipError` for packets of which no clip can be made. A caller that is cancelled leaves the visit to the disk
        under way to finish by itself; the rest of its packets is dropped.
        """
        if self._is_over:
            raise ClipError("the clip is sealed")
        cancelled = asyncio.Event()
        await self._unbroken(self._write(tuple(packets), cancelled), cancelled)

    async def seal(self, *, partial: str = "") -> tuple[SealedPart, ...]:
        """End the clip: its last fragment made visible, its parts sealed. Empty when nothing was written.

        `partial` says why the clip ends too early, if it does; it is told of the last part. A disk that refuses the
        last fragment costs that fragment and is told the same way. Asked again, the answer is the same.
        """
        if self._is_closed and self._sealed is None:
            raise ClipError("the clip was closed without a seal")
        return await self._unbroken(self._seal(partial))

    async def aclose(self) -> None:
        """Let go of thread and files; what was not sealed stays in the spool as it is, for recovery."""
        if not self._is_closed:
            self._is_over = self._is_closed = True
            await self._unbroken(self._aclose())

    async def _write(self, packets: Sequence[Packet], cancelled: asyncio.Event) -> None:
        async with self._turn:
            left = len(packets)
            try:
                await self._store()
                for batch in _batches(packets):
                    if cancelled.is_set() or self._is_over:
                        break
                    left -= len(batch)
                    self._owed.extend(await self._in_thread(self._composer.write, batch))
                    self.started_s = self._composer.started_s
                    await self._store()
            finally:
                if left:
                    metrics.count("clip.packets_dropped", by=left)
                    self._composer.skip_to_key()

    async def _seal(self, partial: str) -> tuple[SealedPart, ...]:
        self._is_over = True
        async with self._turn:
            if self._sealed is not None:
                return self._sealed
            try:
                await self._store()
                self._owed.extend(await self._in_thread(self._composer.finish))
                await self._store()
            except (OSError, VigintdError) as error:
                _log.warning("clip.cut_short", incident=self._incident_id, reason=str(error))
                self._loss = f"its end could not be written: {error}"
                self._owed.clear()
            await self._end_part("; ".join(filter(None, (partial, self._loss, self._composer.cut_short))))
            self._sealed = tuple(part.sealed for part in self._parts if part.sealed)
            return self._sealed

    async def _store(self) -> None:
        """Bring owed pieces to the disk; each leaves the queue only once it is there."""
        while self._owed:
            piece = self._owed[0]
            if self._growing is not None and self._growing.index != piece.index:
                await self._end_part()
            if self._growing is None:
                self._growing = await self._spool.new_part(self._incident_id, piece.index)
            part = self._growing
            await part.append(piece.data, piece.fragments)
            self._owed.popleft()
            if part not in self._parts:
                self._parts.append(part)
                self._on_part(part)

    async def _end_part(self, partial: str = "") -> None:
        part = self._growing
        if part is None:
            return
        if part.fragments:
            last = part.fragments[-1]
            await part.seal(duration_s=(last.start_90k + last.duration_90k) / MEDIA_CLOCK_HZ, partial=partial)
        else:
            await part.discard()
        self._growing = None

    async def _aclose(self) -> None:
        async with self._turn:
            try:
                # FFmpeg's objects die on the thread that made them.
                await self._in_thread(self._composer.finish)
            finally:
                if self._growing is not None:
                    await self._growing.close()
                self._thread.shutdown(wait=False)

    async def _in_thread(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, bound(call, *args, **kwargs))

    async def _unbroken(self, step: Coroutine[Any, Any, _T], cancelled: asyncio.Event | None = None) -> _T:
        """Run a step to its end whatever becomes of the caller: thread, disk and attributes never part."""
        job = asyncio.create_task(step)
        self._jobs.add(job)  # the loop itself holds tasks weakly
        job.add_done_callback(self._jobs.discard)
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            if cancelled is not None:
                cancelled.set()
            raise


def _batches(packets: Sequence[Packet]) -> Iterator[Sequence[Packet]]:
    at = 0
    while at < len(packets):
        step = _REMUXED_AT_ONCE if packets[at].parameters.codec == "h264" else _ENCODED_AT_ONCE
        yield packets[at : at + step]
        at += step
