"""One incident from its first detection to its closed row.

Owns the order of things: the row and the owed alerts first; then, side by side, recording, publishing, the snapshot
and telling people. Each of these *chapters* may fail without stopping the others: an alert is never hostage to a
clip, nor a clip to a mail server or a journal. The incident ends `post_roll_s` after its last detection, or when
the clip is `max_clip_s` long. Event loop only; what blocks is done by the rooms below.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random
from typing import Protocol, TypeVar

import structlog

from vigintd.clip.recorder import ClipRecorder
from vigintd.clip.snapshot import snapshot_jpeg
from vigintd.clock import Clock, any_set, first_of
from vigintd.errors import ClipError, PermanentError, TransientError, VigintdError
from vigintd.incident.absences import Absences
from vigintd.incident.audience import Audience, clip_request
from vigintd.incident.courier import Courier
from vigintd.journal import EffectKind, Journal, Owed
from vigintd.model import Detection, Incident, IncidentState, NoVideo, Packet, Risk, SealedPart
from vigintd.publish import Host
from vigintd.publish.uploader import upload_part
from vigintd.redact import redacted
from vigintd.retry import Backoff, patiently
from vigintd.spool import PartFile, Spool

log = structlog.get_logger(__name__)

HOST_BACKOFF = Backoff(first_s=1, cap_s=60)
JOURNAL_BACKOFF = Backoff(first_s=0.1, cap_s=5)
OPENING_LIFE_S = 30.0
"""For so long the incident's row is tried; a journal that cannot take it then has lost it, and the log says so."""
BATCH_S = 0.25
"""Packets come to the ring in batches; those of the last moment come so late at most."""

_RISKS = (Risk.UNKNOWN, Risk.LOW, Risk.MEDIUM, Risk.HIGH)
"""Rising; a later detection may raise an incident's risk and never lowers it."""
_STATES = tuple(IncidentState)
_T = TypeVar("_T")


class RingReader(Protocol):
    """What a story needs of its camera's ring."""

    def since(self, moment_s: float) -> list[Packet]:
        """The packets from the key frame at or before `moment_s` to the newest."""
        ...

    def follow(self, since_s: float) -> AsyncGenerator[list[Packet]]:
        """The same, and then what arrives, until the camera stops for good."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """How long things last and who is told: the settings that a story goes by."""

    audience: Audience
    pre_roll_s: float
    post_roll_s: float
    max_clip_s: float
    keep_original: bool = False
    """Keep what the camera sent where it had to be encoded."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """What a story works with."""

    journal: Journal
    spool: Spool
    host: Host
    courier: Courier
    clock: Clock
    random: Random


class _Outlook:
    """Whether a link will play: not known, it does, or it never will; once known it stays."""

    def __init__(self) -> None:
        self.playable = asyncio.Event()
        self.hopeless = asyncio.Event()
        self.no_video: NoVideo | None = None

    def plays(self) -> None:
        if not self.hopeless.is_set():
            self.playable.set()

    def give_up(self, reason: NoVideo) -> None:
        if not self.playable.is_set() and not self.hopeless.is_set():
            self.no_video = reason
            self.hopeless.set()


class Story:
    """An incident under way. `run` it once; `extend` it by further detections; read `incident` at any time."""

    def __init__(self, incident_id: str, detection: Detection, *, plan: Plan, ring: RingReader, rooms: Rooms) -> None:
        self.incident = Incident(incident_id, detection)
        self.acknowledged = asyncio.Event()
        """Set when it is settled whether the row is on disk; `promised` says whether it is."""
        self.promised = False
        self._plan = plan
        self._ring = ring
        self._rooms = rooms
        self._last_detection_s = detection.arrived_s
        self._is_over = False
        """Nothing is recorded any more, or the camera will show nothing more."""
        self._parts: asyncio.Queue[PartFile | None] = asyncio.Queue()
        """Parts in order as they begin, then None; the recorder caps their number."""
        self._outlook = _Outlook()
        self._snapshot_over = asyncio.Event()
        """The snapshot is kept, or could not be had."""

    def extend(self, detection: Detection) -> bool:
        """Make the incident last longer for one more detection; False when it has ended already."""
        if self._is_over or self._rooms.clock.monotonic_s() >= self._end_s():
            return False
        self._last_detection_s = max(self._last_detection_s, detection.arrived_s)
        first = self.incident.detection
        risk = max(first.risk, detection.risk, key=_RISKS.index)
        self.incident = replace(self.incident, detections=self.incident.detections + 1, detection=replace(first, risk=risk))
        return True

    async def run(self) -> None:
        """Live through the incident, from the row to the closed row. Raises `JournalUnavailable` when there is no row."""
        # Of this task and of all it starts: every line of an incident says which one it is.
        structlog.contextvars.bind_contextvars(incident=self.incident.id, camera=self.incident.camera)
        try:
            await self._open()
            self.promised = True
        finally:
            self.acknowledged.set()
        log.info("incident.opened", type=self.incident.detection.type, detector=self.incident.detection.detector)
        chapters = {"record": self._record, "snapshot": self._keep_snapshot, "publish": self._publish, "tell": self._tell}
        async with asyncio.TaskGroup() as tasks:
            for name, chapter in chapters.items():
                tasks.create_task(self._guard(name, chapter), name=f"{name} {self.incident.id}")
        await self._become(replace(self.incident, state=IncidentState.CLOSED), surely=True)
        log.info("incident.closed", problem=self.incident.problem)

    async def _open(self) -> None:
        """The row, and in the same commit every alert: due when the link plays, and at the latest in `text_after_s`."""
        due_at = self._rooms.clock.now() + timedelta(seconds=self._plan.audience.text_after_s)
        alerts = [Owed(EffectKind.ALERT, recipient, due_at) for recipient in self._plan.audience.recipients]
        await self._patiently(
            lambda: self._rooms.journal.open_incident(self.incident, alerts), backoff=JOURNAL_BACKOFF, life_s=OPENING_LIFE_S
        )
        self._rooms.courier.look()

    async def _guard(self, name: str, chapter: Callable[[], Awaitable[None]]) -> None:
        """Let a chapter fail alone."""
        try:
            await chapter()
        except VigintdError as error:
            log.error("incident.trouble", chapter=name, error=str(error))
            await self._become(replace(self.incident, problem=redacted(str(error))))
        except Exception as error:  # a defect in one chapter may not stop the others
            log.exception("incident.trouble", chapter=name)
            await self._become(replace(self.incident, problem=redacted(f"{type(error).__name__}: {error}")))

    # Recording

    def _end_s(self) -> float:
        """The monotonic second at which the incident ends, as far as is known now."""
        longest_s = self.incident.detection.arrived_s - self._plan.pre_roll_s + self._plan.max_clip_s
        return min(longest_s, self._last_detection_s + self._plan.post_roll_s)

    async def _record(self) -> None:
        """Write the clip, from the pre-roll on, until the incident ends."""
        recorder = ClipRecorder(
            self._rooms.spool,
            self.incident.id,
            on_part=self._parts.put_nowait,
            keep_original=self._plan.keep_original,
            clock=self._rooms.clock,
        )
        sealed: tuple[SealedPart, ...] = ()
        try:
            partial = await self._pump(recorder)
            sealed = await recorder.seal(partial=partial)
        finally:
            self._is_over = True
            try:
                # Closed without a seal, a part tells whoever uploads it that there will be no more.
                await recorder.aclose()
            finally:
                self._parts.put_nowait(None)
                if not sealed:
                    self._outlook.give_up(NoVideo.UNRECORDED)
        ended = replace(self.incident, state=IncidentState.SEALED, parts=sealed, ended_at=self._rooms.clock.now())
        await self._become(replace(ended, originals=recorder.originals))
        log.info("clip.sealed", parts=len(sealed), size_bytes=sum(part.length_bytes for part in sealed))

    async def _pump(self, recorder: ClipRecorder) -> str:
        """Move packets from the ring into the clip until the incident's end; answers what is missing, or nothing.

        The end is a packet's arrival, not the time it is read: what the ring holds already is written also when the
        detection, or an encoder, came late.
        """
        clock, trouble, stopped, absences = self._rooms.clock, "", "", Absences()
        upcoming: asyncio.Future[list[Packet] | None] | None = None
        async with aclosing(self._ring.follow(self.incident.detection.arrived_s - self._plan.pre_roll_s)) as batches:
            try:
                while True:
                    upcoming = upcoming or asyncio.ensure_future(anext(batches, None))
                    left_s = max(0.0, self._end_s() + BATCH_S - clock.monotonic_s())
                    if not await first_of(clock, upcoming, within_s=left_s):
                        if clock.monotonic_s() < self._end_s() + BATCH_S:
                            continue  # it was extended meanwhile
                        break
                    batch, upcoming = upcoming.result(), None
                    if batch is None:
                        self._is_over, stopped = True, "the camera was stopped"
                        break
                    end_s = self._end_s()
                    packets = [packet for packet in batch if packet.arrived_s < end_s]
                    absences.look(packets)
                    trouble = await self._write(recorder, packets) or trouble
                    if batch[-1].arrived_s >= end_s:
                        break
            finally:
                if upcoming is not None:
                    upcoming.cancel()
                    await asyncio.gather(upcoming, return_exceptions=True)
        return "; ".join(filter(None, (trouble, absences.text, stopped or absences.at_end(self._end_s()))))

    async def _write(self, recorder: ClipRecorder, packets: list[Packet]) -> str:
        """Write what can be written; answers what went wrong. The incident goes on: the next write may succeed."""
        try:
            await recorder.write(packets)
        except (OSError, ClipError, TransientError) as error:
            log.error("clip.damaged", error=str(error))
            return redacted(str(error))
        if self.incident.pre_roll_s is None and recorder.started_s is not None:
            pre_roll_s = max(0.0, self.incident.detection.arrived_s - recorder.started_s)
            await self._become(replace(self.incident, state=IncidentState.RECORDING, pre_roll_s=round(pre_roll_s, 3)))
        return ""

    # The snapshot

    async def _keep_snapshot(self) -> None:
        """Keep the picture of the detection beside the clip."""
        try:
            moment_s = self.incident.detection.arrived_s
            jpeg = await snapshot_jpeg(self._ring.since(moment_s), moment_s)
            await self._rooms.spool.keep(self.incident.id, ".jpg", jpeg)
        except (VigintdError, OSError) as error:
            log.warning("snapshot.missing", error=str(error))
        finally:
            self._snapshot_over.set()

    # Publishing

    async def _publish(self) -> None:
        """Bring the clip to the host while it grows."""
        try:
            await self._announce()
            published = 0
            while (part := await self._parts.get()) is not None:
                await self._upload(part)
                published += 1
            await self._conclude()
        except Exception:
            self._outlook.give_up(NoVideo.REFUSED)
            raise
        if published:
            await self._become(replace(self.incident, state=IncidentState.PUBLISHED))
            log.info("clip.published", parts=published)

    async def _announce(self) -> None:
        """Tell the host that a clip is coming, so that its link is known before the first fragment."""
        audience = self._plan.audience

        async def announce() -> None:
            if self._outlook.no_video is NoVideo.UNRECORDED:
                raise PermanentError("nothing was recorded")
            await self._rooms.host.create(clip_request(self.incident, audience, audience.recipients))

        await self._patiently(announce, backoff=HOST_BACKOFF, life_s=self._life_s)

    async def _upload(self, part: PartFile) -> None:
        """Bring one part to the host; the row is settled when the host has checked the hash."""
        journal = self._rooms.journal
        effect = await self._recorded(lambda: journal.owe(self.incident.id, Owed(EffectKind.UPLOAD, str(part.index))))
        try:
            await upload_part(
                self._rooms.host,
                self.incident.id,
                part,
                clock=self._rooms.clock,
                random=self._rooms.random,
                backoff=HOST_BACKOFF,
                life_s=self._life_s,
                on_accepted=lambda offset_bytes: self._accepted(part, offset_bytes),
            )
        except (VigintdError, OSError) as error:
            reason = redacted(str(error))
            await self._recorded(lambda: journal.bury(effect.key, reason))
            raise
        self._outlook.plays()
        await self._recorded(lambda: journal.settle(effect.key))

    def _accepted(self, part: PartFile, offset_bytes: int) -> None:
        """Note that the host holds so much; a link plays from the first fragment behind the header on."""
        if self._rooms.host.capabilities.playable_at == "first_fragment" and len(part.fragments) > 1:
            first = part.fragments[1]
            if offset_bytes >= first.offset_bytes + first.length_bytes:
                self._outlook.plays()

    async def _conclude(self) -> None:
        """Tell the host what the incident has become, and that no part will follow."""
        detection = self.incident.detection
        become = {"ended": True, "risk": detection.risk.value, "detections": self.incident.detections}
        await self._patiently(
            lambda: self._rooms.host.update(self.incident.id, become), backoff=HOST_BACKOFF, life_s=self._life_s
        )

    @property
    def _life_s(self) -> float:
        """For how long publishing is tried: a link that has expired helps nobody."""
        return self._plan.audience.expiry_h * 3600

    # Telling people

    async def _tell(self) -> None:
        """Have the alerts sent as soon as it is known whether a link plays; the courier sends them in time without that."""
        await any_set(self._rooms.clock, self._outlook.playable, self._outlook.hopeless)
        await self._snapshot_over.wait()
        if self._outlook.playable.is_set():
            log.info("incident.playable")
            await self._recorded(lambda: self._rooms.journal.record_playable(self.incident.id))
        else:
            await self._become(replace(self.incident, no_video=self._outlook.no_video), surely=True)
        await self._rooms.courier.tell(self.incident.id)

    # The row

    async def _become(self, incident: Incident, *, surely: bool = False) -> None:
        """Change the incident, here and in the journal; its state only ever moves on.

        A journal that cannot take it stops nothing: the next change writes everything again. Where no other change may
        follow, or something else depends on it, `surely` tries for as long as it takes.
        """
        if _STATES.index(incident.state) < _STATES.index(self.incident.state):
            incident = replace(incident, state=self.incident.state)
        self.incident = incident
        if surely:
            await self._recorded(lambda: self._rooms.journal.record_incident(self.incident))
            return
        try:
            await self._rooms.journal.record_incident(incident)
        except TransientError as error:
            log.error("incident.unwritten", state=incident.state.value, error=str(error))

    async def _recorded(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """Write to the journal for as long as the incident is worth it."""
        return await self._patiently(call, backoff=JOURNAL_BACKOFF, life_s=self._life_s)

    async def _patiently(self, call: Callable[[], Awaitable[_T]], *, backoff: Backoff, life_s: float) -> _T:
        return await patiently(
            call,
            clock=self._rooms.clock,
            random=self._rooms.random,
            backoff=backoff,
            life_s=life_s,
            on_delay=lambda error, delay_s: log.warning("incident.delayed", error=str(error), retry_in_s=round(delay_s, 1)),
        )
