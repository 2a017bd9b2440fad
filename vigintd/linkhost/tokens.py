"""Link tokens: what opens a clip for one recipient, derived and never stored.

Owns the derivation and the comparison; pure. The key lives in a file (`keyfile`), who may see what in the
store, so that neither alone opens anything.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass

TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
"""Base64url without padding (RFC 4648, section 5) of 32 bytes."""

_PURPOSE = "vigintd link 1"


@dataclass(frozen=True, slots=True)
class Grant:
    """One recipient's right to see a clip; raising `generation` makes every earlier token of theirs worthless."""

    recipient: str
    generation: int = 0


def token(key: bytes, clip_id: str, grant: Grant) -> str:
    """The 43 characters that open `clip_id` for this recipient: HMAC-SHA256 (RFC 2104) under `key`."""
    # The recipient comes last and the others hold no NUL, so no two triples make one message.
    message = "\0".join((_PURPOSE, clip_id, str(grant.generation), grant.recipient))
    digest = hmac.digest(key, message.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def holder(key: bytes, clip_id: str, grants: Iterable[Grant], presented: str) -> Grant | None:
    """Whose token `presented` is, or None; compares with every grant in constant time, whichever matches."""
    if not TOKEN.fullmatch(presented):
        return None
    found: Grant | None = None
    for grant in grants:
        if hmac.compare_digest(token(key, clip_id, grant), presented):
            found = grant
    return found


def key_id(key: bytes) -> str:
    """A short name for a key that says nothing about it; a clip remembers under which key its links were made."""
    return hashlib.sha256(b"vigintd key id 1\0" + key).hexdigest()[:16]
