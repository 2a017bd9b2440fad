"""The one error root and its leaves.

Owns the question "may this be tried again?": a failure is transient (the same call may succeed later) or
permanent (it will not, whatever the wait). Nothing else is decided here; when to try again is `retry`'s.
"""

from __future__ import annotations

from dataclasses import dataclass


class VigintdError(Exception):
    """Root of every error that vigintd raises on purpose; its message is fit for a user's eyes."""


class TransientError(VigintdError):
    """May succeed when tried again.

    `retry_after_s` is the wait the other side asked for, in seconds, or None when it asked for none.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class PermanentError(VigintdError):
    """Will not succeed when tried again as it is."""


class StreamLost(TransientError):
    """A camera's stream could not be opened, ended, or stopped making progress.

    `reason` is one lower-case word for status and logs, such as `refused`, `ended` or `stalled`.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class HostUnavailable(TransientError):
    """The host of clips did not answer, broke off, or answered that it cannot now (5xx, 429)."""


class HostRefused(PermanentError):
    """The host of clips answered that it will not take this (wrong key, too large, conflicting bytes)."""


class MailUnavailable(TransientError):
    """The mail server did not answer, broke off, or deferred the message (4yz)."""


class MailRefused(PermanentError):
    """The mail server refused the message, the recipient or the credentials (5yz)."""


class JournalUnavailable(TransientError):
    """The journal could not be read or written now: the disk is full, the file is locked or damaged."""


class ControlError(PermanentError):
    """The running daemon could not be asked, or refused what it was asked."""


class ClipError(PermanentError):
    """The clip could not be written from these packets."""


class DetectorError(PermanentError):
    """A detector could not be found or built from its options."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in the configuration."""

    where: str
    """File or environment variable that holds the value."""
    key: str
    """Dotted key, such as `cameras.entree.url`; empty when the whole file is meant."""
    problem: str
    """What is wrong and, where it can be said, what to write instead."""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.key, self.problem) if part)


class ConfigError(PermanentError):
    """The configuration cannot be used; carries every fault that was found, not just the first."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults
