"""What of a stream is decoded, and where.

Owns the choice: key frames alone, and few, where nobody watches; every picture, and only some of them shown, where a rate is
asked for (pictures build on one another); and without one a lookout, which has a thread of its own. Works in the capture
thread. A key frame that decodes is the only sign that a stream is alive, so there is always something decoded here.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from vigintd.camera import turns
from vigintd.camera.attention import KEY_EVERY_S
from vigintd.camera.decode import INTRA_ONLY, Decoder, KeyFrame, Picture, decoder_for
from vigintd.camera.lookout import Lookout
from vigintd.camera.showing import PictureCount, Showing
from vigintd.clock import Clock
from vigintd.detect.watch import Watch
from vigintd.model import Packet, StreamParameters

__all__ = ["Feed", "KeyFrame", "PictureCount"]

_ADAPTIVE_FPS = 5.0
"""Pictures a second that are shown at most where no rate is asked for."""

_LEAVE_S = 0.5
"""So long a life's end waits for what was not seen yet."""

_AT_ONCE = nullcontext()


class Feed:
    """Decodes one life of one stream, from one thread."""

    def __init__(
        self,
        camera: str,
        watches: Sequence[Watch],
        *,
        count: PictureCount,
        detect_fps: float | None,
        look_back_bytes: int,
        clock: Clock,
        prove_every_s: float = KEY_EVERY_S,
    ) -> None:
        """Without `detect_fps`, only key frames are shown while nothing moves; `look_back_bytes` bounds what is kept then.

        Where nobody watches, a key frame is decoded every `prove_every_s` at most, and at each change of parameters.
        """
        self._count = count
        is_adaptive = bool(watches) and detect_fps is None
        fps = detect_fps or _ADAPTIVE_FPS
        self._showing = Showing(camera, watches, count=count, fps=fps, clock=clock, is_patient=is_adaptive)
        self._lookout = Lookout(camera, self._showing, limit_bytes=look_back_bytes) if is_adaptive else None
        self._is_watched = bool(watches)
        self._parameters: StreamParameters | None = None
        self._decoder: Decoder | None = None
        self._decoding, self._watching = turns.decoding(), turns.watching()
        self._progress_every_s = KEY_EVERY_S if self._is_watched else prove_every_s
        self._next_progress_s = float("-inf")
        self._told_s = float("-inf")
        self._has_heard = False
        """The lookout has decoded a key frame since the last one came."""

    def see(self, packet: Packet) -> KeyFrame | None:
        """Decode what is needed of the packet; the key frame that decoded without damage, if one did."""
        if packet.parameters is not self._parameters:
            if not packet.is_key:
                return None
            self._parameters = packet.parameters
            self._decoder = decoder_for(packet.parameters)
            self._next_progress_s = float("-inf")
        if self._decoder is None:
            return None
        if self._lookout is not None:
            return self._look_out(self._lookout, self._decoder, packet)
        if self._is_watched:
            return self._watch(self._decoder, packet)
        picture = self._progress(self._decoder, packet)
        if picture is not None:
            self._count.next()
        return picture.key_frame if picture is not None else None

    def drain(self, within_s: float) -> bool:
        """Wait until all that came has been seen; False when that takes longer."""
        return self._lookout is None or self._lookout.drain(within_s)

    def close(self) -> None:
        """The life is over; from the thread that called `see`. Waits a moment for what was not seen yet."""
        if self._lookout is not None:
            self._lookout.close(_LEAVE_S)

    def _look_out(self, lookout: Lookout, decoder: Decoder, packet: Packet) -> KeyFrame | None:
        news = lookout.take_key()
        self._has_heard |= news is not None
        picture = None
        if packet.is_key:
            # What the lookout decodes need not be decoded here too, unless it falls silent.
            if not (self._has_heard and lookout.is_awake):
                picture = self._progress(decoder, packet)
            self._has_heard = False
        lookout.put(packet, picture)
        newest = picture or news
        if newest is None or newest.arrived_s <= self._told_s:
            return None
        self._told_s = newest.arrived_s
        return newest.key_frame

    def _progress(self, decoder: Decoder, packet: Packet) -> Picture | None:
        """The key frame decoded without damage, where one is due."""
        if not packet.is_key or packet.arrived_s < self._next_progress_s:
            return None
        # Not in turn: a recording never waits for what others look at.
        picture = decoder.decode_key(packet)
        if picture is None or not picture.is_sound_key:
            return None
        self._next_progress_s = packet.arrived_s + self._progress_every_s
        return picture

    def _watch(self, decoder: Decoder, packet: Packet) -> KeyFrame | None:
        if packet.parameters.codec in INTRA_ONLY and not self._showing.is_due(packet.arrived_s):
            return None
        key = None
        with self._decoding:
            pictures = decoder.decode(packet)
        for picture in pictures:
            key = picture.key_frame or key
            with self._watching if self._showing.is_due(picture.arrived_s) else _AT_ONCE:
                self._showing.take(picture)
        return key
