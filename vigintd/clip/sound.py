"""Sound for one file: AAC as it comes, G.711 and G.726 as AAC, in an unbroken row of frames.

Owns where sound lies in the file's time. It is placed by the picture's clock and then goes by its own sample count, so
that frames join; once the two are apart by more than ears forgive, silence is put in or sound left out. Silence also
fills what was not heard: a player that follows live stops where one of its tracks does. Blocking, on the clip's thread.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Protocol

import av
import numpy as np
from numpy.typing import NDArray

from vigintd import metrics
from vigintd.clip import aac
from vigintd.clip.aac import FRAME_SAMPLES
from vigintd.clip.libav import av_packet
from vigintd.clip.mux import SoundSample
from vigintd.model import MEDIA_CLOCK_HZ, AudioChunk, AudioParameters

_APART_90K = MEDIA_CLOCK_HZ // 10
"""Sound this far from where its picture's clock has it is put right; less is jitter, and nobody notices."""
_PATIENCE_90K = MEDIA_CLOCK_HZ
"""How long a picture waits for its sound before silence takes its place."""
_BITS_PER_SAMPLE = 3
"""Of the AAC made here: 24 kbit/s of telephone sound."""
_MAX_BIT_RATE = 128_000
_G711 = frozenset({"pcm_alaw", "pcm_mulaw"})
_G726 = frozenset({"g726", "g726le"})
_G726_BITS = 4
"""Of a sample, where the camera does not say: 32 kbit/s, as nearly all have it."""


class _Form(Protocol):
    """How one codec's chunks become frames of AAC. `begin` counts samples from the file's beginning."""

    def add(self, chunk: AudioChunk, begin: int) -> tuple[list[SoundSample], int]:
        """The frames that are whole now, and where the chunk ends."""
        ...

    def silence(self, begin: int, end: int) -> tuple[list[SoundSample], int]:
        """Silence from `begin` to no further than `end`, and where it ends."""
        ...

    def finish(self) -> list[SoundSample]:
        """What is still inside."""
        ...


class Sound:
    """The sound of one file, from the file's beginning on."""

    def __init__(self, parameters: AudioParameters) -> None:
        """`ValueError` for what cannot be recorded; see `can_be_recorded`."""
        setup = _setup(parameters)
        if setup is None:
            raise ValueError(f"sound of the codec {parameters.codec}")
        self.parameters = parameters
        self.rate_hz = setup.rate_hz
        self._setup = setup
        self._is_empty = True
        self._form: _Form = _Copied(setup) if parameters.codec == "aac" else _Encoded(parameters, setup)
        self._end = 0

    def hear(self, chunk: AudioChunk, begin_90k: int) -> list[SoundSample]:
        """Take what was heard from `begin_90k` of the file on; what lies before the file's beginning is left out."""
        begin = begin_90k * self.rate_hz // MEDIA_CLOCK_HZ
        apart = _APART_90K * self.rate_hz // MEDIA_CLOCK_HZ
        if begin < self._end - apart or begin < -apart:
            if begin >= 0:
                metrics.count("clip.sound_dropped")
            return []
        found: list[SoundSample] = []
        if begin > self._end + apart:
            found, self._end = self._form.silence(self._end, begin)
            self._end = begin
        more, self._end = self._form.add(chunk, self._end)
        return self._noted(found + more)

    def keep_up(self, picture_90k: int) -> list[SoundSample]:
        """Silence in the place of what had to come before this picture by now."""
        until = (picture_90k - _PATIENCE_90K) * self.rate_hz // MEDIA_CLOCK_HZ
        if until <= self._end:
            return []
        found, self._end = self._form.silence(self._end, until)
        return self._noted(found)

    def finish(self, end_90k: int) -> list[SoundSample]:
        """The rest, as far as it begins before the file's end; a frame at least in all, as a track must have."""
        end = end_90k * self.rate_hz // MEDIA_CLOCK_HZ
        silence, self._end = self._form.silence(self._end, end)
        rest = self._noted([sample for sample in (*silence, *self._form.finish()) if sample.begin < end])
        return [SoundSample(_silent_frame(self._setup.rate_index, self._setup.channels), 0)] if self._is_empty else rest

    def _noted(self, samples: list[SoundSample]) -> list[SoundSample]:
        self._is_empty = self._is_empty and not samples
        return samples


def parameters_of(chunk: AudioChunk) -> AudioParameters:
    """The chunk's parameters, with those of its own header where it describes itself."""
    known = chunk.parameters
    setup = aac.read_header(chunk.data) if known.codec == "aac" and not known.extradata else None
    return replace(known, extradata=aac.config(setup)) if setup else known


def can_be_recorded(parameters: AudioParameters) -> bool:
    """Whether sound of this kind can come into a clip: AAC, G.711 or G.726, of one or two channels."""
    return _setup(parameters) is not None


def _setup(parameters: AudioParameters) -> aac.Setup | None:
    """That of the AAC it is or becomes."""
    if parameters.codec == "aac":
        return aac.read_config(parameters.extradata)
    known = parameters.codec in _G711 or (parameters.codec in _G726 and parameters.channels == 1)
    if not known or parameters.sample_rate_hz not in aac.RATES_HZ or parameters.channels not in (1, 2):
        return None
    return aac.Setup(2, aac.RATES_HZ.index(parameters.sample_rate_hz), parameters.channels)


class _Copied:
    """AAC frame by frame as it came."""

    def __init__(self, setup: aac.Setup) -> None:
        self._setup = setup

    def add(self, chunk: AudioChunk, begin: int) -> tuple[list[SoundSample], int]:
        whole = list(aac.frames(chunk.data)) or [aac.with_header(chunk.data, self._setup)]
        found = [SoundSample(frame, begin + n * FRAME_SAMPLES) for n, frame in enumerate(whole) if frame]
        return found, begin + len(whole) * FRAME_SAMPLES

    def silence(self, begin: int, end: int) -> tuple[list[SoundSample], int]:
        count = max(0, end - begin) // FRAME_SAMPLES
        frame = _silent_frame(self._setup.rate_index, self._setup.channels) if count else b""
        return [SoundSample(frame, begin + n * FRAME_SAMPLES) for n in range(count)], begin + count * FRAME_SAMPLES

    def finish(self) -> list[SoundSample]:
        return []


class _Encoded:
    """Telephone sound, decoded and encoded as AAC; one row of samples without a break."""

    def __init__(self, parameters: AudioParameters, setup: aac.Setup) -> None:
        self._parameters = parameters
        self._setup = setup
        self._decoder: av.AudioCodecContext | None = None
        self._encoder = _open_encoder(setup.rate_hz, setup.channels)
        self._pending = np.zeros((setup.channels, 0), np.float32)
        self._encoded = 0

    def add(self, chunk: AudioChunk, begin: int) -> tuple[list[SoundSample], int]:
        self._decoder = self._decoder or self._open_decoder(chunk)
        try:
            frames = self._decoder.decode(av_packet(chunk.data, 0, 0, is_key=True))
        except av.FFmpegError:
            metrics.count("clip.sound_dropped")
            return [], begin
        # 16 bits a sample, channels taking turns.
        heard = [
            frame.to_ndarray().reshape(-1, self._setup.channels).T.astype(np.float32) / np.float32(32768) for frame in frames
        ]
        return self._encode(heard), begin + sum(part.shape[1] for part in heard)

    def silence(self, begin: int, end: int) -> tuple[list[SoundSample], int]:
        return self._encode([np.zeros((self._setup.channels, max(0, end - begin)), np.float32)]), max(begin, end)

    def finish(self) -> list[SoundSample]:
        rest = -self._pending.shape[1] % FRAME_SAMPLES
        last = self._encode([np.zeros((self._setup.channels, rest), np.float32)])
        return last + self._frames(self._encoder.encode(None)) if self._encoded else last

    def _encode(self, parts: Sequence[NDArray[np.float32]]) -> list[SoundSample]:
        self._pending = np.concatenate([self._pending, *parts], axis=1)
        found: list[SoundSample] = []
        while self._pending.shape[1] >= FRAME_SAMPLES:
            piece, self._pending = np.split(self._pending, [FRAME_SAMPLES], axis=1)
            frame = _frame(piece, self._setup.rate_hz, self._encoded)
            self._encoded += FRAME_SAMPLES
            found += self._frames(self._encoder.encode(frame))
        return found

    def _frames(self, packets: Sequence[av.Packet[av.AudioStream]]) -> list[SoundSample]:
        # The first frame lies before the beginning: it is the encoder's run-up, and holds nothing.
        return [SoundSample(aac.with_header(bytes(p), self._setup), p.pts) for p in packets if p.pts is not None and p.pts >= 0]

    def _open_decoder(self, chunk: AudioChunk) -> av.AudioCodecContext:
        decoder = av.CodecContext.create(self._parameters.codec, "r")
        assert isinstance(decoder, av.AudioCodecContext)
        decoder.sample_rate = self._parameters.sample_rate_hz
        decoder.layout = _layout(self._setup.channels)
        if self._parameters.codec in _G726:
            samples = chunk.duration_90k * self._parameters.sample_rate_hz / MEDIA_CLOCK_HZ
            bits = round(8 * len(chunk.data) / samples) if samples else _G726_BITS
            decoder.options = {"bits_per_coded_sample": str(bits if 2 <= bits <= 5 else _G726_BITS)}
        return decoder


def _layout(channels: int) -> str:
    return "stereo" if channels == 2 else "mono"


def _open_encoder(rate_hz: int, channels: int) -> av.AudioCodecContext:
    encoder = av.CodecContext.create("aac", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = rate_hz, _layout(channels), "fltp"
    encoder.time_base = Fraction(1, rate_hz)
    encoder.bit_rate = min(_BITS_PER_SAMPLE * rate_hz * channels, _MAX_BIT_RATE)
    return encoder


def _frame(samples: NDArray[np.float32], rate_hz: int, begin: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=_layout(samples.shape[0]))
    frame.sample_rate, frame.pts, frame.time_base = rate_hz, begin, Fraction(1, rate_hz)
    return frame


@functools.cache
def _silent_frame(rate_index: int, channels: int) -> bytes:
    """A frame of LC in which nothing is heard; what goes before it does not matter to it."""
    rate_hz = aac.RATES_HZ[rate_index]
    encoder = _open_encoder(rate_hz, channels)
    nothing = np.zeros((channels, FRAME_SAMPLES), np.float32)
    packets = [packet for n in range(4) for packet in encoder.encode(_frame(nothing, rate_hz, n * FRAME_SAMPLES))]
    return aac.with_header(bytes(packets[-1]), aac.Setup(2, rate_index, channels))
