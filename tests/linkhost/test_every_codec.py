"""Whatever a camera sends, its clip plays on the page: recorded by the recorder, shown by a real browser."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from tests.clip.pictures import CODECS, FPS, Played, coded, with_sound
from tests.linkhost.client import CLIP, GUARD, path_of
from tests.real.parts import chromium
from vigintd.clip.recorder import ClipRecorder
from vigintd.spool import PartFile, Spool

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.needs("ffmpeg")]

SIZE = 320, 180
SECONDS = 2
DEADLINE_S = 30.0
STATE = "[video.currentTime, video.readyState, video.error && video.error.message, video.currentSrc]"


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """One for all codecs."""
    with chromium() as driver:
        yield driver


async def until(browser: webdriver.Chrome, expression: str) -> None:
    """Wait until an expression about the player is true; says what the player was doing when it never is."""

    def ask(what: str) -> object:
        return browser.execute_script(f"const video = document.getElementById('video'); return {what};")

    end_s = time.monotonic() + DEADLINE_S
    while not await asyncio.to_thread(ask, expression):
        assert time.monotonic() < end_s, f"never {expression}; player: {await asyncio.to_thread(ask, STATE)}"


async def probed(path: Path) -> list[str]:
    """The codecs of a file's tracks, as ffprobe names them."""
    command = ("ffprobe", "-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", str(path))
    probe = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await probe.communicate()
    assert probe.returncode == 0
    return said.decode().split()


@pytest.mark.parametrize(
    ("encoder", "sound"), [("libx264", "pcm_alaw"), ("libx265", "aac"), ("mjpeg", ""), ("mpeg4", ""), ("libsvtav1", "")]
)
async def test_a_clip_of_each_codec_plays_live_and_finished(client, browser, tmp_path, encoder, sound):
    """H.264 (and AAC) whatever came, played by Media Source while it grows and as a file afterwards; the original is kept."""
    codec = CODECS.get(encoder, encoder)
    packets = coded(SECONDS * FPS, encoder=encoder, size=SIZE)
    spool, parts = Spool(tmp_path / "spool"), list[PartFile]()
    recorder = ClipRecorder(spool, CLIP, on_part=parts.append, keep_original=True)
    await recorder.write(with_sound(packets, sound) if sound else packets)
    (sealed,) = await recorder.seal()
    data = parts[0].path.read_bytes()
    played = Played(data)
    played.assert_plays()
    assert len(played.frames) == len(packets)
    assert sealed.duration_s == pytest.approx(SECONDS)
    aac = ["aac"] if sound else []
    assert await probed(parts[0].path) == ["h264", *aac]
    assert [original.codec for original in recorder.originals] == ([] if codec == "h264" else [codec])
    for original in recorder.originals:
        assert await probed(spool.source_path(CLIP, original.index)) == [codec, *aac]

    link = path_of((await client.create()).json["links"][GUARD])
    await client.append(data, 0)
    await asyncio.to_thread(browser.get, client.base + link)
    heard = " && video.webkitAudioDecodedByteCount > 0" if sound else ""
    await until(browser, f"video.currentSrc.startsWith('blob:') && video.currentTime > 0.5 && video.videoWidth === 320{heard}")
    await client.seal(data)
    await client.update(ended=True)
    await asyncio.to_thread(browser.get, client.base + link)
    await until(browser, "document.getElementById('play').checkVisibility()")
    await asyncio.to_thread(lambda: browser.find_element("id", "play").click())
    await until(browser, f"video.currentSrc.includes('/play/0.mp4') && video.currentTime > 0.5{heard}")
    await recorder.aclose()
    await spool.aclose()
