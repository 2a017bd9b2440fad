"""One camera for ever: its streams, its ring, its watches, and how it is doing.

Owns the joining of a camera's parts and the life of its watches. Knows nothing of incidents: packets go
into the ring, detections to whoever asked for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from random import Random

from vigintd.camera.address import request_for
from vigintd.camera.av_stream import open_av_stream
from vigintd.camera.feed import Feed, PictureCount
from vigintd.camera.lane import UNAUTHORIZED_BACKOFF, Lane, State
from vigintd.camera.redirects import redirects_without_end
from vigintd.camera.stream import OpenStream
from vigintd.clock import Clock
from vigintd.config import CameraSettings
from vigintd.detect.watch import Watch
from vigintd.model import Detection
from vigintd.retry import Backoff
from vigintd.ring import Ring

Emit = Callable[[Detection], None]
MakeWatches = Callable[[Emit], Sequence[Watch]]

_PROVE_EVERY_S = 5.0
"""A key frame of 1080p takes ten milliseconds to decode; where it is only a sign of life, one in so long will do."""

_DETECT_FPS = 5.0
"""Of a detection stream, where nothing else is asked for."""

_BACKOFF = Backoff(1, 60)


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """How a camera is doing, as status and people are told."""

    state: State
    """Of the recording stream: `live` once a key frame was decoded."""
    reason: str
    """One word for why it is lost (`stream.Reason`), or empty."""
    problem: str
    """The same as a sentence, without credentials."""
    since: datetime
    """When the state began."""
    codec: str
    width_px: int
    height_px: int
    frames: int
    """Pictures decoded."""
    packets: int
    """Packets that reached the ring."""
    reconnects: int
    """Times the recording stream came back."""
    url: str
    """Of the recording stream: which URL is live or being tried, without credentials."""
    readers_abandoned: int
    """Threads of either stream that were told to end and still hang in a read."""
    detect_state: State | None = None
    """Of the detection stream, where there is one."""
    detect_reason: str = ""
    detect_url: str = ""


class Camera:
    """One configured camera. Built and used on the event loop."""

    def __init__(
        self,
        name: str,
        settings: CameraSettings,
        *,
        clock: Clock,
        watches: MakeWatches,
        on_detection: Callable[[Detection], None],
        open_stream: OpenStream = open_av_stream,
        random: Random,
        backoff: Backoff = _BACKOFF,
        unauthorized_backoff: Backoff = UNAUTHORIZED_BACKOFF,
        is_redirected: Callable[[str], Awaitable[bool]] = redirects_without_end,
    ) -> None:
        """`watches` is called when the camera starts, with what each watch shall call on the loop with its detections."""
        self._name = name
        self._settings = settings
        self._clock = clock
        self._make_watches = watches
        self._on_detection = on_detection
        self._open_stream = open_stream
        self._random = random
        self._backoff = backoff
        self._unauthorized_backoff = unauthorized_backoff
        self._is_redirected = is_redirected
        self._watches: Sequence[Watch] = ()
        self._count = PictureCount()
        self._ring_bytes = round(settings.ring_mb * 1024 * 1024)
        self.ring = Ring(camera=name, span_s=settings.ring_s, limit_bytes=self._ring_bytes)
        self._main = self._lane(settings.url, is_main=True)
        self._detect = self._lane(settings.detect_url, is_main=False) if settings.detect_url else None

    @property
    def status(self) -> CameraStatus:
        """How it is doing now."""
        main, detect = self._main, self._detect
        parameters = main.parameters
        return CameraStatus(
            state=main.state,
            reason=main.reason,
            problem=main.problem,
            since=main.since,
            codec=parameters.codec if parameters else "",
            width_px=parameters.width_px if parameters else 0,
            height_px=parameters.height_px if parameters else 0,
            frames=self._count.value,
            packets=main.packets,
            reconnects=main.reconnects,
            url=main.url,
            readers_abandoned=main.readers_abandoned + (detect.readers_abandoned if detect else 0),
            detect_state=detect.state if detect else None,
            detect_reason=detect.reason if detect else "",
            detect_url=detect.url if detect else "",
        )

    async def run(self) -> None:
        """Live for ever; returns only when cancelled, and then its threads are told to end and the ring is closed."""
        try:
            async with self._watched(), asyncio.TaskGroup() as lanes:
                lanes.create_task(self._main.run(), name=f"camera-{self._name}")
                if self._detect is not None and self._watches:
                    lanes.create_task(self._detect.run(), name=f"camera-{self._name}-detect")
        finally:
            self.ring.close()

    async def run_once(self) -> None:
        """One life of the recording stream, the detection stream being kept up beside it. Raises `StreamLost`."""
        async with self._watched():
            beside = None
            if self._detect is not None and self._watches:
                beside = asyncio.create_task(self._detect.run(), name=f"camera-{self._name}-detect")
            try:
                await self._main.run_once()
            finally:
                if beside is not None:
                    beside.cancel()
                    await asyncio.wait({beside})

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        self._watches = self._make_watches(self._heard)
        try:
            yield
        finally:
            for watch in self._watches:
                watch.close()

    def _heard(self, detection: Detection) -> None:
        # Whoever hears of a detection finds the picture it means in the ring.
        self._main.flush()
        self._on_detection(detection)

    def _lane(self, urls: Sequence[str], *, is_main: bool) -> Lane:
        return Lane(
            self._name,
            "main" if is_main else "detect",
            [request_for(self._settings, url, with_sound=is_main) for url in urls],
            open_stream=self._open_stream,
            make_feed=lambda: self._feed(is_main=is_main),
            # The detection stream is only looked at, never kept.
            deliver=self.ring.append if is_main else None,
            clock=self._clock,
            random=self._random,
            backoff=self._backoff,
            unauthorized_backoff=self._unauthorized_backoff,
            frozen_after_s=self._settings.frozen_after_s,
            is_redirected=self._is_redirected,
        )

    def _feed(self, *, is_main: bool) -> Feed:
        watched = not (is_main and self._settings.detect_url)
        return Feed(
            self._name,
            self._watches if watched else (),
            # Each stream has a thread of its own, so the other one's pictures are not numbered.
            count=self._count if watched else PictureCount(),
            detect_fps=self._settings.detect_fps if is_main else self._settings.detect_fps or _DETECT_FPS,
            look_back_bytes=self._ring_bytes,
            clock=self._clock,
            # Seldom enough to be cheap, and often enough for the patience with a stream that cannot be decoded.
            prove_every_s=min(_PROVE_EVERY_S, self._settings.stall_timeout_s / 3),
        )
