"""Key frames only while nothing moves, every frame once something might.

Owns the two states of a watched stream, quiet and awake, what passes from one to the other, and looking back: what
came since the last key frame that was shown is decoded before anything newer, so that nothing between key frames is missed.
Packets in order of arrival in, pictures to `Showing` out; threads and queues are not its business.
"""

from __future__ import annotations

from collections import deque

from vigintd.camera.decode import INTRA_ONLY, Decoder, Picture, decoder_for
from vigintd.camera.showing import Showing
from vigintd.camera.sizes import Sizes
from vigintd.camera.stir import Stir
from vigintd.model import MEDIA_CLOCK_HZ, Packet, StreamParameters

KEY_EVERY_S = 0.75
"""Key frames that come more often than this are not all looked at; no GOP of a second is passed over."""

_LEARN_S = 5.0
"""A scene is shown in full for so long before it can be quiet, so that detectors know it."""

_STILL_S = 4.0
"""So long nothing must have moved."""

_NAP_S = 2.0
"""What has moved is taken to move on for so long before it is looked for again: looking at much movement costs most."""

_LOOK_S = 1.5
"""So long after a hint nothing must have moved, to have been a hint of nothing."""

LOOK_BACK_S = 10.5
"""At most so much is looked back at. A stream with longer GOPs is never quiet: what key frames tell would come too late."""

_SHORT_GOP_S = 1.1
"""In shorter GOPs there is no room between key frames for what would be reported."""


class Attention:
    """One life of one stream, as it is watched. Used by one thread."""

    def __init__(self, showing: Showing, *, limit_bytes: int) -> None:
        """`limit_bytes` bounds the coded bytes kept for looking back; beyond it they are decoded without a hint."""
        self._showing = showing
        self._limit_bytes = limit_bytes
        self._parameters: StreamParameters | None = None
        self._decoder: Decoder | None = None
        self._wants_key = True
        self._held: list[Packet] = []
        self._held_bytes = 0
        self._point_s = float("-inf")
        """When the key frame arrived that everything is shown up to."""
        self._first_pts = 0
        self._sizes, self._stir = Sizes(), Stir()
        self._key_dts, self._gop_s = 0, 0.0
        self._began_s = self._woke_s = 0.0
        self._moved_s = self._met_s = float("-inf")
        """When something last moved, and when a key frame was last compared."""
        self.is_awake = True
        self.keys: deque[Picture] = deque(maxlen=1)
        """The newest key frame that was decoded here, for whoever asks first."""

    @property
    def held_bytes(self) -> int:
        """Coded bytes kept for looking back."""
        return self._held_bytes

    def take(self, packet: Packet, picture: Picture | None) -> None:
        """See the next packet; `picture` is what a key frame decoded to, where it was decoded, without damage."""
        if packet.parameters is not self._parameters or self._wants_key:
            if not packet.is_key:
                return
            self._begin(packet)
        if packet.is_key:
            # In media time: after a hold-up on the way packets come in a burst.
            self._gop_s, self._key_dts = (packet.dts_90k - self._key_dts) / MEDIA_CLOCK_HZ, packet.dts_90k
        stands_out = self._sizes.take(packet)
        self._sizes.learn(packet.arrived_s, self._moved_s + _NAP_S)
        if self.is_awake:
            self._watch(packet)
        elif picture is None or not self._is_quiet(packet, picture, stands_out=stands_out):
            self._hold(packet, stands_out=stands_out or picture is not None)

    def lose_touch(self) -> None:
        """Packets are missing before the next one."""
        self._wants_key = True

    def _begin(self, packet: Packet) -> None:
        """A key frame that nothing before it is needed for."""
        self._let_go()
        self._wants_key = False
        self._first_pts = packet.pts_90k
        self._key_dts = packet.dts_90k
        self._decoder = decoder_for(packet.parameters)
        if packet.parameters is self._parameters:
            self._wake(packet.arrived_s)
            return
        self._parameters = packet.parameters
        self._sizes, self._stir = Sizes(), Stir()
        self._moved_s = self._met_s = float("-inf")
        self._began_s = packet.arrived_s
        self._wake(packet.arrived_s)

    def _is_quiet(self, packet: Packet, picture: Picture, *, stands_out: bool) -> bool:
        """Whether nothing has happened up to this key frame; if so it is shown, and what came before is let go."""
        if stands_out or self._stir.might(picture.luma(), packet.arrived_s):
            return False
        self._showing.glance(picture)
        self._rest_at(packet)
        return True

    def _hold(self, packet: Packet, *, stands_out: bool) -> None:
        self._held.append(packet)
        self._held_bytes += len(packet.data)
        is_full = self._held_bytes > self._limit_bytes or packet.arrived_s - self._point_s > LOOK_BACK_S
        if stands_out or is_full:
            self._wake(packet.arrived_s)
            for one in self._let_go():
                self._decode(one)

    def _wake(self, now_s: float) -> None:
        self.is_awake = True
        self._woke_s = now_s

    def _let_go(self) -> list[Packet]:
        held, self._held, self._held_bytes = self._held, [], 0
        return held

    def _watch(self, packet: Packet) -> None:
        if not packet.is_key or not self._may_rest(packet) or self._decoder is None:
            self._decode(packet)
            return
        self._see(self._decoder.rest())
        picture = self._decoder.decode_key(packet)
        if picture is None:
            return
        self._see([picture])
        if picture.is_sound_key:
            self._stir.rest(in_vain=self._moved_s < self._point_s)
            self.is_awake = False
            self._rest_at(packet)

    def _may_rest(self, packet: Packet) -> bool:
        now_s = packet.arrived_s
        if now_s - self._began_s < _LEARN_S or now_s - self._moved_s < _STILL_S or now_s - self._woke_s < _LOOK_S:
            return False
        return self._gop_s <= _SHORT_GOP_S or (self._gop_s <= LOOK_BACK_S and self._sizes.can_tell)

    def _rest_at(self, packet: Packet) -> None:
        self._held, self._held_bytes = [packet], len(packet.data)
        self._point_s = self._met_s = packet.arrived_s
        self._first_pts = packet.pts_90k

    def _decode(self, packet: Packet) -> None:
        is_needed = packet.parameters.codec not in INTRA_ONLY or self._showing.is_due(packet.arrived_s)
        if self._decoder is not None and is_needed:
            self._see(self._decoder.decode(packet))

    def _see(self, pictures: list[Picture]) -> None:
        for picture in pictures:
            # What a key frame's GOP shows of the time before it cannot be decoded without the GOP before it.
            if picture.arrived_s <= self._point_s or picture.pts_90k < self._first_pts:
                continue
            if picture.is_sound_key:
                self.keys.append(picture)
            if picture.is_sound_key and picture.arrived_s - self._met_s >= KEY_EVERY_S:
                self._stir.meet(picture.luma(), is_still=self._moved_s + _NAP_S < self._met_s)
                self._met_s = picture.arrived_s
            is_shown = self._showing.take(picture)
            if is_shown and picture.arrived_s >= self._moved_s + _NAP_S and self._stir.moves(picture.luma(), picture.arrived_s):
                self._moved_s = picture.arrived_s
