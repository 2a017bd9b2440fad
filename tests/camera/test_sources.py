"""Every kind of source against the real thing: it plays, it ends when told to, and it opens nothing else."""

from __future__ import annotations

import asyncio
import itertools
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.camera.relays import rtsp_relay
from tests.camera.streams import assert_ends_when_told, packets_of, request, write_video
from tests.camera.web import CameraServer, camera_server, ffmpeg
from tests.real import parts
from tests.real.scripted_camera import ScriptedCamera
from vigintd.camera import address
from vigintd.camera.av_stream import AvStream, open_av_stream
from vigintd.camera.decode import Decoder
from vigintd.camera.sockets import Attempt, Claim
from vigintd.camera.stream import StreamRequest
from vigintd.clock import SystemClock
from vigintd.errors import StreamLost
from vigintd.model import Packet

gst = pytest.mark.needs("gst-rtsp-server")
TEST_PICTURE = ("-re", "-f", "lavfi", "-i", "testsrc2=size=320x240:rate=50")
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "10")


@contextmanager
def opened(wanted: StreamRequest) -> Iterator[AvStream]:
    stream = open_av_stream(wanted, SystemClock())
    yield stream
    stream.close()


def taken(wanted: StreamRequest, count: int) -> list[Packet]:
    with opened(wanted) as stream:
        return list(itertools.islice(stream.packets(), count))


def assert_plays(packets: list[Packet]) -> None:
    """From a key frame, in order, and each packet decodes."""
    assert packets[0].is_key
    assert all(later.dts_90k > earlier.dts_90k for earlier, later in itertools.pairwise(packets))
    decoder = Decoder(packets[0].parameters)
    pictures = [picture for packet in packets for picture in decoder.decode(packet)]
    assert len(pictures) >= len(packets) - 2
    assert {picture.size_px for picture in pictures} == {(320, 240)}


def assert_was_connected_to(listener: socket.socket) -> None:
    listener.settimeout(0)
    listener.accept()[0].close()


class TestRtsp:
    @gst
    def test_over_udp(self, shared_rtsp):
        """The pictures come beside the connection that asks for them."""
        server = shared_rtsp("--fps", "30", "--gop", "10")
        with rtsp_relay(server.port) as relay:
            packets = taken(request(relay.url, transport="udp"), 15)
            assert_plays(packets)
            assert b"RTP/AVP/UDP;unicast;client_port=" in relay.asked
        with opened(request(server.url, transport="udp")) as stream:
            assert_ends_when_told(stream)

    @gst
    def test_what_is_lost_over_udp_is_not_missed_for_long(self, shared_rtsp):
        """The stream goes on, its times rise, and the key frames that came whole decode."""
        with rtsp_relay(shared_rtsp("--fps", "50", "--gop", "5").port, lose_every=40) as relay:
            packets = taken(request(relay.url, transport="udp"), 75)
            assert relay.lost >= 5
        assert all(later.dts_90k > earlier.dts_90k for earlier, later in itertools.pairwise(packets))
        keys = [packet for packet in packets if packet.is_key]
        decoder = Decoder(packets[0].parameters)
        sound = [picture for key in keys if (picture := decoder.decode_key(key)) and picture.is_sound_key]
        assert len(sound) >= 3

    @gst
    def test_a_camera_that_falls_silent_over_udp_is_given_up(self, rtsp, monkeypatch):
        """FFmpeg's bound holds there too."""
        monkeypatch.setattr(address, "_AFTER_WATCHDOG_S", 0.0)
        server = rtsp("--fps", "30")
        with opened(request(server.url, transport="udp", stall_timeout_s=0.5)) as stream:
            packets = stream.packets()
            next(packets)
            server.freeze()
            with pytest.raises(StreamLost) as caught:
                list(packets)
        assert caught.value.reason == "stalled"

    @gst
    def test_a_reader_over_udp_is_woken_by_the_connection_that_asked(self, rtsp):
        """Its camera hangs, and FFmpeg would wait for a minute."""
        server = rtsp("--fps", "30")
        with opened(request(server.url, transport="udp", stall_timeout_s=60)) as stream:
            packets = stream.packets()
            next(packets)
            server.freeze()
            waker = threading.Timer(0.3, stream.interrupt)
            waker.start()
            list(packets)
            waker.join()
            assert stream.wire() is not None

    @gst
    def test_over_tls(self, shared_rtsp, tmp_path):
        """rtsps, of a camera whose certificate nobody vouches for."""
        server = shared_rtsp("--fps", "30", "--gop", "10", "--tls", str(parts.certificate(tmp_path)))
        with opened(request(server.url.replace("rtsp:", "rtsps:"))) as stream:
            assert_plays(list(itertools.islice(stream.packets(), 15)))

    @gst
    def test_the_first_key_frame_is_not_lost(self, shared_rtsp):
        """It bears no time of its own, and the next one may be a minute away."""
        server = shared_rtsp("--fps", "30", "--gop", "3000")
        began_s = time.monotonic()
        packets = taken(request(server.url), 5)
        assert time.monotonic() - began_s < 60, "the second key frame comes after 100 s"
        assert_plays(packets)
        assert [packet.pts_90k - packets[0].pts_90k for packet in packets] == [0, 3000, 6000, 9000, 12_000]


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory) -> list[bytes]:
    path = write_video(tmp_path_factory.mktemp("jpeg") / "block.mov", codec="mjpeg", options={}, seconds=0.4)
    return [packet.data for packet in packets_of(path)]


@pytest.fixture
def web(tmp_path, jpegs) -> Iterator[CameraServer]:
    """A web server of the test's own, with the files of `tmp_path`."""
    with camera_server(tmp_path, jpegs) as server:
        yield server


class TestMotionJpeg:
    def test_it_plays(self, web):
        """Every picture is a key frame, dated by its arrival."""
        with opened(request(f"{web.url}/cam.mjpg")) as stream:
            packets = list(itertools.islice(stream.packets(), 20))
            assert_plays(packets)
            assert all(packet.is_key for packet in packets)
            assert all(abs(packet.dts_90k / 90_000 - packet.arrived_s) < 0.001 for packet in packets)
            assert_ends_when_told(stream)

    def test_a_redirect_is_followed(self, web):
        """Many cameras have their stream behind one."""
        web.moved["video"] = f"{web.url}/cam.mjpg"
        assert_plays(taken(request(f"{web.url}/video"), 5))

    def test_whoever_is_sent_on_to_another_server_does_not_look_for_its_socket_at_each_picture(
        self, web, jpegs, tmp_path, monkeypatch
    ):
        """There is none to the address that was configured, and each look costs."""
        looks: list[Attempt] = []
        claim = Attempt.claim

        def counted(attempt: Attempt) -> Claim | None:
            looks.append(attempt)
            return claim(attempt)

        monkeypatch.setattr(Attempt, "claim", counted)
        with camera_server(tmp_path, jpegs) as elsewhere:
            web.moved["video"] = f"{elsewhere.url}/cam.mjpg"
            assert len(taken(request(f"{web.url}/video"), 25)) == 25
        assert 2 <= len(looks) < 10


@pytest.mark.needs("ffmpeg")
class TestHls:
    @pytest.fixture
    def playlist(self, web, tmp_path) -> Iterator[str]:
        """A live one, of which old segments are deleted."""
        hls = ("-f", "hls", "-hls_time", "0.4", "-hls_list_size", "5", "-hls_flags", "delete_segments")
        with ffmpeg(*TEST_PICTURE, *X264, *hls, tmp_path / "live.m3u8"):
            yield f"{web.url}/live.m3u8"

    def test_a_live_playlist_plays_in_real_time(self, web, playlist):
        """Whole segments come at once; their packets arrive as if the camera had sent each by itself."""
        with opened(request(playlist)) as stream:
            packets = list(itertools.islice(stream.packets(), 50))
            assert_plays(packets)
            media_s = (packets[-1].dts_90k - packets[0].dts_90k) / 90_000
            assert media_s == pytest.approx(49 / 50, abs=0.01)
            assert packets[-1].arrived_s - packets[0].arrived_s >= media_s - 0.01
            assert len({name for name in web.asked if name.endswith(".ts")}) >= 3
            assert_ends_when_told(stream)

    def test_a_playlist_by_another_name_is_paced_too(self, web, tmp_path):
        """FFmpeg knows it by its content type."""
        write_video(tmp_path / "one.ts", seconds=0.3)
        web.texts["live"] = playlist_of("one.ts")
        packets = taken(request(f"{web.url}/live"), 100)
        assert packets[-1].arrived_s - packets[0].arrived_s >= 14 / 50 - 0.01

    def test_of_several_variants_the_largest_alone_is_fetched(self, web, tmp_path):
        """FFmpeg would fetch them all; it has to look into each to know their sizes."""
        listed = "#EXTM3U\n"
        for width in (160, 320):
            names = [f"{width}-{number}.ts" for number in range(12)]
            video = write_video(tmp_path / f"{width}.ts", size=(width, 120), seconds=0.1).read_bytes()
            for name in names:
                (tmp_path / name).write_bytes(video)
            web.texts[f"{width}.m3u8"] = playlist_of(*names)
            listed += f"#EXT-X-STREAM-INF:BANDWIDTH={width}\n{width}.m3u8\n"
        web.texts["live.m3u8"] = listed
        assert {packet.parameters.width_px for packet in taken(request(f"{web.url}/live.m3u8"), 50)} == {320}
        assert {"160-0.ts", "320-9.ts"} <= set(web.asked)
        assert "160-9.ts" not in web.asked

    def test_a_live_playlist_that_does_not_go_on_ends(self, web, tmp_path):
        """FFmpeg would ask for it a thousand times, and nobody could end its wait."""
        write_video(tmp_path / "one.ts", seconds=0.2)
        live = playlist_of("one.ts").replace("#EXT-X-ENDLIST\n", "").replace("TARGETDURATION:1", "TARGETDURATION:0")
        web.texts["live.m3u8"] = live
        assert len(taken(request(f"{web.url}/live.m3u8"), 100)) == 10
        assert 10 < web.asked.count("live.m3u8") < 100

    def test_a_segment_that_does_not_come_on_is_a_stall(self, web, tmp_path, monkeypatch):
        """The bound holds for every connection, not for the playlist's alone."""
        monkeypatch.setattr(address, "_AFTER_WATCHDOG_S", 0.0)
        write_video(tmp_path / "one.ts", seconds=0.2)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            web.texts["live.m3u8"] = playlist_of("one.ts", f"http://127.0.0.1:{silent.getsockname()[1]}/two.ts")
            with opened(request(f"{web.url}/live.m3u8", stall_timeout_s=0.5)) as stream:
                assert len(list(stream.packets())) == 10
            assert_was_connected_to(silent)


@pytest.mark.needs("ffmpeg")
class TestRtmp:
    def test_it_plays_with_its_sound(self):
        """From a server that really speaks it."""
        with rtmp_server() as (url, _), opened_when_it_listens(request(url, audio=True)) as stream:
            packets = list(itertools.islice(stream.packets(), 30))
            assert_plays(packets)
            chunks = [chunk for packet in packets for chunk in packet.audio]
            assert chunks[0].parameters.codec == "aac"
            assert chunks[0].parameters.extradata
            assert_ends_when_told(stream)

    def test_a_server_that_is_gone_has_ended_the_stream(self):
        """Quietly, like any other."""
        with rtmp_server() as (url, server), opened_when_it_listens(request(url)) as stream:
            packets = stream.packets()
            next(packets)
            server.kill()
            for _ in packets:
                pass
            assert server.wait(5) != 0

    def test_a_server_that_says_nothing_is_a_timeout(self):
        """FFmpeg's own bound, which is called otherwise here: it connects, and does not listen."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            with pytest.raises(StreamLost) as caught:
                taken(request(f"rtmp://127.0.0.1:{silent.getsockname()[1]}/live/cam", stall_timeout_s=0.5), 1)
            assert_was_connected_to(silent)
        assert caught.value.reason == "timeout"


@contextmanager
def opened_when_it_listens(wanted: StreamRequest) -> Iterator[AvStream]:
    """A server that takes one connection cannot be asked beforehand whether it listens."""
    deadline_s = time.monotonic() + 10
    stream = None
    while stream is None:
        assert time.monotonic() < deadline_s
        try:
            stream = open_av_stream(wanted, SystemClock())
        except StreamLost as error:
            if error.reason != "refused":
                raise
            time.sleep(0.02)
    yield stream
    stream.close()


@contextmanager
def rtmp_server() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"rtmp://127.0.0.1:{free.getsockname()[1]}/live/cam"
    sound = ("-f", "lavfi", "-i", "sine=sample_rate=44100", "-c:a", "aac")
    with ffmpeg(*TEST_PICTURE, *sound, *X264, "-f", "flv", "-listen", "1", url) as process:
        yield url, process


def playlist_of(*segments: str) -> str:
    listed = "".join(f"#EXTINF:1.0,\n{segment}\n" for segment in segments)
    return f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n{listed}#EXT-X-ENDLIST\n"


class TestHostile:
    """A camera, or whoever sits between, names a file of this machine in place of its stream."""

    @pytest.fixture(
        params=["file://{0}", "{0}", "concat:{0}|{0}", "subfile,,start,0,end,0,,:{0}", "crypto+file://{0}", "pipe:0"]
    )
    def secret(self, request: pytest.FixtureRequest, tmp_path) -> str:
        """Ways to name a video of another size."""
        folder = tmp_path / "secret"
        folder.mkdir(exist_ok=True)
        return str(request.param).format(write_video(folder / "secret.ts", size=(160, 120), seconds=0.1))

    def test_a_playlist_opens_no_file(self, web, tmp_path, secret):
        """What it may name comes, what it may not does not; with a pipe in it, it is refused as a whole."""
        write_video(tmp_path / "one.ts", seconds=0.1)
        write_video(tmp_path / "three.ts", seconds=0.1)
        web.texts["live.m3u8"] = playlist_of("one.ts", secret, "three.ts")
        packets: list[Packet] = []
        with suppress(StreamLost), opened(request(f"{web.url}/live.m3u8")) as stream:
            packets.extend(stream.packets())
        assert web.asked.count("live.m3u8") == 1
        assert all(packet.parameters.width_px == 320 for packet in packets)
        assert len(packets) == (0 if secret.startswith("pipe") else 10)

    def test_a_playlist_names_no_key_of_this_machine(self, web, tmp_path, secret):
        """A key that is read would go out by what is decrypted with it, or by its length."""
        write_video(tmp_path / "one.ts", seconds=0.1)
        key = f'#EXT-X-KEY:METHOD=AES-128,URI="{secret}",IV=0x00000000000000000000000000000001\n#EXTINF'
        web.texts["live.m3u8"] = playlist_of("one.ts").replace("#EXTINF", key, 1)
        with pytest.raises(StreamLost):
            taken(request(f"{web.url}/live.m3u8"), 1)
        assert web.asked.count("live.m3u8") == 1

    @pytest.mark.parametrize("name", ["cam.mjpg", "live.m3u8"])
    def test_a_redirect_opens_no_file(self, web, secret, name):
        """Wherever it points, it is asked over HTTP or not at all."""
        web.moved[name] = secret
        with pytest.raises(StreamLost):
            taken(request(f"{web.url}/{name}"), 1)
        assert web.asked[0] == name

    def test_a_segments_redirect_opens_no_file(self, web, tmp_path, secret):
        """Asked for, sent on, and nothing of it came out."""
        write_video(tmp_path / "one.ts", seconds=0.1)
        web.moved["two.ts"] = secret
        web.texts["live.m3u8"] = playlist_of("one.ts", "two.ts")
        assert {packet.parameters.width_px for packet in taken(request(f"{web.url}/live.m3u8"), 100)} == {320}
        assert "two.ts" in web.asked

    def test_an_rtsp_redirect_opens_no_file(self, secret):
        """A recorder may send on to a camera, but to nothing else."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            answered = threading.Event()

            def answer() -> None:
                with listener.accept()[0] as client:
                    number = client.recv(4096).split(b"CSeq: ")[1].split(b"\r\n")[0]
                    client.sendall(b"RTSP/1.0 302 Moved\r\nCSeq: %b\r\nLocation: %b\r\n\r\n" % (number, secret.encode()))
                    answered.set()

            thread = threading.Thread(target=answer)
            thread.start()
            with pytest.raises(StreamLost):
                taken(request(f"rtsp://127.0.0.1:{listener.getsockname()[1]}/cam", open_timeout_s=2), 1)
            thread.join()
            assert answered.is_set()


def test_a_video_device_that_is_not_there_is_not_found():
    """All that can be tried of V4L2 without a device."""
    with pytest.raises(StreamLost) as caught:
        taken(request("v4l2:///dev/video99"), 1)
    assert caught.value.reason == "not_found"


class TestChanges:
    async def test_a_live_camera_that_changes_its_size_tells_it_at_its_key_frame(self, tmp_path):
        """Over RTSP in one connection, whose description still has the old one."""
        large, small = (packets_of(write_video(tmp_path / f"{w}.ts", size=(w, 120), seconds=0.2)) for w in (320, 160))
        camera = ScriptedCamera(large, fps=50)
        await camera.start()
        try:
            stream = await asyncio.to_thread(open_av_stream, request(camera.url), SystemClock())
            packets = stream.packets()
            before = await asyncio.to_thread(next, packets)
            camera.show(small)
            after = await asyncio.to_thread(lambda: next(p for p in packets if p.parameters is not before.parameters))
            await asyncio.to_thread(stream.close)
        finally:
            await camera.stop()
        assert (before.parameters.width_px, after.parameters.width_px) == (320, 160)
        assert after.is_key
        assert Decoder(after.parameters).decode_key(after) is not None

    def test_a_codec_that_changes_in_mid_stream_is_told_at_its_key_frame(self, tmp_path):
        """A transport stream goes on as HEVC, and back; its packets say so, and decode."""
        hevc = {"preset": "ultrafast", "x265-params": "log-level=none"}
        first = write_video(tmp_path / "first.ts", seconds=0.4)
        second = write_video(tmp_path / "second.ts", seconds=0.6, codec="libx265", options=hevc, size=(160, 120))
        both = tmp_path / "both.ts"
        # Null packets (ISO/IEC 13818-1 section 2.4.3.3) and an end like the beginning, so that FFmpeg does not know beforehand.
        padding = (b"\x47\x1f\xff\x10" + b"\xff" * 184) * 30_000
        both.write_bytes(first.read_bytes() + padding + second.read_bytes() + first.read_bytes())
        packets = taken(request(both.as_uri()), 66)
        change = next(number for number, packet in enumerate(packets) if packet.parameters.codec == "hevc")
        back = next(n for n, packet in enumerate(packets) if n > change and packet.parameters.codec == "h264")
        assert packets[change].is_key
        assert packets[back].is_key
        assert {packet.parameters.codec for packet in packets[change:back]} == {"hevc"}
        assert packets[change].parameters.width_px == 160
        assert Decoder(packets[change].parameters).decode_key(packets[change]) is not None

    def test_a_size_that_changes_in_mid_stream_is_told_at_its_key_frame(self, tmp_path):
        """One value of parameters before, another one from the key frame on."""
        both = tmp_path / "both.ts"
        sizes = [(320, 240), (160, 120)]
        made = [write_video(tmp_path / f"{width}.ts", seconds=0.2, size=(width, height)) for width, height in sizes]
        both.write_bytes(b"".join(path.read_bytes() for path in made))
        packets = taken(request(both.as_uri()), 18)
        assert [packet.parameters.width_px for packet in packets] == [320] * 10 + [160] * 8
        assert len({id(packet.parameters) for packet in packets}) == 2
