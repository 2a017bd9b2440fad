"""From settings to FFmpeg: credentials, and what a source may open."""

import pytest

from tests.camera.streams import settings
from vigintd.camera.address import request_for, source_of


def test_credentials_apart_are_quoted_into_the_url():
    """Any character may be in a password."""
    given = settings("rtsp://10.0.0.11:8554/main?x=1", username="us:er", password="p@ss/w ört")
    request = request_for(given, given.url[0])
    assert request.url == "rtsp://us%3Aer:p%40ss%2Fw%20%C3%B6rt@10.0.0.11:8554/main?x=1"


def test_credentials_apart_win_over_those_in_the_url():
    """One place to change them."""
    given = settings("rtsp://old:one@10.0.0.11/main", username="cam", password="new1")
    assert request_for(given, given.url[0]).url == "rtsp://cam:new1@10.0.0.11/main"


def test_a_request_shows_no_credentials():
    """Neither printed nor by its label."""
    given = settings("rtsp://cam:topsecret@10.0.0.11/main")
    request = request_for(given, given.url[0])
    assert "topsecret" not in f"{request!r} {request.label} {source_of(request)!r}"


def options(url: str, **more: object) -> dict[str, str]:
    given = settings(url, stall_timeout_s=2.5, **more)
    return source_of(request_for(given, given.url[0])).options


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("rtsp://10.0.0.11/main", "rtsp,rtp,tcp"),
        ("rtsps://10.0.0.11/main", "rtsps,rtp,tls,tcp"),
        ("http://10.0.0.11/cam.mjpg", "http,tcp"),
        ("https://10.0.0.11/cam.mjpg", "https,tls,tcp"),
        ("http://10.0.0.11/live.m3u8", "http,tcp,crypto"),
        ("https://10.0.0.11/live.M3U8?token=1", "https,tls,tcp,crypto"),
        ("rtmp://10.0.0.11/live/cam", "rtmp,tcp"),
        ("rtmps://10.0.0.11/live/cam", "rtmps,tls,tcp"),
        ("file:///var/main.mp4", "file"),
    ],
)
def test_every_source_has_a_list_of_protocols_it_may_open(url, allowed):
    """A stream cannot make FFmpeg read a local file, nor a file the network."""
    assert options(url)["protocol_whitelist"] == allowed


def test_over_udp_nothing_but_udp_is_added():
    """And a large buffer is asked for, since a key frame comes at once; over TLS it stays one connection."""
    udp = options("rtsp://10.0.0.11/main", transport="udp")
    assert (udp["rtsp_transport"], udp["protocol_whitelist"]) == ("udp", "rtsp,rtp,tcp,udp")
    assert int(udp["buffer_size"]) >= 1 << 20
    assert options("rtsps://10.0.0.11/main", transport="udp")["rtsp_transport"] == "tcp"


@pytest.mark.parametrize(("audio", "media"), [(False, "video"), (True, "video+audio")])
def test_sound_is_asked_for_only_where_it_is_wanted(audio, media):
    """RTSP sets each track up by itself."""
    assert options("rtsp://10.0.0.11/main", audio=audio)["allowed_media_types"] == media


def test_nobody_listens_to_a_detection_stream():
    """So it is not asked for sound, even where the camera's is recorded."""
    given = settings("rtsp://10.0.0.11/main", audio=True)
    assert request_for(given, given.url[0]).audio
    assert not request_for(given, given.url[0], with_sound=False).audio


@pytest.mark.parametrize("scheme", ["rtmp", "rtmps"])
def test_rtmp_has_its_bound_by_another_name(scheme):
    """There `timeout` makes FFmpeg a server that listens."""
    given = options(f"{scheme}://10.0.0.11/live/cam")
    assert "timeout" not in given
    assert given["rw_timeout"] == "3500000"


@pytest.mark.parametrize(("path", "format_"), [("live.m3u8", "hls"), ("cam.mjpg", None), ("m3u8", None)])
def test_a_playlist_is_known_by_its_name(path, format_):
    """The path's end, not the query's."""
    given = settings(f"http://10.0.0.11/{path}?x=1.m3u8")
    assert source_of(request_for(given, given.url[0])).format == format_


def test_rtsp_goes_over_tcp_with_ffmpegs_own_timeout():
    """In microseconds; the peer is known for the watchdog."""
    given = settings("rtsp://10.0.0.11/main", stall_timeout_s=2.5)
    source = source_of(request_for(given, given.url[0]))
    assert (source.options["rtsp_transport"], source.options["timeout"]) == ("tcp", "3500000")
    assert (source.host, source.port) == ("10.0.0.11", 554)


def test_a_video_device_is_a_place_and_a_format():
    """v4l2:///dev/video0."""
    given = settings("v4l2:///dev/video0")
    source = source_of(request_for(given, given.url[0]))
    assert (source.place, source.format, source.host) == ("/dev/video0", "video4linux2", None)
