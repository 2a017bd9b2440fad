"""Why nothing more is seen: the camera is silent, sends bytes without pictures, or has vanished."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.camera.scene import Scene, no_redirect, running, until
from tests.camera.streams import capture_threads, packets_of, settings
from tests.real import faults
from tests.real.scripted_camera import Fault, ScriptedCamera
from vigintd import metrics
from vigintd.camera import lane, sockets
from vigintd.camera.capture import Progress
from vigintd.camera.patience import Over, Patience, silence
from vigintd.camera.stream import Wire

STALL_S = 2.2


@asynccontextmanager
async def sending(annex_b) -> AsyncIterator[ScriptedCamera]:
    camera = ScriptedCamera(packets_of(annex_b), fps=50)
    await camera.start()
    try:
        yield camera
    finally:
        await camera.stop()


@pytest.fixture
async def camera(annex_b) -> AsyncIterator[ScriptedCamera]:
    async with sending(annex_b) as camera:
        yield camera


async def test_each_silence_has_its_name(annex_b):
    """And with the camera as it was, the stream is back."""

    async def reason_of(fault: Fault) -> str:
        async with sending(annex_b) as camera:
            scene = Scene(settings(camera.url, stall_timeout_s=STALL_S))
            async with running(scene):
                await until(lambda: scene.camera.status.state == "live")
                camera.strike(fault)
                await until(lambda: scene.camera.status.state == "lost")
                assert fault.fired
                reason = scene.camera.status.reason
                camera.recover()
                await until(lambda: scene.camera.status.state == "live")
            return reason

    given = [faults.Silent(), faults.RtcpOnly(), faults.Vanished()]
    assert await asyncio.gather(*map(reason_of, given)) == ["stalled", "no_video", "vanished"]
    await until(lambda: not capture_threads())
    assert "camera.readers_abandoned" not in metrics.snapshot()


async def test_a_camera_that_never_begins_is_named_too(annex_b):
    """It is connected, and then there is no picture."""

    async def reason_of(fault: Fault) -> str:
        async with sending(annex_b) as camera:
            camera.strike(fault)
            given = settings(camera.url, open_timeout_s=1.5, stall_timeout_s=0.5)
            scene = Scene(given, is_redirected=no_redirect)
            async with running(scene):
                await until(lambda: scene.camera.status.state == "lost")
                assert fault.fired
                return scene.camera.status.reason

    given = [faults.Silent(), faults.RtcpOnly(), faults.Mute()]
    assert await asyncio.gather(*map(reason_of, given)) == ["stalled", "no_video", "timeout"]
    await until(lambda: not capture_threads())


async def test_both_streams_of_one_camera_are_claimed(camera):
    """They open at the same moment and look alike; each is still known by its own socket, and ended by it."""
    scene = Scene(settings(camera.url, detect_url=camera.url, stall_timeout_s=60), watched=["luma"])
    async with running(scene):
        await until(lambda: (scene.camera.status.state, scene.camera.status.detect_state) == ("live", "live"))
        # On a busy machine they may have opened beside each other, and then one looks again at a later key frame.
        await until(lambda: len(sockets._claimed) == 2)
        struck = camera.strike(faults.RtcpOnly())
        async with asyncio.timeout(10):
            await struck.happened.wait()
    await until(lambda: not capture_threads(), 5)
    assert not sockets._claimed


async def test_a_reader_whose_socket_is_not_known_is_abandoned_and_counted(camera, monkeypatch, tmp_path):
    """RTCP keeps FFmpeg's read alive for ever; the next life begins beside it, and it ends when the camera does."""
    monkeypatch.setattr(lane, "_LET_GO_S", 0.1)
    monkeypatch.setattr(sockets, "_FDS", tmp_path)
    scene = Scene(settings(camera.url, stall_timeout_s=0.5))
    async with running(scene):
        await until(lambda: scene.camera.status.state == "live")
        struck = camera.strike(faults.RtcpOnly())
        await until(lambda: scene.camera.status.readers_abandoned == 1)
        assert struck.fired
        assert metrics.snapshot()["camera.readers_abandoned"] == {"entree": 1}
        camera.recover()
        # A reader that was told to end does so at its next packet.
        await until(lambda: scene.camera.status.state == "live" and scene.camera.status.readers_abandoned == 0)
    await until(lambda: not capture_threads())


async def test_a_reader_of_several_connections_ends_by_ffmpegs_own_bound(annex_b):
    """HLS takes playlist and segments by more than one, and then nobody answers."""
    asked: list[bytes] = []
    taken: list[asyncio.StreamWriter] = []
    playlist = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n0.ts\n#EXTINF:1.0,\n1.ts\n"
    segment = annex_b.read_bytes()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while len(asked) < 3:
                asked.append((await reader.readuntil(b"\r\n\r\n")).split()[1])
                body = playlist.encode() if asked[-1] == b"/live.m3u8" else segment
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            asked.append((await reader.readuntil(b"\r\n\r\n")).split()[1])
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/live.m3u8"
    scene = Scene(settings(url, stall_timeout_s=1))
    async with running(scene):
        await until(lambda: scene.camera.status.state == "live")
        await until(lambda: scene.camera.status.state == "lost")
        assert len(asked) > 3
        assert scene.camera.status.reason in ("stalled", "ended")
    await until(lambda: not capture_threads())
    server.close()
    for writer in taken:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


class TestPatience:
    def verdict(self, patience, progress, now_s, wire=None):
        return patience.verdict(progress, lambda: wire, began_s=0, now_s=now_s)

    def test_while_nothing_is_overdue_it_says_when_to_look_again(self):
        """And does not ask for the connection."""
        patience = Patience(10, 15)
        progress = Progress(opened_s=1, last_packet_s=20, last_key_s=18)
        assert patience.verdict(progress, lambda: pytest.fail("asked"), began_s=0, now_s=21) == 33

    def test_an_opening_that_never_ends_is_a_timeout(self):
        """The thread hangs where FFmpeg's own bounds do not reach."""
        patience = Patience(10, 15)
        assert self.verdict(patience, Progress(), 17.9) == 18
        over = self.verdict(patience, Progress(), 18)
        assert isinstance(over, Over)
        assert over.reason == "timeout"

    def test_until_its_first_key_frame_a_camera_that_sends_is_borne_with_ever_longer(self):
        """It may send one a minute, and nothing before it is of use."""
        patience, heard = Patience(10, 15), Wire(0.1, is_unanswered=False)
        for borne_s in (15, 30, 60, 120, 120):
            assert self.verdict(patience, Progress(opened_s=0), borne_s - 0.1, heard) == pytest.approx(borne_s, abs=15)
            over = self.verdict(patience, Progress(opened_s=0), borne_s, heard)
            assert isinstance(over, Over)
            assert over.reason == "no_video"

    def test_the_longest_distance_of_key_frames_counts_double(self):
        """A camera that was seen to send one a minute is not given up for that."""
        progress = Progress(opened_s=0, last_packet_s=170, last_key_s=60, longest_gop_s=60)
        assert self.verdict(Patience(10, 15), progress, 171) == 180

    def test_without_what_the_kernel_knows_silence_is_only_that(self):
        """A kernel that does not say, a source that is no TCP connection."""
        assert silence(None, 15) == "stalled"
        assert silence(Wire(14, is_unanswered=False), 15) == "stalled"
        assert silence(Wire(14, is_unanswered=True), 15) == "vanished"
        assert silence(Wire(7, is_unanswered=False), 15) == "no_video"
