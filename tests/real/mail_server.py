"""A real mail server whose faults are data, for what the network alone cannot do to a mail.

Owns the server: aiosmtpd with TLS and a log-in where they are asked for, and its one fault.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, AnyStr

import aiosmtpd.smtp
import trustme
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session

from vigintd.config import MailSettings


@dataclass
class MailServer:
    """aiosmtpd in the test's own loop: what it is like, its fault, and what came of it.

    At a stage (`connect`, `EHLO`, `STARTTLS`, `AUTH`, `MAIL`, `RCPT`, `DATA`, `NOOP`, `QUIT`) it gives `answer`, or does
    (`silent`, `cut`), for `times` times.
    """

    tls: str = "starttls"
    """`starttls`, `implicit`, or nothing."""
    login: tuple[str, str] | None = None
    """User and password."""
    at: str = ""
    answer: str = ""
    do: str = ""
    times: int = 1_000_000
    refused: str = ""
    """A recipient whom it does not know."""
    fired: int = 0
    logins: int = 0
    """How often somebody tried, rightly or wrongly."""
    delivered: list[Envelope] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    """What was said but EHLO, with a lock before what was said over TLS."""
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
        self.logins += 1
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
        if server.at != stage or server.fired >= server.times:
            return True
        server.fired += 1
        if server.do == "silent":
            await server.never.wait()
        if server.do in ("cut", "silent"):
            self.abort()
            return False
        await super().push(server.answer.encode())  # aiosmtpd itself writes nothing but ASCII
        return False

    async def call_or_refuse(self, stage: str, arg: str) -> None:
        lock = "🔒" if self.session and self.session.ssl else ""
        if stage != "EHLO":
            self.faulty.commands.append(f"{lock}{stage}")
        if stage == "RCPT" and self.faulty.refused and self.faulty.refused in arg:
            self.faulty.fired += 1
            await super().push("550 5.1.1 no such user")
        elif await self.passes(stage):
            await getattr(super(), f"smtp_{stage}")(arg)


def _faulty(stage: str) -> Callable[[_Protocol, str], Awaitable[None]]:
    async def command(protocol: _Protocol, arg: str) -> None:
        await protocol.call_or_refuse(stage, arg)

    return command


for _stage in ("EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "NOOP", "QUIT"):
    # aiosmtpd finds its commands by such names.
    setattr(_Protocol, f"smtp_{_stage}", _faulty(_stage))


@dataclass
class _Handler:
    server: MailServer

    async def handle_DATA(self, protocol: _Protocol, session: Session, envelope: Envelope) -> str:  # noqa: N802  (aiosmtpd's name)
        if self.server.at == "DATA" and not self.server.do and self.server.fired < self.server.times:
            self.server.fired += 1
            return self.server.answer
        if not await protocol.passes("DATA"):
            return "451 cut"
        self.server.delivered.append(envelope)
        return "250 taken"


@asynccontextmanager
async def serving(server: MailServer, authority: trustme.CA, folder: Path) -> AsyncIterator[MailServer]:
    """The server on a port of this machine, with a certificate of `authority` for localhost."""
    server.ca_file = folder / "ca.pem"
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
    try:
        yield server
    finally:
        listener.close()
        for one in protocols:
            one.abort()
        server.never.set()
        await listener.wait_closed()
