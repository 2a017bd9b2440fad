"""Sound rides on the next picture, in its time, within bounds; who did not ask for it never gets it."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from tests.camera.relays import rtsp_relay
from tests.camera.streams import picture, request
from vigintd import metrics
from vigintd.camera.av_stream import open_av_stream
from vigintd.camera.sound import Sound
from vigintd.camera.stream import StreamRequest
from vigintd.camera.times import MediaTimes
from vigintd.clock import SystemClock
from vigintd.model import AudioChunk, Packet

RATE_HZ = 8000
SECOND = 90_000
gst = pytest.mark.needs("gst-rtsp-server")


def write_with_sound(path: Path, codec: str, *, seconds: float = 1.0) -> Path:
    """The moving block with a tone, 25 pictures a second."""
    with av.open(path, "w") as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "tune": "zerolatency"})
        audio = container.add_stream(codec, rate=RATE_HZ, layout="mono")
        assert isinstance(video, VideoStream)
        assert isinstance(audio, AudioStream)
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        video.codec_context.gop_size = 10
        for number in range(round(seconds * 25)):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
            at = number * RATE_HZ // 25
            tone = (np.sin(np.arange(at, at + RATE_HZ // 25) / 3) * 9000).astype(np.int16)[None, :]
            heard = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
            heard.sample_rate, heard.pts, heard.time_base = RATE_HZ, at, Fraction(1, RATE_HZ)
            container.mux(audio.encode(heard))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


def taken(wanted: StreamRequest, count: int) -> list[Packet]:
    stream = open_av_stream(wanted, SystemClock())
    try:
        return list(itertools.islice(stream.packets(), count))
    finally:
        stream.close()


def chunks_of(packets: list[Packet]) -> list[AudioChunk]:
    return [chunk for packet in packets for chunk in packet.audio]


def assert_in_time(packets: list[Packet], *, within_s: float) -> None:
    """Sound rises, lies near the picture it travels with, and has no gaps."""
    chunks = chunks_of(packets)
    assert all(later.pts_90k > earlier.pts_90k for earlier, later in itertools.pairwise(chunks))
    assert all(abs(chunk.pts_90k - packet.pts_90k) <= within_s * SECOND for packet in packets for chunk in packet.audio)
    assert all(
        abs(later.pts_90k - earlier.pts_90k - earlier.duration_90k) <= SECOND // 100
        for earlier, later in itertools.pairwise(chunks)
    )


@gst
@pytest.mark.parametrize(("sound", "codec"), [("pcma", "pcm_alaw"), ("aac", "aac")])
def test_a_cameras_sound_travels_with_its_pictures(shared_rtsp, sound, codec):
    """G.711 and AAC, from a real server."""
    packets = taken(request(shared_rtsp("--fps", "30", "--gop", "15", "--audio", sound).url, audio=True), 24)
    chunks = chunks_of(packets)
    assert {chunk.parameters.codec for chunk in chunks} == {codec}
    assert sum(chunk.duration_90k for chunk in chunks) == pytest.approx(0.8 * SECOND, rel=0.4)
    assert_in_time(packets, within_s=0.5)
    assert bool(chunks[0].parameters.extradata) == (codec == "aac")


def test_sound_of_a_codec_that_nobody_knows_costs_no_picture(tmp_path):
    """Cameras speak odd ones, and FFmpeg has no name for some."""
    video = write_with_sound(tmp_path / "video.mkv", "pcm_s16le").read_bytes()
    assert b"A_PCM/INT/LIT" in video
    (tmp_path / "odd.mkv").write_bytes(video.replace(b"A_PCM/INT/LIT", b"A_ODD/INT/LIT"))
    packets = taken(request((tmp_path / "odd.mkv").as_uri(), audio=True), 10)
    assert len(packets) == 10
    assert not chunks_of(packets)


@gst
@pytest.mark.parametrize(("audio", "tracks"), [(True, 2), (False, 1)])
def test_who_did_not_ask_for_sound_does_not_even_set_it_up(shared_rtsp, audio, tracks):
    """Places open to the public are recorded without sound: it shall not leave the camera."""
    with rtsp_relay(shared_rtsp("--fps", "30", "--gop", "15", "--audio", "pcma").port) as relay:
        packets = taken(request(relay.url, audio=audio), 20)
        assert relay.asked.count(b"SETUP ") == tracks
    assert bool(chunks_of(packets)) == audio


@gst
def test_a_camera_without_sound_is_none_the_worse_for_being_asked(shared_rtsp):
    """It gives what it has."""
    packets = taken(request(shared_rtsp("--fps", "30", "--gop", "10").url, audio=True), 10)
    assert (len(packets), chunks_of(packets)) == (10, [])


@pytest.mark.parametrize(
    ("name", "encoder", "codec"), [("x.mov", "pcm_alaw", "pcm_alaw"), ("x.mp4", "aac", "aac"), ("x.ts", "aac", "aac")]
)
def test_sound_of_a_file(tmp_path, name, encoder, codec):
    """Also from a transport stream, whose AAC describes itself in each packet: its set-up is told apart all the same."""
    path = write_with_sound(tmp_path / name, encoder, seconds=0.6)
    packets = taken(request(path.as_uri(), audio=True), 14)
    chunks = chunks_of(packets)
    assert {chunk.parameters.codec for chunk in chunks} == {codec}
    assert {(chunk.parameters.sample_rate_hz, chunk.parameters.channels) for chunk in chunks} == {(RATE_HZ, 1)}
    assert bool(chunks[0].parameters.extradata) == (codec == "aac")
    assert not any(chunk.data.startswith(b"\xff\xf1") for chunk in chunks)
    assert_in_time(packets, within_s=1.0)
    assert chunks_of(taken(request(path.as_uri()), 5)) == []


def test_sound_goes_on_when_a_file_begins_anew(tmp_path):
    """Its times with the pictures'."""
    path = write_with_sound(tmp_path / "x.mov", "pcm_alaw", seconds=0.4)
    packets = taken(request(path.as_uri(), audio=True), 25)
    assert packets[-1].dts_90k - packets[0].dts_90k == pytest.approx(24 * SECOND / 25, abs=SECOND // 50)
    last = chunks_of(packets)[-1]
    assert abs(last.pts_90k - packets[-1].pts_90k) <= SECOND


class TestPlacing:
    @pytest.fixture
    def source(self, tmp_path):
        """A track and its packets, to be heard when a test likes."""
        with av.open(write_with_sound(tmp_path / "x.mov", "pcm_alaw", seconds=0.4)) as container:
            track = container.streams.audio[0]
            yield track, [coded for coded in container.demux(track) if coded.size]

    @staticmethod
    def clock_at(dts_90k: int, arrived_s: float) -> MediaTimes:
        times = MediaTimes(Fraction(1, SECOND))
        times.next(dts_90k, dts_90k, arrived_s)
        return times

    def test_sound_follows_the_pictures_offset(self, source):
        """Both come from one clock, which has jumped."""
        track, (coded, *_) = source
        times = self.clock_at(50 * SECOND, 10.0)
        times.next(0, 0, 10.04)
        sound = Sound(track)
        sound.hear(coded, 10.04)
        (chunk,) = sound.take(times)
        assert chunk.pts_90k == round(50.04 * SECOND)

    def test_a_clock_unrelated_to_the_pictures_is_placed_by_arrival(self, source):
        """From then on its own steps count."""
        track, (first, second, *_) = source
        sound = Sound(track)
        times = self.clock_at(5000 * SECOND, 10.0)
        sound.hear(first, 10.0)
        sound.hear(second, 10.5)
        one, two = sound.take(times)
        assert one.pts_90k == 5000 * SECOND
        assert two.pts_90k == one.pts_90k + one.duration_90k

    def test_what_no_picture_takes_along_is_bounded(self, source):
        """The oldest goes, and is counted."""
        track, (coded, *_) = source
        sound = Sound(track)
        for number in range(600):
            sound.hear(coded, number / 50)
        kept = sound.take(self.clock_at(0, 12.0))
        dropped = metrics.snapshot()["camera.sound_dropped"][""]
        assert len(kept) + dropped == 600
        assert sum(len(chunk.data) for chunk in kept) <= 512 * 1024
        assert len(kept) <= 512
        assert sound.take(self.clock_at(0, 12.0)) == ()
