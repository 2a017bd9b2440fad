"""The main job, by a real daemon: a detection becomes a private link in an inbox."""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.daemon.box import Box, boxed, camera, free_port
from tests.daemon.conftest import GOP_S, LOOP_S
from tests.daemon.web import fetch
from tests.real.parts import footage, gst_rtsp
from vigintd.daemon.serve import DRAIN_S
from vigintd.demo.mailbox import Letter


def leads_to(incident_id: str, letter: Letter) -> bool:
    """Whether this is the mail with that incident's link."""
    return incident_id in (letter.link or "")


async def sealed_clip(box: Box, letter: Letter) -> tuple[dict[str, Any], bytes]:
    """The closed incident behind a mail, and the clip as its link gives it."""
    assert letter.link
    incident_id = re.search(r"/video/([0-9a-f-]{36})", letter.link)
    assert incident_id
    incident = await box.closed(incident_id[1])
    answer = await fetch(letter.link.replace("?token=", "/part/0.mp4?token="))
    assert answer.status == 200
    return incident, answer.body


def assert_playable_h264(clip: bytes) -> float:
    """It is H.264 in MP4, begins with a key frame, and its timestamps rise; answers its seconds."""
    with av.open(io.BytesIO(clip), "r") as container:
        assert container.format.name.startswith("mov,mp4")
        (stream,) = container.streams.video
        assert stream.codec_context.name == "h264"
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert packets[0].is_keyframe
        decode_times = [packet.dts for packet in packets if packet.dts is not None]
        assert len(decode_times) == len(packets)
        assert all(earlier < later for earlier, later in pairwise(decode_times))
        ticks = decode_times[-1] - decode_times[0] + (packets[-1].duration or 0)
        seconds = float(ticks * (stream.time_base or Fraction(1)))
    with av.open(io.BytesIO(clip), "r") as container:
        assert sum(1 for _ in container.decode(video=0)) == len(packets)
    return seconds


def assert_story(
    incident: dict[str, Any], clip: bytes, page: str, *, pre_roll_s: float, post_roll_s: float, gop_s: float
) -> None:
    """The clip holds what was promised of this incident, and its hash is the same everywhere."""
    sha256 = hashlib.sha256(clip).hexdigest()
    (part,) = incident["parts"]
    assert part["sha256"] == sha256
    assert hashlib.sha256(Path(part["path"]).read_bytes()).hexdigest() == sha256
    assert sha256 in page
    assert incident["state"] == "closed"
    assert incident["problem"] == ""
    held_s = incident["pre_roll_s"]
    # From the key frame at or before the moment asked for, and not from an earlier one; packets may come a little late.
    assert pre_roll_s <= held_s <= pre_roll_s + gop_s + 0.5
    assert assert_playable_h264(clip) >= held_s + post_roll_s - 0.5


def snapshot(letter: Letter) -> bytes:
    (jpeg,) = [part for part in letter.message.walk() if part.get_content_type() == "image/jpeg"]
    return bytes(jpeg.get_payload(decode=True))


def pictures(source: bytes) -> list[tuple[float, NDArray[np.int16]]]:
    """Seconds and luma of every picture in a clip or a JPEG."""
    with av.open(io.BytesIO(source), "r") as container:
        return [
            (float(frame.time or 0), frame.to_ndarray(format="gray").astype(np.int16)) for frame in container.decode(video=0)
        ]


def assert_shows_the_detection(clip: bytes, jpeg: bytes, held_s: float) -> None:
    """The picture in the mail is the one that lies as far from the clip's beginning as the pre-roll is said to be long."""
    ((_, wanted),) = pictures(jpeg)
    likeness = [(float(np.abs(picture - wanted).mean()), seconds) for seconds, picture in pictures(clip)]
    difference, seconds = min(likeness)
    assert difference < 4
    assert abs(seconds - held_s) < 0.35


async def test_a_movement_becomes_a_link_whose_clip_holds_the_seconds_before_and_after(short_path, log_folder, rtsp_cameras):
    """Motion on an RTSP camera opens one incident; its link plays; the clip is whole, its hash the same everywhere."""
    rtsp = await rtsp_cameras()
    cameras = {"entree": camera(rtsp.url, detectors=["mouvement"], max_clip_s=60)}
    async with boxed(short_path, log_folder, cameras) as box:
        await box.start()
        letter = await box.letter()
        assert letter.link
        assert letter.link.startswith(box.base_url)
        assert letter.message["To"] == "gardien@exemple.fr"
        assert (await fetch(letter.link)).status == 200
        incident, clip = await sealed_clip(box, letter)
        page = (await fetch(letter.link)).text
        assert_story(incident, clip, page, pre_roll_s=2, post_roll_s=1, gop_s=GOP_S)
        assert_shows_the_detection(clip, snapshot(letter), incident["pre_roll_s"])
        assert incident["type"] == "motion"
        assert incident["parts"][0]["duration_s"] < LOOP_S + 3
        assert await box.stop() == 0


@pytest.mark.needs("footage", "gst-rtsp-server")
async def test_real_footage_over_a_real_rtsp_server_becomes_a_link(short_path, log_folder):
    """The whole way on CCTV-like footage: people walk, a mail comes; the clip is whole and begins before the detection.

    They walk from the first picture on, so that the first incident cannot have its whole pre-roll; the second has.
    """
    with gst_rtsp("--file", str(footage())) as url:
        cameras = {"rue": camera(url, detectors=["mouvement"], pre_roll_s=3, post_roll_s=2, max_clip_s=7)}
        async with boxed(short_path, log_folder, cameras) as box:
            await box.start()
            first, second = await box.letter(), await box.letter()
            assert first.link != second.link
            incident, clip = await sealed_clip(box, second)
            page = (await fetch(str(second.link))).text
            # The footage has a key frame every two seconds.
            assert_story(incident, clip, page, pre_roll_s=3, post_roll_s=2, gop_s=2)
            assert_shows_the_detection(clip, snapshot(second), incident["pre_roll_s"])
            incident, clip = await sealed_clip(box, first)
            assert_playable_h264(clip)
            assert 0 <= incident["pre_roll_s"] <= 5


async def test_two_cameras_that_fire_together_while_a_third_reconnects_give_two_mails_and_two_clips(
    short_path, log_folder, rtsp_cameras
):
    """Two incidents in the same second, beside a camera that lost its server: nothing is lost and nobody waits."""
    first, second, third = [await rtsp_cameras() for _ in range(3)]
    cameras = {"entree": camera(first.url), "cour": camera(second.url), "quai": camera(third.url)}
    async with boxed(short_path, log_folder, cameras) as box:
        await box.start()
        for name in cameras:
            await box.event("camera.live", camera=name)
        await third.stop()
        lost = await box.event("camera.lost", camera="quai")
        assert lost["reason"]
        ids = await asyncio.gather(*(box.trigger(name) for name in ("entree", "cour")))
        for incident_id in ids:
            letter = await box.letter(partial(leads_to, incident_id))
            incident, clip = await sealed_clip(box, letter)
            assert_playable_h264(clip)
            assert incident["parts"][0]["sha256"] == hashlib.sha256(clip).hexdigest()
        assert len(box.mailbox.letters) == 2
        counters = (await box.control.status())["counters"]
        assert not any("missed" in name or "dropped" in name for name in counters), counters
        await third.start(port=third.port)
        await box.event("camera.live", camera="quai", nth=2)


async def test_many_triggers_of_one_camera_are_one_incident(short_path, log_folder, rtsp_cameras):
    """Whoever triggers an open incident extends it, and learns its id."""
    rtsp = await rtsp_cameras()
    async with boxed(short_path, log_folder, {"entree": camera(rtsp.url)}) as box:
        await box.start()
        await box.event("camera.live", camera="entree")
        ids = set(await asyncio.gather(*(box.trigger("entree") for _ in range(50))))
        assert len(ids) == 1
        incident = await box.closed(ids.pop())
        assert incident["detections"] == 50
        assert len(box.mailbox.letters) == 1


async def test_what_is_under_way_is_finished_when_the_daemon_is_asked_to_stop(short_path, log_folder, rtsp_cameras):
    """SIGTERM in mid-incident: the clip is sealed and published, the mail is out, the exit code is 0."""
    rtsp = await rtsp_cameras()
    cameras = {"entree": camera(rtsp.url, post_roll_s=30, max_clip_s=60)}
    async with boxed(short_path, log_folder, cameras) as box:
        await box.start()
        await box.event("camera.live", camera="entree")
        incident_id = await box.trigger("entree")
        await box.event("mail.sent", incident=incident_id)
        assert await box.stop() == 0
        assert [event["event"] for event in box.events if event.get("incident") == incident_id][-1] == "incident.closed"


async def test_mails_that_a_killed_daemon_owed_are_sent_by_the_next_one(short_path, log_folder, rtsp_cameras):
    """A mail is a row before it is tried: kill -9 while the mail server refuses, and the next daemon delivers it."""
    rtsp = await rtsp_cameras()
    async with boxed(short_path, log_folder, {"entree": camera(rtsp.url)}) as box:
        port = box.config["mail"]["port"]
        await box.mailbox.stop()
        await box.start()
        await box.event("camera.live", camera="entree")
        incident_id = await box.trigger("entree")
        await box.event("mail.postponed", incident=incident_id)
        await box.kill()
        await box.mailbox.start(port=port)
        await box.start()
        letter = await box.letter()
        assert letter.link
        assert incident_id in letter.link
        assert (await fetch(letter.link)).status == 200


async def test_a_link_is_gone_after_its_48_hours_and_a_wrong_one_never_was(short_path, log_folder, rtsp_cameras):
    """By the clock of the whole process: 200 before, 410 after; a wrong or truncated token is one same 404 all the time."""
    rtsp, clock_file = await rtsp_cameras(), short_path / "clock"
    async with boxed(short_path, log_folder, {"entree": camera(rtsp.url)}) as box:
        box.environ["VIGINTD_TEST_CLOCK_FILE"] = str(clock_file)
        await box.start()
        await box.event("camera.live", camera="entree")
        incident_id = await box.trigger("entree")
        link = (await box.letter()).link
        assert link
        await box.closed(incident_id)
        wrong = [
            link[:-1],
            link[:-1] + ("A" if link[-1] != "A" else "B"),
            link.replace(incident_id, str(UUID(int=7, version=4))),
        ]
        assert (await fetch(link)).status == 200
        before = [await fetch(url) for url in wrong]
        clock_file.write_text(str(48 * 3600 + 60), encoding="ascii")
        assert (await fetch(link)).status == 410
        after = [await fetch(url) for url in wrong]
        assert {answer.status for answer in (*before, *after)} == {404}
        assert len({answer.body for answer in (*before, *after)}) == 1


async def test_people_are_told_although_the_daemon_is_stopped_before_any_link_came(short_path, log_folder, rtsp_cameras):
    """SIGTERM right after a detection, with no host there and `text_after_s` far away: the text goes before the end."""
    rtsp = await rtsp_cameras()
    publish = {"host": "tus", "url": f"http://127.0.0.1:{free_port()}", "api_key": "a-key-that-no-log-may-hold"}
    async with boxed(short_path, log_folder, {"entree": camera(rtsp.url)}, publish=publish) as box:
        await box.start()
        await box.event("camera.live", camera="entree")
        incident_id = await box.trigger("entree")
        await box.event("publish.delayed", incident=incident_id)
        began_s = asyncio.get_running_loop().time()
        assert await box.stop() == 0
        assert asyncio.get_running_loop().time() - began_s < 2 * DRAIN_S
        sent = await box.event("mail.sent", incident=incident_id)
        assert sent["kind"] == "text"
        assert (await box.event("clip.sealed", incident=incident_id))["parts"] == 1
        assert (await box.event("daemon.undrained"))["drain_s"] == DRAIN_S


async def test_people_are_told_by_the_next_daemon_when_one_was_killed_before_any_link_came(
    short_path, log_folder, rtsp_cameras
):
    """Kill -9 between the row and any mail: the alert was owed with the row, and goes when its time has come."""
    rtsp = await rtsp_cameras()
    publish = {"host": "tus", "url": f"http://127.0.0.1:{free_port()}", "api_key": "a-key-that-no-log-may-hold"}
    async with boxed(short_path, log_folder, {"entree": camera(rtsp.url)}, publish=publish, alert={"text_after_s": 3}) as box:
        await box.start()
        await box.event("camera.live", camera="entree")
        incident_id = await box.trigger("entree")
        await box.kill()
        assert len(box.mailbox.letters) == 0
        await box.start()
        letter = await box.letter()
        assert letter.link is None
        assert incident_id in str(await box.event("mail.sent", kind="text"))


async def test_a_journal_that_fails_once_costs_neither_the_daemon_nor_a_second_mail(short_path, log_folder, rtsp_cameras):
    """The row of a sent mail cannot be settled at first: the daemon lives on, and the mail is there once."""
    rtsp = await rtsp_cameras()
    async with boxed(short_path, log_folder, {"entree": camera(rtsp.url)}) as box:
        box.environ["VIGINTD_FAILPOINTS"] = "journal.settle.before=error"
        await box.start()
        await box.event("camera.live", camera="entree")
        incident_id = await box.trigger("entree")
        await box.letter()
        await box.event("courier.delayed", error="failpoint journal.settle.before")
        incident = await box.closed(incident_id)
        assert [effect["state"] for effect in incident["effects"]] == ["done", "done"]
        assert len(box.mailbox.letters) == 1
        assert await box.stop() == 0


async def test_a_detector_that_cannot_be_built_is_said_before_the_daemon_is_ready(short_path, log_folder):
    """An option that is wrong is a sentence and exit 1, not a daemon that is ready and then gone."""
    cameras = {"entree": camera("rtsp://127.0.0.1:1/cam", detectors=["mouvement"])}
    detectors = {"mouvement": {"kind": "motion", "sensitivity": "enormous"}}
    async with boxed(short_path, log_folder, cameras, detectors=detectors) as box:
        with pytest.raises(AssertionError, match=r"vigintd ended without daemon\.ready"):
            await box.start()
        assert "sensitivity" in box.log_tail()
        assert "Traceback" not in box.log_tail()
        assert await box.stop() == 1


async def test_a_state_folder_whose_name_is_too_long_for_a_socket_is_said_with_what_to_do(short_path, log_folder):
    """Before anything runs, in a sentence that names the key."""
    folder = short_path / ("x" * 100)
    folder.mkdir()
    async with boxed(folder, log_folder, {"entree": camera("rtsp://127.0.0.1:1/cam")}) as box:
        with pytest.raises(AssertionError, match=r"vigintd ended without daemon\.ready"):
            await box.start()
        assert "runtime_dir" in box.log_tail()
        assert "Traceback" not in box.log_tail()
        assert await box.stop() == 1
