"""Media times that rise, from whatever a source counts in, leaves out or turns back.

Owns the way from a source's time stamps to ticks of 90 kHz. Pure: the time of arrival is an argument.

What keeps a recording as long as the wall clock says is the *lead*: how far a packet's media time is ahead of its
arrival, less the most that was seen while the stream began (a camera may hand over what it has kept, all at once).
A network only ever makes packets late, so a lead is a clock that runs fast or has jumped, and is taken back; a lag
is waited out a little, because what was late comes in a burst, and is made good after that.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from vigintd.model import MEDIA_CLOCK_HZ

_S = MEDIA_CLOCK_HZ

_BACK_90K = _S // 2
"""A step back further than this is a new beginning (a file looped, a clock set, a counter wrapped), not jitter."""

_AHEAD_90K = _S
"""A step this much longer than the wait for the packet was a jump of the source's clock."""

_PACED_AHEAD_90K = 10 * _S
"""The same for a file, whose packets wait for nothing."""

_BURST_90K = 2 * _S
"""So long after the first packet, what comes ahead of its time is what the camera had kept."""

_LOOSE_90K = _S // 2
"""A lead or lag up to this is left alone."""

_TIGHT_90K = _S
"""A lead is never longer, and a lag never for long."""

_SLEW = 8
"""Beyond the loose bound the media clock is bent by one part in so many: enough for a clock that is a tenth off."""

_MAX_SLEW_90K = _S // 10
"""For one packet; a long wait shall not be bent into the one packet that ends it."""


def to_90k(time_base: Fraction) -> Callable[[int], int]:
    """What turns ticks of a source into ticks of 90 kHz, to the nearest; exact, and without the price of fractions."""
    scale = time_base * _S
    up, down = scale.numerator, scale.denominator
    if down == 1:
        return up.__mul__
    return lambda ticks: (2 * ticks * up + down) // (2 * down)


class MediaTimes:
    """The times of one stream's packets, in order of arrival.

    Decode times rise strictly. Where the source's clock jumps, drifts or stands still, times follow the arrivals
    within a second. `paced`: the arrivals themselves follow the times (a file), so only jumps are taken out.
    """

    def __init__(self, time_base: Fraction, *, paced: bool = False) -> None:
        self.to_90k = to_90k(time_base)
        """Ticks of the source in ticks of 90 kHz."""
        self._paced = paced
        self._last_dts: int | None = None
        self._last_arrived = 0
        self._began = 0
        self._step_90k = 1
        self._level = 0
        self._lagging: tuple[int, int] | None = None
        self.offset_90k = 0
        """What is added to the source's own times now."""

    @property
    def started(self) -> bool:
        """Whether there has been a packet."""
        return self._last_dts is not None

    def at(self, arrived_s: float) -> int:
        """The media time of a moment of arrival, going by the last packet."""
        return (self._last_dts or 0) + round(arrived_s * _S) - self._last_arrived

    def at_arrival(self, arrived_s: float) -> tuple[int, int]:
        """Presentation and decode time of a packet that is dated by its arrival alone."""
        now = round(arrived_s * _S)
        dts = now if self._last_dts is None else max(now, self._last_dts + 1)
        self._last_dts, self._last_arrived = dts, now
        return dts, dts

    def next(self, pts: int | None, dts: int | None, arrived_s: float) -> tuple[int, int]:
        """Presentation and decode time of the next packet, in 90 kHz; what is None follows from what came before.

        The first packet must have a decode time.
        """
        arrived = round(arrived_s * _S)
        shown = None if pts is None else self.to_90k(pts) + self.offset_90k
        # Without decode times there is mostly no reordering, so the time it is shown is near enough.
        begin = shown if dts is None else self.to_90k(dts) + self.offset_90k
        last = self._last_dts
        if last is None:
            assert begin is not None
            self._began, self._level = arrived, begin - arrived
        else:
            if begin is None:
                begin = last + self._step_90k
            shift = self._correction(begin, last, arrived)
            if shift:
                self.offset_90k += shift
                begin += shift
                shown = None if shown is None else shown + shift
            begin = max(begin, last + 1)
            self._step_90k = begin - last
        self._last_dts, self._last_arrived = begin, arrived
        return (begin if shown is None or shown < begin else shown), begin

    def _correction(self, begin: int, last: int, arrived: int) -> int:
        step, passed = begin - last, max(arrived - self._last_arrived, 0)
        if self._paced:
            return 0 if 0 < step <= _PACED_AHEAD_90K else self._step_90k - step
        if not -_BACK_90K <= step <= passed + _AHEAD_90K:
            self._lagging = None
            onward = max(last + min(self._step_90k, _TIGHT_90K), arrived + self._level)
            return min(onward, arrived + self._level + _TIGHT_90K) - begin
        lead = begin - arrived - self._level
        if -_LOOSE_90K <= lead <= _LOOSE_90K:
            self._lagging = None
            if lead > 0 and arrived - self._began < _BURST_90K:
                self._level += lead
            return 0
        # What comes in a burst is catching up by itself.
        bend = min(passed // _SLEW, _MAX_SLEW_90K) if lead > 0 or 2 * passed >= step else 0
        return self._less(lead, arrived, bend) if lead > 0 else self._more(lead, arrived, bend)

    def _less(self, lead: int, arrived: int, bend: int) -> int:
        """The correction of a packet that comes ahead of its time."""
        self._lagging = None
        if arrived - self._began < _BURST_90K:
            self._level += lead
            return 0
        return -max(min(lead - _LOOSE_90K, bend), lead - _TIGHT_90K)

    def _more(self, lead: int, arrived: int, bend: int) -> int:
        """The correction of a packet that comes behind its time."""
        if lead >= -_TIGHT_90K:
            self._lagging = None
        elif self._lagging is None or lead - self._lagging[1] > _LOOSE_90K:
            # It is catching up.
            self._lagging = (arrived, lead)
        elif arrived - self._lagging[0] > _TIGHT_90K:
            self._lagging = None
            return -lead
        return min(-_LOOSE_90K - lead, bend)
