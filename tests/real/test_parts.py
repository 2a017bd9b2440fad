"""The real parts start, do their work, and are missed with a sentence."""

from __future__ import annotations

import os

import aiosmtplib
import av
import pytest

from tests.real import parts


@pytest.mark.needs("gst-rtsp-server")
def test_the_rtsp_server_serves_a_picture():
    """A client of FFmpeg decodes what GStreamer serves."""
    with (
        parts.gst_rtsp("--fps", "15") as url,
        av.open(url, options={"rtsp_transport": "tcp", "analyzeduration": "200000"}, timeout=(10, None)) as stream,
    ):
        frame = next(stream.decode(video=0))
        assert (frame.width, frame.height) == (320, 240)


@pytest.mark.needs("gst-rtsp-server")
@pytest.mark.parametrize(
    ("arguments", "transport", "kinds"),
    [
        (("--transport", "udp", "--auth", "digest"), "udp", ["h264"]),
        (("--transport", "tcp", "--auth", "basic", "--codec", "h265", "--audio", "pcma"), "tcp", ["hevc", "pcm_alaw"]),
        (("--tls", "PEM", "--audio", "aac"), "tcp", ["h264", "aac"]),
    ],
    ids=["udp and digest", "tcp, basic, h265 and sound", "tls and sound"],
)
def test_the_rtsp_server_serves_what_it_is_asked_for(tmp_path, arguments, transport, kinds):
    """Over that transport, behind that lock, with that sound; and its first picture decodes."""
    given = [str(parts.certificate(tmp_path)) if word == "PEM" else word for word in arguments]
    with parts.gst_rtsp(*given) as url:
        options = {"rtsp_transport": transport, "analyzeduration": "200000"}
        with av.open(url.replace("//", "//cam:secret@"), options=options, timeout=(10, None)) as stream:
            assert [each.codec_context.name for each in stream.streams] == kinds
            assert next(stream.decode(video=0)).width == 320


@pytest.mark.needs("chromium")
@pytest.mark.parametrize(("size", "mobile"), [(parts.PHONE, True), (parts.DESKTOP, False)], ids=["phone", "desktop"])
def test_the_browser_has_a_page_of_the_size_asked_for(size, mobile):
    """A phone is 390×844 and a desktop 1280×800 to the page itself."""
    with parts.chromium(size, mobile=mobile) as driver:
        driver.get("data:text/html,<meta name=viewport content='width=device-width'><title>vu</title>")
        assert driver.title == "vu"
        assert tuple(driver.execute_script("return [innerWidth, innerHeight]")) == size


async def test_the_mail_server_takes_a_mail(tmp_path):
    """What is sent by SMTP can be read."""
    async with parts.mailbox(tmp_path) as (box, port):
        mail = "Subject: bonjour\r\n\r\nvoici\r\n"
        await aiosmtplib.send(mail, sender="a@b.example", recipients=["c@d.example"], hostname="127.0.0.1", port=port)
        letter = await box.next(deadline_s=10)
        assert letter.message["Subject"] == "bonjour"


def test_missing_footage_is_said_and_skipped_even_in_the_gate(monkeypatch):
    """Footage belongs to nobody's machine by right: without it a test is skipped with a sentence."""
    monkeypatch.delenv("VIGINTD_FOOTAGE", raising=False)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.skip.Exception, match="VIGINTD_FOOTAGE names no folder"):
        parts.require("footage")


@pytest.mark.parametrize(("gate", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_missing_browser_is_skipped_at_home_and_fails_the_gate(monkeypatch, tmp_path, gate, outcome):
    """A part that the gate installs must be there in the gate."""
    monkeypatch.setattr(parts, "_lacks_chromium", parts._lacks_chromium.__wrapped__)
    monkeypatch.setitem(os.environ, "PATH", str(tmp_path))
    monkeypatch.setenv("CI", gate)
    with pytest.raises(outcome, match="chromium and chromedriver not found"):
        parts.require("chromium")
