"""The tests' own camera does to a client what its faults say, and nothing else."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import asynccontextmanager
from random import Random

import av
import av.error
import numpy as np
import pytest

from tests.real import faults
from tests.real.camera_lock import Lock
from tests.real.scripted_camera import Fault, ScriptedCamera
from vigintd.clip.encode import encode_pictures

FPS = 30
DEADLINE_S = 20.0


def packets(size=(48, 64), seed=3):
    random = np.random.default_rng(seed)
    return encode_pictures((random.integers(0, 255, (*size, 3), dtype=np.uint8) for _ in range(15)), fps=FPS, gop=5)


@asynccontextmanager
async def running(lock=None):
    camera = ScriptedCamera(packets(), fps=FPS, lock=lock)
    await camera.start()
    try:
        yield camera
    finally:
        await camera.stop()


def watch(url, count, open_timeout_s=10.0):
    """Size and decode time of `count` packets, or of fewer where the stream ends."""
    options = {"rtsp_transport": "tcp", "analyzeduration": "200000"}
    seen = []
    with av.open(url, options=options, timeout=(open_timeout_s, None)) as stream:
        for coded in stream.demux(video=0):
            seen += [(picture.width, coded.pts) for picture in coded.decode()]
            if len(seen) >= count:
                break
    return seen


class ByHand:
    """A client that is played up to its first media."""

    def __init__(self, camera):
        self._camera = camera

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._camera.port)
        await self.ask("SETUP", f"{self._camera.url}/trackID=0", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n")
        session = (await self.head())["Session"].partition(";")[0]
        await self.ask("PLAY", self._camera.url, f"Session: {session}\r\n")
        await self.head()
        return self

    async def __aexit__(self, *_):
        self.writer.close()

    async def ask(self, method, url, more):
        self.writer.write(f"{method} {url} RTSP/1.0\r\nCSeq: 1\r\n{more}\r\n".encode())

    async def head(self):
        async with asyncio.timeout(DEADLINE_S):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        return dict(line.split(": ", 1) for line in lines[1:])

    async def frame(self):
        """Channel and content of the next interleaved frame."""
        async with asyncio.timeout(DEADLINE_S):
            head = await self.reader.readexactly(4)
            assert head[:1] == b"$"
            return head[1], await self.reader.readexactly(int.from_bytes(head[2:], "big"))

    async def media(self):
        while (frame := await self.frame())[0]:
            pass
        return frame[1]


SCHEMES = [("basic",), ("digest",), ("digest-qop",), ("digest", "basic"), ("digest-sha256", "digest-qop")]


@pytest.mark.parametrize("schemes", SCHEMES, ids="+".join)
async def test_a_locked_camera_lets_in_who_knows_the_password_and_nobody_else(schemes):
    """However it asks for it, FFmpeg finds the answer; a wrong password and none at all are refused with 401."""
    lock = Lock(schemes)
    async with running(lock) as camera:
        right = camera.url.replace("//", f"//{lock.credentials}@")
        assert len(await asyncio.to_thread(watch, right, 2)) == 2
        for url in (camera.url, camera.url.replace("//", f"//{lock.user}:wrong@")):
            with pytest.raises(av.error.HTTPUnauthorizedError):
                await asyncio.to_thread(watch, url, 1)


async def test_a_changed_password_turns_a_client_away_until_it_is_changed_back():
    """The fault fires only for a client that shows the old one."""
    lock = Lock()
    async with running(lock) as camera:
        url = camera.url.replace("//", f"//{lock.credentials}@")
        fault = camera.strike(faults.PasswordChanged())
        with pytest.raises(av.error.HTTPUnauthorizedError):
            await asyncio.to_thread(watch, camera.url, 1)
        assert fault.fired == 0
        with pytest.raises(av.error.HTTPUnauthorizedError):
            await asyncio.to_thread(watch, url, 1)
        assert fault.fired > 0
        camera.recover()
        assert await asyncio.to_thread(watch, url, 1)


async def test_a_mute_camera_says_nothing_and_a_redirecting_one_sends_round_and_round():
    """Neither ever serves; both fire."""
    async with running() as camera:
        for fault in (faults.Mute(), faults.redirects()):
            camera.strike(fault)
            with pytest.raises(av.error.FFmpegError):
                await asyncio.to_thread(watch, camera.url, 1, 0.5)
            assert fault.fired >= 1
        assert fault.fired > 2, "a redirection was followed again and again"


@pytest.mark.parametrize("make", [faults.Silent, faults.RtcpOnly, faults.Trickle], ids=["silent", "rtcp", "trickle"])
async def test_a_camera_without_video_sends_some_again_when_it_has_recovered(make):
    """On the same connection, in whole frames; meanwhile there are only sender reports, or single bytes, or nothing."""
    async with running() as camera, ByHand(camera) as client:
        before = await client.media()
        fault = camera.strike(make())
        async with asyncio.timeout(DEADLINE_S):
            while fault.fired < 5:
                fault.happened.clear()
                await fault.happened.wait()
        camera.recover()
        while (frame := await client.frame())[0]:
            assert frame[1][1] == 200
        assert frame[1][8:12] == before[8:12]


async def test_garbage_has_right_headers_and_another_payload():
    """Sequence numbers and time stamps go on around bytes that the camera never had."""
    async with running() as camera, ByHand(camera) as client:
        known = b"".join(packet.data for packet in camera.packets)
        clean = await client.media()
        assert clean[14:] in known
        fault = camera.strike(faults.Garbage(Random(1)))
        while (frame := await client.media())[14:] in known:  # behind a fragment's two bytes
            clean = frame
        assert fault.fired
        assert frame[:2] in (b"\x80\x60", b"\x80\xe0")
        assert int.from_bytes(frame[2:4], "big") == (int.from_bytes(clean[2:4], "big") + 1) & 0xFFFF
        assert frame[8:12] == clean[8:12]


@pytest.mark.needs("socket-filter")
async def test_a_vanished_camera_neither_acknowledges_nor_hangs_up_nor_lets_anybody_in():
    """What its client sends stays unacknowledged; no connection is made; all is well when it is back."""
    async with running() as camera, ByHand(camera) as client:
        await client.media()
        fault = camera.strike(faults.Vanished())
        async with asyncio.timeout(DEADLINE_S):
            await fault.happened.wait()
        client.writer.write(b"$\x01\x00\x00")
        await asyncio.sleep(0.2)  # nothing is what comes, so there is nothing to wait for
        connection = client.writer.get_extra_info("socket")
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        assert struct.unpack_from("I", info, 24)[0] == 1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await asyncio.open_connection("127.0.0.1", camera.port)
        camera.recover()
        async with ByHand(camera) as back:
            assert await back.media()


@pytest.mark.parametrize(
    ("reset", "end"), [(True, ConnectionResetError), (False, asyncio.IncompleteReadError)], ids=["rst", "fin"]
)
async def test_a_cut_ends_a_connection_amid_an_access_unit(reset, end):
    """By RST or by FIN; who comes next is served."""

    async def to_the_end(client):
        while True:
            await client.frame()

    async with running() as camera:
        async with ByHand(camera) as client:
            await client.media()
            fault = camera.strike(faults.Cut(reset=reset))
            with pytest.raises(end):
                await to_the_end(client)
        assert fault.fired == 1
        async with ByHand(camera) as client:
            assert await client.media()


def rtp_time(frame):
    return int.from_bytes(frame[4:8], "big")


async def test_a_clock_jumps_and_is_set_back_amid_a_stream():
    """Time stamps go on from elsewhere, modulo their 32 bits."""
    async with running() as camera, ByHand(camera) as client:
        for jump_s in (7200, -9000):
            before = rtp_time(await client.media())
            fault = camera.strike(faults.ClockJumps(jump_s))
            jump_90k = jump_s * 90_000
            # What was sent before the jump still comes.
            while (passed_90k := (rtp_time(await client.media()) - before) % 2**32) < 90_000:
                pass
            assert 0 <= (passed_90k - jump_90k) % 2**32 < 90_000
            assert fault.fired


async def test_a_clock_wraps_when_it_was_said_to():
    """Half a second after PLAY, time stamps pass their 32 bits and go on from nothing."""
    async with running() as camera:
        fault = camera.strike(faults.ClockWraps(0.5))
        async with ByHand(camera) as client:
            assert rtp_time(await client.media()) >= 2**32 - 45_000
            while rtp_time(await client.media()) > 2**31:
                pass
            assert fault.fired == 1


async def test_other_pictures_come_from_one_access_unit_to_the_next_and_go_again():
    """A size changes and changes back, with its parameter sets, on one connection."""
    wide = packets((96, 128))
    async with running() as camera, ByHand(camera) as client:
        for shown in (wide, camera.packets):
            if shown is wide:
                fault = camera.strike(faults.Shows(wide))
            else:
                camera.recover()
            sps = shown[0].parameters.extradata.split(b"\0\0\0\1")[1]
            while (await client.media())[12:] != sps:
                pass
        assert fault.fired


def test_a_fault_counts_how_often_it_showed():
    """And says that it did."""
    fault = Fault()
    assert (fault.fired, fault.happened.is_set()) == (0, False)
    fault.fire()
    assert (fault.fired, fault.happened.is_set()) == (1, True)
