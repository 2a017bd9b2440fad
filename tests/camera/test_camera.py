"""One camera for ever: live, stopped, and as real cameras have it."""

import asyncio
import threading
import time
from functools import partial

import pytest

from tests.camera.scene import Scene, no_redirect, running, until
from tests.camera.streams import capture_threads, open_files, settings, write_video
from vigintd import metrics
from vigintd.camera import probe_camera
from vigintd.camera.reasons import lost
from vigintd.camera.stream import Stream, StreamRequest
from vigintd.clock import Clock
from vigintd.errors import StreamLost

needs_rtsp = pytest.mark.needs("gst-rtsp-server")


def is_lost(scene: Scene) -> bool:
    return scene.camera.status.state == "lost"


class TestLive:
    async def test_a_camera_goes_live_with_its_first_decoded_key_frame(self, video):
        """Its status then knows what kind of stream it is, and its ring fills."""
        scene = Scene(settings(video.as_uri()))
        states = [scene.camera.status.state]
        async with running(scene):
            assert (await scene.packets(5))[0].is_key
            await until(lambda: scene.camera.status.state == "live")
            status = scene.camera.status
            assert (status.codec, status.width_px, status.height_px, status.reason) == ("h264", 320, 240, "")
            assert status.packets >= 5
            states.append(status.state)
        states.append(scene.camera.status.state)
        assert states == ["connecting", "live", "stopped"]

    async def test_a_file_goes_round_at_its_own_pace(self, video):
        """At its end it begins anew, and times go on."""
        scene = Scene(settings(video.as_uri()))
        async with running(scene):
            packets = await scene.packets(60)
        seconds = packets[59].arrived_s - packets[0].arrived_s
        assert 1.0 < seconds < 1.5
        assert abs((packets[59].dts_90k - packets[0].dts_90k) / 90_000 - seconds) < 0.3

    async def test_watches_see_pictures_at_the_rate_asked_for(self, video):
        """Numbered, dated, read-only, in the shape they asked for; detections come out on the loop."""
        scene = Scene(settings(video.as_uri(), detect_fps=10), watched=["luma", "rgb"])
        async with running(scene):
            for _ in range(10):
                async with asyncio.timeout(5):
                    await scene.detections.get()
        luma, rgb = scene.eyes
        assert luma.frames[0].pixels.shape == (240, 320)
        assert rgb.frames[0].pixels.shape == (240, 320, 3)
        assert not luma.frames[0].pixels.flags.writeable
        assert not rgb.frames[0].pixels.flags.writeable
        numbers = [frame.number for frame in luma.frames]
        assert numbers == sorted(set(numbers))
        seconds = luma.frames[-1].arrived_s - luma.frames[0].arrived_s
        assert len(luma.frames) - 1 <= seconds * 10 + 1
        assert luma.closed

    async def test_without_a_watch_only_key_frames_are_decoded(self, video):
        """And of those only as many as tell that the stream is alive."""
        scene = Scene(settings(video.as_uri()))
        async with running(scene):
            await scene.packets(60)
        assert 1 <= scene.camera.status.frames <= 3

    async def test_a_detection_stream_is_watched_and_the_main_one_recorded(self, video, tmp_path):
        """Frames come from the small stream, packets from the large one."""
        small = write_video(tmp_path / "small.mp4", size=(160, 120))
        scene = Scene(settings(video.as_uri(), detect_url=small.as_uri()), watched=["luma"])
        async with running(scene):
            packets = await scene.packets(20)
            async with asyncio.timeout(5):
                detection = await scene.detections.get()
            assert (scene.camera.status.detect_state, scene.camera.status.width_px) == ("live", 320)
        assert {packet.parameters.width_px for packet in packets} == {320}
        assert scene.eyes[0].frames[0].pixels.shape == (120, 160)
        assert abs(detection.arrived_s - packets[0].arrived_s) < 5

    async def test_a_packet_is_in_the_ring_before_its_detection(self, video):
        """Whoever hears of a detection finds the picture it means."""
        scene = Scene(settings(video.as_uri(), detect_fps=50), watched=["luma"])
        async with running(scene):
            for _ in range(20):
                async with asyncio.timeout(5):
                    detection = await scene.detections.get()
                assert scene.camera.ring.since(0)[-1].arrived_s >= detection.arrived_s

    async def test_a_watch_that_raises_costs_no_packet(self, video):
        """It is counted, and capture goes on."""
        scene = Scene(settings(video.as_uri()), watched=["luma"])
        async with running(scene):
            await until(lambda: bool(scene.eyes))
            scene.eyes[0].offer = None  # type: ignore[assignment, method-assign]  # calling it raises
            await scene.packets(30)
            assert metrics.snapshot()["camera.watch_failed"]["entree"] > 0
            assert scene.camera.status.state == "live"


class TestStopping:
    async def test_a_stopped_camera_leaves_nothing_behind(self, video):
        """Its threads end, its files are closed, its followers are let go."""
        files = open_files()
        scene = Scene(settings(video.as_uri()), watched=["luma"])
        async with running(scene):
            await scene.packets(5)
            follower = asyncio.create_task(scene.packets(10_000))
            await asyncio.sleep(0)
        await follower
        await until(lambda: not capture_threads())
        assert scene.eyes[0].closed
        assert open_files() == files

    async def test_a_stream_that_hangs_while_opening_does_not_hold_the_stop_up(self):
        """The thread is a daemon and ends when its stream lets it."""
        hang = threading.Event()

        def open_stream(request: StreamRequest, clock: Clock) -> Stream:
            hang.wait(20)
            raise lost("timeout", "x")

        scene = Scene(settings("rtsp://10.0.0.11/x"), open_stream=open_stream, is_redirected=no_redirect)
        began_s = time.monotonic()
        async with running(scene):
            await until(lambda: bool(capture_threads()))
        assert time.monotonic() - began_s < 15
        hang.set()
        await until(lambda: not capture_threads())


@needs_rtsp
class TestRealCamera:
    async def test_a_killed_camera_comes_back_by_itself(self, rtsp, log):
        """The ring goes on over the gap, and the log says lost and live once each."""
        server = rtsp("--fps", "20", "--gop", "10")
        scene = Scene(settings(server.url), watched=["luma"])
        async with running(scene):
            before = await scene.packets(10)
            await until(lambda: scene.camera.status.state == "live")
            server.kill()
            await until(lambda: scene.camera.status.state == "lost")
            assert scene.camera.status.reason in ("ended", "refused")
            server.start_again()
            await until(lambda: scene.camera.status.state == "live")
            held = scene.camera.ring.since(0)
            shown = [frame.number for frame in scene.eyes[0].frames]
        assert scene.camera.status.reconnects == 1
        assert held[-1].arrived_s > before[-1].arrived_s
        assert shown == sorted(set(shown))
        assert log.getvalue().count('"camera.live"') == 2

    async def test_a_frozen_camera_is_given_up_and_its_reader_let_go(self, rtsp):
        """Its connection stays open and silent; the watchdog ends it."""
        server = rtsp("--fps", "20", "--gop", "10")
        scene = Scene(settings(server.url, stall_timeout_s=1))
        async with running(scene):
            await until(lambda: scene.camera.status.state == "live")
            server.freeze()
            await until(lambda: scene.camera.status.state == "lost")
            assert scene.camera.status.reason == "stalled"
            assert "camera.readers_abandoned" not in metrics.snapshot()
        await until(lambda: not capture_threads())

    @pytest.mark.parametrize("transport", ["tcp", "udp"])
    async def test_stopping_a_camera_that_is_silent_takes_no_time(self, rtsp, transport):
        """Its socket is shut, so its thread does not wait for a packet; with UDP the one by which it is controlled."""
        server = rtsp("--fps", "20", "--gop", "10")
        scene = Scene(settings(server.url, stall_timeout_s=60, transport=transport))
        async with running(scene):
            await until(lambda: scene.camera.status.state == "live")
            server.freeze()
        # FFmpeg says goodbye to a server that does not answer, and waits for that a moment.
        await until(lambda: not capture_threads(), 5)

    @pytest.mark.parametrize("how", ["basic", "digest"])
    async def test_credentials_apart_from_the_url_open_a_protected_camera(self, rtsp, how):
        """By either kind of authentication."""
        server = rtsp("--auth", how, "--user", "cam", "--password", "s3cr:t/@")
        scene = Scene(settings(server.url, username="cam", password="s3cr:t/@"))
        async with running(scene):
            await until(lambda: scene.camera.status.state == "live")

    async def test_a_password_is_in_no_status_log_or_error(self, rtsp, log):
        """Right or wrong, in the URL or apart from it."""
        server = rtsp("--auth", "digest", "--user", "cam", "--password", "rightsecret")
        in_url = server.url.replace("rtsp://", "rtsp://cam:wrongsecret@")
        told = []
        for given in (settings(in_url), settings(server.url, username="cam", password="wrongsecret")):
            scene = Scene(given)
            async with running(scene):
                await until(partial(is_lost, scene))
                assert scene.camera.status.reason == "unauthorized"
                told.append(repr(scene.camera.status))
            with pytest.raises(StreamLost) as caught:
                await probe_camera("entree", given)
            told.append(f"{caught.value} {caught.value!r} {caught.value.__cause__} {caught.value.__context__!r}")
        assert "unauthorized" in log.getvalue()
        assert "secret" not in "".join(told) + log.getvalue()
