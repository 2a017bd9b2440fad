"""Delivery by SMTP (RFC 5321), one mail to one recipient.

The only place that speaks SMTP. Owns the connection, its TLS and the log-in, and turns every way in which a
server can fail into a sentence that says what to change. Does not compose and does not retry.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import tzinfo

import aiosmtplib

from vigintd.alert import Channel, mail
from vigintd.clock import Clock
from vigintd.config import MailSettings, is_loopback
from vigintd.errors import MailRefused, MailUnavailable
from vigintd.failpoints import failpoint
from vigintd.model import Alert
from vigintd.redact import MASK, redacted

GOODBYE_S = 2.0
"""How long a server may take to say goodbye; the mail is delivered by then."""


class MailChannel(Channel):
    """Alerts by mail through the one server of `settings`.

    Each stage of a delivery (connecting, TLS, every command) has `settings.timeout_s` seconds. With `starttls`
    nothing but the request for TLS is said before it; credentials are sent over TLS, or within this machine.
    `zone` is where the box stands (None: the machine's own).
    """

    name = "mail"

    def __init__(self, settings: MailSettings, *, clock: Clock, zone: tzinfo | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._zone = zone
        self._tls: ssl.SSLContext | None = None
        mail.prepare()

    @property
    def _where(self) -> str:
        return f"the mail server {self._settings.server}:{self._settings.port}"

    async def send(self, alert: Alert) -> None:
        """Deliver `alert`; returns when the server has taken responsibility for it (250 after DATA)."""
        sender, recipient = mail.mailbox(self._settings.sender), mail.mailbox(alert.recipient)
        content = mail.compose(alert, sender=self._settings.sender, date=self._clock.now(), zone=self._zone)
        failpoint("mail.send.before")
        async with self._session() as smtp:
            await smtp.sendmail(sender, [recipient], content)
        failpoint("mail.send.after")

    async def probe(self) -> str:
        """Everything up to the point where a mail would go."""
        async with self._session() as smtp:
            await smtp.noop()
            tls = smtp.get_transport_info("ssl_object")
            greeting = smtp.last_ehlo_response.message if smtp.last_ehlo_response else ""
        name = greeting.split()[0] if greeting.split() else self._settings.server
        name = "".join(c for c in name if c.isprintable())[:100]
        secured = f"{tls.version()}" if tls else "no TLS, within this machine"
        login = f", logged in as {self._settings.username}" if self._settings.username else ", without logging in"
        return redacted(f"{name} at {self._settings.server}:{self._settings.port}: {secured}{login}")

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[aiosmtplib.SMTP]:
        """A connection that is ready for a mail; whatever goes wrong while it lives comes out as ours."""
        settings = self._settings
        if settings.security == "none" and not is_loopback(settings.server):
            raise MailRefused(f'{self._where} would get everything in the clear: write security = "starttls" or "tls"')
        smtp = aiosmtplib.SMTP(
            hostname=settings.server,
            port=settings.port,
            timeout=settings.timeout_s,
            local_hostname=_own_name(),
            use_tls=settings.security == "tls",
            # Done by hand below, where a server without it is told apart from one that breaks off.
            start_tls=False,
            tls_context=await self._tls_context() if settings.security != "none" else None,
        )
        try:
            await smtp.connect()
            await self._secure(smtp)
            await self._log_in(smtp)
            yield smtp
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                await smtp.quit(timeout=min(GOODBYE_S, settings.timeout_s))
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise self._answered(error.recipients[0]) from None
        except aiosmtplib.SMTPResponseException as error:
            raise self._answered(error) from None
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise self._unanswered(error) from None
        finally:
            smtp.close()

    async def _secure(self, smtp: aiosmtplib.SMTP) -> None:
        if self._settings.security != "starttls":
            return
        await smtp.ehlo()
        if not smtp.supports_extension("starttls"):
            raise MailRefused(
                f"{self._where} offers no STARTTLS, and nothing was sent in the clear: "
                'write security = "tls" with its TLS port (often 465), or ask who runs it'
            )
        await smtp.starttls()

    async def _log_in(self, smtp: aiosmtplib.SMTP) -> None:
        settings = self._settings
        if settings.username is None or settings.password is None:
            return
        await smtp.ehlo()
        if not smtp.supported_auth_methods:
            raise MailRefused(f"{self._where} offers no log-in that vigintd knows: leave mail.username and mail.password out")
        await smtp.login(settings.username, settings.password.get_secret_value())

    async def _tls_context(self) -> ssl.SSLContext:
        """The context, read in a thread since loading authorities takes 100 ms; forgotten when it did not help."""
        if self._tls is None:
            cafile = self._settings.ca_file
            try:
                self._tls = await asyncio.to_thread(ssl.create_default_context, cafile=str(cafile) if cafile else None)
            except OSError as error:
                raise MailUnavailable(f"mail.ca_file {cafile} is no readable PEM file: {error.strerror or error}") from None
        return self._tls

    def _answered(self, error: aiosmtplib.SMTPResponseException) -> MailRefused | MailUnavailable:
        """The server said no: 5yz for good, anything else for now (RFC 5321, section 4.2.1)."""
        words = " ".join("".join(c if c.isprintable() else " " for c in str(error.message)).split())
        said = f"({error.code} {words[:200]})"
        match error:
            case aiosmtplib.SMTPAuthenticationError():
                text = (
                    f"{self._where} refused the user name or password {said}: check mail.username and the credential "
                    "mail__password; large providers want an app password here"
                )
            case aiosmtplib.SMTPRecipientRefused():
                text = f"{self._where} refused the recipient {error.recipient} {said}: check mail.recipients"
            case aiosmtplib.SMTPSenderRefused():
                text = f"{self._where} refused the sender {error.sender} {said}: use the account's own address as mail.sender"
            case aiosmtplib.SMTPDataError():
                text = f"{self._where} refused the message {said}"
            case _:
                text = f"{self._where} refused to talk {said}"
        if 500 <= error.code <= 599:
            return MailRefused(self._safe(text))
        return MailUnavailable(self._safe(text.replace(" refused ", " deferred ", 1)))

    def _unanswered(self, error: Exception) -> MailUnavailable:
        """The server did not get to say anything."""
        cause = error.__cause__ if isinstance(error, aiosmtplib.SMTPConnectError) and error.__cause__ else error
        if isinstance(cause, ssl.SSLError):
            self._tls = None
        match cause:
            case ssl.SSLCertVerificationError():
                text = (
                    f"has a certificate that could not be verified ({cause.verify_message}): name the authority's file in "
                    "mail.ca_file, and write mail.server as the certificate does"
                )
            case ssl.SSLError() if self._settings.security == "tls":
                text = f'did not begin with TLS ({cause.reason}): for port 587 or 25 write security = "starttls"'
            case ssl.SSLError():
                text = f"broke off while setting up TLS ({cause.reason})"
            case TimeoutError():
                text = f"did not answer within {self._settings.timeout_s:g} s: check mail.server, mail.port and mail.security"
            case aiosmtplib.SMTPServerDisconnected() | ConnectionResetError() | BrokenPipeError():
                text = "broke the connection off"
            case socket.gaierror():
                text = f"could not be found ({cause.strerror}): check mail.server and this machine's DNS"
            case OSError():
                text = f"could not be reached ({cause.strerror or cause}): check mail.server and mail.port"
            case _:
                text = f"could not be spoken to ({cause})"
        return MailUnavailable(self._safe(f"{self._where} {text}"))

    def _safe(self, text: str) -> str:
        """`text` without the password, should a server repeat it."""
        password = self._settings.password.get_secret_value() if self._settings.password else ""
        return redacted(text.replace(password, MASK) if len(password) > 3 else text)


def _own_name() -> str:
    """What EHLO says (RFC 5321, section 4.1.4): the full name of this machine, without asking DNS for it."""
    name = socket.gethostname()
    return name if "." in name.strip(".") and name.isascii() and name.isprintable() and " " not in name else "[127.0.0.1]"
