"""What packets' sizes tell of a scene that nobody decodes.

Owns how large packets usually are while nothing moves, half a second by half a second from each key frame on: encoders
spend bits in a pattern that begins anew there, so a place is compared with the same place of other GOPs. What stands out
may be movement. Where noise or a constant bit rate swamps it, sizes cannot tell, and that is said too. Pure.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from vigintd.model import MEDIA_CLOCK_HZ, Packet

_STRETCH_90K = MEDIA_CLOCK_HZ // 2
_PLACES = 24
"""Stretches from a key frame on that are told apart; what lies further on is like the last of them."""

_TIMES_SPREAD = 5.0
_LEAST_RISE = math.log(1.03)
_SMALL_BYTES = 64
"""Added to each size, so that a few bytes more on next to nothing are no news."""

_MOST_SHARE = 0.0125
"""A change must stand out that adds so much of a key frame's bytes to each packet, or sizes cannot tell."""

_NEVER_LESS_BYTES = 200
"""Nothing that matters adds less to each packet."""

_LEAST_SEEN = 2
_WEIGHT = 0.25
_PENDING_S = 1.5
"""Movement is known to be none only after a while; so late is a stretch learnt."""

_BESIDE_S = 0.5


@dataclass(frozen=True, slots=True)
class _Stretch:
    place: int
    level: float
    """Logarithm of the mean size."""
    began_s: float
    ended_s: float


class Sizes:
    """The sizes of one stream's packets, in order of arrival."""

    def __init__(self) -> None:
        self._usual: dict[int, tuple[int, float]] = {}
        """For each place: seen how often, and the usual level."""
        self._spread = 0.1
        self._key_bytes = 0.0
        self._key_dts: int | None = None
        self._place = -1
        self._bytes = 0
        self._packets = 0
        self._began_s = 0.0
        self._last_place = 0
        self._pending: deque[_Stretch] = deque()

    def take(self, packet: Packet) -> bool:
        """Whether the stretch that this packet ends stands out, or is one that nothing is known of."""
        if packet.is_key:
            stands_out = self._end(packet.arrived_s)
            self._last_place = max(self._place, 0)
            self._key_bytes = len(packet.data) if not self._key_bytes else self._key_bytes * 0.75 + len(packet.data) * 0.25
            self._key_dts, self._place = packet.dts_90k, -1
            return stands_out
        if self._key_dts is None:
            return False
        place = max(0, min((packet.dts_90k - self._key_dts) // _STRETCH_90K, _PLACES - 1))
        stands_out = False
        if place != self._place:
            stands_out = self._end(packet.arrived_s)
            self._place = place
            self._began_s = packet.arrived_s
        self._bytes += len(packet.data)
        self._packets += 1
        return stands_out

    def learn(self, now_s: float, moved_s: float) -> None:
        """Learn from what came a while before `now_s`, but not from what came near movement, last seen at `moved_s`."""
        while self._pending and self._pending[0].ended_s <= now_s - _PENDING_S:
            stretch = self._pending.popleft()
            if moved_s < stretch.began_s - _BESIDE_S:
                self._learn(stretch)

    @property
    def can_tell(self) -> bool:
        """Whether movement of some size would stand out wherever in a GOP it came."""
        known = [self._usual.get(place) for place in range(self._last_place + 1)]
        if not all(seen and seen[0] >= _LEAST_SEEN for seen in known):
            return False
        level = max(seen[1] for seen in known if seen)
        added_bytes = (math.exp(self._rise) - 1) * math.exp(level)
        return added_bytes <= max(_MOST_SHARE * self._key_bytes, _NEVER_LESS_BYTES)

    @property
    def _rise(self) -> float:
        return max(_TIMES_SPREAD * self._spread, _LEAST_RISE)

    def _end(self, now_s: float) -> bool:
        if not self._packets:
            return False
        level = math.log(self._bytes / self._packets + _SMALL_BYTES)
        self._pending.append(_Stretch(self._place, level, self._began_s, now_s))
        if len(self._pending) > _PLACES:
            self._pending.popleft()
        self._bytes = self._packets = 0
        seen, usual = self._usual.get(self._place, (0, 0.0))
        return seen < _LEAST_SEEN or level > usual + self._rise

    def _learn(self, stretch: _Stretch) -> None:
        seen, usual = self._usual.get(stretch.place, (0, stretch.level))
        apart = stretch.level - usual
        self._usual[stretch.place] = (seen + 1, usual + max(_WEIGHT, 1 / (seen + 1)) * apart)
        if seen >= _LEAST_SEEN:
            self._spread += 0.1 * (min(1.25 * abs(apart), 2 * self._rise) - self._spread)
