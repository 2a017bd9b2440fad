"""How long one stream's silence is borne, and what it then means.

Owns the deadlines of the watchdog and the naming of silence. Pure: progress, the connection's state and the time
are arguments. Remembers of one URL how seldom its key frames come, on over its lives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vigintd.camera.capture import Progress
from vigintd.camera.stream import Reason, Wire

_OPEN_GRACE_S = 8.0
"""Waiting for one's turn, resolving a name and closing come on top of FFmpeg's own time-out for opening."""

_MAX_KEY_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Over:
    """This life of the stream is over."""

    reason: Reason
    detail: str


class Patience:
    """The patience with one stream."""

    def __init__(self, open_timeout_s: float, stall_timeout_s: float) -> None:
        self._open_s = open_timeout_s + _OPEN_GRACE_S
        self._stall_s = stall_timeout_s
        self._key_s = stall_timeout_s

    def verdict(self, progress: Progress, wire: Callable[[], Wire | None], *, began_s: float, now_s: float) -> float | Over:
        """The second at which to look again, or why the life that began at `began_s` is over.

        `wire` is asked only when something is overdue.
        """
        if progress.opened_s is None:
            due_s = began_s + self._open_s
            return due_s if now_s < due_s else Over("timeout", f"not open after {self._open_s:g} s")
        key_s = max(self._key_s, 2 * progress.longest_gop_s)
        blind_s = (progress.last_key_s or progress.opened_s) + key_s
        silent_s = (progress.last_packet_s or progress.opened_s) + self._stall_s
        if now_s < min(silent_s, blind_s):
            return min(silent_s, blind_s)
        quiet_s = now_s - silent_s + self._stall_s
        if now_s < silent_s:
            if quiet_s > self._stall_s / 2:
                # It has just fallen silent: that is not for want of a key frame.
                return silent_s
            self._be_more_patient()
            return Over("garbage", f"no key frame could be decoded for {key_s:g} s, though data come")
        reason = silence(wire(), quiet_s)
        if reason == "no_video" and progress.last_packet_s is None:
            # What comes ahead of the first key frame is no packet yet.
            if now_s < blind_s:
                return blind_s
            self._be_more_patient()
        return Over(reason, f"for {quiet_s:.0f} s")

    def _be_more_patient(self) -> None:
        """It may be a camera with few key frames: wait longer for the next one in the next life."""
        self._key_s = max(self._key_s, min(2 * self._key_s, _MAX_KEY_PATIENCE_S))


def silence(wire: Wire | None, quiet_s: float) -> Reason:
    """What it means that no packet has come for `quiet_s` seconds."""
    if wire is not None and wire.is_unanswered:
        return "vanished"
    # What was heard in the first half may be the end of the last packet.
    if wire is not None and wire.heard_ago_s < quiet_s / 2:
        return "no_video"
    return "stalled"
