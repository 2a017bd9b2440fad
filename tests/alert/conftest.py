"""Shared by the tests of alerts: one alert with everything in it, and a real mail server with faults as markers.

`@pytest.mark.smtp(...)` says what the server of a test is like: `tls` ("starttls", "implicit" or ""), `login`
(user, password) and a fault: `at` a stage ("connect", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "NOOP",
"QUIT") it gives `answer`, or does ("silent", "cut").
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, AnyStr

import aiosmtpd.smtp
import pytest
import trustme
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session

from vigintd import failpoints
from vigintd.config import MailSettings
from vigintd.model import Alert, AlertKind, Box, Detection, Risk

NOW = datetime(2026, 11, 22, 13, 37, 24, tzinfo=UTC)
INCIDENT = "0b9f6a4e-6c1d-4f0e-9a57-3c1f9d3f7a10"
LINK = f"https://videos.exemple.fr/video/{INCIDENT}?token=Zk3vQ9pR7sT1uW5xY8zA2bC4dE6fG0hJ-kL_mN3oP7q"
PASSWORD = "un mot de passe très secret"
# The smallest thing that calls itself a JPEG; nobody decodes it here.
JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000") + bytes(range(256)) * 40 + bytes.fromhex("ffd9")


def example(**changes: Any) -> Alert:
    detection = Detection(
        camera="entree",
        arrived_s=1.0,
        at=NOW,
        type="vol à l'étalage",
        risk=Risk.HIGH,
        confidence=0.873,
        frame_number=1284,
        boxes=(Box(0.1, 0.1, 0.2, 0.2),),
        text="Une personne prend un article du rayon « Parfums » & le glisse dans son sac.\nElle sort.",
        detector="mouvement",
    )
    alert = Alert(
        kind=AlertKind.LINK,
        incident_id=INCIDENT,
        recipient="gardien@exemple.fr",
        language="fr",
        site="Boutique « Rivoli »",
        camera="entree",
        detection=detection,
        link=LINK,
        expires_at=NOW + timedelta(hours=48),
        expiry_h=48,
        snapshot_jpeg=JPEG,
    )
    of_detection = {
        key: changes.pop(key) for key in list(changes) if key in ("type", "risk", "confidence", "frame_number", "text")
    }
    return replace(alert, detection=replace(detection, **of_detection), **changes)


class Clock:
    def monotonic_s(self) -> float:
        return 0.0

    def now(self) -> datetime:
        return NOW

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("a channel does not wait")


@dataclass
class MailServer:
    """aiosmtpd in the test's own loop."""

    tls: str = "starttls"
    login: tuple[str, str] | None = None
    at: str = ""
    answer: str = ""
    do: str = ""
    fired: int = 0
    delivered: list[Envelope] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    """What was said, with a lock before what was said over TLS."""
    port: int = 0
    ca_file: Path = Path()
    never: asyncio.Event = field(default_factory=asyncio.Event)

    def settings(self, /, **changes: Any) -> MailSettings:
        values: dict[str, Any] = {
            "server": "localhost",
            "port": self.port,
            "security": {"starttls": "starttls", "implicit": "tls", "": "none"}[self.tls],
            "sender": "alerte@exemple.fr",
            "recipients": ["gardien@exemple.fr"],
            "timeout_s": 5,
            "ca_file": self.ca_file,
        }
        if self.login:
            values |= {"username": self.login[0], "password": self.login[1]}
        return MailSettings(**values | changes)

    def authenticate(self, server: Any, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        good = isinstance(data, LoginPassword) and self.login == (data.login.decode(), data.password.decode())
        # aiosmtpd answers only for itself when `handled` is False.
        return AuthResult(success=good, handled=good)


class _Protocol(aiosmtpd.smtp.SMTP):
    """aiosmtpd's protocol, with the server's fault before each command."""

    def __init__(self, server: MailServer, **options: Any) -> None:
        self.faulty = server
        super().__init__(_Handler(server), hostname="mx.exemple.fr", enable_SMTPUTF8=False, **options)

    async def push(self, status: AnyStr) -> None:
        text = str(status)  # aiosmtpd itself only ever pushes text
        if text.startswith("220 ") and "Ready to start TLS" not in text and not await self.passes("connect"):
            return
        await super().push(status)

    def abort(self) -> None:
        # On Python 3.11.2 a TLS transport that is closed already cannot be aborted.
        if isinstance(self.transport, asyncio.Transport) and not self.transport.is_closing():
            self.transport.abort()

    async def passes(self, stage: str) -> bool:
        """True when the command goes on as usual."""
        server = self.faulty
        if server.at != stage:
            return True
        server.fired += 1
        if server.do == "silent":
            await server.never.wait()
        if server.do in ("cut", "silent"):
            self.abort()
            return False
        await super().push(server.answer)
        return False

    async def call_or_refuse(self, stage: str, arg: str) -> None:
        lock = "🔒" if self.session and self.session.ssl else ""
        self.faulty.commands.append(f"{lock}{stage}")
        if await self.passes(stage):
            await getattr(super(), f"smtp_{stage}")(arg)


def _faulty(stage: str) -> Callable[[_Protocol, str], Awaitable[None]]:
    async def command(protocol: _Protocol, arg: str) -> None:
        await protocol.call_or_refuse(stage, arg)

    return command


for _stage in ("STARTTLS", "AUTH", "MAIL", "RCPT", "NOOP", "QUIT"):
    # aiosmtpd finds its commands by such names.
    setattr(_Protocol, f"smtp_{_stage}", _faulty(_stage))


@dataclass
class _Handler:
    server: MailServer

    async def handle_DATA(self, protocol: _Protocol, session: Session, envelope: Envelope) -> str:  # noqa: N802  (aiosmtpd's name)
        if self.server.at == "DATA" and not self.server.do:
            self.server.fired += 1
            return self.server.answer
        if not await protocol.passes("DATA"):
            return "451 cut"
        self.server.delivered.append(envelope)
        return "250 taken"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "smtp(tls, login, at, answer, do): what the mail server of the test is like")


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def server(request: pytest.FixtureRequest, authority: trustme.CA, tmp_path: Path) -> AsyncIterator[MailServer]:
    marker = request.node.get_closest_marker("smtp")
    server = MailServer(**(marker.kwargs if marker else {}))
    server.ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(server.ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    options: dict[str, Any] = {"auth_require_tls": server.tls == "starttls"}
    if server.tls == "starttls":
        options |= {"tls_context": context, "require_starttls": True}
    if server.login:
        options["authenticator"] = server.authenticate
    else:
        options["auth_exclude_mechanism"] = ["LOGIN", "PLAIN"]
    protocols: list[_Protocol] = []

    def protocol() -> _Protocol:
        protocols.append(_Protocol(server, loop=asyncio.get_running_loop(), **options))
        return protocols[-1]

    listener = await asyncio.get_running_loop().create_server(
        protocol, "127.0.0.1", 0, ssl=context if server.tls == "implicit" else None
    )
    server.port = listener.sockets[0].getsockname()[1]
    yield server
    listener.close()
    for one in protocols:
        one.abort()
    server.never.set()
    await listener.wait_closed()


@pytest.fixture(autouse=True)
def no_failpoint_stays_armed() -> Iterator[None]:
    yield
    failpoints.disarm()
