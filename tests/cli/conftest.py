"""A daemon that answers, and commands run in this process."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from vigintd import redact
from vigintd.cli.app import app
from vigintd.control.server import ControlServer
from vigintd.errors import ControlError

INCIDENT = {
    "id": "0d9f5e4e-1111-4222-8333-444455556666",
    "camera": "entree",
    "at": "2026-11-22T09:30:00+00:00",
    "type": "vol à l'étalage [bold]x[/wrong] :tada: \x1b[31m",
    "risk": "HIGH",
    "confidence": 0.9,
    "text": "",
    "state": "published",
    "mailed_at": "2026-11-22T09:30:02+00:00",
    "parts": [{"index": 0, "sha256": "ab" * 32, "partial": ""}],
    "effects": [],
}


class Answers:
    """A daemon with one camera and one incident."""

    def __init__(self) -> None:
        self.triggered: list[tuple[object, ...]] = []
        self.retried: list[str | None] = []
        self.known: list[dict[str, Any]] = [INCIDENT, INCIDENT | {"mailed_at": None, "at": "unknown"}]

    async def trigger(self, camera, *, type, risk, confidence, text):  # noqa: A002
        if camera != "entree":
            raise ControlError(f"no camera is called {camera!r}; there are: entree")
        self.triggered.append((camera, type, risk, confidence, text))
        return {"incident_id": INCIDENT["id"], "opened": len(self.triggered) == 1}

    async def incidents(self, limit):
        return self.known[:limit]

    async def owing(self, limit):
        return self.known[:limit]

    async def retry(self, incident_id):
        self.retried.append(incident_id)
        failed = [(incident, effect) for incident in self.known for effect in incident["effects"]]
        return [
            {"incident_id": incident["id"]} | effect
            for incident, effect in failed
            if incident_id in (None, incident["id"]) and effect["attempts"]
        ]

    async def incident(self, incident_id):
        return next((incident for incident in self.known if incident["id"] == incident_id), None)

    async def status(self):
        return {}


@pytest.fixture(autouse=True)
def _process_as_before(monkeypatch):
    """Commands set the process up; the next test finds it as it was."""
    monkeypatch.setattr(redact, "_secrets", set())
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers, root.level
    root.handlers = []
    yield
    structlog.configure(**before)
    root.handlers, root.level = handlers, level


@pytest.fixture
def config(short_path):
    """A good configuration file on a state folder of its own."""
    path = short_path / "vigintd.toml"
    path.write_text(f"""
state_dir = "{short_path}/state"
[cameras.entree]
url = "rtsp://admin:hunter2@127.0.0.1:9/main"
detectors = ["mouvement"]
[detectors.mouvement]
kind = "motion"
[mail]
server = "localhost"
security = "none"
sender = "alerte@exemple.fr"
recipients = ["gardien@exemple.fr"]
""")
    return path


@pytest.fixture
def broken(short_path):
    """A configuration file with several faults."""
    path: Path = short_path / "broken.toml"
    path.write_text('langage = "fr"\n[cameras.entree]\nurl = "ftp://u:hunter2@h/x"\n[mail]\nserver = 5\nrecipients = []\n')
    return path


@pytest.fixture
def daemon(config):
    """Answers at the control socket of `config`, from a loop on a thread of its own."""
    answers = Answers()
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        server = ControlServer(config.parent / "state" / "run" / "control.sock", answers)
        await server.start()
        started.set()
        await stop.wait()
        await server.aclose()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(10)
    yield answers
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


@pytest.fixture
def vigintd():
    """Run a command in this process: what it printed, and its exit code."""
    runner = CliRunner()

    def run(*words, **how):
        return runner.invoke(app, [str(word) for word in words], prog_name="vigintd", **how)

    return run
