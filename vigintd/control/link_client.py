"""The commands' questions about links, their record and API keys; see `link_routes` for the answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlencode

from vigintd.control.client import ControlClient


class LinkClient(ControlClient):
    """Asks the daemon's link host. Every failure is a `ControlError`."""

    async def links(self, limit: int, *, gone: bool) -> list[dict[str, Any]]:
        """The newest clips, newest first; those that are deleted only with `gone`."""
        answer = await self._ask("GET", f"/links?limit={limit}&gone={gone:d}")
        found: list[dict[str, Any]] = self._part(answer, "clips", list)
        return found

    async def links_of(self, clip: str) -> dict[str, Any]:
        """One clip, its recipients and who came."""
        return await self._tell("GET", f"/links/{quote(clip, safe='')}")

    async def link(self, clip: str, recipient: str) -> str:
        """The link of one recipient."""
        return str(self._part(await self._change(clip, "link", recipient=recipient), "link", str))

    async def grant(self, clip: str, recipient: str) -> dict[str, Any]:
        """A link for a recipient who has none, or whose link was revoked."""
        return await self._change(clip, "grant", recipient=recipient)

    async def extend(self, clip: str, hours: float) -> dict[str, Any]:
        """Let the clip's links live longer; answers until when."""
        return await self._change(clip, "extend", hours=hours)

    async def revoke(self, clip: str, recipient: str | None) -> dict[str, Any]:
        """Make the link of one recipient, or (None) of all, worthless; answers whose it was."""
        return await self._change(clip, "revoke", recipient=recipient)

    async def hold(self, clip: str, reason: str) -> dict[str, Any]:
        """Keep the clip beyond its time."""
        return await self._change(clip, "hold", reason=reason)

    async def release(self, clip: str) -> dict[str, Any]:
        """Hold it no longer; answers when it is deleted."""
        return await self._change(clip, "release")

    async def audit(self, clip: str | None = None) -> AsyncIterator[dict[str, Any]]:
        """Every line of the record, of one clip or (None) of all, oldest first."""
        after = 0
        while True:
            query = urlencode({"after": after} | ({} if clip is None else {"clip": clip}))
            rows: list[dict[str, Any]] = self._part(await self._ask("GET", f"/audit?{query}"), "rows", list)
            for row in rows:
                yield row
                after = int(row["seq"])
            if not rows:
                return

    async def heads(self) -> dict[str, Any]:
        """How far the record goes, and how far it went when that was noted last."""
        return await self._tell("GET", "/audit/heads")

    async def keys(self) -> list[dict[str, Any]]:
        """The API keys, without the keys."""
        found: list[dict[str, Any]] = self._part(await self._ask("GET", "/keys"), "keys", list)
        return found

    async def add_key(self, name: str, quota_mb: float | None) -> dict[str, Any]:
        """A new API key, told once."""
        return await self._tell("POST", "/keys", {"name": name, "quota_mb": quota_mb})

    async def remove_key(self, name: str, key: str | None) -> dict[str, Any]:
        """Take an API key no more."""
        return await self._tell("POST", f"/keys/{quote(name, safe='')}/remove", {"key": key})

    async def _change(self, clip: str, what: str, **body: object) -> dict[str, Any]:
        return await self._tell("POST", f"/links/{quote(clip, safe='')}/{what}", body)

    async def _tell(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        answer = await self._ask(method, path, body)
        assert answer is not None, "only what may be missing is None"
        return answer
