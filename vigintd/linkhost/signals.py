"""What a request says of who sent it, as far as the record keeps it. Pure.

Owns the details of a touch and of media that was fetched. What follows from them together is `visits`'.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import hdrs

from vigintd.linkhost.store import AuditKind, Part
from vigintd.linkhost.web import Request
from vigintd.linkhost.wire import Scalar


def of_touch(headers: Mapping[str, str]) -> dict[str, Scalar]:
    """What is written down of a touch beside what was asked for; each only where it is so."""
    said: dict[str, Scalar] = {}
    # Fetch Metadata: `?1` stands there only when a person's act began the navigation. Whoever forges it is not told apart.
    if headers.get("Sec-Fetch-User") == "?1":
        said["clicked"] = True
    if any("prefetch" in headers.get(name, "").lower() for name in ("Sec-Purpose", "Purpose", "X-Moz")):
        said["prefetch"] = True
    return said


def fetched(request: Request, part: Part, first: int, sent_bytes: int) -> tuple[AuditKind, dict[str, Scalar]]:
    """How it is written down that bytes of a part were sent: a play, or a download where one was asked for by name."""
    place = request.raw_path.partition("?")[0].split("/")[3]
    detail: dict[str, Scalar] = {"part": part.index, "first": first, "bytes": sent_bytes, "of": part.offset_bytes, "by": place}
    if hdrs.RANGE in request.headers:
        detail["range"] = True
    asked_as_file = place == "download" or "download" in request.rel_url.query
    return AuditKind.DOWNLOAD if asked_as_file else AuditKind.PLAY, detail
