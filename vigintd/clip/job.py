"""The encode job: sources that lie or grow in the spool become parts.

Owns the way from the disk through the encoder's thread back to the disk, a fragment at a time, which is all that it ever
holds. It works behind the recorder and keeps nobody waiting; what it needs is on the disk, so that the next daemon can go
on where one was killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial as bound
from typing import Any, ParamSpec, TypeVar

import av
import structlog

from vigintd.clip.rewrite import Rewriter, key_before
from vigintd.clip.series import Series, parts
from vigintd.clock import Clock
from vigintd.errors import ClipError, TransientError
from vigintd.model import SealedPart
from vigintd.redact import redacted
from vigintd.spool import NotDurable, PartFile, SourceFile, Spool

_DISK_TRIES = 10
_DISK_RETRY_S = 1.0
"""A disk that does not take a part is tried again so often; meanwhile the source goes on growing, if it can."""

log = structlog.get_logger("clip")

_P = ParamSpec("_P")
_T = TypeVar("_T")


class EncodeJob:
    """One clip's sources into its parts, in order. Begins with the first source, ends after `end` or `stop`."""

    def __init__(self, series: Series[PartFile], incident_id: str, *, first_part: int, clock: Clock) -> None:
        self.trouble = ""
        """What went wrong for good, in words for a user; the parts made before it stay good."""
        self._series = series
        self._incident_id = incident_id
        self._clock = clock
        self._rewriter = Rewriter(incident_id, first_part=first_part, monotonic_s=clock.monotonic_s)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._sources: asyncio.Queue[SourceFile | None] = asyncio.Queue()
        """One for each set of parameters; the recorder caps their number."""
        self._run = asyncio.create_task(self._guarded())

    def add(self, source: SourceFile) -> None:
        """Encode this source too, after those before it, as far as it is visible and while it grows."""
        self._sources.put_nowait(source)

    async def end(self) -> None:
        """No source follows: return when all are encoded, or `trouble` says why not; `ClipError` once it was stopped."""
        self._sources.put_nowait(None)
        await asyncio.wait([self._run])
        if self._run.cancelled():
            raise ClipError("the encode was stopped")

    async def stop(self) -> None:
        """Give up where it stands, at the next picture. What is visible stays as it is."""
        self._rewriter.stop()
        self._run.cancel()
        await asyncio.wait([self._run])
        with suppress(RuntimeError):  # the thread may have ended already
            # FFmpeg's objects die on the thread that made them.
            await self._in_thread(self._rewriter.give_up)
        self._thread.shutdown(wait=False)

    async def _guarded(self) -> None:
        try:
            while (source := await self._sources.get()) is not None:
                await self._try(source)
        except (TransientError, OSError) as error:
            self._fail(redacted(str(error)))
            self._series.give_up()

    async def _try(self, source: SourceFile) -> None:
        """Encode one source; one that cannot be does not stop those after it. A disk that refuses parts does."""
        try:
            await self._encode(source)
        except (ClipError, av.FFmpegError) as error:
            self._fail(redacted(str(error)))
        except (TransientError, OSError):
            raise
        except Exception as error:  # a defect costs this source what is left of it, and not the parts that are made
            log.exception("clip.encode_defect", incident=self._incident_id)
            self._fail(redacted(f"{type(error).__name__}: {error}"))
        else:
            return
        await self._in_thread(self._rewriter.give_up)

    def _fail(self, reason: str) -> None:
        self.trouble = f"not all of it could be encoded: {reason}"
        log.error("clip.encode_failed", incident=self._incident_id, error=reason)

    async def _encode(self, source: SourceFile) -> None:
        """Read one source to its end."""
        await source.beyond(0)
        if not source.fragments:
            return
        first = source.fragments[0]
        init = await source.read(first.offset_bytes, first.length_bytes)
        at, begin_90k = await self._beginning(source, init)
        while True:
            while at == len(source.fragments) and not source.complete:
                await source.beyond(source.visible_bytes)
            if at == len(source.fragments):
                break
            fragment, last = source.fragments[at], source.fragments[-1]
            data = await source.read(fragment.offset_bytes, fragment.length_bytes)
            end_90k = last.start_90k + last.duration_90k
            self._series.owe(await self._in_thread(self._rewriter.feed, init, data, begin_90k, end_90k))
            await self._store()
            at += 1
        self._series.owe(await self._in_thread(self._rewriter.end_source))
        await self._store()

    async def _beginning(self, source: SourceFile, init: bytes) -> tuple[int, int]:
        """The fragment to begin with and the key frame in it: the last one at or before what is in no part yet."""
        for at in range(len(source.fragments) - 1, 0, -1) if source.encoded_90k else ():
            fragment = source.fragments[at]
            if fragment.start_90k <= source.encoded_90k:
                data = await source.read(fragment.offset_bytes, fragment.length_bytes)
                begin_90k = await self._in_thread(key_before, init, data, source.encoded_90k)
                if begin_90k is not None:
                    return at, begin_90k
        return 1, 0

    async def _store(self) -> None:
        """Bring what is owed to the disk, with patience: nothing is encoded meanwhile."""
        for tries in range(_DISK_TRIES):
            try:
                await _whole(self._series.store())
            except (OSError, TransientError) as error:
                if tries == _DISK_TRIES - 1 or isinstance(error, NotDurable):
                    raise
                log.warning("clip.disk_delayed", incident=self._incident_id, error=str(error))
                await self._clock.sleep(_DISK_RETRY_S)
            else:
                return

    async def _in_thread(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, bound(call, *args, **kwargs))


async def _whole(step: Coroutine[Any, Any, None]) -> None:
    """Run a visit to the disk to its end, also when cancelled: a file that it creates must not be lost sight of."""
    visit = asyncio.create_task(step)
    try:
        await asyncio.shield(visit)
    except asyncio.CancelledError:
        await asyncio.wait([visit])
        visit.exception()
        raise


async def encode_sources(
    spool: Spool,
    incident_id: str,
    sources: Sequence[SourceFile],
    *,
    first_part: int,
    on_part: Callable[[PartFile], None],
    clock: Clock,
    partial: str = "",
) -> tuple[SealedPart, ...]:
    """Encode sources that another life of the daemon left (`Spool.left_sources`) into fresh parts from `first_part` on.

    The sources stay. `partial` says why the clip ends too early, if it does. Raises `ClipError` where it cannot be done
    to the end; what was made by then is sealed, and says so.
    """
    series = parts(spool, incident_id, on_part)
    job = EncodeJob(series, incident_id, first_part=first_part, clock=clock)
    try:
        for source in sources:
            job.add(source)
        await job.end()
        await series.end("; ".join(filter(None, (partial, job.trouble))))
    finally:
        await job.stop()
        await series.close()
    if job.trouble:
        raise ClipError(job.trouble)
    return tuple(part.sealed for part in series.files if part.sealed)
