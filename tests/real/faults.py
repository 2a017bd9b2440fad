"""What goes wrong with real cameras, to be switched on and off in a `ScriptedCamera`."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from random import Random

from tests.real.scripted_camera import Fault, ScriptedCamera, deafen_client, drop, is_acknowledged
from vigintd.demo import rtp
from vigintd.demo.rtsp import Client, Request, Response
from vigintd.model import Packet

_RTP_HEADER_BYTES = 12


class Mute(Fault):
    """Connections are taken, and nothing is ever answered."""

    def answer(self, camera: ScriptedCamera, client: Client, request: Request) -> Response | None:
        self.fire()
        return None


class Answers(Fault):
    """Who asks for the stream, at the URLs that `at` chooses, gets this status and these headers instead."""

    def __init__(
        self,
        status: int,
        headers: Callable[[ScriptedCamera], dict[str, str]] = lambda _camera: {},
        *,
        at: Callable[[str], bool] = lambda _url: True,
    ) -> None:
        super().__init__()
        self._status = status
        self._headers = headers
        self._at = at

    def answer(self, camera: ScriptedCamera, client: Client, request: Request) -> Response | None:
        if request.method != "DESCRIBE" or not self._at(request.url):
            return camera.answer(client, request)
        self.fire()
        return Response(self._status, self._headers(camera))


def not_found() -> Fault:
    """The path is another since the last update of the camera's software."""
    return Answers(404)


def first_not_found() -> Fault:
    """The same for addresses without a query; those with one are still good."""
    return Answers(404, at=lambda url: "?" not in url)


def redirects() -> Fault:
    """Sent to another address, which is the same again, without end."""
    return Answers(302, lambda camera: {"Location": camera.url})


class PasswordChanged(Fault):
    """Somebody has changed the password in the camera; what the client shows is wrong."""

    def begin(self, camera: ScriptedCamera) -> None:
        assert camera.lock
        self._right = camera.lock.password
        camera.lock.password = "another one"

    def answer(self, camera: ScriptedCamera, client: Client, request: Request) -> Response | None:
        response = camera.answer(client, request)
        if response and response.status == 401 and "authorization" in request.headers:
            self.fire()
        return response

    def end(self, camera: ScriptedCamera) -> None:
        assert camera.lock
        camera.lock.password = self._right


class Silent(Fault):
    """Answers, and sends nothing, neither RTP nor RTCP."""

    def send(self, camera: ScriptedCamera, client: Client, data: bytes, *, is_media: bool) -> None:
        self.fire()


class RtcpOnly(Fault):
    """Sender reports instead of video, at the rate of the pictures."""

    def send(self, camera: ScriptedCamera, client: Client, data: bytes, *, is_media: bool) -> None:
        self.fire()
        ssrc = struct.unpack_from("!I", data, 12 if is_media else 8)[0]
        channel = (client.channel or 0) + 1
        report = rtp.sender_report(
            ssrc=ssrc, at=datetime.now(UTC), timestamp=0, rtp_packets=self.fired, payload_bytes=0, channel=channel
        )
        camera.send(client, report)


class Garbage(Fault):
    """RTP with right headers around random bytes."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random

    def send(self, camera: ScriptedCamera, client: Client, data: bytes, *, is_media: bool) -> None:
        if is_media:
            self.fire()
            data = b"".join(
                frame[: 4 + _RTP_HEADER_BYTES] + self._random.randbytes(len(frame) - 4 - _RTP_HEADER_BYTES)
                for frame in frames(data)
            )
        camera.send(client, data)


class Trickle(Fault):
    """One byte where four access units are due: the connection lives, but no packet is ever whole in time."""

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[Client, bytes] = {}

    def send(self, camera: ScriptedCamera, client: Client, data: bytes, *, is_media: bool) -> None:
        # What cannot be sent in order is not made: the camera's buffer is one access unit long.
        held = self._held.get(client) or data
        self.fire()
        due = self.fired % 4 == 1
        camera.send(client, held[:due])
        self._held[client] = held[due:]

    def end(self, camera: ScriptedCamera) -> None:
        for client, held in self._held.items():
            camera.send(client, held)


class Vanished(Fault):
    """Its power is cut: no FIN, no RST, no acknowledgement on any connection, nobody at home for new ones."""

    def __init__(self) -> None:
        super().__init__()
        self._gone: set[Client] = set()

    def begin(self, camera: ScriptedCamera) -> None:
        camera.deafen_listener(deaf=True)

    def send(self, camera: ScriptedCamera, client: Client, data: bytes, *, is_media: bool) -> None:
        # Only once nothing is under way, or this machine would send it again and again, which nobody who is gone does.
        if client not in self._gone and is_acknowledged(client):
            deafen_client(client)
            self._gone.add(client)
            self.fire()

    def end(self, camera: ScriptedCamera) -> None:
        camera.deafen_listener(deaf=False)
        for client in self._gone:
            drop(client, reset=True)


class Cut(Fault):
    """Each connection ends amid its next access unit, by FIN or by RST; those that come later are served."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__()
        self._reset = reset
        self._doomed: frozenset[Client] = frozenset()

    def begin(self, camera: ScriptedCamera) -> None:
        self._doomed = camera.playing

    def send(self, camera: ScriptedCamera, client: Client, data: bytes, *, is_media: bool) -> None:
        if client not in self._doomed:
            camera.send(client, data)
        elif not client.writer.is_closing():
            camera.send(client, data[: len(data) // 2])
            drop(client, reset=self._reset)
            self.fire()


class Shows(Fault):
    """Other pictures from one access unit to the next, without a word: another size, or a picture that stands still."""

    def __init__(self, packets: Sequence[Packet]) -> None:
        super().__init__()
        self._packets = packets

    def begin(self, camera: ScriptedCamera) -> None:
        camera.show(self._packets)

    def send(self, camera: ScriptedCamera, client: Client, data: bytes, *, is_media: bool) -> None:
        if is_media:
            self.fire()
        camera.send(client, data)

    def end(self, camera: ScriptedCamera) -> None:
        camera.show(camera.packets)


class ClockJumps(Fault):
    """The camera's clock is set, and its RTP timestamps with it."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def begin(self, camera: ScriptedCamera) -> None:
        camera.turn_clock(self._seconds)

    def send(self, camera: ScriptedCamera, client: Client, data: bytes, *, is_media: bool) -> None:
        if is_media:
            self.fire()
        camera.send(client, data)


class ClockWraps(Fault):
    """RTP timestamps pass 32 bits, `after_s` seconds after the first PLAY; to be struck before that."""

    def __init__(self, after_s: float) -> None:
        super().__init__()
        self._after_s = after_s
        self._last_90k: int | None = None

    def answer(self, camera: ScriptedCamera, client: Client, request: Request) -> Response | None:
        if request.method == "PLAY" and self._last_90k is None:
            camera.begin_clock(self._after_s)
        return camera.answer(client, request)

    def send(self, camera: ScriptedCamera, client: Client, data: bytes, *, is_media: bool) -> None:
        if is_media:
            timestamp = struct.unpack_from("!I", data, 8)[0]
            if self._last_90k is not None and timestamp < self._last_90k - 2**31:
                self.fire()
            self._last_90k = timestamp
        camera.send(client, data)


def frames(data: bytes) -> list[bytes]:
    """The interleaved frames of RFC 2326, section 10.12, each with its head of four bytes."""
    found = []
    while data:
        end = 4 + int.from_bytes(data[2:4], "big")
        found.append(data[:end])
        data = data[end:]
    return found
