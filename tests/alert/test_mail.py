"""The mail itself: words, structure, headers, and texts that strangers wrote."""

from __future__ import annotations

import base64
import email
import email.policy
import re
import time
from datetime import timedelta, timezone
from email.message import EmailMessage
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.alert.conftest import INCIDENT, JPEG, LINK, NOW, example
from tests.alert.reading import FIRST_HEADERS, FOLLOW_UP_HEADERS, SENDER, Shown, bodies, composed, parsed
from vigintd.alert import mail
from vigintd.alert.facts import MAX_TEXT_CHARS, clean, clean_line
from vigintd.alert.mail import compose, message_id
from vigintd.errors import MailRefused
from vigintd.model import AlertKind, NoVideo, Risk


def test_the_french_alert_has_its_words():
    """Subject, heading, every field and the warning are those that the product promises."""
    message = parsed(example())
    assert message["Subject"] == "🚨 Alerte Vigint - vol à l'étalage - SECURITY"
    for body in bodies(message):
        for words in (
            "🚨 ALERTE SYSTÈME VIGINT",
            "Type d'alerte",
            "vol à l'étalage",
            "Horodatage",
            "dimanche 22 novembre 2026 à 14:37:24 (CET, UTC+01:00)",
            "Boutique « Rivoli »",
            "entree",
            "DÉTAILS DE L'INCIDENT",
            "Niveau de risque",
            "Élevé (HIGH)",
            "Numéro d'image",
            "1284",
            "Confiance",
            "87 %",
            "rayon « Parfums » & le glisse dans son sac. Elle sort.",
            "📹 PREUVES VIDÉO DISPONIBLES",
            "Lien privé sécurisé",
            LINK,
            "Taille du fichier",
            "enregistrement en cours",
            "Expiration",
            "mardi 24 novembre 2026 à 14:37:24 (CET, UTC+01:00)",
            "ID Vidéo",
            INCIDENT,
            "⚠️ IMPORTANT: Ce lien est privé et sécurisé. Il expirera automatiquement dans 48 heures.",
        ):
            assert words in body
        assert "non disponibles" not in body


def test_the_english_alert_has_the_same_fields():
    """The same facts in English."""
    message = parsed(example(language="en", size_bytes=4_230_000))
    assert message["Subject"] == "🚨 Vigint Alert - vol à l'étalage - SECURITY"
    for body in bodies(message):
        for words in (
            "🚨 VIGINT SYSTEM ALERT",
            "Alert type",
            "Timestamp",
            "Sunday 22 November 2026 at 14:37:24",
            "INCIDENT DETAILS",
            "Risk level",
            "High (HIGH)",
            "Frame number",
            "Confidence",
            "87%",
            "📹 VIDEO EVIDENCE AVAILABLE",
            "Secure private link",
            "File size",
            "4.2 MB",
            "Expires",
            "Video ID",
            "⚠️ IMPORTANT: This link is private and secure. It will expire automatically in 48 hours.",
        ):
            assert words in body


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (NoVideo.LATE, "le lien suivra"),
        (NoVideo.REFUSED, "a refusé l'enregistrement"),
        (NoVideo.UNRECORDED, "aucune image"),
        (NoVideo.UNSTORED, "plein ou défaillant"),
        (NoVideo.UNWRITTEN, "disque plein"),
    ],
)
def test_without_a_video_it_says_so_and_why(reason: NoVideo, words: str):
    """An alert without a link is plain about it, in both bodies."""
    message = parsed(example(kind=AlertKind.TEXT, link=None, expires_at=None, expiry_h=None, no_video=reason))
    for body in bodies(message):
        assert "⚠️ Preuves vidéo non disponibles" in body
        assert words in body
        assert INCIDENT in body
        assert "Lien privé" not in body
        assert "IMPORTANT" not in body


@pytest.mark.parametrize(
    ("language", "builtin", "shown"),
    [
        ("fr", "motion", "Mouvement"),
        ("fr", "trigger", "Déclenchement"),
        ("en", "motion", "Motion"),
        ("en", "trigger", "Trigger"),
    ],
)
def test_built_in_types_are_translated(language: str, builtin: str, shown: str):
    """A reader is not shown the code's names."""
    message = parsed(example(language=language, type=builtin))
    assert f" - {shown} - SECURITY" in message["Subject"]
    assert all(shown in body and builtin not in body for body in bodies(message))


def test_what_is_not_known_is_not_shown():
    """No empty field, no placeholder."""
    for body in bodies(parsed(example(site="", text="", confidence=None, frame_number=None, type=" \n", expires_at=None))):
        for name in ("Site", "Analyse", "Confiance", "Numéro d'image", "Expiration", "None"):
            assert name not in body
        assert "Incident" in body
    for confidence in (float("nan"), float("inf")):
        assert "Confiance" not in bodies(parsed(example(confidence=confidence)))[0]


@pytest.mark.parametrize(
    ("size", "words"), [(999, "1 ko"), (0, "0 ko"), (812_000, "812 ko"), (4_230_000, "4,2 Mo"), (2_500_000_000, "2,5 Go")]
)
def test_a_finished_clip_has_its_size_and_is_said_to_be_finished(size: int, words: str):
    """Sizes are in the reader's units; live and finished are told apart."""
    for body in bodies(parsed(example(size_bytes=size))):
        assert words in body
        assert "L'enregistrement est terminé." in body
        assert "en direct" not in body


@pytest.mark.parametrize(("hours", "words"), [(48, "48 heures"), (1, "1 heure."), (1.5, "1,5 heure"), (0.5, "30 minutes")])
def test_the_real_hours_are_said(hours: float, words: str):
    """Whatever expiry is configured, the warning tells it."""
    assert f"automatiquement dans {words}" in bodies(parsed(example(expiry_h=hours)))[0]


@pytest.mark.parametrize(
    ("zone", "words"),
    [
        (ZoneInfo("UTC"), "13:37:24 (UTC)"),
        (ZoneInfo("America/Caracas"), "09:37:24 (UTC-04:00)"),
        (ZoneInfo("Asia/Kolkata"), "19:07:24 (IST, UTC+05:30)"),
        (timezone(timedelta(hours=1)), "14:37:24 (UTC+01:00)"),
    ],
)
def test_moments_are_the_places_own(zone, words: str):
    """Local time comes with its offset, and its name where it has one."""
    message = email.message_from_bytes(compose(example(), sender=SENDER, date=NOW, zone=zone), policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert words in bodies(message)[0]


def test_without_a_zone_it_is_the_machines(monkeypatch: pytest.MonkeyPatch):
    """The box's own zone is used where none is given."""
    monkeypatch.setenv("TZ", "Europe/Paris")
    time.tzset()
    try:
        assert b"14:37:24 (CET, UTC+01:00)" in compose(example(), sender=SENDER, date=NOW)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_snapshot_is_inline():
    """Alternative ▸ text + related ▸ html + image, the image shown where the HTML says."""
    message = parsed(example())
    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/jpeg",
    ]
    html = message.get_body(("html",))
    image = list(message.walk())[-1]
    assert html is not None
    assert f"cid:{image['Content-ID'].strip('<>')}" in Shown.of(html.get_content()).links
    assert image.get_content_disposition() == "inline"
    assert image.get_content() == JPEG


@pytest.mark.parametrize("jpeg", [None, b"", bytes(mail.MAX_SNAPSHOT_BYTES + 1)])
def test_without_a_fitting_snapshot_the_alert_goes_all_the_same(jpeg: bytes | None):
    """No snapshot, an empty or a huge one: the mail has none, and no broken picture."""
    message = parsed(example(snapshot_jpeg=jpeg))
    assert [part.get_content_type() for part in message.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    assert b"cid:" not in composed(example(snapshot_jpeg=jpeg))


def test_the_link_is_a_button_and_a_text():
    """The HTML links to nothing but the clip, and loads nothing from outside."""
    html = parsed(example()).get_body(("html",))
    assert html is not None
    shown = Shown.of(html.get_content())
    assert {link for link in shown.links if not link.startswith("cid:")} == {LINK}
    assert shown.tags.count("a") == 2
    assert "url(" not in html.get_content()


@pytest.mark.parametrize(
    "link", ["javascript:alert(1)", "https://a b", 'https://x"onload=', "ftp://x/", "https://x/\r\nBcc: y"]
)
def test_a_link_that_nobody_could_safely_follow_is_no_link(link: str):
    """Whatever a host answers, only a web address is shown."""
    for body in bodies(parsed(example(link=link))):
        assert "⚠️ Preuves vidéo non disponibles" in body
        assert link not in body


def test_headers_are_exactly_these():
    """One recipient, a date, an identity, and no more than is needed."""
    message = parsed(example())
    assert message.keys() == FIRST_HEADERS
    assert message["From"] == "Vigint <alerte@exemple.fr>"
    assert message["To"] == "gardien@exemple.fr"
    assert message["Date"].datetime == NOW
    assert message["Auto-Submitted"] == "auto-generated"


def test_a_follow_up_is_in_the_thread_of_the_text_alert():
    """In-Reply-To and References name the text alert of the same incident and recipient."""
    first = parsed(example(kind=AlertKind.TEXT, link=None, no_video=NoVideo.LATE))
    second = parsed(example(kind=AlertKind.FOLLOW_UP, size_bytes=1))
    assert second.keys() == FOLLOW_UP_HEADERS
    assert second["In-Reply-To"] == second["References"] == first["Message-ID"]
    assert second["Message-ID"] != first["Message-ID"]
    assert second["Subject"] == first["Subject"]
    assert all("La vidéo de cette alerte est maintenant disponible." in body for body in bodies(second))


def test_identities_are_deterministic_and_apart():
    """The same incident, recipient and kind have one identity; anything else has another."""
    ids = {
        message_id(incident, recipient, kind, SENDER)
        for incident in (INCIDENT, INCIDENT[:-1] + "1")
        for recipient in ("gardien@exemple.fr", "patron@exemple.fr")
        for kind in AlertKind
    }
    assert len(ids) == 12
    assert message_id(INCIDENT, "gardien@exemple.fr", AlertKind.LINK, SENDER) in ids
    assert all(re.fullmatch(r"<[a-z_]+\.[0-9a-f]{40}@exemple\.fr>", one) for one in ids)
    assert composed(example()) == composed(example())


@pytest.mark.parametrize(
    "subject",
    [
        "« Entrée » à l'arrière-boutique, derrière la réserve numéro 3 « Élégance » à côté",
        "=?utf-8?q?a=0D=0ABcc:_x=40y.z?=",
        "a\r\nBcc: x@y.z",
        "a\u2028Bcc: x@y.z",
        "x" * 119,
        "é " * 59,
        "🚨👩‍👩‍👧‍👦" * 10,
    ],
)
def test_a_subject_arrives_as_it_was_meant(subject: str):
    """Guillemets, long words, emoji and disguised headers: what is read is what was meant, and no header more."""
    message = parsed(example(type=subject))
    assert message.keys() == FIRST_HEADERS
    assert message["Subject"] == f"🚨 Alerte Vigint - {clean_line(subject, 120)} - SECURITY"


def test_a_mail_with_a_strange_header_is_never_sent(monkeypatch: pytest.MonkeyPatch):
    """Should anything get past the cleaning, the last look at the bytes stops it."""
    monkeypatch.setattr(mail, "message_id", lambda *_: "<a@b>\r\nBcc: x@y.z")
    with pytest.raises(MailRefused, match="Bcc"):
        composed(example())


def test_long_texts_are_cut_with_an_ellipsis():
    """A detector that talks for pages does not make a mail of pages."""
    text, _ = bodies(parsed(example(text="mot " * MAX_TEXT_CHARS, snapshot_jpeg=None)))
    assert "…" in text
    assert len(text) < MAX_TEXT_CHARS + 2000


def test_controls_surrogates_and_turned_directions_are_cleaned():
    """What no mail can hold, or what makes a name look like another, is gone; line ends stay."""
    assert clean("a\0b\ud83dc\u202etxt.exe\x1b[31m\r\nd\x85e\n\n", 100) == "ab\ufffdctxt.exe[31m\nd\ne"
    assert clean_line(" a\n\tb  c ", 100) == "a b c"
    assert clean("\ud83d\udea8", 10) == "🚨"


def test_every_risk_has_its_word():
    """No risk is left untranslated."""
    words = {
        bodies(parsed(example(risk=risk, snapshot_jpeg=None)))[0].partition("Niveau de risque : ")[2][:12] for risk in Risk
    }
    assert len(words) == len(Risk)


OUR_TAGS = {"html", "head", "meta", "title", "style", "body", "table", "tr", "td", "div", "a", "span"}
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=200) | st.sampled_from(
    [
        "<script>alert(1)</script>",
        "=?utf-8?q?a=0D=0ABcc:_x=40y.z?=",
        "{{ 7*7 }}",
        "a\r\nBcc: x@y.z",
        "\ud800",
        "\0",
        "--=_link.",
    ]
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=ANY_TEXT,
    text=ANY_TEXT,
    camera=ANY_TEXT,
    site=ANY_TEXT,
    language=st.sampled_from(["fr", "en", "de"]),
    follow_up=st.booleans(),
)
def test_any_text_gives_exactly_the_allowed_headers(*, kind, text, camera, site, language, follow_up):
    """Whatever strangers wrote: the alert goes, its headers are ours, its subject is what was meant, its HTML is only ours."""
    alert = example(
        kind=AlertKind.FOLLOW_UP if follow_up else AlertKind.LINK,
        type=kind,
        text=text,
        camera=camera,
        site=site,
        language=language,
        snapshot_jpeg=None,
    )
    message = parsed(alert)
    assert message.keys() == (FOLLOW_UP_HEADERS if follow_up else FIRST_HEADERS)
    assert all(set(part.keys()) <= {"Content-Type", "Content-Transfer-Encoding"} for part in message.iter_parts())
    type_shown = clean_line(kind, 120) or "Incident"
    if type_shown not in ("motion", "trigger"):
        assert str(message["Subject"]).endswith(f" - {type_shown} - SECURITY")
    html = message.get_body(("html",))
    assert html is not None
    assert set(Shown.of(html.get_content()).tags) <= OUR_TAGS
    for body in bodies(message):
        for fact in (type_shown, clean(text, MAX_TEXT_CHARS), clean_line(camera, 200), clean_line(site, 200), LINK):
            assert " ".join(fact.split()) in body


def test_bytes_are_seven_bit_lines_of_bounded_length():
    """Any server takes it, also one without 8BITMIME."""
    content = composed(example(text="é" * 5000))
    assert content.isascii()
    assert max(len(line) for line in content.split(b"\r\n")) <= 78
    assert b"\n" not in content.replace(b"\r\n", b"")
    assert base64.b64encode(JPEG)[:40] in content
