"""Log lines: where they go, how they look, and what is never in them."""

from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from vigintd import logs, redact


@pytest.fixture(autouse=True)
def _logging_as_before(monkeypatch):
    monkeypatch.setattr(redact, "_secrets", set())
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers, root.level
    root.handlers = []
    yield
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()
    root.handlers, root.level = handlers, level


@pytest.fixture
def out():
    return io.StringIO()


def fail(message: str) -> None:
    raise ValueError(message)


@pytest.mark.parametrize("log_format", ["console", "journald", "json"])
def test_no_format_shows_a_secret(out, log_format):
    """Event, values, nested values, bound context, traceback and a library's own records are all redacted."""
    redact.hide("registered")
    logs.configure(log_format, stream=out)
    structlog.contextvars.bind_contextvars(camera="entree", url="rtsp://a:hunter2@h/x")
    log = structlog.get_logger()
    log.warning("camera.lost registered", reason="rtsp://a:hunter2@h/x", password="hunter2", at=object)
    log.info(
        "x", nested={"deep": [{"link": "http://h/v?token=hunter2"}, ("registered",), {"registered"}], "api_key": "hunter2"}
    )
    try:
        fail("cannot open 'rtsp://a:hun/ter2@h/x', registered")
    except ValueError:
        log.exception("camera.crashed")
        logging.getLogger("aiohttp").exception("token=%s", "hunter2")
    text = out.getvalue()
    assert text.count("camera.lost") == 1
    assert "Traceback" in text
    assert not any(secret in text for secret in ("hunter2", "ter2", "registered"))


def test_json_is_one_object_a_line(out):
    """With level, UTC time and bound context beside the event's own fields."""
    logs.configure("json", stream=out)
    structlog.get_logger().bind(camera="entrée").info("incident.opened", detections=2, at=None)
    event = json.loads(out.getvalue())
    assert event.pop("timestamp").endswith("Z")
    assert event == {"event": "incident.opened", "level": "info", "camera": "entrée", "detections": 2, "at": None}


def test_journald_lines_begin_with_their_priority(out):
    """As sd-daemon(3) reads them; fields follow as key=value, and the time is the journal's."""
    logs.configure("journald", stream=out, level="debug")
    log = structlog.get_logger()
    for method in (log.debug, log.info, log.warning, log.error, log.critical):
        method("camera.lost", camera="entree", reason="no answer", until=None)
    assert [line.split(" ", 1)[0] for line in out.getvalue().splitlines()] == [f"<{n}>camera.lost" for n in (7, 6, 4, 3, 2)]
    assert out.getvalue().splitlines()[0] == '<7>camera.lost camera=entree reason="no answer"'


def test_a_text_from_outside_cannot_make_a_line_of_its_own(out):
    """Line breaks of every kind and terminal codes in events, keys and values stay within their line."""
    logs.configure("journald", stream=out)
    structlog.get_logger().info(
        "mail.refused", **{"reply": "550 no\r\n<0>all is lost\x1b[2J", "odd key": "a\u2028b", "list": ["a\nb"]}
    )
    assert len(out.getvalue().splitlines()) == 1
    assert "550 no | <0>all is lost" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_a_traceback_is_one_line_in_the_journal(out):
    """A line of its own each would tear it apart."""
    logs.configure("journald", stream=out)
    try:
        fail("boom")
    except ValueError:
        structlog.get_logger().exception("daemon.crashed")
    assert len(out.getvalue().splitlines()) == 1
    assert "ValueError: boom" in out.getvalue()


def test_auto_asks_who_reads(out):
    """The lines of journald under systemd, a console for a person, JSON for a pipe."""
    logs.configure("auto", stream=out, environ={"JOURNAL_STREAM": "8:123"})
    structlog.get_logger().info("first")
    logs.configure("auto", stream=out, environ={})
    structlog.get_logger().info("second")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    logs.configure("auto", stream=terminal, environ={})
    structlog.get_logger().info("third")
    first, second = out.getvalue().splitlines()
    assert first == "<6>first"
    assert json.loads(second)["event"] == "second"
    assert "third" in terminal.getvalue()
    assert "\x1b[" in terminal.getvalue()


def test_lines_below_the_level_are_not_written(out):
    """Neither ours nor a library's; a library below WARNING is never heard."""
    logs.configure("json", stream=out, level="error")
    structlog.get_logger().warning("ours")
    logging.getLogger("aiohttp").warning("theirs")
    logs.configure("json", stream=out, level="debug")
    logging.getLogger("aiohttp").info("theirs")
    assert out.getvalue() == ""
