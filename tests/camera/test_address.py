"""From settings to FFmpeg: credentials, and what a source may open."""

import pytest

from tests.camera.streams import settings
from vigintd.camera.address import request_for, source_of


def test_credentials_apart_are_quoted_into_the_url():
    """Any character may be in a password."""
    given = settings("rtsp://10.0.0.11:8554/main?x=1", username="us:er", password="p@ss/w ört")
    request = request_for(given, given.url)
    assert request.url == "rtsp://us%3Aer:p%40ss%2Fw%20%C3%B6rt@10.0.0.11:8554/main?x=1"


def test_credentials_apart_win_over_those_in_the_url():
    """One place to change them."""
    given = settings("rtsp://old:one@10.0.0.11/main", username="cam", password="new1")
    assert request_for(given, given.url).url == "rtsp://cam:new1@10.0.0.11/main"


def test_a_request_shows_no_credentials():
    """Neither printed nor by its label."""
    given = settings("rtsp://cam:topsecret@10.0.0.11/main")
    request = request_for(given, given.url)
    assert "topsecret" not in f"{request!r} {request.label} {source_of(request)!r}"


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps", "http", "https", "file"])
def test_every_source_has_a_list_of_protocols_it_may_open(scheme):
    """A stream cannot make FFmpeg read a local file, nor a file the network."""
    given = settings("file:///var/main.mp4" if scheme == "file" else f"{scheme}://10.0.0.11/main")
    allowed = source_of(request_for(given, given.url)).options["protocol_whitelist"].split(",")
    assert ("file" in allowed) == (scheme == "file")
    assert not {"concat", "pipe", "subfile", "data"} & set(allowed)


def test_rtsp_goes_over_tcp_with_ffmpegs_own_timeout():
    """In microseconds; the peer is known for the watchdog."""
    given = settings("rtsp://10.0.0.11/main", stall_timeout_s=2.5)
    source = source_of(request_for(given, given.url))
    assert (source.options["rtsp_transport"], source.options["timeout"]) == ("tcp", "2500000")
    assert (source.host, source.port) == ("10.0.0.11", 554)


def test_a_video_device_is_a_place_and_a_format():
    """v4l2:///dev/video0."""
    given = settings("v4l2:///dev/video0")
    source = source_of(request_for(given, given.url))
    assert (source.place, source.format, source.host) == ("/dev/video0", "video4linux2", None)
