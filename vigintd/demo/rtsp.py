"""The built-in camera: a small RTSP server (RFC 2326) that loops pre-encoded H.264 to many clients over TCP.

Owns connections, requests and pacing; what travels is made by `rtp`. Everything happens on the event loop's thread: one
timer a camera stamps each access unit once and writes the same bytes to every client, each in one write, so that a stream
costs next to nothing. While nobody watches the loop rests; it begins anew with the next client. UDP is refused (461),
which makes FFmpeg ask for TCP. A camera with faults overrides `respond` (what is answered) or `deliver` (what is sent).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from vigintd import metrics
from vigintd.clock import Clock, SystemClock
from vigintd.demo import rtp
from vigintd.model import MEDIA_CLOCK_HZ, Packet

MAX_CLIENTS = 256
"""One more is turned away with 503."""
MAX_REQUEST_BYTES = 8192
"""Of a request's head, and of its body; a longer one ends the connection."""
REQUEST_DEADLINE_S = 60.0
"""A client that does not play says something within this time, or is dropped."""
REPORT_EVERY_S = 5.0
MAX_LATE_S = 2.0
"""Behind by more than this (the machine slept), the camera leaves the gap instead of sending it in a burst."""

_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    454: "Session Not Found",
    455: "Method Not Valid in This State",
    461: "Unsupported Transport",
    501: "Not Implemented",
    503: "Service Unavailable",
}
_METHODS = "OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN"


@dataclass(frozen=True, slots=True)
class Request:
    """One request; the names of its headers are in lower case."""

    method: str
    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Response:
    """One answer; CSeq is added where it is sent."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def encoded(self, cseq: str) -> bytes:
        """Its bytes on the wire."""
        headers = {"CSeq": cseq, **self.headers}
        if self.body:
            headers["Content-Length"] = str(len(self.body))
        lines = [f"RTSP/1.0 {self.status} {_REASONS.get(self.status, 'Status')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("utf-8") + self.body


@dataclass(eq=False, slots=True)
class Client:
    """One connection, and how far its session has come."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    session: str = field(default_factory=lambda: secrets.token_hex(8))
    channel: int | None = None
    """Of its RTP, once set up; RTCP is on the next."""
    playing: bool = False
    started: bool = False
    """Has been sent its first key frame."""


class RtspCamera:
    """Loops `packets` (H.264 in Annex B, the first one a key frame) at `fps` packets a second.

    RTP timestamps are the packets' own, and go on rising from loop to loop. A client whose unsent bytes pass
    `buffer_bytes` is dropped, and counted as `demo.client_too_slow`. `ValueError` for packets that cannot be sent.
    """

    def __init__(
        self,
        packets: Sequence[Packet],
        *,
        fps: float,
        path: str = "/cam",
        clock: Clock | None = None,
        buffer_bytes: int = 4_000_000,
    ) -> None:
        self._fps = fps
        self._path = path
        self._clock = clock or SystemClock()
        self._buffer_bytes = buffer_bytes
        self._clients: set[Client] = set()
        self._conversations: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._address = ("", 0)
        self._timer: asyncio.TimerHandle | None = None
        self._next: Sequence[Packet] | None = None
        self._load(packets)

    @property
    def url(self) -> str:
        """Where it is, once started; the same after `stop`."""
        host, port = self._address
        return f"rtsp://{host}:{port}{self._path}"

    @property
    def port(self) -> int:
        """The bound port, once started; the same after `stop`, to start again on."""
        return self._address[1]

    @property
    def clients(self) -> int:
        """How many clients are being sent video."""
        return sum(client.started for client in self._clients)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen, and answer the URL. As a camera after a reboot, with a new SSRC and timestamps from elsewhere."""
        self._server = await asyncio.start_server(self._converse, host, port, limit=MAX_REQUEST_BYTES)
        bound = self._server.sockets[0].getsockname()
        self._address = (bound[0], bound[1])
        self._ssrc = secrets.randbits(32)
        self._sequence = secrets.randbits(16)
        self._epoch_90k = secrets.randbits(31)
        self._started_s = asyncio.get_running_loop().time()
        self._last_90k = self._epoch_90k
        self._sent_packets = self._sent_bytes = 0
        return self.url

    async def stop(self) -> None:
        """Stop listening and cut every connection, as a camera that lost its power."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        # Not cancelled: on 3.11 the streams' own callback would report each cancelled conversation as an error.
        for client in self._clients:
            client.writer.transport.abort()
        await asyncio.gather(*self._conversations, return_exceptions=True)
        await server.wait_closed()

    def play(self, packets: Sequence[Packet]) -> None:
        """Show these packets instead, from the end of the loop that is under way."""
        rtp.access_units(packets[:1])  # says now what would be wrong then
        self._next = packets

    def respond(self, client: Client, request: Request) -> Response | None:
        """The answer to one request, or None to say nothing, and the change it makes to the client's session."""
        known = urlsplit(request.url).path.rstrip("/") in (self._path, f"{self._path}/trackID=0")
        session = request.headers.get("session", client.session).partition(";")[0]
        match request.method:
            case "OPTIONS":
                answer = Response(headers={"Public": _METHODS})
            case _ if not known:
                answer = Response(404)
            case "DESCRIBE":
                body = rtp.session_description(self._parameters, fps=self._fps, address=self._address[0])
                answer = Response(headers={"Content-Type": "application/sdp", "Content-Base": f"{self.url}/"}, body=body)
            case "SETUP":
                answer = self._set_up(client, request)
            case _ if session != client.session:
                answer = Response(454)
            case "PLAY" if client.channel is None:
                answer = Response(455)
            case "PLAY":
                client.playing = True
                self._wake()
                answer = Response(headers={"Session": client.session, "Range": "npt=now-"})
            case "GET_PARAMETER":
                answer = Response(headers={"Session": client.session})
            case "TEARDOWN":
                client.playing = client.started = False
                self._rest_unless_watched()
                answer = Response(headers={"Session": client.session, "Connection": "close"})
            case _:
                answer = Response(501)
        return answer

    def deliver(self, client: Client, data: bytes) -> None:
        """Send one client framed bytes, or drop it for being slow."""
        if client.writer.is_closing():
            return
        if client.writer.transport.get_write_buffer_size() > self._buffer_bytes:
            metrics.count("demo.client_too_slow")
            client.writer.transport.abort()
            return
        client.writer.write(data)

    def _set_up(self, client: Client, request: Request) -> Response:
        for offer in request.headers.get("transport", "").split(","):
            profile, *options = offer.strip().split(";")
            if profile.upper() != "RTP/AVP/TCP":
                continue
            values = dict(option.partition("=")[::2] for option in options)
            first = values.get("interleaved", "0").partition("-")[0]
            client.channel = int(first) if first.isdecimal() and int(first) < 255 else 0
            transport = f"RTP/AVP/TCP;unicast;interleaved={client.channel}-{client.channel + 1};ssrc={self._ssrc:08X}"
            return Response(headers={"Transport": transport, "Session": f"{client.session};timeout=60"})
        return Response(461)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(reader, writer)
        conversation = asyncio.current_task()
        assert conversation is not None
        self._conversations.add(conversation)
        full = len(self._clients) >= MAX_CLIENTS
        self._clients.add(client)
        try:
            # A connection that breaks, says nothing or speaks another protocol just ends, as with a camera.
            with contextlib.suppress(OSError, EOFError, ValueError, asyncio.LimitOverrunError, TimeoutError):
                while await self._answer_one(client, full=full):
                    await writer.drain()
                await writer.drain()
                writer.close()
        finally:
            self._clients.discard(client)
            self._conversations.discard(conversation)
            self._rest_unless_watched()
            if not writer.is_closing():
                writer.transport.abort()

    async def _answer_one(self, client: Client, *, full: bool) -> bool:
        """Read one request and answer it; False when that was the last."""
        async with asyncio.timeout(None if client.playing else REQUEST_DEADLINE_S):
            request = await _read_request(client.reader)
        cseq = request.headers.get("cseq", "")
        if full or not cseq:
            client.writer.write(Response(503 if full else 400).encoded(cseq or "0"))
            return False
        response = self.respond(client, request)
        if response is None:
            return True
        client.writer.write(response.encoded(cseq))
        return response.headers.get("Connection") != "close"

    def _load(self, packets: Sequence[Packet]) -> None:
        units = rtp.access_units(packets)
        self._units = units
        self._parameters = packets[0].parameters
        frame_90k = round(MEDIA_CLOCK_HZ / self._fps)
        self._loop_90k = max(
            round(len(units) * MEDIA_CLOCK_HZ / self._fps), max(u.pts_90k for u in units) - units[0].pts_90k + frame_90k
        )
        self._position = 0

    def _wake(self) -> None:
        """Begin the loop at its beginning, unless it is under way."""
        if self._timer is not None:
            return
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        self._position = 0
        elapsed_90k = round((now_s - self._started_s) * MEDIA_CLOCK_HZ)
        self._base_90k = max(self._epoch_90k + elapsed_90k, self._last_90k + 1)
        self._due_s = self._report_s = now_s
        self._timer = loop.call_at(now_s, self._tick)

    def _rest_unless_watched(self) -> None:
        if self._timer is not None and not any(client.playing for client in self._clients):
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        """Send the access unit that is due to everyone, and come back for the next."""
        playing = [client for client in self._clients if client.playing]
        loop = asyncio.get_running_loop()
        unit = self._units[self._position]
        timestamp = self._base_90k + unit.pts_90k - self._units[0].pts_90k
        data = unit.stamped(self._sequence, timestamp, self._ssrc)
        now_s = loop.time()
        report_due = now_s >= self._report_s
        for client in playing:
            if report_due or (unit.is_key and not client.started):
                self._report(client, timestamp)
            if client.started or unit.is_key:
                client.started = True
                self.deliver(client, unit.on_channel(data, client.channel) if client.channel else data)
        if report_due:
            self._report_s = now_s + REPORT_EVERY_S
        self._sequence = (self._sequence + unit.rtp_packets) & 0xFFFF
        self._sent_packets += unit.rtp_packets
        self._sent_bytes += unit.payload_bytes
        self._last_90k = max(self._last_90k, timestamp)
        self._advance()
        self._due_s += 1 / self._fps
        if now_s - self._due_s > MAX_LATE_S:
            self._due_s = now_s
        self._timer = loop.call_at(self._due_s, self._tick)

    def _advance(self) -> None:
        self._position += 1
        if self._position < len(self._units):
            return
        self._base_90k += self._loop_90k
        self._position = 0
        if self._next is not None:
            self._load(self._next)
            self._next = None

    def _report(self, client: Client, timestamp: int) -> None:
        report = rtp.sender_report(
            ssrc=self._ssrc,
            at=self._clock.now(),
            timestamp=timestamp,
            rtp_packets=self._sent_packets,
            payload_bytes=self._sent_bytes,
            channel=(client.channel or 0) + 1,
        )
        self.deliver(client, report)


async def _read_request(reader: asyncio.StreamReader) -> Request:
    """The next request; what the client sends of RTCP in between is passed over."""
    while (first := await reader.readexactly(1)) == b"$":
        frame = await reader.readexactly(3)
        await reader.readexactly(int.from_bytes(frame[1:], "big"))
    head = (first + await reader.readuntil(b"\r\n\r\n")).decode("utf-8")
    line, *rest = head.strip().split("\r\n")
    method, url, _version = line.split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (item.partition(":") for item in rest)}
    body_bytes = int(headers.get("content-length", "0"))
    if not 0 <= body_bytes <= MAX_REQUEST_BYTES:
        raise ValueError("a request's body is too long")
    await reader.readexactly(body_bytes)
    return Request(method, url, headers)
