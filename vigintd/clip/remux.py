"""What the camera sends, as it came, in the form the muxer takes: annex B, its parameter sets in-band at the beginning.

Owns the question whether a key frame still belongs to the same file, and which pictures behind it cannot be shown.
"""

from __future__ import annotations

from vigintd.clip import h264
from vigintd.clip.libav import codec_name, decoded_size_px
from vigintd.clip.mux import Sample
from vigintd.clip.syntax import syntax
from vigintd.clip.timeline import Times
from vigintd.model import Packet


class Remux:
    """The packets of one set of parameters."""

    def __init__(self, packet: Packet) -> None:
        """`packet` is the key frame that begins the file."""
        self._parameters = packet.parameters
        self._syntax = syntax(codec_name(packet.parameters.codec))
        self._setup = self._syntax.read_extradata(packet.parameters.extradata)
        data = h264.annex_b(packet.data, self._setup.length_bytes)
        # What stands in the stream counts: extradata can be older (a camera that was set up anew).
        self._in_band = self._syntax.parameter_sets(data)
        self._sets = self._in_band or self._setup.parameter_sets
        self.size_px = packet.parameters.width_px, packet.parameters.height_px
        if self._in_band and not (all(self.size_px) and set(self._in_band) <= set(self._setup.parameter_sets)):
            # New sets that give no picture its size are none: bytes that happen to look like some.
            self.size_px = decoded_size_px(packet.parameters.codec, data) or (0, 0)
        self._is_first = True
        self._key: tuple[bytes, int] | None = None
        """The key frame at which decoding began and its time, until a picture came that may be shown behind it."""

    @property
    def can_begin(self) -> bool:
        """Whether a decoder could begin here."""
        return (bool(self._sets) or not self._syntax.needs_sets) and (all(self.size_px) or not self._in_band)

    def continues(self, packet: Packet) -> bool:
        """Whether this key frame has the same parameters."""
        new = packet.parameters
        if new is not self._parameters:
            old = self._parameters
            if (new.codec, new.width_px, new.height_px) != (old.codec, old.width_px, old.height_px):
                return False
            self._parameters, self._setup = new, self._syntax.read_extradata(new.extradata)
        in_band = self._syntax.parameter_sets(h264.annex_b(packet.data, self._setup.length_bytes))
        return set(in_band or self._setup.parameter_sets) <= set(self._sets)

    def begin_at(self, packet: Packet) -> None:
        """Decoding begins at this key frame: nothing from before it can be had."""
        self._key = h264.annex_b(packet.data, self._setup.length_bytes), packet.pts_90k

    def needs_earlier(self, packet: Packet) -> bool:
        """Whether a picture behind the key frame at which decoding began needs one from before it; ask in order."""
        if self._key is None or packet.is_key:
            return False
        key, key_90k = self._key
        data = h264.annex_b(packet.data, self._setup.length_bytes)
        is_shown_before_key = packet.pts_90k < key_90k
        if not is_shown_before_key:
            self._key = None
        return self._syntax.needs_earlier(key, data, is_shown_before_key=is_shown_before_key)

    def sample(self, packet: Packet, times: Times) -> Sample:
        """The packet in the muxer's form."""
        data = h264.annex_b(packet.data, self._setup.length_bytes)
        if self._is_first and not self._in_band:
            data = self._syntax.joined(self._sets) + data
        self._is_first = False
        return Sample(data, times.pts_90k, times.dts_90k, times.duration_90k, packet.is_key)
