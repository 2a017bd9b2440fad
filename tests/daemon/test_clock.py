"""Somebody sets the clock, while the daemon runs or while it does not: alerts go in time, and nothing is deleted."""

from __future__ import annotations

import pytest

from tests.daemon.box import Box, boxed, camera
from tests.daemon.web import fetch

DAY_S = 86_400
YEARS_2_S = 730 * DAY_S
IN_TIME_S = 20.0


def files(box: Box) -> set[str]:
    """Every clip there is: in the spool, and with the link host."""
    folders = (box.state_dir / "spool", box.state_dir / "linkhost" / "clips")
    return {str(path) for folder in folders for path in folder.glob("*.mp4")}


async def told_in_time(box: Box) -> str:
    """Trigger, and wait for the alert; answers its link, which plays."""
    incident_id = await box.trigger("entree")
    letter = await box.letter(lambda letter: incident_id in (letter.link or ""))
    assert letter.link
    assert (await fetch(letter.link)).status == 200
    await box.closed(incident_id)  # what is triggered before would only prolong it
    return letter.link


async def test_a_clock_that_is_set_costs_nobody_an_alert_or_a_clip(short_path, log_folder, rtsp_cameras):
    """Two years on while the daemon is down, with an alert owed; then, while it runs, to a day back. Both are told."""
    rtsp, clock_file = await rtsp_cameras(), short_path / "clock"
    async with boxed(short_path, log_folder, {"entree": camera(rtsp.url)}, alert={"text_after_s": IN_TIME_S}) as box:
        box.environ["VIGINTD_TEST_CLOCK_FILE"] = str(clock_file)
        await box.start()
        await box.event("camera.live", camera="entree")
        link = await told_in_time(box)
        port = box.config["mail"]["port"]
        await box.mailbox.stop()
        owed = await box.trigger("entree")
        await box.event("mail.postponed", incident=owed)
        await box.kill()
        before = files(box)

        clock_file.write_text(str(YEARS_2_S), encoding="ascii")
        await box.mailbox.start(port=port)
        await box.start()
        assert (await box.event("clock.jumped"))["by_s"] == pytest.approx(YEARS_2_S, abs=1)
        assert (await fetch(link)).status == 410
        assert (await box.letter(lambda letter: owed in (letter.link or ""))).link
        await box.event("camera.live", camera="entree")
        await told_in_time(box)

        clock_file.write_text(str(-DAY_S), encoding="ascii")
        assert (await box.event("clock.jumped", nth=2))["by_s"] == pytest.approx(-YEARS_2_S - DAY_S, abs=1)
        assert (await fetch(link)).status == 200
        await told_in_time(box)
        assert before <= files(box)
        assert not [event for event in box.events if event["event"] in ("spool.expired", "linkhost.clip_expired")]
