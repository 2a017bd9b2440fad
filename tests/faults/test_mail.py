"""What the line to the mail server, or the server, may do to an alert: docs/design/faults.md, with a real server behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import trustme

from tests.faults.post import PEOPLE, post
from tests.real.fault_proxy import Fault, Spot
from tests.real.mail_server import MailServer
from tests.real.network_faults import Answer, Corrupt, HalfClose, Latency, Rate, Reset, Stall
from vigintd import metrics
from vigintd.alert.smtp import LOGIN_PAUSE_S
from vigintd.incident.courier import BACKOFF
from vigintd.journal import EffectState

LOGIN = ("alerte", "un mot de passe")
IMPATIENT_S = 0.4
ACCEPTED = Spot("down", (b"354 ", b"\r\n"))
"""The server's answer to the final dot: by then the mail is its own."""
CONTENT = Spot("up", (b"DATA\r\n",), 2000)
"""Amid the mail."""
SILENT = f"did not answer within {IMPATIENT_S} s"
STRIPPED = bytes(a ^ b for a, b in zip(b"LS", b"XX", strict=True))
"""Makes STARTTLS the name of nothing, as some firewalls do."""


@dataclass(frozen=True)
class Passing:
    """What breaks a delivery off once, and lets the next one be."""

    fault: Callable[[], Fault] | None = None
    """On the line; the server is plain there, so that it can be placed."""
    server: dict[str, Any] = field(default_factory=dict)
    """What is wrong with the server, which speaks TLS."""
    reason: str = ""
    """What is said in the log; nothing where the mail gets through."""
    copies: int = 1
    timeout_s: float = 5.0


def plain(fault: Callable[[], Fault], reason: str = "", **other: Any) -> Passing:
    return Passing(fault, {"tls": ""}, reason, **other)


def scripted(reason: str, **server: Any) -> Passing:
    return Passing(None, {"times": 1, "login": LOGIN, **server}, reason, timeout_s=IMPATIENT_S if "do" in server else 5.0)


PASSING = {
    "mail-latency": plain(lambda: Latency("up", 0.01)),
    "mail-slow": plain(lambda: Rate("up", 12_000, 500), timeout_s=0.6),
    "mail-stall": plain(lambda: Stall(CONTENT), "did not answer within", timeout_s=IMPATIENT_S),
    "mail-cut-connect": plain(lambda: Reset(Spot("down")), "broke the connection off"),
    "mail-cut-middle": plain(lambda: Reset(CONTENT), "broke the connection off"),
    "mail-cut-after-dot": plain(lambda: Reset(ACCEPTED), "broke the connection off", copies=2),
    "mail-half-close": plain(lambda: HalfClose(CONTENT), "broke the connection off"),
    "mail-corrupt": Passing(lambda: Corrupt(Spot("up", (b"STARTTLS\r\n",), 4000)), {}, "the mail server localhost:"),
    "mail-421-intercepted": plain(lambda: Answer(Spot("up", (b"EHLO",)), b"421 4.3.2 not now\r\n"), "(421 4.3.2 not now)"),
    "mail-silent-connect": scripted(SILENT, at="connect", do="silent"),
    "mail-silent-ehlo": scripted(SILENT, at="EHLO", do="silent"),
    "mail-silent-login": scripted(SILENT, at="AUTH", do="silent"),
    "mail-silent-after-dot": scripted(SILENT, at="DATA", do="silent"),
    "mail-421": scripted("(421 4.3.2 shutting down)", at="connect", answer="421 4.3.2 shutting down"),
    "mail-451-recipient": scripted("(451 4.7.1 greylisted)", at="RCPT", answer="451 4.7.1 greylisted"),
    "mail-451-content": scripted("(451 4.3.0 local error)", at="DATA", answer="451 4.3.0 local error"),
    "mail-454-login": scripted("(454 4.7.0 not now)", at="AUTH", answer="454 4.7.0 not now"),
    "mail-554-connect": scripted("(554 5.7.1 listed)", at="connect", answer="554 5.7.1 listed"),
    "mail-550-sender": scripted("(550 5.7.1 not your address)", at="MAIL", answer="550 5.7.1 not your address"),
}


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


def states(mails: Sequence[Any]) -> list[EffectState]:
    return [mail.state for mail in mails]


@pytest.mark.fault(*PASSING)
@pytest.mark.parametrize("case", PASSING.values(), ids=PASSING)
async def test_what_passes_costs_an_alert_seconds(tmp_path, authority, case: Passing):
    """It is tried again after five seconds at most, and arrives; twice only where the server had it already."""
    async with post(tmp_path, authority, MailServer(**case.server), timeout_s=case.timeout_s) as it:
        fault = it.proxy.strike(case.fault()) if case.fault else None
        await it.open()
        began_s = it.clock.monotonic_s()
        await it.run()
        assert (fault.fired if fault else it.server.fired) > 0
        assert states(await it.mails()) == [EffectState.DONE]
        assert [recipient for recipient, _ in it.delivered] == [PEOPLE[0]] * case.copies
        assert len({message_id for _, message_id in it.delivered}) == 1
        postponed = it.logged("mail.postponed")
        # Of a client that is that impatient a busy machine may make more than the fault does.
        assert len(postponed) in (range(1, 4) if case.timeout_s == IMPATIENT_S else [1 if case.reason else 0])
        assert it.clock.monotonic_s() - began_s < BACKOFF.first_s * (2 ** len(postponed) - 1) + 2
        assert all(case.reason in line["error"] for line in postponed), postponed


@pytest.mark.fault("mail-refused-hour")
async def test_after_an_hour_without_the_mail_server_the_alert_goes_within_a_quarter_of_one(tmp_path, authority):
    """Nobody listens, which is said each time; less and less often asked, the server is found when it is back."""
    async with post(tmp_path, authority, MailServer()) as it:
        await it.proxy.down()
        await it.open()
        await it.pass_seconds(3600, step_s=15)
        said = it.logged("mail.postponed")
        assert 5 < len(said) < 20
        assert all("could not be reached" in line["error"] for line in said)
        await it.proxy.up()
        ended_s = it.clock.monotonic_s()
        await it.run(step_s=15)
        assert it.clock.monotonic_s() - ended_s <= BACKOFF.cap_s + 30
        assert [recipient for recipient, _ in it.delivered] == [PEOPLE[0]]


@pytest.mark.fault("mail-550-one-of-three")
async def test_a_recipient_whom_the_server_does_not_know_costs_the_others_nothing(tmp_path, authority):
    """Two have their mail; the third is given up, and listed with the server's words."""
    async with post(tmp_path, authority, MailServer(refused=PEOPLE[1])) as it:
        await it.open(PEOPLE)
        await it.run()
        assert it.server.fired == 1
        assert sorted(recipient for recipient, _ in it.delivered) == [PEOPLE[0], PEOPLE[2]]
        (dead,) = [mail for mail in await it.mails() if mail.state is EffectState.DEAD]
        assert dead.what == PEOPLE[1]
        assert "550 5.1.1 no such user" in dead.last_error
        (owing,) = await it.journal.incidents(owing=True)
        assert owing.incident.id == dead.incident_id
        assert [line["recipient"] for line in it.logged("mail.given_up")] == [PEOPLE[1]]


@pytest.mark.fault("mail-535")
async def test_a_wrong_password_loses_no_alert_and_locks_no_account(tmp_path, authority):
    """However many mails wait, one log-in a quarter of an hour; once it works, every one of them goes."""
    wrong = {"username": LOGIN[0], "password": "an old one"}
    async with post(tmp_path, authority, MailServer(login=LOGIN), **wrong) as it:
        for _ in range(3):
            await it.open(PEOPLE)
        await it.pass_time(lambda mails: all(mail.attempts for mail in mails))
        assert it.server.logins == 1
        await it.pass_seconds(3600, step_s=15)
        # One may be on the line at this very moment.
        await it.pass_time(lambda _mails: len(it.logged("mail.login_refused")) == it.server.logins)
        assert 1 < it.server.logins <= 1 + 3600 / LOGIN_PAUSE_S
        assert set(states(await it.mails())) == {EffectState.OWED}
        first = it.logged("mail.login_refused")[0]
        assert first["log_level"] == "error"
        assert "check mail.username and the credential mail__password" in first["error"]
        assert "15 minutes" in first["error"]
        assert metrics.snapshot()["mail.login_refused"] == {"": it.server.logins}
        it.server.login = (LOGIN[0], "an old one")
        mended_s = it.clock.monotonic_s()
        await it.run(step_s=15)
        assert it.clock.monotonic_s() - mended_s <= LOGIN_PAUSE_S + 30
        assert sorted(recipient for recipient, _ in it.delivered) == sorted(PEOPLE * 3)
        assert len({message_id for _, message_id in it.delivered}) == 9


@pytest.mark.fault("mail-starttls-stripped")
async def test_a_line_that_hides_starttls_gets_neither_password_nor_mail(tmp_path, authority):
    """Nothing goes in the clear; when the line is honest again, the mail goes, over TLS."""
    async with post(tmp_path, authority, MailServer(login=LOGIN)) as it:
        stripping = it.proxy.strike(Corrupt(Spot("down", (b"STARTT",)), mask=STRIPPED, times=3))
        await it.open()
        await it.run()
        assert stripping.fired == 3
        assert [command for command in it.server.commands if not command.startswith("🔒")] == ["STARTTLS"]
        assert "🔒AUTH" in it.server.commands
        said = it.logged("mail.postponed")
        assert len(said) == 3
        assert all("offers no STARTTLS, and nothing was sent in the clear" in line["error"] for line in said)
        assert [recipient for recipient, _ in it.delivered] == [PEOPLE[0]]


@pytest.mark.fault("mail-certificate")
async def test_a_certificate_of_a_stranger_gets_neither_password_nor_mail(tmp_path, authority):
    """Nothing but STARTTLS is said to it; once the right authority is named, the mail goes."""
    named = tmp_path / "named.pem"
    trustme.CA().cert_pem.write_to_path(str(named))
    async with post(tmp_path, authority, MailServer(login=LOGIN), ca_file=named) as it:
        await it.open()
        await it.pass_time(lambda _mails: len(it.logged("mail.postponed")) == 2)
        assert it.server.commands == ["STARTTLS"] * 2
        assert all("a certificate that could not be verified" in line["error"] for line in it.logged("mail.postponed"))
        authority.cert_pem.write_to_path(str(named))
        await it.run()
        assert [recipient for recipient, _ in it.delivered] == [PEOPLE[0]]
