"""A daemon that is killed loses nothing that was acknowledged: the next one seals, publishes and tells."""

from __future__ import annotations

import hashlib

from tests.daemon.box import Box, boxed, camera
from tests.daemon.test_story import assert_playable_h264
from tests.daemon.web import fetch


async def assert_link_shows_the_clip(box: Box, incident_id: str, link: str) -> None:
    """The link of the mail brings the bytes that were sealed, and they play."""
    incident = await box.closed(incident_id)
    (part,) = incident["parts"]
    clip = await fetch(link.replace("?token=", "/part/0.mp4?token="))
    assert clip.status == 200
    assert hashlib.sha256(clip.body).hexdigest() == part["sha256"]
    assert_playable_h264(clip.body)


def assert_nobody_was_told_twice(box: Box, *, kills: int = 1) -> None:
    """A kill between the server's answer and the commit may send one mail again; it is then the same message."""
    letters = box.mailbox.letters
    assert len(letters) <= 1 + kills
    assert len({letter.message["Message-ID"] for letter in letters}) == 1


async def test_a_clip_that_a_kill_cut_is_sealed_and_its_link_goes_on_showing_it(short_path, log_folder, rtsp_cameras):
    """Killed after the mail, in mid-recording: the mailed link shows the clip as far as it came, and says that it was cut."""
    rtsp = await rtsp_cameras()
    async with boxed(short_path, log_folder, {"entree": camera(rtsp.url, post_roll_s=20)}) as box:
        await box.start()
        await box.event("camera.live", camera="entree")
        incident_id = await box.trigger("entree")
        letter = await box.letter()
        assert letter.link
        await box.kill()
        assert not [event for event in box.events if event["event"] == "clip.sealed"]
        await box.start()
        await box.event("incident.recovered", incident=incident_id)
        await assert_link_shows_the_clip(box, incident_id, letter.link)
        incident = await box.control.incident(incident_id)
        assert incident
        assert "stopped while it recorded" in incident["parts"][0]["partial"]
        assert {effect["state"] for effect in incident["effects"]} == {"done"}
        assert_nobody_was_told_twice(box)
