"""The page in a real browser: headless Chromium, driven by Debian's chromedriver."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from tests.linkhost.client import GUARD, Client, path_of, rows
from tests.linkhost.videos import fragments, video
from vigintd.linkhost import AuditKind

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = pytest.mark.needs("chromium")

PHONE, DESKTOP = (390, 844), (1280, 800)
SIZES = pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
DEADLINE_S = 30.0
SPEED = 4
"""Clips are shown faster than they are, but where a test must see a moment go by."""

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


class Browser:
    """A browser that asks questions of a page, off the loop that serves it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    async def open(self, url: str, size: tuple[int, int]) -> None:
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
        await self.command("Emulation.setDeviceMetricsOverride", **metrics)
        await asyncio.to_thread(self.driver.get, url)
        await self.ask(f"video && (video.defaultPlaybackRate = video.playbackRate = {SPEED})")

    async def command(self, name: str, **arguments: Any) -> Any:
        """A command of the DevTools protocol."""
        return await asyncio.to_thread(self.driver.execute_cdp_cmd, name, arguments)

    async def log(self) -> list[Any]:
        """What the console said since the last time."""
        return list(await asyncio.to_thread(self.driver.get_log, "browser"))

    async def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression; `video` is the player."""
        script = f"const video = document.getElementById('video'); return {expression};"
        return await asyncio.to_thread(self.driver.execute_script, script)

    async def until(self, expression: str) -> Any:
        """Wait until an expression is true; says what the player was doing when it never is."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not (value := await self.ask(expression)):
                    pass
        except TimeoutError:
            state = (
                "[video.currentTime, video.duration, video.readyState, video.error && video.error.message, video.currentSrc]"
            )
            raise AssertionError(f"never {expression}; player: {await self.ask(state)}; console: {await self.log()}") from None
        return value

    async def shot(self, name: str) -> None:
        """A picture of the whole page, where `VIGINTD_TEST_SHOTS` names a folder."""
        if folder := os.environ.get("VIGINTD_TEST_SHOTS"):
            height = await self.ask("document.documentElement.scrollHeight")
            width = await self.ask("innerWidth")
            clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
            answer = await self.command("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
            (Path(folder) / f"{name}.png").write_bytes(base64.b64decode(answer["data"]))


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> Iterator[webdriver.Chrome]:
    """One Chromium for all tests here, with a profile of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"intl.accept_languages": "fr-FR,fr"})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
async def browser(driver) -> AsyncIterator[Browser]:
    """That Chromium, showing nothing, with nothing left over from another test."""
    browser = Browser(driver)
    await browser.command("Emulation.setScriptExecutionDisabled", value=False)
    await browser.command("Emulation.setEmulatedMedia", features=[])
    await browser.log()
    yield browser
    await asyncio.to_thread(driver.get, "about:blank")


async def record(client: Client, data: bytes, ready: Callable[[int], Awaitable[object]]) -> None:
    """Send the fragments one by one, each when `ready` says so."""
    offset = 0
    for number, piece in enumerate(fragments(data)):
        await ready(number)
        assert (await client.append(piece, offset)).status == 204
        offset += len(piece)


@SIZES
async def test_the_page_plays_while_the_upload_goes_on_and_passes_to_finished(client, host, browser, size):
    """The clip plays from its first fragments on, can be scrubbed back, and the page finishes by itself."""
    data = video(6, width=640, height=360)
    link = path_of((await client.create()).json["links"][GUARD])
    await browser.open(client.base + link, size)
    assert await browser.ask("document.getElementById('coming').checkVisibility()")

    async def as_it_plays(number: int) -> None:
        # The head and two seconds at once, as a pre-roll comes; then each half second as the player nears it.
        if number > 5:
            await browser.until(f"video.currentTime > {(number - 5) * 0.5}")

    await record(client, data, as_it_plays)
    assert await browser.ask("document.getElementById('state').textContent.trim()") == "Enregistrement en cours"
    await browser.until("video.currentTime > 3 && video.videoWidth === 640")
    await browser.shot(f"recording-{size[0]}")
    await browser.ask("(video.playbackRate = 1, video.currentTime = 1)")
    await browser.until("!video.seeking && video.currentTime > 1.2 && video.currentTime < 3")
    await client.seal(data)
    await client.update(ended=True)
    await browser.until("document.getElementById('state').textContent.trim() === 'Enregistrement terminé'")
    assert await browser.ask("document.querySelectorAll('a[download]').length") == 1
    await browser.ask("video.currentTime = 5.5")
    await browser.until("video.ended")
    assert await browser.ask("Math.abs(video.duration - 6) < 0.2")
    assert (await rows(host, AuditKind.PLAY, 1))[0].detail["bytes"] == len(data)
    assert await browser.log() == []


@SIZES
async def test_a_finished_clip_plays_and_seeks(client, browser, size):
    """The finished file plays past its third second, knows its length and can be sought in; nothing overflows the screen."""
    data = video(6, width=640, height=360)
    link = await client.publish(data)
    await browser.open(client.base + link, size)
    await browser.until("video.currentTime > 3 && video.videoWidth === 640")
    await browser.shot(f"finished-{size[0]}")
    assert await browser.ask("Math.abs(video.duration - 6) < 0.2")
    await browser.ask("video.currentTime = 5")
    await browser.until("!video.seeking && video.currentTime > 5.1")
    await browser.ask("(video.playbackRate = 1, video.currentTime = 1)")
    await browser.until("!video.seeking && video.currentTime > 1.1 && video.currentTime < 5")
    assert await browser.ask("document.documentElement.scrollWidth <= innerWidth")
    assert await browser.log() == []


async def test_a_finished_clip_plays_without_javascript(client, browser):
    """With scripts switched off the player, the hash and the download are there all the same."""
    link = await client.publish(video(4))
    await browser.command("Emulation.setScriptExecutionDisabled", value=True)
    await browser.open(client.base + link, PHONE)
    await browser.until("video.currentTime > 1")


async def test_parts_play_one_after_the_other(client, browser):
    """When the camera's stream changed, the second part follows the first by itself, recording or finished."""
    first, second = video(2, width=320), video(2, width=480, height=270)
    link = path_of((await client.create()).json["links"][GUARD])
    await browser.open(client.base + link, DESKTOP)
    await client.append(first, 0)
    await browser.until("video.videoWidth === 320 && video.currentTime > 0.5")
    await client.seal(first)
    await client.create(part=1)
    await client.append(second, 0, part=1)
    await browser.until("video.videoWidth === 480 && video.currentTime > 0.5")
    await client.seal(second, part=1)
    await client.update(ended=True)
    await browser.until("document.getElementById('state').classList.contains('finished')")
    await browser.open(client.base + link, DESKTOP)
    await browser.until("video.videoWidth === 480 && video.currentTime > 0.5")
    assert await browser.ask("document.querySelector('[aria-current]').dataset.part") == "1"
    await browser.ask("document.querySelector('[data-part=\"0\"]').click()")
    await browser.until("video.videoWidth === 320")
    await browser.shot("parts-1280")


async def test_a_part_that_was_sent_wrong_is_shown_anew(client, browser):
    """After a seal that did not fit, the page says so, and plays what is sent again."""
    wrong, right = video(3, hue=80), video(3)
    link = path_of((await client.create()).json["links"][GUARD])
    await browser.open(client.base + link, PHONE)
    await client.append(wrong, 0)
    await browser.until("video.currentTime > 0.3")
    await client.seal(right)
    await browser.until("document.querySelector('.note.warn') !== null")
    await client.append(right, 0)
    await client.seal(right)
    await client.update(ended=True)
    await browser.until("document.querySelector('.note.good') !== null")
    await browser.until("video.currentTime > 1 && !video.error")


async def test_other_pages_read_well(client, browser, clock):
    """What is shown in the place of a clip: unknown, gone, not yet there, in the dark."""
    link = await client.publish(video(3))
    await browser.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    await browser.open(client.base + link, PHONE)
    await browser.until("video.currentTime > 1")
    await browser.shot("dark-390")
    await browser.open(client.base + link[:-1], PHONE)
    assert "Rien à cette adresse" in await browser.ask("document.body.innerText")
    await browser.shot("not-found-390")
    clock.jump(49 * 3600)
    await browser.open(client.base + link, PHONE)
    assert "n’est plus disponible" in await browser.ask("document.body.innerText")
    await browser.shot("gone-390")
