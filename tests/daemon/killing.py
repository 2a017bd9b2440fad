"""Daemons that are killed at one named point after another, and what is left when the next one has recovered.

Owns how a point is reached and how its story is played to its end; which points there are and what must hold then is
the tests'. A box plays many stories, one after the other, and several boxes do so side by side, because each waits most
of its time.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.daemon import accounts
from tests.daemon.box import Box, boxed
from tests.daemon.web import fetch
from vigintd.alert.mail import message_id
from vigintd.demo.mailbox import Letter
from vigintd.errors import ControlError
from vigintd.model import AlertKind

CAMERA = "entree"
_MOST = 200
"""Incidents of one box."""
_LONG_S = 49 * 3600.0
"""A clip lives 48 hours."""

_ARMING = """
import pathlib, signal
def arm(*_):
    from vigintd import failpoints
    failpoints.arm_from_environment({{"VIGINTD_FAILPOINTS": pathlib.Path({path!r}).read_text()}})
signal.signal(signal.SIGUSR1, arm)
"""
"""Lets the daemon that has recovered from one kill be armed for the next: half of the starts are saved."""


@dataclass
class Outcome:
    """What came of one kill."""

    code: int = 0
    """How the daemon ended that was armed."""
    promised: str | None = None
    """The incident that was acknowledged before."""
    incidents: list[dict[str, Any]] = field(default_factory=list)
    """Those of this story, as control tells them at the end."""
    letters: Sequence[Letter] = ()
    shown: list[tuple[str, str]] = field(default_factory=list)
    """For each part that a mailed link shows its SHA-256, and the one that was sealed."""
    is_expired: bool = False
    """Its clip's time had passed."""


class Stage:
    """One box and its camera."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.known: set[str] = set()
        """Incidents of earlier stories."""
        self.expired: set[str] = set()
        """Incidents whose files are to be gone."""
        self._arming = box.folder / "arming"
        (box.folder / "sitecustomize.py").write_text(_ARMING.format(path=str(self._arming)), encoding="utf-8")
        box.environ["PYTHONPATH"] = str(box.folder)

    async def trigger(self, armed: str = "") -> str | None:
        """As soon as the camera is live, arm and trigger; the incident's id where it was acknowledged."""
        await self.box.event("camera.live", camera=CAMERA)
        if armed:
            self.arm(armed)
        with suppress(ControlError):
            return await self.box.trigger(CAMERA)
        return None

    def arm(self, points: str) -> None:
        """Arm the running daemon; it is, before it hears of anything that it is asked later."""
        self._arming.write_text(points, encoding="ascii")
        self.box.signal(signal.SIGUSR1)

    async def closed(self, incident_id: str) -> dict[str, Any]:
        """The incident once it is over, in this life of the daemon or in an earlier one."""
        incident = await self.box.control.incident(incident_id)
        assert incident
        return incident if incident["state"] == "closed" else await self.box.closed(incident_id)

    def let_time_pass(self) -> None:
        """While no daemon runs: 49 hours, on the wall clock and on the clock that nobody can set."""
        offset = self.box.folder / "clock-offset"
        passed_s = float(offset.read_text(encoding="ascii")) if offset.exists() else 0.0
        offset.write_text(str(passed_s + _LONG_S), encoding="ascii")
        self.box.environ["VIGINTD_TEST_CLOCK_FILE"] = str(offset)
        for name in ("journal.sqlite3", "linkhost/linkhost.sqlite3"):
            with closing(sqlite3.connect(self.box.state_dir / name)) as database, database:
                database.execute("UPDATE mark SET monotonic_s = monotonic_s - ?", (_LONG_S,))

    async def dies_at_start(self, points: str) -> int:
        """Start a daemon that is armed, and see how it ends."""
        self.box.environ["VIGINTD_FAILPOINTS"] = points
        await self.box.start(ready=False)
        code = await self.box.died()
        del self.box.environ["VIGINTD_FAILPOINTS"]
        return code


@dataclass(frozen=True)
class Kill:
    """`kill -9` at a point that a trigger leads to."""

    point: str
    passage: int = 1
    way: str = ""
    """What else is armed, so that the point is come to."""
    then: Callable[[Box], Awaitable[object]] | None = None
    """What somebody does when the daemon is back."""

    @property
    def name(self) -> str:
        passage = f"@{self.passage}" if self.passage > 1 else ""
        return f"{self.point}{passage}{', ' if self.way else ''}{self.way}"

    @property
    def armed(self) -> str:
        """As `VIGINTD_FAILPOINTS` has it."""
        return ",".join(filter(None, (self.way, f"{self.point}=kill@{self.passage}")))

    async def strike(self, stage: Stage, outcome: Outcome) -> None:
        """Bring the daemon to its death."""
        outcome.promised = await stage.trigger(self.armed)
        outcome.code = await stage.box.died()


@dataclass(frozen=True)
class KillWhileItGrows(Kill):
    """The same at a point that only a clip of some seconds comes to for certain."""


@dataclass(frozen=True)
class KillAtStart(Kill):
    """The same where the next start leads, after a first kill in mid-recording."""

    damage: Callable[[Path], object] | None = None
    """Done to the state folder between the two."""

    @property
    def name(self) -> str:
        return f"{super().name} at the start"

    async def strike(self, stage: Stage, outcome: Outcome) -> None:
        """Kill while it records, then kill the one that recovers."""
        outcome.promised = await stage.trigger()
        await stage.box.event("incident.playable", incident=outcome.promised)
        await stage.box.kill()
        if self.damage is not None:
            self.damage(stage.box.state_dir)
        outcome.code = await stage.dies_at_start(self.armed)


@dataclass(frozen=True)
class KillAtFirstStart(Kill):
    """The same where the very first start leads."""

    async def strike(self, stage: Stage, outcome: Outcome) -> None:
        """Kill one that begins with an empty state folder."""
        await stage.box.kill()
        shutil.rmtree(stage.box.state_dir)
        stage.known.clear()
        outcome.code = await stage.dies_at_start(self.armed)


@dataclass(frozen=True)
class KillAtExpiry(Kill):
    """The same where the next start leads when a clip's time has passed."""

    @property
    def name(self) -> str:
        return f"{super().name} at expiry"

    async def strike(self, stage: Stage, outcome: Outcome) -> None:
        """See an incident to its end, let its time pass, and kill one that lets it go."""
        outcome.promised = await stage.trigger()
        assert outcome.promised
        await stage.closed(outcome.promised)
        await stage.box.stop()
        stage.let_time_pass()
        outcome.is_expired = True
        outcome.code = await stage.dies_at_start(self.armed)


@dataclass(frozen=True)
class KillAtRetry(Kill):
    """The same where `incidents retry` leads, after a mail was refused."""

    async def strike(self, stage: Stage, outcome: Outcome) -> None:
        """Have a mail refused, then ask for it again."""
        outcome.promised = await stage.trigger("mail.send.before=refuse")
        await stage.box.event("mail.given_up")
        stage.arm(self.armed)
        with suppress(ControlError):
            await stage.box.control.retry(None)
        outcome.code = await stage.box.died()


async def play(stage: Stage, kill: Kill) -> Outcome:
    """Kill, start again, and see every incident to its end."""
    box, outcome, letters = stage.box, Outcome(), len(stage.box.mailbox.letters)
    await kill.strike(stage, outcome)
    await box.start()
    if kill.then is not None:
        await kill.then(box)
    new = [found["id"] for found in await box.control.incidents(_MOST) if found["id"] not in stage.known]
    outcome.incidents = [await stage.closed(incident_id) for incident_id in new]
    stage.known.update(new)
    if outcome.is_expired:
        await box.event("spool.expired", incident=outcome.promised)
        stage.expired.update(new)
    # A journal that is lost may also take with it that an earlier one was told a moment ago.
    own = {_message_id(box, incident_id, kind) for incident_id in new for kind in AlertKind}
    outcome.letters = [letter for letter in box.mailbox.letters[letters:] if letter.message["Message-ID"] in own]
    for letter in outcome.letters:
        for incident in outcome.incidents:
            if letter.link and incident["id"] in letter.link:
                outcome.shown += [await _shown(letter.link, part) for part in incident["parts"]]
    return outcome


def _message_id(box: Box, incident_id: str, kind: AlertKind) -> str:
    mail = box.config["mail"]
    return message_id(incident_id, mail["recipients"][0], kind, mail["sender"])


async def _shown(link: str, part: dict[str, Any]) -> tuple[str, str]:
    clip = await fetch(link.replace("?token=", f"/part/{part['index']}.mp4?token="))
    return hashlib.sha256(clip.body).hexdigest(), part["sha256"]


class Lane:
    """One box through many kills; `outcomes` by their names, and `faults` of its files at the very end."""

    def __init__(self, kills: Sequence[Kill], **options: Any) -> None:
        self.kills = kills
        self.outcomes: dict[str, asyncio.Future[Outcome]] = {kill.name: asyncio.Future() for kill in kills}
        self.faults: asyncio.Future[list[str]] = asyncio.Future()
        self._options = options

    async def run(self, log_folder: Path, url: str) -> None:
        """Play every story. What goes wrong with one is told to whoever asks for it, or for a later one."""
        try:
            await self._run(log_folder, url)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait for an outcome must hear of it
            failed = next((name for name, outcome in self.outcomes.items() if not outcome.done()), "the end")
            awaiting: list[asyncio.Future[Any]] = [*self.outcomes.values(), self.faults]
            for awaited in awaiting:
                if not awaited.done():
                    awaited.set_exception(AssertionError(f"{failed}: {type(error).__name__}: {error}"))

    async def _run(self, log_folder: Path, url: str) -> None:
        camera = {"url": url, "pre_roll_s": 0.2, "post_roll_s": 0.3, "max_clip_s": 60, **self._options}
        with tempfile.TemporaryDirectory(prefix="vgt-") as folder:
            # On a slow machine too, nobody is told of a clip that comes later.
            async with boxed(Path(folder), log_folder, {CAMERA: camera}, alert={"text_after_s": 300}) as box:
                stage = Stage(box)
                await box.start()
                for kill in self.kills:
                    self.outcomes[kill.name].set_result(await play(stage, kill))
                kept = [found for found in await box.control.incidents(_MOST) if found["id"] not in stage.expired]
                await box.stop()
                self.faults.set_result(accounts.faults(box.state_dir, kept))
