"""An ONVIF camera of the tests: answers searches by UDP and questions by HTTP, on an address of the loopback range.

Its SOAP is written by hand here, apart from what vigintd writes, in two dialects: with Media2, and as cameras of before it.
What it says to a question can be replaced, which is how it lies, hangs and floods. Every question it hears is kept.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from aiohttp import web

Group = tuple[str, int]
"""A multicast address and a port: where everybody is asked."""
STANDARD_GROUP: Group = ("239.255.255.250", 3702)
MAIN, SUB, TINY = ("main", "H265", 2560, 1440, 25), ("sub", "H264", 640, 360, 15), ("tiny", "H264", 160, 90, 5)

Profile = tuple[str, str, int, int, int]
"""Name (also its token), encoding, width, height, frames a second."""
Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]

_NAMESPACES = (
    'xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:tt="http://www.onvif.org/ver10/schema" '
    'xmlns:tds="http://www.onvif.org/ver10/device/wsdl" xmlns:trt="http://www.onvif.org/ver10/media/wsdl" '
    'xmlns:tr2="http://www.onvif.org/ver20/media/wsdl" xmlns:ter="http://www.onvif.org/ver10/error" '
    'xmlns:wsa="http://schemas.xmlsoap.org/ws/2004/08/addressing" '
    'xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery" xmlns:dn="http://www.onvif.org/ver10/network/wsdl"'
)
_REALM = "camera"


def soap(body: str, header: str = "") -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<s:Envelope {_NAMESPACES}><s:Header>{header}</s:Header>'
        f"<s:Body>{body}</s:Body></s:Envelope>"
    ).encode()


def fault(subcode: str, reason: str, status: int = 400) -> web.Response:
    code = f"<s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>{subcode}</s:Value></s:Subcode></s:Code>"
    body = f'<s:Fault>{code}<s:Reason><s:Text xml:lang="en">{reason}</s:Text></s:Reason></s:Fault>'
    return web.Response(status=status, body=soap(body), content_type="application/soap+xml")


@dataclass
class Camera:
    """One camera: what it is, and what it has heard."""

    address: str = "127.0.0.2"
    name: str = "Entr%C3%A9e%20%231"
    maker: str = "Exemple & Fils"
    model: str = "EX-200"
    profiles: tuple[Profile, ...] = (MAIN, SUB, TINY)
    sources: dict[str, str] = field(default_factory=dict)
    """Profile → its video source, where that is not the camera's only one."""
    user: tuple[str, str] | None = None
    login: Literal["token", "digest", "basic"] = "token"
    """How a user proves a password: WS-UsernameToken, or HTTP Digest; `basic` asks for it in the clear."""
    clock_ahead: timedelta = timedelta()
    media2: bool = True
    get_services: bool = True
    xaddr_host: str = ""
    """What the camera takes for its own host in addresses, where that is not where it is."""
    stream: str = "rtsp://{host}:554/{token}"
    replies: dict[str, Reply] = field(default_factory=dict)
    """Question, or service/question → what is said instead of the truth."""
    match: bytes | None = None
    """What is said to a search instead of the truth."""
    asked: list[str] = field(default_factory=list)
    """Questions that came, in order; `Probe` for searches."""
    logins: list[str] = field(default_factory=list)
    """What came with each question but the time's: `none`, `token`, `digest` or `basic`, and whether it was `ok`."""
    port: int = 0
    _nonces: set[str] = field(default_factory=set)

    @property
    def place(self) -> str:
        return f"{self.address}:{self.port}"

    @property
    def host(self) -> str:
        return self.xaddr_host or self.address

    def url(self, path: str) -> str:
        return f"http://{self.host}:{self.port}/onvif/{path}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        message = ET.fromstring(await request.read())
        question = message.findall("{*}Body/*")[0]
        name = question.tag.rpartition("}")[2]
        self.asked.append(name)
        if name != "GetSystemDateAndTime" and (refusal := self._refusal(request, message)):
            return refusal
        if reply := self.replies.get(name) or self.replies.get(f"{request.match_info['service']}/{name}"):
            return await reply(request)
        says = getattr(self, f"_{name}", None)
        if says is None or (name == "GetServices" and not self.get_services):
            return fault("ter:ActionNotSupported", "Optional Action Not Implemented", 500)
        namespace = question.tag[1:].partition("}")[0]
        body = f'<q:{name}Response xmlns:q="{namespace}">{says(question)}</q:{name}Response>'
        return web.Response(body=soap(body), content_type="application/soap+xml")

    def probe_match(self, probe: bytes) -> bytes | None:
        message = ET.fromstring(probe)
        self.asked.append("Probe")
        if not message.findtext(".//{*}Types", "").endswith(":NetworkVideoTransmitter"):
            return None
        if self.match is not None:
            return self.match
        return match(
            self.url("device_service"),
            relates_to=message.findtext(".//{*}MessageID", ""),
            scopes=f"onvif://www.onvif.org/type/video_encoder onvif://www.onvif.org/name/{self.name}",
        )

    def _refusal(self, request: web.Request, message: ET.Element) -> web.Response | None:
        authorization = request.headers.get("Authorization", "")
        token = message.find(".//{*}UsernameToken")
        way = "token" if token is not None else authorization.partition(" ")[0].lower() or "none"
        proven = False
        if self.login == "token" and token is not None:
            proven = self._token_is_good(token)
        if self.login == "digest" and authorization:
            proven = self._digest_is_good(authorization)
        self.logins.append(f"{way} ok" if proven else way)
        if proven or self.user is None:
            return None
        if self.login == "token":
            return fault("ter:NotAuthorized", "Sender not Authorized")
        challenge = (
            f'Digest realm="{_REALM}", qop="auth", nonce="abc", algorithm=MD5' if self.login == "digest" else "Basic realm=x"
        )
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    def _token_is_good(self, token: ET.Element) -> bool:
        """UsernameToken Profile 1.0: a digest, a nonce never seen, and a moment within five seconds of this clock."""
        if self.user is None:
            return False
        says = {element.tag.rpartition("}")[2]: element.text or "" for element in token}
        created = datetime.fromisoformat(says["Created"])
        fresh = says["Nonce"] not in self._nonces
        self._nonces.add(says["Nonce"])
        punctual = abs(datetime.now(UTC) + self.clock_ahead - created) < timedelta(seconds=5)
        plain = base64.b64decode(says["Nonce"]) + says["Created"].encode() + self.user[1].encode()
        digest = base64.b64encode(hashlib.sha1(plain).digest()).decode()
        return fresh and punctual and (says["Username"], says["Password"]) == (self.user[0], digest)

    def _digest_is_good(self, authorization: str) -> bool:
        if self.user is None:
            return False
        says = {key: quoted or bare for key, quoted, bare in re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,]+))', authorization)}
        ha1 = _md5(f"{self.user[0]}:{_REALM}:{self.user[1]}")
        ha2 = _md5(f"POST:{says['uri']}")
        wanted = _md5(f"{ha1}:abc:{says['nc']}:{says['cnonce']}:auth:{ha2}")
        return bool(says["username"] == self.user[0] and says["response"] == wanted)

    def _GetSystemDateAndTime(self, _question: ET.Element) -> str:  # noqa: N802  (the question's name)
        now = datetime.now(UTC) + self.clock_ahead
        time = f"<tt:Hour>{now.hour}</tt:Hour><tt:Minute>{now.minute}</tt:Minute><tt:Second>{now.second}</tt:Second>"
        date = f"<tt:Year>{now.year}</tt:Year><tt:Month>{now.month}</tt:Month><tt:Day>{now.day}</tt:Day>"
        moment = f"<tt:UTCDateTime><tt:Time>{time}</tt:Time><tt:Date>{date}</tt:Date></tt:UTCDateTime>"
        kind = "<tt:DateTimeType>NTP</tt:DateTimeType><tt:DaylightSavings>false</tt:DaylightSavings>"
        return f"<tds:SystemDateAndTime>{kind}{moment}</tds:SystemDateAndTime>"

    def _GetDeviceInformation(self, _question: ET.Element) -> str:  # noqa: N802
        rest = "".join(f"<tds:{key}>1</tds:{key}>" for key in ("FirmwareVersion", "SerialNumber", "HardwareId"))
        return f"<tds:Manufacturer>{escape(self.maker)}</tds:Manufacturer><tds:Model>{self.model}</tds:Model>{rest}"

    def _GetServices(self, _question: ET.Element) -> str:  # noqa: N802
        known = {"ver10/device/wsdl": "device_service", "ver10/media/wsdl": "media_service"}
        if self.media2:
            known["ver20/media/wsdl"] = "media2_service"
        return "".join(
            f"<tds:Service><tds:Namespace>http://www.onvif.org/{namespace}</tds:Namespace><tds:XAddr>{self.url(path)}</tds:XAddr>"
            "</tds:Service>"
            for namespace, path in known.items()
        )

    def _GetCapabilities(self, _question: ET.Element) -> str:  # noqa: N802
        media = f"<tt:Media><tt:XAddr>{self.url('media_service')}</tt:XAddr></tt:Media>"
        return f"<tds:Capabilities>{media}</tds:Capabilities>"

    def _GetProfiles(self, question: ET.Element) -> str:  # noqa: N802
        if "ver20" in question.tag:
            wanted = [element.text for element in question]
            assert wanted == ["VideoSource", "VideoEncoder"]
            return "".join(self._media2_profile(*profile) for profile in self.profiles)
        return "".join(self._media_profile(*profile) for profile in self.profiles)

    def _media2_profile(self, name: str, encoding: str, width: int, height: int, fps: int) -> str:
        source = f"<tr2:VideoSource><tt:SourceToken>{self.sources.get(name, 'lens')}</tt:SourceToken></tr2:VideoSource>"
        video = f"<tr2:VideoEncoder>{_encoder(encoding, width, height, fps)}</tr2:VideoEncoder>"
        return (
            f'<tr2:Profiles token="{name}"><tr2:Name>{name}</tr2:Name>'
            f"<tr2:Configurations>{source}{video}</tr2:Configurations></tr2:Profiles>"
        )

    def _media_profile(self, name: str, encoding: str, width: int, height: int, fps: int) -> str:
        token = self.sources.get(name, "lens")
        source = f"<tt:VideoSourceConfiguration><tt:SourceToken>{token}</tt:SourceToken></tt:VideoSourceConfiguration>"
        video = f"<tt:VideoEncoderConfiguration>{_encoder(encoding, width, height, fps)}</tt:VideoEncoderConfiguration>"
        return f'<trt:Profiles token="{name}"><tt:Name>{name}</tt:Name>{source}{video}</trt:Profiles>'

    def _GetStreamUri(self, question: ET.Element) -> str:  # noqa: N802
        token = question.findtext("{*}ProfileToken", "")
        assert token in {profile[0] for profile in self.profiles}
        uri = escape(self.stream.format(host=self.host, token=token))
        return (
            f"<tr2:Uri>{uri}</tr2:Uri>" if "ver20" in question.tag else f"<trt:MediaUri><tt:Uri>{uri}</tt:Uri></trt:MediaUri>"
        )


def match(*xaddrs: str, relates_to: str = "", scopes: str = "", types: str = "dn:NetworkVideoTransmitter") -> bytes:
    """An answer to a search."""
    inner = (
        "<wsa:EndpointReference><wsa:Address>urn:uuid:1</wsa:Address></wsa:EndpointReference>"
        f"<d:Types>{types}</d:Types><d:Scopes>{scopes}</d:Scopes><d:XAddrs>{' '.join(xaddrs)}</d:XAddrs>"
    )
    header = f"<wsa:RelatesTo>{relates_to}</wsa:RelatesTo>"
    return soap(f"<d:ProbeMatches><d:ProbeMatch>{inner}</d:ProbeMatch></d:ProbeMatches>", header)


def says(body: bytes | str, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    """A reply of these bytes."""

    async def reply(_request: web.Request) -> web.StreamResponse:
        data = body.encode() if isinstance(body, str) else body
        return web.Response(status=status, body=data, headers=headers)

    return reply


async def hangs(_request: web.Request) -> web.StreamResponse:
    """Never answers."""
    await asyncio.Event().wait()
    raise AssertionError


async def floods(request: web.Request) -> web.StreamResponse:
    """Answers for as long as anybody listens."""
    response = web.StreamResponse()
    await response.prepare(request)
    with suppress(ConnectionError):
        while True:
            await response.write(bytes(1 << 16))
    return response


@asynccontextmanager
async def on_air(*cameras: Camera, group: Group | None = None) -> AsyncIterator[None]:
    """Serve the cameras in this loop; with a `group`, they also hear what is said to it on 127.0.0.1."""
    runners: list[web.AppRunner] = []
    ears: list[asyncio.DatagramTransport] = []
    try:
        for camera in cameras:
            app = web.Application()
            app.router.add_post("/onvif/{service}", camera.answer)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
            runners.append(runner)
            await runner.setup()
            site = web.TCPSite(runner, camera.address, camera.port)
            await site.start()
            camera.port = runner.addresses[0][1]
            if group:
                ears.append(await _listen(camera, group))
        yield
    finally:
        for ear in ears:
            ear.close()
        for runner in runners:
            await runner.cleanup()


@contextmanager
def in_a_thread(*cameras: Camera, group: Group | None = None) -> Iterator[None]:
    """The same for a caller without a loop."""
    loop = asyncio.new_event_loop()
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with on_air(*cameras, group=group):
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert ready.wait(10)
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def own_group() -> Group:
    """A group that no other run of tests on this machine uses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("", 0))
        return STANDARD_GROUP[0], free.getsockname()[1]


async def _listen(camera: Camera, group: Group) -> asyncio.DatagramTransport:
    """Hear the group on the loopback; answer from the camera's own address, as a camera does."""
    mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    mouth.bind((camera.address, 0))

    class Ear(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            if reply := camera.probe_match(data):
                mouth.sendto(reply, addr)

        def connection_lost(self, exc: Exception | None) -> None:
            mouth.close()

    ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    ear.bind(group)
    ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group[0]) + socket.inet_aton("127.0.0.1"))
    ear.settimeout(0)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Ear, sock=ear)
    return transport


def _encoder(encoding: str, width: int, height: int, fps: int) -> str:
    resolution = f"<tt:Resolution><tt:Width>{width}</tt:Width><tt:Height>{height}</tt:Height></tt:Resolution>"
    rate = f"<tt:RateControl><tt:FrameRateLimit>{fps}</tt:FrameRateLimit></tt:RateControl>"
    return f"<tt:Encoding>{encoding}</tt:Encoding>{resolution}{rate}"


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()
