"""What an uploader may ask about its own clips: their links, who came, and what has happened since it asked last.

Owns the handlers under `/api/v1/clips` that are about links, and `/api/v1/events`. An operator's word stands above an
uploader's: what was revoked at the host is not granted again from here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from vigintd.linkhost.links import Links
from vigintd.linkhost.store import AuditRow, Clip, Store
from vigintd.linkhost.web import Handler, Request, Route, json_answer, json_body
from vigintd.linkhost.wire import CLIP_ID, Refusal

_KeyedHandler = Callable[[Request, Clip], Awaitable[web.Response]]
_AFTER = re.compile(r"[0-9]{1,15}", re.ASCII)


class Clips:
    """Handlers of an uploader's questions; `who` tells whose API key a request bears."""

    def __init__(self, *, store: Store, links: Links, who: Callable[[Request], str]) -> None:
        self._store = store
        self._links = links
        self._who = who

    def routes(self) -> list[Route]:
        """Every place of it."""
        clip = rf"/api/v1/clips/(?P<clip>{CLIP_ID})"
        places: dict[str, dict[str, _KeyedHandler]] = {
            "/links": {"GET": self._shown, "POST": self._grant},
            "/links/extend": {"POST": self._extend},
            "/links/revoke": {"POST": self._revoke},
            "/audit": {"GET": self._audit},
        }
        routes = [
            Route(re.compile(clip + place), {method: self._own(handler) for method, handler in methods.items()})
            for place, methods in places.items()
        ]
        return [*routes, Route(re.compile(r"/api/v1/events"), {"GET": self._events})]

    def _own(self, handler: _KeyedHandler) -> Handler:
        async def checked(request: Request, groups: Mapping[str, str]) -> web.StreamResponse:
            name = self._who(request)
            clip = await self._store.clip(groups["clip"])
            if clip is None or clip.owner != name:
                raise Refusal(404, "no such clip")
            return await handler(request, clip)

        return checked

    async def _shown(self, _request: Request, clip: Clip) -> web.Response:
        return json_answer(200, await self._links.shown(clip, {}))

    async def _grant(self, request: Request, clip: Clip) -> web.Response:
        recipient = (await json_body(request)).get("recipient")
        if not isinstance(recipient, str):
            raise Refusal(400, "recipient is a text")
        link = await self._links.grant(clip, recipient, request.visitor)
        return json_answer(200, {"clip_id": clip.id, "recipient": recipient, "link": link})

    async def _extend(self, request: Request, clip: Clip) -> web.Response:
        hours = (await json_body(request)).get("hours")
        if isinstance(hours, bool) or not isinstance(hours, int | float):
            raise Refusal(400, "hours is a number")
        expires_at = await self._links.extend(clip, hours, request.visitor)
        return json_answer(200, {"clip_id": clip.id, "expires_at": expires_at.isoformat()})

    async def _revoke(self, request: Request, clip: Clip) -> web.Response:
        value = await json_body(request)
        recipient = value.get("recipient")
        # Left out is not null: nobody shall revoke all by a slip.
        if "recipient" not in value or not isinstance(recipient, str | None):
            raise Refusal(400, "recipient is a text, or null for all")
        return json_answer(200, {"clip_id": clip.id, "revoked": await self._links.revoke(clip, recipient, request.visitor)})

    async def _audit(self, request: Request, clip: Clip) -> web.Response:
        rows = await self._store.record.page(_after(request), clip_id=clip.id)
        return json_answer(200, {"rows": [row.as_json() for row in rows]})

    async def _events(self, request: Request, _groups: Mapping[str, str]) -> web.Response:
        name = self._who(request)
        rows: list[AuditRow] = list(await self._store.record.page(_after(request), owner=name))
        return json_answer(200, {"rows": [row.as_json() for row in rows]})


def _after(request: Request) -> int:
    """The place of the last line that the client has: those that follow are wanted."""
    text = request.rel_url.query.get("after", "0")
    if not _AFTER.fullmatch(text):
        raise Refusal(400, "after is the seq of the last line that was seen")
    return int(text)
