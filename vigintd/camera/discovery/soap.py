"""One question to one camera: SOAP 1.2 over HTTP, sent, bounded and read.

Owns the envelope, both ways to log in, and what is never done for a stranger: follow a redirection, unpack, read more
than a megabyte, read a document type, or send a password in a form that can be read.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser
from xml.sax.saxutils import escape

import aiohttp

from vigintd.camera.discovery.found import plain
from vigintd.clock import Clock
from vigintd.errors import PermanentError, TransientError

MAX_ANSWER_BYTES = 1 << 20
"""A recorder with 64 channels says all its profiles in half of that; at more, the answer is dropped."""
ANSWER_S = 5.0
"""For one question, from connecting to the last byte of the answer."""

DEVICE = "http://www.onvif.org/ver10/device/wsdl"

_SOAP = "http://www.w3.org/2003/05/soap-envelope"
_WSS = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss"
_DIGEST = f"{_WSS}-username-token-profile-1.0#PasswordDigest"
_BASE64 = f"{_WSS}-soap-message-security-1.0#Base64Binary"

_NOT_AUTHORIZED = ("notauthorized", "not authorized", "failedauthentication", "unauthorized", "time check failed")
"""What cameras write into a fault's codes and reason; the first is ONVIF's own, `ter:NotAuthorized`."""

__all__ = ["Asker", "Credentials", "Element", "NotAuthorized", "NotSoap", "Refused", "Unanswered"]


class NotSoap(PermanentError):
    """What came is no SOAP message."""


class Unanswered(TransientError):
    """The camera did not answer, or with something else than an answer."""


class Refused(PermanentError):
    """The camera answered with a fault."""


class NotAuthorized(PermanentError):
    """The camera wants credentials, or refused those it was given."""


class _Challenged(Exception):
    """This question needs a login; `http_digest` tells whether the web server of the camera asked for it."""

    def __init__(self, *, http_digest: bool) -> None:
        super().__init__()
        self.http_digest = http_digest


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of the cameras. A user name with a colon is a `ValueError` (RFC 7617, section 2)."""

    username: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        if ":" in self.username:
            raise ValueError("a user name holds no colon")


class _Reader(TreeBuilder):
    """Builds the tree of a message that has no document type, and so no entities that could grow or reach out."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:  # noqa: ARG002  (the parser's signature)
        """A SOAP message must not contain a document type declaration (SOAP 1.2 part 1, section 5)."""
        raise NotSoap("a document type")


def read(data: bytes) -> Element:
    """The message in `data`. Raises `NotSoap`."""
    parser = XMLParser(target=_Reader())  # noqa: S314  (what makes it unsafe are document types, and `_Reader` refuses them)
    try:
        parser.feed(data)
        root = parser.close()
    except (ParseError, ValueError, LookupError) as error:  # ValueError, LookupError: encodings that nobody knows
        raise NotSoap(plain(str(error))) from None
    if _local(root) != "Envelope":
        raise NotSoap("no envelope")
    return root


def every(element: Element, name: str) -> Iterator[Element]:
    """The elements of this local name inside `element`, in order. Namespaces are not looked at: cameras get them wrong."""
    return (inner for inner in element.iter() if _local(inner) == name)


def listed(message: Element, name: str) -> Iterator[Element]:
    """The elements of this local name that the answer is a list of; none inside another, so that none is read twice."""
    body = next(every(message, "Body"), message)
    return (inner for answer in body for inner in answer if _local(inner) == name)


def said(element: Element, *path: str) -> str:
    """The text at the first of each name of `path`, one inside the other; empty where there is none."""
    inner: Element | None = element
    for name in path:
        if inner is None:
            return ""
        inner = next(every(inner, name), None)
    return (inner.text or "").strip() if inner is not None else ""


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def envelope(body: str, header: str = "") -> bytes:
    """A SOAP 1.2 message; both parts are XML."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<s:Envelope xmlns:s="{_SOAP}"><s:Header>{header}</s:Header><s:Body>{body}</s:Body></s:Envelope>'
    ).encode()


def username_token(credentials: Credentials, created: datetime, nonce: bytes) -> str:
    """The header of WS-Security that proves the password and does not tell it (UsernameToken Profile 1.0, section 3.1)."""
    moment = created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    # SHA-1 is the profile's; the nonce and the moment keep the answer from being used again.
    digest = hashlib.sha1(nonce + moment.encode() + credentials.password.encode(), usedforsecurity=False).digest()
    return (
        f'<w:Security xmlns:w="{_WSS}-wssecurity-secext-1.0.xsd" xmlns:u="{_WSS}-wssecurity-utility-1.0.xsd"><w:UsernameToken>'
        f"<w:Username>{escape(credentials.username)}</w:Username>"
        f'<w:Password Type="{_DIGEST}">{base64.b64encode(digest).decode()}</w:Password>'
        f'<w:Nonce EncodingType="{_BASE64}">{base64.b64encode(nonce).decode()}</w:Nonce>'
        f"<u:Created>{moment}</u:Created></w:UsernameToken></w:Security>"
    )


class Asker:
    """Asks one camera. It logs in only when the camera wants it, and at most once in each of two ways.

    The ways are WS-Security's UsernameToken and HTTP Digest; both prove the password without telling it. HTTP Basic, which
    tells it to whoever asks, is never answered. A camera locks a user out after a few wrong passwords, so there is no
    third try. `url` is the device service; every URL asked must be at the camera's own address.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        credentials: Credentials | None,
        *,
        clock: Clock,
        nonce: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.url = url
        self._session = session
        self._credentials = credentials
        self._clock = clock
        self._nonce = nonce
        self._login: Literal["none", "token", "http"] = "none"
        self._ahead = timedelta()
        """How far the camera's clock is ahead of ours; it refuses tokens of another time."""
        self._http_digest: aiohttp.DigestAuthMiddleware | None = None

    async def ask(self, namespace: str, name: str, inner: str = "", *, url: str | None = None) -> Element:
        """The answer to the request `name`. Raises `Unanswered`, `Refused` or `NotAuthorized`."""
        body = f'<q:{name} xmlns:q="{namespace}">{inner}</q:{name}>'
        while True:
            try:
                return await self._post(url or self.url, f"{namespace}/{name}", body)
            except _Challenged as challenge:
                if not await self._log_in(http_digest=challenge.http_digest):
                    raise NotAuthorized("not authorized") from None

    async def _log_in(self, *, http_digest: bool) -> bool:
        """Go on to the next way to log in; False when there is none."""
        if self._credentials is None or self._login == "http":
            return False
        if http_digest:
            self._login = "http"
            self._http_digest = aiohttp.DigestAuthMiddleware(self._credentials.username, self._credentials.password)
            return True
        if self._login == "token":
            return False
        self._ahead = await self._clock_difference()
        self._login = "token"
        return True

    async def _clock_difference(self) -> timedelta:
        """Zero where the camera will not say, or says nonsense. Every device tells its time to anybody (Core Specification)."""
        try:
            answer = await self._post(
                self.url, f"{DEVICE}/GetSystemDateAndTime", f'<q:GetSystemDateAndTime xmlns:q="{DEVICE}"/>'
            )
            keys = (
                ("Date", "Year"),
                ("Date", "Month"),
                ("Date", "Day"),
                ("Time", "Hour"),
                ("Time", "Minute"),
                ("Time", "Second"),
            )
            year, month, day, hour, minute, second = (int(said(answer, "UTCDateTime", *key)) for key in keys)
            return datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC) - self._clock.now()
        except (Unanswered, Refused, _Challenged, ValueError, OverflowError):
            return timedelta()

    async def _post(self, url: str, action: str, body: str) -> Element:
        header = ""
        if self._login == "token" and self._credentials:
            header = username_token(self._credentials, self._clock.now() + self._ahead, self._nonce(16))
        try:
            async with self._session.post(
                url,
                data=envelope(body, header),
                headers={"Content-Type": f'application/soap+xml; charset=utf-8; action="{action}"'},
                allow_redirects=False,
                middlewares=(self._http_digest,) if self._http_digest else (),
            ) as response:
                data = await _bounded(response)
        except TimeoutError:
            raise Unanswered(f"no answer within {ANSWER_S:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unanswered(_why(error)) from None
        return _answer_in(response, data)


def new_session() -> aiohttp.ClientSession:
    """What cameras are asked with: no proxy, no cookie, no unpacking; a camera's certificate is nobody's and not looked at."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=False, limit_per_host=2),
        timeout=aiohttp.ClientTimeout(total=ANSWER_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"Accept-Encoding": "identity"},
        trust_env=False,
    )


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > MAX_ANSWER_BYTES:
            raise Unanswered(f"answers with more than {MAX_ANSWER_BYTES} bytes")
    return bytes(data)


def _answer_in(response: aiohttp.ClientResponse, data: bytes) -> Element:
    if response.status in (401, 403):
        challenges = response.headers.getall("WWW-Authenticate", [])
        raise _Challenged(http_digest=any(challenge.lower().startswith("digest ") for challenge in challenges))
    if 300 <= response.status < 400:
        raise Unanswered(f"sends to another address (HTTP {response.status}); that is not followed")
    try:
        message = read(data)
    except NotSoap as error:
        raise Unanswered(f"answers HTTP {response.status} with something else than ONVIF: {error}") from None
    fault = next(every(message, "Fault"), None)
    if fault is None:
        return message
    words = " ".join(filter(None, (value.text for value in (*every(fault, "Value"), *every(fault, "Text")))))
    if any(word in words.lower() for word in _NOT_AUTHORIZED):
        raise _Challenged(http_digest=False)
    raise Refused(f"refuses: {plain(said(fault, 'Text') or words) or 'no reason given'}")


def _why(error: Exception) -> str:
    """In few words; aiohttp's own name the address again and may quote what the camera sent."""
    if isinstance(error, OSError) and error.errno:
        return f"no answer: {os.strerror(error.errno)}"
    return f"no answer: {type(error).__name__}"
