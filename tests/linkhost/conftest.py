"""A link host on real sockets, with a clock moved by hand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
import structlog
from selenium import webdriver

from tests.linkhost.browser import Browser, chromium
from tests.linkhost.client import BASE_URL, KEY, OTHER_KEY, Client
from tests.manual_clock import ManualClock
from vigintd import logs
from vigintd.linkhost import LinkHost

API_KEYS = {"nvr": KEY, "autre": OTHER_KEY}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def host(tmp_path, clock) -> AsyncIterator[LinkHost]:
    """A link host on a free port of this machine."""
    host = LinkHost(tmp_path / "linkhost", base_url=BASE_URL, api_keys=API_KEYS, clock=clock, max_clip_bytes=2_000_000)
    await host.start(listen=("127.0.0.1", 0), unix_path=None)
    yield host
    await host.aclose()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False, connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


@pytest.fixture
def log_text(tmp_path):
    """Everything logged during the test, at the most talkative level: call it to read what there is so far."""
    before, handlers, level = structlog.get_config(), logging.root.handlers[:], logging.root.level
    with (tmp_path / "log").open("w+", encoding="utf-8") as stream:
        logs.configure("json", level="debug", stream=stream)
        yield lambda: (stream.flush(), (tmp_path / "log").read_text(encoding="utf-8"))[1]
        structlog.configure(**before)
        logging.basicConfig(handlers=handlers, level=level, force=True)


@pytest.fixture
def client(host, session) -> Client:
    """The uploader `nvr`, and any viewer, over TCP."""
    return Client(session, f"http://127.0.0.1:{host.port}")


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> Iterator[webdriver.Chrome]:
    """One Chromium for all tests of a file."""
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
async def browser(driver) -> AsyncIterator[Browser]:
    """That Chromium, showing nothing; what a test makes of it is undone."""
    browser = Browser(driver)
    yield browser
    await asyncio.to_thread(driver.get, "about:blank")
    await browser.forget()
