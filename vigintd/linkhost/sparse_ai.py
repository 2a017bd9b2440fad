"""The Sparse AI v1 wire: a whole video in one form, for programs that were made to speak to sparse-ai.com.

Owns the handlers under `/api/v1/videos`; `form` takes the form apart. The video goes to disk as it comes, in whatever order
the form's fields are; the clip has its row only when every byte is there and fits its hash. Everything may be asked twice.
"""

from __future__ import annotations

import errno
import hashlib
import math
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import structlog
from aiohttp import web

from vigintd import fmp4, metrics
from vigintd.clock import Clock
from vigintd.linkhost import form, tokens, wire
from vigintd.linkhost.files import Files, Incoming
from vigintd.linkhost.form import CLOSE, Form
from vigintd.linkhost.growth import Growth, Turn, Turns
from vigintd.linkhost.keyring import Keyring
from vigintd.linkhost.links import Links
from vigintd.linkhost.passes import Passes
from vigintd.linkhost.store import AuditKind, AuditRow, Clip, Store
from vigintd.linkhost.uploads import INIT_BYTES
from vigintd.linkhost.web import Request, Route, json_answer, json_body
from vigintd.linkhost.wire import CLIP_ID, Refusal, Scalar

RECIPIENT = "sparse-ai"
"""The wire knows one link a video and nobody's name; this is whose it is in the record."""

DEFAULT_EXPIRY_H = 48.0

_PAGE_KEYS = {
    "incident_type": "type",
    "risk_level": "risk",
    "confidence": "confidence",
    "analysis": "text",
    "upload_timestamp": "at",
    "frame_count": "frame_count",
    "source": "source",
}
"""The form's metadata, and what the page calls it; the rest is not kept."""

_log = structlog.get_logger(__name__)

_KeyedHandler = Callable[[Request, Mapping[str, str], str], Awaitable[web.StreamResponse]]


class _Compared:
    """Takes the bytes of a video that is here already: only its hash is wanted."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    async def write(self, data: bytes) -> None:
        self._sha256.update(data)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()


@dataclass(frozen=True, slots=True)
class _Video:
    """A video that came whole, and what its form says of it."""

    size_bytes: int
    sha256: str
    metadata: Mapping[str, Scalar]
    expiry: timedelta


class SparseAi:
    """Handlers of the v1 wire; `who` tells whose API key a request bears, `turns` are the ones of all uploads."""

    def __init__(
        self,
        *,
        store: Store,
        files: Files,
        growth: Growth,
        passes: Passes,
        keyring: Keyring,
        links: Links,
        turns: Turns,
        who: Callable[[Request], str],
        clock: Clock,
        link_key: bytes,
        max_clip_bytes: int,
    ) -> None:
        self._store = store
        self._files = files
        self._growth = growth
        self._passes = passes
        self._keyring = keyring
        self._links = links
        self._turns = turns
        self._who = who
        self._clock = clock
        self._link_key = link_key
        self._max_clip_bytes = max_clip_bytes

    def routes(self) -> list[Route]:
        """Every place of the wire."""
        videos = "/api/v1/videos"
        places: dict[str, tuple[str, _KeyedHandler]] = {
            f"{videos}/upload": ("POST", self._upload),
            rf"{videos}/upload/(?P<clip>{CLIP_ID})": ("DELETE", self._delete),
            f"{videos}/link/verify": ("GET", self._verify),
            f"{videos}/link/extend": ("POST", self._extend),
        }
        return [Route(re.compile(path), {method: self._keyed(handler)}) for path, (method, handler) in places.items()]

    def _keyed(self, handler: _KeyedHandler) -> Callable[[Request, Mapping[str, str]], Awaitable[web.StreamResponse]]:
        async def checked(request: Request, groups: Mapping[str, str]) -> web.StreamResponse:
            return await handler(request, groups, self._who(request))

        return checked

    # The upload

    async def _upload(self, request: Request, _groups: Mapping[str, str], key: str) -> web.Response:
        clip_id = request.headers.get("X-Video-ID", "").strip().lower()
        if not re.fullmatch(CLIP_ID, clip_id):
            raise Refusal(400, "X-Video-ID is a UUID", CLOSE)
        async with self._turns.take(clip_id, 0) as turn:
            known = await self._store.clip(clip_id)
            if known is not None and known.owner != key:
                raise Refusal(409, "this video belongs to another API key", CLOSE)
            if known is not None and known.gone(self._clock.now()):
                raise Refusal(410, "this video has expired or was deleted", CLOSE)
            part = None if known is None else await self._store.part(clip_id, 0)
            if part is not None and part.sealed:
                again = _Compared()
                await form.read(request, turn, again, self._max_clip_bytes)
                if again.sha256 != part.sha256:
                    raise Refusal(409, "another video is here under this id")
            else:
                await self._take_in(request, turn, clip_id, key)
        clip = await self._store.clip(clip_id)
        assert clip is not None
        return json_answer(200, await self._told(clip))

    async def _take_in(self, request: Request, turn: Turn, clip_id: str, key: str) -> None:
        """Put the video on disk, then give it its rows."""
        left = await self._keyring.room_bytes(key)
        room = self._max_clip_bytes if left is None else min(left, self._max_clip_bytes)
        async with self._writing(clip_id) as file:
            came = await form.read(request, turn, file, room)
            video = _video(came, clip_id, (await file.digest()).hex())
            await file.sync()
        await self._keep(request, clip_id, key, video)

    async def _keep(self, request: Request, clip_id: str, key: str, video: _Video) -> None:
        now, by = self._clock.now(), request.visitor
        kept_s, lived = video.expiry.total_seconds(), self._store.lived.now()
        key_id = tokens.key_id(self._link_key)
        clip = Clip(clip_id, key, key_id, video.metadata, now, now, now + video.expiry, kept_s, lived)
        if not await self._store.create(clip, (RECIPIENT,), by):
            await self._store.put_metadata(clip_id, video.metadata, now)  # an earlier try was cut short
        size_bytes = video.size_bytes
        await self._store.add_part(clip_id, 0, size_bytes, now)
        part = await self._store.part(clip_id, 0)
        assert part is not None
        await self._store.commit(part, size_bytes, await self._codec(clip_id, size_bytes), size_bytes, now)
        detail: dict[str, Scalar] = {"what": "sealed", "part": 0, "bytes": size_bytes, "sha256": video.sha256}
        row = AuditRow(now, AuditKind.UPLOAD, clip_id, "", by.address, by.client, detail)
        await self._store.seal(part, video.sha256, row)
        self._growth.changed(clip_id)
        _log.info("linkhost.video_taken", clip=clip_id, size_bytes=size_bytes)

    @asynccontextmanager
    async def _writing(self, clip_id: str) -> AsyncGenerator[Incoming]:
        try:
            async with self._files.incoming(clip_id, 0, 0) as file:
                yield file
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            metrics.count("linkhost.disk_full")
            raise Refusal(507, "the disk is full", CLOSE) from error

    async def _codec(self, clip_id: str, size_bytes: int) -> str:
        """The video codec where the file's head tells it; empty for an index at the end, or what is none of ours."""
        try:
            return fmp4.codec_string(await self._files.head(clip_id, 0, min(INIT_BYTES, size_bytes)))
        except ValueError:
            return ""

    async def _told(self, clip: Clip) -> dict[str, object]:
        grants = [grant for grant in await self._store.grants(clip.id) if grant.recipient == RECIPIENT]
        if not grants:
            raise Refusal(403, "the link of this video was revoked")
        return {
            "success": True,
            "video_id": clip.id,
            "private_link": self._links.url(clip.id, grants[0]),
            "expiration_time": clip.expires_at.isoformat(),
            "message": "video uploaded",
        }

    # The link

    async def _verify(self, request: Request, _groups: Mapping[str, str], key: str) -> web.Response:
        """Whether a token opens a video now; about one that it never opened, nothing is told."""
        query = request.rel_url.query
        clip_id, token = query.get("video_id", "").lower(), query.get("token", "")
        clip = await self._store.clip(clip_id) if re.fullmatch(CLIP_ID, clip_id) else None
        grants = await self._store.grants(clip_id) if clip is not None and clip.owner == key else []
        if clip is None or tokens.holder(self._link_key, clip_id, grants, token) is None:
            return json_answer(200, {"valid": False, "expiration_time": None, "remaining_hours": 0})
        now = self._clock.now()
        left_h = 0.0 if clip.gone(now) else (clip.expires_at - now).total_seconds() / 3600
        told = {"valid": left_h > 0, "expiration_time": clip.expires_at.isoformat(), "remaining_hours": round(left_h, 2)}
        return json_answer(200, told)

    async def _extend(self, request: Request, _groups: Mapping[str, str], key: str) -> web.Response:
        value = await json_body(request)
        clip = await self._own(str(value.get("video_id", "")).lower(), key)
        expires_at = await self._links.extend(clip, _hours(value.get("additional_hours"), "additional_hours"), request.visitor)
        total_h = (expires_at - clip.created_at).total_seconds() / 3600
        told = {"success": True, "new_expiration": expires_at.isoformat(), "total_hours": round(total_h, 2)}
        return json_answer(200, told)

    async def _delete(self, request: Request, groups: Mapping[str, str], key: str) -> web.Response:
        async with self._turns.take(groups["clip"], 0):
            clip = await self._own(groups["clip"], key)
            if clip.held:
                raise Refusal(409, "the video is held back from deletion by whoever runs this host")
            self._passes.void(clip.id)
            for part in await self._store.parts(clip.id):
                await self._files.remove(clip.id, part.index)
            now, by = self._clock.now(), request.visitor
            row = AuditRow(now, AuditKind.DELETED, clip.id, "", by.address, by.client, {"by": key})
            await self._store.bury(clip.id, [row], now)
        self._growth.changed(clip.id)
        _log.info("linkhost.video_deleted", clip=clip.id)
        return json_answer(200, {"success": True, "video_id": clip.id})

    async def _own(self, clip_id: str, key: str) -> Clip:
        clip = await self._store.clip(clip_id) if re.fullmatch(CLIP_ID, clip_id) else None
        if clip is None or clip.owner != key or clip.deleted_at is not None:
            raise Refusal(404, "no such video")
        return clip


def _video(came: Form, clip_id: str, sha256: str) -> _Video:
    """What came, checked. Raises `Refusal` where the form contradicts itself."""
    if not came.video_bytes:
        raise Refusal(400, "the form holds no video")
    if came.texts.get("access_type", "private") != "private":
        raise Refusal(400, "access_type is private; nothing here is public")
    told = wire.json_object(came.texts.get("metadata", "{}").encode())
    if str(told.get("video_id", clip_id)).lower() != clip_id:
        raise Refusal(400, "metadata.video_id is not the X-Video-ID")
    if told.get("file_hash") not in (None, "") and str(told["file_hash"]).lower() != sha256:
        raise Refusal(400, "the video does not fit metadata.file_hash; send it again")
    known = {ours: told[theirs] for theirs, ours in _PAGE_KEYS.items() if isinstance(told.get(theirs), str | int | float)}
    hours = _hours(came.texts.get("expiration_hours", DEFAULT_EXPIRY_H), "expiration_hours")
    return _Video(came.video_bytes, sha256, wire.metadata({**known, "ended": True}), timedelta(hours=hours))


def _hours(value: object, name: str) -> float:
    try:
        hours = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        hours = math.nan
    if not 0 < hours <= wire.MAX_EXPIRY_H:  # also false for NaN
        raise Refusal(400, f"{name} is more than 0 and at most {wire.MAX_EXPIRY_H} hours")
    return hours
