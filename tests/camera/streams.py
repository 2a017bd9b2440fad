"""Real streams for the camera's tests: files made by FFmpeg, and a real RTSP server that can be killed."""

from __future__ import annotations

import signal
import subprocess
import threading
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.video.stream import VideoStream

from vigintd.camera.stream import Stream, StreamRequest
from vigintd.config import CameraSettings
from vigintd.model import Packet, StreamParameters

GST_RTSP = Path(__file__).parents[1] / "real" / "gst_rtsp.py"
SYSTEM_PYTHON = "/usr/bin/python3"
FPS = 50
GOP = 10


def request(
    url: str,
    *,
    open_timeout_s: float = 5,
    stall_timeout_s: float = 5,
    transport: Literal["tcp", "udp"] = "tcp",
    audio: bool = False,
) -> StreamRequest:
    return StreamRequest(url, "the label", open_timeout_s, stall_timeout_s, transport, audio)


def parameters(codec: str = "h264") -> StreamParameters:
    """Of a stream that describes itself in band."""
    return StreamParameters(codec, 320, 240, b"")


def picture(number: int, width: int = 320, height: int = 240) -> np.ndarray:
    """A dark block on a mottled wall, further right with each number."""
    wall = np.random.default_rng(1).integers(90, 110, (height, width, 3), dtype=np.uint8)
    left = number * 2 % (width - 40)
    wall[height // 4 : height // 4 * 3, left : left + 40] = 20
    return wall


def write_video(
    path: Path,
    *,
    seconds: float = 1,
    codec: str = "libx264",
    size: tuple[int, int] = (320, 240),
    options: dict[str, str] | None = None,
) -> Path:
    """A video of the moving block, 50 pictures a second, a key frame each fifth of a second."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=FPS)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = GOP
        stream.codec_context.time_base = Fraction(1, FPS)
        stream.codec_context.options = options if options is not None else {"preset": "ultrafast", "tune": "zerolatency"}
        for number in range(round(seconds * FPS)):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def packets_of(path: Path) -> list[Packet]:
    """Our packets of a file, as if they had arrived in time."""
    with av.open(path) as container:
        video = container.streams.video[0]
        context = video.codec_context
        described = StreamParameters(context.name, context.width, context.height, bytes(context.extradata or b""))
        scale = (video.time_base or Fraction(1, 90_000)) * 90_000
        made = []
        for coded in container.demux(video):
            if coded.size:
                pts, dts = round((coded.pts or 0) * scale), round((coded.dts or 0) * scale)
                made.append(Packet(bytes(coded), pts, dts, 0, coded.is_keyframe, dts / 90_000, described))
        return made


@dataclass
class RtspServer:
    """A gst-rtsp-server in a process of its own."""

    process: subprocess.Popen[str]
    port: int
    arguments: tuple[str, ...]

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/cam"

    def kill(self) -> None:
        """As a camera that loses power."""
        self.process.kill()
        self.process.wait(10)

    def freeze(self) -> None:
        """As a camera that hangs: its connections stay."""
        self.process.send_signal(signal.SIGSTOP)

    def start_again(self) -> None:
        """On the same port."""
        self.process, self.port = start_server(("--port", str(self.port), *self.arguments))


def start_server(arguments: tuple[str, ...]) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen([SYSTEM_PYTHON, GST_RTSP, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    word, _, port = process.stdout.readline().partition(" ")
    process.stdout.close()
    assert word == "READY"
    return process, int(port)


def settings(url: str | list[str], **more: object) -> CameraSettings:
    return CameraSettings.model_validate({"url": url, "open_timeout_s": 5, "stall_timeout_s": 5, "pre_roll_s": 5, **more})


def assert_ends_when_told(stream: Stream) -> None:
    """Soon and quietly, though more might come; FFmpeg's own bound is later."""
    begun, ended = threading.Event(), threading.Event()

    def read() -> None:
        for _ in stream.packets():
            begun.set()
        ended.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    assert begun.wait(10)
    stream.interrupt()
    assert ended.wait(5)
    reader.join()


def capture_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("capture-")}


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
