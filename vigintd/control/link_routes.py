"""The part of the control socket that is about links, their record and API keys.

    GET  /links?limit=N&gone=1                          → 200 {"clips": [...]}
    GET  /links/{clip}                                  → 200 the clip, its recipients and who came
    POST /links/{clip}/link     {"recipient"}           → 200 {"link"}
    POST /links/{clip}/grant    {"recipient"}           → 200 {"clip", "link"}
    POST /links/{clip}/extend   {"hours"}               → 200 {"clip", "expires_at"}
    POST /links/{clip}/revoke   {"recipient": R | null} → 200 {"clip", "revoked": [...]}
    POST /links/{clip}/hold     {"reason"}              → 200 {"clip"}
    POST /links/{clip}/release  {}                      → 200 {"clip", "expires_at"}
    GET  /audit?after=N&clip=C                          → 200 {"rows": [...]}: the next lines; empty after the last one
    GET  /audit/heads                                   → 200 {"head", "noted"}
    GET  /keys                                          → 200 {"keys": [...]}
    POST /keys                  {"name", "quota_mb"?}   → 200 {"name", "api_key"}
    POST /keys/{name}/remove    {"key": K | null}       → 200 {"name", "key"}

A clip is named by its id or the beginning of it.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

from aiohttp import web

from vigintd.control import MAX_LIMIT
from vigintd.control.requests import Refused, flag, number, read_object

_LAST_LINE = 10**15 - 1


class LinkHandlers(Protocol):
    """What the daemon answers; every value is plain JSON. Each raises `ControlError` for what cannot be done, and why."""

    async def links(self, limit: int, *, gone: bool) -> list[dict[str, Any]]:
        """The newest clips, newest first; those that are deleted only with `gone`."""
        ...

    async def links_of(self, clip: str) -> dict[str, Any]:
        """One clip, its recipients and who came."""
        ...

    async def link(self, clip: str, recipient: str) -> dict[str, Any]:
        """The link of one recipient."""
        ...

    async def grant(self, clip: str, recipient: str) -> dict[str, Any]:
        """A link for a recipient who has none, or whose link was revoked."""
        ...

    async def extend(self, clip: str, hours: float) -> dict[str, Any]:
        """Let the clip's links live longer."""
        ...

    async def revoke(self, clip: str, recipient: str | None) -> dict[str, Any]:
        """Make the link of one recipient, or (None) of all, worthless."""
        ...

    async def hold(self, clip: str, reason: str) -> dict[str, Any]:
        """Keep the clip beyond its time."""
        ...

    async def release(self, clip: str) -> dict[str, Any]:
        """Hold it no longer."""
        ...

    async def audit(self, after: int, clip: str | None) -> list[dict[str, Any]]:
        """The next lines of the record, of one clip or (None) of all."""
        ...

    async def heads(self) -> dict[str, Any]:
        """How far the record goes, and how far it went when that was noted last."""
        ...

    async def keys(self) -> list[dict[str, Any]]:
        """The API keys, without the keys."""
        ...

    async def add_key(self, name: str, quota_mb: float | None) -> dict[str, Any]:
        """A new API key."""
        ...

    async def remove_key(self, name: str, key: str | None) -> dict[str, Any]:
        """Take an API key no more."""
        ...


def link_routes(handlers: LinkHandlers) -> list[web.RouteDef]:
    """The routes that these handlers answer."""
    routes = _Routes(handlers)
    clip = "/links/{clip}"
    return [
        web.get("/links", routes.links, allow_head=False),
        web.get(clip, routes.links_of, allow_head=False),
        web.post(clip + "/link", routes.link),
        web.post(clip + "/grant", routes.grant),
        web.post(clip + "/extend", routes.extend),
        web.post(clip + "/revoke", routes.revoke),
        web.post(clip + "/hold", routes.hold),
        web.post(clip + "/release", routes.release),
        web.get("/audit", routes.audit, allow_head=False),
        web.get("/audit/heads", routes.heads, allow_head=False),
        web.get("/keys", routes.keys, allow_head=False),
        web.post("/keys", routes.add_key),
        web.post("/keys/{name}/remove", routes.remove_key),
    ]


class _Routes:
    def __init__(self, handlers: LinkHandlers) -> None:
        self._handlers = handlers

    async def links(self, request: web.Request) -> web.Response:
        limit = number(request, "limit", 20, MAX_LIMIT)
        return web.json_response({"clips": await self._handlers.links(limit, gone=flag(request, "gone"))})

    async def links_of(self, request: web.Request) -> web.Response:
        return web.json_response(await self._handlers.links_of(_clip(request)))

    async def link(self, request: web.Request) -> web.Response:
        asked = await read_object(request, ("recipient",), "the body names a recipient")
        return web.json_response(await self._handlers.link(_clip(request), _text(asked, "recipient")))

    async def grant(self, request: web.Request) -> web.Response:
        asked = await read_object(request, ("recipient",), "the body names a recipient")
        return web.json_response(await self._handlers.grant(_clip(request), _text(asked, "recipient")))

    async def extend(self, request: web.Request) -> web.Response:
        asked = await read_object(request, ("hours",), "the body says by how many hours")
        return web.json_response(await self._handlers.extend(_clip(request), _amount(asked, "hours")))

    async def revoke(self, request: web.Request) -> web.Response:
        asked = await read_object(request, ("recipient",), "the body names a recipient, or null for all")
        # Left out is not null: nobody shall revoke all by a slip.
        recipient = None if asked.get("recipient", "") is None else _text(asked, "recipient")
        return web.json_response(await self._handlers.revoke(_clip(request), recipient))

    async def hold(self, request: web.Request) -> web.Response:
        asked = await read_object(request, ("reason",), "the body says why")
        return web.json_response(await self._handlers.hold(_clip(request), _text(asked, "reason")))

    async def release(self, request: web.Request) -> web.Response:
        await read_object(request, (), "the body is an empty object")
        return web.json_response(await self._handlers.release(_clip(request)))

    async def audit(self, request: web.Request) -> web.Response:
        after = number(request, "after", 0, _LAST_LINE, least=0)
        return web.json_response({"rows": await self._handlers.audit(after, request.query.get("clip"))})

    async def heads(self, _request: web.Request) -> web.Response:
        return web.json_response(await self._handlers.heads())

    async def keys(self, _request: web.Request) -> web.Response:
        return web.json_response({"keys": await self._handlers.keys()})

    async def add_key(self, request: web.Request) -> web.Response:
        asked = await read_object(request, ("name", "quota_mb"), "the body is a name and a quota_mb")
        quota_mb = None if asked.get("quota_mb") is None else _amount(asked, "quota_mb")
        return web.json_response(await self._handlers.add_key(_text(asked, "name"), quota_mb))

    async def remove_key(self, request: web.Request) -> web.Response:
        asked = await read_object(request, ("key",), "the body names a key, or null for the only one")
        key = None if asked.get("key") is None else _text(asked, "key")
        return web.json_response(await self._handlers.remove_key(request.match_info["name"], key))


def _clip(request: web.Request) -> str:
    return request.match_info["clip"]


def _text(asked: dict[str, Any], key: str) -> str:
    value = asked.get(key)
    if not isinstance(value, str) or not value:
        raise Refused(400, f"{key} is a text that is not empty")
    return value


def _amount(asked: dict[str, Any], key: str) -> float:
    value = asked.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise Refused(400, f"{key} is a number above 0")
    return float(value)
