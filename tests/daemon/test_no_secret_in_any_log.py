"""No token, camera password or API key stands in any log line; what the other tests log is searched when they have run."""

from __future__ import annotations

import json

import pytest

from tests.daemon.box import boxed, camera
from tests.leaks import SECRETS, leaks


async def test_no_secret_stands_in_any_log_line_of_a_box_with_secrets_everywhere(short_path, tmp_path, rtsp_cameras):
    """It lives, and everything that has a secret fails."""
    rtsp = await rtsp_cameras()
    cameras = {
        "vivante": camera(rtsp.url),
        "muette": camera("rtsp://127.0.0.1:1/cam", username="admin", password="camera-p@ssw0rd/with#all"),
        "sourde": camera("rtsp://admin:camera-p%40ssw0rd%2Fwith%23all@127.0.0.1:1/cam"),
    }
    publish = {"host": "tus", "url": "http://127.0.0.1:1", "api_key": "a-key-that-no-log-may-hold"}
    mail = {"username": "alerte", "password": "mail-pa55word"}
    async with boxed(short_path, tmp_path, cameras, publish=publish, mail=mail, alert={"text_after_s": 1}) as box:
        await box.start()
        for name in ("muette", "sourde"):
            await box.event("camera.lost", camera=name)
        await box.event("camera.live", camera="vivante")
        incident_id = await box.trigger("vivante")
        await box.event("publish.delayed", incident=incident_id)
        await box.event("mail.postponed", incident=incident_id)
    assert any("camera.lost" in path.read_text(encoding="utf-8") for path in tmp_path.glob("*.log")), "there is nothing to read"
    assert leaks(tmp_path) == []


@pytest.mark.parametrize("secret", [f"https://v.exemple.fr/video/1?token={'Ab-_9' * 8}xyz", *SECRETS])
async def test_the_search_for_secrets_finds_one_that_is_there(tmp_path, secret):
    """The search can fail."""
    (tmp_path / "a.log").write_text(json.dumps({"event": "x", "url": secret}), encoding="utf-8")
    assert len(leaks(tmp_path)) == 1
