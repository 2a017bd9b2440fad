"""One camera for ever: live, lost, live again, and what is said of it meanwhile."""

import asyncio
import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from random import Random

import pytest
import structlog

from tests.camera.streams import capture_threads, open_files, packets_of, parameters, settings, write_video
from tests.manual_clock import ManualClock
from vigintd import logs, metrics
from vigintd.camera import Camera, lane, probe_camera
from vigintd.camera.reasons import lost
from vigintd.camera.stream import Stream, StreamRequest
from vigintd.clock import Clock, SystemClock
from vigintd.config import CameraSettings
from vigintd.detect import Pixels
from vigintd.errors import StreamLost
from vigintd.model import Detection, Frame, Packet
from vigintd.retry import Backoff

needs_rtsp = pytest.mark.needs("gst-rtsp-server")
QUICK = Backoff(0.05, 0.2)


class Eyes:
    """A watch that keeps what it is shown, and says so of each frame."""

    def __init__(self, emit: Callable[[Detection], None], pixels: Pixels = "luma") -> None:
        self.pixels = pixels
        self.frames: list[Frame] = []
        self.closed = False
        self._emit = emit
        self._loop = asyncio.get_running_loop()

    def offer(self, frame: Frame) -> None:
        self.frames.append(frame)
        detection = Detection(frame.camera, frame.arrived_s, frame.at, "motion")
        self._loop.call_soon_threadsafe(self._emit, detection)

    def close(self) -> None:
        self.closed = True


class Scene:
    """A camera with what it told."""

    def __init__(self, given: CameraSettings, *, watched: Sequence[Pixels] = (), **more) -> None:
        self.detections: asyncio.Queue[Detection] = asyncio.Queue()
        self.eyes: list[Eyes] = []
        self.camera = Camera(
            "entree",
            given,
            clock=more.pop("clock", SystemClock()),
            watches=lambda emit: self._watches(emit, watched),
            on_detection=self.detections.put_nowait,
            random=Random(1),
            backoff=more.pop("backoff", QUICK),
            **more,
        )

    def _watches(self, emit: Callable[[Detection], None], watched: Sequence[Pixels]) -> Sequence[Eyes]:
        self.eyes = [Eyes(emit, pixels) for pixels in watched]
        return self.eyes

    async def packets(self, count: int) -> list[Packet]:
        """So many packets from the ring, as they come."""
        got: list[Packet] = []
        async with asyncio.timeout(15):
            async for batch in self.camera.ring.follow(0):
                got += batch
                if len(got) >= count:
                    break
        return got


async def until(condition: Callable[[], bool], most_s: float = 15) -> None:
    """Threads tell nobody when they are done, so this looks again and again."""
    async with asyncio.timeout(most_s):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


def is_lost(scene: Scene) -> bool:
    return scene.camera.status.state == "lost"


@asynccontextmanager
async def running(scene: Scene):
    task = asyncio.create_task(scene.camera.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What is logged, as it would be written."""
    before = structlog.get_config()
    written = io.StringIO()
    logs.configure("json", stream=written)
    yield written
    structlog.configure(**before)


def scripted(*lives: Sequence[Packet] | StreamLost) -> tuple[Callable[[StreamRequest, Clock], Stream], list[float]]:
    """Opens streams that give these packets and then end, or that cannot be opened; and when each was opened."""
    opened: list[float] = []

    class Life:
        def __init__(self, packets: Sequence[Packet], clock: Clock) -> None:
            self._packets = packets
            self._clock = clock

        def packets(self) -> Iterator[Packet]:
            return (replace(packet, arrived_s=self._clock.monotonic_s()) for packet in self._packets)

        def interrupt(self) -> None: ...

        def close(self) -> None: ...

    def open_stream(request: StreamRequest, clock: Clock) -> Stream:
        opened.append(clock.monotonic_s())
        life = lives[min(len(opened), len(lives)) - 1]
        if isinstance(life, StreamLost):
            raise life
        return Life(life, clock)

    return open_stream, opened


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

        scene = Scene(settings("rtsp://10.0.0.11/x"), open_stream=open_stream)
        began_s = time.monotonic()
        async with running(scene):
            await until(lambda: bool(capture_threads()))
        assert time.monotonic() - began_s < 3
        hang.set()
        await until(lambda: not capture_threads())


class TestBackoff:
    async def waits(self, count: int, *lives: Sequence[Packet] | StreamLost) -> list[float]:
        clock = ManualClock()
        open_stream, opened = scripted(*lives)
        scene = Scene(settings("rtsp://10.0.0.11/x"), open_stream=open_stream, clock=clock, backoff=Backoff(1, 60))
        async with running(scene):
            while len(opened) < count:
                await clock.asleep()
                await until(lambda: not capture_threads())
                # What the thread told the loop last is heard now.
                await asyncio.sleep(0.001)
                await clock.advance(0.25)
        return [later - earlier for earlier, later in pairwise(opened)]

    async def test_waits_grow_while_nothing_decodes(self):
        """Packets alone are no progress: a camera that sends garbage is asked ever more seldom."""
        garbage = [Packet(b"\x00\x00\x01\x65 noise", n, n, 0, True, 0.0, parameters()) for n in range(5)]
        for life in (lost("refused", "x"), garbage):
            waits = await self.waits(6, life)
            assert all(0.5 * 2**n <= wait <= 1.25 + 2**n for n, wait in enumerate(waits)), waits

    async def test_a_decoded_key_frame_makes_the_next_wait_short_again(self, annex_b):
        """The camera was really back."""
        good = packets_of(annex_b)[:3]
        refused = lost("refused", "x")
        waits = await self.waits(6, refused, refused, refused, good, refused)
        assert waits[2] >= 2
        assert waits[3] <= 1.25


class TestLost:
    async def test_an_outage_is_said_once_for_each_reason(self, log, annex_b):
        """Not at each of the retries that follow."""
        refused = lost("refused", "x")
        open_stream, opened = scripted(refused, refused, refused, packets_of(annex_b)[:3], refused, refused)
        scene = Scene(settings("rtsp://10.0.0.11/x"), open_stream=open_stream, backoff=Backoff(0.01, 0.02))
        async with running(scene):
            await until(lambda: len(opened) >= 7)
        lines = [line for line in log.getvalue().splitlines() if "camera." in line]
        events = [line.split('"event": "')[1].split('"')[0] for line in lines]
        assert events == ["camera.lost", "camera.live", "camera.lost", "camera.lost"]
        assert ['"refused"' in line for line in lines] == [True, False, False, True]

    async def test_a_stream_without_a_word_is_stalled(self, video):
        """It opened, and then nothing came: it is given up and its reader interrupted."""
        interrupted = threading.Event()

        class Silent:
            def packets(self) -> Iterator[Packet]:
                interrupted.wait(10)
                return iter(())

            def interrupt(self) -> None:
                interrupted.set()

            def close(self) -> None: ...

        clock = ManualClock()
        scene = Scene(settings("rtsp://10.0.0.11/x"), open_stream=lambda request, clock: Silent(), clock=clock)
        life = asyncio.create_task(scene.camera.run_once())
        while not interrupted.is_set():
            await clock.asleep()
            await clock.advance(0.5)
        with pytest.raises(StreamLost) as caught:
            await life
        assert caught.value.reason == "stalled"

    async def test_data_that_never_decode_are_garbage(self):
        """Packets go on arriving, but no key frame among them decodes."""
        clock, stop = ManualClock(), threading.Event()

        class Noise:
            def packets(self) -> Iterator[Packet]:
                number = 0
                while not stop.wait(0.001):
                    number += 1
                    yield Packet(b"\x00\x00\x01\x65 noise", number, number, 0, True, clock.monotonic_s(), parameters())

            def interrupt(self) -> None:
                stop.set()

            def close(self) -> None: ...

        scene = Scene(settings("rtsp://10.0.0.11/x"), open_stream=lambda request, clock: Noise(), clock=clock)
        life = asyncio.create_task(scene.camera.run_once())
        while not life.done():
            await clock.asleep() if not stop.is_set() else await asyncio.sleep(0.01)
            await clock.advance(0.5)
            await asyncio.sleep(0.01)
        with pytest.raises(StreamLost) as caught:
            await life
        assert caught.value.reason == "garbage"
        assert scene.camera.status.state == "connecting"

    async def test_readers_that_never_let_go_are_bounded(self, monkeypatch):
        """Each is left behind and counted; with three of them no more are started."""
        monkeypatch.setattr(lane, "_LET_GO_S", 0.01)
        monkeypatch.setattr(lane, "_OPEN_GRACE_S", 0.0)
        hang = threading.Event()

        def open_stream(request: StreamRequest, clock: Clock) -> Stream:
            hang.wait(20)
            raise lost("timeout", "x")

        given = settings("rtsp://10.0.0.11/x", open_timeout_s=0.01)
        scene = Scene(given, open_stream=open_stream, backoff=Backoff(0.01, 0.01))
        async with running(scene):
            await until(lambda: scene.camera.status.reason == "stuck")
            assert len(capture_threads()) == 3
            assert metrics.snapshot()["camera.readers_abandoned"] == {"entree": 3}
            hang.set()
            await until(lambda: scene.camera.status.reason == "timeout")
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

    async def test_stopping_a_camera_that_is_silent_takes_no_time(self, rtsp):
        """Its socket is shut, so its thread does not wait for a packet."""
        server = rtsp("--fps", "20", "--gop", "10")
        scene = Scene(settings(server.url, stall_timeout_s=60))
        async with running(scene):
            await until(lambda: scene.camera.status.state == "live")
            server.freeze()
        # FFmpeg says goodbye to a server that does not answer, and waits for that a moment.
        await until(lambda: not capture_threads(), 5)

    @pytest.mark.parametrize("how", ["basic", "digest"])
    async def test_credentials_apart_from_the_url_open_a_protected_camera(self, rtsp, how):
        """By either kind of authentication."""
        server = rtsp("--auth", how, "--user", "cam", "--password", "s3cr:t/@")
        assert await probe_camera("entree", settings(server.url, username="cam", password="s3cr:t/@")) == "h264 320x240"

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

    async def test_a_probe_tells_codec_and_size_of_each_stream(self, rtsp):
        """One line for a person."""
        server = rtsp("--sub")
        sub = server.url.replace("/cam", "/sub")
        assert await probe_camera("entree", settings(server.url, detect_url=sub)) == "h264 320x240, detection h264 160x120"

    async def test_a_probe_of_nothing_says_why(self, rtsp):
        """The reason for the table of `vigintd check`."""
        server = rtsp()
        with pytest.raises(StreamLost) as caught:
            await probe_camera("entree", settings(server.url.replace("/cam", "/nothing")))
        assert caught.value.reason == "not_found"
