"""One camera for ever: its streams, its ring, its watches, and how it is doing.

Owns the joining of a camera's parts and the life of its watches. Knows nothing of incidents: packets go
into the ring, detections to whoever asked for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from random import Random, SystemRandom

from vigintd.camera.address import request_for
from vigintd.camera.av_stream import open_av_stream
from vigintd.camera.feed import Feed, PictureCount
from vigintd.camera.lane import Lane, State
from vigintd.camera.stream import OpenStream
from vigintd.clock import Clock, SystemClock
from vigintd.config import CameraSettings
from vigintd.detect.watch import Watch
from vigintd.model import Detection, Packet
from vigintd.retry import Backoff
from vigintd.ring import Ring

Emit = Callable[[Detection], None]
MakeWatches = Callable[[Emit], Sequence[Watch]]

_RING_MARGIN_S = 5.0
"""The ring holds this much more than the pre-roll, because a detection comes some time after what it saw."""

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
    detect_state: State | None = None
    """Of the detection stream, where there is one."""
    detect_reason: str = ""


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
        self._watches: Sequence[Watch] = ()
        self._count = PictureCount()
        self.ring = Ring(
            camera=name, span_s=settings.pre_roll_s + _RING_MARGIN_S, limit_bytes=round(settings.ring_mb * 1024 * 1024)
        )
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
            detect_state=detect.state if detect else None,
            detect_reason=detect.reason if detect else "",
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
        self._watches = self._make_watches(self._on_detection)
        try:
            yield
        finally:
            for watch in self._watches:
                watch.close()

    def _lane(self, url: str, *, is_main: bool) -> Lane:
        return Lane(
            self._name,
            "main" if is_main else "detect",
            request_for(self._settings, url),
            open_stream=self._open_stream,
            make_feed=lambda: self._feed(is_main=is_main),
            deliver=self.ring.append if is_main else _drop,
            clock=self._clock,
            random=self._random,
            backoff=self._backoff,
        )

    def _feed(self, *, is_main: bool) -> Feed:
        watched = not (is_main and self._settings.detect_url)
        return Feed(
            self._name,
            self._watches if watched else (),
            # Each stream has a thread of its own, so the other one's pictures are not numbered.
            count=self._count if watched else PictureCount(),
            detect_fps=self._settings.detect_fps,
            clock=self._clock,
        )


async def probe_camera(name: str, settings: CameraSettings) -> str:
    """Open each of a camera's streams and decode one key frame: `h264 1920x1080`, for `vigintd check`.

    Raises `StreamLost` with the reason where that fails.
    """
    urls = [settings.url, *([settings.detect_url] if settings.detect_url else [])]
    found = [await _probe(name, settings, url) for url in urls]
    return found[0] if len(found) == 1 else f"{found[0]}, detection {found[1]}"


async def _probe(name: str, settings: CameraSettings, url: str) -> str:
    clock = SystemClock.from_environment()
    lane = Lane(
        name,
        "main",
        request_for(settings, url),
        open_stream=open_av_stream,
        make_feed=lambda: Feed(name, (), count=PictureCount(), detect_fps=settings.detect_fps, clock=clock),
        deliver=_drop,
        clock=clock,
        random=SystemRandom(),
        backoff=_BACKOFF,
    )
    life = asyncio.create_task(lane.run_once())
    live = asyncio.create_task(lane.live.wait())
    try:
        await asyncio.wait({life, live}, return_when=asyncio.FIRST_COMPLETED)
        if not lane.live.is_set():
            await life
        assert lane.parameters is not None
        return f"{lane.parameters.codec} {lane.parameters.width_px}x{lane.parameters.height_px}"
    finally:
        live.cancel()
        life.cancel()
        await asyncio.wait({life, live})


def _drop(_packets: list[Packet]) -> None:
    """The detection stream is only looked at, never kept."""
