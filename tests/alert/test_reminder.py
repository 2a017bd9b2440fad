"""The daily reminder as a mail: what it says, in both languages, and by what it is known."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.alert.conftest import NOW
from tests.alert.reading import PARIS, SENDER
from vigintd.alert.mail import compose_reminder
from vigintd.model import MissingVideo, NoVideo, Reminder

TRIED = MissingVideo("entree", NOW, "motion", None, NOW + timedelta(days=4))
REFUSED = MissingVideo("réserve\r\nBcc: x@y.fr", NOW - timedelta(hours=1), "vol", NoVideo.REFUSED, NOW + timedelta(days=3))
REMINDER = Reminder(
    "gardien@exemple.fr", "fr", "Boutique Rivoli", "2026-11-22T13:37:24+00:00", (TRIED, REFUSED), 7, is_last=False
)


def mail_of(**changes: Any):
    reminder = replace(REMINDER, **changes)
    mail = compose_reminder(reminder, sender=SENDER, date=NOW, zone=PARIS)
    return email.message_from_bytes(mail, policy=email.policy.default)


def test_it_names_every_video_and_what_is_known_of_it():
    message = mail_of()
    assert message["Subject"] == "⏳ Rappel Vigint - vidéos en attente : 9"
    assert message["To"] == "gardien@exemple.fr"
    text = message.get_content().replace("\r\n", "\n")
    for words in (
        "Site : Boutique Rivoli",
        "dimanche 22 novembre 2026 à 14:37:24 (CET, UTC+01:00)\n  entree - Mouvement\n  Nous continuons d'essayer",
        "jusqu'à : jeudi 26 novembre 2026 à 14:37:24 (CET, UTC+01:00)",
        "réserve Bcc: x@y.fr - vol\n  Le serveur des vidéos a refusé",
        "d'autres vidéos plus anciennes : 7",
        "une fois par jour",
    ):
        assert words in text
    assert "dernier rappel" not in text
    assert message["Bcc"] is None


def test_it_says_so_in_english():
    message = mail_of(language="en", site="", more=0)
    assert message["Subject"] == "⏳ Vigint reminder - videos still awaited: 2"
    text = message.get_content().replace("\r\n", "\n")
    for words in ("We go on trying to put it online, until: Thursday 26 November 2026", "entree - Motion", "once a day"):
        assert words in text
    assert "Site" not in text
    assert "older" not in text


@pytest.mark.parametrize(("language", "words"), [("fr", "notre dernier rappel"), ("en", "our last reminder")])
def test_the_last_one_says_that_it_is(language, words):
    text = mail_of(language=language, is_last=True).get_content()
    assert words in text
    assert "vigintd incidents retry" in text


def test_it_is_one_message_for_one_recipient_and_day_however_often_it_is_sent():
    ids = {
        mail_of(**changes)["Message-ID"]
        for changes in ({}, {"more": 3}, {"missing": (TRIED,)}, {"day": "tomorrow"}, {"recipient": "patron@exemple.fr"})
    }
    assert len(ids) == 3
    assert all(id_.startswith("<reminder.") and id_.endswith("@exemple.fr>") for id_ in ids)
