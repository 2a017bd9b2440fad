"""How the page comes to play, in a real browser: by itself or by a person's act, with Media Source and without."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.linkhost.browser import DESKTOP, PHONE
from tests.linkhost.client import CLIP, GUARD, eventually, path_of, rows
from tests.linkhost.videos import fragments, video
from tests.real.parts import axe
from vigintd.linkhost import AuditKind

pytestmark = pytest.mark.needs("chromium")

NO_MEDIA_SOURCE = "delete window.MediaSource; delete window.ManagedMediaSource;"
STATE = "document.getElementById('state').classList"
NOTE_FIRST_PICTURE = """
document.addEventListener("DOMContentLoaded", () =>
  document.getElementById("video").addEventListener("timeupdate", (event) => {
    if (event.target.currentTime > 0) window.began ??= Date.now() / 1000;
  }));
"""


async def test_the_page_plays_within_two_seconds_of_the_first_fragment(client, browser):
    """It waited with the link open; nobody touched it."""
    pieces = fragments(video(3))
    link = path_of((await client.create()).json["links"][GUARD])
    await browser.before_pages(NOTE_FIRST_PICTURE)
    await browser.open(client.base + link, PHONE)
    await browser.until("document.getElementById('coming').checkVisibility()")
    await client.append(pieces[0] + pieces[1], 0)
    there = time.time()
    assert await browser.until("window.began") - there < 2


async def test_without_media_source_the_playlist_is_played_and_then_the_file(client, host, browser):
    """A tap starts the browser's own HLS on the growing clip; when it is over the player can be moved about in it."""
    data = video(8)
    half = b"".join(fragments(data)[:10])
    link = path_of((await client.create()).json["links"][GUARD])
    await client.append(half, 0)
    await browser.before_pages(NO_MEDIA_SOURCE)
    await browser.open(client.base + link, PHONE)
    assert await browser.ask("!window.MediaSource && video.canPlayType('application/vnd.apple.mpegurl')")
    # Chromium's reader of playlists fails when it runs out of video, as it does at four times the speed.
    await browser.ask("video.defaultPlaybackRate = video.playbackRate = 1")
    await browser.until("document.getElementById('play').checkVisibility()")
    assert {row.kind for row in await host.audit(CLIP)}.isdisjoint({AuditKind.PLAY, AuditKind.DOWNLOAD})
    await browser.tap("play")
    await browser.until("video.currentSrc.includes('/playlist.m3u8') && video.currentTime > 0.5 && video.videoWidth === 320")
    assert await browser.ask(f"{STATE}.contains('recording')")
    await client.append(data[len(half) :], len(half))
    await client.seal(data)
    await client.update(ended=True)
    await browser.until(f"{STATE}.contains('finished')")
    await browser.ask("video.currentTime = 7")
    await browser.until("!video.seeking && video.currentTime > 7")
    await browser.ask("(video.pause(), video.currentTime = 2)")
    await browser.until("!video.seeking && video.currentTime === 2 && !video.error")
    assert (await rows(host, AuditKind.PLAY, 1))[0].detail["by"] == "hls"


async def test_a_page_that_nobody_touches_is_no_play(client, host, browser):
    """A mail scanner with a browser of its own: what goes on shows itself, what is finished does not move; all are probes."""
    data = video(2)
    link = path_of((await client.create()).json["links"][GUARD])
    await client.append(data, 0)
    await browser.open(client.base + link, DESKTOP)
    await browser.until("video.currentTime > 0.5 && video.muted")
    await client.seal(data)
    await client.update(ended=True)
    (probe,) = await eventually(host, lambda row: row.detail.get("what") == "autoplay", 1)
    assert (probe.kind, probe.recipient, probe.detail["bytes"]) == (AuditKind.PROBE, GUARD, len(data))
    await browser.open(client.base + link, DESKTOP)
    await browser.until("document.getElementById('play').checkVisibility()")
    # What a page says of itself is no act of a person.
    await browser.ask("document.dispatchEvent(new PointerEvent('pointerdown', {bubbles: true}))")
    assert await browser.ask("video.paused && video.readyState === 0")
    assert {row.kind for row in await host.audit(CLIP)} == {AuditKind.UPLOAD, AuditKind.LINK, AuditKind.PROBE}
    await browser.tap("play")
    await browser.until("video.currentTime > 0.5 && !video.muted")
    assert (await rows(host, AuditKind.PLAY, 1))[0].detail["by"] == "play"


async def test_a_link_opened_late_shows_what_came_before(client, host, browser):
    """In its second part the clip still begins with the pre-roll, by itself, and goes on to what is new."""
    first, second = video(2), video(2, width=480)
    link = path_of((await client.create()).json["links"][GUARD])
    await client.append(first, 0)
    await client.seal(first)
    await client.create(part=1)
    await client.append(second, 0, part=1)
    await browser.open(client.base + link, DESKTOP)
    await browser.until("video.videoWidth === 320 && video.currentTime > 0.3")
    await browser.until("video.videoWidth === 480 && video.currentTime > 0.3")
    assert AuditKind.PLAY not in {row.kind for row in await host.audit(CLIP)}


async def test_what_was_interrupted_plays_at_a_tap(client, browser, clock):
    """As far as it came, from memory, and nothing starts by itself."""
    link = path_of((await client.create()).json["links"][GUARD])
    await client.append(video(2), 0)
    clock.jump(61)
    await browser.open(client.base + link, PHONE)
    await browser.until("document.getElementById('play').checkVisibility() && video.paused")
    await browser.tap("play")
    await browser.until("video.currentSrc.startsWith('blob:') && video.currentTime > 0.5 && !video.muted")


async def test_what_memory_gave_up_is_fetched_anew(client, browser):
    """A phone takes from a managed source what was fed to it; going back there still works, live."""
    data = video(6)
    link = path_of((await client.create()).json["links"][GUARD])
    await client.append(data, 0)
    await browser.before_pages(
        "const add = MediaSource.prototype.addSourceBuffer;"
        "MediaSource.prototype.addSourceBuffer = function (...all) { return (window.fed = add.apply(this, all)); };"
    )
    await browser.open(client.base + link, DESKTOP)
    await browser.until("video.currentTime > 3 && !window.fed.updating")
    first = await browser.ask("(window.before = window.fed, video.currentSrc)")
    await browser.ask(
        "(fed.addEventListener('updateend', () => fed.dispatchEvent(Object.assign(new Event('bufferedchange'),"
        " {removedRanges: [0]})), {once: true}), fed.remove(0, 2.5))"
    )
    await browser.until("video.buffered.start(0) > 1")
    await browser.ask("(video.playbackRate = video.defaultPlaybackRate = 1, video.currentTime = 0.5)")
    await browser.until(f"video.currentSrc !== '{first}' && video.currentTime > 0.6 && video.currentTime < 3 && !video.error")


@pytest.mark.needs("axe-core")
async def test_axe_finds_no_serious_fault(client, browser, clock):
    """On the page of a clip that goes on, is interrupted, is finished in two parts, and is gone, light and dark."""
    found = axe()
    assert found is not None
    script = await asyncio.to_thread(found.read_text, encoding="utf-8")
    run = (
        "axe.run(document, {resultTypes: ['violations']}).then((result) => arguments[arguments.length - 1](result.violations));"
    )

    async def faults() -> list[tuple[str, str]]:
        seen = []
        for scheme in ("light", "dark"):
            await browser.paint(scheme)
            await browser.open(client.base + link, PHONE)
            await browser.until("document.readyState === 'complete'")
            violations = await asyncio.to_thread(browser.driver.execute_async_script, script + run)
            await browser.shot(f"{await browser.ask('document.querySelector(`main`).dataset.state')}-{scheme}")
            seen += [
                (fault["id"], node["html"])
                for fault in violations
                for node in fault["nodes"]
                if fault["impact"] in ("serious", "critical")
            ]
        return seen

    first, second = video(2), video(2, width=480)
    link = path_of((await client.create()).json["links"][GUARD])
    await client.append(first, 0)
    assert await faults() == []
    clock.jump(61)
    assert await faults() == []
    await client.seal(first)
    await client.create(part=1)
    await client.append(second, 0, part=1)
    await client.seal(second, part=1)
    await client.update(ended=True)
    assert await faults() == []
    clock.jump(49 * 3600)
    assert await faults() == []
