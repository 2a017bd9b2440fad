"""Delivery to a real mail server: security, faults, and what a user is told."""

from __future__ import annotations

import asyncio
import base64
import email
import email.policy
import socket
import time

import pytest
import trustme

from tests.alert.conftest import NOW, PASSWORD, Clock, example
from tests.real.mail_server import MailServer
from vigintd import failpoints
from vigintd.alert.smtp import MailChannel
from vigintd.config import MailSettings
from vigintd.errors import MailRefused, MailUnavailable
from vigintd.failpoints import FailpointError
from vigintd.model import MissingVideo, Reminder

smtp = pytest.mark.smtp


def channel(server: MailServer, /, **changes) -> MailChannel:
    return MailChannel(server.settings(**changes), clock=Clock())


async def fails(server: MailServer, kind: type[Exception], /, **changes) -> str:
    """The sentence with which a delivery fails; nothing may have been delivered."""
    with pytest.raises(kind) as failed:
        await channel(server, **changes).send(example())
    assert server.delivered == []
    assert failed.value.__cause__ is None
    assert PASSWORD not in str(failed.value)
    return str(failed.value)


@pytest.mark.parametrize(
    "tls", [pytest.param(tls, marks=smtp(tls=tls, login=("alerte", PASSWORD))) for tls in ("starttls", "implicit", "")]
)
async def test_an_alert_is_delivered_once_to_its_one_recipient(server: MailServer, tls: str):
    """Over STARTTLS, implicit TLS or within this machine, with a log-in: one envelope, one mail."""
    await channel(server).send(example())
    (envelope,) = server.delivered
    assert envelope.rcpt_tos == ["gardien@exemple.fr"]
    assert envelope.mail_from == "alerte@exemple.fr"
    content = envelope.content
    assert isinstance(content, bytes)
    mail = email.message_from_bytes(content, policy=email.policy.default)
    assert mail["To"] == "gardien@exemple.fr"
    assert mail["Subject"] == "🚨 Alerte Vigint - vol à l'étalage - SECURITY"


async def test_a_reminder_goes_the_way_of_an_alert(server: MailServer):
    video = MissingVideo("entree", NOW, "motion", None, NOW)
    await channel(server).remind(Reminder("gardien@exemple.fr", "fr", "Boutique Rivoli", "today", (video,), 0, is_last=False))
    (envelope,) = server.delivered
    assert (envelope.rcpt_tos, envelope.mail_from) == (["gardien@exemple.fr"], "alerte@exemple.fr")


@smtp(login=("alerte", PASSWORD))
async def test_nothing_but_the_request_for_tls_is_said_in_the_clear(server: MailServer):
    """Log-in, envelope and mail come after STARTTLS."""
    await channel(server).send(example())
    assert server.commands[0] == "STARTTLS"
    assert all(command.startswith("🔒") for command in server.commands[1:])
    assert "🔒AUTH" in server.commands


@smtp(tls="", login=("alerte", PASSWORD))
async def test_a_server_without_starttls_gets_nothing(server: MailServer):
    """STARTTLS is never opportunistic: without it neither password nor mail is sent. Somebody may put it right."""
    text = await fails(server, MailUnavailable, security="starttls")
    assert "offers no STARTTLS" in text
    assert 'security = "tls"' in text
    assert [command for command in server.commands if command != "QUIT"] == []


@smtp(at="STARTTLS", answer="454 TLS not available")
async def test_starttls_refused_for_now_is_tried_later(server: MailServer):
    """An offered but failing STARTTLS falls back to nothing."""
    await fails(server, MailUnavailable)
    assert server.fired == 1
    assert server.commands == ["STARTTLS"]


async def test_a_certificate_of_a_stranger_is_not_taken(server: MailServer):
    """Without the authority's file the certificate is not believed, and the sentence names the key to set."""
    assert "mail.ca_file" in await fails(server, MailUnavailable, ca_file=None)


async def test_a_certificate_for_another_name_is_not_taken(server: MailServer):
    """A good certificate of another server is not believed either."""
    text = await fails(server, MailUnavailable, server="127.0.0.1")
    assert "certificate" in text


async def test_an_authority_that_cannot_be_read_is_said(server: MailServer, tmp_path):
    """A missing or broken PEM file is named."""
    broken = tmp_path / "broken.pem"
    broken.write_text("this is no certificate")
    for path in (tmp_path / "missing.pem", broken):
        assert str(path) in await fails(server, MailUnavailable, ca_file=path)


@smtp(login=("alerte", PASSWORD))
async def test_a_repaired_authority_is_read_again(server: MailServer, tmp_path):
    """A wrong authority's file may be replaced while the daemon runs."""
    path = tmp_path / "own.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    mails = channel(server, ca_file=path)
    with pytest.raises(MailUnavailable):
        await mails.send(example())
    path.write_bytes(server.ca_file.read_bytes())
    await mails.send(example())
    assert len(server.delivered) == 1


STAGES = ("connect", "EHLO", "AUTH", "MAIL", "RCPT", "DATA")
LOGIN = ("alerte", PASSWORD)
SHOWN = [base64.b64encode(shown.encode()).decode() for shown in (f"\0alerte\0{PASSWORD}", PASSWORD)]


def non_merci(*stages: str) -> list[object]:
    return [pytest.param(at, marks=smtp(at=at, answer="550 5.7.1 non merci", login=LOGIN)) for at in stages]


@pytest.mark.parametrize("at", non_merci("RCPT", "DATA"))
async def test_5yz_to_this_mail_is_final(server: MailServer, at: str):
    """A permanent answer is permanent, and its words are passed on."""
    assert "(550 5.7.1 non merci)" in await fails(server, MailRefused)
    assert server.fired


@pytest.mark.parametrize("at", non_merci("connect", "EHLO", "STARTTLS", "AUTH", "MAIL"))
async def test_5yz_to_every_mail_may_be_put_right(server: MailServer, at: str):
    """The log-in, the sender, this machine's address: whoever mends it wants the alerts that waited."""
    text = await fails(server, MailUnavailable)
    assert "refused" in text
    assert "(550 5.7.1 non merci)" in text
    assert server.fired


@pytest.mark.parametrize(
    "at", [pytest.param(at, marks=smtp(at=at, answer="451 4.3.0 plus tard", login=LOGIN)) for at in STAGES]
)
async def test_4yz_is_tried_again_at_every_stage(server: MailServer, at: str):
    """A temporary answer is temporary."""
    text = await fails(server, MailUnavailable)
    assert "deferred" in text
    assert "(451 4.3.0 plus tard)" in text
    assert server.fired


@pytest.mark.parametrize("at", [pytest.param(at, marks=smtp(at=at, do="cut", login=LOGIN)) for at in (*STAGES, "STARTTLS")])
async def test_a_broken_connection_is_tried_again_at_every_stage(server: MailServer, at: str):
    """A server that goes away in the middle has not taken the mail."""
    assert "the mail server localhost:" in await fails(server, MailUnavailable)
    assert server.fired


@pytest.mark.parametrize("at", [pytest.param(at, marks=smtp(at=at, do="silent", login=LOGIN)) for at in (*STAGES, "STARTTLS")])
async def test_a_silent_server_costs_one_deadline_at_every_stage(server: MailServer, at: str):
    """No stage waits longer than `timeout_s`."""
    for _ in range(10):  # on a busy machine an earlier stage may be too slow
        began = time.monotonic()
        assert "did not answer within 0.2 s" in await fails(server, MailUnavailable, timeout_s=0.2)
        assert time.monotonic() - began < 2
        if server.fired:
            break
    assert server.fired


@smtp(login=("alerte", "another password"))
async def test_a_wrong_password_says_what_to_check(server: MailServer):
    """535 names the keys to look at, and not the password."""
    text = await fails(server, MailUnavailable, password=PASSWORD)
    assert "535" in text
    assert "mail__password" in text


@smtp(at="RCPT", answer=f"550 {PASSWORD}", login=LOGIN)
async def test_a_server_that_repeats_the_password_is_not_quoted(server: MailServer):
    """Whatever the server says, the password stays out of errors."""
    await fails(server, MailRefused)
    assert server.fired


@smtp(at="RCPT", answer=f"550 {'x' * 195}{PASSWORD}", login=LOGIN)
async def test_a_long_answer_is_not_cut_within_the_password(server: MailServer):
    """What is left of it would be a secret that no longer looks like one."""
    assert PASSWORD[:4] not in await fails(server, MailRefused)
    assert server.fired


@pytest.mark.parametrize(
    "shown", [pytest.param(i, marks=smtp(at="AUTH", answer=f"500 what is {s}?", login=LOGIN)) for i, s in enumerate(SHOWN)]
)
async def test_a_server_that_repeats_what_a_log_in_looks_like_is_not_quoted(server: MailServer, shown: int):
    """AUTH PLAIN and AUTH LOGIN send the password in Base64, which anybody can read."""
    assert SHOWN[shown] not in await fails(server, MailUnavailable)
    assert server.fired


@smtp(login=LOGIN)
async def test_a_password_that_is_changed_amid_many_mails_locks_no_account(server: MailServer):
    """Log-ins that worked until now are refused: no more than two of them, however many mails go at once."""
    mails = channel(server)
    await mails.send(example())
    server.login = ("alerte", "a new one")
    refused = await asyncio.gather(*(mails.send(example()) for _ in range(6)), return_exceptions=True)
    assert [type(error) for error in refused] == [MailUnavailable] * 6
    assert 1 < server.logins <= 1 + 2


async def test_a_log_in_where_none_is_offered_says_so(server: MailServer):
    """Credentials for a server that wants none are a mistake in the settings."""
    assert "leave mail.username" in await fails(server, MailUnavailable, username="alerte", password=PASSWORD)


@smtp(at="QUIT", do="silent")
async def test_a_mail_is_delivered_even_if_the_server_says_no_goodbye(server: MailServer):
    """After the 250 nothing can make a delivery fail, and little can delay it."""
    await channel(server, timeout_s=0.2).send(example())
    assert len(server.delivered) == 1
    assert server.fired


@smtp(tls="implicit")
async def test_starttls_asked_of_a_tls_port_says_what_to_write(server: MailServer):
    """A port that expects TLS at once stays silent; the sentence names the key."""
    assert "mail.security" in await fails(server, MailUnavailable, security="starttls", timeout_s=0.2)


async def test_tls_asked_of_a_starttls_port_says_what_to_write(server: MailServer):
    """A port that speaks plainly first is told apart."""
    assert 'security = "starttls"' in await fails(server, MailUnavailable, security="tls")


async def test_nobody_there_says_what_to_check(server: MailServer, unused_port: int):
    """A closed port and an unknown name are unavailable."""
    assert "mail.port" in await fails(server, MailUnavailable, port=unused_port)
    assert "could not be found" in await fails(server, MailUnavailable, server="nobody.invalid")


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def test_an_address_that_no_mail_can_hold_is_refused_before_connecting(server: MailServer):
    """Quotes and line ends in an address reach neither header nor envelope."""
    for recipient in ("a b@exemple.fr", "x\r\nBcc: y@exemple.fr", '"a"@exemple.fr', "é@exemple.fr", "a@b(c)", "@", ""):
        with pytest.raises(MailRefused, match="cannot be written into a mail"):
            await channel(server).send(example(recipient=recipient))
    assert server.commands == []


async def test_a_domain_with_accents_is_written_in_ascii(server: MailServer):
    """An internationalised domain is delivered to by its ASCII form."""
    await channel(server).send(example(recipient="gardien@sécurité.example"))
    assert server.delivered[0].rcpt_tos == ["gardien@xn--scurit-bvaf.example"]


@pytest.mark.parametrize(("point", "delivered"), [("mail.send.before", 0), ("mail.send.after", 1)])
async def test_a_mail_sent_twice_is_the_same_mail(server: MailServer, point: str, delivered: int):
    """Whatever dies around a delivery, the repetition bears the same Message-ID."""
    failpoints.arm(point, "error")
    mails = channel(server)
    with pytest.raises(FailpointError):
        await mails.send(example())
    assert len(server.delivered) == delivered
    await mails.send(example())
    assert failpoints.fired[point] == 1
    contents = {envelope.content for envelope in server.delivered}
    assert len(contents) == 1


@smtp(login=LOGIN)
async def test_the_probe_says_server_tls_and_log_in(server: MailServer):
    """`vigintd check` shows who answered and how safely, and sends nothing."""
    line = await channel(server).probe()
    assert line.startswith("mx.exemple.fr at localhost:")
    assert "TLSv1." in line
    assert "logged in as alerte" in line
    assert PASSWORD not in line
    assert server.delivered == []
    assert "🔒NOOP" in server.commands


@smtp(tls="")
async def test_the_probe_says_when_there_is_no_tls(server: MailServer):
    """Within this machine, plain and without a log-in is fine, and said."""
    assert "no TLS, within this machine, without logging in" in await channel(server).probe()


@smtp(at="NOOP", answer="421 4.3.2 shutting down")
async def test_the_probe_raises_as_a_delivery_does(server: MailServer):
    """What would keep a mail from going makes the probe fail."""
    with pytest.raises(MailUnavailable):
        await channel(server).probe()
    assert server.fired


async def test_credentials_never_travel_in_the_clear_to_another_machine(server: MailServer):
    """Should settings ever allow it, the channel does not."""
    settings = server.settings().model_copy(update={"security": "none", "server": "mail.exemple.fr", "username": None})
    assert isinstance(settings, MailSettings)
    mails = MailChannel(settings, clock=Clock())
    with pytest.raises(MailRefused, match="in the clear"):
        await mails.send(example())
