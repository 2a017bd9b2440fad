"""A real browser that looks at pages: headless Chromium, driven by Debian's chromedriver."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from tests.linkhost.client import Client
from tests.linkhost.videos import fragments

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
        self._scripts: list[str] = []

    async def forget(self) -> None:
        """As if just installed: scripts on, light, Media Source there, nothing said."""
        await self.command("Emulation.setScriptExecutionDisabled", value=False)
        await self.command("Emulation.setEmulatedMedia", features=[])
        for identifier in self._scripts:
            await self.command("Page.removeScriptToEvaluateOnNewDocument", identifier=identifier)
        self._scripts.clear()
        await self.log()

    async def before_pages(self, script: str) -> None:
        """Run this before any script of every page from now on."""
        added = await self.command("Page.addScriptToEvaluateOnNewDocument", source=script)
        self._scripts.append(added["identifier"])

    async def paint(self, scheme: str) -> None:
        """Prefer `dark` or `light`."""
        await self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

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

    async def tap(self, element_id: str) -> None:
        """A person's click, as far as a page can tell."""
        await asyncio.to_thread(lambda: self.driver.find_element("id", element_id).click())

    async def press(self, element_id: str, key: str) -> None:
        """A person's key, pressed on an element."""
        await asyncio.to_thread(lambda: self.driver.find_element("id", element_id).send_keys(key))

    async def shot(self, name: str) -> None:
        """A picture of the whole page, where `VIGINTD_TEST_SHOTS` names a folder."""
        if folder := os.environ.get("VIGINTD_TEST_SHOTS"):
            height = await self.ask("document.documentElement.scrollHeight")
            width = await self.ask("innerWidth")
            clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
            answer = await self.command("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
            (Path(folder) / f"{name}.png").write_bytes(base64.b64decode(answer["data"]))


@contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """A Chromium that speaks French, with a profile of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"intl.accept_languages": "fr-FR,fr"})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(shutil.which("chromedriver"))))
    try:
        yield driver
    finally:
        driver.quit()


async def record(client: Client, data: bytes, ready: Callable[[int], Awaitable[object]]) -> None:
    """Send the fragments one by one, each when `ready` says so."""
    offset = 0
    for number, piece in enumerate(fragments(data)):
        await ready(number)
        assert (await client.append(piece, offset)).status == 204
        offset += len(piece)
