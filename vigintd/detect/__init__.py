"""Seeing: the hook that is shown frames and may answer with a detection.

Owns the protocol, the built-in motion detector, how a detector is found by name, and how it is run so that
one that raises, hangs or is slow costs nobody a packet. Knows nothing of cameras, incidents or FFmpeg.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Literal, Protocol

from vigintd.model import Detection, Frame

ENTRY_POINT_GROUP = "vigintd.detectors"

Pixels = Literal["luma", "rgb"]


GLANCE_S = 1.5
"""Frames of one life further apart than this, in a stream that can be quicker, are glances: as far as the camera can tell
nothing has moved in between (see `camera.attention`)."""


class Detector(Protocol):
    """Shown one camera's frames, in order and some skipped, one call at a time.

    May be a plain callable (run on a thread of its own) or an `async` one (run on the event loop, which it must not
    block). It answers at once or late: past its deadline it is detached, counted and replaced by a fresh one.
    """

    pixels: Pixels
    """What `Frame.pixels` shall hold."""

    def __call__(self, frame: Frame) -> Detection | Awaitable[Detection | None] | None:
        """The detection in this frame, or None. `frame.pixels` is read-only and may be kept."""
        ...


class DetectorFactory(Protocol):
    """What an entry point of the group `vigintd.detectors` names."""

    def __call__(self, camera: str, options: Mapping[str, Any], *, language: str) -> Detector:
        """A detector for one camera, from the keys of its `[detectors.NAME]` but `kind`.

        `language` (fr or en) is the site's; what a detection says to people is in it.
        Raises `ValueError` with a sentence for the user where an option is wrong.
        """
        ...
