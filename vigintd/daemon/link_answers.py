"""What the control socket answers about links: the built-in link host's own words, and what the journal knows beside them.

Owns the shape of these answers and the sentence for a daemon that publishes elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from vigintd.errors import ControlError
from vigintd.journal import EffectKind, EffectState, Journal
from vigintd.linkhost import LinkHost, Refusal

MIB = 1024 * 1024


class LinkAnswers:
    """The handlers of the control socket that are about links."""

    def __init__(self, linkhost: LinkHost | None, journal: Journal) -> None:
        self._linkhost = linkhost
        self._journal = journal

    async def links(self, limit: int, *, gone: bool) -> list[dict[str, Any]]:
        """The newest clips, newest first; those that are deleted only with `gone`."""
        return await self._host.links.listed(gone=gone, limit=limit)

    async def links_of(self, clip: str) -> dict[str, Any]:
        """One clip, its recipients and who came."""
        with _sentences():
            found = await self._host.links.clip(clip)
            return await self._host.links.shown(found, await self._mailed(found.id))

    async def link(self, clip: str, recipient: str) -> dict[str, Any]:
        """The link of one recipient."""
        with _sentences():
            found = await self._host.links.clip(clip)
            return {"clip": found.id, "link": await self._host.links.link(found, recipient)}

    async def grant(self, clip: str, recipient: str) -> dict[str, Any]:
        """A link for a recipient who has none, or whose link was revoked."""
        with _sentences():
            found = await self._host.links.clip(clip)
            return {"clip": found.id, "link": await self._host.links.grant(found, recipient, again=True)}

    async def extend(self, clip: str, hours: float) -> dict[str, Any]:
        """Let the clip's links live longer."""
        with _sentences():
            found = await self._host.links.clip(clip)
            expires_at = await self._host.links.extend(found, hours)
            return {"clip": found.id, "expires_at": expires_at.isoformat()}

    async def revoke(self, clip: str, recipient: str | None) -> dict[str, Any]:
        """Make the link of one recipient, or (None) of all, worthless."""
        with _sentences():
            found = await self._host.links.clip(clip)
            return {"clip": found.id, "revoked": await self._host.links.revoke(found, recipient)}

    async def hold(self, clip: str, reason: str) -> dict[str, Any]:
        """Keep the clip beyond its time."""
        with _sentences():
            found = await self._host.links.clip(clip)
            await self._host.links.hold(found, reason)
            return {"clip": found.id}

    async def release(self, clip: str) -> dict[str, Any]:
        """Hold it no longer."""
        with _sentences():
            found = await self._host.links.clip(clip)
            expires_at = await self._host.links.release(found)
            return {"clip": found.id, "expires_at": expires_at.isoformat()}

    async def audit(self, after: int, clip: str | None) -> list[dict[str, Any]]:
        """The next lines of the record, of one clip or (None) of all."""
        with _sentences():
            clip_id = None if clip is None else (await self._host.links.clip(clip)).id
            return [row.as_json() for row in await self._host.record.page(after, clip_id=clip_id)]

    async def heads(self) -> dict[str, Any]:
        """How far the record goes, and how far it went when that was noted last."""
        noted = await self._host.noted_head()
        return {"head": str(await self._host.record.head()), "noted": str(noted) if noted else None}

    async def keys(self) -> list[dict[str, Any]]:
        """The API keys, without the keys."""
        return await self._host.keyring.listed()

    async def add_key(self, name: str, quota_mb: float | None) -> dict[str, Any]:
        """A new API key."""
        with _sentences():
            quota_bytes = None if quota_mb is None else int(quota_mb * MIB)
            return {"name": name, "api_key": await self._host.keyring.add(name, quota_bytes)}

    async def remove_key(self, name: str, key: str | None) -> dict[str, Any]:
        """Take an API key no more."""
        with _sentences():
            return {"name": name, "key": (await self._host.keyring.remove(name, key)).id}

    @property
    def _host(self) -> LinkHost:
        if self._linkhost is None:
            raise ControlError("this vigintd publishes on another host (publish.host); ask there")
        return self._linkhost

    async def _mailed(self, clip_id: str) -> Mapping[str, datetime]:
        """When the link was mailed to each recipient; the clip's id is its incident's."""
        row = await self._journal.incident(clip_id)
        kinds = (EffectKind.ALERT, EffectKind.FOLLOW_UP)
        return {
            effect.what: effect.settled_at
            for effect in (row.effects if row else ())
            if effect.kind in kinds and effect.state is EffectState.DONE and effect.settled_at
        }


@contextmanager
def _sentences() -> Iterator[None]:
    """What the link host refuses is told to whoever asked."""
    try:
        yield
    except Refusal as refusal:
        raise ControlError(str(refusal)) from None
