"""From an HTTP answer to "done", "again" or "no".

Owns the mapping of status codes (RFC 9110, section 15, and tus 1.0's 460) to `HostUnavailable` and
`HostRefused`, and the reading of `Retry-After`. Pure: sees values, opens no connection.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from vigintd.errors import HostRefused, HostUnavailable
from vigintd.redact import redacted

MAX_RETRY_AFTER_S = 3600.0
"""A host that asks for a longer wait is asked again after this one."""

CHECKSUM_MISMATCH = 460
"""tus 1.0, checksum extension."""
TOO_LARGE = 413

_AGAIN = frozenset({400, 408, 423, 425, 429})
"""4xx answers that a later request may change: one that broke off or was damaged on its way, a timeout, locked, too early,
too many."""

_EXPLAINED = {
    401: "refuses the API key; check the credential publish__api_key, restart vigintd, then: vigintd incidents retry --all",
    403: "does not allow this",
    404: "knows nothing of this",
    410: "says that this has expired",
    TOO_LARGE: "takes no more bytes of this clip",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, read whole."""

    where: str
    """The host, as a user knows it; never with credentials."""
    status: int
    headers: Mapping[str, str]
    """Case-insensitive."""
    payload: bytes

    @property
    def is_html(self) -> bool:
        """A page for people, where a program was meant to answer."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml")

    def json(self) -> dict[str, Any]:
        """The JSON object in the body; anything else is `HostUnavailable`."""
        try:
            value = json.loads(self.payload)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise self.foreign("no JSON object")
        return value

    def number(self, header: str) -> int:
        """A header that counts bytes; anything but digits is `HostUnavailable`."""
        value = self.headers.get(header, "")
        if not (value.isascii() and value.isdecimal() and len(value) <= 18):
            raise self.foreign(f"no {header}")
        return int(value)

    def foreign(self, missing: str) -> HostUnavailable:
        """The error for an answer that a link host would not give."""
        page = ", but a web page: is a login page (captive portal) or a proxy in the way?" if self.is_html else ""
        return HostUnavailable(f"{self.where} answered {self.status} with {missing}{page}", retry_after_s=self.retry_after_s)

    @property
    def retry_after_s(self) -> float | None:
        """`Retry-After` (RFC 9110, section 10.2.3) in seconds, at most `MAX_RETRY_AFTER_S`; a date counts from `Date`."""
        value = self.headers.get("Retry-After", "").strip()
        if value.isascii() and value.isdecimal():
            return min(float(value[:9]), MAX_RETRY_AFTER_S)
        try:
            wait = parsedate_to_datetime(value) - parsedate_to_datetime(self.headers.get("Date", ""))
        except (TypeError, ValueError):
            return None
        return min(max(wait.total_seconds(), 0.0), MAX_RETRY_AFTER_S)

    def refuse_unless(self, *expected: int, again: Collection[int] = ()) -> None:
        """Raise what this answer means unless its status is an expected one; 4xx codes in `again` are transient here."""
        if self.status in expected:
            return
        if 300 <= self.status < 400:
            raise HostUnavailable(
                f"{self.where} answered {self.status}, a redirection, which uploads do not follow: "
                "is publish.url right, or is a login page (captive portal) in the way?"
            )
        if self.status < 400:
            raise self.foreign("nothing that a link host would say")
        if self.is_html and self.status < 500 and self.status != TOO_LARGE:
            raise self.foreign("no JSON")
        if self.status >= 500 or self.status in _AGAIN or self.status in again:
            raise HostUnavailable(self.said(), retry_after_s=self.retry_after_s)
        raise HostRefused(self.said())

    def said(self) -> str:
        """A sentence with the status, the host's own words, if it gave any, on one line of at most 200 characters, and ours."""
        ours = _EXPLAINED.get(self.status, "")
        try:
            theirs = json.loads(self.payload)["error"]
        except (ValueError, RecursionError, KeyError, TypeError, IndexError):
            theirs = ""
        theirs = "".join(c if c.isprintable() else " " for c in theirs)[:200] if isinstance(theirs, str) else ""
        theirs = redacted(theirs).strip()
        return f"{self.where} answered {self.status}" + (f" ({theirs})" if theirs else "") + (f": it {ours}" if ours else "")
