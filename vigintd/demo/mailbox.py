"""The mail catcher: a real SMTP server in the same loop that keeps what it is sent in a folder.

Owns the server, the .eml files and the waiting for one of them. It delivers nothing to anybody.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import re
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

from vigintd import metrics

_LINK = re.compile(r"https?://[^\s<>\"']+/video/[0-9a-f-]{36}\?token=[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")


@dataclass(frozen=True, slots=True, eq=False)
class Letter:
    """One message as it came in."""

    path: Path
    """Its .eml file."""
    message: EmailMessage
    sender: str
    """Of the envelope (RFC 5321), as the recipients are."""
    recipients: tuple[str, ...]

    @property
    def text(self) -> str:
        """The plain text part, or nothing."""
        part = self.message.get_body(("plain",))
        return str(part.get_content()) if part is not None else ""

    @property
    def link(self) -> str | None:
        """The private link in its plain text, or None."""
        found = _LINK.search(self.text)
        return found[0] if found else None


class Mailbox:
    """Takes every message for anybody; keeps the newest `limit` as files in `folder` (made where missing).

    Over the limit the oldest goes, with its file, and is counted as `demo.letters_dropped`. `smtp_options` are those of
    aiosmtpd's `SMTP`, such as a TLS context.
    """

    def __init__(self, folder: Path, *, limit: int = 200, **smtp_options: Any) -> None:  # noqa: ANN401 - they are aiosmtpd's
        self._folder = folder
        self._limit = limit
        self._smtp_options = smtp_options
        self._letters: deque[Letter] = deque()
        self._unread: list[Letter] = []
        self._arrival = asyncio.Condition()
        self._count = 0
        self._server: asyncio.Server | None = None
        self._sessions: weakref.WeakSet[SMTP] = weakref.WeakSet()

    @property
    def letters(self) -> Sequence[Letter]:
        """Everything kept, oldest first."""
        return tuple(self._letters)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen, and answer the bound port."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._server = await asyncio.get_running_loop().create_server(self._session, host, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening and cut every connection; the files stay."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        for session in tuple(self._sessions):
            if isinstance(session.transport, asyncio.WriteTransport):
                session.transport.abort()
        await server.wait_closed()

    async def next(self, wanted: Callable[[Letter], bool] = lambda _: True, *, deadline_s: float | None = None) -> Letter:
        """The oldest letter that `wanted` takes and that was not handed out before, as soon as there is one.

        Raises `TimeoutError` when none came in `deadline_s`.
        """
        async with asyncio.timeout(deadline_s), self._arrival:
            while True:
                for letter in self._unread:
                    if wanted(letter):
                        self._unread.remove(letter)
                        return letter
                await self._arrival.wait()

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        """Keep one message, and only then take responsibility for it."""
        assert isinstance(envelope.content, bytes)  # decode_data is not asked for
        try:
            letter = self._keep(envelope.content, envelope.mail_from or "", tuple(envelope.rcpt_tos))
        except OSError as error:
            return f"451 cannot keep it: {error.strerror}"
        async with self._arrival:
            self._letters.append(letter)
            self._unread.append(letter)
            while len(self._letters) > self._limit:
                self._drop(self._letters.popleft())
            self._arrival.notify_all()
        return "250 kept"

    def _session(self) -> SMTP:
        session = SMTP(self, **self._smtp_options)
        self._sessions.add(session)
        return session

    def _keep(self, content: bytes, sender: str, recipients: tuple[str, ...]) -> Letter:
        self._count += 1
        path = self._folder / f"{self._count:04}.eml"
        path.write_bytes(content)
        return Letter(path, email.message_from_bytes(content, policy=email.policy.default), sender, recipients)

    def _drop(self, letter: Letter) -> None:
        if letter in self._unread:
            self._unread.remove(letter)
        letter.path.unlink(missing_ok=True)
        metrics.count("demo.letters_dropped")
