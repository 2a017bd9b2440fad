"""No token, camera password or API key stands in any log line of the whole run."""

from __future__ import annotations

import json
import re

from tests.daemon.box import boxed, camera

TOKEN = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")
"""The shape of a link's token. Nothing else that is logged has it: UUIDs and hashes have other lengths."""
SECRETS = ("camera-p@ssw0rd/with#all", "camera-p%40ssw0rd%2Fwith%23all", "a-key-that-no-log-may-hold", "mail-pa55word")
"""Every secret that the tests configure."""


async def test_no_secret_stands_in_any_log_line_of_the_whole_run(short_path, log_folder):
    """After a box with secrets everywhere has lived and failed, every log of this test run is read."""
    cameras = {
        "muette": camera("rtsp://127.0.0.1:1/cam", username="admin", password="camera-p@ssw0rd/with#all"),
        "sourde": camera("rtsp://admin:camera-p%40ssw0rd%2Fwith%23all@127.0.0.1:1/cam"),
    }
    publish = {"host": "tus", "url": "http://127.0.0.1:1", "api_key": "a-key-that-no-log-may-hold"}
    mail = {"username": "alerte", "password": "mail-pa55word"}
    async with boxed(short_path, log_folder, cameras, publish=publish, mail=mail, alert={"text_after_s": 1}) as box:
        await box.start()
        for name in cameras:
            await box.event("camera.lost", camera=name)
        incident_id = await box.control.trigger("muette")
        await box.event("publish.delayed", incident=incident_id)
        await box.event("mail.given_up", incident=incident_id)
    logs = sorted(log_folder.glob("*.log"))
    lines = [(path.name, line) for path in logs for line in path.read_text(encoding="utf-8").splitlines()]
    assert any("camera.lost" in line for _, line in lines), "there is nothing to read"
    leaks = [(name, line) for name, line in lines if TOKEN.search(line) or any(secret in line for secret in SECRETS)]
    assert leaks == []


async def test_the_search_for_secrets_finds_one_that_is_there():
    """The test above can fail: a line with a token is found."""
    assert TOKEN.search(json.dumps({"event": "x", "url": f"https://v.exemple.fr/video/1?token={'Ab-_9' * 8}xyz"}))
