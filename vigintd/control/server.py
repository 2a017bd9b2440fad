"""The daemon's end of the control socket.

    POST /trigger          {"camera", "type"?, "risk"?, "confidence"?, "text"?}  → 200 {"incident_id", "opened"}
    GET  /incidents?limit=N&owed=1                                               → 200 {"incidents": [...]}
    GET  /incidents/{id}                                                         → 200 the incident, or 404
    POST /incidents/{id}/retry, POST /incidents/retry                            → 200 {"retried": [...]}, or 404
    GET  /status                                                                 → 200 the status
    … and those of `link_routes`

Every error is JSON: {"error": "a sentence"}. Bounds: a body over 64 KiB is answered 413, one that has not arrived
within `BODY_S` 408, a handler that takes longer than `HANDLER_S` 504. How many may ask at once is the door's (`door`).
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import structlog
from aiohttp import web

from vigintd.control import MAX_LIMIT, check_path
from vigintd.control.door import Door
from vigintd.control.link_routes import LinkHandlers, link_routes
from vigintd.control.requests import Refused, flag, number, read_object
from vigintd.errors import ControlError, TransientError, VigintdError
from vigintd.model import Risk

MAX_BODY_BYTES = 64 * 1024
MAX_TYPE_LENGTH = 200
MAX_TEXT_LENGTH = 10_000
HANDLER_S = 10.0

log = structlog.get_logger(__name__)


class Handlers(Protocol):
    """What the daemon answers; every value is plain JSON."""

    async def trigger(
        self,
        camera: str,
        *,
        type: str,  # noqa: A002  (the glossary's word)
        risk: Risk,
        confidence: float | None,
        text: str,
    ) -> dict[str, Any]:
        """Open or extend the camera's incident; answers its id and which of the two. `ControlError` for an unknown camera."""
        ...

    async def incidents(self, limit: int, /) -> list[dict[str, Any]]:
        """The newest incidents, newest first."""
        ...

    async def owing(self, limit: int, /) -> list[dict[str, Any]]:
        """The newest incidents of which something is owed or was given up, newest first."""
        ...

    async def retry(self, incident_id: str | None, /) -> list[dict[str, Any]] | None:
        """Try again now what failed, of one incident or (None) of all, and answer it; None when there is no such incident."""
        ...

    async def incident(self, incident_id: str, /) -> dict[str, Any] | None:
        """One incident, or None when there is no such one."""
        ...

    async def status(self) -> dict[str, Any]:
        """How the daemon is."""
        ...


class ControlServer:
    """Listens on a unix socket at `path` between `start` and `aclose`."""

    def __init__(self, path: Path, handlers: Handlers, links: LinkHandlers | None = None) -> None:
        self._path = path
        self._handlers = handlers
        self._links = links
        self._runner: web.AppRunner | None = None
        self._door: Door | None = None
        self._inode: int | None = None

    async def start(self) -> None:
        """Listen; a socket that a dead daemon left is replaced.

        Raises `ControlError` where a live daemon listens, or the socket cannot be made.
        """
        check_path(self._path)
        listener = _listener(self._path)
        self._inode = self._path.stat().st_ino
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_errors_as_json])
        app.add_routes(
            [
                web.post("/trigger", self._trigger),
                web.get("/incidents", self._incidents, allow_head=False),
                web.get("/incidents/{id}", self._incident, allow_head=False),
                web.post("/incidents/retry", self._retry),
                web.post("/incidents/{id}/retry", self._retry),
                web.get("/status", self._status, allow_head=False),
            ]
        )
        if self._links is not None:
            app.add_routes(link_routes(self._links))
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=5, shutdown_timeout=1, handle_signals=False)
        await self._runner.setup()
        assert self._runner.server is not None
        self._door = Door(listener, self._runner.server)
        self._door.open()

    async def aclose(self) -> None:
        """Stop listening and remove the socket, unless another daemon's has taken its place."""
        if self._runner is None or self._door is None:
            return
        await self._door.aclose()
        try:
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        except FileNotFoundError:
            pass
        await self._runner.cleanup()
        self._runner = None

    async def _trigger(self, request: web.Request) -> web.Response:
        asked = await _asked(request)
        return web.json_response(await self._handlers.trigger(asked.pop("camera"), **asked))

    async def _incidents(self, request: web.Request) -> web.Response:
        limit = number(request, "limit", 20, MAX_LIMIT)
        listing = self._handlers.owing if flag(request, "owed") else self._handlers.incidents
        return web.json_response({"incidents": await listing(limit)})

    async def _retry(self, request: web.Request) -> web.Response:
        retried = await self._handlers.retry(request.match_info.get("id"))
        if retried is None:
            raise Refused(404, "there is no such incident")
        return web.json_response({"retried": retried})

    async def _incident(self, request: web.Request) -> web.Response:
        incident = await self._handlers.incident(request.match_info["id"])
        if incident is None:
            raise Refused(404, "there is no such incident")
        return web.json_response(incident)

    async def _status(self, _request: web.Request) -> web.Response:
        return web.json_response(await self._handlers.status())


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        async with asyncio.timeout(HANDLER_S):
            return await handler(request)
    except Refused as error:
        status, sentence = error.status, str(error)
    except web.HTTPException as error:
        status, sentence = error.status, error.reason
    except ControlError as error:
        status, sentence = 422, str(error)
    except (VigintdError, TimeoutError) as error:
        log.warning("control.failed", path=request.path, error=str(error) or "took too long")
        status = 504 if isinstance(error, TimeoutError) else 503 if isinstance(error, TransientError) else 500
        sentence = str(error) or "vigintd took too long to answer; see its log"
    except Exception:
        log.exception("control.crashed", path=request.path)
        status, sentence = 500, "vigintd failed to answer; see its log"
    return web.json_response({"error": sentence}, status=status)


async def _asked(request: web.Request) -> dict[str, Any]:
    """The arguments of a trigger, checked; what is left out has its default."""
    keys = ("camera", "type", "risk", "confidence", "text")
    asked = await read_object(request, keys, "a trigger is an object of camera, type, risk, confidence and text")
    camera, type_, text = asked.get("camera"), asked.get("type", "trigger"), asked.get("text", "")
    if not (isinstance(camera, str) and camera):
        raise Refused(400, "camera is the name of a configured camera")
    if not (isinstance(type_, str) and 0 < len(type_) <= MAX_TYPE_LENGTH):
        raise Refused(400, f"type is a text of 1 to {MAX_TYPE_LENGTH} characters")
    if not (isinstance(text, str) and len(text) <= MAX_TEXT_LENGTH):
        raise Refused(400, f"text has at most {MAX_TEXT_LENGTH} characters")
    try:
        (camera + type_ + text).encode()
    except UnicodeEncodeError:
        raise Refused(400, "a text holds half a character") from None
    return {
        "camera": camera,
        "type": type_,
        "risk": _risk(asked.get("risk", Risk.UNKNOWN)),
        "confidence": _confidence(asked.get("confidence")),
        "text": text,
    }


def _risk(value: object) -> Risk:
    if isinstance(value, str) and value in set(Risk):
        return Risk(value)
    raise Refused(400, f"risk is one of {', '.join(Risk)}")


def _confidence(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 1:
        raise Refused(400, "confidence is a number from 0 to 1")
    return float(value)


def _listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _clear(path)
        listener.bind(os.fspath(path))
        # Nobody can connect before listen(), so there is no moment at which others could.
        path.chmod(0o600)
        listener.settimeout(0)
    except OSError as error:
        listener.close()
        raise ControlError(f"{path}: the control socket cannot be made: {error.strerror}; is runtime_dir right?") from error
    except BaseException:
        listener.close()
        raise
    return listener


def _clear(path: Path) -> None:
    """Remove what a dead daemon left at `path`; refuse what is in use or no socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ControlError(f"{path}: there is a file where the control socket belongs; remove it, or set another runtime_dir")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(0)
        try:
            caller.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # a full queue of callers is still somebody's
    raise ControlError(f"{path}: another vigintd listens here; stop it, or set another runtime_dir")
