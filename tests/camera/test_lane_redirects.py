"""A peer that sends everybody on and on, told from one that is only slow."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest

from tests.camera.scene import Scene, running, until
from tests.camera.streams import capture_threads, settings
from vigintd.camera import redirects
from vigintd.camera.redirects import redirects_without_end


class Peer:
    """Answers the first request of each connection with the next of its answers, the last one again and again."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)
        self.requests: list[str] = []
        self.conversations: set[asyncio.Task[None]] = set()
        self.port = 0

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.conversations.add(asyncio.ensure_future(self._converse(reader, writer)))

    def answer(self) -> bytes:
        """To the latest request."""
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        cseq = self.requests[-1].partition("CSeq: ")[2].partition("\r\n")[0]
        filled = answer.replace("PORT", str(self.port)).replace("COUNT", str(len(self.requests)))
        return f"{filled}CSeq: {cseq}\r\nContent-Length: 0\r\n\r\n".encode()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
                writer.write(self.answer())
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def answering(*answers: str):
    peer = Peer(*answers)
    server = await asyncio.start_server(peer.accept, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        # Whoever was taken last has its conversation, too.
        for _ in range(5):
            await asyncio.sleep(0)
        await asyncio.gather(*peer.conversations)


def to(location: str, protocol: str = "RTSP/1.0") -> str:
    return f"{protocol} 302 Found\r\nLocation: {location}\r\n"


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([to("rtsp://127.0.0.1:PORT/x")], True),
        ([to("rtsp://127.0.0.1:PORT/COUNT")], True),
        ([to("/y"), to("/x")], True),
        ([to("/y"), "RTSP/1.0 200 OK\r\n"], False),
        ([to("rtsps://127.0.0.1:PORT/x")], False),
        ([to("rtsp://127.0.0.1:0/x")], False),
        ([to("http://[::1/no address")], False),
        (["RTSP/1.0 302 Found\r\n"], False),
        (["RTSP/1.0 401 Unauthorized\r\n"], False),
        (["\x00 no RTSP at all\r\n"], False),
        ([to("/" + "x" * 20_000)], False),
    ],
)
async def test_only_redirects_without_end_are_found(answers, expected):
    """To the same place, in a circle, or to ever new places; whatever else a peer answers is not that."""
    async with answering(*answers) as peer:
        assert await redirects_without_end(f"rtsp://cam:topsecret@127.0.0.1:{peer.port}/x") == expected
        assert peer.requests
        assert len(peer.requests) <= 11
        assert "topsecret" not in "".join(peer.requests)


async def test_a_peer_that_says_nothing_is_not_waited_for_long(monkeypatch):
    """The look is bounded."""
    monkeypatch.setattr(redirects, "_PATIENCE_S", 0.5)
    async with answering("") as peer:
        monkeypatch.setattr(peer, "answer", lambda: b"")
        async with asyncio.timeout(10):
            assert not await redirects_without_end(f"rtsp://127.0.0.1:{peer.port}/x")
    assert len(peer.requests) == 1


async def test_a_closed_port_and_a_file_are_not_redirected():
    """There is nobody to ask."""
    async with answering(to("/x")) as peer:
        port = peer.port
    assert not await redirects_without_end(f"rtsp://127.0.0.1:{port}/x")
    assert not await redirects_without_end("file:///a.mp4")


@pytest.mark.parametrize(("scheme", "protocol"), [("rtsp", "RTSP/1.0"), ("http", "HTTP/1.1")])
async def test_a_camera_that_is_redirected_for_ever_is_lost_as_such(scheme, protocol):
    """FFmpeg calls it a time-out of RTSP, and an input/output error of HTTP."""
    async with answering(to(f"{scheme}://127.0.0.1:PORT/x", protocol)) as peer:
        scene = Scene(settings(f"{scheme}://127.0.0.1:{peer.port}/x", open_timeout_s=0.5))
        async with running(scene):
            await until(lambda: scene.camera.status.state == "lost")
            assert scene.camera.status.reason == "redirects"
        await until(lambda: not capture_threads())
    assert len(peer.requests) > 5
