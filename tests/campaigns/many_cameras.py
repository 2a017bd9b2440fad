"""64 cameras at once: `python -m tests.campaigns.many_cameras [--write]`.

Each camera sends 1080p25 of 4 Mbit/s, recorded into its ring, and 640×360 at 10 pictures a second, watched by the motion
detector. The cameras are in another process (`street`). Counted once all are live: packets sent against packets that
reached the rings, how late the event loop is, and what this process uses of CPU and memory.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any, Literal

from tests.campaigns import results
from tests.campaigns.child import Child, child
from tests.campaigns.process import Usage, machine_cpu_s, quantile, usage
from vigintd import logs, metrics
from vigintd.camera import Camera
from vigintd.clock import SystemClock
from vigintd.config import CameraSettings
from vigintd.detect import motion
from vigintd.detect.watch import Watch, watch
from vigintd.model import Detection

Mode = Literal["sub", "main", "record"]
"""What the detector watches: the second stream, the recorded one, or nothing."""

LAG_STEP_S = 0.01
_LIVE_S = 120.0
_DRAIN_S = 10.0
_MB = 1024 * 1024


@dataclass(frozen=True)
class Figures:
    """What one run measured."""

    cameras: int
    mode: Mode
    seconds: float
    sent: int
    """Packets from the first one that reached a ring to the last but one sent, of all cameras."""
    received: int
    lost: int
    dropped: dict[str, int]
    """Counters of losses at a bound."""
    reconnects: int
    watched_sent: int
    """Packets of the second streams in the measured seconds; each of them has to be decoded."""
    pictures: int
    """Decoded in the measured seconds. Fewer than were sent: detection falls behind, and that cannot last."""
    detections: int
    lag_p50_ms: float
    lag_p99_ms: float
    lag_max_ms: float
    cpu_percent_per_camera: float
    """Of a core."""
    street_cpu_percent_per_stream: float
    others_cpu_percent: float
    """What the machine's other work used of a core meanwhile: with much of it, the run says little."""
    rss_mb: float
    rings_mb: float
    threads: int
    fds: int


class Street:
    """The cameras' process."""

    def __init__(self, cameras: Child, hello: dict[str, Any]) -> None:
        self._cameras = cameras
        self.main: list[str] = hello["main"]
        self.sub: list[str] = hello["sub"]
        self._tails = [bytes.fromhex(tail) for tail in hello["tails"]]

    def place(self, data: bytes) -> int:
        """Which packet of the loop this is."""
        return next(number for number, tail in enumerate(self._tails) if data.endswith(tail))

    async def hold(self) -> list[int]:
        """Have every camera keep silent; how many packets each has sent to its recorder."""
        sent: list[int] = (await self._cameras.ask("hold"))["sent"]
        return sent

    async def so_far(self) -> tuple[float, int]:
        """CPU seconds that the cameras have used, and packets that they have sent of their second streams."""
        answer = await self._cameras.ask("count")
        return answer["cpu_s"], answer["sub_sent"]


class Lag:
    """How much later than asked the loop comes back to a task that sleeps."""

    def __init__(self) -> None:
        self.late_s: list[float] = []

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + LAG_STEP_S
            await asyncio.sleep(LAG_STEP_S)
            self.late_s.append(loop.time() - due_s)


class Fleet:
    """The cameras of one run, in this process."""

    def __init__(self, urls: Street, mode: Mode, *, pre_roll_s: float) -> None:
        self.detections = 0
        self._street = urls
        self._mode = mode
        self.cameras = [self._camera(number, url, pre_roll_s) for number, url in enumerate(urls.main)]
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin with all of them."""
        self._tasks = [asyncio.create_task(camera.run()) for camera in self.cameras]

    async def places(self) -> list[int]:
        """Wait until each camera is live; how many packets its camera had sent before the first that reached the ring."""
        async with asyncio.timeout(_LIVE_S):
            places = [await self._place(camera) for camera in self.cameras]
            while not all(_is_live(camera) for camera in self.cameras):  # noqa: ASYNC110 - status has no event
                await asyncio.sleep(0.1)
        return places

    async def drained(self, wanted: Sequence[int]) -> list[int]:
        """Packets that have reached each ring, once they are `wanted` or no more come."""
        try:
            async with asyncio.timeout(_DRAIN_S):
                while self.received != list(wanted):  # noqa: ASYNC110 - a ring has no event
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pass
        return self.received

    @property
    def received(self) -> list[int]:
        return [camera.status.packets for camera in self.cameras]

    @property
    def pictures(self) -> int:
        return sum(camera.status.frames for camera in self.cameras)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def _place(self, camera: Camera) -> int:
        reader = camera.ring.follow(float("-inf"))
        first = (await anext(reader))[0]
        await reader.aclose()
        return self._street.place(first.data)

    def _camera(self, number: int, url: str, pre_roll_s: float) -> Camera:
        name = f"camera-{number}"
        given = {"url": url, "pre_roll_s": pre_roll_s, "post_roll_s": 1}
        if self._mode == "sub":
            given["detect_url"] = self._street.sub[number]
        loop = asyncio.get_running_loop()

        def watches(emit: Callable[[Detection], None]) -> list[Watch]:
            if self._mode == "record":
                return []
            return [watch("motion", name, lambda: motion.build(name, {}, language="fr"), emit=emit, loop=loop)]

        return Camera(
            name,
            CameraSettings.model_validate(given),
            clock=SystemClock(),
            watches=watches,
            on_detection=self._note,
            random=Random(number),
        )

    def _note(self, _detection: Detection) -> None:
        self.detections += 1


def _is_live(camera: Camera) -> bool:
    status = camera.status
    return status.state == "live" and status.detect_state in ("live", None)


async def measured(cameras: int, seconds: float, mode: Mode, *, small: bool = False, pre_roll_s: float = 10) -> Figures:
    """One run, measured for `seconds` once every camera is live (and its ring full)."""
    metrics.reset()
    subs = cameras if mode == "sub" else 0
    async with child("tests.campaigns.street", str(cameras), str(subs), *(["--small"] if small else [])) as (asked, hello):
        sending = Street(asked, hello)
        fleet = Fleet(sending, mode, pre_roll_s=pre_roll_s)
        fleet.start()
        try:
            places = await fleet.places()
            await asyncio.sleep(0 if small else pre_roll_s + 5)
            lag = Lag()
            measuring = asyncio.create_task(lag.run())
            loop = asyncio.get_running_loop()
            street_cpu_s, watched_sent = await sending.so_far()
            machine_s = machine_cpu_s()
            began_s, before, pictures = loop.time(), usage(), fleet.pictures
            await asyncio.sleep(seconds)
            took_s, after, pictures = loop.time() - began_s, usage(), fleet.pictures - pictures
            machine_s = machine_cpu_s() - machine_s
            now_cpu_s, now_sent = await sending.so_far()
            street_cpu_s, watched_sent = now_cpu_s - street_cpu_s, now_sent - watched_sent
            measuring.cancel()
            rings = sum(camera.ring.size_bytes for camera in fleet.cameras)
            # Not the last one: FFmpeg's parser keeps a packet until the next one has begun.
            wanted = [count - place - 1 for count, place in zip(await sending.hold(), places, strict=True)]
            received = await fleet.drained(wanted)
        finally:
            await fleet.stop()
    return Figures(
        cameras=cameras,
        mode=mode,
        seconds=round(took_s, 1),
        sent=sum(wanted),
        received=sum(received),
        lost=sum(want - got for want, got in zip(wanted, received, strict=True)),
        dropped={name: sum(by_camera.values()) for name, by_camera in metrics.snapshot().items()},
        reconnects=sum(camera.status.reconnects for camera in fleet.cameras),
        watched_sent=watched_sent,
        pictures=pictures,
        detections=fleet.detections,
        **_lag(lag.late_s),
        **_used(before, after, took_s, cameras),
        street_cpu_percent_per_stream=round(100 * street_cpu_s / took_s / (cameras * (2 if mode == "sub" else 1)), 3),
        others_cpu_percent=round(100 * (machine_s - (after.cpu_s - before.cpu_s) - street_cpu_s) / took_s, 1),
        rings_mb=round(rings / _MB, 1),
    )


def _lag(late_s: list[float]) -> dict[str, Any]:
    shares = {"lag_p50_ms": 0.5, "lag_p99_ms": 0.99, "lag_max_ms": 1.0}
    return {name: round(1000 * quantile(late_s, share), 2) for name, share in shares.items()}


def _used(before: Usage, after: Usage, took_s: float, cameras: int) -> dict[str, Any]:
    return {
        "cpu_percent_per_camera": round(100 * (after.cpu_s - before.cpu_s) / took_s / cameras, 3),
        "rss_mb": round(after.rss_bytes / _MB, 1),
        "threads": after.threads,
        "fds": after.fds,
    }


def rows(figures: Figures) -> list[results.Row]:
    """The figures as people read them."""
    return [
        ("cameras, watched stream", f"{figures.cameras}, {figures.mode}", ""),
        ("measured", f"{figures.seconds:g} s", "≥ 60 s"),
        ("recorded packets sent / received", f"{figures.sent} / {figures.received}", ""),
        ("recorded packets lost", str(figures.lost), "0"),
        (
            "watched pictures sent / decoded",
            f"{figures.watched_sent} / {figures.pictures}",
            "all" if figures.watched_sent else "",
        ),
        ("loop lag p50 / p99 / most", f"{figures.lag_p50_ms} / {figures.lag_p99_ms} / {figures.lag_max_ms} ms", "p99 ≤ 10 ms"),
        ("CPU a camera, of a core", f"{figures.cpu_percent_per_camera} %", ""),
        ("pictures decoded a second and camera", f"{figures.pictures / figures.seconds / figures.cameras:.1f}", ""),
        ("detections", str(figures.detections), ""),
        ("memory / of it in rings", f"{figures.rss_mb} / {figures.rings_mb} MB", ""),
        ("threads, file descriptors", f"{figures.threads}, {figures.fds}", ""),
        ("reconnects, losses at a bound", f"{figures.reconnects}, {figures.dropped or 'none'}", "none"),
        ("CPU of the cameras' process, a stream", f"{figures.street_cpu_percent_per_stream} %", ""),
        ("CPU of everything else, of a core", f"{figures.others_cpu_percent} %", "little"),
    ]


def main() -> None:
    """Read the command line, measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cameras", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--mode", choices=("sub", "main", "record"), default="sub")
    parser.add_argument("--small", action="store_true", help="small pictures, for trying it out")
    parser.add_argument("--write", action="store_true", help="leave the result in docs/bench")
    arguments = parser.parse_args()
    logs.configure("console", level="warning")
    figures = asyncio.run(measured(arguments.cameras, arguments.seconds, arguments.mode, small=arguments.small))
    results.tell(
        f"{arguments.cameras}-cameras-{arguments.mode}",
        f"{arguments.cameras} cameras of 1080p25, 4 Mbit/s",
        rows(figures),
        asdict(figures),
        command="make campaign-64-cameras ARGS='" + " ".join(sys.argv[1:]) + "'",
        write=arguments.write,
    )


if __name__ == "__main__":
    main()
