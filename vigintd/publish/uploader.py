"""Tailing a part of the spool to a host.

Owns the story of one part's upload: where to go on, how much to send in one request, when to try again, and the
seal at the end. A host keeps a body whole or not at all, so what a line or a proxy does not carry whole is sent in
shorter ones. Knows no wire and no file: it reads a `GrowingPart` and speaks to a `Host`.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Sequence
from random import Random
from typing import Protocol

import structlog

from vigintd.clock import Clock
from vigintd.errors import HostRefused, HostUnavailable, TransientError
from vigintd.model import Fragment, SealedPart
from vigintd.publish import Host
from vigintd.publish.faults import BodyTooLarge, SealMismatch
from vigintd.retry import Backoff, GiveUp, verdict

BODY_LIMIT_BYTES = 8 << 20
"""One request carries no more than this (a single larger fragment goes alone).

A ten-second pre-roll at 4 Mbit/s fits in one, and a line that breaks costs no more than this once more.
"""

CHUNK_BYTES = 128 << 10
"""Read, hashed (under a millisecond) and sent at a time; what an upload holds in memory."""

MAX_RESENDS = 1
"""How often a part is sent again as a whole because the host's seal did not match."""

_log = structlog.get_logger()


class BodyLimit:
    """How long a request's body may be on one line: half of one that failed, twice one that arrived; a fragment at the least.

    Shared by all uploads to one host, since it is the line's, and none begins to learn it anew.
    """

    def __init__(self) -> None:
        self.length_bytes = BODY_LIMIT_BYTES

    def failed(self, body_bytes: int) -> None:
        """A body of this length did not arrive."""
        self.length_bytes = body_bytes // 2

    def arrived(self, body_bytes: int) -> None:
        """A body of this length did; one much shorter than might be says nothing of longer ones."""
        self.length_bytes = max(self.length_bytes, min(2 * body_bytes, BODY_LIMIT_BYTES))


class GrowingPart(Protocol):
    """A part that grows by whole fragments until it is sealed; `spool.PartFile` is one."""

    @property
    def index(self) -> int:
        """Number of the part in its clip, from 0."""
        ...

    @property
    def fragments(self) -> Sequence[Fragment]:
        """The whole fragments so far, in order, without a gap from byte 0."""
        ...

    @property
    def visible_bytes(self) -> int:
        """How many bytes may be read."""
        ...

    @property
    def sealed(self) -> SealedPart | None:
        """Length and hash once the part does not grow any more."""
        ...

    async def beyond(self, offset_bytes: int) -> None:
        """Return as soon as there are more than `offset_bytes` bytes, or the part is sealed."""
        ...

    async def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Up to `length_bytes` from `offset_bytes`, never beyond `visible_bytes`."""
        ...


async def upload_part(
    host: Host,
    clip_id: str,
    part: GrowingPart,
    *,
    clock: Clock,
    random: Random,
    backoff: Backoff,
    life_s: float,
    on_accepted: Callable[[int], None],
    limit: BodyLimit | None = None,
) -> None:
    """Bring `part` to `host` while it grows, and seal it there; returns when the host has verified it.

    `on_accepted` hears of every new count of bytes that the host holds for good, also of what it held before.
    Whatever is transient is tried again from the host's own offset. A row of failures without any progress
    between them ends after `life_s` seconds with `HostUnavailable`; a `PermanentError` is raised at once.
    The upload may be begun again at any time by another call, in another process.
    """
    upload = _Upload(host, clip_id, part, on_accepted, limit or BodyLimit())
    attempt, reached_bytes, failing_since_s = 0, 0, 0.0
    while True:
        try:
            await upload.run_once()
        except TransientError as error:
            if attempt == 0 or upload.furthest_bytes > reached_bytes:
                attempt, failing_since_s = 0, clock.monotonic_s()
            reached_bytes = upload.furthest_bytes
            attempt += 1
            age_s = clock.monotonic_s() - failing_since_s
            answer = verdict(error, attempt=attempt, age_s=age_s, life_s=life_s, backoff=backoff, random=random)
            if isinstance(answer, GiveUp):
                raise HostUnavailable(answer.reason, retry_after_s=error.retry_after_s) from error
            _log.warning(
                "upload.delayed",
                clip=clip_id,
                part=part.index,
                attempt=attempt,
                delay_s=round(answer.delay_s, 2),
                reason=str(error),
            )
            await clock.sleep(answer.delay_s)
        else:
            return


class _Upload:
    """One part's upload over all its attempts."""

    def __init__(
        self, host: Host, clip_id: str, part: GrowingPart, on_accepted: Callable[[int], None], limit: BodyLimit
    ) -> None:
        self._host = host
        self._clip_id = clip_id
        self._part = part
        self._on_accepted = on_accepted
        self._resends = 0
        self._limit = limit
        self.furthest_bytes = 0
        """The most that the host ever held; only going beyond it counts as progress."""

    async def run_once(self) -> None:
        """From the host's offset to the seal, once; raises what goes wrong on the way."""
        while True:
            sealed = await self._send_all()
            try:
                await self._host.seal(self._clip_id, self._part.index, sealed.length_bytes, sealed.sha256)
            except SealMismatch:
                if self._resends == MAX_RESENDS:
                    raise
                self._resends += 1
                self.furthest_bytes = 0
                _log.warning("upload.resent", clip=self._clip_id, part=self._part.index)
            else:
                return

    async def _send_all(self) -> SealedPart:
        """Send what the host lacks until the part is sealed and whole there."""
        part = self._part
        offset = await self._host.offset(self._clip_id, part.index)
        self._accepted(offset)
        while True:
            await part.beyond(offset)
            end = _end_of_body(part, offset, self._limit.length_bytes)
            if end > offset:
                offset = await self._send(offset, end)
                self._accepted(offset)
            elif part.sealed is None:
                await part.beyond(max(offset, part.visible_bytes))
            elif offset > part.sealed.length_bytes:
                whole = part.sealed.length_bytes
                raise HostRefused(f"the host holds {offset} bytes of part {part.index} of clip {self._clip_id}, not {whole}")
            else:
                return part.sealed

    async def _send(self, offset: int, end: int) -> int:
        """One body; answers how far the host has got, which is where it was when the body has to be a shorter one."""
        part = self._part
        digest = await _sha256(part, offset, end)
        try:
            held = await self._host.append(self._clip_id, part.index, offset, _chunks(part, offset, end), digest)
        except BodyTooLarge:
            self._limit.failed(end - offset)
            if _end_of_body(part, offset, (end - offset) // 2) == end:
                raise  # one fragment
            return offset
        except TransientError:
            self._limit.failed(end - offset)
            raise
        self._limit.arrived(end - offset)
        return held

    def _accepted(self, offset: int) -> None:
        self.furthest_bytes = max(self.furthest_bytes, offset)
        if offset:
            self._on_accepted(offset)


def _end_of_body(part: GrowingPart, offset: int, limit_bytes: int) -> int:
    """Where a request of `limit_bytes` that begins at `offset` ends: on a fragment's end, or at the end of a sealed part.

    A host may have kept a broken-off body: then `offset` lies inside a fragment, and the body ends the fragment.
    Answers `offset` when there is nothing to send.
    """
    fragments = part.fragments
    first = bisect_right(fragments, offset, key=_end_of)
    past = bisect_right(fragments, offset + limit_bytes, key=_end_of)
    if first < len(fragments):
        return _end_of(fragments[max(first, past - 1)])
    # Bytes after the last fragment (a muxer's index) belong to the part once it is sealed.
    return max(offset, min(part.sealed.length_bytes, offset + BODY_LIMIT_BYTES)) if part.sealed else offset


def _end_of(fragment: Fragment) -> int:
    return fragment.offset_bytes + fragment.length_bytes


async def _chunks(part: GrowingPart, offset: int, end: int) -> AsyncIterator[bytes]:
    while offset < end:
        chunk = await part.read(offset, min(CHUNK_BYTES, end - offset))
        if not chunk:
            raise HostRefused(f"part {part.index} ends at byte {offset} on disk, though {end} bytes were written")
        offset += len(chunk)
        yield chunk


async def _sha256(part: GrowingPart, offset: int, end: int) -> bytes:
    digest = hashlib.sha256()
    async for chunk in _chunks(part, offset, end):
        digest.update(chunk)
    return digest.digest()
