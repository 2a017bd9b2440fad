"""What a daemon that dies leaves and finds again: its files, the mail server, the host of clips, and the time.

Owns these for the lives of one daemon after another, what of them may fail and how, and what must hold of every mail at
the moment it is delivered. A life that is over reaches nobody any more.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

from tests.manual_clock import ManualClock
from vigintd.alert.mail import message_id
from vigintd.errors import HostRefused, HostUnavailable, MailRefused, MailUnavailable
from vigintd.model import Alert, AlertKind, NoVideo
from vigintd.publish import Capabilities, ClipRequest, Publication

PEOPLE = ("a@exemple.fr", "b@exemple.fr")

Key = tuple[str, str, str]
"""Incident, recipient, and which of the two mails: alert or follow_up."""


class Mail(StrEnum):
    """How the mail server is."""

    UP = "up"
    DOWN = "down"
    REFUSES_ONE = "refuses one recipient"
    LOSES_ANSWERS = "loses its answers"
    """It takes each mail and never says so (RFC 1047)."""


class Hosting(StrEnum):
    """How the host of clips is."""

    UP = "up"
    DOWN = "down"
    REFUSES = "refuses"


class Moment(StrEnum):
    """When the daemon is killed."""

    NOW = "now"
    MAIL_ACCEPTED = "a mail was accepted"
    CLIP_ANNOUNCED = "a clip was announced"
    BYTES_ACCEPTED = "bytes were accepted"
    PART_SEALED = "a part was sealed at the host"


@dataclass
class Outside:
    """The world around the lives of one daemon."""

    root: Path
    playable_bytes: int
    """So much of a clip must be at the host before its link plays."""
    clock: ManualClock = field(default_factory=ManualClock)
    mail: Mail = Mail.UP
    host: Hosting = Hosting.UP
    life: int = 0
    died: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, when a life ends."""
    kill_at: Moment | None = None
    violations: list[str] = field(default_factory=list)
    tried: list[Key] = field(default_factory=list)
    delivered: list[tuple[Key, Alert]] = field(default_factory=list)
    settled: set[Key] = field(default_factory=set)
    """Known to be done by the journal that the present life began with: never to be told again."""
    told_now: Counter[Key] = field(default_factory=Counter)
    """Delivered in this life, its server's answer not lost."""
    promised_again: set[str] = field(default_factory=set)
    """Incidents retried by hand: who was told that no video will come is owed the link."""
    held: dict[tuple[str, int], bytearray] = field(default_factory=dict)
    sealed: dict[tuple[str, int], str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The files of the present life."""
        return self.root / str(self.life)

    def told(self, incident_id: str, recipient: str) -> list[Alert]:
        """Everything that this recipient was told of an incident."""
        return [alert for (id_, who, _), alert in self.delivered if (id_, who) == (incident_id, recipient)]

    def kill(self) -> None:
        """The daemon is dead: what its files hold at this moment is what the next one finds."""
        dead = self.folder
        self.life += 1
        self.kill_at = None
        self.told_now.clear()
        self.died.set()
        self.died = asyncio.Event()
        for folder in (dead, *(path for path in dead.rglob("*") if path.is_dir())):
            (self.folder / folder.relative_to(dead)).mkdir(parents=True)
        for path in dead.rglob("*"):
            # What SQLite shares between processes is made anew.
            if path.is_dir() or path.name.endswith("-shm"):
                continue
            try:
                shutil.copyfile(path, self.folder / path.relative_to(dead))
            except FileNotFoundError:  # renamed just now, by a thread of the dying
                continue

    def plays(self, incident_id: str) -> bool:
        """The host shows something under this incident's link."""
        return len(self.held.get((incident_id, 0), b"")) >= self.playable_bytes

    def note(self, alert: Alert, *, answered: bool) -> None:
        """A mail is in its recipient's hands; look whether it may be."""
        key = key_of(alert)
        if key in self.settled:
            self.violations.append(f"{key} was told again, although the journal said that it was done")
        if self.told_now[key]:
            self.violations.append(f"{key} was told twice in one life")
        if alert.link is not None and not self.plays(alert.incident_id):
            self.violations.append(f"{key} was sent a link that does not play")
        before = self.told(alert.incident_id, alert.recipient)
        if alert.kind is AlertKind.FOLLOW_UP:
            fitting = {NoVideo.LATE} | ({NoVideo.REFUSED} if alert.incident_id in self.promised_again else set())
            if not any(told.kind is AlertKind.TEXT and told.no_video in fitting for told in before):
                self.violations.append(f"{key} follows no text that had promised it")
        for told in before:
            if told.kind is alert.kind and _id(told) != _id(alert):
                self.violations.append(f"{key} has two identities")
        self.delivered.append((key, alert))
        self.told_now[key] += answered


class Life:
    """What one life of the daemon reaches of the outside; nothing any more once it is dead."""

    name = "scripted"
    capabilities = Capabilities("creation", "first_fragment", resumable=True, per_recipient=True, revocable=True, audited=True)

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self._life = outside.life

    async def send(self, alert: Alert) -> None:
        """Deliver, as the mail server is."""
        outside = await self._reached()
        outside.tried.append(key_of(alert))
        if outside.mail is Mail.DOWN:
            raise MailUnavailable("nobody there")
        if outside.mail is Mail.REFUSES_ONE and alert.recipient == PEOPLE[1]:
            raise MailRefused("550 no such user")
        outside.note(alert, answered=outside.mail is not Mail.LOSES_ANSWERS)
        await self._perhaps(Moment.MAIL_ACCEPTED)
        if outside.mail is Mail.LOSES_ANSWERS:
            raise MailUnavailable("broke off after the final dot")

    async def create(self, request: ClipRequest) -> Publication:
        """Announce a clip."""
        await self._hosted()
        await self._perhaps(Moment.CLIP_ANNOUNCED)
        return Publication(request.clip_id, {who: f"https://v/{request.clip_id}/{who}" for who in request.recipients}, None)

    async def offset(self, clip_id: str, part: int) -> int:
        """What the host holds."""
        return len((await self._hosted()).held.get((clip_id, part), b""))

    async def append(self, clip_id: str, part: int, offset: int, body: AsyncIterator[bytes], _sha256: bytes) -> int:
        """Take bytes."""
        outside = await self._hosted()
        data = b"".join([chunk async for chunk in body])
        held = outside.held.setdefault((clip_id, part), bytearray())
        if offset != len(held):
            outside.violations.append(f"{clip_id}: bytes for {offset} where the host holds {len(held)}")
        held += data
        await self._perhaps(Moment.BYTES_ACCEPTED)
        return len(held)

    async def seal(self, clip_id: str, part: int, length_bytes: int, sha256: str) -> None:
        """Verify a part."""
        outside = await self._hosted()
        if len(outside.held[clip_id, part]) != length_bytes:
            outside.violations.append(f"{clip_id}: sealed at {length_bytes} bytes")
        outside.sealed[clip_id, part] = sha256
        await self._perhaps(Moment.PART_SEALED)

    async def update(self, _clip_id: str, _metadata: Any) -> None:
        """What the incident has become."""
        await self._hosted()

    async def probe(self) -> str:
        """One line."""
        return self.name

    async def aclose(self) -> None:
        """Nothing is held open."""

    async def _hosted(self) -> Outside:
        outside = await self._reached()
        if outside.host is Hosting.DOWN:
            raise HostUnavailable("nobody there")
        if outside.host is Hosting.REFUSES:
            raise HostRefused("wrong key")
        return outside

    async def _reached(self) -> Outside:
        if self._outside.life != self._life:
            await _for_ever()
        return self._outside

    async def _perhaps(self, moment: Moment) -> None:
        """Die here if that is the moment."""
        if self._outside.kill_at is moment:
            self._outside.kill()
            await _for_ever()


def key_of(alert: Alert) -> Key:
    """Which mail this is, whatever it says."""
    return alert.incident_id, alert.recipient, "follow_up" if alert.kind is AlertKind.FOLLOW_UP else "alert"


def _id(alert: Alert) -> str:
    return message_id(alert.incident_id, alert.recipient, alert.kind, "alerte@exemple.fr")


async def _for_ever() -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError
