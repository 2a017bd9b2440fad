"""The camera source contract: what a capture thread needs of a stream, whoever reads it.

Owns the protocol and the list of reasons for which a stream is lost. The implementation on FFmpeg is
`av_stream`; tests bring their own. `tests/camera/test_source_contract.py` holds every one to this.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from vigintd.clock import Clock
from vigintd.model import Packet

Reason = Literal[
    "dns",  # the name of the camera has no address
    "refused",  # nothing listens there
    "unreachable",  # no way to that network
    "unauthorized",  # user name or password wrong, or forbidden
    "not_found",  # no such stream, file or device
    "timeout",  # no answer while opening
    "rejected",  # the camera answered with another error
    "unsupported",  # FFmpeg here cannot read this kind of source
    "garbage",  # what comes is not video that can be decoded
    "ended",  # the other side closed
    "redirects",  # sent from one address to another without end
    "stalled",  # opened, then nothing at all
    "no_video",  # bytes come, but no video in them
    "vanished",  # what is sent to it is no longer acknowledged
    "frozen",  # one same picture for too long
    "stuck",  # earlier readers do not let go
    "failed",  # anything else
]


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """Where a stream is, and how long to wait for it."""

    url: str = field(repr=False)
    """With credentials where there are any: never to be shown."""
    label: str
    """The same without credentials, for logs and errors."""
    open_timeout_s: float
    stall_timeout_s: float
    transport: Literal["tcp", "udp"] = "tcp"
    """Of RTSP."""
    audio: bool = False
    """Bring sound with the pictures (`Packet.audio`)."""


@dataclass(frozen=True, slots=True)
class Wire:
    """What the kernel knows of a stream's connection at one moment."""

    heard_ago_s: float
    """Seconds since the last byte came from the peer, whether it was read or not."""
    is_unanswered: bool
    """The peer acknowledges nothing: neither what was sent and sent again, nor the kernel's own questions."""


class Stream(Protocol):
    """One opened source. One thread opens, reads and closes it; only `interrupt` and `wire` may come from another."""

    def packets(self) -> Iterator[Packet]:
        """Packets of the video, blocking for each, from the first key frame that has a time.

        Decode times rise strictly, `arrived_s` never falls, and packets share one `StreamParameters` value until it
        changes at a key frame. Ends quietly when the other side ends or after `interrupt`; raises `StreamLost`
        with one of `Reason` when it breaks.
        """
        ...

    def interrupt(self) -> None:
        """Make `packets` end soon; from any thread, more than once, also after `close`."""
        ...

    def wire(self) -> Wire | None:
        """How its connection is now; from any thread, at once, also after `close`.

        None where that is not known: no TCP, several connections, or none any more.
        """
        ...

    def close(self) -> None:
        """Let go of everything; more than once does no harm."""
        ...


class OpenStream(Protocol):
    """Opens a source; blocks at most a little longer than `open_timeout_s`."""

    def __call__(self, request: StreamRequest, clock: Clock) -> Stream:
        """The opened stream. Raises `StreamLost` with one of `Reason`; no credential is in its text or its causes."""
        ...
