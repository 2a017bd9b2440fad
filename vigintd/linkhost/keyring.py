"""The API keys: made, told apart, taken back.

Owns what a key looks like, and the hashes that requests are compared with. A key lets its holder bring clips and
change its own; it opens no video, neither its own nor another's.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence

import structlog

from vigintd.clock import Clock
from vigintd.linkhost.store import ApiKey, Keys
from vigintd.linkhost.wire import Refusal

PREFIX = "vigintd_"
"""So that a key is known for one where somebody comes upon it."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_log = structlog.get_logger(__name__)


class Keyring:
    """The API keys of one host; what is changed here holds for the next request."""

    def __init__(self, keys: Keys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._configured: Sequence[ApiKey] = ()
        self._added: Sequence[ApiKey] = ()

    async def begin(self, configured: Mapping[str, str]) -> None:
        """Take these (name → key), for as long as the host runs, beside those that were added."""
        now = self._clock.now()
        self._configured = [ApiKey(name, _digest(key), now) for name, key in configured.items()]
        self._added = await self._keys.all()

    def name_of(self, presented: str) -> str:
        """Whose key this is, or empty; compares with every hash in constant time."""
        digest = _digest(presented)
        found = ""
        for key in (*self._configured, *self._added):
            if hmac.compare_digest(digest, key.digest):
                found = key.name
        return found

    async def add(self, name: str, quota_bytes: int | None) -> str:
        """A new key of this name, which is told once and kept nowhere. Raises `Refusal`.

        `quota_bytes` is for all of the name's clips together; None leaves it as it is.
        """
        if not _NAME.fullmatch(name):
            raise Refusal(400, "a name is of 1 to 63 letters, digits, dots, dashes and underscores")
        if any(key.name == name for key in self._configured):
            raise Refusal(409, f"{name} is the name of a key that is configured; take another name")
        secret = PREFIX + secrets.token_urlsafe(32)
        key = ApiKey(name, _digest(secret), self._clock.now())
        if not await self._keys.add(key, quota_bytes):
            old = ", ".join(key.id for key in self._added if key.name == name)
            raise Refusal(409, f"{name} has two keys ({old}); remove the one that is not used any more first")
        self._added = await self._keys.all()
        _log.info("linkhost.key_added", name=name, key=key.id)
        return secret

    async def remove(self, name: str, key_id: str | None) -> ApiKey:
        """Take a key no more, from now on; `key_id` tells which, where the name has two. Raises `Refusal`."""
        chosen = [key for key in self._added if key.name == name and key_id in (None, key.id)]
        if not chosen:
            raise Refusal(
                404, f"no key {key_id or ''} of {name} was added here; see: vigintd linkhost keys list".replace("  ", " ")
            )
        if len(chosen) > 1:
            raise Refusal(409, f"{name} has two keys: {', '.join(key.id for key in chosen)}; say which")
        await self._keys.remove(chosen[0], self._clock.now())
        self._added = await self._keys.all()
        _log.info("linkhost.key_removed", name=name, key=chosen[0].id)
        return chosen[0]

    async def listed(self) -> list[dict[str, object]]:
        """Each key's name, id and age, and what its name may hold and holds."""
        told: list[dict[str, object]] = []
        for key in (*self._configured, *self._added):
            uploader = await self._keys.uploader(key.name)
            told.append(
                {
                    "name": key.name,
                    "key": key.id,
                    "added_at": key.added_at.isoformat(),
                    "configured": key in self._configured,
                    "quota_bytes": uploader.quota_bytes,
                    "held_bytes": uploader.held_bytes,
                }
            )
        return told

    async def room_bytes(self, name: str) -> int | None:
        """How much more clips of this name may grow; None without a quota.

        Bodies that arrive at the same moment may together exceed it, each by no more than was left when it began.
        """
        uploader = await self._keys.uploader(name)
        return None if uploader.quota_bytes is None else max(0, uploader.quota_bytes - uploader.held_bytes)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
