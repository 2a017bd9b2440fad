"""The recorder's thread side: packets in, finished pieces of part files out.

Owns what goes into a part and where one part ends and the next begins. Touches no file and no loop; `recorder` runs
it on the clip's thread and brings the pieces to the spool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import av

from vigintd import metrics
from vigintd.clip import h264
from vigintd.clip.encode import Transcoder, decoded_size_px
from vigintd.clip.mux import PartMuxer, Sample
from vigintd.clip.timeline import Timeline, Times
from vigintd.errors import ClipError
from vigintd.model import Fragment, Packet, StreamParameters
from vigintd.redact import redacted

MAX_PARTS = 32
"""A stream that changes its parameters more often than this in one incident is recorded no further."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole fragments that continue part `index`; the part before it is complete."""

    index: int
    data: bytes
    fragments: Sequence[Fragment]


class _Source(Protocol):
    """How the packets of one set of parameters become H.264 samples."""

    @property
    def size_px(self) -> tuple[int, int]: ...
    def continues(self, packet: Packet) -> bool: ...
    def samples(self, packet: Packet, times: Times) -> list[Sample]: ...
    def flush(self) -> list[Sample]: ...


class _Remux:
    """H.264 as it came, in annex B; its first access unit bears the parameter sets, from which the muxer takes them."""

    def __init__(self, packet: Packet) -> None:
        self._parameters = packet.parameters
        self._setup = h264.read_extradata(packet.parameters.extradata)
        data = h264.annex_b(packet.data, self._setup.length_bytes)
        # What stands in the stream counts: extradata can be older (a camera that was set up anew).
        self._in_band = h264.parameter_sets(data)
        self.sets = self._in_band or self._setup.parameter_sets
        self.size_px = packet.parameters.width_px, packet.parameters.height_px
        if self._in_band and not (all(self.size_px) and set(self._in_band) <= set(self._setup.parameter_sets)):
            self.size_px = decoded_size_px(data) or self.size_px
        self._is_first = True

    def continues(self, packet: Packet) -> bool:
        new = packet.parameters
        if new is not self._parameters:
            old = self._parameters
            if (new.codec, new.width_px, new.height_px) != (old.codec, old.width_px, old.height_px):
                return False
            self._parameters, self._setup = new, h264.read_extradata(new.extradata)
        sets = h264.parameter_sets(h264.annex_b(packet.data, self._setup.length_bytes)) or self._setup.parameter_sets
        return set(sets) <= set(self.sets)

    def samples(self, packet: Packet, times: Times) -> list[Sample]:
        data = h264.annex_b(packet.data, self._setup.length_bytes)
        if self._is_first and not self._in_band:
            data = h264.joined(self.sets) + data
        self._is_first = False
        return [Sample(data, times.pts_90k, times.dts_90k, times.duration_90k, packet.is_key)]

    def flush(self) -> list[Sample]:
        return []


class _Recode(Transcoder):
    """Any other codec, encoded."""

    def __init__(self, parameters: StreamParameters) -> None:
        super().__init__(parameters)
        self._parameters = parameters

    def continues(self, packet: Packet) -> bool:
        return packet.parameters == self._parameters


class _Part:
    """One part in the making."""

    def __init__(self, index: int, source: _Source) -> None:
        self.index = index
        self.source = source
        self._timeline = Timeline()
        self._muxer: PartMuxer | None = None

    def write(self, packet: Packet) -> None:
        self._mux(self.source.samples(packet, self._timeline.place(packet)))

    def take(self) -> Piece | None:
        data, fragments = self._muxer.take() if self._muxer else (b"", ())
        return Piece(self.index, data, fragments) if fragments else None

    def finish(self) -> None:
        self._mux(self.source.flush())
        if self._muxer:
            self._muxer.close()

    def _mux(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            if self._muxer is None:
                self._muxer = PartMuxer(*self.source.size_px)
            self._muxer.write(sample)


class Composer:
    """One clip in the making. Every method on the same one thread."""

    def __init__(self) -> None:
        self.started_s: float | None = None
        """`Packet.arrived_s` of the first packet written."""
        self.cut_short = ""
        """Why something is missing at the end of the clip or of a part, or empty."""
        self._part: _Part | None = None
        self._parts = 0
        self._waits_for_key = True
        self._ready: list[Piece] = []

    def write(self, packets: Sequence[Packet]) -> list[Piece]:
        """Take packets; answers what became whole. `ClipError` where nothing can be made of them."""
        for packet in packets:
            if packet.is_key:
                self._waits_for_key = not self._on_key(packet)
            if self._waits_for_key or self._part is None:
                metrics.count("clip.packets_dropped")
                continue
            self._write(self._part, packet)
        return self._take()

    def skip_to_key(self) -> None:
        """Packets were lost: what follows makes no sense before the next key frame."""
        self._waits_for_key = True

    def finish(self) -> list[Piece]:
        """End the clip; answers the rest of it."""
        self._end_part()
        self._waits_for_key = True
        return self._take()

    def _on_key(self, packet: Packet) -> bool:
        """Have a part that this key frame may go into; false when there can be none."""
        if self._part is not None and not self._part.source.continues(packet):
            self._end_part()
        if self._part is None:
            self._part = self._new_part(packet)
        return self._part is not None

    def _new_part(self, packet: Packet) -> _Part | None:
        if self._parts >= MAX_PARTS:
            self.cut_short = f"the stream changed its parameters {MAX_PARTS} times"
            return None
        source: _Source
        if packet.parameters.codec == "h264":
            source = _Remux(packet)
            if not source.sets:
                return None  # no decoder could begin here; a later key frame may bring them
            if not all(source.size_px):
                raise ClipError("the camera's video has no size")
        else:
            source = _Recode(packet.parameters)
        self._parts += 1
        if self.started_s is None:
            self.started_s = packet.arrived_s
        return _Part(self._parts - 1, source)

    def _write(self, part: _Part, packet: Packet) -> None:
        try:
            part.write(packet)
        except av.FFmpegError as error:
            metrics.count("clip.packets_unwritable")
            self._waits_for_key = True
            if packet.is_key:
                raise ClipError(f"the clip could not be written: {redacted(str(error))}") from error

    def _end_part(self) -> None:
        part, self._part = self._part, None
        if part is None:
            return
        try:
            part.finish()
        except av.FFmpegError as error:
            # What was whole before stays good, and so does the part that may follow.
            self.cut_short = f"the last pictures of part {part.index} could not be written: {redacted(str(error))}"
        if piece := part.take():
            self._ready.append(piece)

    def _take(self) -> list[Piece]:
        ready, self._ready = self._ready, []
        piece = self._part.take() if self._part else None
        return [*ready, piece] if piece else ready
