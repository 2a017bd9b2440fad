"""500 kills at random: `python -m tests.campaigns.kill [--write]`.

Real daemons with their own link hosts, each with several cameras, are triggered at random and killed at a random moment, some
before they are ready, and started again. At the end every incident that was acknowledged must be closed and told of,
every mailed link must show the bytes that were sealed, and every file must belong to somebody. Seeded: what is drawn is
the same in every run, what it meets is not.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

from tests.campaigns import results
from tests.campaigns.process import quantile
from tests.daemon import accounts
from tests.daemon.box import Box, boxed
from tests.daemon.faulty import FPS, pictures
from tests.daemon.web import fetch
from vigintd.alert.mail import message_id
from vigintd.clock import SystemClock
from vigintd.demo.mailbox import Letter
from vigintd.demo.rtsp import RtspCamera
from vigintd.errors import ControlError
from vigintd.journal import EffectKind, EffectState, IncidentRow, Journal
from vigintd.model import AlertKind, IncidentState, NoVideo

CAMERAS = 4
UNREADY = 0.2
"""The share of daemons that are killed before they are ready, most of them while they recover."""
UNREADY_S = 0.3
"""For so long such a daemon lives at most once its journal is open: a recovery takes about as long."""
LIFE_S = 2.4
"""For so long a daemon lives at most once it is ready; a camera is live after 0.4 s, a clip sealed 1 s after its trigger."""
MOST_TRIGGERS = 3
OPTIONS = {"pre_roll_s": 0.2, "post_roll_s": 0.5, "max_clip_s": 30}
RECIPIENT, SENDER = "gardien@exemple.fr", "alerte@exemple.fr"
_ALL = 1_000_000


@dataclass
class Tally:
    """What was seen of one box."""

    kills: int = 0
    unready: int = 0
    """Kills of daemons that were not ready."""
    acknowledged: list[str] = field(default_factory=list)
    letters: Counter[str] = field(default_factory=Counter)
    """By Message-ID."""
    links: set[str] = field(default_factory=set)
    ready_s: list[float] = field(default_factory=list)
    """From a process's beginning to its being ready."""
    recovery_s: list[float] = field(default_factory=list)
    """The part of it in which spool and journal are brought together again."""
    taken_up: int = 0
    """Incidents that were cut while they were recorded, and sealed by a start."""
    wrong_clips: list[str] = field(default_factory=list)
    """Links that show other bytes than were sealed, or nothing."""
    clips: int = 0
    """Parts that links show as they were sealed."""
    rows: Sequence[IncidentRow] = ()
    faults: list[str] = field(default_factory=list)
    """Of files, and of the last daemon's end."""


@dataclass(frozen=True)
class Figures:
    """What one run measured."""

    boxes: int
    cameras: int
    kills: int
    unready: int
    seconds: float
    seed: int
    incidents: int
    acknowledged: int
    lost: list[str]
    """Acknowledged, and not there, not closed, or told to nobody."""
    taken_up: int
    clips: int
    wrong_clips: list[str]
    without_video: int
    """Told honestly that nothing was recorded: killed before the first fragment was whole."""
    set_aside: int
    """Of these: taken up by so many starts that were killed as well that they counted as poison."""
    mails: int
    duplicates: int
    most_copies: int
    """Of one mail."""
    faults: list[str]
    """Files that belong to nobody, are missing or hold other bytes; damaged journals are such files."""
    ready_p50_s: float
    ready_max_s: float
    recovery_p50_ms: float
    recovery_max_ms: float


class Siege:
    """One box under fire."""

    def __init__(self, box: Box, random: Random) -> None:
        self.tally = Tally()
        self._box = box
        self._random = random
        self._cameras = list(box.config["cameras"])

    async def run(self, kills: int) -> Tally:
        """Kill so often, then let it come to rest and count."""
        reading = asyncio.create_task(self._read_mails())
        for _ in range(kills):
            await self._life()
        await self._start()
        await self._rest()
        await self._look_at_links()
        code = await self._box.stop()
        reading.cancel()
        await asyncio.wait({reading})
        await self._look_at_files()
        if code:
            self.tally.faults.append(f"the last daemon ended with {code}")
        return self.tally

    async def _read_mails(self) -> None:
        while True:
            letter = await self._box.mailbox.next()
            self.tally.letters[str(letter.message["Message-ID"])] += 1
            self._note_link(letter)

    def _note_link(self, letter: Letter) -> None:
        if letter.link:
            self.tally.links.add(letter.link)

    async def _life(self) -> None:
        """Start a daemon, trigger now and then, and kill it."""
        self.tally.kills += 1
        if self._random.random() < UNREADY:
            await self._box.start(ready=False)
            await self._box.event("linkhost.started")
            await asyncio.sleep(self._random.uniform(0, UNREADY_S))
            self.tally.unready += not any(event["event"] == "daemon.ready" for event in self._box.events)
        else:
            await self._start()
            lives_s = self._random.uniform(0, LIFE_S)
            moments = [self._random.uniform(0, lives_s) for _ in range(self._random.randint(1, MOST_TRIGGERS))]
            triggers = [asyncio.create_task(self._trigger(in_s)) for in_s in moments]
            await asyncio.sleep(lives_s)
            await self._box.kill()
            await asyncio.wait(triggers)
        await self._box.kill()
        self.tally.taken_up += sum(event["event"] == "incident.recovered" for event in self._box.events)

    async def _trigger(self, in_s: float) -> None:
        camera = self._random.choice(self._cameras)
        await asyncio.sleep(in_s)
        with suppress(ControlError):
            self.tally.acknowledged.append(await self._box.trigger(camera))

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await self._box.start()
        self.tally.ready_s.append(loop.time() - began_s)
        # Only now the host runs, and the journal is open; what follows is recovery.
        begun, ready = [await self._box.event(name) for name in ("linkhost.started", "daemon.ready")]
        took = datetime.fromisoformat(ready["timestamp"]) - datetime.fromisoformat(begun["timestamp"])
        self.tally.recovery_s.append(took.total_seconds())

    async def _rest(self) -> None:
        """Wait until nothing is owed any more."""
        while open_ones := [one for one in await self._box.control.incidents(100, owed=True) if one["state"] != "closed"]:
            for incident in open_ones:
                await self._box.event("incident.closed", incident=incident["id"])

    async def _look_at_links(self) -> None:
        for link in sorted(self.tally.links):
            incident = await self._box.control.incident(link.partition("/video/")[2].partition("?")[0])
            if not incident or not incident["parts"]:
                self.tally.wrong_clips.append(link.partition("?")[0])
                continue
            for part in incident["parts"]:
                clip = await fetch(link.replace("?token=", f"/part/{part['index']}.mp4?token="))
                if hashlib.sha256(clip.body).hexdigest() == part["sha256"]:
                    self.tally.clips += 1
                else:
                    self.tally.wrong_clips.append(link.partition("?")[0])

    async def _look_at_files(self) -> None:
        state_dir = self._box.state_dir
        async with Journal.open(state_dir / "journal.sqlite3", SystemClock()) as journal:
            self.tally.rows = await journal.incidents(limit=_ALL)
        incidents: list[dict[str, Any]] = [
            {"id": row.incident.id, "parts": [asdict(part) for part in row.incident.parts]} for row in self.tally.rows
        ]
        self.tally.faults += accounts.faults(state_dir, incidents)

    def lost(self) -> list[str]:
        """Acknowledged incidents that did not end as was promised."""
        rows = {row.incident.id: row for row in self.tally.rows}
        return [one for one in self.tally.acknowledged if one not in rows or not self._is_kept(rows[one])]

    def _is_kept(self, row: IncidentRow) -> bool:
        """It is closed, its alert was delivered, and says honestly whether there is a clip."""
        own = [message_id(row.incident.id, RECIPIENT, kind, SENDER) for kind in AlertKind]
        alerts = [effect for effect in row.effects if effect.kind is EffectKind.ALERT]
        return (
            row.incident.state is IncidentState.CLOSED
            and all(effect.state is EffectState.DONE for effect in alerts)
            and any(self.tally.letters[one] for one in own)
            and (bool(row.incident.parts) or row.incident.no_video is NoVideo.UNRECORDED)
        )


async def measured(kills: int, *, boxes: int = 1, cameras: int = CAMERAS, seed: int = 1) -> Figures:
    """One run: so many kills, spread over the boxes."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    shown = await asyncio.to_thread(pictures)
    streams = [RtspCamera(shown, fps=FPS) for _ in range(cameras)]
    urls = [await stream.start(f"127.0.0.{number}") for number, stream in enumerate(streams, 2)]
    shares = [kills // boxes + (number < kills % boxes) for number in range(boxes)]
    sieges = await asyncio.gather(*(_besieged(urls, share, Random(seed + number)) for number, share in enumerate(shares)))
    for stream in streams:
        await stream.stop()
    return _figures(sieges, boxes=boxes, cameras=cameras, seconds=loop.time() - began_s, seed=seed)


async def _besieged(urls: Sequence[str], kills: int, random: Random) -> Siege:
    settings = {f"camera-{number}": {"url": url, **OPTIONS} for number, url in enumerate(urls)}
    with tempfile.TemporaryDirectory(prefix="vgt-") as name:
        folder = Path(name)
        async with boxed(folder, folder, settings) as box:
            siege = Siege(box, random)
            await siege.run(kills)
            return siege


def _figures(sieges: Sequence[Siege], *, boxes: int, cameras: int, seconds: float, seed: int) -> Figures:
    tallies = [siege.tally for siege in sieges]
    letters = Counter({one: count for tally in tallies for one, count in tally.letters.items()})
    incidents = [row.incident for tally in tallies for row in tally.rows]
    ready_s = [taken for tally in tallies for taken in tally.ready_s]
    recovery_s = [taken for tally in tallies for taken in tally.recovery_s]
    return Figures(
        boxes=boxes,
        cameras=cameras,
        kills=sum(tally.kills for tally in tallies),
        unready=sum(tally.unready for tally in tallies),
        seconds=round(seconds, 1),
        seed=seed,
        incidents=len(incidents),
        acknowledged=len({one for tally in tallies for one in tally.acknowledged}),
        lost=[one for siege in sieges for one in siege.lost()],
        taken_up=sum(tally.taken_up for tally in tallies),
        clips=sum(tally.clips for tally in tallies),
        wrong_clips=[link for tally in tallies for link in tally.wrong_clips],
        without_video=sum(not incident.parts for incident in incidents),
        set_aside=sum("set aside" in incident.problem for incident in incidents),
        mails=letters.total(),
        duplicates=letters.total() - len(letters),
        most_copies=max(letters.values(), default=0),
        faults=[fault for tally in tallies for fault in tally.faults],
        ready_p50_s=round(quantile(ready_s, 0.5), 2),
        ready_max_s=round(max(ready_s), 2),
        recovery_p50_ms=round(quantile(recovery_s, 0.5) * 1000, 1),
        recovery_max_ms=round(max(recovery_s) * 1000, 1),
    )


def rows(figures: Figures) -> list[results.Row]:
    """The figures as people read them."""
    taken = f"{figures.kills} in {figures.seconds:g} s, {figures.unready} of them before the daemon was ready"
    recovery = f"median {figures.recovery_p50_ms:g} ms, at most {figures.recovery_max_ms:g} ms"
    ready = f"median {figures.ready_p50_s:g} s, at most {figures.ready_max_s:g} s"
    return [
        ("boxes, cameras of each", f"{figures.boxes}, {figures.cameras}", ""),
        ("kills", taken, "500"),
        ("incidents, acknowledged", f"{figures.incidents}, {figures.acknowledged}", ""),
        ("acknowledged incidents lost", str(len(figures.lost)), "0"),
        ("incidents cut in mid-recording, sealed by the next start", str(figures.taken_up), ""),
        ("clips that their links show as they were sealed, others", f"{figures.clips}, {len(figures.wrong_clips)}", "all, 0"),
        ("incidents that ended with a mail that nothing was recorded", str(figures.without_video), ""),
        ("of these set aside, as four starts in a row died over them", str(figures.set_aside), ""),
        ("mails, of these sent again with the same Message-ID", f"{figures.mails}, {figures.duplicates}", "≤ one a kill"),
        ("copies of one mail at most", str(figures.most_copies), ""),
        ("files that belong to nobody, are missing or damaged", str(len(figures.faults)), "0"),
        ("recovery before the cameras start", recovery, ""),
        ("from the process's beginning to READY", ready, ""),
    ]


def main() -> None:
    """Read the command line, measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--boxes", type=int, default=2, help="so many daemons are under fire side by side")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="leave the result in docs/bench")
    arguments = parser.parse_args()
    figures = asyncio.run(measured(arguments.kills, boxes=arguments.boxes, seed=arguments.seed))
    results.tell(
        "kill",
        f"{arguments.kills} kills at random, each followed by a restart",
        rows(figures),
        asdict(figures),
        command="make campaign-kill ARGS='" + " ".join(sys.argv[1:]) + "'",
        write=arguments.write,
    )


if __name__ == "__main__":
    main()
