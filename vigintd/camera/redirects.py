"""Whether a peer sends everybody from one address to the next without end.

Owns one small look of our own, by RTSP DESCRIBE (RFC 2326, section 10.2) or HTTP GET, because FFmpeg follows redirects of
RTSP until its time is over and then says no more than that. Sends no credentials; what cannot be found out is a no.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import urljoin, urlsplit

_MAX_HOPS = 10
_MAX_ANSWER_BYTES = 8192
_PATIENCE_S = 2.0
_DEFAULT_PORTS = {"rtsp": 554, "http": 80}


async def redirects_without_end(url: str) -> bool:
    """Whether the address redirects to one that was seen before, or more than `_MAX_HOPS` times; at most `_PATIENCE_S`.

    Only plain `rtsp:` and `http:` are looked at, which hold no other's secrets.
    """
    place = without_credentials(url)
    seen: set[str] = set()
    with suppress(OSError, TimeoutError, ValueError, EOFError, asyncio.LimitOverrunError):
        async with asyncio.timeout(_PATIENCE_S):
            while place not in seen and len(seen) <= _MAX_HOPS:
                seen.add(place)
                target = await _redirected_to(place)
                if target is None:
                    return False
                place = without_credentials(urljoin(place, target))
            return True
    return False


def without_credentials(url: str) -> str:
    """The same URL without user name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


async def _redirected_to(url: str) -> str | None:
    """What the answer's `Location` says; None where the answer is no redirect."""
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        return None
    reader, writer = await asyncio.open_connection(
        parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme], limit=_MAX_ANSWER_BYTES
    )
    try:
        writer.write(_request(url).encode())
        answer = await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.transport.abort()
    status, *headers = answer.decode("utf-8", "replace").split("\r\n")
    if not status.partition(" ")[2].startswith("3"):
        return None
    fields = dict(header.partition(":")[::2] for header in headers)
    return next((value.strip() for name, value in fields.items() if name.strip().lower() == "location"), None)


def _request(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme == "rtsp":
        return f"DESCRIBE {url} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n"
    path = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
    return f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
