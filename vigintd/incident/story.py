"""One incident from its first detection to its closed row.

Owns the order of things: the row first; then, side by side, recording, publishing, the snapshot and telling
people. Each of these *chapters* may fail without stopping the others: an alert is never hostage to a clip, nor
a clip to a mail server. The incident ends `post_roll_s` after its last detection, or when the clip is
`max_clip_s` long. Event loop only; what blocks is done by the rooms below.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Protocol

import structlog

from vigintd.clip.recorder import ClipRecorder
from vigintd.clip.snapshot import snapshot_jpeg
from vigintd.clock import Clock
from vigintd.errors import VigintdError
from vigintd.incident.audience import Audience, clip_request
from vigintd.incident.courier import Courier
from vigintd.journal import Journal
from vigintd.model import AlertKind, Detection, Incident, IncidentState, NoVideo, Packet, Risk, SealedPart
from vigintd.publish import Host
from vigintd.publish.uploader import upload_part
from vigintd.redact import redacted
from vigintd.retry import Backoff, GiveUp, verdict
from vigintd.spool import PartFile, Spool

log = structlog.get_logger(__name__)

UPLOAD_BACKOFF = Backoff(first_s=1, cap_s=60)
_RISKS = (Risk.UNKNOWN, Risk.LOW, Risk.MEDIUM, Risk.HIGH)
"""Rising; a later detection may raise an incident's risk and never lowers it."""

_STATES = tuple(IncidentState)


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
    text_after_s: float


@dataclass(frozen=True, slots=True)
class Rooms:
    """What a story works with."""

    journal: Journal
    spool: Spool
    host: Host
    courier: Courier
    clock: Clock
    random: Random


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
        self._opened_s = rooms.clock.monotonic_s()
        self._last_detection_s = detection.arrived_s
        self._ended = False
        self._parts: asyncio.Queue[PartFile | None] = asyncio.Queue()
        """Parts in order as they begin, then None; the recorder caps their number."""
        self._playable = asyncio.Event()
        self._hopeless = asyncio.Event()
        """No link will play; `_no_video` says why."""
        self._no_video: NoVideo | None = None
        self._snapshot_over = asyncio.Event()
        """The snapshot is kept, or could not be had."""

    def extend(self, detection: Detection) -> bool:
        """Make the incident last longer for one more detection; False when it has ended already."""
        if self._ended or self._rooms.clock.monotonic_s() >= self._end_s():
            return False
        self._last_detection_s = max(self._last_detection_s, detection.arrived_s)
        first = self.incident.detection
        risk = max(first.risk, detection.risk, key=_RISKS.index)
        self.incident = replace(self.incident, detections=self.incident.detections + 1, detection=replace(first, risk=risk))
        return True

    async def run(self) -> None:
        """Live through the incident, from the row to the closed row."""
        # Of this task and of all it starts: every line of an incident says which one it is.
        structlog.contextvars.bind_contextvars(incident=self.incident.id, camera=self.incident.camera)
        try:
            await self._rooms.journal.open_incident(self.incident)
            self.promised = True
        finally:
            self.acknowledged.set()
        log.info("incident.opened", type=self.incident.detection.type, detector=self.incident.detection.detector)
        async with asyncio.TaskGroup() as chapters:
            for chapter in (self._record, self._keep_snapshot, self._publish, self._tell):
                chapters.create_task(self._guard(chapter), name=f"{chapter.__name__} {self.incident.id}")
        await self._become(replace(self.incident, state=IncidentState.CLOSED))
        log.info("incident.closed", problem=self.incident.problem)

    async def _guard(self, chapter: Callable[[], Awaitable[None]]) -> None:
        """Let a chapter fail alone."""
        try:
            await chapter()
        except VigintdError as error:
            log.error("incident.trouble", chapter=chapter.__name__.strip("_"), error=str(error))
            await self._become(replace(self.incident, problem=redacted(str(error))))
        except Exception as error:  # a defect in one chapter may not stop the others
            log.exception("incident.trouble", chapter=chapter.__name__.strip("_"))
            await self._become(replace(self.incident, problem=redacted(f"{type(error).__name__}: {error}")))

    # Recording

    def _end_s(self) -> float:
        """The monotonic second at which the incident ends, as far as is known now."""
        longest_s = self.incident.detection.arrived_s - self._plan.pre_roll_s + self._plan.max_clip_s
        return min(longest_s, self._last_detection_s + self._plan.post_roll_s)

    async def _record(self) -> None:
        """Write the clip, from the pre-roll on, until the incident ends."""
        recorder = ClipRecorder(self._rooms.spool, self.incident.id, on_part=self._parts.put_nowait)
        sealed: tuple[SealedPart, ...] = ()
        try:
            try:
                partial = await self._pump(recorder)
            except (VigintdError, OSError) as error:
                partial = redacted(str(error))
                log.error("clip.cut", error=partial)
            # What was written before the trouble is evidence too.
            self._ended = True
            sealed = await recorder.seal(partial=partial)
        finally:
            self._ended = True
            await recorder.aclose()
            self._parts.put_nowait(None)
            if not sealed:
                self._give_up_video(NoVideo.UNRECORDED)
        await self._become(replace(self.incident, state=IncidentState.SEALED, parts=sealed, ended_at=self._rooms.clock.now()))
        log.info("clip.sealed", parts=len(sealed), size_bytes=sum(part.length_bytes for part in sealed))

    async def _pump(self, recorder: ClipRecorder) -> str:
        """Move packets from the ring into the clip; answers why it ended early, or nothing."""
        clock, partial = self._rooms.clock, ""
        upcoming: asyncio.Future[list[Packet] | None] | None = None
        async with aclosing(self._ring.follow(self.incident.detection.arrived_s - self._plan.pre_roll_s)) as batches:
            try:
                while (left_s := self._end_s() - clock.monotonic_s()) > 0:
                    upcoming = upcoming or asyncio.ensure_future(anext(batches, None))
                    if not await self._within(upcoming, left_s):
                        continue
                    batch, upcoming = upcoming.result(), None
                    if batch is None:
                        partial = "the camera was stopped"
                        break
                    await recorder.write(batch)
                    await self._recording(recorder)
            finally:
                if upcoming is not None:
                    upcoming.cancel()
                    await asyncio.gather(upcoming, return_exceptions=True)
        return partial

    async def _within(self, upcoming: asyncio.Future[list[Packet] | None], seconds: float) -> bool:
        """Is it there within so many seconds? It is left waiting when it is not."""
        timer: asyncio.Future[Any] = asyncio.ensure_future(self._rooms.clock.sleep(seconds))
        try:
            await asyncio.wait({upcoming, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
        return upcoming.done()

    async def _recording(self, recorder: ClipRecorder) -> None:
        """After the first write: say how much pre-roll there really is."""
        if self.incident.pre_roll_s is None and recorder.started_s is not None:
            pre_roll_s = max(0.0, self.incident.detection.arrived_s - recorder.started_s)
            await self._become(replace(self.incident, state=IncidentState.RECORDING, pre_roll_s=round(pre_roll_s, 3)))

    # The snapshot

    async def _keep_snapshot(self) -> None:
        """Keep the picture of the detection beside the clip."""
        try:
            moment_s = self.incident.detection.arrived_s
            jpeg = await snapshot_jpeg(self._ring.since(moment_s), moment_s)
            await self._rooms.spool.keep(self.incident.id, ".jpg", jpeg)
        except VigintdError as error:
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
            self._give_up_video(NoVideo.REFUSED)
            raise
        if published:
            await self._become(replace(self.incident, state=IncidentState.PUBLISHED))
            log.info("clip.published", parts=published)

    async def _announce(self) -> None:
        """Tell the host that a clip is coming, so that its link is known before the first fragment."""
        await self._patiently(lambda: self._rooms.host.create(clip_request(self.incident, self._plan.audience)))

    async def _upload(self, part: PartFile) -> None:
        """Bring one part to the host; the row is settled when the host has checked the hash."""
        key = f"{self.incident.id}/upload/{part.index}"
        await self._rooms.journal.owe(key, self.incident.id, "upload", {"part": part.index})
        try:
            await upload_part(
                self._rooms.host,
                self.incident.id,
                part,
                clock=self._rooms.clock,
                random=self._rooms.random,
                backoff=UPLOAD_BACKOFF,
                life_s=self._life_s,
                on_accepted=lambda offset_bytes: self._accepted(part, offset_bytes),
            )
        except VigintdError as error:
            await self._rooms.journal.bury(key, redacted(str(error)))
            raise
        await self._rooms.journal.settle(key)
        self._playable.set()

    def _accepted(self, part: PartFile, offset_bytes: int) -> None:
        """Note that the host holds so much; a link plays from the first fragment behind the header on."""
        if self._rooms.host.capabilities.playable_at == "first_fragment" and len(part.fragments) > 1:
            first = part.fragments[1]
            if offset_bytes >= first.offset_bytes + first.length_bytes:
                self._playable.set()

    async def _conclude(self) -> None:
        """Tell the host what the incident has become, and that no part will follow."""
        detection = self.incident.detection
        become = {"ended": True, "risk": detection.risk.value, "detections": self.incident.detections}
        await self._patiently(lambda: self._rooms.host.update(self.incident.id, become))

    async def _patiently(self, call: Callable[[], Awaitable[object]]) -> None:
        """Do it, again after each transient failure, for as long as the link would live."""
        began_s, attempt = self._rooms.clock.monotonic_s(), 0
        while True:
            try:
                await call()
            except VigintdError as error:
                attempt += 1
                age_s = self._rooms.clock.monotonic_s() - began_s
                what_next = verdict(
                    error, attempt=attempt, age_s=age_s, life_s=self._life_s, backoff=UPLOAD_BACKOFF, random=self._rooms.random
                )
                if isinstance(what_next, GiveUp):
                    raise
                log.warning("host.postponed", error=str(error), attempt=attempt, retry_in_s=round(what_next.delay_s, 1))
                await self._rooms.clock.sleep(what_next.delay_s)
            else:
                return

    @property
    def _life_s(self) -> float:
        """For how long publishing is tried: a link that has expired helps nobody."""
        return self._plan.audience.expiry_h * 3600

    def _give_up_video(self, reason: NoVideo) -> None:
        """Make it known that no link will play."""
        if not self._playable.is_set() and self._no_video is None:
            self._no_video = reason
            self._hopeless.set()

    # Telling people

    async def _tell(self) -> None:
        """Mail the link as soon as it plays; without one in time, the text, and the link when it comes."""
        waited_s = self._rooms.clock.monotonic_s() - self._opened_s
        in_time = await self._any(self._playable, self._hopeless, within_s=self._plan.text_after_s - waited_s)
        if self._playable.is_set():
            await self._send(AlertKind.LINK)
            return
        await self._send(AlertKind.TEXT, self._no_video if in_time and self._no_video else NoVideo.LATE)
        await self._any(self._playable, self._hopeless)
        if self._playable.is_set():
            await self._send(AlertKind.FOLLOW_UP)

    async def _send(self, kind: AlertKind, no_video: NoVideo | None = None) -> None:
        """Owe every recipient this alert; returns when each was tried once."""
        if self._playable.is_set():
            await self._rooms.journal.record_playable(self.incident.id)
        await self._snapshot_over.wait()
        async with asyncio.TaskGroup() as mails:
            for recipient in self._plan.audience.recipients:
                mails.create_task(self._rooms.courier.send(self.incident.id, kind, recipient, no_video))

    async def _any(self, *events: asyncio.Event, within_s: float | None = None) -> bool:
        """Wait for any of them, at most so many seconds (None: for ever); False when none was set in time."""
        waits: set[asyncio.Future[Any]] = {asyncio.ensure_future(event.wait()) for event in events}
        timer = asyncio.ensure_future(self._rooms.clock.sleep(max(0.0, within_s))) if within_s is not None else None
        try:
            await asyncio.wait(waits | {timer} if timer else waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            if timer:
                timer.cancel()
        return any(event.is_set() for event in events)

    # The row

    async def _become(self, incident: Incident) -> None:
        """Change the incident, here and in the journal; its state only ever moves on."""
        if _STATES.index(incident.state) < _STATES.index(self.incident.state):
            incident = replace(incident, state=self.incident.state)
        self.incident = incident
        await self._rooms.journal.record_incident(incident)
