"""1,000 reconnects in one process: `python -m tests.campaigns.reconnects [--write]`.

The cameras (`flapping`, in another process) break each stream after its first key frames, by reset, by an orderly end, by
silence, by refusing. This process records and watches them, and must be no larger at the end: threads, file descriptors
and memory are looked at after every few reconnects.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

import numpy as np
import structlog

from tests.campaigns import results
from tests.campaigns.child import child
from tests.campaigns.process import Usage, usage
from vigintd import metrics
from vigintd.camera import Camera
from vigintd.clock import SystemClock
from vigintd.config import CameraSettings
from vigintd.detect import motion
from vigintd.detect.watch import Watch, watch
from vigintd.model import Detection
from vigintd.retry import Backoff

BACKOFF = Backoff(0.02, 0.1)
STALL_S = 0.4
SAMPLES = 100
WARM_UP = 0.2
"""This share of the reconnects comes before anything is compared: rings fill, the allocator finds its size."""

_LOOK_S = 0.05
_LEAVE_S = 5.0
_MB = 1024 * 1024


@dataclass(frozen=True)
class Sample:
    """What the process used after so many reconnects."""

    reconnects: int
    used: Usage


@dataclass(frozen=True)
class Figures:
    """What one run measured."""

    cameras: int
    reconnects: int
    seconds: float
    broken: dict[str, int]
    """How often each way of breaking met a client."""
    reasons: dict[str, int]
    """What the cameras said of it."""
    threads: tuple[int, int]
    """Most while warm-up ended (a tenth of the samples), and most at the end."""
    fds: tuple[int, int]
    left: tuple[int, int]
    """Threads and file descriptors left when all cameras had stopped, beyond those before they began."""
    rss_mb: tuple[float, float]
    drift_mb: float
    """Of memory per 1,000 reconnects, by the straight line through all samples after the warm-up."""
    rss_series_mb: list[tuple[int, float]]
    """Reconnects and memory of every sample, the warm-up's too: a line alone does not tell growth from a step."""
    readers_abandoned: int


def fleet(urls: Sequence[str]) -> list[Camera]:
    """A recorded and watched camera at each."""
    loop = asyncio.get_running_loop()

    def camera(number: int, url: str) -> Camera:
        name = f"camera-{number}"
        # Every other one at a fixed rate; without one, detection has a thread of its own.
        watching = {"detect_fps": 10} if number % 2 else {}

        def watches(emit: Callable[[Detection], None]) -> list[Watch]:
            return [watch("motion", name, lambda: motion.build(name, {}, language="fr"), emit=emit, loop=loop)]

        return Camera(
            name,
            CameraSettings.model_validate({"url": url, "stall_timeout_s": STALL_S, "pre_roll_s": 1, **watching}),
            clock=SystemClock(),
            watches=watches,
            on_detection=lambda _detection: None,
            random=Random(number),
            backoff=BACKOFF,
        )

    return [camera(number, url) for number, url in enumerate(urls)]


async def measured(cameras: int, reconnects: int) -> Figures:
    """One run: until so many streams have come back."""
    metrics.reset()
    loop = asyncio.get_running_loop()
    async with child("tests.campaigns.flapping", str(cameras)) as (flapping, hello):
        before, began_s = usage(), loop.time()
        reasons: Counter[str] = Counter()
        with _hearing(reasons):
            running = fleet(hello["urls"])
            tasks = [asyncio.create_task(camera.run()) for camera in running]
            samples = await _samples(running, reconnects)
            broken = await flapping.ask("count")
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        took_s, left = loop.time() - began_s, await _left(before)
    return _figures(samples, cameras=cameras, took_s=took_s, broken=broken, reasons=reasons, left=left)


async def _samples(running: Sequence[Camera], reconnects: int) -> list[Sample]:
    samples: list[Sample] = []
    step = max(1, reconnects // SAMPLES)
    while not samples or samples[-1].reconnects < reconnects:
        await asyncio.sleep(_LOOK_S)
        done = sum(camera.status.reconnects for camera in running)
        if done // step > (samples[-1].reconnects // step if samples else 0):
            # What waits for the collector is no leak.
            gc.collect()
            samples.append(Sample(done, usage()))
    return samples


def _figures(
    samples: list[Sample], *, cameras: int, took_s: float, broken: dict[str, int], reasons: Counter[str], left: tuple[int, int]
) -> Figures:
    warm = [sample for sample in samples if sample.reconnects >= WARM_UP * samples[-1].reconnects] or samples
    tenth = max(1, len(warm) // 10)
    first, last = [sample.used for sample in warm[:tenth]], [sample.used for sample in warm[-tenth:]]
    return Figures(
        cameras=cameras,
        reconnects=samples[-1].reconnects,
        seconds=round(took_s, 1),
        broken=broken,
        reasons=dict(reasons),
        threads=(max(used.threads for used in first), max(used.threads for used in last)),
        fds=(max(used.fds for used in first), max(used.fds for used in last)),
        left=left,
        rss_mb=(round(first[0].rss_bytes / _MB, 2), round(last[-1].rss_bytes / _MB, 2)),
        drift_mb=round(_drift_bytes(warm) / _MB, 2),
        rss_series_mb=[(sample.reconnects, round(sample.used.rss_bytes / _MB, 2)) for sample in samples],
        readers_abandoned=sum(metrics.snapshot().get("camera.readers_abandoned", {}).values()),
    )


def _drift_bytes(warm: Sequence[Sample]) -> float:
    if len(warm) < 2:
        return 0.0
    at = np.array([sample.reconnects for sample in warm], np.float64)
    held = np.array([sample.used.rss_bytes for sample in warm], np.float64)
    slope: float = float(np.polyfit(at, held, 1)[0])
    return slope * 1000


async def _left(before: Usage) -> tuple[int, int]:
    """Threads and descriptors beyond those of before; a thread that says farewell may take a moment to be gone."""
    for _ in range(round(_LEAVE_S / _LOOK_S)):
        after = usage()
        if after.threads <= before.threads and after.fds <= before.fds:
            break
        await asyncio.sleep(_LOOK_S)
    return after.threads - before.threads, after.fds - before.fds


@contextmanager
def _hearing(reasons: Counter[str]) -> Iterator[None]:
    """Count the reasons that cameras log; nothing is written."""

    def hear(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Any:
        if event["event"] == "camera.lost":
            reasons[event["reason"]] += 1
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[hear], cache_logger_on_first_use=False)
    yield
    structlog.configure(**before)


def rows(figures: Figures) -> list[results.Row]:
    """The figures as people read them."""
    warm = f"after the first {WARM_UP:.0%}"
    return [
        ("cameras, reconnects", f"{figures.cameras}, {figures.reconnects} in {figures.seconds:g} s", "1,000"),
        ("broken by", _listed(figures.broken), ""),
        ("lost because", _listed(figures.reasons), ""),
        (f"threads, {warm} → at the end", " → ".join(map(str, figures.threads)), "flat"),
        (f"file descriptors, {warm} → at the end", " → ".join(map(str, figures.fds)), "flat"),
        ("threads, descriptors left when stopped", f"{figures.left[0]}, {figures.left[1]}", "0, 0"),
        (f"memory, {warm} → at the end", " → ".join(f"{mb:.1f}" for mb in figures.rss_mb) + " MB", ""),
        ("memory drift per 1,000 (straight line)", f"{figures.drift_mb:+.2f} MB", "< 5 MB"),
        ("readers abandoned", str(figures.readers_abandoned), "0"),
    ]


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def main() -> None:
    """Read the command line, measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--reconnects", type=int, default=1000)
    parser.add_argument("--write", action="store_true", help="leave the result in docs/bench")
    arguments = parser.parse_args()
    figures = asyncio.run(measured(arguments.cameras, arguments.reconnects))
    results.tell(
        "reconnects",
        f"{arguments.reconnects} reconnects of {arguments.cameras} cameras in one process",
        rows(figures),
        asdict(figures),
        command="make campaign-reconnects ARGS='" + " ".join(sys.argv[1:]) + "'",
        write=arguments.write,
    )


if __name__ == "__main__":
    main()
