"""Telling people: one message, one recipient, one channel.

Owns the `Channel` protocol, the words of the alert in French and English, and the mail channel. Knows nothing
of cameras, clips or hosts: an `Alert` holds all it says. SMTP is spoken by `smtp` alone.
"""

from __future__ import annotations

from typing import Protocol

from vigintd.model import Alert


class Channel(Protocol):
    """A way to reach people."""

    name: str
    """Short name for journal and logs, such as `mail`."""

    async def send(self, alert: Alert) -> None:
        """Deliver one alert to its one recipient.

        Returns once the other side has accepted responsibility for it. Raises `TransientError` (try again) or
        `PermanentError` (do not). Sending the same alert again bears the same message identity.
        """
        ...

    async def probe(self) -> str:
        """One line on what was found there, for `vigintd check`; raises as `send` does."""
        ...
