"""The HTTP server, set up for strangers: what aiohttp's defaults leave open is closed here.

Owns routes (regular expressions over the raw path, so that no escape is ever decoded into one), the headers of
every answer, deadlines, counted bodies, and what an exception becomes. Below aiohttp's `Application` on purpose:
that decodes paths before it matches them, logs accesses with their tokens, and answers a malformed request with
its versions. No body is ever decompressed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

import structlog
from aiohttp import hdrs, web

from vigintd import metrics
from vigintd.clock import Clock
from vigintd.linkhost import connections, crowds, wire
from vigintd.linkhost.proxies import Origin, Proxies, household
from vigintd.linkhost.visitors import Visitor, client_family, truncated_address
from vigintd.linkhost.wire import Refusal

HEADERS_S = 15.0
"""A connection that has not brought a whole request head after so long, or is idle, is closed."""
CROWD_RETRY_S = 5
"""After which a household that has too much under way may ask again."""
BODY_IDLE_S = 30.0
"""The longest silence within a body."""
BODY_TOTAL_S = 3600.0
"""The longest that a whole body may take."""
JSON_BODY_S = 15.0
SHUTDOWN_S = 2.0
"""How long requests under way may go on when the server stops."""
MAX_HEADER_BYTES = 96 * 1024
"""Of one header: 50 recipients and 16 kB of metadata fit, escaped as JSON and in base64."""

SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow, noarchive",
}
"""On every answer, unless it says otherwise itself."""

_log = structlog.get_logger(__name__)


class Request(web.BaseRequest):
    """A request whose answer never names the server and always carries the security headers."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        # aiohttp's hook behind `Application.on_response_prepare`; here it also sees malformed requests' answers.
        response.headers.pop(hdrs.SERVER, None)
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)

    origin = Origin()
    """Whom it is from, whatever stands between."""

    @property
    def visitor(self) -> Visitor:
        """Where it came from, as far as the record keeps it."""
        return Visitor(truncated_address(str(self.origin.address)), client_family(self.headers.get(hdrs.USER_AGENT)))


Handler = Callable[[Request, Mapping[str, str]], Awaitable[web.StreamResponse]]
"""Takes the request and the groups of its path; raises `Refusal` for an answer other than success."""

Refuse = Callable[[Request, Refusal], web.Response]
"""Makes a refusal's answer."""


@dataclass(frozen=True, slots=True)
class Route:
    """A pattern that the whole raw path must match, and what each method does there; GET serves HEAD too."""

    pattern: re.Pattern[str]
    methods: Mapping[str, Handler]


class Stranger(Refusal):
    """Whoever asks has no right token or API key; too many of these from one household become 429."""


class Site:
    """Finds the handler of each request, for nobody too many at once, and turns what it raises into an answer."""

    def __init__(self, routes: Sequence[Route], refuse: Refuse, *, proxies: Proxies, clock: Clock) -> None:
        self._routes = tuple(routes)
        self._refuse = refuse
        self._proxies = proxies
        self._clock = clock
        self._crowd = crowds.Crowd()
        self._guesses = crowds.Guesses()
        self._under_way: set[asyncio.Task[object]] = set()
        self._told_of_clear = False
        self._server: connections.Server | None = None

    def server(self) -> web.Server:
        """The protocol factory for listeners."""
        self._server = connections.Server(
            self._answer,
            self._proxies.household_of_peer,
            request_factory=_make_request,
            access_log=None,
            logger=_quiet_logger(),
            auto_decompress=False,
            keepalive_timeout=HEADERS_S,
            lingering_time=2.0,
            max_field_size=MAX_HEADER_BYTES,
            max_line_size=8190,
            max_headers=64,
        )
        return self._server

    async def aclose(self) -> None:
        """End what is still under way. aiohttp waits for who is connected, and not for what strangers left behind."""
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _answer(self, request: Request) -> web.StreamResponse:
        task = cast("asyncio.Task[object]", asyncio.current_task())
        self._under_way.add(task)
        try:
            return await self._handled(request)
        finally:
            self._under_way.discard(task)

    async def _handled(self, request: Request) -> web.StreamResponse:
        try:
            self._refuse_when_full()
            request.origin = self._origin(request)
            handler, groups = self._find(request)
            return await self._within_share(request, handler, groups)
        except Stranger as refusal:
            return self._refused(request, self._counted(request, refusal))
        except Refusal as refusal:
            return self._refused(request, refusal)
        except ConnectionError:
            raise
        except Exception as error:
            _log.exception("linkhost.request_failed", method=request.method, error=type(error).__name__)
            if request.writer.output_size:
                # The head is out; all that is left is to break off, so that nobody takes the rest for whole.
                raise ConnectionResetError from error
            return self._refused(request, Refusal(500, "something went wrong here", {hdrs.CONNECTION: "close"}))

    def _origin(self, request: Request) -> Origin:
        tls = request.transport is not None and request.transport.get_extra_info("ssl_object") is not None
        headers = request.headers
        origin = self._proxies.origin(request.remote, lambda name: headers.getall(name, []), tls=tls)
        if origin.in_the_clear and not self._told_of_clear:
            self._told_of_clear = True
            _log.warning("linkhost.in_the_clear", problem="links and keys travel without TLS; vigintd check says what to do")
        return origin

    async def _within_share(self, request: Request, handler: Handler, groups: Mapping[str, str]) -> web.StreamResponse:
        # Whoever has an API key may bring the clips of many cameras at once.
        whose = None if request.raw_path.startswith("/api/") else household(request.origin.address)
        with self._crowd.one_more(whose) as free:
            if not free:
                metrics.count("linkhost.too_many_of_one_address")
                raise Refusal(429, "too many requests at once from one address", {hdrs.RETRY_AFTER: str(CROWD_RETRY_S)})
            return await handler(request, groups)

    def _counted(self, request: Request, stranger: Refusal) -> Refusal:
        """The answer to a wrong guess: as it is, or that there were too many."""
        wait_s = self._guesses.wrong(household(request.origin.address), self._clock.monotonic_s())
        if not wait_s:
            return stranger
        metrics.count("linkhost.too_many_guesses")
        kept = {name: value for name, value in stranger.headers.items() if name == hdrs.CONNECTION}
        return Refusal(429, "too many wrong tokens or keys from one address", {**kept, hdrs.RETRY_AFTER: str(wait_s)})

    def _refused(self, request: Request, refusal: Refusal) -> web.Response:
        answer = self._refuse(request, refusal)
        if refusal.headers.get(hdrs.CONNECTION) == "close":
            # The header alone closes nothing: aiohttp would go on waiting for the next request.
            answer.force_close()
        return answer

    def _refuse_when_full(self) -> None:
        if self._server is not None and self._server.open_connections > connections.MAX_CONNECTIONS:
            metrics.count("linkhost.too_many_connections")
            raise Refusal(503, "too many connections", {hdrs.RETRY_AFTER: "5", hdrs.CONNECTION: "close"})

    def _find(self, request: Request) -> tuple[Handler, Mapping[str, str]]:
        path = request.raw_path.partition("?")[0]
        for route in self._routes:
            match = route.pattern.fullmatch(path)
            if match is None:
                continue
            method = (
                hdrs.METH_GET if request.method == hdrs.METH_HEAD and hdrs.METH_HEAD not in route.methods else request.method
            )
            handler = route.methods.get(method)
            if handler is None:
                raise Refusal(405, "not by this method", {hdrs.ALLOW: ", ".join(sorted(route.methods))})
            return handler, match.groupdict()
        raise Refusal(404, "there is nothing here")


def _make_request(
    message: object, payload: object, protocol: web.RequestHandler, writer: object, task: asyncio.Task[None]
) -> Request:
    return Request(message, payload, protocol, writer, task, asyncio.get_running_loop())  # type: ignore[arg-type]  # passed on


class _CountOnly(logging.Filter):
    """What aiohttp logs of malformed requests holds whole addresses and request lines; only the number is kept."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            metrics.count("linkhost.malformed_request")
        return False


def _quiet_logger() -> logging.Logger:
    logger = logging.getLogger("vigintd.linkhost.http")
    if not logger.filters:
        logger.addFilter(_CountOnly())
    return logger


def json_answer(status: int, value: Mapping[str, object], headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    body = json.dumps(value, ensure_ascii=False).encode()
    return web.Response(status=status, body=body, headers={**(headers or {}), hdrs.CONTENT_TYPE: "application/json"})


def json_refusal(refusal: Refusal) -> web.Response:
    """`{"error": …}` with the refusal's status; tus wants its version on every answer."""
    reason = "Checksum Mismatch" if refusal.status == wire.CHECKSUM_MISMATCH else HTTPStatus(refusal.status).phrase
    answer = json_answer(refusal.status, {"error": str(refusal)}, {"Tus-Resumable": wire.TUS_VERSION, **refusal.headers})
    answer.set_status(refusal.status, reason)
    return answer


async def body(request: Request, limit_bytes: int) -> AsyncGenerator[bytes]:
    """The pieces of a request's body as they come.

    Raises `Refusal` 413 as soon as more than `limit_bytes` are announced or came, 415 for a coded one, and 400
    where it broke off. Waiting is bounded by the caller.
    """
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise Refusal(415, "no Content-Encoding here")
    if request.content_length is not None and request.content_length > limit_bytes:
        raise Refusal(413, f"more than the {limit_bytes} bytes that are left", {hdrs.CONNECTION: "close"})
    await invite(request)
    left = limit_bytes
    while True:
        try:
            piece = await request.content.readany()
        except (ConnectionError, web.RequestPayloadError) as error:
            raise Refusal(400, "the body broke off") from error
        if not piece:
            return
        left -= len(piece)
        if left < 0:
            raise Refusal(413, f"more than the {limit_bytes} bytes that are left", {hdrs.CONNECTION: "close"})
        yield piece


async def invite(request: Request) -> None:
    """Tell a client that waits for it to send its body (RFC 9110, section 10.1.1)."""
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


async def json_body(request: Request) -> dict[str, object]:
    """A JSON object in the body, of at most 64 kB and within 15 s."""
    whole = bytearray()
    try:
        async with asyncio.timeout(JSON_BODY_S):
            async for piece in body(request, wire.MAX_JSON_BYTES):
                whole += piece
    except TimeoutError as error:
        raise Refusal(408, "the body did not come", {hdrs.CONNECTION: "close"}) from error
    return wire.json_object(bytes(whole))
