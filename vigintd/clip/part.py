"""One file in the making: pictures and their sound into fragments.

Owns the decision whether a file has a sound track, which must be made before its first fragment, and keeps sound beside
the picture. Knows nothing of where samples come from, nor of disks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import av

from vigintd import metrics
from vigintd.clip.mux import FRAGMENT_90K, FileMuxer, Sample, Shape, SoundSample
from vigintd.clip.sound import Sound, can_be_recorded, parameters_of
from vigintd.model import AudioChunk, AudioParameters, Fragment

_MOST_HELD = 64
"""Pictures held at most; whoever sends more in half a second is taken to be without sound until then."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole fragments that continue file `index`; the file before it is complete."""

    index: int
    """Of parts, or of sources: see `Original`."""
    data: bytes
    fragments: Sequence[Fragment]
    shape: Shape
    reduced: str = ""
    """How the picture of this part gave way; see `SealedPart`."""


class Part:
    """A part, or a source. Every method on the same one thread.

    Until it is half a second long, which is when its first fragment ends, samples are held to see whether there is
    sound. A file that began with sound keeps its track, one that began without has none.
    """

    def __init__(self, index: int, shape: Shape, *, sound: AudioParameters | None = None, is_sound_known: bool = False) -> None:
        """With `is_sound_known`, it has the sound said, or none, and nothing is held."""
        self.index = index
        self.shape = shape
        self.reduced = ""
        self.end_90k = 0
        """Where the picture written last ends."""
        self.lacks_sound = False
        """Sound was heard for which there is no track."""
        self._is_sound_known = is_sound_known
        self._sound = Sound(sound) if sound else None
        self._held: list[Sample] = []
        self._held_sound: list[tuple[AudioChunk, int]] = []
        self._muxer: FileMuxer | None = None

    def write(self, sample: Sample) -> None:
        """Add a picture. `av.FFmpegError` where FFmpeg will not take it; `ClipError` where MP4 cannot hold its codec."""
        self.end_90k = sample.dts_90k + sample.duration_90k
        if self._muxer is None:
            self._held.append(sample)
            span_90k = sample.dts_90k - self._held[0].dts_90k
            if self._is_sound_known or span_90k >= FRAGMENT_90K or len(self._held) >= _MOST_HELD:
                self._open()
        else:
            self._write(self._muxer, sample)

    def hear(self, chunk: AudioChunk, begin_90k: int) -> None:
        """Add sound that begins at this time of the file; what does not fit is dropped, counted and remembered."""
        parameters = parameters_of(chunk)
        if self._muxer is None and not self._is_sound_known and can_be_recorded(parameters):
            if self._sound is None or self._sound.parameters != parameters:
                self._sound = Sound(parameters)
            self._held_sound.append((chunk, begin_90k))
        elif self._sound is None or self._sound.parameters != parameters:
            self.lacks_sound = self.lacks_sound or can_be_recorded(parameters)
            metrics.count("clip.sound_dropped")
        elif self._muxer is None:
            self._held_sound.append((chunk, begin_90k))
        else:
            self._write_sound(self._muxer, self._sound.hear(chunk, begin_90k))

    def take(self) -> Piece | None:
        """The fragments that became whole since the last call."""
        data, fragments = self._muxer.take() if self._muxer else (b"", ())
        return Piece(self.index, data, fragments, self.shape, self.reduced) if fragments else None

    def finish(self) -> None:
        """End the last fragment."""
        if self._muxer is None and self._held:
            self._open()
        if self._muxer is None:
            return
        try:
            self._write_sound(self._muxer, self._sound.finish(self.end_90k) if self._sound else ())
        finally:
            self._muxer.close()

    def _open(self) -> None:
        self._muxer = FileMuxer(self.shape, self._sound.rate_hz if self._sound else None)
        held, self._held = self._held, []
        for chunk, begin_90k in self._held_sound:
            self.hear(chunk, begin_90k)
        self._held_sound.clear()
        for sample in held:
            self._write(self._muxer, sample)

    def _write(self, muxer: FileMuxer, sample: Sample) -> None:
        self._write_sound(muxer, self._sound.keep_up(sample.dts_90k) if self._sound else ())
        muxer.write(sample)

    @staticmethod
    def _write_sound(muxer: FileMuxer, samples: Sequence[SoundSample]) -> None:
        for sample in samples:
            try:
                muxer.write_sound(sample)
            except av.FFmpegError:  # damaged sound shall not cost the picture
                metrics.count("clip.sound_dropped")
