"""The recorder's thread side: packets in, finished pieces of files out.

Owns what goes into a file and where one ends and the next begins. H.264 becomes parts; anything else becomes sources,
which an encode job makes parts of, and so does all that follows in the same clip, because parts come in order.
Touches no file and no loop; `recorder` runs it on the clip's thread and brings the pieces to the spool.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import av
import structlog

from vigintd import metrics
from vigintd.clip.libav import codec_name, open_decoder
from vigintd.clip.mux import Shape, check_codec
from vigintd.clip.part import Part, Piece
from vigintd.clip.remux import Remux
from vigintd.clip.sound import can_be_recorded, parameters_of
from vigintd.clip.timeline import Timeline
from vigintd.errors import ClipError
from vigintd.model import Packet
from vigintd.redact import redacted

MAX_PARTS = 32
"""A stream that changes its parameters more often than this in one incident is recorded no further."""

_MAX_PARTS_FOR_SOUND = MAX_PARTS // 2
"""Sound that comes and goes begins no new part beyond so many: it shall not cost the picture."""

_log = structlog.get_logger("clip")


class _File:
    """A file, with how packets come into it."""

    def __init__(self, index: int, remux: Remux, *, is_source: bool, codec: str) -> None:
        self.remux = remux
        self.timeline = Timeline()
        self.part = Part(index, Shape(codec, *remux.size_px, is_source=is_source))
        self.is_begun = False
        """A fragment of it has gone to the spool."""

    def write(self, packet: Packet) -> None:
        times = self.timeline.place(packet)
        for chunk in packet.audio:
            begin_90k = self.timeline.heard(chunk.pts_90k)
            if begin_90k is None:
                metrics.count("clip.sound_dropped")
            else:
                self.part.hear(chunk, begin_90k)
        self.part.write(self.remux.sample(packet, times))


class Composer:
    """One clip in the making. Every method on the same one thread."""

    def __init__(self, incident_id: str = "") -> None:
        self.started_s: float | None = None
        """`Packet.arrived_s` of the first packet written."""
        self.cut_short = ""
        """Why something is missing at the end of the clip or of a part, or empty."""
        self._incident_id = incident_id
        self._file: _File | None = None
        self._parts = 0
        self._sources = 0
        self._first_source = 0
        """Its number says to a later life of the daemon which parts were made of sources."""
        self._waits_for_key = True
        self._has_warned = False
        self._ready: list[Piece] = []

    def write(self, packets: Sequence[Packet]) -> list[Piece]:
        """Take packets; answers what became whole. `ClipError` where nothing can be made of them.

        A picture that is lost is counted (`clip.packets_dropped`). None is lost that could not be shown anyway: before
        the clip's first key frame, or behind a key frame that decoding begins at, where it looks back beyond it.
        """
        for packet in packets:
            self._check_sound(packet)
            if packet.is_key:
                self._on_key(packet)
            if self._waits_for_key or self._file is None:
                if packet.is_key or self.started_s is not None:
                    metrics.count("clip.packets_dropped")
            elif not self._file.remux.needs_earlier(packet):
                self._write(self._file, packet)
        return self._take()

    def skip_to_key(self) -> None:
        """Packets were lost: what follows makes no sense before the next key frame."""
        self._waits_for_key = True

    def begin_anew(self, *, parts: int, sources: int) -> None:
        """The file under way takes no more: what follows goes into another, from the next key frame on.

        `parts` and `sources` are how many of each there are by now; what was not stored of them is lost.
        """
        file, self._file = self._file, None
        if file is not None:
            with suppress(av.FFmpegError):
                file.part.finish()
        self._ready.clear()
        self._waits_for_key = True
        self._parts, self._sources = parts, sources

    def finish(self) -> list[Piece]:
        """End the clip; answers the rest of it."""
        self._end_file()
        self._waits_for_key = True
        return self._take()

    def _on_key(self, packet: Packet) -> None:
        """Have a file that this key frame may go into, and wait for another where there can be none."""
        begins = self._waits_for_key
        if self._file is not None and not self._fits(self._file, packet):
            self._end_file()
        if self._file is None:
            self._file, begins = self._new_file(packet), True
        self._waits_for_key = self._file is None
        if self._file is not None and begins:
            self._file.remux.begin_at(packet)

    def _fits(self, file: _File, packet: Packet) -> bool:
        if file.part.lacks_sound and self._parts + self._sources < _MAX_PARTS_FOR_SOUND:
            return False
        return file.remux.continues(packet)

    def _new_file(self, packet: Packet) -> _File | None:
        if self._parts + self._sources >= MAX_PARTS:
            self.cut_short = f"the stream changed its parameters {MAX_PARTS} times"
            return None
        codec = codec_name(packet.parameters.codec)
        is_source = self._sources > 0 or codec != "h264"
        check_codec(codec)
        if codec != "h264":
            open_decoder(packet.parameters)
        remux = Remux(packet)
        if not remux.can_begin:
            return None  # a later key frame may bring the parameter sets
        if not all(remux.size_px):
            raise ClipError("the camera's video has no size")
        if is_source and not self._sources:
            self._first_source = self._parts
        index = self._first_source + self._sources if is_source else self._parts
        file = _File(index, remux, is_source=is_source, codec=codec)
        if is_source:
            self._sources += 1
        else:
            self._parts += 1
        if self.started_s is None:
            self.started_s = packet.arrived_s
        return file

    def _write(self, file: _File, packet: Packet) -> None:
        try:
            file.write(packet)
        except av.FFmpegError as error:
            metrics.count("clip.packets_unwritable")
            self._waits_for_key = True
            if packet.is_key:
                raise ClipError(f"the clip could not be written: {redacted(str(error))}") from error

    def _end_file(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.part.finish()
        except av.FFmpegError as error:
            # What was whole before stays good, and so does the part that may follow.
            self.cut_short = f"the last pictures of part {file.part.index} could not be written: {redacted(str(error))}"
        if piece := self._piece(file):
            self._ready.append(piece)

    def _take(self) -> list[Piece]:
        piece = self._piece(self._file) if self._file else None
        ready, self._ready = self._ready, []
        return [*ready, piece] if piece else ready

    def _piece(self, file: _File) -> Piece | None:
        """What became whole of a file; one that is no MP4, because damage passed for parameter sets, is given up."""
        try:
            piece = file.part.take()
        except ValueError as error:
            metrics.count("clip.packets_unwritable")
            self.cut_short = f"what came at the beginning of part {file.part.index} was no video: {error}"
            self._forget(file)
            return None
        file.is_begun = file.is_begun or piece is not None
        return piece

    def _forget(self, file: _File) -> None:
        if file is self._file:
            self._file, self._waits_for_key = None, True
        if file.is_begun:
            return
        # Its number is the next one's: parts are counted without a gap.
        if file.part.shape.is_source:
            self._sources -= 1
        else:
            self._parts -= 1

    def _check_sound(self, packet: Packet) -> None:
        """Say once that sound cannot be recorded."""
        if not packet.audio or self._has_warned:
            return
        parameters = parameters_of(packet.audio[0])
        if not can_be_recorded(parameters):
            self._has_warned = True
            _log.warning(
                "clip.sound_unsupported",
                incident=self._incident_id,
                codec=parameters.codec,
                sample_rate_hz=parameters.sample_rate_hz,
                channels=parameters.channels,
            )
