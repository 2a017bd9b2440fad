"""The alert as a mail: from an `Alert` to the bytes that go over the wire.

Owns the header block, the MIME structure, and the last look at the finished bytes. Pure: reads no clock and
opens no connection. The bytes are written here and not by `EmailMessage`, which on Python 3.11 drops spaces of
folded French subjects, lets an encoded line break become a header (CVE-2024-6923), and takes a second over a
large snapshot.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import re
from binascii import b2a_qp
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from email.header import Header
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32
from functools import cache
from pathlib import Path
from typing import Literal

import jinja2

from vigintd.alert.facts import MAX_NAME_CHARS, Facts, clean_line, facts_of, missing_facts, type_of
from vigintd.alert.words import words
from vigintd.errors import MailRefused
from vigintd.model import Alert, AlertKind, Detection, Reminder

HEADERS = frozenset(
    {
        "From",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "In-Reply-To",
        "References",
        "Auto-Submitted",
        "MIME-Version",
        "Content-Type",
        "Content-Transfer-Encoding",
    }
)
"""The only headers that a mail may have; one more means that somebody's text got in among them."""

PART_HEADERS = frozenset({"Content-Type", "Content-Transfer-Encoding", "Content-Disposition", "Content-ID"})

MAX_SNAPSHOT_BYTES = 1 << 20
"""A larger snapshot is left out: encoding it would hold the loop. One of 1280 pixels has a third of this."""

CRLF = "\r\n"

_SENDER_NAME = "Vigint"

_DOT_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
_MAILBOX = re.compile(rf"({_DOT_ATOM})@([A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[A-Za-z0-9.:]+\])")
_BARE_LINE_END = re.compile(rb"\r(?!\n)|(?<!\r)\n")


def compose(alert: Alert, *, sender: str, date: datetime, zone: tzinfo | None = None) -> bytes:
    """The mail that tells `alert` to its one recipient, ASCII with CRLF line ends (RFC 5322, section 2.3).

    `date` is when it is sent (aware); `zone` is where the box stands (None: the machine's own). The same alert
    has always the same Message-ID. `MailRefused` when an address cannot be written into a mail, or when the
    finished bytes are not what was meant.
    """
    facts = facts_of(alert, zone)
    subject = words(alert.language).subject.format(type=type_of(alert))
    own_id = message_id(alert.incident_id, alert.recipient, alert.kind, sender)
    thread = []
    if alert.kind is AlertKind.FOLLOW_UP:
        first = message_id(alert.incident_id, alert.recipient, AlertKind.TEXT, sender)
        thread = [f"In-Reply-To: {first}", f"References: {first}"]
    picture = _base64(alert.snapshot_jpeg)
    head = _head(sender, alert.recipient, subject, date.astimezone(zone), own_id, *thread)
    mail = head + _body(alert, facts, own_id.strip("<>").partition("@")[0], picture)
    _check(mail, picture)
    return mail


def compose_reminder(reminder: Reminder, *, sender: str, date: datetime, zone: tzinfo | None = None) -> bytes:
    """The mail that tells `reminder`, as `compose` does an alert: plain text, and one Message-ID a recipient and day."""
    speech, language = words(reminder.language), "en" if reminder.language == "en" else "fr"
    count = len(reminder.missing) + reminder.more
    text = (
        _templates()
        .get_template(f"reminder_{language}.txt")
        .render(
            site=clean_line(reminder.site, MAX_NAME_CHARS),
            missing=[missing_facts(video, language, zone) for video in reminder.missing],
            more=reminder.more,
            is_last=reminder.is_last,
        )
    )
    own_id = message_id(reminder.day, reminder.recipient, "reminder", sender)
    subject = speech.reminder_subject.format(count=count)
    mail = _head(sender, reminder.recipient, subject, date.astimezone(zone), own_id) + _text_part("plain", text)
    _check(mail, b"")
    return mail


def _head(sender: str, recipient: str, subject: str, date: datetime, own_id: str, *thread: str) -> bytes:
    """The header block, but for what describes the body."""
    lines = [
        f"From: {_SENDER_NAME} <{mailbox(sender)}>",
        f"To: {mailbox(recipient)}",
        f"Subject: {Header(subject, 'utf-8', maxlinelen=76, header_name='Subject').encode(linesep=CRLF)}",
        f"Date: {email.utils.format_datetime(date)}",
        f"Message-ID: {own_id}",
        *thread,
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
    ]
    return "".join(line + CRLF for line in lines).encode("ascii")


def message_id(incident_id: str, recipient: str, kind: AlertKind | Literal["reminder"], sender: str) -> str:
    """The identity of one message (RFC 5322, section 3.6.4): the same for the same incident (or day), recipient and kind.

    The recipient is in it as a hash, since other readers of a forwarded mail see the id.
    """
    meant = f"{incident_id}\0{recipient}\0{kind}".encode("utf-8", "surrogatepass")
    return f"<{kind}.{hashlib.sha256(meant).hexdigest()[:40]}@{mailbox(sender).rpartition('@')[2].strip('[]')}>"


def mailbox(address: str) -> str:
    """`address` as headers and envelopes hold it, its domain in ASCII (RFC 5891); `MailRefused` if it cannot be.

    Only plain addresses (a dot-atom, RFC 5322, section 3.4.1) are taken: quotes and comments reach no header.
    """
    local, _, domain = address.rpartition("@")
    try:
        ascii_domain = domain if domain.isascii() else domain.encode("idna").decode("ascii")
    except UnicodeError:
        ascii_domain = ""
    plain = f"{local}@{ascii_domain}"
    if not _MAILBOX.fullmatch(plain) or len(plain) > 254:
        raise MailRefused(
            f"{address!r} cannot be written into a mail: plain letters, digits and dots before the @, a domain after it"
        )
    return plain


def prepare() -> None:
    """Load templates and the languages' data, some 100 ms of work that no alert should wait for."""
    moment = datetime.fromtimestamp(0, UTC)
    detection = Detection("camera", 0.0, moment, "trigger", confidence=1.0)
    for language in ("fr", "en"):
        alert = Alert(
            AlertKind.LINK, "0", "nobody@localhost", language, "", "camera", detection, "https://localhost/", moment, 1.0, 1
        )
        compose(alert, sender="nobody@localhost", date=moment)


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html",), default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _body(alert: Alert, facts: Facts, identity: str, picture: bytes) -> bytes:
    """Alternative ▸ text, html; with a picture: alternative ▸ text, related ▸ html, image/jpeg (RFC 2387).

    `picture` is the JPEG in base64, or empty.
    """
    language = "en" if alert.language == "en" else "fr"
    # Short enough for one line: some readers do not look for a folded id.
    picture_id = f"{identity[:24]}@snapshot" if picture else ""
    text = _templates().get_template(f"{language}.txt").render(facts=facts)
    html = _templates().get_template(f"{language}.html").render(facts=facts, snapshot=picture_id and f"cid:{picture_id}")
    rich = _text_part("html", html)
    if picture:
        image = _entity(
            "Content-Type: image/jpeg",
            "Content-Transfer-Encoding: base64",
            'Content-Disposition: inline; filename="detection.jpg"',
            f"Content-ID: <{picture_id}>",
            payload=picture,
        )
        rich = _multipart('related; type="text/html"', f"=_{identity}.1", rich, image)
    return _multipart("alternative", f"=_{identity}.0", _text_part("plain", text), rich)


def _base64(jpeg: bytes | None) -> bytes:
    if jpeg is None or len(jpeg) > MAX_SNAPSHOT_BYTES:
        return b""
    return base64.encodebytes(jpeg).replace(b"\n", b"\r\n")


def _text_part(subtype: str, text: str) -> bytes:
    payload = b2a_qp(text.encode(), istext=True).replace(b"\n", b"\r\n")
    headers = f'Content-Type: text/{subtype}; charset="utf-8"', "Content-Transfer-Encoding: quoted-printable"
    return _entity(*headers, payload=payload)


def _multipart(subtype: str, boundary: str, *parts: bytes) -> bytes:
    """Parts between boundaries that no part holds: "=_" is neither in quoted-printable nor in base64 (RFC 2045, 6.7)."""
    line = f"--{boundary}".encode("ascii")
    payload = b"".join(line + b"\r\n" + part + b"\r\n" for part in parts) + line + b"--\r\n"
    return _entity(f'Content-Type: multipart/{subtype};{CRLF} boundary="{boundary}"', payload=payload)


def _entity(*headers: str, payload: bytes) -> bytes:
    return "".join(header + CRLF for header in (*headers, "")).encode("ascii") + payload


def _check(mail: bytes, picture: bytes) -> None:
    """Read the finished bytes as a stranger would, and refuse what was not meant to be there.

    The picture is left out of it: its letters can say nothing, and parsing megabytes would hold the loop.
    """
    mail = mail.replace(picture, b"") if picture else mail
    parsed = BytesParser(policy=compat32).parsebytes(mail)
    names = [name for name, _ in parsed.items()]
    strange = sorted(set(names) - HEADERS) + sorted(set(_part_headers(parsed)) - PART_HEADERS)
    if strange or len(set(names)) != len(names):
        raise MailRefused(f"the mail was not sent: its text made headers of its own ({', '.join(strange) or 'repeated'})")
    if not mail.isascii() or _BARE_LINE_END.search(mail) or any(len(line) > 998 for line in mail.split(b"\r\n")):
        raise MailRefused("the mail was not sent: it is not 7-bit text in lines of at most 998 characters")


def _part_headers(parsed: Message) -> Iterator[str]:
    for part in parsed.walk():
        if part is not parsed:
            yield from part.keys()
