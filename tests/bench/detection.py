"""What adaptive detection finds and costs against full decoding, scene by scene. Printed, never asserted.

`VIGINTD_FOOTAGE=… python -m tests.bench.detection`; CPU is that of all threads, both ways on the same packets, unpaced.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from rich.console import Console
from rich.table import Table

from tests.camera.scenes import Scene, Seen, Thing, seen
from tests.camera.streams import packets_of
from tests.real.parts import footage, missing_part
from vigintd.model import Packet

BEGINS_S = 61.0


def brief(t: float) -> Sequence[Thing]:
    """Somebody who comes and goes in a second and a half, twice."""
    for begins_s in (BEGINS_S, BEGINS_S + 24):
        if begins_s <= t < begins_s + 1.6:
            return [(0.3 + (t - begins_s) / 1.6 * 0.25, 0.4, 60, 180, 30)]
    return []


def far(t: float) -> Sequence[Thing]:
    """Somebody small and far away."""
    return [(0.2 + (t - BEGINS_S) / 40, 0.5, 16, 40, 40)] if BEGINS_S <= t < BEGINS_S + 20 else []


def slow(t: float) -> Sequence[Thing]:
    """Somebody who hardly moves."""
    return [(0.2 + (t - BEGINS_S) / 200, 0.4, 60, 180, 40)] if BEGINS_S <= t < BEGINS_S + 30 else []


def scenes(seconds: float, fps: int) -> Iterator[Scene]:
    """Long quiet stretches, and something in them or nothing."""
    made = partial(Scene, seconds=seconds, fps=fps, size=(1280, 720))
    yield made("nothing")
    yield made("night noise", noise=6)
    yield made("dusk", dusk=0.004)
    yield made("clock in the picture", clock=True)
    yield made("constant bit rate", things=brief, bit_rate=2_000_000)
    for gop_s in (2, 4, 10):
        yield made(f"brief, GOP {gop_s} s", things=brief, gop_s=gop_s)
        yield made(f"brief and clock, GOP {gop_s} s", things=brief, clock=True, gop_s=gop_s)
        yield made(f"far, GOP {gop_s} s", things=far, gop_s=gop_s)
        yield made(f"slow, GOP {gop_s} s", things=slow, gop_s=gop_s)


def coded_again(source: Path, path: Path, gop_s: float, quiet_s: float = 0.0) -> list[Packet]:
    """The footage as a camera with such GOPs would send it; with `quiet_s`, the street is empty between pieces."""
    with av.open(source) as before:
        video = before.streams.video[0]
        rate = round(video.average_rate or 10)
        pictures: list[np.ndarray] = [picture.to_ndarray(format="gray") for picture in before.decode(video)]
    if quiet_s:
        empty = np.median(np.stack(pictures[::20]).astype(np.float32), axis=0).astype(np.int16)
        random = np.random.default_rng(1)
        noises = [random.integers(-3, 4, empty.shape, dtype=np.int16) for _ in range(16)]
        quiet = [np.clip(empty + noises[number % 16], 0, 255).astype(np.uint8) for number in range(round(quiet_s * rate))]
        parts = [pictures[begin : begin + 10 * rate] for begin in range(0, len(pictures), 20 * rate)]
        pictures = [picture for part in parts for picture in [*quiet, *part]]
    with av.open(path, "w") as after:
        options = {"preset": "veryfast", "crf": "26", "bf": "0", "sc_threshold": "0", "threads": "1"}
        stream = after.add_stream("libx264", rate=rate, options=options)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = pictures[0].shape
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = round(gop_s * rate)
        for number, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(pixels, format="gray").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            after.mux(stream.encode(frame))
        after.mux(stream.encode(None))
    return packets_of(path)


def row(name: str, packets: Sequence[Packet], sensitivity: str) -> list[str]:
    """One line of the table."""
    full, adaptive = (seen(packets, detect_fps=fps, sensitivity=sensitivity) for fps in (5, None))
    found = [_lateness_s(begin, end, adaptive) for begin, end in full.events]
    late = [lateness for lateness in found if lateness is not None]
    return [
        name,
        sensitivity,
        f"{len(late)} of {len(found)}",
        f"{max(late):+.2f} s" if late else "",
        f"{len([1 for begin, end in adaptive.events if not any(b - 3 <= end and begin <= e + 3 for b, e in full.events)])}",
        f"{adaptive.pictures / full.pictures:.0%}",
        f"{adaptive.cpu_s / full.cpu_s:.0%}",
        f"{1000 * full.cpu_s / full.pictures:.2f} ms",
    ]


def _lateness_s(begin: float, end: float, adaptive: Seen) -> float | None:
    """How much later the first detection of an event came; None when there was none."""
    moments = [detection.arrived_s for detection in adaptive.detections]
    return next((moment - begin for moment in moments if begin - 1 <= moment <= end + 1), None)


def main() -> None:
    """Record, watch both ways, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--only", default="", help="part of a scene's name")
    parser.add_argument("--sensitivity", default="high", choices=("low", "medium", "high"))
    given = parser.parse_args()
    columns = ("scene", "sensitivity", "events found", "latest by", "others", "pictures", "CPU", "full, a picture")
    table = Table(
        *columns, title=f"Adaptive against 5 a second in full, Python {platform.python_version()}, {platform.machine()}"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.mp4"
        for scene in scenes(given.seconds, given.fps):
            if given.only in scene.name:
                table.add_row(*row(scene.name, scene.record(path), given.sensitivity))
        if missing_part("footage") is None and given.only in "footage":
            source = footage()
            table.add_row(*row("footage as it is", packets_of(source), given.sensitivity))
            for gop_s in (2, 4, 10):
                table.add_row(*row(f"footage, GOP {gop_s} s", coded_again(source, path, gop_s), given.sensitivity))
                quiet = coded_again(source, path, gop_s, quiet_s=60)
                table.add_row(*row(f"footage between quiet minutes, GOP {gop_s} s", quiet, given.sensitivity))
    Console().print(table)


if __name__ == "__main__":
    main()
