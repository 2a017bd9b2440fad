"""Media times that rise, from whatever a source counts in, leaves out or turns back.

Owns the way from a source's time stamps to ticks of 90 kHz. Pure: the time of arrival is an argument.
"""

from __future__ import annotations

from fractions import Fraction

from vigintd.model import MEDIA_CLOCK_HZ

_BACK_90K = MEDIA_CLOCK_HZ // 2
"""A step back further than this is a new beginning (a file looped, a clock set, a counter wrapped), not jitter."""

_AHEAD_90K = 5 * MEDIA_CLOCK_HZ
"""A step this much longer than the wait for the packet was a jump of the source's clock."""


class MediaTimes:
    """The times of one stream's packets, in order of arrival.

    Decode times rise strictly. Where the source's clock jumps, times go on by the time that passed between
    arrivals, so that a recording's length stays near the wall clock's.
    """

    def __init__(self, time_base: Fraction) -> None:
        self._scale = time_base * MEDIA_CLOCK_HZ
        self._last_dts: int | None = None
        self._last_arrived_s = 0.0
        self._step_90k = 1
        self._offset_90k = 0

    @property
    def started(self) -> bool:
        """Whether there has been a packet."""
        return self._last_dts is not None

    def rescaled(self, ticks: int) -> int:
        """Ticks of the source in ticks of 90 kHz."""
        return round(ticks * self._scale)

    def at_arrival(self, arrived_s: float) -> tuple[int, int]:
        """Presentation and decode time of a packet that is dated by its arrival alone."""
        now = round(arrived_s * MEDIA_CLOCK_HZ)
        dts = now if self._last_dts is None else max(now, self._last_dts + 1)
        self._last_dts = dts
        return dts, dts

    def next(self, pts: int | None, dts: int | None, arrived_s: float) -> tuple[int, int]:
        """Presentation and decode time of the next packet, in 90 kHz; what is None follows from what came before.

        The first packet must have a decode time.
        """
        shown = None if pts is None else self.rescaled(pts) + self._offset_90k
        begin = None if dts is None else self.rescaled(dts) + self._offset_90k
        if self._last_dts is None:
            assert begin is not None
            self._last_dts, self._last_arrived_s = begin, arrived_s
            return max(begin, begin if shown is None else shown), begin
        if begin is None:
            # Without decode times there is mostly no reordering, so the time it is shown is near enough.
            begin = shown if shown is not None else self._last_dts + self._step_90k
        passed = round((arrived_s - self._last_arrived_s) * MEDIA_CLOCK_HZ)
        if not -_BACK_90K <= begin - self._last_dts <= max(passed, 0) + _AHEAD_90K:
            shift = self._last_dts + max(passed, self._step_90k) - begin
            self._offset_90k += shift
            begin += shift
            shown = None if shown is None else shown + shift
        begin = max(begin, self._last_dts + 1)
        self._step_90k = begin - self._last_dts
        self._last_dts, self._last_arrived_s = begin, arrived_s
        return max(begin, begin if shown is None else shown), begin
