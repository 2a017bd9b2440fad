"""A camera with what it told, and streams that do what a test says."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

from tests.camera.streams import parameters
from tests.manual_clock import ManualClock
from vigintd.camera import Camera
from vigintd.camera.stream import Stream, StreamRequest, Wire
from vigintd.clock import Clock, SystemClock
from vigintd.config import CameraSettings
from vigintd.detect import Pixels
from vigintd.errors import StreamLost
from vigintd.model import Detection, Frame, Packet
from vigintd.retry import Backoff

QUICK = Backoff(0.05, 0.2)
Life = Sequence[Packet] | StreamLost
"""The packets that a stream gives before it ends, or why it cannot be opened."""


class Eyes:
    """A watch that keeps what it is shown, and says so of each frame."""

    def __init__(self, emit: Callable[[Detection], None], pixels: Pixels = "luma") -> None:
        self.pixels = pixels
        self.frames: list[Frame] = []
        self.closed = False
        self._emit = emit
        self._loop = asyncio.get_running_loop()

    def offer(self, frame: Frame) -> None:
        self.frames.append(frame)
        detection = Detection(frame.camera, frame.arrived_s, frame.at, "motion")
        self._loop.call_soon_threadsafe(self._emit, detection)

    def close(self) -> None:
        self.closed = True


class Scene:
    """A camera with what it told."""

    def __init__(self, given: CameraSettings, *, watched: Sequence[Pixels] = (), **more) -> None:
        self.detections: asyncio.Queue[Detection] = asyncio.Queue()
        self.eyes: list[Eyes] = []
        self.camera = Camera(
            "entree",
            given,
            clock=more.pop("clock", SystemClock()),
            watches=lambda emit: self._watches(emit, watched),
            on_detection=self.detections.put_nowait,
            random=Random(1),
            backoff=more.pop("backoff", QUICK),
            **more,
        )

    def _watches(self, emit: Callable[[Detection], None], watched: Sequence[Pixels]) -> Sequence[Eyes]:
        self.eyes = [Eyes(emit, pixels) for pixels in watched]
        return self.eyes

    async def packets(self, count: int) -> list[Packet]:
        """So many packets from the ring, as they come."""
        got: list[Packet] = []
        async with asyncio.timeout(15):
            async for batch in self.camera.ring.follow(0):
                got += batch
                if len(got) >= count:
                    break
        return got


async def until(condition: Callable[[], bool], most_s: float = 15) -> None:
    """Threads tell nobody when they are done, so this looks again and again."""
    async with asyncio.timeout(most_s):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(scene: Scene):
    task = asyncio.create_task(scene.camera.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


class RestingClock(ManualClock):
    """A clock moved by hand that knows when a camera's only stream waits before it opens again."""

    def __init__(self) -> None:
        super().__init__()
        self._resting = asyncio.Event()
        self._rest_s = 0.0

    async def sleep(self, seconds: float) -> None:
        task = asyncio.current_task()
        if task is None or not task.get_name().startswith("camera-"):
            # The watchdog's alarm, in a task of its own.
            await super().sleep(seconds)
            return
        self._rest_s = seconds
        self._resting.set()
        try:
            await super().sleep(seconds)
        finally:
            self._resting.clear()

    async def pass_one_rest(self) -> None:
        """Wait for the next such wait, and let its time pass."""
        async with asyncio.timeout(15):
            await self._resting.wait()
        await self.advance(self._rest_s)


async def no_redirect(_url: str) -> bool:
    """Where addresses are made up, nobody is asked."""
    return False


def garbage() -> list[Packet]:
    """Packets that no decoder takes."""
    return [Packet(b"\x00\x00\x01\x65 noise", n, n, 0, True, 0.0, parameters()) for n in range(5)]


class Script:
    """Opens streams that live one given life after the other, the last one again and again; by URL where there are several."""

    def __init__(self, *lives: Life, by_url: Mapping[str, Sequence[Life]] | None = None) -> None:
        self._lives = {url: list(given) for url, given in (by_url or {"": lives}).items()}
        self.opened: list[tuple[str, float]] = []
        """URL and time."""

    def __call__(self, request: StreamRequest, clock: Clock) -> Stream:
        self.opened.append((request.url, clock.monotonic_s()))
        lives = self._lives[request.url if request.url in self._lives else ""]
        life = lives.pop(0) if len(lives) > 1 else lives[0]
        if isinstance(life, StreamLost):
            raise StreamLost(str(life), reason=life.reason)
        return Ending(life, clock)


class Ending:
    """A stream that gives its packets and ends."""

    def __init__(self, packets: Sequence[Packet], clock: Clock) -> None:
        self._packets = packets
        self._clock = clock

    def packets(self) -> Iterator[Packet]:
        return (replace(packet, arrived_s=self._clock.monotonic_s()) for packet in self._packets)

    def interrupt(self) -> None: ...

    def wire(self) -> Wire | None:
        return None

    def close(self) -> None: ...


class Fed:
    """A stream that gives what a test shows it, from one life to the next, until it is interrupted."""

    def __init__(self) -> None:
        self._shown: queue.Queue[Packet | None] = queue.Queue()
        self.looked_at = 0
        self._is_waiting = False
        self.opened_s: list[float] = []
        self._clock: Clock

    def __call__(self, request: StreamRequest, clock: Clock) -> Stream:
        self._clock = clock
        self.opened_s.append(clock.monotonic_s())
        return self

    async def show(self, packet: Packet) -> None:
        """One more packet; returns once all of what it changes is done."""
        await until(lambda: self._is_waiting)
        seen = self.looked_at
        self._shown.put(packet)
        await until(lambda: self.looked_at > seen)
        await asyncio.sleep(0)

    def packets(self) -> Iterator[Packet]:
        while True:
            self._is_waiting = True
            packet = self._shown.get()
            self._is_waiting = False
            if packet is None:
                return
            yield replace(packet, arrived_s=self._clock.monotonic_s())
            self.looked_at += 1

    def interrupt(self) -> None:
        self._shown.put(None)

    def wire(self) -> Wire | None:
        return None

    def close(self) -> None: ...
