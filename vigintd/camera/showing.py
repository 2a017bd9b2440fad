"""Pictures as frames, to whoever watches, so many a second.

Owns the rate, the order and the making of a `Frame`; what is decoded is not its business. Works in one thread at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import structlog

from vigintd import metrics
from vigintd.camera.decode import Picture
from vigintd.clock import Clock
from vigintd.detect import GLANCE_S
from vigintd.detect.watch import Watch, wait_until_free
from vigintd.model import Frame

_LATE_S = 0.5

_log = structlog.get_logger()


class PictureCount:
    """Counts a camera's decoded pictures and the lives of the stream they come from."""

    def __init__(self) -> None:
        self.value = 0
        self.lives = 0

    def new_life(self) -> int:
        """The number of one more life, from 1."""
        self.lives += 1
        return self.lives

    def next(self) -> int:
        """The number of one more picture, from 1."""
        self.value += 1
        return self.value


class Showing:
    """Shows one life's pictures to a camera's watches: at most `fps` a second, each later than the one before."""

    def __init__(
        self,
        camera: str,
        watches: Sequence[Watch],
        *,
        count: PictureCount,
        fps: float,
        clock: Clock,
        is_patient: bool = False,
    ) -> None:
        """With `is_patient`, late pictures wait for a slow detector, as long as they would have been apart at most."""
        self._camera = camera
        self._by_pixels = {
            pixels: found for pixels in ("luma", "rgb") if (found := [watch for watch in watches if watch.pixels == pixels])
        }
        self._count = count
        self._life = count.new_life()
        self._interval_s = 1 / fps
        self._clock = clock
        self._is_patient = is_patient
        self._next_s = float("-inf")
        self._last_s = float("-inf")
        self.is_over = False
        """Set, from any thread, when nothing more shall be shown."""

    def is_due(self, arrived_s: float) -> bool:
        """Whether a picture that arrived then would be shown."""
        return arrived_s >= self._next_s and arrived_s > self._last_s

    def take(self, picture: Picture) -> bool:
        """Count a decoded picture, and show it when one is due; whether it was."""
        number = self._count.next()
        arrived_s = picture.arrived_s
        if self.is_over or not self.is_due(arrived_s):
            return False
        # A grid rather than a distance, so that a rate that is no divisor is still kept on average.
        self._next_s += self._interval_s
        if self._next_s <= arrived_s:
            self._next_s = arrived_s + self._interval_s
        self._last_s = arrived_s
        late_s = self._clock.monotonic_s() - arrived_s
        at = self._clock.now() - timedelta(seconds=late_s)
        for pixels, watches in self._by_pixels.items():
            array = picture.luma() if pixels == "luma" else picture.rgb()
            frame = Frame(self._camera, number, arrived_s, at, array, self._life)
            for watch in watches:
                if self._is_patient and late_s > _LATE_S:
                    wait_until_free(watch, self._interval_s)
                self._offer(watch, frame)
        return True

    def glance(self, picture: Picture) -> None:
        """Count a picture of a quiet time, and show it where it is far enough from the last to be known as such."""
        if picture.arrived_s - self._last_s > GLANCE_S:
            self.take(picture)
        else:
            self._count.next()

    def _offer(self, watch: Watch, frame: Frame) -> None:
        try:
            watch.offer(frame)
        except Exception as error:  # noqa: BLE001 - whatever a watch does, no packet is lost for it
            metrics.count("camera.watch_failed", self._camera)
            _log.error("camera.watch_failed", camera=self._camera, error=repr(error))
