"""Why a stream was lost, said in one word for status and logs and in one sentence for a person.

Owns the mapping from what FFmpeg and the resolver raise. Their texts hold whole URLs, so nothing of them goes
out but redacted, and they are never chained as causes.
"""

from __future__ import annotations

import errno
import socket

import av
import av.error

from vigintd.camera.stream import Reason
from vigintd.errors import StreamLost
from vigintd.redact import redacted

_SENTENCES: dict[Reason, str] = {
    "dns": "the camera's name has no address; is it spelt right, is DNS up?",
    "refused": "nothing listens there; is the camera on, is the port right?",
    "unreachable": "there is no way to that address; is the network up?",
    "unauthorized": "the camera wants another user name or password",
    "not_found": "there is no such stream; is the path right?",
    "timeout": "no answer in time",
    "rejected": "the camera answered with an error",
    "unsupported": "this kind of source cannot be read here",
    "garbage": "what arrives is no video that can be decoded",
    "ended": "the camera ended the stream",
    "redirects": "it is redirected from one address to the next without end",
    "stalled": "nothing more arrives",
    "no_video": "the connection is alive and bytes come, but no video",
    "vanished": "the camera no longer acknowledges anything; has it lost power or network?",
    "frozen": "it shows one and the same picture all the time",
    "stuck": "earlier readers of this stream do not let go",
    "failed": "the stream failed",
}

# Order matters: FFmpeg's errors are subclasses of one another and of Python's.
_BY_TYPE: tuple[tuple[type[Exception], Reason], ...] = (
    (socket.gaierror, "dns"),
    (av.error.HTTPUnauthorizedError, "unauthorized"),
    (av.error.HTTPForbiddenError, "unauthorized"),
    (av.error.HTTPNotFoundError, "not_found"),
    (av.error.HTTPClientError, "rejected"),
    (av.error.HTTPError, "rejected"),
    (av.error.ConnectionRefusedError, "refused"),
    (av.error.ConnectionResetError, "ended"),
    (av.error.ConnectionAbortedError, "ended"),
    (av.error.BrokenPipeError, "ended"),
    (av.error.EOFError, "ended"),
    (av.error.TimeoutError, "timeout"),
    (av.error.ExitError, "timeout"),
    (av.error.FileNotFoundError, "not_found"),
    (av.error.IsADirectoryError, "not_found"),
    (av.error.LookupError, "unsupported"),
    (av.error.PatchWelcomeError, "unsupported"),
    (av.error.ArgumentError, "unsupported"),
    (av.error.InvalidDataError, "garbage"),
)

_UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}


def lost(reason: Reason, label: str, detail: str = "") -> StreamLost:
    """The error for `reason`, about the stream called `label`."""
    text = f"{label}: {_SENTENCES[reason]}"
    return StreamLost(redacted(f"{text} ({detail})" if detail else text), reason=reason)


def lost_while_opening(error: Exception, label: str, *, waited_s: float, patience_s: float) -> StreamLost:
    """What an exception of opening means; a wait as long as a time-out was one, whatever FFmpeg calls it."""
    reason = _reason_of(error)
    if reason in ("garbage", "unsupported", "failed") and waited_s >= 0.95 * patience_s:
        reason = "timeout"
    return lost(reason, label, _detail(error))


def lost_while_reading(error: Exception, label: str) -> StreamLost:
    """What an exception of reading means; a time-out there is a stream that opened and then stalled."""
    reason = _reason_of(error)
    return lost("stalled" if reason == "timeout" else reason, label, _detail(error))


def _reason_of(error: Exception) -> Reason:
    if getattr(error, "errno", None) in _UNREACHABLE:
        return "unreachable"
    return next((reason for kind, reason in _BY_TYPE if isinstance(error, kind)), "failed")


def _detail(error: Exception) -> str:
    """FFmpeg's words without its number and its URL."""
    return redacted(str(getattr(error, "strerror", None) or type(error).__name__))
