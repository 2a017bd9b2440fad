"""Shared by the tests of alerts: one alert with everything in it, and a real mail server.

`@pytest.mark.smtp(...)` says what the server of a test is like, by the fields of `MailServer`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.real.mail_server import MailServer, serving
from vigintd import failpoints
from vigintd.model import Alert, AlertKind, Box, Detection, Risk

NOW = datetime(2026, 11, 22, 13, 37, 24, tzinfo=UTC)
INCIDENT = "0b9f6a4e-6c1d-4f0e-9a57-3c1f9d3f7a10"
LINK = f"https://videos.exemple.fr/video/{INCIDENT}?token=Zk3vQ9pR7sT1uW5xY8zA2bC4dE6fG0hJ-kL_mN3oP7q"
PASSWORD = "un mot de passe très secret"
# The smallest thing that calls itself a JPEG; nobody decodes it here.
JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000") + bytes(range(256)) * 40 + bytes.fromhex("ffd9")


def example(**changes: Any) -> Alert:
    detection = Detection(
        camera="entree",
        arrived_s=1.0,
        at=NOW,
        type="vol à l'étalage",
        risk=Risk.HIGH,
        confidence=0.873,
        frame_number=1284,
        boxes=(Box(0.1, 0.1, 0.2, 0.2),),
        text="Une personne prend un article du rayon « Parfums » & le glisse dans son sac.\nElle sort.",
        detector="mouvement",
    )
    alert = Alert(
        kind=AlertKind.LINK,
        incident_id=INCIDENT,
        recipient="gardien@exemple.fr",
        language="fr",
        site="Boutique « Rivoli »",
        camera="entree",
        detection=detection,
        link=LINK,
        expires_at=NOW + timedelta(hours=48),
        expiry_h=48,
        snapshot_jpeg=JPEG,
    )
    of_detection = {
        key: changes.pop(key) for key in list(changes) if key in ("type", "risk", "confidence", "frame_number", "text")
    }
    return replace(alert, detection=replace(detection, **of_detection), **changes)


class Clock:
    def monotonic_s(self) -> float:
        return 0.0

    def now(self) -> datetime:
        return NOW

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("a channel does not wait")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "smtp(**fields): what the mail server of the test is like")


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def server(request: pytest.FixtureRequest, authority: trustme.CA, tmp_path: Path) -> AsyncIterator[MailServer]:
    marker = request.node.get_closest_marker("smtp")
    async with serving(MailServer(**(marker.kwargs if marker else {})), authority, tmp_path) as server:
        yield server


@pytest.fixture(autouse=True)
def no_failpoint_stays_armed() -> Iterator[None]:
    yield
    failpoints.disarm()
