"""What strangers say of cameras, made harmless; and which of a camera's streams are chosen."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest

from tests.camera.xml_bombs import BOMB, OUTSIDE
from vigintd.camera.discovery import Answer, Credentials, Profile, named, streams_of
from vigintd.camera.discovery.found import plain, stream_address
from vigintd.camera.discovery.soap import NotSoap, read, username_token


class TestAddressesOfStreams:
    @pytest.mark.parametrize(
        ("told", "url", "elsewhere"),
        [
            ("rtsp://10.0.0.5:554/main?a=1&b=2", "rtsp://10.0.0.5:554/main?a=1&b=2", ""),
            ("RTSP://10.0.0.5/main", "rtsp://10.0.0.5/main", ""),
            (" rtsp://10.0.0.5/main\n", "rtsp://10.0.0.5/main", ""),
            ("rtsp://admin:geheim@10.0.0.5/main", "rtsp://10.0.0.5/main", ""),
            ("rtsp://0.0.0.0:8554/main", "rtsp://10.0.0.5:8554/main", ""),
            ("rtsp://127.0.0.1/main", "rtsp://10.0.0.5/main", ""),
            ("rtsp:///main", "rtsp://10.0.0.5/main", ""),
            ("rtsp://10.0.0.5/user=admin&password=geheim&channel=1", "rtsp://10.0.0.5/user=admin&password=***&channel=1", ""),
            ("rtsp://10.0.0.5/user=a_password=geheim_channel=1.sdp", "rtsp://10.0.0.5/user=a_password=***_channel=1.sdp", ""),
            ("rtsp://10.0.0.5/user=admin&password=&channel=1", "rtsp://10.0.0.5/user=admin&password=&channel=1", ""),
            ("rtsp://evil.example/main", "rtsp://evil.example/main", "evil.example"),
            ("rtsp://10.0.0.5@evil.example/main", "rtsp://evil.example/main", "evil.example"),
            ("rtsp://[fd00::1]:554/main", "rtsp://[fd00::1]:554/main", "fd00::1"),
            ("file:///etc/passwd", "", ""),
            ("concat:a|b", "", ""),
            ("rtsp://10.0.0.5:99999/", "", ""),
            ("rtsp://[10.0.0.5/", "", ""),
            ('rtsp://10.0.0.5/"\n[mail]', "", ""),
            ("rtsp://10.0.0.5/\x1b[31m", "", ""),
            ("rtsp://10.0.0.5/\u202e", "", ""),
            ("rtsp://10.0.0.5/" + "x" * 2000, "", ""),
            ("", "", ""),
        ],
    )
    def test_one_that_can_be_used_is_without_credentials_and_tells_another_host(self, told, url, elsewhere):
        assert stream_address(told, "10.0.0.5") == (url, elsewhere)


def stream(name: str, codec: str, width_px: int, height_px: int, **others: str) -> Profile:
    return Profile(
        name,
        others.get("source", "lens"),
        codec,
        width_px,
        height_px,
        25,
        others.get("url", "rtsp://h/x"),
        others.get("elsewhere", ""),
    )


class TestChoice:
    @pytest.mark.parametrize(
        ("profiles", "chosen"),
        [
            (
                [("a", "hevc", 2560, 1440), ("b", "h264", 640, 360), ("c", "h264", 1280, 720), ("d", "h264", 160, 90)],
                ("a", "b"),
            ),
            ([("a", "hevc", 1920, 1080), ("b", "h264", 1920, 1080)], ("b", None)),
            ([("a", "h264", 1920, 1080), ("b", "mjpeg", 640, 360)], ("a", None)),
            ([("a", "h264", 640, 360)], ("a", None)),
        ],
    )
    def test_the_largest_picture_is_recorded_and_the_smallest_useful_h264_is_watched(self, profiles, chosen):
        (streams,) = streams_of([stream(*profile) for profile in profiles])
        assert (streams.main.name, streams.detect.name if streams.detect else None) == chosen

    def test_each_lens_is_a_camera_of_its_own(self):
        profiles = [
            stream(f"{lens}{number}", "h264", size, size, source=lens)
            for lens in "ab"
            for number, size in enumerate((900, 400))
        ]
        assert [(s.main.name, s.detect.name if s.detect else "") for s in streams_of(profiles)] == [("a0", "a1"), ("b0", "b1")]

    def test_a_stream_elsewhere_or_without_an_address_is_not_chosen(self):
        profiles = [stream("a", "h264", 900, 900, elsewhere="evil.example"), stream("b", "h264", 900, 900, url="")]
        assert list(streams_of(profiles)) == []


class TestMessages:
    @pytest.mark.parametrize(
        "bomb", [BOMB, OUTSIDE, '<!DOCTYPE l SYSTEM "http://evil.example/x.dtd"><l/>', BOMB.replace("<!", "\n<!", 1)]
    )
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
    def test_a_document_type_is_refused_before_it_is_read(self, bomb, encoding):
        with pytest.raises(NotSoap, match="a document type"):
            read(bomb.encode(encoding))

    def test_a_text_is_made_plain(self):
        assert plain("  Entrée\t\n\x00 « A »\x1b[31m ") == "Entrée « A » [31m"
        assert plain("x" * 100_000) == "x" * 80


class TestPlaces:
    @pytest.mark.parametrize(
        "place", ["", "camera.local", "10.0.0.300", "10.0.0.1/x", "u@10.0.0.1", "10.0.0.1:x", "10.0.0.1:0"]
    )
    def test_a_place_is_an_address(self, place):
        with pytest.raises(ValueError, match=r"."):
            named(place)

    def test_a_named_place_has_the_device_service_of_the_standard(self):
        assert named("10.0.0.11") == Answer("10.0.0.11", "http://10.0.0.11/onvif/device_service")
        assert named("[fd00::1]:8080") == Answer("fd00::1", "http://[fd00::1]:8080/onvif/device_service")


class TestTokens:
    def test_a_token_is_that_of_the_standard_s_example(self):
        """ONVIF Application Programmer's Guide, chapter "Authentication"."""
        nonce = base64.b64decode("LKqI6G/AikKCQrN0zqZFlg==")
        token = username_token(Credentials("user", "userpassword"), datetime(2010, 9, 16, 7, 50, 45, tzinfo=UTC), nonce)
        assert ">tuOSpGlFlIXsozq4HFNeeGeFLEI=<" in token
        assert ">2010-09-16T07:50:45Z<" in token
        assert "userpassword" not in token

    def test_it_is_in_no_repr(self):
        assert "geheim" not in repr(Credentials("admin", "geheim"))

    def test_a_user_name_holds_no_colon(self):
        with pytest.raises(ValueError, match="no colon"):
            Credentials("a:b", "x")
