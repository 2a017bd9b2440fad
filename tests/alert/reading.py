"""How the tests read a mail: as a mail program would, and as its reader would."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage
from html.parser import HTMLParser
from zoneinfo import ZoneInfo

from tests.alert.conftest import NOW
from vigintd.alert.mail import compose
from vigintd.model import Alert

PARIS = ZoneInfo("Europe/Paris")
SENDER = "alerte@exemple.fr"
FIRST_HEADERS = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"]
FOLLOW_UP_HEADERS = [*FIRST_HEADERS[:5], "In-Reply-To", "References", *FIRST_HEADERS[5:]]


def composed(alert: Alert) -> bytes:
    return compose(alert, sender=SENDER, date=NOW, zone=PARIS)


def parsed(alert: Alert) -> EmailMessage:
    message = email.message_from_bytes(composed(alert), policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def bodies(message: EmailMessage) -> tuple[str, str]:
    """The text, and what the HTML shows, both with single spaces."""
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    return " ".join(text.get_content().split()), " ".join(Shown.of(html.get_content()).text.split())


class Shown(HTMLParser):
    """What a reader sees of a page, and which tags made it."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""
        self.tags: list[str] = []
        self.links: set[str] = set()
        self._hidden = 0

    @classmethod
    def of(cls, html: str) -> Shown:
        shown = cls()
        shown.feed(html)
        shown.close()
        return shown

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links |= {value for name, value in attrs if name in ("href", "src")}
        self._hidden += tag in ("style", "title")
        self.text += " "

    def handle_endtag(self, tag):
        self._hidden -= tag in ("style", "title")
        self.text += " "

    def handle_data(self, data):
        if not self._hidden:
            self.text += data
