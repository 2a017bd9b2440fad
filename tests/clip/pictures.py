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
from vigintd.clip.libav import av_packet
from vigintd.model import Packet, StreamParameters

FPS = 25
TICKS = 90_000 // FPS


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
) -> list[Packet]:
    """`count` packets at 25 a second from monotonic second 100, timestamps from one hour on."""
    context = av.CodecContext.create(encoder, "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height = size
    context.pix_fmt = "yuvj420p" if encoder == "mjpeg" else "yuv420p"
    context.time_base, context.framerate = Fraction(1, FPS), Fraction(FPS)
    context.gop_size, context.max_b_frames, context.thread_count = gop, b_frames, 1
    if global_header:
        context.flags |= 1 << 22
    context.options = {
        "libx264": {"preset": "ultrafast", "crf": str(crf), "forced-idr": "1", "x264-params": f"scenecut=0:bframes={b_frames}"},
        "libx265": {"preset": "ultrafast", "x265-params": f"log-level=none:pools=1:frame-threads=1:keyint={gop}:bframes=0"},
    }.get(encoder, {})
    found = []
    for number, picture in enumerate(pictures(count, *size, seed=seed)):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=context.pix_fmt)
        frame.pts = number
        frame.pict_type = PictureType.NONE if number % gop else PictureType.I
        found += context.encode(frame)
    found += context.encode(None)
    codec = {"libx264": "h264", "libx265": "hevc"}.get(encoder, encoder)
    parameters = StreamParameters(codec, *size, context.extradata or b"")
    return [
        Packet(
            bytes(packet),
            (packet.pts or 0) * TICKS + 324_000_000,
            (packet.dts or 0) * TICKS + 324_000_000,
            TICKS,
            packet.is_keyframe,
            100 + number / FPS,
            parameters,
        )
        for number, packet in enumerate(found)
    ]


def later(packets: list[Packet], *, arrival_s: float = 0, ticks: int = 0) -> list[Packet]:
    """The same packets at another time on either clock."""
    return [
        replace(p, arrived_s=p.arrived_s + arrival_s, pts_90k=p.pts_90k + ticks, dts_90k=p.dts_90k + ticks) for p in packets
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
    decoder = av.CodecContext.create(packets[0].parameters.codec, "r")
    assert isinstance(decoder, av.VideoCodecContext)
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
            packets = [packet for packet in container.demux(stream) if packet.size]
            self.dts = [float((packet.dts or 0) * packet.time_base) for packet in packets]
            self.pts = [float((packet.pts or 0) * packet.time_base) for packet in packets]
            self.keys = [packet.is_keyframe for packet in packets]
            container.seek(0)
            self.frames = [rgb(frame) for frame in container.decode(stream)]

    def assert_plays(self) -> None:
        assert self.codec == "h264"
        assert self.keys[0]
        assert self.dts[0] == 0
        assert all(a < b for a, b in zip(self.dts, self.dts[1:], strict=False))
        assert all(p >= d for p, d in zip(self.pts, self.dts, strict=True))
        assert len(set(self.pts)) == len(self.pts)
        assert len(self.frames) == len(self.dts)
