"""What may be done with a clip's links: seen, told again, made to live longer, revoked; and the clip be held.

Owns these rules for everybody who may ask: the command line through the daemon, and programs. Each change is written
down in the same commit, is durable when its call returns, and ends what is being sent against it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import structlog

from vigintd.clock import Clock
from vigintd.linkhost import tokens, wire
from vigintd.linkhost.files import Files
from vigintd.linkhost.growth import Growth
from vigintd.linkhost.passes import Passes
from vigintd.linkhost.showing import Showing
from vigintd.linkhost.store import AuditKind, AuditRow, Clip, Recipient, Store
from vigintd.linkhost.tokens import Grant
from vigintd.linkhost.visitors import LOCAL, Visitor
from vigintd.linkhost.visits import visits
from vigintd.linkhost.wire import MAX_EXPIRY_H, Refusal, Scalar

LONGEST = timedelta(hours=MAX_EXPIRY_H)
"""From a clip's making to its deletion, unless it is held."""
MAX_REASON_CHARS = 500
MAX_CLIPS = 200
"""In one answer."""

AT_COMMAND = Visitor(LOCAL, "vigintd")
"""Who did what was done at this machine's command line."""

_log = structlog.get_logger(__name__)


class Links:
    """The links of every clip of one host."""

    def __init__(
        self,
        *,
        store: Store,
        files: Files,
        growth: Growth,
        passes: Passes,
        clock: Clock,
        link_key: bytes,
        base_url: Callable[[], str],
    ) -> None:
        self._store = store
        self._files = files
        self._growth = growth
        self._passes = passes
        self._clock = clock
        self._link_key = link_key
        self._base_url = base_url

    def url(self, clip_id: str, grant: Grant) -> str:
        """The link itself: derived, and kept nowhere."""
        return f"{self._base_url()}/video/{clip_id}?token={tokens.token(self._link_key, clip_id, grant)}"

    async def listed(self, *, gone: bool, limit: int) -> list[dict[str, object]]:
        """The newest clips, newest first; those that are deleted only with `gone`."""
        return [await self._told(clip) for clip in await self._store.clips(gone=gone, limit=min(limit, MAX_CLIPS))]

    async def clip(self, beginning: str) -> Clip:
        """The clip of this id, or the only one whose id begins so. Raises `Refusal`."""
        found = await self._store.clips(gone=True, beginning=beginning.lower(), limit=4) if beginning else []
        exact = [clip for clip in found if clip.id == beginning.lower()]
        if len(exact or found) == 1:
            return (exact or found)[0]
        if not found:
            raise Refusal(404, f"there is no clip {beginning}; see: vigintd links list --gone")
        some = ", ".join(clip.id for clip in found[:3])
        raise Refusal(
            409, f"several clips begin with {beginning}: {some}{', …' if len(found) > 3 else ''}; write more of the id"
        )

    async def shown(self, clip: Clip, mailed: Mapping[str, datetime]) -> dict[str, object]:
        """All that is known of a clip's links, and who came; `mailed` as `visits` takes it."""
        rows = await self._store.audit(clip.id)
        sizes = {part.index: part.offset_bytes for part in await self._store.parts(clip.id)}
        # Of a full record this takes a while.
        found = await self._files.blocking(visits, rows, sizes, mailed)
        return await self._told(clip) | {"visits": [visit.as_json() for visit in found], "lines": len(rows)}

    async def link(self, clip: Clip, name: str) -> str:
        """The link of one recipient, told again. Raises `Refusal`."""
        self._refuse_gone(clip)
        recipient = await self._recipient(clip, name)
        if recipient.revoked_at is not None:
            raise Refusal(409, f"the link of {name} was revoked")
        self._refuse_lost_key(clip)
        await self._store.write_down(self._row(AuditKind.LINK, clip, AT_COMMAND, {"what": "shown"}, name))
        return self.url(clip.id, recipient.grant)

    async def grant(self, clip: Clip, name: str, by: Visitor = AT_COMMAND, *, again: bool = False) -> str:
        """A link for one more recipient, or the one they have; whose was revoked gets one only `again`. Raises `Refusal`."""
        self._refuse_gone(clip)
        self._refuse_lost_key(clip)
        recipient = wire.recipient(name)
        known = await self._store.recipients(clip.id)
        before = next((other for other in known if other.grant.recipient == recipient), None)
        if before is not None and before.revoked_at is None:
            return self.url(clip.id, before.grant)
        if before is not None and not again:
            raise Refusal(409, f"the link of {name} was revoked")
        if before is None and len(known) >= wire.MAX_RECIPIENTS:
            raise Refusal(413, f"a clip has at most {wire.MAX_RECIPIENTS} recipients")
        detail: dict[str, Scalar] = {} if before is None else {"what": "again"}
        return self.url(clip.id, await self._store.grant(clip.id, self._row(AuditKind.LINK, clip, by, detail, recipient)))

    async def extend(self, clip: Clip, hours: float, by: Visitor = AT_COMMAND) -> datetime:
        """Let every link of the clip live `hours` longer; answers until when. Raises `Refusal`."""
        now = self._clock.now()
        if clip.deleted_at is not None or (clip.expired(now) and not clip.held):
            raise Refusal(410, "the clip is gone; nothing is left to extend")
        if not 0 < hours <= MAX_EXPIRY_H:
            raise Refusal(400, f"hours are more than 0 and at most {MAX_EXPIRY_H}")
        expires_at = max(clip.expires_at, now) + timedelta(hours=hours)
        latest = now + LONGEST if clip.held else clip.created_at + LONGEST
        if expires_at > latest:
            left_h = max(0, int((latest - max(clip.expires_at, now)).total_seconds() // 3600))
            advice = "" if clip.held else "; a clip that is needed longer is held: vigintd links hold"
            raise Refusal(409, f"a clip is kept for at most {LONGEST.days} days: {left_h} hours are left to extend by{advice}")
        row = self._row(AuditKind.EXTENDED, clip, by, {"hours": hours, "until": expires_at.isoformat()})
        await self._store.extend(clip, expires_at, row)
        self._passes.extend(clip.id, expires_at)
        self._growth.changed(clip.id)
        return expires_at

    async def revoke(self, clip: Clip, name: str | None, by: Visitor = AT_COMMAND) -> list[str]:
        """Make the link of one recipient, or (None) of all, worthless; answers whose it was. Raises `Refusal`."""
        chosen = await self._store.recipients(clip.id) if name is None else [await self._recipient(clip, name)]
        names = [recipient.grant.recipient for recipient in chosen if recipient.revoked_at is None]
        rows = [self._row(AuditKind.REVOKED, clip, by, {}, revoked) for revoked in names]
        await self._store.revoke(clip.id, rows, self._clock.now())
        self._passes.void(clip.id, names)
        self._growth.changed(clip.id)
        _log.info("linkhost.revoked", clip=clip.id, recipients=len(names))
        return names

    async def hold(self, clip: Clip, reason: str) -> None:
        """Keep the clip beyond its time until it is released; its links expire as before. Raises `Refusal`."""
        reason = wire.clean(reason).strip()
        if not 0 < len(reason) <= MAX_REASON_CHARS:
            raise Refusal(400, f"a reason of at most {MAX_REASON_CHARS} characters is required: it stays in the record")
        if clip.deleted_at is not None:
            raise Refusal(410, "the clip is deleted; nothing is left to hold")
        await self._store.hold(clip, reason, clip.expires_at, self._row(AuditKind.HELD, clip, AT_COMMAND, {"reason": reason}))
        _log.info("linkhost.held", clip=clip.id)

    async def release(self, clip: Clip) -> datetime:
        """Hold the clip no longer; answers when it is deleted, which may have passed. Raises `Refusal`."""
        if not clip.held:
            raise Refusal(409, "the clip is not held")
        expires_at = min(clip.expires_at, max(clip.created_at + LONGEST, self._clock.now()))
        row = self._row(AuditKind.RELEASED, clip, AT_COMMAND, {"until": expires_at.isoformat()})
        await self._store.hold(clip, "", expires_at, row)
        self._passes.extend(clip.id, expires_at)
        _log.info("linkhost.released", clip=clip.id)
        return expires_at

    async def _told(self, clip: Clip) -> dict[str, object]:
        now = self._clock.now()
        parts = tuple(await self._store.parts(clip.id))
        showing = Showing(clip, parts, now)
        state = "deleted" if clip.deleted_at else "expired" if clip.expired(now) else showing.state.value
        played = await self._store.record.players(clip.id)
        return {
            "id": clip.id,
            **{key: clip.metadata.get(key) for key in ("site", "camera", "at", "type")},
            "state": state,
            "uploaded_by": clip.owner,
            "created_at": clip.created_at.isoformat(),
            "expires_at": clip.expires_at.isoformat(),
            "deleted_at": clip.deleted_at.isoformat() if clip.deleted_at else None,
            "held": clip.held or None,
            "bytes": showing.size_bytes,
            "parts": [{"index": part.index, "bytes": part.offset_bytes, "sha256": part.sha256} for part in parts],
            "recipients": [_recipient(recipient, played) for recipient in await self._store.recipients(clip.id)],
        }

    async def _recipient(self, clip: Clip, name: str) -> Recipient:
        known = await self._store.recipients(clip.id)
        for recipient in known:
            if recipient.grant.recipient == name:
                return recipient
        names = ", ".join(recipient.grant.recipient for recipient in known)
        raise Refusal(404, f"no link of this clip was made for {name}; there are: {names}")

    def _refuse_gone(self, clip: Clip) -> None:
        if clip.gone(self._clock.now()):
            raise Refusal(410, "the clip is gone; its links open nothing")

    def _refuse_lost_key(self, clip: Clip) -> None:
        if clip.key_id != tokens.key_id(self._link_key):
            raise Refusal(409, "the key that this clip's links were made with is not here any more")

    def _row(self, kind: AuditKind, clip: Clip, by: Visitor, detail: Mapping[str, Scalar], recipient: str = "") -> AuditRow:
        return AuditRow(self._clock.now(), kind, clip.id, recipient, by.address, by.client, detail)


def _recipient(recipient: Recipient, played: frozenset[str]) -> dict[str, object]:
    name = recipient.grant.recipient
    revoked_at = recipient.revoked_at.isoformat() if recipient.revoked_at else None
    return {"recipient": name, "revoked_at": revoked_at, "played": name in played}
