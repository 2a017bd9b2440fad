"""Whole access units, from a demuxer that may hand one over in two pieces.

A sender that repeats SPS and PPS in the middle of a key frame of several slices makes FFmpeg's parser see two
pictures where there is one (parameter sets begin an access unit: ITU-T H.264 section 7.4.1.2.3). Each half would decode
as a damaged picture. All pieces bear the same time (RFC 6184 section 5.1), and by that they are joined again.
"""

from __future__ import annotations

from dataclasses import replace

from vigintd.camera.parameters import first_slice
from vigintd.model import Packet


class AccessUnits:
    """Joins pieces of key frames.

    To know that a key frame is whole, its successor must have come. That delay is taken for the first key frame of
    a stream, and after that only where pieces have been seen.
    """

    def __init__(self, codec: str) -> None:
        self._codec = codec
        self._may_split = codec in ("h264", "hevc")
        self._held: Packet | None = None
        self._pieces = 0

    def take(self, packet: Packet, *, same_time: bool) -> list[Packet]:
        """What is whole now that one more packet has come; `same_time`: it bears the time of the one before it."""
        if self._held is not None and same_time:
            piece = packet.data[first_slice(self._codec, packet.data) :]
            self._held = replace(self._held, data=self._held.data + piece)
            self._pieces += 1
            return []
        if self._held is not None:
            self._may_split = self._pieces > 1
        elif same_time and packet.is_key:
            self._may_split = True
        whole = self.rest()
        if packet.is_key and self._may_split:
            self._held, self._pieces = packet, 1
            return whole
        return [*whole, packet]

    def rest(self) -> list[Packet]:
        """What is still held, at the end of the stream."""
        held, self._held = self._held, None
        return [] if held is None else [held]
