"""When the camera was away while its incident was recorded: what the clip must say that it does not show.

Owns the telling of an outage from a late arrival. Pure: it sees packets and keeps no clock.
"""

from __future__ import annotations

from collections.abc import Iterable

from vigintd.model import MEDIA_CLOCK_HZ, Packet

LEAST_S = 0.5
"""A pause shorter than this is nobody's loss."""
_LEAST_AT_END_S = 3.0
"""Nor is a shorter one at the end: the next packet may be on its way."""
_USUAL_STEPS = 4.0
"""Nor is one of fewer steps than this, anywhere: some cameras show a picture a second, or fewer at night."""
_LEARNT = 0.2
"""How much of what is usual the last step makes up; a camera that slows down for the night is soon understood."""
_MOST_TOLD = 3


class Absences:
    """Looks at the packets of one clip in order of arrival."""

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._last: Packet | None = None
        self._usual_s: float | None = None
        """What lies between two pictures; the first step is taken for it, as nothing is known that it could be held against."""
        self._found: list[str] = []
        self._more = 0

    def look(self, packets: Iterable[Packet]) -> None:
        """Take what is written to the clip next."""
        for packet in packets:
            last, self._last = self._last, packet
            if last is None:
                self._began_s = packet.arrived_s
                continue
            step_s = packet.arrived_s - last.arrived_s
            usual_s = step_s if self._usual_s is None else self._usual_s
            shortest_s = max(LEAST_S, _USUAL_STEPS * usual_s)
            if step_s > shortest_s and not self._only_late(last, packet, shortest_s):
                self._note(last.arrived_s, step_s)
            # An outage says little of what is usual.
            self._usual_s = usual_s + _LEARNT * (min(step_s, shortest_s) - usual_s)

    @property
    def text(self) -> str:
        """When and for how long it was away, for a person; empty when it never was."""
        times = "once" if self._more == 1 else f"{self._more} times"
        more = f", and {times} more" if self._more else ""
        return f"the camera was away for {', '.join(self._found)}{more}" if self._found else ""

    def at_end(self, end_s: float) -> str:
        """The same of the end of a clip that lasted until this monotonic second."""
        least_s = max(_LEAST_AT_END_S, _USUAL_STEPS * (self._usual_s or 0.0))
        is_away = self._last is None or end_s - self._last.arrived_s > least_s
        return "the camera was away at the end" if is_away else ""

    @staticmethod
    def _only_late(last: Packet, packet: Packet, shortest_s: float) -> bool:
        """The camera's own clock says that nothing is missing: the network held it up."""
        return 0 < packet.dts_90k - last.dts_90k <= shortest_s * MEDIA_CLOCK_HZ

    def _note(self, since_s: float, lasted_s: float) -> None:
        if len(self._found) == _MOST_TOLD:
            self._more += 1
            return
        assert self._began_s is not None
        self._found.append(f"{lasted_s:.1f} s at {since_s - self._began_s:.0f} s")
