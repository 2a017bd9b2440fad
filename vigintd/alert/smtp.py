"""Delivery by SMTP (RFC 5321), one mail to one recipient.

The only place that speaks SMTP. Owns the connection, its TLS and the log-in, and turns every way in which a
server can fail into a sentence that says what to change. What a server says of this one mail is final; what is wrong with
the connection, TLS, the log-in or the sender somebody will put right, and the mail must still go then. Does not compose
and does not retry.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import tzinfo

import aiosmtplib
import structlog

from vigintd import metrics
from vigintd.alert import Channel, mail
from vigintd.clock import Clock
from vigintd.config import MailSettings, is_loopback
from vigintd.errors import MailRefused, MailUnavailable
from vigintd.failpoints import failpoint
from vigintd.model import Alert, Reminder
from vigintd.redact import MASK, redacted

GOODBYE_S = 2.0
"""How long a server may take to say goodbye; the mail is delivered by then."""
SLOWEST_BYTES_S = 16 << 10
"""A line that carries less a second (128 kbit/s) is too slow for an alert with its picture."""
LOGIN_PAUSE_S = 900.0
"""After a refused log-in none is tried for so long, whatever is owed: four an hour lock no account (fail2ban's default is
five failures in ten minutes)."""
LOGINS_AT_ONCE = 2
"""Where log-ins work: on the day the password is changed, no more than these are refused at once."""

log = structlog.get_logger(__name__)


class MailChannel(Channel):
    """Alerts by mail through the one server of `settings`.

    Each stage of a delivery (connecting, TLS, every command) has `settings.timeout_s` seconds, the mail itself longer by its
    size at `SLOWEST_BYTES_S`. With `starttls` nothing but the request for TLS is said before it; credentials are sent over
    TLS, or within this machine. Until a log-in has succeeded, one is tried at a time, then `LOGINS_AT_ONCE`; after a refused
    one, none for `LOGIN_PAUSE_S`. `zone` is where the box stands (None: the machine's own).
    """

    name = "mail"

    def __init__(self, settings: MailSettings, *, clock: Clock, zone: tzinfo | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._zone = zone
        self._tls: ssl.SSLContext | None = None
        self._first_login = asyncio.Lock()
        self._logins = asyncio.Semaphore(LOGINS_AT_ONCE)
        self._login_works = False
        self._login_refusal = ""
        self._no_login_before_s = 0.0
        mail.prepare()

    @property
    def _where(self) -> str:
        return f"the mail server {self._settings.server}:{self._settings.port}"

    async def send(self, alert: Alert) -> None:
        """Deliver `alert`; returns when the server has taken responsibility for it (250 after DATA)."""
        content = mail.compose(alert, sender=self._settings.sender, date=self._clock.now(), zone=self._zone)
        await self._deliver(alert.recipient, content)

    async def remind(self, reminder: Reminder) -> None:
        """Deliver `reminder` as `send` does an alert."""
        content = mail.compose_reminder(reminder, sender=self._settings.sender, date=self._clock.now(), zone=self._zone)
        await self._deliver(reminder.recipient, content)

    async def _deliver(self, to: str, content: bytes) -> None:
        sender, recipient = mail.mailbox(self._settings.sender), mail.mailbox(to)
        failpoint("mail.send.before")
        async with self._session() as smtp:
            failpoint("mail.data.before")
            await smtp.mail(sender)
            await smtp.rcpt(recipient)
            await smtp.data(content, timeout=self._settings.timeout_s + len(content) / SLOWEST_BYTES_S)
            failpoint("mail.data.after")
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
        self._spare_the_account()
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
            raise MailUnavailable(
                f"{self._where} offers no STARTTLS, and nothing was sent in the clear: "
                'write security = "tls" with its TLS port (often 465), or ask who runs it'
            )
        await smtp.starttls()

    async def _log_in(self, smtp: aiosmtplib.SMTP) -> None:
        settings = self._settings
        if settings.username is None or settings.password is None:
            return
        await smtp.ehlo()
        username, password = settings.username, settings.password.get_secret_value()
        log_in = {"plain": smtp.auth_plain, "login": smtp.auth_login, "cram-md5": smtp.auth_crammd5}
        # One way, once: aiosmtplib's own login tries a wrong password in every way there is.
        offered = [method for name, method in log_in.items() if name in smtp.supported_auth_methods]
        if not offered:
            raise MailUnavailable(
                f"{self._where} offers no log-in that vigintd knows: leave mail.username and mail.password out"
            )
        async with AsyncExitStack() as turn:
            async with asyncio.timeout(settings.timeout_s):
                await turn.enter_async_context(self._logins if self._login_works else self._first_login)
            self._spare_the_account()
            try:
                await offered[0](username, password)
            except aiosmtplib.SMTPAuthenticationError as error:
                self._login_works = False
                if error.code >= 500:
                    self._note_refusal(error)
                raise
            self._login_works = True

    def _note_refusal(self, error: aiosmtplib.SMTPAuthenticationError) -> None:
        self._no_login_before_s = self._clock.monotonic_s() + LOGIN_PAUSE_S
        self._login_refusal = str(self._answered(error))
        metrics.count("mail.login_refused")
        log.error("mail.login_refused", error=self._login_refusal, next_try_in_s=LOGIN_PAUSE_S)

    def _spare_the_account(self) -> None:
        """Raise what the last log-in was refused with, as long as another one would come too soon."""
        left_s = self._no_login_before_s - self._clock.monotonic_s()
        if self._login_refusal and left_s > 0:
            raise MailUnavailable(self._login_refusal, retry_after_s=left_s)

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
        """The server said no: 5yz to this mail for good, anything else for now (RFC 5321, section 4.2.1)."""
        words = " ".join("".join(c if c.isprintable() else " " for c in str(error.message)).split())
        # Cut last: half a password is not known for one.
        said = f"({error.code} {self._safe(words)[:200]})"
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
        if not 500 <= error.code <= 599:
            return MailUnavailable(self._safe(text.replace(" refused ", " deferred ", 1)))
        if isinstance(error, aiosmtplib.SMTPAuthenticationError):
            pause = f"; lest the account be locked, no log-in is tried for {LOGIN_PAUSE_S / 60:.0f} minutes"
            return MailUnavailable(self._safe(text) + pause, retry_after_s=LOGIN_PAUSE_S)
        of_this_mail = isinstance(error, aiosmtplib.SMTPRecipientRefused | aiosmtplib.SMTPDataError)
        return MailRefused(self._safe(text)) if of_this_mail else MailUnavailable(self._safe(text))

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
        """`text` without the password, should a server repeat it, or what it was shown of it (RFC 4616; AUTH LOGIN)."""
        password = self._settings.password.get_secret_value() if self._settings.password else ""
        if len(password) > 3:
            for shown in (f"\0{self._settings.username}\0{password}", password):
                text = text.replace(base64.b64encode(shown.encode()).decode(), MASK).replace(shown, MASK)
        return redacted(text)


def _own_name() -> str:
    """What EHLO says (RFC 5321, section 4.1.4): the full name of this machine, without asking DNS for it."""
    name = socket.gethostname()
    return name if "." in name.strip(".") and name.isascii() and name.isprintable() and " " not in name else "[127.0.0.1]"
