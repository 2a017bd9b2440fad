"""The link of a mail, opened in a real browser."""

from __future__ import annotations

import asyncio

import pytest
from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait

from tests.daemon.box import DEADLINE_S, boxed, camera
from tests.real.parts import PHONE, chromium


def played_s(browser: webdriver.Chrome) -> float:
    return float(browser.execute_script("const v = document.querySelector('video'); return v ? v.currentTime : 0"))


@pytest.mark.needs("chromium")
async def test_a_mailed_link_plays_on_a_phone_while_the_incident_goes_on_and_then_shows_its_hash(
    short_path, log_folder, rtsp_cameras
):
    """Opened while it is recorded, the page plays past three seconds; once over, the same page shows the clip's SHA-256."""
    rtsp = await rtsp_cameras()
    async with boxed(short_path, log_folder, {"entree": camera(rtsp.url, post_roll_s=9, max_clip_s=60)}) as box:
        await box.start()
        await box.event("camera.live", camera="entree")
        incident_id = await box.trigger("entree")
        letter = await box.letter()

        def watch() -> str:
            with chromium(PHONE, mobile=True) as browser:
                browser.get(str(letter.link))
                WebDriverWait(browser, DEADLINE_S).until(lambda _: played_s(browser) > 3)
                went_on = not any(event["event"] == "incident.closed" for event in box.events)
                assert went_on, "the incident was over before the page had played three seconds"
                sealed = "return document.body.innerText.match(/[0-9a-f]{64}/)?.[0] ?? ''"
                return str(WebDriverWait(browser, DEADLINE_S).until(lambda _: browser.execute_script(sealed)))

        shown = await asyncio.to_thread(watch)
        incident = await box.closed(incident_id)
        assert shown == incident["parts"][0]["sha256"]
