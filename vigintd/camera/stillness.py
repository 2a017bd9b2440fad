"""Whether a stream shows one and the same picture all the time, as a camera does whose encoder hangs.

Owns the comparison of key frames by their digests. Pure: the time is an argument.
"""

from __future__ import annotations


class Stillness:
    """The stillness of one URL's picture, on over its lives.

    A picture is frozen when every key frame for `after_s` seconds was the same (0: never). Once it is, it stays so in
    later lives until another picture comes, because connecting again is no sign of life. Noise alone makes two pictures of
    a working camera differ, also in the dark.
    """

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._digest: int | None = None
        self._since_s = 0.0
        self._was_frozen = False
        self.is_frozen = False
        """By what this life has shown."""

    def begin(self) -> None:
        """A new life: the time away counts for nothing, and only what was frozen already is remembered."""
        self._was_frozen = self._was_frozen or self.is_frozen
        self.is_frozen = False
        if not self._was_frozen:
            self._digest = None

    def see(self, digest: int, at_s: float) -> bool:
        """One more key frame; whether the picture is frozen."""
        if digest != self._digest:
            self._digest, self._since_s, self._was_frozen = digest, at_s, False
        self.is_frozen = self._was_frozen or 0 < self._after_s <= at_s - self._since_s
        return self.is_frozen
