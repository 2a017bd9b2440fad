"""Whole access units, from a demuxer that may hand one over in two pieces.

A sender that repeats SPS and PPS in the middle of a key frame of several slices makes FFmpeg's parser see two
pictures where there is one (parameter sets begin an access unit: ITU-T H.264 section 7.4.1.2.3). Each half would decode
as a damaged picture. All pieces bear the same time (RFC 6184 section 5.1), and by that they are joined again.
"""

from __future__ import annotations

from dataclasses import dataclass

from vigintd.camera.parameters import begins_picture, first_slice


@dataclass(slots=True, eq=False)
class Unit:
    """What a demuxer hands over, in the ticks of its source."""

    data: bytes
    pts: int | None
    dts: int | None
    duration: int
    """0 when the source does not say."""
    is_key: bool
    arrived_s: float
    extradata: bytes | None = None
    """A new set-up of the codec that came beside the data (`StreamParameters.extradata`)."""


_MAX_PIECES = 512
"""A stream whose time never changes is not one picture: what is behind so many pieces is handed on as it comes."""


class AccessUnits:
    """Joins pieces of key frames.

    To know that a key frame is whole, its successor must have come. That delay is taken for the first key frame of
    a stream, and after that only where pieces have been seen.
    """

    def __init__(self, codec: str) -> None:
        self._codec = codec
        self._may_split = codec in ("h264", "hevc")
        self._held: Unit | None = None
        self._pieces = 0
        self._last_pts: int | None = None

    def take(self, unit: Unit) -> list[Unit]:
        """What is whole now that one more has come."""
        continues = self._continues(unit)
        self._last_pts = unit.pts
        held = self._held
        if held is not None and continues and self._pieces < _MAX_PIECES:
            held.data += unit.data[first_slice(self._codec, unit.data) :]
            if held.pts is None:
                held.pts, held.dts = unit.pts, unit.dts
            self._pieces += 1
            return []
        if continues and unit.is_key:
            # Its beginning has gone out already; from now on key frames are held.
            self._may_split = True
            return [unit]
        if held is not None:
            self._may_split = self._pieces > 1
        whole = self.rest()
        if unit.is_key and self._may_split:
            self._held, self._pieces = unit, 1
            return whole
        return [*whole, unit]

    def rest(self) -> list[Unit]:
        """What is still held, at the end of the stream."""
        held, self._held = self._held, None
        return [] if held is None else [held]

    def now_of(self, codec: str) -> None:
        """The stream goes on with another codec."""
        if codec != self._codec:
            self._codec = codec
            self._may_split = codec in ("h264", "hevc")

    def _continues(self, unit: Unit) -> bool:
        """Whether this is more of the picture before it."""
        if unit.pts is not None and self._last_pts is not None:
            return unit.pts == self._last_pts
        # The first packet of an RTP stream bears no time, so its slices must tell.
        return unit.is_key and not begins_picture(self._codec, unit.data)
