"""The upload side: tus 1.0 with what a growing clip needs beside it (seal, metadata).

Owns the handlers under `/api/v1`. A body goes to disk as it comes; only when its checksum fits and it is
fsynced is the committed offset moved, and only committed bytes are ever shown. Everything may be asked twice.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import hmac
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from http import HTTPStatus

import structlog
from aiohttp import hdrs, web

from vigintd import fmp4, metrics
from vigintd.clock import Clock
from vigintd.failpoints import failpoint
from vigintd.linkhost import tokens, wire
from vigintd.linkhost.files import Files, Incoming, ShortFile
from vigintd.linkhost.growth import Growth, Superseded, Turn, Turns
from vigintd.linkhost.keeper import lost
from vigintd.linkhost.keyring import Keyring
from vigintd.linkhost.passes import Passes
from vigintd.linkhost.store import AuditKind, AuditRow, Clip, Part, Store
from vigintd.linkhost.tokens import Grant
from vigintd.linkhost.web import BODY_IDLE_S, BODY_TOTAL_S, Handler, Request, Route, Stranger, body, json_answer, json_body
from vigintd.linkhost.wire import CLIP_ID, PART, TUS_VERSION, Refusal, Scalar

INIT_BYTES = 64 * 1024
"""ftyp and moov of a part fit in so much; the codec is looked for there and not beyond."""

_OFFSET_STREAM = "application/offset+octet-stream"
_TUS = {"Tus-Resumable": TUS_VERSION}

_log = structlog.get_logger(__name__)

_KeyedHandler = Callable[[Request, Mapping[str, str], str], Awaitable[web.StreamResponse]]
"""A handler that is also told the name of the API key."""


class Uploads:
    """Handlers of the upload API."""

    def __init__(
        self,
        *,
        store: Store,
        files: Files,
        growth: Growth,
        passes: Passes,
        keyring: Keyring,
        clock: Clock,
        link_key: bytes,
        link: Callable[[str, Grant], str],
        max_clip_bytes: int,
    ) -> None:
        self._store = store
        self._files = files
        self._growth = growth
        self._passes = passes
        self._keyring = keyring
        self._clock = clock
        self._link_key = link_key
        self._link = link
        self._max_clip_bytes = max_clip_bytes
        self.turns = Turns()

    def routes(self) -> list[Route]:
        """Every place of the API."""
        upload = rf"/api/v1/uploads/(?P<clip>{CLIP_ID})\.(?P<part>{PART})"
        return [
            Route(
                re.compile(r"/api/v1/uploads/?"),
                {"OPTIONS": self._keyed(self._options), "POST": self._keyed(self._create)},
            ),
            Route(
                re.compile(upload),
                {"HEAD": self._keyed(self._head), "PATCH": self._keyed(self._append), "DELETE": self._keyed(self._delete)},
            ),
            Route(re.compile(upload + "/seal"), {"POST": self._keyed(self._seal)}),
            Route(re.compile(rf"/api/v1/clips/(?P<clip>{CLIP_ID})"), {"PATCH": self._keyed(self._update)}),
        ]

    def _keyed(self, handler: _KeyedHandler) -> Handler:
        async def checked(request: Request, groups: Mapping[str, str]) -> web.StreamResponse:
            name = self.key_name(request)
            if request.headers.get("Tus-Resumable", TUS_VERSION) != TUS_VERSION:
                raise Refusal(412, f"this host speaks tus {TUS_VERSION}", {"Tus-Version": TUS_VERSION})
            answer = await handler(request, groups, name)
            answer.headers.update(_TUS)
            return answer

        return checked

    def key_name(self, request: Request) -> str:
        """Whose API key the request bears."""
        scheme, _, presented = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme.lower() != "bearer":
            presented = request.headers.get("X-API-Key", "")
        found = self._keyring.name_of(presented)
        if not found:
            metrics.count("linkhost.wrong_api_key")
            raise Stranger(401, "an API key is required", {hdrs.WWW_AUTHENTICATE: "Bearer", hdrs.CONNECTION: "close"})
        return found

    async def _options(self, _request: Request, _groups: Mapping[str, str], _key: str) -> web.Response:
        headers = {
            "Tus-Version": TUS_VERSION,
            "Tus-Extension": wire.TUS_EXTENSIONS,
            "Tus-Checksum-Algorithm": "sha256",
            "Tus-Max-Size": str(self._max_clip_bytes),
        }
        return web.Response(status=204, headers=headers)

    async def _create(self, request: Request, _groups: Mapping[str, str], key: str) -> web.Response:
        length_bytes = self._declared_length(request)
        wanted = wire.creation(request.headers.get("Upload-Metadata"))
        now = self._clock.now()
        clip = await self._store.clip(wanted.clip_id)
        if clip is None:
            announced = wanted.announcement
            if announced is None:
                raise Refusal(404, "no such clip; part 0 announces it")
            expires_at = now + timedelta(hours=announced.expiry_h)
            key_id = tokens.key_id(self._link_key)
            kept_s, lived = announced.expiry_h * 3600, self._store.lived.now()
            clip = Clip(wanted.clip_id, key, key_id, announced.metadata, now, now, expires_at, kept_s, lived)
            if await self._store.create(clip, announced.recipients, request.visitor):
                _log.info("linkhost.clip_created", clip=clip.id, recipients=len(announced.recipients))
            # Two may ask at once; what stands in the store is the answer to both.
            clip = await self._store.clip(wanted.clip_id) or clip
        if clip.owner != key:
            raise Refusal(409, "this clip belongs to another API key")
        self._refuse_gone(clip)
        clip = await self._renewed(clip)
        added = await self._store.add_part(clip.id, wanted.part, length_bytes, now)
        self._growth.changed(clip.id)
        recipients = await self._store.recipients(clip.id)
        links = {known.grant.recipient: self._link(clip.id, known.grant) for known in recipients if not known.revoked_at}
        revoked = [known.grant.recipient for known in recipients if known.revoked_at]
        return json_answer(
            201 if added else 200,
            {"clip_id": clip.id, "links": links, "revoked": revoked, "expires_at": clip.expires_at.isoformat()},
            {hdrs.LOCATION: f"/api/v1/uploads/{clip.id}.{wanted.part}", **_expires(clip)},
        )

    async def _head(self, _request: Request, groups: Mapping[str, str], key: str) -> web.Response:
        clip, part = await self._upload(groups, key)
        headers = {"Upload-Offset": str(part.offset_bytes), **_expires(clip)}
        if part.length_bytes is None:
            headers["Upload-Defer-Length"] = "1"
        else:
            headers["Upload-Length"] = str(part.length_bytes)
        if part.sha256:
            headers["Repr-Digest"] = repr_digest(part.sha256)
        return web.Response(headers=headers)

    async def _append(self, request: Request, groups: Mapping[str, str], key: str) -> web.Response:
        if request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower() != _OFFSET_STREAM:
            raise Refusal(415, f"Content-Type is {_OFFSET_STREAM}")
        offset = wire.length(request.headers.get("Upload-Offset"), "Upload-Offset")
        checksum = wire.checksum(request.headers.get("Upload-Checksum"))
        async with self._changing(groups, key) as (turn, clip, part):
            if part.sealed:
                raise Refusal(403, "the part is sealed")
            if offset != part.offset_bytes:
                raise Refusal(409, f"the offset is {part.offset_bytes}", {"Upload-Offset": str(part.offset_bytes)})
            length_bytes = part.length_bytes
            if length_bytes is None and "Upload-Length" in request.headers:
                length_bytes = self._within_bounds(wire.length(request.headers["Upload-Length"], "Upload-Length"))
            room = await self._room(part, length_bytes)
            async with self._incoming(part) as file:
                received = await self._receive(request, turn, file, room, key)
                if not hmac.compare_digest(await file.digest(), checksum):
                    metrics.count("linkhost.checksum_mismatch")
                    raise Refusal(wire.CHECKSUM_MISMATCH, "the body does not fit its checksum")
                failpoint("linkhost.append.before")
                await file.sync()
                failpoint("linkhost.append.after")
            codec = part.codec or await self._codec(part, offset + received)
            await self._store.commit(part, offset + received, codec, length_bytes, self._clock.now())
        self._growth.changed(clip.id)
        return web.Response(status=204, headers={"Upload-Offset": str(offset + received), **_expires(clip)})

    async def _receive(self, request: Request, turn: Turn, file: Incoming, room: int, key: str) -> int:
        left = await self._keyring.room_bytes(key)
        if left is None or left >= room:
            return await self._take_in(request, turn, file, room)
        try:
            return await self._take_in(request, turn, file, left)
        except Refusal as refusal:
            if refusal.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                raise
            metrics.count("linkhost.over_quota")
            problem = f"the quota of this API key leaves {left} bytes; older clips must expire first, or it must be raised"
            raise Refusal(507, problem, refusal.headers) from None

    async def _take_in(self, request: Request, turn: Turn, file: Incoming, room: int) -> int:
        received = 0
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + BODY_TOTAL_S
        try:
            async with aclosing(body(request, room)) as pieces:
                while True:
                    async with turn.patience(min(BODY_IDLE_S, deadline_s - loop.time())):
                        piece = await anext(pieces, b"")
                    if not piece:
                        return received
                    received += len(piece)
                    await file.write(piece)
        except Superseded:
            raise Refusal(409, "a newer request has taken over", {hdrs.CONNECTION: "close"}) from None
        except TimeoutError:
            raise Refusal(408, "the body stopped coming", {hdrs.CONNECTION: "close"}) from None

    async def _seal(self, request: Request, groups: Mapping[str, str], key: str) -> web.Response:
        length_bytes, sha256 = wire.seal(await json_body(request))
        async with self._changing(groups, key) as (_, clip, part):
            if part.sealed:
                if (part.offset_bytes, part.sha256) != (length_bytes, sha256):
                    raise Refusal(409, "the part is sealed with another length or SHA-256")
                return json_answer(200, {"verified": True})
            fits = part.offset_bytes == length_bytes and await self._digest(part) == sha256
            await self._settle(request, part, sha256, fits=fits)
        self._growth.changed(clip.id)
        if not fits:
            raise Refusal(422, "length or SHA-256 do not fit what was received; send the part again from offset 0")
        return json_answer(200, {"verified": True})

    async def _settle(self, request: Request, part: Part, sha256: str, *, fits: bool) -> None:
        by = request.visitor
        detail: dict[str, Scalar] = {
            "what": "sealed" if fits else "mismatch",
            "part": part.index,
            "bytes": part.offset_bytes,
            "sha256": sha256,
        }
        row = AuditRow(self._clock.now(), AuditKind.UPLOAD, part.clip_id, "", by.address, by.client, detail)
        if fits:
            await self._store.seal(part, sha256, row, await self._init(part))
            return
        metrics.count("linkhost.seal_mismatch")
        _log.warning("linkhost.seal_mismatch", clip=part.clip_id, part=part.index)
        # The offset first: whatever happens to the file then, nobody takes it for whole.
        await self._store.reset(part, row, mismatched=True)
        await self._files.remove(part.clip_id, part.index)

    async def _delete(self, request: Request, groups: Mapping[str, str], key: str) -> web.Response:
        async with self._changing(groups, key) as (_, clip, part):
            by = request.visitor
            detail: dict[str, Scalar] = {"part": part.index, "by": key}
            row = AuditRow(self._clock.now(), AuditKind.DELETED, clip.id, "", by.address, by.client, detail)
            await self._files.remove(clip.id, part.index)
            await self._store.remove_part(part, row)
        self._passes.void(clip.id)
        self._growth.changed(clip.id)
        _log.info("linkhost.part_deleted", clip=clip.id, part=part.index)
        return web.Response(status=204)

    async def _update(self, request: Request, groups: Mapping[str, str], key: str) -> web.Response:
        changes = wire.metadata(await json_body(request))
        # One at a time for a clip, so that no change is lost between reading and writing.
        async with self.turns.take(groups["clip"], -1):
            clip = await self._clip(groups, key)
            merged = wire.metadata({**clip.metadata, **changes})
            if merged != clip.metadata:
                await self._store.put_metadata(clip.id, merged, self._clock.now())
        self._growth.changed(clip.id)
        return json_answer(200, {"clip_id": clip.id})

    async def _clip(self, groups: Mapping[str, str], key: str) -> Clip:
        clip = await self._store.clip(groups["clip"])
        if clip is None or clip.owner != key:
            raise Refusal(404, "no such clip")
        self._refuse_gone(clip)
        return clip

    async def _upload(self, groups: Mapping[str, str], key: str) -> tuple[Clip, Part]:
        clip = await self._store.clip(groups["clip"])
        if clip is None or clip.owner != key:
            raise Refusal(404, "no such upload")
        part = await self._store.part(clip.id, int(groups["part"]))
        if part is None and not self._store.may_go(clip):
            raise Refusal(404, "no such upload")
        self._refuse_gone(clip)
        assert part is not None
        return clip, part

    async def _renewed(self, clip: Clip) -> Clip:
        """Where only the wall clock says that the clip's time has passed, its links live anew: somebody is owed one still.

        The clock was set, or the box was off for long. How long the clip is kept stays.
        """
        now = self._clock.now()
        if not clip.expired(now):
            return clip
        renewed = replace(clip, expires_at=now + timedelta(seconds=clip.kept_s))
        await self._store.renew(clip.id, renewed.expires_at)
        _log.warning("linkhost.clip_renewed", clip=clip.id, expired_at=clip.expires_at.isoformat())
        return renewed

    @asynccontextmanager
    async def _changing(self, groups: Mapping[str, str], key: str) -> AsyncGenerator[tuple[Turn, Clip, Part]]:
        """The turn at a part, and what it is then. Only the clip's own key makes another request hurry for it."""
        await self._upload(groups, key)
        async with self.turns.take(groups["clip"], int(groups["part"])) as turn:
            yield turn, *await self._upload(groups, key)

    def _refuse_gone(self, clip: Clip) -> None:
        if clip.deleted_at is not None or self._store.may_go(clip):
            raise Refusal(410, "this clip has expired or was deleted")

    def _declared_length(self, request: Request) -> int | None:
        """Upload-Length, or None with Upload-Defer-Length: 1 (tus 1.0, creation-defer-length)."""
        deferred, declared = request.headers.get("Upload-Defer-Length"), request.headers.get("Upload-Length")
        if (deferred is None) == (declared is None) or deferred not in (None, "1"):
            raise Refusal(400, "either Upload-Defer-Length: 1 or Upload-Length is required")
        return None if declared is None else self._within_bounds(wire.length(declared, "Upload-Length"))

    def _within_bounds(self, length_bytes: int) -> int:
        if length_bytes > self._max_clip_bytes:
            raise Refusal(413, f"a clip holds at most {self._max_clip_bytes} bytes")
        return length_bytes

    async def _room(self, part: Part, length_bytes: int | None) -> int:
        """How many bytes the part may still grow by."""
        held = sum(other.offset_bytes for other in await self._store.parts(part.clip_id))
        room = self._max_clip_bytes - held
        return max(0, room if length_bytes is None else min(room, length_bytes - part.offset_bytes))

    @asynccontextmanager
    async def _incoming(self, part: Part) -> AsyncGenerator[Incoming]:
        try:
            async with self._files.incoming(part.clip_id, part.index, part.offset_bytes) as file:
                yield file
        except ShortFile as error:
            _log.error("linkhost.bytes_lost", clip=part.clip_id, part=part.index, error=str(error))
            await self._store.reset(part, lost(part, self._clock.now()), mismatched=False)
            raise Refusal(409, "the offset is 0: bytes were lost here", {"Upload-Offset": "0"}) from error
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            metrics.count("linkhost.disk_full")
            raise Refusal(507, "the disk is full") from error

    async def _digest(self, part: Part) -> str:
        if part.offset_bytes == 0:
            return hashlib.sha256().hexdigest()
        try:
            return await self._files.sha256(part.clip_id, part.index, part.offset_bytes)
        except FileNotFoundError:
            return ""

    async def _init(self, part: Part) -> bytes | None:
        """What stands before the part's fragments; None for what is none of ours."""
        if part.offset_bytes == 0:
            return None
        head = await self._files.head(part.clip_id, part.index, min(INIT_BYTES, part.offset_bytes))
        fragments, _ = fmp4.scan(head, strict=False)
        return head[: fragments[0].length_bytes] if fragments else None

    async def _codec(self, part: Part, length_bytes: int) -> str:
        """The video codec as soon as the part's head is there; empty for what is none of ours."""
        if part.offset_bytes > INIT_BYTES:
            return ""
        head = await self._files.head(part.clip_id, part.index, min(INIT_BYTES, length_bytes))
        try:
            return fmp4.codec_string(head)
        except ValueError:
            return ""


def repr_digest(sha256: str) -> str:
    """A hex SHA-256 as a value of Repr-Digest (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode('ascii')}:"


def _expires(clip: Clip) -> dict[str, str]:
    return {"Upload-Expires": format_datetime(clip.expires_at, usegmt=True)}
