"""Coded video for the clip's tests, made by FFmpeg's own encoders from small moving pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray

from vigintd.clip import h264
from vigintd.clip.libav import av_packet, open_decoder
from vigintd.model import AudioChunk, AudioParameters, Packet, StreamParameters

FPS = 25
TICKS = 90_000 // FPS
CODECS = {"libx264": "h264", "libx265": "hevc", "libsvtav1": "av1"}
"""What an encoder makes, where the codec is not called as it is."""


def pictures(count: int, width: int = 160, height: int = 120, *, seed: int = 1) -> Iterator[NDArray[np.uint8]]:
    """A texture that moves to the right."""
    rng = np.random.default_rng(seed)
    texture = rng.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    for number in range(count):
        yield np.roll(texture, number * 2, 1)


def coded(
    count: int,
    *,
    encoder: str = "libx264",
    size: tuple[int, int] = (160, 120),
    gop: int = FPS,
    b_frames: int = 0,
    global_header: bool = False,
    seed: int = 1,
    crf: int = 30,
    open_gop: bool = False,
    pixel_aspect: Fraction | None = None,
) -> list[Packet]:
    """`count` packets at 25 a second from monotonic second 100, timestamps from one hour on."""
    context = av.CodecContext.create(encoder, "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height = size
    context.pix_fmt = "yuvj420p" if encoder == "mjpeg" else "yuv420p"
    context.time_base, context.framerate = Fraction(1, FPS), Fraction(FPS)
    context.gop_size, context.max_b_frames, context.thread_count = gop, b_frames, 1
    if pixel_aspect:
        context.sample_aspect_ratio = pixel_aspect
    if global_header:
        context.flags |= 1 << 22
    context.options = _options(encoder, gop=gop, b_frames=b_frames, crf=crf, open_gop=open_gop)
    found = []
    for number, picture in enumerate(pictures(count, *size, seed=seed)):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=context.pix_fmt)
        frame.pts = number
        # A wish for a key frame closes the group before it.
        frame.pict_type = PictureType.I if number % gop == 0 and not open_gop else PictureType.NONE
        found += context.encode(frame)
    found += context.encode(None)
    parameters = StreamParameters(CODECS.get(encoder, encoder), *size, context.extradata or b"")
    return [_packet(packet, 100 + number / FPS, parameters) for number, packet in enumerate(found)]


def _packet(packet: av.Packet[av.VideoStream], arrived_s: float, parameters: StreamParameters) -> Packet:
    pts, dts = ((time or 0) * TICKS + 324_000_000 for time in (packet.pts, packet.dts))
    return Packet(bytes(packet), pts, dts, TICKS, packet.is_keyframe, arrived_s, parameters)


def _options(encoder: str, *, gop: int, b_frames: int, crf: int, open_gop: bool) -> dict[str, str]:
    x264 = f"scenecut=0:bframes={b_frames}:b-adapt=0:keyint={gop}:open-gop={int(open_gop)}"
    x265 = f"log-level=none:pools=1:frame-threads=1:keyint={gop}:min-keyint={gop}:bframes={b_frames}:b-adapt=0"
    options = {
        "libx264": {"preset": "ultrafast", "crf": str(crf), "forced-idr": "1", "x264-params": x264},
        "libx265": {"preset": "ultrafast", "forced-idr": "1", "x265-params": f"{x265}:open-gop={int(open_gop)}:scenecut=0"},
        # As a camera has it: each picture is shown when it comes.
        "libsvtav1": {"preset": "12", "svtav1-params": "lp=1:pred-struct=1"},
    }
    return options.get(encoder, {})


def with_sound(
    packets: list[Packet], codec: str = "pcm_alaw", *, rate_hz: int = 8000, chunk_samples: int = 320, hz: float = 440
) -> list[Packet]:
    """The same packets, each with the sound that began before its end: a tone."""
    chunks = sound(codec, len(packets) / FPS, rate_hz=rate_hz, chunk_samples=chunk_samples, begin_90k=packets[0].pts_90k, hz=hz)
    found = []
    for packet in packets:
        mine = tuple(chunk for chunk in chunks if chunk.pts_90k < packet.dts_90k + TICKS)
        chunks = chunks[len(mine) :]
        found.append(replace(packet, audio=mine))
    return found


def sound(
    codec: str, seconds: float, *, rate_hz: int = 8000, chunk_samples: int = 320, begin_90k: int = 0, hz: float = 440
) -> list[AudioChunk]:
    """A coded tone, in chunks."""
    context = av.CodecContext.create(codec.removesuffix("le"), "w")
    assert isinstance(context, av.AudioCodecContext)
    context.sample_rate, context.layout = rate_hz, "mono"
    context.format = "fltp" if codec == "aac" else "s16"
    context.time_base = Fraction(1, rate_hz)
    if codec == "aac":
        chunk_samples = 1024
    if codec.startswith("g726"):
        context.options = {"code_size": "4"}
    packets = []
    for begin in range(0, int(seconds * rate_hz), chunk_samples):
        wave = np.sin(2 * np.pi * hz * (np.arange(chunk_samples) + begin) / rate_hz) * 0.3
        samples = wave.astype(np.float32) if codec == "aac" else (wave * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format=context.format.name, layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, begin, Fraction(1, rate_hz)
        packets += context.encode(frame)
    parameters = AudioParameters(codec, rate_hz, 1, bytes(context.extradata or b"") if codec == "aac" else b"")
    ticks = 90_000 / rate_hz
    return [
        AudioChunk(bytes(p), begin_90k + round((p.pts or 0) * ticks), round((p.duration or 0) * ticks), parameters)
        for p in packets
        if (p.pts or 0) >= 0
    ]


def later(packets: list[Packet], *, arrival_s: float = 0, ticks: int = 0) -> list[Packet]:
    """The same packets at another time on either clock."""
    return [
        replace(
            p,
            arrived_s=p.arrived_s + arrival_s,
            pts_90k=p.pts_90k + ticks,
            dts_90k=p.dts_90k + ticks,
            audio=tuple(replace(chunk, pts_90k=chunk.pts_90k + ticks) for chunk in p.audio),
        )
        for p in packets
    ]


def length_prefixed(packet: Packet) -> Packet:
    """The packet as an MP4 or RTMP source gives it, with an avcC record."""
    units = [unit for unit in packet.data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit]
    sps, pps = h264.parameter_sets(packet.parameters.extradata)
    record = b"\1" + sps[1:4] + b"\xff\xe1" + len(sps).to_bytes(2) + sps + b"\1" + len(pps).to_bytes(2) + pps
    data = b"".join(len(unit).to_bytes(4) + unit for unit in units)
    return replace(packet, data=data, parameters=replace(packet.parameters, extradata=record))


def decoded(packets: list[Packet]) -> list[NDArray[np.uint8]]:
    """The pictures in the packets, as RGB."""
    decoder = open_decoder(packets[0].parameters)
    sources = [av_packet(packet.data, packet.pts_90k, packet.dts_90k, is_key=packet.is_key) for packet in packets]
    return [rgb(frame) for source in (*sources, None) for frame in decoder.decode(source)]


def rgb(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """The picture as height × width × 3."""
    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


class Played:
    """What a player finds in a file (or in the beginning of one): the contract of every part."""

    def __init__(self, source: Path | bytes) -> None:
        data = source if isinstance(source, bytes) else source.read_bytes()
        with av.open(io.BytesIO(data), "r", format="mp4") as container:
            stream = container.streams.video[0]
            self.codec = stream.codec_context.name
            self.size = stream.codec_context.width, stream.codec_context.height
            self.pixel_aspect = stream.codec_context.sample_aspect_ratio
            packets = [packet for packet in container.demux(stream) if packet.size]
            self.dts = [float((packet.dts or 0) * packet.time_base) for packet in packets]
            self.pts = [float((packet.pts or 0) * packet.time_base) for packet in packets]
            self.keys = [packet.is_keyframe for packet in packets]
            container.seek(0)
            self.frames = [rgb(frame) for frame in container.decode(stream)]
            self._sound = _Heard(container) if container.streams.audio else None

    @property
    def has_sound(self) -> bool:
        return self._sound is not None

    @property
    def sound(self) -> _Heard:
        assert self._sound is not None, "there is no sound"
        return self._sound

    def assert_plays(self) -> None:
        assert self.codec == "h264"
        assert self.keys[0]
        assert self.dts[0] == 0
        assert all(a < b for a, b in zip(self.dts, self.dts[1:], strict=False))
        assert all(p >= d for p, d in zip(self.pts, self.dts, strict=True))
        assert len(set(self.pts)) == len(self.pts)
        assert len(self.frames) == len(self.dts)


class _Heard:
    """What is heard of a file."""

    def __init__(self, container: av.container.InputContainer) -> None:
        stream = container.streams.audio[0]
        self.codec = stream.codec_context.name
        self.rate_hz = stream.codec_context.sample_rate
        assert stream.time_base is not None
        container.seek(0)
        packets = [packet for packet in container.demux(stream) if packet.size]
        self.times = [float((packet.pts or 0) * stream.time_base) for packet in packets]
        self.ends = [float(((packet.pts or 0) + (packet.duration or 0)) * stream.time_base) for packet in packets]
        container.seek(0)
        row = [frame.to_ndarray()[0] for frame in container.decode(stream)]
        self.samples = np.concatenate(row)
        self.begin_s = self.times[0]

    def level(self, begin_s: float, end_s: float) -> float:
        """How loud it is between these seconds."""
        piece = self.samples[int((begin_s - self.begin_s) * self.rate_hz) : int((end_s - self.begin_s) * self.rate_hz)]
        return float(np.sqrt((piece**2).mean()))
