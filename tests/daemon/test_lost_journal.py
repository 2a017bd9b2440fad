"""A daemon whose journal was damaged while it was away starts all the same, and its incidents go on from their files."""

from __future__ import annotations

from tests.daemon.box import boxed, camera
from tests.daemon.test_restart import assert_link_shows_the_clip, assert_nobody_was_told_twice


async def test_a_journal_damaged_by_a_power_cut_costs_no_incident(short_path, log_folder, rtsp_cameras):
    """Cut in mid-recording: the mailed link shows the clip as far as it came, and the status says what happened."""
    rtsp = await rtsp_cameras()
    async with boxed(short_path, log_folder, {"entree": camera(rtsp.url, post_roll_s=20)}) as box:
        await box.start()
        await box.event("camera.live", camera="entree")
        incident_id = await box.control.trigger("entree")
        letter = await box.letter()
        assert letter.link
        await box.kill()
        assert (box.state_dir / "spool" / f"{incident_id}.incident.json").exists()
        with (box.state_dir / "journal.sqlite3").open("r+b") as file:
            file.write(b"\xff" * 4096)
        await box.start()
        rebuilt = await box.event("journal.rebuilt")
        assert (rebuilt["level"], rebuilt["adopted"], rebuilt["guessed"]) == ("error", 1, 0)
        assert (await box.control.status())["journal"]["damaged"] == rebuilt["damaged"]
        await assert_link_shows_the_clip(box, incident_id, letter.link)
        assert_nobody_was_told_twice(box)
