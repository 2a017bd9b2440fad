"""The viewer's side: the page, its status, the parts with Range, and a growing part as one stream.

Owns the handlers under `/video`. Every request is checked anew (token, expiry) and written down as what it was:
a touch is a `probe`, media bytes that left are a `play`. Nothing is consumed by looking.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import hdrs, web

from vigintd import metrics
from vigintd.clock import Clock
from vigintd.linkhost import ranges, tokens
from vigintd.linkhost.files import Files
from vigintd.linkhost.growth import Growth
from vigintd.linkhost.media import Readers, Sender
from vigintd.linkhost.rendering import Pages
from vigintd.linkhost.showing import Showing, file_name
from vigintd.linkhost.store import AuditKind, AuditRow, Clip, Part, Store
from vigintd.linkhost.tokens import Grant
from vigintd.linkhost.uploads import repr_digest
from vigintd.linkhost.web import Request, Route, json_answer
from vigintd.linkhost.wire import CLIP_ID, PART, Refusal, Scalar

GROWTH_S = 120.0
"""A followed part that does not grow for so long is let go; the page asks again."""
STATUS_QUIET_S = 600.0
"""A page that polls its status is one touch in so long."""
_MAX_REMEMBERED = 10_000

_NOBODY = Grant("")


@dataclass(frozen=True, slots=True)
class _Seen:
    """A request that may see the clip, and who sent it."""

    clip: Clip
    grant: Grant
    request: Request


class Viewer:
    """Handlers of the viewer."""

    def __init__(self, *, store: Store, files: Files, growth: Growth, clock: Clock, link_key: bytes, pages: Pages) -> None:
        self._store = store
        self._readers = Readers(files, clock)
        self._growth = growth
        self._clock = clock
        self._link_key = link_key
        self._key_id = tokens.key_id(link_key)
        self._pages = pages
        self._touched: OrderedDict[tuple[str, ...], float] = OrderedDict()

    def routes(self) -> list[Route]:
        """Every place of the viewer."""
        clip = rf"/video/(?P<clip>{CLIP_ID})"
        return [
            Route(re.compile(clip), {"GET": self._page}),
            Route(re.compile(clip + "/status"), {"GET": self._status}),
            Route(re.compile(clip + rf"/part/(?P<part>{PART})\.mp4"), {"GET": self._part}),
            Route(re.compile(clip + rf"/live/(?P<part>{PART})\.mp4"), {"GET": self._live}),
            Route(re.compile(r"/assets/(?P<name>[a-z0-9.-]{1,64})"), {"GET": self._asset}),
            Route(re.compile(r"/robots\.txt"), {"GET": self._robots}),
        ]

    async def _page(self, request: Request, groups: Mapping[str, str]) -> web.Response:
        seen = await self._admit(request, groups)
        # The page renews its details by this header when the clip has changed; that is no new visit.
        await self._probe(seen, "refresh" if "Vigint-Refresh" in request.headers else "page")
        html = self._pages.clip(await self._showing(seen.clip), request.rel_url.query["token"], accepts(request))
        return web.Response(text=html, content_type="text/html")

    async def _status(self, request: Request, groups: Mapping[str, str]) -> web.Response:
        seen = await self._admit(request, groups)
        await self._probe(seen, "status")
        return json_answer(200, (await self._showing(seen.clip)).status())

    async def _part(self, request: Request, groups: Mapping[str, str]) -> web.StreamResponse:
        seen = await self._admit(request, groups)
        part = await self._stored(seen, groups)
        headers = _media_headers(seen.clip, part)
        asked = request.headers.get(hdrs.RANGE)
        # An If-Range that does not name these bytes asks for the whole (RFC 9110, section 13.1.5).
        if request.headers.get(hdrs.IF_RANGE, headers.get(hdrs.ETAG)) != headers.get(hdrs.ETAG):
            asked = None
        try:
            wanted = ranges.parse(asked, part.offset_bytes)
        except ranges.Unsatisfiable:
            await self._probe(seen, "media")
            content_range = {hdrs.CONTENT_RANGE: f"bytes */{part.offset_bytes}"}
            return web.Response(status=416, headers={hdrs.ACCEPT_RANGES: "bytes", **content_range})
        if wanted is None:
            response = web.StreamResponse(headers=headers)
            wanted = ranges.ByteRange(0, part.offset_bytes - 1)
        else:
            headers[hdrs.CONTENT_RANGE] = f"bytes {wanted.first}-{wanted.last}/{part.offset_bytes}"
            response = web.StreamResponse(status=206, headers=headers)
        response.content_length = wanted.length
        async with self._sending(seen, response, part, wanted.first) as sender:
            if sender is not None:
                await sender.send(wanted.first, wanted.length)
        return response

    async def _live(self, request: Request, groups: Mapping[str, str]) -> web.StreamResponse:
        """The part from byte 0 on, and on as it grows, until it is sealed."""
        seen = await self._admit(request, groups)
        part = await self._stored(seen, groups)
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "video/mp4"})
        async with self._sending(seen, response, part, 0) as sender:
            if sender is not None:
                await self._follow(sender, part)
        return response

    async def _follow(self, sender: Sender, part: Part) -> None:
        while True:
            ticket = self._growth.ticket(part.clip_id)
            now = await self._store.part(part.clip_id, part.index)
            if now is None or now.epoch != part.epoch or self._growth.closed or sender.over:
                # What was sent is void, or nothing more can be had here.
                sender.break_off()
            assert now is not None
            await sender.send(sender.sent, now.offset_bytes - sender.sent)
            if now.sealed:
                return
            if not await sender.wait(ticket, GROWTH_S):
                sender.break_off()

    @asynccontextmanager
    async def _sending(
        self, seen: _Seen, response: web.StreamResponse, part: Part, first: int
    ) -> AsyncGenerator[Sender | None]:
        """The answer begun, and a sender for its body, of which a record is kept; none for HEAD."""
        if seen.request.method == hdrs.METH_HEAD:
            await self._probe(seen, "media")
            await response.prepare(seen.request)
            yield None
            return
        async with self._readers.sending(seen.request, response, seen.clip, part) as sender:
            try:
                yield sender
            finally:
                if sender.sent:
                    detail = {"part": part.index, "first": first, "bytes": sender.sent}
                    await self._write_down(seen, AuditKind.PLAY, detail)

    async def _asset(self, _request: Request, groups: Mapping[str, str]) -> web.Response:
        asset = self._pages.assets.get(groups["name"])
        if asset is None:
            raise Refusal(404, "no such asset")
        # The name holds a hash of the bytes, so they may be kept for ever; nothing in them is private.
        headers = {hdrs.CACHE_CONTROL: "public, max-age=31536000, immutable", hdrs.CONTENT_TYPE: asset.content_type}
        return web.Response(body=asset.data, headers=headers)

    async def _robots(self, _request: Request, _groups: Mapping[str, str]) -> web.Response:
        return web.Response(text="User-agent: *\nDisallow: /\n")

    async def _admit(self, request: Request, groups: Mapping[str, str]) -> _Seen:
        """Whoever holds the right token now; anything else is the one 404, or 410 after the clip's time."""
        presented = request.rel_url.query.getall("token", [])
        clip = await self._store.clip(groups["clip"])
        # Ask and compare in any case, so that an unknown clip takes about the time of a known one.
        grants = await self._store.grants(groups["clip"])
        if clip is None or clip.key_id != self._key_id:
            grants = []
        grant = tokens.holder(self._link_key, groups["clip"], grants or [_NOBODY], presented[0] if len(presented) == 1 else "")
        if clip is None or grant is None or grant is _NOBODY:
            metrics.count("linkhost.wrong_token")
            raise Refusal(404, "there is nothing here")
        seen = _Seen(clip, grant, request)
        if clip.gone(self._clock.now()):
            await self._probe(seen, "gone")
            raise Gone(clip)
        return seen

    async def _stored(self, seen: _Seen, groups: Mapping[str, str]) -> Part:
        part = await self._store.part(seen.clip.id, int(groups["part"]))
        if part is None or part.offset_bytes == 0:
            raise Refusal(404, "no such part yet")
        return part

    async def _showing(self, clip: Clip) -> Showing:
        return Showing(clip, tuple(await self._store.parts(clip.id)), self._clock.now())

    async def _probe(self, seen: _Seen, what: str) -> None:
        visitor = seen.request.visitor
        if seen.request.method == hdrs.METH_HEAD:
            what = f"HEAD {what}"
        elif what in ("status", "refresh"):
            key = (seen.clip.id, seen.grant.recipient, visitor.address, visitor.client, what)
            last = self._touched.get(key)
            now = self._clock.monotonic_s()
            if last is not None and now - last < STATUS_QUIET_S:
                return
            self._touched[key] = now
            self._touched.move_to_end(key)
            if len(self._touched) > _MAX_REMEMBERED:
                self._touched.popitem(last=False)  # at worst one touch is written twice
        await self._write_down(seen, AuditKind.PROBE, {"what": what})

    async def _write_down(self, seen: _Seen, kind: AuditKind, detail: Mapping[str, Scalar]) -> None:
        visitor = seen.request.visitor
        now = self._clock.now()
        await self._store.write_down(
            AuditRow(now, kind, seen.clip.id, seen.grant.recipient, visitor.address, visitor.client, detail)
        )


class Gone(Refusal):
    """The token was right once; its clip is over."""

    def __init__(self, clip: Clip) -> None:
        super().__init__(410, "this video is gone")
        self.clip = clip


def accepts(request: Request) -> str:
    """What languages the browser asks for."""
    return request.headers.get(hdrs.ACCEPT_LANGUAGE, "")


def _media_headers(clip: Clip, part: Part) -> dict[str, str]:
    headers: dict[str, str] = {
        hdrs.ACCEPT_RANGES: "bytes",
        hdrs.CONTENT_TYPE: "video/mp4",
        hdrs.CONTENT_DISPOSITION: f'inline; filename="{file_name(clip, part.index)}"',
    }
    if part.sha256:
        headers[hdrs.ETAG] = f'"{part.sha256}"'
        headers["Repr-Digest"] = repr_digest(part.sha256)
    return headers
