"""Recordings of made-up scenes, and what a detector finds in a recording, decoded in full and adaptively."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from tests.camera.streams import packets_of
from vigintd.camera.attention import Attention
from vigintd.camera.feed import Feed, PictureCount
from vigintd.camera.showing import Showing
from vigintd.clock import SystemClock
from vigintd.detect import Detector, Pixels
from vigintd.detect.motion import build
from vigintd.model import Detection, Frame, Packet

EVENT_GAP_S = 3.0
"""Detections closer than this belong to one event."""

Thing = tuple[float, float, int, int, int]
"""Left and top in fractions of the picture, width and height in pixels, grey."""

_DIGITS = {
    "0": 0x7B6F,
    "1": 0x2C97,
    "2": 0x73E7,
    "3": 0x73CF,
    "4": 0x5BC9,
    "5": 0x79CF,
    "6": 0x79EF,
    "7": 0x7249,
    "8": 0x7BEF,
    "9": 0x7BCF,
}
"""Three by five dots, the highest bit top left."""


@dataclass(frozen=True)
class Scene:
    """A room, what moves in it, and how the camera sees and codes it."""

    name: str
    seconds: float
    things: Callable[[float], Sequence[Thing]] = lambda _: ()
    noise: float = 2.0
    dusk: float = 0.0
    """How much darker, in fractions, each second."""
    clock: bool = False
    """The time of day in the picture."""
    size: tuple[int, int] = (640, 360)
    fps: int = 10
    gop_s: float = 2.0
    codec: str = "libx264"
    bit_rate: int | None = None
    """Constant; without it the quality is."""

    def record(self, path: Path) -> list[Packet]:
        """The recording's packets, as if they had arrived in time."""
        with av.open(path, "w") as container:
            stream = container.add_stream(self.codec, rate=self.fps, options=self._options())
            assert isinstance(stream, VideoStream)
            stream.width, stream.height = self.size
            stream.pix_fmt = "yuvj420p" if self.codec == "mjpeg" else "yuv420p"
            stream.codec_context.gop_size = round(self.gop_s * self.fps)
            for number in range(round((self.seconds + self._before_s) * self.fps)):
                frame = av.VideoFrame.from_ndarray(self._picture(number), format="gray").reformat(format=stream.pix_fmt)
                frame.pts, frame.time_base = number, Fraction(1, self.fps)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        packets = [replace(packet, arrived_s=packet.arrived_s - self._before_s) for packet in packets_of(path)]
        return [packet for packet in packets if packet.arrived_s >= -1e-3]

    @property
    def _before_s(self) -> float:
        """A camera has sent GOPs before anybody watches; an encoder's first ones are unlike the others."""
        return 2 * self.gop_s if self.gop_s <= 10 else 0

    def _options(self) -> dict[str, str]:
        if self.codec == "libx265":
            return {"preset": "ultrafast", "x265-params": "log-level=none:bframes=0:scenecut=0:rc-lookahead=0:pools=1"}
        if self.codec != "libx264":
            return {}
        rate = {"crf": "26"}
        if self.bit_rate:
            rate = dict.fromkeys(("b", "maxrate", "bufsize"), str(self.bit_rate))
        return {"preset": "veryfast", "bf": "0", "sc_threshold": "0", "threads": "1", **rate}

    def _picture(self, number: int) -> np.ndarray:
        t = number / self.fps - self._before_s
        width, height = self.size
        picture = _room(width, height) * np.float32(1 - self.dusk * t)
        for x, y, across, down, grey in self.things(t):
            left, top = int(x * width), int(y * height)
            picture[top : top + down, max(0, left) : max(0, left + across)] = grey + np.arange(down)[:, None] // 6 % 2 * 10
        if self.clock:
            _stamp(picture, t)
        noise = _noise(width, height, number % 17) * np.float32(self.noise)
        sensed: np.ndarray = np.clip(picture + np.roll(noise, number * 37 % width, axis=1), 0, 255).astype(np.uint8)
        return sensed


@cache
def _room(width: int, height: int) -> np.ndarray:
    random = np.random.default_rng(1)
    patches = random.integers(60, 180, (height // 20 + 1, width // 20 + 1)).astype(np.float32)
    texture = random.normal(0, 6, (height, width)).astype(np.float32)
    room: np.ndarray = np.kron(patches, np.ones((20, 20), np.float32))[:height, :width] + texture
    return room


@cache
def _noise(width: int, height: int, seed: int) -> np.ndarray:
    noise: np.ndarray = np.random.default_rng(seed).standard_normal((height, width), np.float32)
    return noise


def _stamp(picture: np.ndarray, t: float) -> None:
    t += 60
    words = f"{12 + int(t) // 3600:02d}{int(t) // 60 % 60:02d}{int(t) % 60:02d}"
    dot = picture.shape[0] // 90
    for place, digit in enumerate(words):
        bits = np.array([_DIGITS[digit] >> (14 - bit) & 1 for bit in range(15)], np.float32).reshape(5, 3)
        left = dot * (2 + 4 * place)
        picture[2 * dot : 7 * dot, left : left + 3 * dot] = np.kron(bits * 235, np.ones((dot, dot), np.float32))


@dataclass(frozen=True)
class Seen:
    """What came of watching a recording."""

    detections: list[Detection]
    shown_s: list[float]
    cpu_s: float
    pictures: int
    """Decoded, those apart that were only a sign of life."""

    @property
    def events(self) -> list[tuple[float, float]]:
        """First and last detection of each."""
        moments = [detection.arrived_s for detection in self.detections]
        starts = [later for earlier, later in pairwise([float("-inf"), *moments]) if later - earlier > EVENT_GAP_S]
        ends = [earlier for earlier, later in pairwise([*moments, float("inf")]) if later - earlier > EVENT_GAP_S]
        return list(zip(starts, ends, strict=True))


class Eyes:
    """A watch that asks a detector at once."""

    pixels: Pixels = "luma"

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.frames: list[Frame] = []
        self.shown_s: list[float] = []
        self.detections: list[Detection] = []

    def offer(self, frame: Frame) -> None:
        self.shown_s.append(frame.arrived_s)
        answer = self.detector(frame)
        if isinstance(answer, Detection):
            self.detections.append(answer)

    def close(self) -> None:
        pass


def feed_for(eyes: Sequence[Eyes], *, detect_fps: float | None, look_back_bytes: int = 1 << 20) -> Feed:
    return Feed(
        "entree", eyes, count=PictureCount(), detect_fps=detect_fps, look_back_bytes=look_back_bytes, clock=SystemClock()
    )


def eyes_of(detector: Callable[[Frame], Detection | None]) -> Eyes:
    return Eyes(detector)  # type: ignore[arg-type]  # a function has no `pixels`, and nobody asks it


def lookouts() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("lookout-")]


def watching(eyes: Eyes, *, limit_bytes: int = 1 << 20) -> Attention:
    return Attention(
        Showing("entree", [eyes], count=PictureCount(), fps=5, clock=SystemClock()),
        limit_bytes=limit_bytes,
    )


def seen(packets: Sequence[Packet], *, detect_fps: float | None, **options: object) -> Seen:
    """Watch a recording for movement without pacing; `cpu_s` is of all threads."""
    eyes = Eyes(build("entree", options, language="fr"))
    count = PictureCount()
    feed = Feed("entree", [eyes], count=count, detect_fps=detect_fps, look_back_bytes=32 << 20, clock=SystemClock())
    began_s = time.process_time()
    for number, packet in enumerate(packets):
        feed.see(packet)
        if number % 5 == 0:
            assert feed.drain(60)
    assert feed.drain(60)
    cpu_s = time.process_time() - began_s
    feed.close()
    return Seen(eyes.detections, eyes.shown_s, cpu_s, count.value)
