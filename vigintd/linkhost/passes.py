"""Who is being sent video right now, so that what is revoked or over ends at once and not with the next request.

Owns what lives only while the process does; that every request is checked anew is the viewer's. Loop only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime

from vigintd.linkhost.store import Clip


class Pass:
    """The right of one answer to go on."""

    def __init__(self, clip: Clip, recipient: str) -> None:
        self.clip_id = clip.id
        self.recipient = recipient
        self.void = False
        self._expires_at = clip.expires_at

    def over(self, now: datetime) -> bool:
        """Nothing more may be sent."""
        return self.void or now >= self._expires_at

    def extend(self, expires_at: datetime) -> None:
        """The clip's links live until then."""
        self._expires_at = expires_at


class Passes:
    """Every pass that is lent; as many as there are answers under way."""

    def __init__(self) -> None:
        self._lent: dict[str, set[Pass]] = {}

    @contextmanager
    def lend(self, clip: Clip, recipient: str) -> Iterator[Pass]:
        """A pass for as long as an answer takes. Look once more whether the link is good after taking it."""
        taken = Pass(clip, recipient)
        lent = self._lent.setdefault(clip.id, set())
        lent.add(taken)
        try:
            yield taken
        finally:
            lent.discard(taken)
            if not lent:
                self._lent.pop(clip.id, None)

    def void(self, clip_id: str, recipients: Collection[str] | None = None) -> None:
        """End what is sent of this clip to these recipients, or (None) to anybody."""
        for taken in self._lent.get(clip_id, ()):
            taken.void = taken.void or recipients is None or taken.recipient in recipients

    def extend(self, clip_id: str, expires_at: datetime) -> None:
        """What is sent of this clip may go on until then."""
        for taken in self._lent.get(clip_id, ()):
            taken.extend(expires_at)
