"""The ring: a camera's recent packets, bounded in seconds and in bytes, readable from a key frame.

Owns what is kept for the pre-roll and how one or more readers follow it live. Knows nothing of FFmpeg, files
or incidents. It lives on the event loop's thread alone; capture threads hand their packets over before.

Packets lie in order of arrival, and a GOP (a key frame and what follows it up to the next one) comes and
goes as a whole: the first packet that can be read is always a key frame.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field

from vigintd import metrics
from vigintd.model import Packet

GAP_S = 5.0
"""Without packets for longer than this, what came before belongs to another time."""


@dataclass(slots=True)
class _Gop:
    """A readable GOP: where it begins."""

    first_seq: int
    first_arrived_s: float


@dataclass(slots=True, eq=False)
class _Follower:
    """A reader's place: the packet it wants next, or, with `wants_key`, the next key frame from there on."""

    next_seq: int
    wants_key: bool
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Ring:
    """Recent packets of one camera.

    Whole GOPs leave from the front, while the rest still spans `span_s` seconds of arrival or while there are
    more than `limit_bytes` coded bytes, their sound included. A single GOP larger than `limit_bytes` empties the
    ring: nothing can be read until the next key frame (`ring.gop_too_large`). Followers that are up to date still get
    its packets; those are held beside, within the same bound, until the slowest follower has them.

    A batch that a follower was given is its own, and at most another `limit_bytes` until it asks for the next.
    """

    def __init__(self, *, camera: str, span_s: float, limit_bytes: int) -> None:
        self._camera = camera
        self._span_s = span_s
        self._limit_bytes = limit_bytes
        self._packets: deque[Packet] = deque()
        self._first_seq = 0
        self._size_bytes = 0
        self._gops: deque[_Gop] = deque()
        self._followers: list[_Follower] = []
        self._closed = False

    @property
    def size_bytes(self) -> int:
        """Coded bytes held, sound included; never more than `limit_bytes`."""
        return self._size_bytes

    @property
    def held_s(self) -> float:
        """Seconds of arrival between the oldest and the newest packet that can be read."""
        return self._packets[-1].arrived_s - self._gops[0].first_arrived_s if self._gops else 0.0

    def __len__(self) -> int:
        """How many packets can be read."""
        return self._next_seq - self._gops[0].first_seq if self._gops else 0

    def append(self, packets: Iterable[Packet]) -> None:
        """Take packets in order of arrival; ignored once the ring is closed.

        What comes before the very first key frame is of no use to anybody and is dropped.
        """
        if self._closed:
            return
        for packet in packets:
            self._append(packet)
        for follower in self._followers:
            follower.news.set()

    def since(self, moment_s: float) -> list[Packet]:
        """From the key frame at or before `moment_s` (else the oldest one held) to the newest packet."""
        return self._from(self._start(moment_s)) if self._gops else []

    async def follow(self, since_s: float) -> AsyncGenerator[list[Packet]]:
        """What `since` gives at the first step, then what arrives, in batches, until the ring is closed.

        No batch is empty. A reader so slow that packets left before it had them goes on at the next key frame
        held; how many it missed is counted (`ring.packets_missed`).
        """
        start_seq = self._start(since_s)
        follower = _Follower(start_seq, wants_key=start_seq == self._next_seq)
        self._followers.append(follower)
        try:
            while True:
                follower.news.clear()
                if batch := self._take(follower):
                    yield batch
                elif self._closed:
                    return
                else:
                    await follower.news.wait()
        finally:
            self._followers.remove(follower)

    def close(self) -> None:
        """Take no more packets; followers end once they have what is held."""
        self._closed = True
        for follower in self._followers:
            follower.news.set()

    @property
    def _next_seq(self) -> int:
        return self._first_seq + len(self._packets)

    def _append(self, packet: Packet) -> None:
        if packet.is_key:
            self._gops.append(_Gop(self._next_seq, packet.arrived_s))
        elif not self._gops and not self._somebody_reads_on():
            # Its GOP's key frame is not here, so nobody could decode it.
            self._forget_all()
            return
        self._packets.append(packet)
        self._size_bytes += packet.size_bytes
        self._drop_what_nobody_can_read()
        self._evict_over_limit()
        self._evict_over_span(packet.arrived_s)

    def _somebody_reads_on(self) -> bool:
        return any(not follower.wants_key for follower in self._followers)

    def _forget_all(self) -> None:
        self._first_seq = self._next_seq
        self._packets.clear()
        self._size_bytes = 0

    def _evict_over_limit(self) -> None:
        while self._size_bytes > self._limit_bytes:
            if not self._gops or self._first_seq < self._gops[0].first_seq:
                self._drop_first()
            elif len(self._gops) > 1:
                self._drop_first_gop()
            else:
                metrics.count("ring.gop_too_large", self._camera)
                self._gops.clear()
                self._drop_what_nobody_can_read()

    def _evict_over_span(self, newest_s: float) -> None:
        while len(self._gops) > 1 and newest_s - self._gops[1].first_arrived_s >= self._span_s:
            self._drop_first_gop()

    def _drop_first_gop(self) -> None:
        end_seq = self._gops[1].first_seq
        self._gops.popleft()
        while self._first_seq < end_seq:
            self._drop_first()

    def _drop_what_nobody_can_read(self) -> None:
        """Packets ahead of the first readable GOP are kept for followers that are in the middle of them."""
        wanted_seq = self._gops[0].first_seq if self._gops else self._next_seq
        for follower in self._followers:
            if not follower.wants_key and follower.next_seq >= self._first_seq:
                wanted_seq = min(wanted_seq, follower.next_seq)
        while self._first_seq < wanted_seq:
            self._drop_first()

    def _drop_first(self) -> None:
        self._size_bytes -= self._packets.popleft().size_bytes
        self._first_seq += 1

    def _start(self, moment_s: float) -> int:
        """Sequence number of the key frame at or before the moment, else the oldest behind it; the next packet if none.

        A GOP that ended `GAP_S` before the moment shows another time: what came before an outage is not the pre-roll
        of what comes after it.
        """
        end_seq = self._next_seq
        for gop in reversed(self._gops):
            if gop.first_arrived_s <= moment_s:
                last = self._packets[end_seq - 1 - self._first_seq]
                return gop.first_seq if last.arrived_s >= moment_s - GAP_S else end_seq
            end_seq = gop.first_seq
        return end_seq

    def _from(self, seq: int) -> list[Packet]:
        # From the end, because a deque is slow in its middle and readers are mostly near the end.
        count = self._next_seq - seq
        newest_first = [packet for packet, _ in zip(reversed(self._packets), range(count), strict=False)]
        return newest_first[::-1]

    def _take(self, follower: _Follower) -> list[Packet]:
        """What this follower has not had yet, and moves it on; nothing while it waits for a key frame."""
        if follower.next_seq < self._first_seq:
            follower.wants_key = True
        if follower.wants_key:
            if not self._gops:
                return []
            key_seq = next((gop.first_seq for gop in self._gops if gop.first_seq >= follower.next_seq), None)
            if key_seq is None:
                return []
            if key_seq > follower.next_seq:
                metrics.count("ring.packets_missed", self._camera, key_seq - follower.next_seq)
            follower.next_seq, follower.wants_key = key_seq, False
        batch = self._from(follower.next_seq)
        follower.next_seq = self._next_seq
        return batch
