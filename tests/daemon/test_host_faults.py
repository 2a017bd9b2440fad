"""The whole daemon with its host elsewhere, behind a line with faults: people are told in time, and no clip is lost.

The cases one by one are in tests/faults; here are those in which many rooms have a part.
"""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
import pytest_asyncio

from tests.daemon.box import Box, boxed, camera, free_port
from tests.daemon.test_story import assert_playable_h264
from tests.daemon.web import fetch
from tests.faults.street import at, http, in_body
from tests.real.fault_proxy import FaultProxy
from tests.real.network_faults import Answer, Reset
from vigintd.clock import SystemClock
from vigintd.demo.mailbox import Letter
from vigintd.demo.rtsp import RtspCamera
from vigintd.linkhost import LinkHost

pytestmark = pytest.mark.asyncio(loop_scope="module")

FPS = 15
TEXT_AFTER_S = 3.0
KEY = "a-key-that-no-log-may-hold"
CAMERAS = ("entree", "cour", "quai")


@dataclass
class Stage:
    box: Box
    proxy: FaultProxy

    async def story(self, name: str) -> str:
        """Trigger a camera; the incident's id."""
        await self.box.event("camera.live", camera=name)
        return await self.box.trigger(name)

    async def letter(self, incident_id: str, *, kind: str) -> Letter:
        """The next mail of an incident, which is of this kind."""
        await self.box.event("mail.sent", incident=incident_id, kind=kind)
        return await self.box.letter(lambda letter: incident_id in letter.text)

    async def waited_s(self, incident_id: str) -> float:
        """From the detection to the first mail."""
        moments = [await self.box.event(event, incident=incident_id) for event in ("incident.opened", "mail.sent")]
        opened, sent = (datetime.fromisoformat(moment["timestamp"]) for moment in moments)
        return (sent - opened).total_seconds()

    async def clip(self, incident_id: str) -> bytes:
        """As it lies in the spool."""
        await self.box.event("clip.sealed", incident=incident_id)
        incident = await self.box.control.incident(incident_id)
        assert incident
        return Path(incident["parts"][0]["path"]).read_bytes()

    async def assert_plays(self, letter: Letter, incident_id: str) -> None:
        """The mailed link gives the clip that was recorded."""
        assert letter.link
        await self.box.event("clip.published", incident=incident_id)
        held = await fetch(letter.link.replace("?token=", "/part/0.mp4?token="))
        assert hashlib.sha256(held.body).digest() == hashlib.sha256(await self.clip(incident_id)).digest()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(block_packets, log_folder):
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vgt-")))
        rtsp, port = RtspCamera(block_packets, fps=FPS), free_port()
        await rtsp.start()
        stack.push_async_callback(rtsp.stop)
        host = LinkHost(folder / "host", base_url=f"http://127.0.0.1:{port}", api_keys={"nvr": KEY}, clock=SystemClock())
        await host.start(listen=("127.0.0.1", port), unix_path=None)
        stack.push_async_callback(host.aclose)
        proxy = FaultProxy("127.0.0.1", port)
        await proxy.up()
        stack.push_async_callback(proxy.down)
        publish = {"host": "tus", "url": f"http://127.0.0.1:{proxy.port}", "api_key": KEY}
        cameras = {name: camera(rtsp.url) for name in CAMERAS}
        tables = {"publish": publish, "alert": {"text_after_s": TEXT_AFTER_S}}
        box = await stack.enter_async_context(boxed(folder, log_folder, cameras, **tables))
        await box.start()
        yield Stage(box, proxy)


async def test_an_upload_that_is_cut_goes_on_and_the_mail_has_the_link_in_time(stage):
    cut = stage.proxy.strike(Reset(in_body(5000)))
    incident_id = await stage.story("entree")
    letter = await stage.letter(incident_id, kind="link")
    assert cut.fired == 1
    assert await stage.waited_s(incident_id) <= TEXT_AFTER_S
    await stage.assert_plays(letter, incident_id)


async def test_while_the_host_is_away_the_text_goes_in_time_and_the_link_follows_in_its_thread(stage):
    """Nobody listens where the host should be; the clip lies in the spool meanwhile."""
    await stage.proxy.down()
    incident_id = await stage.story("cour")
    text = await stage.letter(incident_id, kind="text")
    assert text.link is None
    assert "Preuves vidéo non disponibles" in text.text
    assert TEXT_AFTER_S <= await stage.waited_s(incident_id) < 2 * TEXT_AFTER_S
    assert_playable_h264(await stage.clip(incident_id))
    delayed = await stage.box.event("publish.delayed", incident=incident_id)
    assert "could not be reached" in delayed["error"]
    await stage.proxy.up()
    follow_up = await stage.letter(incident_id, kind="follow_up")
    assert follow_up.message["In-Reply-To"] == text.message["Message-ID"]
    await stage.assert_plays(follow_up, incident_id)


async def test_a_host_that_refuses_has_the_text_go_at_once_and_the_clip_stay_in_the_spool(stage):
    refusal = stage.proxy.strike(Answer(at("create"), http("403 Forbidden", b'{"error": "no room for you"}')))
    incident_id = await stage.story("quai")
    text = await stage.letter(incident_id, kind="text")
    assert refusal.fired == 1
    assert text.link is None
    assert await stage.waited_s(incident_id) < TEXT_AFTER_S
    assert_playable_h264(await stage.clip(incident_id))
    (incident,) = await stage.box.control.incidents(owed=True)
    assert (incident["id"], incident["no_video"]) == (incident_id, "refused")
