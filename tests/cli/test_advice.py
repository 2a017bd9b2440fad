"""What is said of a camera: what it sends, what the ring can hold of it, and what would be better otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cli.streams import STREAM
from vigintd.camera.probe import CameraFacts, StreamFacts
from vigintd.cli.advice import advice, lost_advice, pre_roll_s, summary
from vigintd.config import CameraSettings
from vigintd.errors import StreamLost


def camera(**more: object) -> CameraSettings:
    return CameraSettings.model_validate({"url": "rtsp://10.0.0.11/main", "detectors": ["mouvement"], **more})


def advised(settings: CameraSettings | None = None, detect: StreamFacts | None = None, **main: Any) -> list[tuple[str, str]]:
    return list(advice("entree", settings or camera(), CameraFacts(replace(STREAM, **main), detect)))


def test_a_good_camera_is_left_in_peace():
    """H.264, a key frame every two seconds, a small picture for the detectors."""
    assert advised() == []


def test_all_that_was_found_stands_in_one_line():
    """The detection stream likewise; and which of several URLs it was."""
    settings = camera(audio=True, detect_url="rtsp://10.0.0.11/sub")
    main = replace(STREAM, sound="pcm_alaw", url_number=2, url_count=2)
    small = replace(STREAM, width_px=640, height_px=360, fps=10.0, gop_s=None, looked_s=9.9, bits_per_s=None)
    assert summary(settings, CameraFacts(main, small)) == (
        "h264 1280x720 from url 2 of 2, 25 fps, a key frame every 2 s, 4 Mbit/s, sound pcm_alaw, pre-roll 10 s,"
        " detection h264 640x360, 10 fps, key frames more than 10 s apart"
    )


def test_silence_is_said_where_sound_was_asked_for():
    """Elsewhere nobody listened."""
    assert "no sound" in summary(camera(audio=True), CameraFacts(STREAM, None))
    assert "sound" not in summary(camera(), CameraFacts(STREAM, None))


@pytest.mark.parametrize(
    ("main", "result", "todo"),
    [
        ({"gop_s": 8.0}, "a key frame only every 8 s", "set the key-frame interval (I-frame interval, GOP) to 1–2 s"),
        ({"gop_s": None, "looked_s": 10.0}, "no second key frame within 10 s", "set the key-frame interval"),
        ({"codec": "hevc"}, "hevc has to be encoded", "choose H.264"),
        ({"codec": "mjpeg"}, "mjpeg has to be encoded", "choose H.264"),
        ({"fps": 1.0}, "1 pictures a second leave much unseen", "set the camera's frame rate to 10–25"),
        ({"fps": 60.0}, "60 pictures a second cost more", "set the camera's frame rate to 25 or less"),
        ({"width_px": 1920, "height_px": 1080}, "detectors watch a picture of 1920x1080", "name the camera's small stream"),
        ({"bits_per_s": 40_000_000.0}, "the ring holds 4.71 s of the 10 s", "set cameras.entree.ring_mb to 144"),
        ({"failed": ("rtsp://a: no",), "url_number": 2}, "rtsp://a: no", "correct the first of cameras.entree.url"),
    ],
)
def test_what_would_be_better_otherwise_is_said(main, result, todo):
    """One thing each, with what to do."""
    ((found, what_to_do),) = advised(**main)
    assert found.startswith(result)
    assert what_to_do.startswith(todo)


def test_sound_that_was_asked_for_and_does_not_come():
    """In the camera or in the configuration."""
    ((found, todo),) = advised(camera(audio=True))
    assert found == "audio is on, and no sound comes"
    assert "cameras.entree.audio" in todo
    assert advised(camera(audio=True), sound="aac") == []


def test_a_small_detection_stream_serves_a_large_picture():
    """And one as large as that does not."""
    settings = camera(detect_url="rtsp://10.0.0.11/sub")
    large: dict[str, Any] = {"width_px": 1920, "height_px": 1080}
    assert advised(settings, replace(STREAM, width_px=640, height_px=360), **large) == []
    assert len(advised(settings, replace(STREAM, **large), **large)) == 1


def test_a_picture_that_nobody_watches_may_be_large():
    """It is only recorded."""
    assert advised(camera(detectors=[]), width_px=3840, height_px=2160) == []


@settings(deadline=None)
@given(ring_mb=st.floats(0.1, 4096), bits=st.floats(1e3, 1e9), gop_s=st.floats(0.04, 60), pre_roll=st.floats(0, 120))
def test_a_ring_as_large_as_advised_holds_the_pre_roll(ring_mb, bits, gop_s, pre_roll):
    """The advice is true."""
    settings = camera(ring_mb=ring_mb, pre_roll_s=pre_roll, post_roll_s=0, max_clip_s=3600)
    main = replace(STREAM, bits_per_s=bits, gop_s=gop_s)
    held_s = pre_roll_s(settings, main)
    assert held_s is not None
    assert 0 <= held_s <= pre_roll
    told = [todo for _, todo in advice("entree", settings, CameraFacts(main, None)) if "ring_mb" in todo]
    assert bool(told) == (held_s < pre_roll)
    if told:
        larger = settings.model_copy(update={"ring_mb": float(told[0].rpartition(" ")[2])})
        assert pre_roll_s(larger, main) == pre_roll


@pytest.mark.parametrize("reason", ["timeout", "stalled"])
def test_what_is_silent_over_udp_may_be_held_up_on_the_way(reason):
    """By a firewall, mostly."""
    error = StreamLost("x", reason=reason)
    assert lost_advice("entree", camera(transport="udp"), error).startswith('set cameras.entree.transport to "tcp"')
    assert lost_advice("entree", camera(), error).startswith("see that the camera is on")
