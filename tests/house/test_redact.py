"""What may not be read anywhere, and what must stay readable."""

from __future__ import annotations

import time

import pytest

from vigintd import redact
from vigintd.redact import is_secret_name, redacted


@pytest.fixture(autouse=True)
def _no_registered_secrets(monkeypatch):
    monkeypatch.setattr(redact, "_secrets", set())


@pytest.mark.parametrize(
    "text",
    [
        "[Errno 111] Connection refused: 'rtsp://admin:hunter2@10.0.0.11/main'",
        "rtsp://admin:hunter2@cam",
        "rtsp://admin:hun@ter2@10.0.0.11/main",
        "rtsp://admin:hun/ter2@10.0.0.11/main",
        "rtsp://admin:hun?ter#2@10.0.0.11/main",
        "rtsp://admin:hun'ter\"2@10.0.0.11/main",
        "rtsp://:hunter2@10.0.0.11/main",
        "rtsp://hunter2@10.0.0.11/main",
        "rtsp://é:hunter2ü@[::1]:554/main and http://b:hunter2@h/x",
        "https://videos.exemple.fr/video/1?token=hunter2hunter2",
        "https://videos.exemple.fr/video/1?x=1&TOKEN=hunter2&y=2",
        "token%3Dhunter2",
        "Authorization: Bearer hunter2hunter2",
        "Authorization: Basic aHVudGVyMjpodW50ZXIy",
        "Authorization: hunter2",
        "X-API-Key: hunter2",
        "x-auth-token:hunter2 rejected",
        '{"password": 48151623, "token":"hunter2 \\"ter2\\""}',
        'api_key: "hunter2 ter2"',
        "password: 'hun ter2'",
        '{"api_key": "hunter2 ter2", "a": 1}',
        "{'smtp_password': 'hunter2'}",
        "password = 'hun ter2'",
        "secret=hunter2",
        "http://10.0.0.11/videostream.cgi?user=admin&pwd=hunter2",
    ],
)
def test_credentials_in_texts_are_blanked(text):
    """Passwords in URLs, tokens in queries, keys in headers and pairs of name and value leave no trace."""
    clean = redacted(text)
    assert "***" in clean
    assert not any(piece in clean for piece in ("hun", "ter2", "aHVu"))


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://10.0.0.11:554/main",
        "https://videos.exemple.fr/video/0d9f5e4e-1111-4222-8333-444455556666",
        "mail to gardien@exemple.fr accepted",
        "la clé est sous le paillasson",
        "token expired",
        "/etc/vigintd/vigintd.toml: mail.password: goes together with username; give both",
        "publish.api_key: is required",
        "file:///etc/passwd: nothing more arrives",
        "mail.password: is not a known key",
    ],
)
def test_other_texts_stay_as_they_are(text):
    """An address without credentials is worth reading."""
    assert redacted(text) == text


def test_the_host_stays_readable_beside_a_blanked_password():
    """The reader still sees which camera is meant."""
    assert redacted("'rtsp://admin:hunter2@10.0.0.11/main'") == "'rtsp://***@10.0.0.11/main'"


@pytest.mark.parametrize("written", ['mot "de" passé/1', "mot%20%22de%22%20pass%C3%A9%2F1", "mot+%22de%22+pass%C3%A9%2F1"])
def test_registered_secrets_are_blanked_wherever_they_stand(written):
    """Plain, as in a path or a query of a URL, and inside JSON or a `repr`."""
    redact.hide('mot "de" passé/1')
    assert redacted(f"x{written}y") == "x***y"
    assert "de" not in redacted('{"w": "mot \\"de\\" pass\\u00e9/1"}')


def test_the_longer_of_two_secrets_goes_first():
    """One secret that begins with another leaves no tail."""
    redact.hide("abcd")
    redact.hide("abcdefgh")
    assert redacted("abcdefgh") == "***"


def test_a_very_short_secret_is_not_hidden():
    """It would blank ordinary words."""
    redact.hide("de")
    assert redacted("fin de la journée") == "fin de la journée"


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("password", True),
        ("smtp_password", True),
        ("api_key", True),
        ("X-Api-Key", True),
        ("token", True),
        ("tokens", False),
        ("key", False),
    ],
)
def test_a_field_is_known_by_its_name(name, answer):
    """The names that the settings and the wire use."""
    assert is_secret_name(name) is answer


def test_a_hostile_text_takes_no_time():
    """Redaction is on the way of every log line."""
    started = time.monotonic()
    redacted("://a:" * 4_000)
    redacted("token" * 4_000)
    assert time.monotonic() - started < 2
