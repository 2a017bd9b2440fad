"""The clip's time: from a camera's timestamps, as they are, to timestamps that rise and keep to the wall clock.

Owns one part's mapping of source ticks to output ticks. Cameras restart their clock, jump by hours, wrap at 33 bits
and repeat themselves; packets arrive late and in bursts. So the source's steps are believed, they are smoother than
arrival, and where they cannot be believed the arrival says where to go on.
"""

from __future__ import annotations

from dataclasses import dataclass

from vigintd.model import MEDIA_CLOCK_HZ, Packet

_SLACK = MEDIA_CLOCK_HZ
"""A step ahead of the wall clock by more than this is a jump of the camera's clock."""
_BACKWARD = MEDIA_CLOCK_HZ // 2
"""A step back by more than this is a restart of the camera's clock; by less, disorder among packets that came in time."""
_LATE_S = 5.0
"""Packets late for so long are not a burst to come: the time was lost, and the clip shows it as a pause."""
_LONGEST = 10 * MEDIA_CLOCK_HZ
"""A duration, or a picture shown after its decoding, by more than this is nonsense."""
USUAL_DURATION_90K = MEDIA_CLOCK_HZ // 25
"""Of a picture, where nobody says."""
_WRAP = 1 << 33
"""Where the clock of MPEG transport begins anew (ISO/IEC 13818-1, section 2.4.3.7)."""


@dataclass(frozen=True, slots=True)
class Times:
    """Where a packet lies in its part, in ticks of 90 kHz."""

    pts_90k: int
    dts_90k: int
    duration_90k: int


class Timeline:
    """Places one part's packets, in arrival order. The first lies at dts 0; dts rises strictly, pts is never before it."""

    def __init__(self) -> None:
        self._offset = 0
        self._origin_s = 0.0
        """Arrival that stands for output time 0: that of the most punctual packet so far, counted back."""
        self._last_dts = -1
        self._highest_pts = -1
        self._step = USUAL_DURATION_90K
        self._late_since_s: float | None = None
        self._least_late = 0

    def place(self, packet: Packet) -> Times:
        """The times of the next packet."""
        if self._last_dts < 0:
            self._offset, self._origin_s = packet.dts_90k, packet.arrived_s
        # Around a wrap the one time has wrapped and the other not yet.
        ahead = (packet.pts_90k - packet.dts_90k) % _WRAP
        ahead = ahead if ahead <= _LONGEST else 0
        clock = round((packet.arrived_s - self._origin_s) * MEDIA_CLOCK_HZ)
        dts = packet.dts_90k - self._offset
        step = dts - self._last_dts
        is_restart = step < -_BACKWARD or (step <= 0 and clock - dts > _SLACK)
        is_jump = step > _SLACK and dts - clock > _SLACK
        if self._last_dts >= 0 and (is_restart or is_jump):
            # Behind everything shown so far, so that no two pictures claim one moment.
            dts = self._move(dts, max(clock, self._last_dts + self._step, self._highest_pts + 1 - ahead))
        elif dts > clock:
            self._origin_s -= (dts - clock) / MEDIA_CLOCK_HZ
            self._late_since_s = None
        else:
            dts = self._catch_up(dts, clock, packet.arrived_s)
        shown = dts + ahead
        dts = max(dts, self._last_dts + 1)
        if 0 < packet.duration_90k <= _LONGEST:
            self._step = packet.duration_90k
        elif 0 < step < _SLACK and self._last_dts >= 0:
            self._step = step
        self._last_dts = dts
        pts = max(dts, shown)
        self._highest_pts = max(self._highest_pts, pts)
        return Times(pts, dts, self._step)

    def heard(self, begin_90k: int) -> int | None:
        """Where sound lies that begins at this source time and came with the packet placed last; None for nonsense.

        It takes every step of the picture's clock that the picture takes.
        """
        begin = begin_90k - self._offset
        return begin if abs(begin - self._last_dts) <= _LONGEST else None

    def _move(self, dts: int, target: int) -> int:
        self._offset += dts - target
        self._late_since_s = None
        return target

    def _catch_up(self, dts: int, clock: int, arrived_s: float) -> int:
        """Move on to the wall clock once even the most punctual packet of a while was late by more than the slack."""
        late = clock - dts
        if late <= _SLACK:
            self._late_since_s = None
        elif self._late_since_s is None:
            self._late_since_s, self._least_late = arrived_s, late
        else:
            self._least_late = min(self._least_late, late)
            if arrived_s - self._late_since_s >= _LATE_S:
                return self._move(dts, dts + self._least_late)
        return dts
