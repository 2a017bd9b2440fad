"""The built-in camera, watched by FFmpeg and by hand."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import av
import pytest

from tests.demo.conftest import FPS, GOP, PACKETS, noise_packets, watch
from vigintd import metrics
from vigintd.demo import rtp
from vigintd.demo.rtsp import RtspCamera

DEADLINE_S = 20.0


@pytest.fixture
async def camera(packets):
    camera = RtspCamera(packets, fps=FPS)
    await camera.start()
    yield camera
    await camera.stop()


class ByHand:
    """A client that says exactly what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, url: str) -> None:
        self.reader, self.writer, self.url = reader, writer, url
        self.headers: dict[str, str] = {}

    async def ask(self, method: str, *, url: str | None = None, cseq: str = "1", **headers: str) -> int:
        """One request; answers the status, and keeps the answer's headers."""
        lines = [f"{method} {url or self.url} RTSP/1.0", *([f"CSeq: {cseq}"] if cseq else [])]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        async with asyncio.timeout(DEADLINE_S):
            while (first := await self.reader.readexactly(1)) == b"$":
                await self.reader.readexactly(int.from_bytes((await self.reader.readexactly(3))[1:], "big"))
            head = (first + await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            self.headers = dict(line.split(": ", 1) for line in head[1:])
            await self.reader.readexactly(int(self.headers.get("Content-Length", "0")))
        return int(head[0].split(" ")[1])

    async def frame(self) -> tuple[int, bytes]:
        """The next interleaved frame: channel and content."""
        async with asyncio.timeout(DEADLINE_S):
            head = await self.reader.readexactly(4)
            assert head[:1] == b"$"
            return head[1], await self.reader.readexactly(int.from_bytes(head[2:], "big"))

    async def play(self, channel: int = 0) -> None:
        transport = f"RTP/AVP/TCP;unicast;interleaved={channel}-{channel + 1}"
        assert await self.ask("SETUP", url=f"{self.url}/trackID=0", Transport=transport) == 200
        session = self.headers["Session"].partition(";")[0]
        assert await self.ask("PLAY", Session=session) == 200


@asynccontextmanager
async def by_hand(camera: RtspCamera) -> AsyncIterator[ByHand]:
    reader, writer = await asyncio.open_connection("127.0.0.1", camera.port)
    yield ByHand(reader, writer, camera.url)
    writer.close()


async def test_ffmpeg_decodes_every_picture_of_more_than_one_loop(camera, packets):
    """What comes out of FFmpeg is what was encoded, access units far longer than an RTP packet, times rising on and on."""
    assert min(len(packet.data) for packet in packets) > 3 * rtp.MAX_PAYLOAD_BYTES
    count = 2 * PACKETS + 3
    seen = await watch(camera.url, count)
    assert [rtp.nal_units(data) for data in seen.data] == [
        rtp.nal_units(packet.data) for packet in itertools.islice(itertools.cycle(packets), count)
    ]
    assert seen.keys == [number % GOP == 0 for number in range(count)]
    assert {later - earlier for earlier, later in itertools.pairwise(seen.pts)} == {90_000 // FPS}
    assert len(seen.pts) >= count - 1
    assert seen.pictures >= count - 1  # a decoder may hold one back


async def test_a_client_that_asks_for_udp_is_led_to_tcp(camera):
    """FFmpeg, told nothing, tries UDP first, is refused with 461 and goes on over TCP; with UDP alone it fails."""
    assert len((await watch(camera.url, 3, transport=None)).data) == 3
    with pytest.raises(av.error.FFmpegError):
        await watch(camera.url, 3, transport="udp")


async def test_each_of_many_clients_begins_with_a_key_frame(camera):
    """Clients come when they like, also amid a group of pictures; none begins with a picture that it cannot decode."""
    async with asyncio.TaskGroup() as group, asyncio.timeout(DEADLINE_S):
        watching = [group.create_task(watch(camera.url, 2 * GOP))]
        for pause in range(1, 4):
            async with by_hand(camera) as observer:
                await observer.play()
                for _ in range(20 * pause):
                    await observer.frame()
            watching.append(group.create_task(watch(camera.url, 2 * GOP)))
    for task in watching:
        assert task.result().keys == [number % GOP == 0 for number in range(2 * GOP)]
        assert task.result().pictures >= 2 * GOP - 1


async def test_a_camera_that_loses_power_comes_back_on_the_same_port(camera):
    """`stop` ends every client's stream at once; after `start` on that port a client sees it again."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    began = asyncio.Event()
    watching = asyncio.create_task(watch(camera.url, 10_000, began=began))
    url, port = camera.url, camera.port
    async with asyncio.timeout(DEADLINE_S):
        await began.wait()
        await camera.stop()
        assert len((await watching).data) < 10_000
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    assert await camera.start(port=port) == url
    assert (await watch(url, 3)).keys == [True, False, False]
    await camera.stop()
    assert complaints == []


async def test_a_client_that_does_not_read_is_dropped_and_nobody_else_notices(packets):
    """Unsent bytes are bounded: past the bound the connection is cut and counted."""
    dropped = asyncio.Event()

    class Telling(RtspCamera):
        def deliver(self, client, data):
            super().deliver(client, data)
            if client.writer.is_closing():
                dropped.set()

    camera = Telling(packets, fps=20 * FPS, buffer_bytes=100_000)
    await camera.start()
    try:
        async with by_hand(camera) as sleeper:
            await sleeper.play()
            assert isinstance(sleeper.writer.transport, asyncio.Transport)
            sleeper.writer.transport.pause_reading()
            reader = asyncio.create_task(watch(camera.url, 10_000))
            async with asyncio.timeout(DEADLINE_S):
                await dropped.wait()
            assert metrics.snapshot()["demo.client_too_slow"] == {"": 1}
            assert not reader.done()
            await camera.stop()
            assert len((await reader).data) > GOP
    finally:
        await camera.stop()


async def test_rtp_and_rtcp_come_on_the_channels_the_client_chose(camera):
    """A sender report comes first, on the odd channel; media on the even one."""
    async with by_hand(camera) as client:
        await client.play(channel=4)
        channel, report = await client.frame()
        assert (channel, report[1]) == (5, 200)
        channel, media = await client.frame()
        assert (channel, media[1] & 0x7F) == (4, rtp.PAYLOAD_TYPE)
        assert media[8:12] == report[4:8], "one SSRC"


async def test_the_loop_rests_while_nobody_watches_and_begins_anew(camera, packets):
    """The next client sees the loop from its beginning, with timestamps that went on."""
    timestamps = []
    for _ in range(2):
        async with by_hand(camera) as client:
            await client.play()
            await client.frame()
            _, media = await client.frame()
            assert media[12:] == rtp.nal_units(packets[0].data)[0]
            timestamps.append(int.from_bytes(media[4:8], "big"))
            # To the loop's middle, so that beginning anew can be told from going on.
            while int.from_bytes((await client.frame())[1][4:8], "big") < timestamps[-1] + 90_000 * (GOP + 2) // FPS:
                pass
            assert await client.ask("TEARDOWN") == 200
    assert timestamps[1] > timestamps[0]


async def test_another_loop_is_shown_from_the_end_of_this_one(camera, packets):
    """A camera can be given other packets, of another size even, while it is watched."""
    others = noise_packets(seed=2, count=GOP, size=(120, 160))
    camera.play(others)
    seen = await watch(camera.url, PACKETS + GOP)
    assert [rtp.nal_units(data) for data in seen.data] == [rtp.nal_units(packet.data) for packet in [*packets, *others]]


TCP = "RTP/AVP/TCP;unicast;interleaved=0-1"


@pytest.mark.parametrize(
    ("method", "changes", "status"),
    [
        ("OPTIONS", {}, 200),
        ("OPTIONS", {"url": "*"}, 200),
        ("DESCRIBE", {}, 200),
        ("DESCRIBE", {"url": "rtsp://127.0.0.1/other"}, 404),
        ("SETUP", {"Transport": TCP}, 200),
        ("SETUP", {"Transport": f"RTP/AVP;unicast;client_port=5000-5001,{TCP}"}, 200),
        ("SETUP", {"Transport": "RTP/AVP;unicast;client_port=5000-5001"}, 461),
        ("SETUP", {}, 461),
        ("PLAY", {}, 455),
        ("PLAY", {"Session": "another"}, 454),
        ("GET_PARAMETER", {}, 200),
        ("TEARDOWN", {}, 200),
        ("RECORD", {}, 501),
        ("OPTIONS", {"cseq": ""}, 400),
    ],
)
async def test_requests_are_answered_as_rfc_2326_says(camera, method, changes, status):
    """Each request has its status."""
    async with by_hand(camera) as client:
        assert await client.ask(method, **changes) == status


@pytest.mark.parametrize(
    "noise", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" * 9000, b"x y\r\n\r\n", b"O * R\r\nContent-Length: 9999999\r\n\r\n"]
)
async def test_what_is_no_rtsp_ends_its_own_connection_only(camera, noise):
    """A stranger's bytes cost their connection, and the camera goes on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", camera.port)
    writer.write(noise)
    async with asyncio.timeout(DEADLINE_S):
        with suppress(ConnectionResetError):
            assert b"200 OK" not in await reader.read()
    writer.close()
    async with by_hand(camera) as client:
        assert await client.ask("OPTIONS") == 200


async def test_receiver_reports_between_requests_are_passed_over(camera):
    """What clients send of RTCP is no request."""
    async with by_hand(camera) as client:
        client.writer.write(b"$\x01\x00\x08" + b"\x81\xc9\x00\x01\x00\x00\x00\x07")
        assert await client.ask("OPTIONS") == 200
