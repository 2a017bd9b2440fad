"""An incident whose alerts are due, and the way to a real mail server over a line with faults.

Owns the stage and the passing of its time. Journal, courier, the mail channel, TLS and the mail server are the real ones; the
clock is moved by hand, and stands still while anything is on the line.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trustme
from structlog.testing import capture_logs
from structlog.typing import EventDict

from tests.daemon.box import DEADLINE_S
from tests.faults.paced_clock import PacedClock
from tests.incident.test_courier import ID, House
from tests.real.fault_proxy import FaultProxy
from tests.real.mail_server import MailServer, serving
from vigintd.alert.smtp import MailChannel
from vigintd.journal import Effect, EffectState, Journal
from vigintd.spool import Spool

PEOPLE = ("a@exemple.fr", "b@exemple.fr", "c@exemple.fr")


class Post:
    """Incidents whose alerts wait for the mail server."""

    def __init__(self, house: House, server: MailServer, proxy: FaultProxy) -> None:
        self.clock: PacedClock = house.clock
        self.journal: Journal = house.journal
        self.courier = house.courier
        self.server, self.proxy = server, proxy
        self.logs: list[EventDict] = []
        self._house = house
        self._ids: list[str] = []

    async def open(self, people: Sequence[str] = PEOPLE[:1]) -> None:
        """One more incident, whose link plays: its alerts are due now."""
        incident_id = f"{ID[:-12]}{len(self._ids) + 1:012d}"
        self._ids.append(incident_id)
        await self._house.open(incident_id, people)
        await self.courier.hurry(incident_id)

    @property
    def delivered(self) -> list[tuple[str, str]]:
        """Recipient and Message-ID of every mail that the server took."""
        letters = [(envelope, envelope.content) for envelope in self.server.delivered]
        return [
            (envelope.rcpt_tos[0], str(email.message_from_bytes(content, policy=email.policy.default)["Message-ID"]))
            for envelope, content in letters
            if isinstance(content, bytes)
        ]

    async def mails(self) -> list[Effect]:
        """How every one stands."""
        rows = [await self.journal.incident(incident_id) for incident_id in self._ids]
        return [effect for row in rows if row for effect in row.effects]

    def logged(self, event: str) -> list[EventDict]:
        return [line for line in self.logs if line["event"] == event]

    async def pass_time(self, reached: Callable[[list[Effect]], bool], *, step_s: float = 0.25) -> None:
        """Let time pass, while nothing is on the line, until the mails stand so."""
        async with asyncio.timeout(DEADLINE_S):
            while not reached(await self.mails()):
                await self.clock.pass_some(step_s)

    async def pass_seconds(self, seconds: float, *, step_s: float = 1) -> None:
        until_s = self.clock.monotonic_s() + seconds
        await self.pass_time(lambda _mails: self.clock.monotonic_s() >= until_s, step_s=step_s)

    async def run(self, *, step_s: float = 0.25) -> None:
        """Until no mail is owed."""
        await self.pass_time(lambda mails: all(mail.state is not EffectState.OWED for mail in mails), step_s=step_s)


@asynccontextmanager
async def post(folder: Path, authority: trustme.CA, server: MailServer, **settings: Any) -> AsyncIterator[Post]:
    """The stage; `settings` are of `[mail]`, beside those that suit the server."""
    clock, spool = PacedClock(), Spool(folder / "spool")
    async with serving(server, authority, folder), Journal.open(folder / "journal.sqlite3", clock) as journal:
        proxy = FaultProxy("127.0.0.1", server.port)
        await proxy.up()
        channel = MailChannel(server.settings(**{"port": proxy.port, "timeout_s": 5} | settings), clock=clock)
        house = House(clock, journal, spool, channel)
        it = Post(house, server, proxy)
        running = asyncio.create_task(house.courier.run())
        try:
            with capture_logs() as it.logs:
                yield it
        finally:
            running.cancel()
            await asyncio.wait({running})
            await proxy.down()
    await spool.aclose()
