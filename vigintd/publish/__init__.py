"""Publishing: bringing a growing clip to the place where people see it.

Owns the `Host` protocol, its implementations, and the uploader that tails a part of the spool. Knows nothing
of cameras, detections or mail. Nobody else uses the aiohttp client, but other senders.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a host can do; the alert's timing follows from it."""

    link_at: Literal["creation", "end"]
    playable_at: Literal["first_fragment", "end"]
    resumable: bool
    per_recipient: bool
    revocable: bool
    audited: bool


@dataclass(frozen=True, slots=True)
class ClipRequest:
    """What a host is told when a clip is announced. The id is the idempotency key."""

    clip_id: str
    """The incident's id."""
    recipients: Sequence[str]
    """One link is wanted for each."""
    expiry_h: float
    metadata: Mapping[str, str | int | float | bool | None]
    """For the page: site, camera, at (ISO 8601), type, risk, confidence, text, language."""


@dataclass(frozen=True, slots=True)
class Publication:
    """A clip that a host has accepted."""

    clip_id: str
    links: Mapping[str, str]
    """Recipient → link. Empty while a host of `link_at="end"` has not sealed yet."""
    expires_at: datetime | None


class Host(Protocol):
    """A place where clips are published.

    Every method may raise `HostUnavailable` (try again) or `HostRefused` (do not). Every method may be called
    again with the same arguments after a failure, also by another process.
    """

    capabilities: Capabilities

    async def create(self, request: ClipRequest) -> Publication:
        """Announce the clip and get its links; asked again with the same id, the answer is the same."""
        ...

    async def offset(self, clip_id: str, part: int) -> int:
        """How many bytes of this part the host holds for good (0 for one it has not seen)."""
        ...

    async def append(self, clip_id: str, part: int, offset: int, body: AsyncIterator[bytes], sha256: bytes) -> int:
        """Send whole fragments that begin at byte `offset` of the part; answers the new offset.

        `sha256` is the digest of this body alone (32 bytes); the host refuses a body that does not match.
        """
        ...

    async def seal(self, clip_id: str, part: int, length_bytes: int, sha256: str) -> None:
        """The part is whole; the host compares length and SHA-256 (hex) and keeps it as evidence."""
        ...

    async def update(self, clip_id: str, metadata: Mapping[str, str | int | float | bool | None]) -> None:
        """What the incident has become; merged into what `create` said. `ended=True` when no part will follow."""
        ...

    async def probe(self) -> str:
        """One line on what was found there, for `vigintd check`; raises as the others do."""
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...
