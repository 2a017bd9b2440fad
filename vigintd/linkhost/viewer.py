"""The viewer's side: the page, its status, and the video: growing, finished, by playlist, and as evidence.

Owns the handlers under `/video`. Every request is checked anew (token, expiry) and written down as what it was:
a touch is a `probe`, media bytes that left are a `play`, or a `download`. What a page plays by itself is a `probe`
until a person acts on it. Nothing is consumed by looking.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from aiohttp import hdrs, web

from vigintd import metrics
from vigintd.clock import Clock
from vigintd.linkhost import hls, ranges, signals, tokens
from vigintd.linkhost.files import Files
from vigintd.linkhost.growth import Growth
from vigintd.linkhost.indexes import PLAIN, Film, Indexes
from vigintd.linkhost.media import Readers, Sender
from vigintd.linkhost.passes import Passes
from vigintd.linkhost.rendering import Pages
from vigintd.linkhost.showing import ClipState, Showing, file_name
from vigintd.linkhost.store import AuditKind, AuditRow, Clip, Part, Store
from vigintd.linkhost.tokens import Grant
from vigintd.linkhost.unattended import Unattended
from vigintd.linkhost.uploads import repr_digest
from vigintd.linkhost.web import Request, Route, Stranger, json_answer
from vigintd.linkhost.wire import CLIP_ID, PART, Refusal, Scalar

GROWTH_S = 120.0
"""A followed part that does not grow for so long is let go; the page asks again."""
STATUS_QUIET_S = 600.0
"""A page that polls its status, or a player its playlist, is one touch in so long."""
MAX_INIT_BYTES = 1 << 20
"""Of an initialisation segment; ours are of one or two kilobytes."""
_MAX_REMEMBERED = 10_000

_NUMBER = r"(?:0|[1-9][0-9]{0,5})"

_NOBODY = Grant("")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Seen:
    """A request that may see the clip, and who sent it."""

    clip: Clip
    grant: Grant
    request: Request

    @property
    def visitor(self) -> tuple[str, ...]:
        """Who it is, as far as the record tells people apart."""
        visitor = self.request.visitor
        return self.clip.id, self.grant.recipient, visitor.address, visitor.client


class Viewer:
    """Handlers of the viewer."""

    def __init__(
        self, *, store: Store, files: Files, growth: Growth, passes: Passes, clock: Clock, link_key: bytes, pages: Pages
    ) -> None:
        self._store = store
        self._files = files
        self._indexes = Indexes(files)
        self._readers = Readers(files, clock)
        self._unattended = Unattended()
        self._growth = growth
        self._passes = passes
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
            Route(re.compile(clip + "/watched"), {"POST": self._watched}),
            Route(re.compile(clip + rf"/part/(?P<part>{PART})\.mp4"), {"GET": self._part}),
            Route(re.compile(clip + rf"/live/(?P<part>{PART})\.mp4"), {"GET": self._live}),
            Route(re.compile(clip + rf"/play/(?P<part>{PART})\.mp4"), {"GET": self._play}),
            Route(re.compile(clip + rf"/download/(?P<part>{PART})"), {"GET": self._download}),
            Route(re.compile(clip + r"/playlist\.m3u8"), {"GET": self._playlist}),
            Route(re.compile(clip + rf"/hls/(?P<part>{PART})/(?P<number>{_NUMBER})\.m4s"), {"GET": self._segment}),
            Route(re.compile(r"/assets/(?P<name>[a-z0-9.-]{1,64})"), {"GET": self._asset}),
            Route(re.compile(r"/robots\.txt"), {"GET": self._robots}),
        ]

    async def _page(self, request: Request, groups: Mapping[str, str]) -> web.Response:
        seen = await self._admit(request, groups)
        # The page renews its details by this header when the clip has changed; that is no new visit.
        await self._probe(seen, "refresh" if "Vigint-Refresh" in request.headers else "page")
        showing = await self._showing(seen.clip)
        html = self._pages.clip(showing, request.rel_url.query["token"], accepts(request), sum(await self._seconds(showing)))
        return web.Response(text=html, content_type="text/html")

    async def _status(self, request: Request, groups: Mapping[str, str]) -> web.Response:
        seen = await self._admit(request, groups)
        await self._probe(seen, "status")
        showing = await self._showing(seen.clip)
        return json_answer(200, showing.status(await self._seconds(showing)))

    async def _part(self, request: Request, groups: Mapping[str, str]) -> web.StreamResponse:
        """What is there of a part, as it is."""
        seen = await self._admit(request, groups)
        part = await self._stored(seen, groups)
        return await self._ranged(seen, part, _media_headers(seen.clip, part, "inline"), PLAIN)

    async def _download(self, request: Request, groups: Mapping[str, str]) -> web.StreamResponse:
        """A sealed part, byte for byte, as a file: the evidence."""
        seen = await self._admit(request, groups)
        part = await self._sealed(seen, groups)
        return await self._ranged(seen, part, _media_headers(seen.clip, part, "attachment"), PLAIN)

    async def _play(self, request: Request, groups: Mapping[str, str]) -> web.StreamResponse:
        """A sealed part in faststart order, for players that want it so; the same pictures and sound."""
        seen = await self._admit(request, groups)
        part = await self._sealed(seen, groups)
        film = await _read(self._indexes.film(part))
        headers = _media_headers(seen.clip, part, "inline")
        if film.head:
            # Another representation than the evidence, with other bytes.
            del headers["Repr-Digest"]
            headers[hdrs.ETAG] = film.tag(part)
        return await self._ranged(seen, part, headers, film)

    async def _ranged(self, seen: _Seen, part: Part, headers: dict[str, str], film: Film) -> web.StreamResponse:
        request, size = seen.request, film.size(part.offset_bytes)
        # Of GET alone (RFC 9110, section 14.2).
        asked = request.headers.get(hdrs.RANGE) if request.method == hdrs.METH_GET else None
        # An If-Range that does not name these bytes asks for the whole (RFC 9110, section 13.1.5).
        if request.headers.get(hdrs.IF_RANGE, headers.get(hdrs.ETAG)) != headers.get(hdrs.ETAG):
            asked = None
        try:
            wanted = ranges.parse(asked, size)
        except ranges.Unsatisfiable:
            await self._probe(seen, "media")
            content_range = {hdrs.CONTENT_RANGE: f"bytes */{size}"}
            return web.Response(status=416, headers={hdrs.ACCEPT_RANGES: "bytes", **content_range})
        if wanted is None:
            response = web.StreamResponse(headers=headers)
            wanted = ranges.ByteRange(0, size - 1)
        else:
            headers[hdrs.CONTENT_RANGE] = f"bytes {wanted.first}-{wanted.last}/{size}"
            response = web.StreamResponse(status=206, headers=headers)
        response.content_length = wanted.length
        async with self._sending(seen, response, part, wanted.first, film=film) as sender:
            if sender is not None:
                await sender.send(wanted.first, wanted.length)
        return response

    async def _playlist(self, request: Request, groups: Mapping[str, str]) -> web.Response:
        seen = await self._admit(request, groups)
        await self._probe(seen, "playlist")
        showing = await self._showing(seen.clip)
        parts = [(part.index, await self._segments(part)) for part in showing.playable]
        parts = [(index, segments) for index, segments in parts if len(segments) > 1]
        if not parts:
            raise Refusal(404, "nothing to play yet")
        text = hls.playlist(parts, f"token={request.rel_url.query['token']}", ended=showing.state is ClipState.FINISHED)
        return web.Response(body=text.encode(), headers={hdrs.CONTENT_TYPE: hls.CONTENT_TYPE})

    async def _segment(self, request: Request, groups: Mapping[str, str]) -> web.StreamResponse:
        """A segment of the playlist; number 0 is the initialisation segment, in which there are no pictures."""
        seen = await self._admit(request, groups)
        part = await self._stored(seen, groups)
        segments = {segment.number: segment for segment in await self._segments(part)}
        segment = segments.get(int(groups["number"]))
        if segment is None or (segment.number == 0 and segment.length_bytes > MAX_INIT_BYTES):
            raise Refusal(404, "no such segment yet")
        if segment.number == 0:
            await self._probe(seen, "hls")
            init = await _read(self._files.head(part.clip_id, part.index, segment.length_bytes))
            return web.Response(body=init, content_type="video/mp4")
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "video/mp4"})
        response.content_length = segment.length_bytes
        async with self._sending(seen, response, part, segment.offset_bytes) as sender:
            if sender is not None:
                await sender.send(segment.offset_bytes, segment.length_bytes)
        return response

    async def _segments(self, part: Part) -> list[hls.Segment]:
        return hls.segments(await _read(self._indexes.fragments(part)), sealed=part.sealed)

    async def _live(self, request: Request, groups: Mapping[str, str]) -> web.StreamResponse:
        """The part from byte 0 on, and on as it grows, until it is sealed."""
        seen = await self._admit(request, groups)
        part = await self._stored(seen, groups)
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "video/mp4"})
        # Only here, where a page shows what goes on, is that taken for granted.
        by_itself = "auto" in request.rel_url.query
        async with self._sending(seen, response, part, 0, by_itself=by_itself) as sender:
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

    async def _watched(self, request: Request, groups: Mapping[str, str]) -> web.Response:
        """A person acted on a page that had begun to play by itself: what it was sent is a play."""
        seen = await self._admit(request, groups)
        for stream in self._unattended.attend(seen.visitor):
            part = await self._store.part(seen.clip.id, stream.part)
            if part is not None:
                await self._sent(seen, part, *stream.untold())
        return web.Response(status=204)

    @asynccontextmanager
    async def _sending(
        self, seen: _Seen, response: web.StreamResponse, part: Part, first: int, *, film: Film = PLAIN, by_itself: bool = False
    ) -> AsyncGenerator[Sender | None]:
        """The answer begun, and a sender for its body, of which a record is kept; none for HEAD."""
        if seen.request.method == hdrs.METH_HEAD:
            await self._probe(seen, "media")
            await response.prepare(seen.request)
            yield None
            return
        with self._passes.lend(seen.clip, seen.grant.recipient) as allowed:
            # It may have been revoked since it was let in; from here on the pass says so.
            if seen.grant not in await self._store.grants(seen.clip.id):
                raise Refusal(404, "there is nothing here")
            async with self._readers.sending(seen.request, response, allowed, part, film) as sender:
                try:
                    with self._unattended.stream(seen.visitor, part.index, sender, by_itself=by_itself) as stream:
                        yield sender
                finally:
                    told, sent = stream.untold() if stream.attended else (0, sender.sent)
                    begin, pictures = film.of_part(first + told, sent)
                    await self._sent(seen, part, begin, pictures, attended=stream.attended)
                    if sent and not pictures:
                        await self._probe(seen, "media")

    async def _sent(self, seen: _Seen, part: Part, first: int, sent_bytes: int, *, attended: bool = True) -> None:
        """Write down that these bytes of a part left."""
        kind, detail = signals.fetched(seen.request, part, first, sent_bytes)
        if not attended:
            kind, detail = AuditKind.PROBE, {"what": "autoplay", **detail}
        if sent_bytes:
            await self._write_down(seen, kind, detail)

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
            raise Stranger(404, "there is nothing here")
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

    async def _sealed(self, seen: _Seen, groups: Mapping[str, str]) -> Part:
        part = await self._stored(seen, groups)
        if not part.sealed:
            raise Refusal(404, "the part still grows")
        return part

    async def _showing(self, clip: Clip) -> Showing:
        return Showing(clip, tuple(await self._store.parts(clip.id)), self._clock.now())

    async def _seconds(self, showing: Showing) -> list[float]:
        """How long each part is that there is something of, once they will not grow for now."""
        if showing.state is ClipState.RECORDING:
            return []
        return [await _read(self._indexes.duration_s(part)) for part in showing.playable]

    async def _probe(self, seen: _Seen, what: str) -> None:
        if seen.request.method == hdrs.METH_HEAD:
            what = f"HEAD {what}"
        elif what in ("status", "refresh", "playlist", "hls"):
            key = (*seen.visitor, what)
            last = self._touched.get(key)
            now = self._clock.monotonic_s()
            if last is not None and now - last < STATUS_QUIET_S:
                return
            self._touched[key] = now
            self._touched.move_to_end(key)
            if len(self._touched) > _MAX_REMEMBERED:
                self._touched.popitem(last=False)  # at worst one touch is written twice
        await self._write_down(seen, AuditKind.PROBE, {"what": what, **signals.of_touch(seen.request.headers)})

    async def _write_down(self, seen: _Seen, kind: AuditKind, detail: Mapping[str, Scalar]) -> None:
        visitor = seen.request.visitor
        now = self._clock.now()
        await self._store.write_down(
            AuditRow(now, kind, seen.clip.id, seen.grant.recipient, visitor.address, visitor.client, detail)
        )


async def _read(reading: Awaitable[_T]) -> _T:
    """What is read of a part's file, which may be gone meanwhile."""
    try:
        return await reading
    except FileNotFoundError as error:
        raise Refusal(404, "the part is gone") from error


class Gone(Refusal):
    """The token was right once; its clip is over."""

    def __init__(self, clip: Clip) -> None:
        super().__init__(410, "this video is gone")
        self.clip = clip


def accepts(request: Request) -> str:
    """What languages the browser asks for."""
    return request.headers.get(hdrs.ACCEPT_LANGUAGE, "")


def _media_headers(clip: Clip, part: Part, disposition: str) -> dict[str, str]:
    headers: dict[str, str] = {
        hdrs.ACCEPT_RANGES: "bytes",
        hdrs.CONTENT_TYPE: "video/mp4",
        hdrs.CONTENT_DISPOSITION: f'{disposition}; filename="{file_name(clip, part.index)}"',
    }
    if part.sha256:
        headers[hdrs.ETAG] = f'"{part.sha256}"'
        headers["Repr-Digest"] = repr_digest(part.sha256)
    return headers
