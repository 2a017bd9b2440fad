"""The recorder: one incident's packets become files in the spool, visible fragment by fragment.

Owns the clip's thread and the way from there to the spool, and nothing of what a file holds (`compose`), how sources
become parts (`job`) or how bytes reach the disk (`spool`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial as bound
from typing import Any, ParamSpec, TypeVar

import structlog

from vigintd import metrics
from vigintd.clip import series
from vigintd.clip.compose import Composer
from vigintd.clip.job import EncodeJob
from vigintd.clip.part import Piece
from vigintd.clock import Clock, SystemClock
from vigintd.errors import ClipError, TransientError, VigintdError
from vigintd.model import Original, Packet, SealedPart
from vigintd.redact import redacted
from vigintd.spool import NotDurable, PartFile, SourceFile, Spool

_log = structlog.get_logger("clip")

_AT_ONCE = 64
"""Packets between two visits to the disk: two milliseconds of remuxing, so a long pre-roll is visible from its first
fragments on, at few fsyncs."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class ClipRecorder:
    """Writes one clip. One caller writes; `on_part` is called on the loop once a part's first fragment is visible.

    Whatever the codec, `write` only remuxes: H.264 into parts, anything else into sources, of which an encode job makes
    the parts behind the recorder's back. So who follows a ring never waits for an encoder.
    """

    def __init__(
        self,
        spool: Spool,
        incident_id: str,
        *,
        on_part: Callable[[PartFile], None],
        keep_original: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self.started_s: float | None = None
        """`Packet.arrived_s` of the first packet written; None before."""
        self._incident_id = incident_id
        self._keep_original = keep_original
        self._clock = clock or SystemClock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="clip")
        self._composer = Composer(incident_id)
        self._turn = asyncio.Lock()
        self._jobs: set[asyncio.Task[Any]] = set()
        self._parts = series.parts(spool, incident_id, on_part)
        self._sources = series.sources(spool, incident_id, self._on_source)
        self._encode: EncodeJob | None = None
        self._is_over = False
        self._is_closed = False
        self._sealed: tuple[SealedPart, ...] | None = None
        self._loss = ""

    @property
    def is_begun(self) -> bool:
        """Something of the clip is on the disk."""
        return bool(self._parts.files or self._sources.files)

    @property
    def originals(self) -> tuple[Original, ...]:
        """What the camera sent where it had to be encoded, once the clip is sealed; empty unless it is to be kept."""
        if not self._keep_original or self._sealed is None:
            return ()
        return tuple(s.sealed for s in self._sources.files if s.sealed and s.sealed.codec != "h264")

    async def write(self, packets: Sequence[Packet]) -> None:
        """Add packets, in arrival order, from the first key frame on.

        On return every whole fragment of H.264 is visible; of other codecs it is in the spool and will be encoded.
        Raises `OSError` where the disk fails: packets not written by then are lost, the clip goes on at the next key
        frame when called again (after `NotDurable` in another part), and what was visible stays good. Raises `ClipError`
        for packets of which no clip can be made. A caller that is cancelled leaves the visit to the disk under way to
        finish by itself; the rest of its packets is dropped.
        """
        if self._is_over:
            raise ClipError("the clip is sealed")
        cancelled = asyncio.Event()
        await self._unbroken(self._write(tuple(packets), cancelled), cancelled)

    async def give_up(self) -> None:
        """Forget what is not on the disk yet, whatever the disk would take by now; what is there stays, and can be sealed."""
        async with self._turn:
            self._sources.give_up()
            if self._encode is None:
                self._parts.give_up()
            await self._begin_anew()

    async def seal(self, *, partial: str = "") -> tuple[SealedPart, ...]:
        """End the clip: its last fragment made visible, what must be encoded encoded, its parts sealed.

        Empty when nothing was written. `partial` says why the clip ends too early, if it does; it is told of the last
        part. A disk that refuses the last fragment costs that fragment and is told the same way, and so is an encode
        that fails; its sources then stay. Asked again, the answer is the same. `ClipError` where the clip is closed
        meanwhile.
        """
        if self._is_closed and self._sealed is None:
            raise ClipError("the clip was closed without a seal")
        return await self._unbroken(self._seal(partial))

    async def aclose(self) -> None:
        """Let go of threads and files; what was not sealed stays in the spool as it is, for recovery."""
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
                    self._owe(await self._in_thread(self._composer.write, batch))
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
                self._owe(await self._in_thread(self._composer.finish))
                await self._store()
            except (OSError, VigintdError) as error:
                _log.warning("clip.cut_short", incident=self._incident_id, reason=str(error))
                self._loss = f"its end could not be written: {redacted(str(error))}"
                (self._sources if self._encode else self._parts).give_up()  # the job looks after its own
            trouble = await self._encoded()
            await self._parts.end("; ".join(filter(None, (partial, self._loss, self._composer.cut_short, trouble))))
            self._sealed = tuple(part.sealed for part in self._parts.files if part.sealed)
            if not trouble:
                await self._drop_sources()
            return self._sealed

    async def _encoded(self) -> str:
        """End the sources, and wait until the encode job has caught up; answers what is missing."""
        await self._sources.end()
        if self._encode is None:
            return ""
        await self._encode.end()
        return self._encode.trouble

    async def _drop_sources(self) -> None:
        """Sources have done their service, unless somebody wants them. H.264 is in its part bit for bit."""
        for source in self._sources.files:
            if not self._keep_original or (source.sealed and source.sealed.codec == "h264"):
                try:
                    await source.drop()
                except OSError as error:  # retention will take it
                    _log.warning("clip.source_left", incident=self._incident_id, error=str(error))

    def _owe(self, pieces: Sequence[Piece]) -> None:
        self._parts.owe([piece for piece in pieces if not piece.shape.is_source])
        self._sources.owe([piece for piece in pieces if piece.shape.is_source])

    async def _store(self) -> None:
        """Bring owed pieces to the disk. Once there is a source, parts are the encode job's."""
        try:
            if self._encode is None:
                await self._parts.store()
            await self._sources.store()
        except NotDurable as error:
            await self._leave_damaged(f"the disk failed: {error.strerror}")
            raise

    async def _leave_damaged(self, reason: str) -> None:
        """Let the file under way end where it is good, and the clip go on in another."""
        try:
            if self._encode is None:
                await self._parts.leave(reason)
            await self._sources.leave(reason)
        finally:
            await self._begin_anew()

    async def _begin_anew(self) -> None:
        files = {"parts": len(self._parts.files), "sources": len(self._sources.files)}
        await self._in_thread(bound(self._composer.begin_anew, **files))

    def _on_source(self, source: SourceFile) -> None:
        if self._encode is None:
            first_part = len(self._parts.files)
            self._encode = EncodeJob(self._parts, self._incident_id, first_part=first_part, clock=self._clock)
        self._encode.add(source)

    async def _aclose(self) -> None:
        if self._encode is not None:
            await self._encode.stop()  # ahead of the turn, which a seal may hold while it waits for the job
        async with self._turn:
            try:
                # FFmpeg's objects die on the thread that made them.
                pieces = await self._in_thread(self._composer.finish)
                if self._sealed is None:
                    self._owe(pieces)
                    with suppress(OSError, TransientError):
                        await self._store()
            finally:
                await self._parts.close()
                await self._sources.close()
                self._thread.shutdown(wait=False)
                if self._encode is not None:
                    await self._encode.stop()

    async def _in_thread(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, bound(call, *args, **kwargs))

    async def _unbroken(self, step: Coroutine[Any, Any, _T], cancelled: asyncio.Event | None = None) -> _T:
        """Run a step to its end whatever becomes of the caller: thread, disk and attributes never part."""
        job = asyncio.create_task(step)
        self._jobs.add(job)  # the loop itself holds tasks weakly
        job.add_done_callback(self._forget)
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            if cancelled is not None:
                cancelled.set()
            raise

    def _forget(self, job: asyncio.Task[Any]) -> None:
        self._jobs.discard(job)
        if not job.cancelled():
            job.exception()  # its caller, who would have been told, may be gone


def _batches(packets: Sequence[Packet]) -> Iterator[Sequence[Packet]]:
    for at in range(0, len(packets), _AT_ONCE):
        yield packets[at : at + _AT_ONCE]
