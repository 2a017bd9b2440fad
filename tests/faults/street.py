"""A clip in the spool, its alert owed, and the way to a real link host over a line with faults.

Owns the stage and the passing of its time. Journal, spool, publisher, courier, the tus client, HTTP and the link host are the
real ones; the clock is moved by hand, and stands still while anything is on the line.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from structlog.testing import capture_logs
from structlog.typing import EventDict

from tests.daemon.box import DEADLINE_S
from tests.daemon.web import fetch
from tests.faults.paced_clock import PacedClock
from tests.incident.test_courier import ScriptedChannel
from tests.incident.test_publisher import Yard, at_work
from tests.manual_clock import ManualClock
from tests.real.fault_proxy import FaultProxy, Spot
from tests.real.network_faults import Answer
from vigintd.journal import Effect, EffectKind, IncidentRow, Journal
from vigintd.linkhost import LinkHost
from vigintd.model import Alert, AlertKind, IncidentState, NoVideo
from vigintd.publish.tus import TusHost
from vigintd.spool import Spool

KEY = "a-key-that-no-log-may-hold"
PUBLIC = "https://videos.exemple.fr"
REQUESTS = {
    "create": b"POST /api/v1/uploads ",
    "offset": b"HEAD /api/v1/uploads/",
    "append": b"PATCH /api/v1/uploads/",
    "seal": b"/seal HTTP/1.1",
    "update": b"PATCH /api/v1/clips/",
}
"""How each request of a publication is known on the wire."""
PAGE = b"<!doctype html><title>Bienvenue sur le WiFi</title>"


def at(request: str) -> Spot:
    """Where a request begins."""
    return Spot("up", (REQUESTS[request],))


def in_body(skip: int) -> Spot:
    """A byte of an append's body, which is chunked: its head, the first chunk's length, and then the bytes."""
    return Spot("up", (REQUESTS["append"], b"\r\n\r\n", b"\r\n"), skip)


def http(status: str, body: bytes = b"", **headers: str) -> bytes:
    """An answer of HTTP as it goes over the wire."""
    said = {"Content-Type": "application/json", "Connection": "close"} | {k.replace("_", "-"): v for k, v in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in said.items())
    return f"HTTP/1.1 {status}\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def portal(request: str, status: str = "200 OK", *, times: int = 1, **headers: str) -> Answer:
    """A login page where the host's answer was wanted; a HEAD's answer has no body."""
    page = b"" if request == "offset" else PAGE
    return Answer(at(request), http(status, page, Content_Type="text/html; charset=utf-8", **headers), times=times)


class _Asked(TusHost):
    """Keeps what the host said it held, each time it was asked."""

    def __init__(self, url: str, timeout_s: float) -> None:
        super().__init__(url, KEY, timeout_s=timeout_s)
        self.offsets: list[int] = []

    async def offset(self, clip_id: str, part: int) -> int:
        self.offsets.append(await super().offset(clip_id, part))
        return self.offsets[-1]


class _Told(ScriptedChannel):
    """Keeps when each mail went."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.times_s: list[float] = []
        self._clock = clock

    async def send(self, alert: Alert) -> None:
        await super().send(alert)
        self.times_s.append(self._clock.monotonic_s())


class Street:
    """One incident, from its detection on."""

    def __init__(self, yard: Yard, linkhost: LinkHost, proxy: FaultProxy) -> None:
        self.clock: PacedClock = yard.clock
        self.journal: Journal = yard.journal
        self.spool: Spool = yard.spool
        self.host: _Asked = yard.host
        self.proxy = proxy
        self.logs: list[EventDict] = []
        self._channel: _Told = yard.channel
        self._yard, self._linkhost = yard, linkhost
        self._began_s = self.clock.monotonic_s()

    async def leave(self) -> int:
        """A clip as a recorder leaves it, and the alert due in twenty seconds; answers its length in bytes."""
        await self._yard.leave(1, alerted=False, seconds=4)
        (part,) = (await self.row()).incident.parts
        return part.length_bytes

    async def leave_nothing(self) -> None:
        """The same, of which the camera showed nothing."""
        incident = await self._yard.open(1, alerted=False)
        ended = replace(incident, state=IncidentState.SEALED, no_video=NoVideo.UNRECORDED, problem="nothing was recorded")
        await self.journal.record_incident(ended)

    @property
    def told(self) -> Sequence[tuple[AlertKind, NoVideo | None]]:
        """What people were told, in order."""
        return [(alert.kind, alert.no_video) for alert in self._channel.delivered]

    @property
    def told_after_s(self) -> Sequence[float]:
        """When, counted from the detection."""
        return [moment_s - self._began_s for moment_s in self._channel.times_s]

    async def row(self) -> IncidentRow:
        """As the journal has it."""
        row: IncidentRow = await self._yard.row(1)
        return row

    async def publication(self) -> Effect:
        """How it stands."""
        (effect,) = [effect for effect in (await self.row()).effects if effect.kind is EffectKind.PUBLISH]
        return effect

    def logged(self, event: str, **fields: object) -> list[EventDict]:
        """The log lines of this event with these fields."""
        wanted: Mapping[str, object] = {"event": event, **fields}
        return [line for line in self.logs if wanted.items() <= line.items()]

    async def pass_time(self, reached: Callable[[IncidentRow], bool], *, step_s: float = 0.25) -> None:
        """Let time pass, while nothing is on the line, until the row is so."""
        async with asyncio.timeout(DEADLINE_S):
            while not reached(await self.row()):
                await self.clock.pass_some(step_s)

    async def retry(self) -> None:
        """As `vigintd incidents retry --all` does."""
        await self._yard.courier.retry(None)
        self._yard.publisher.look()

    async def run(self, *, step_s: float = 0.25) -> None:
        """Until nothing more is owed."""
        await self.pass_time(lambda row: row.incident.state is IncidentState.CLOSED, step_s=step_s)

    async def assert_whole(self) -> None:
        """The link that was mailed plays the clip that was recorded, byte for byte, and the spool has it too."""
        link = next(alert.link for alert in reversed(self._channel.delivered) if alert.link)
        page, _, token = link.removeprefix(PUBLIC).partition("?")
        answer = await fetch(f"http://127.0.0.1:{self._linkhost.port}{page}/part/0.mp4?{token}")
        await self.assert_in_spool()
        assert hashlib.sha256(answer.body).hexdigest() == (await self.row()).incident.parts[0].sha256

    async def assert_in_spool(self) -> None:
        """The clip is where it was recorded, as it was recorded."""
        (part,) = (await self.row()).incident.parts
        data = await asyncio.to_thread(self.spool.part_path((await self.row()).incident.id, 0).read_bytes)
        assert hashlib.sha256(data).hexdigest() == part.sha256


@asynccontextmanager
async def street(folder: Path, *, timeout_s: float = 5.0) -> AsyncIterator[Street]:
    """The stage; `timeout_s` is the client's patience with each stage of a request, in real time."""
    clock, spool = PacedClock(), Spool(folder / "spool")
    linkhost = LinkHost(folder / "host", base_url=PUBLIC, api_keys={"nvr": KEY}, clock=clock)
    await linkhost.start(listen=("127.0.0.1", 0), unix_path=None)
    proxy = FaultProxy("127.0.0.1", linkhost.port)
    await proxy.up()
    host, channel = _Asked(f"http://127.0.0.1:{proxy.port}", timeout_s), _Told(clock)
    try:
        async with Journal.open(folder / "journal.sqlite3", clock) as journal:
            it = Street(Yard(clock, journal, spool, channel, host), linkhost, proxy)
            with capture_logs() as it.logs:
                yield it
    finally:
        await host.aclose()
        await proxy.down()
        await linkhost.aclose()
        await spool.aclose()


def working(it: Street):
    """Publisher and courier at work."""
    return at_work(it._yard)
