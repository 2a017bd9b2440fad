"""The page in a real browser: live, finished, in parts, sent wrong, and gone."""

from __future__ import annotations

import pytest

from tests.linkhost.browser import DESKTOP, PHONE, SIZES, record
from tests.linkhost.client import CLIP, GUARD, path_of, rows
from tests.linkhost.videos import video
from vigintd.linkhost import AuditKind

pytestmark = pytest.mark.needs("chromium")


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
    assert await browser.log() == []
    assert AuditKind.PLAY not in {row.kind for row in await host.audit(CLIP)}
    await browser.tap("state")
    assert (await rows(host, AuditKind.PLAY, 1))[0].detail["bytes"] == len(data)


@SIZES
async def test_a_finished_clip_plays_and_seeks(client, browser, size):
    """The finished file plays past its third second, knows its length and can be sought in; nothing overflows the screen."""
    data = video(6, width=640, height=360)
    link = await client.publish(data)
    await browser.open(client.base + link, size)
    await browser.until("document.getElementById('play').checkVisibility()")
    await browser.shot(f"finished-{size[0]}")
    await browser.tap("play")
    await browser.until("video.currentTime > 3 && video.videoWidth === 640")
    assert await browser.ask("video.currentSrc.includes('/play/0.mp4') && !video.muted")
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
    await browser.press("video", " ")
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
    await browser.tap("play")
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
    await browser.paint("dark")
    await browser.open(client.base + link, PHONE)
    await browser.shot("dark-390")
    await browser.open(client.base + link[:-1], PHONE)
    assert "Rien à cette adresse" in await browser.ask("document.body.innerText")
    await browser.shot("not-found-390")
    clock.jump(49 * 3600)
    await browser.open(client.base + link, PHONE)
    assert "n’est plus disponible" in await browser.ask("document.body.innerText")
    await browser.shot("gone-390")
