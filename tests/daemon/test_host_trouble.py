"""The alert is never hostage: whatever the host does, people are told in time, and the clip stays in the spool."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import pytest
from aiohttp import web

from tests.daemon.box import Box, boxed, camera, free_port
from tests.daemon.test_story import assert_playable_h264
from tests.daemon.web import fetch
from vigintd.clock import SystemClock
from vigintd.linkhost import LinkHost

TEXT_AFTER_S = 3.0


class BadHost:
    """A host that refuses or cuts uploads, and counts how often it did."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.fired = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.method == "POST" and self.fault == "refuse":
            self.fired += 1
            return web.json_response({"error": "no room for you"}, status=403)
        if request.method == "POST":
            links = {"gardien@exemple.fr": f"http://127.0.0.1/video/x?token={'t' * 43}"}
            body = {"clip_id": "x", "links": links, "expires_at": "2030-01-01T00:00:00+00:00"}
            return web.json_response(body, status=201, headers={"Location": "/api/v1/uploads/x.0", "Tus-Resumable": "1.0.0"})
        if request.method == "HEAD":
            return web.Response(headers={"Upload-Offset": "0", "Tus-Resumable": "1.0.0"})
        # Cut half way: take a few bytes and hang up.
        await request.content.read(1000)
        self.fired += 1
        assert request.transport
        request.transport.abort()
        return web.Response()


@asynccontextmanager
async def serving(host: BadHost):
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", host.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def elsewhere(url: str) -> dict[str, object]:
    return {
        "publish": {"host": "tus", "url": url, "api_key": "a-key-that-no-log-may-hold"},
        "alert": {"text_after_s": TEXT_AFTER_S},
    }


async def assert_told_in_time(box: Box, incident_id: str) -> None:
    """The text alert came within `text_after_s` (and a second for the mail itself), and the clip is whole in the spool."""
    letter = await box.letter()
    assert letter.link is None
    assert "Preuves vidéo non disponibles" in letter.text
    sent = await box.event("mail.sent", incident=incident_id, kind="text")
    opened = await box.event("incident.opened", incident=incident_id)
    waited = datetime.fromisoformat(sent["timestamp"]) - datetime.fromisoformat(opened["timestamp"])
    assert waited.total_seconds() <= TEXT_AFTER_S + 1
    await box.event("clip.sealed", incident=incident_id)
    incident = await box.control.incident(incident_id)
    assert incident
    clip = Path(incident["parts"][0]["path"]).read_bytes()
    assert_playable_h264(clip)


@pytest.mark.parametrize("fault", ["refuse", "cut"])
async def test_a_host_that_refuses_or_cuts_the_upload_leaves_the_text_alert_in_time_and_the_clip_in_the_spool(
    short_path, log_folder, rtsp_cameras, fault
):
    """Upload refused, or cut half way: the text alert goes in time and nothing recorded is lost."""
    rtsp, host = await rtsp_cameras(), BadHost(fault)
    async with serving(host) as url, boxed(short_path, log_folder, {"entree": camera(rtsp.url)}, **elsewhere(url)) as box:
        await box.start()
        await box.event("camera.live", camera="entree")
        incident_id = await box.control.trigger("entree")
        await assert_told_in_time(box, incident_id)
        assert host.fired > 0


async def test_an_absent_host_leaves_the_text_alert_in_time_and_the_clip_in_the_spool(short_path, log_folder, rtsp_cameras):
    """Nobody listens where the host should be: the text alert goes in time and nothing recorded is lost."""
    rtsp, url = await rtsp_cameras(), f"http://127.0.0.1:{free_port()}"
    async with boxed(short_path, log_folder, {"entree": camera(rtsp.url)}, **elsewhere(url)) as box:
        await box.start()
        await box.event("camera.live", camera="entree")
        incident_id = await box.control.trigger("entree")
        await assert_told_in_time(box, incident_id)
        assert await box.event("publish.delayed", incident=incident_id)


async def test_the_link_follows_in_the_text_alerts_thread_when_the_host_comes_back(short_path, log_folder, rtsp_cameras):
    """The text goes alone while nobody hosts; once a host is there, the clip goes up and the link answers the text."""
    rtsp, port, key = await rtsp_cameras(), free_port(), "a-key-that-no-log-may-hold"
    url = f"http://127.0.0.1:{port}"
    async with boxed(short_path, log_folder, {"entree": camera(rtsp.url)}, **elsewhere(url)) as box:
        await box.start()
        await box.event("camera.live", camera="entree")
        incident_id = await box.control.trigger("entree")
        text = await box.letter()
        assert text.link is None
        host = LinkHost(short_path / "host", base_url=url, api_keys={"nvr": key}, clock=SystemClock())
        await host.start(listen=("127.0.0.1", port), unix_path=None)
        try:
            follow_up = await box.letter()
            assert follow_up.message["In-Reply-To"] == text.message["Message-ID"]
            assert follow_up.link
            incident = await box.closed(incident_id)
            clip = await fetch(follow_up.link.replace("?token=", "/part/0.mp4?token="))
            assert hashlib.sha256(clip.body).hexdigest() == incident["parts"][0]["sha256"]
        finally:
            await host.aclose()
