"""What `vigintd check` finds out about a camera, against real streams."""

from __future__ import annotations

import pytest

from tests.camera.scene import Script
from tests.camera.streams import packets_of, settings, write_video
from vigintd.camera.probe import probe_camera
from vigintd.errors import StreamLost

gst = pytest.mark.needs("gst-rtsp-server")


@gst
async def test_a_camera_is_described(shared_rtsp):
    """Codec, size, rate, GOP, bit rate, and its sound where that is asked for."""
    server = shared_rtsp("--fps", "30", "--gop", "15", "--audio", "pcma")
    main = (await probe_camera("cam", settings(server.url, audio=True))).main
    assert (main.codec, main.width_px, main.height_px, main.sound) == ("h264", 320, 240, "pcm_alaw")
    assert main.fps == pytest.approx(30, rel=0.1)
    assert main.gop_s == pytest.approx(0.5, rel=0.2)
    assert main.bits_per_s is not None
    assert 50_000 < main.bits_per_s < 2_000_000
    assert (main.url_number, main.url_count, main.failed) == (1, 1, ())


@gst
async def test_the_detection_stream_is_described_likewise(shared_rtsp):
    """Each has its own figures."""
    server = shared_rtsp("--sub", "--fps", "30", "--gop", "15")
    facts = await probe_camera("cam", settings(server.url, detect_url=server.url.replace("/cam", "/sub")), look_s=0.5)
    assert facts.detect is not None
    assert (facts.main.width_px, facts.detect.width_px) == (320, 160)


@gst
async def test_a_long_gop_is_longer_than_the_look(shared_rtsp):
    """Nobody waits a minute for a second key frame."""
    server = shared_rtsp("--fps", "30", "--gop", "3000")
    main = (await probe_camera("cam", settings(server.url), look_s=0.5)).main
    assert main.gop_s is None
    assert 0 < main.looked_s < 50


async def test_of_several_urls_the_first_that_lives_is_looked_at(tmp_path):
    """What the others said is kept; the detection stream is looked at likewise."""
    here = write_video(tmp_path / "here.ts").as_uri()
    small = write_video(tmp_path / "small.ts", size=(160, 120)).as_uri()
    gone = (tmp_path / "gone.ts").as_uri()
    facts = await probe_camera("cam", settings([gone, here], detect_url=small), look_s=0.3)
    assert (facts.main.url_number, facts.main.url_count, facts.main.width_px) == (2, 2, 320)
    assert "there is no such stream" in facts.main.failed[0]
    assert facts.main.gop_s == pytest.approx(0.2)
    assert facts.detect is not None
    assert facts.detect.width_px == 160


async def test_a_camera_that_ends_while_it_is_looked_at_is_described_by_what_came(annex_b):
    """Some let go of a viewer after a second."""
    script = Script(packets_of(annex_b)[:5])
    facts = await probe_camera("cam", settings("rtsp://10.0.0.11/main"), open_stream=script)
    assert len(script.opened) == 1
    assert (facts.main.width_px, facts.main.gop_s) == (320, None)


async def test_where_none_lives_the_first_ones_reason_is_told(tmp_path):
    """It is the one that was meant."""
    gone = (tmp_path / "gone.ts").as_uri()
    with pytest.raises(StreamLost) as caught:
        await probe_camera("cam", settings([gone, "rtsp://127.0.0.1:9/x"]))
    assert caught.value.reason == "not_found"
