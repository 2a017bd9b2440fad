"""One incident from its first detection to its closed row.

Owns the order of things: the row, with the alerts and the publication that are owed from then on; then, side by side,
recording and the snapshot. Either may fail without stopping the other. Publishing and telling people are the publisher's
and the courier's, from the first moment on: an alert is never hostage to a clip, nor a clip to a mail server or a journal. The
recording ends `post_roll_s` after the last detection, or when the clip is `max_clip_s` long. Event loop only; what blocks
is done by the rooms below.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from random import Random
from typing import Protocol

import structlog

from vigintd.clip.recorder import ClipRecorder
from vigintd.clip.snapshot import snapshot_jpeg
from vigintd.clock import Clock, first_of
from vigintd.errors import ClipError, TransientError, VigintdError
from vigintd.failpoints import failpoint
from vigintd.incident.absences import Absences
from vigintd.incident.audience import Audience
from vigintd.incident.courier import Courier
from vigintd.incident.publisher import Publisher
from vigintd.incident.reel import Reel
from vigintd.incident.space import Space, disk_trouble
from vigintd.journal import EffectKind, Journal, Owed
from vigintd.model import Detection, Incident, IncidentState, NoVideo, Packet, Risk
from vigintd.publish import Host
from vigintd.redact import redacted
from vigintd.retry import Backoff, patiently
from vigintd.spool import Spool

log = structlog.get_logger(__name__)

JOURNAL_BACKOFF = Backoff(first_s=0.1, cap_s=5)
OPENING_LIFE_S = 30.0
"""For so long the incident's row is tried, or for `text_after_s` where that is shorter; if the journal cannot take it by
then, nothing is recorded, and people are told that."""

BATCH_S = 0.25
"""Packets come to the ring in batches; those of the last moment come so late at most."""

DISK_PATIENCE_S = 5.0
"""A disk that has room and takes nothing for so long ends the clip."""

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
    keep_original: bool = False
    """Keep what the camera sent where it had to be encoded."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """What a story works with."""

    journal: Journal
    spool: Spool
    host: Host
    courier: Courier
    publisher: Publisher
    space: Space
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
        self._last_detection_s = detection.arrived_s
        self._unstored = ""
        """Why the disk takes no more of the clip, in words for a user; the incident goes on all the same."""
        self._failing_since_s: float | None = None
        """Since when the disk has taken nothing."""
        self._is_over = False
        """Nothing is recorded any more, or the camera will show nothing more."""

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
        """Live through the incident, from its row to its sealed clip. Raises `JournalUnavailable` when there is no row."""
        # Of this task and of all it starts: every line of an incident says which one it is.
        structlog.contextvars.bind_contextvars(incident=self.incident.id, camera=self.incident.camera)
        with self._rooms.publisher.live(self.incident.id) as reel, self._rooms.space.recording():
            try:
                await self._open()
                self.promised = True
            except Exception:
                self.acknowledged.set()
                await self._rooms.courier.tell_unwritten(self.incident)
                raise
            finally:
                self.acknowledged.set()
            log.info("incident.opened", type=self.incident.detection.type, detector=self.incident.detection.detector)
            chapters = {"record": self._record, "snapshot": self._keep_snapshot}
            async with asyncio.TaskGroup() as tasks:
                for name, chapter in chapters.items():
                    tasks.create_task(self._guard(name, partial(chapter, reel)), name=f"{name} {self.incident.id}")

    async def _open(self) -> None:
        """The row, and in the same commit the clip's publication and every alert.

        Alerts are due when the link plays, and at the latest in `text_after_s`.
        """
        due_at = self._rooms.journal.now() + timedelta(seconds=self._plan.audience.text_after_s)
        alerts = [Owed(EffectKind.ALERT, recipient, due_at) for recipient in self._plan.audience.recipients]
        await self._patiently(
            lambda: self._rooms.journal.open_incident(self.incident, [*alerts, Owed(EffectKind.PUBLISH, "")]),
            life_s=min(OPENING_LIFE_S, self._plan.audience.text_after_s),
        )
        self._rooms.courier.look()
        self._rooms.publisher.look()

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

    async def _record(self, reel: Reel) -> None:
        """Write the clip, from the pre-roll on, until the incident ends."""
        recorder = ClipRecorder(
            self._rooms.spool,
            self.incident.id,
            on_part=reel.add,
            keep_original=self._plan.keep_original,
            clock=self._rooms.clock,
        )
        try:
            if self._rooms.space.full:
                await self._rooms.space.run_once()  # there may be room by now
            partial_because = await self._pump(recorder, reel)
            sealed = await recorder.seal(partial=partial_because)
        except (VigintdError, OSError) as error:
            self._is_over = True
            await recorder.aclose()
            log.error("clip.damaged", error=str(error))
            sealed = await self._rooms.spool.salvage(self.incident.id, redacted(str(error)))
        finally:
            self._is_over = True
            await recorder.aclose()
        ended = replace(self.incident, state=IncidentState.SEALED, parts=sealed, ended_at=self._rooms.clock.now())
        ended = replace(ended, originals=recorder.originals)
        if not sealed:
            no_video = NoVideo.UNSTORED if self._unstored else NoVideo.UNRECORDED
            ended = replace(ended, no_video=no_video, problem=ended.problem or self._unstored or "nothing was recorded")
        await self._become(ended, surely=True)
        log.info("clip.sealed", parts=len(sealed), size_bytes=sum(part.length_bytes for part in sealed))
        if not sealed:
            await self._rooms.courier.hurry(self.incident.id)

    async def _pump(self, recorder: ClipRecorder, reel: Reel) -> str:
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
                    trouble = await self._write(recorder, reel, packets) or trouble
                    if batch[-1].arrived_s >= end_s:
                        break
            finally:
                if upcoming is not None:
                    upcoming.cancel()
                    await asyncio.gather(upcoming, return_exceptions=True)
        return "; ".join(filter(None, (trouble, absences.text, stopped or absences.at_end(self._end_s()))))

    async def _write(self, recorder: ClipRecorder, reel: Reel, packets: list[Packet]) -> str:
        """Write what can be written; answers what went wrong. The incident goes on: the next write may succeed."""
        if full := self._rooms.space.full:
            await self._end_early(recorder, reel, full)
        if self._unstored:
            return self._unstored
        try:
            await recorder.write(packets)
        except OSError as error:
            return await self._bear(recorder, reel, error)
        except (ClipError, TransientError) as error:
            log.error("clip.damaged", error=str(error))
            return redacted(str(error))
        self._failing_since_s = None
        if self.incident.pre_roll_s is None and recorder.started_s is not None:
            pre_roll_s = max(0.0, self.incident.detection.arrived_s - recorder.started_s)
            await self._become(replace(self.incident, state=IncidentState.RECORDING, pre_roll_s=round(pre_roll_s, 3)))
        return ""

    async def _bear(self, recorder: ClipRecorder, reel: Reel, error: OSError) -> str:
        """Go on with a disk that took nothing, for a while and as long as it has room; answers what went wrong."""
        now_s, trouble = self._rooms.clock.monotonic_s(), redacted(disk_trouble(error))
        if self._failing_since_s is None:
            self._failing_since_s = now_s
            log.error("clip.damaged", error=str(error))
        has_room = await self._rooms.space.run_once()
        if not has_room or now_s >= self._failing_since_s + DISK_PATIENCE_S:
            await self._end_early(recorder, reel, self._rooms.space.full or trouble)
        return self._unstored or trouble

    async def _end_early(self, recorder: ClipRecorder, reel: Reel, reason: str) -> None:
        """Write no more of this clip. The incident stays open, or each further detection would open, and mail, another."""
        if self._unstored:
            return
        self._unstored = reason
        log.error("clip.ended_early", reason=reason)
        if not recorder.is_begun:
            await recorder.give_up()  # there shall be no clip of which people were told that there is none
            await self._become(replace(self.incident, no_video=NoVideo.UNSTORED, problem=reason))
            await reel.pictured.wait()
            await self._rooms.courier.hurry(self.incident.id)

    # The snapshot

    async def _keep_snapshot(self, reel: Reel) -> None:
        """Keep the picture of the detection beside the clip."""
        try:
            moment_s = self.incident.detection.arrived_s
            jpeg = await snapshot_jpeg(self._ring.since(moment_s), moment_s)
            failpoint("snapshot.keep.before")
            await self._rooms.spool.keep(self.incident.id, ".jpg", jpeg)
            failpoint("snapshot.keep.after")
        except (VigintdError, OSError) as error:
            log.warning("snapshot.missing", error=str(error))
        finally:
            reel.pictured.set()

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
            await self._patiently(lambda: self._rooms.journal.record_incident(self.incident), life_s=math.inf)
            return
        try:
            await self._rooms.journal.record_incident(incident)
        except TransientError as error:
            log.error("incident.unwritten", state=incident.state.value, error=str(error))

    async def _patiently(self, call: Callable[[], Awaitable[None]], *, life_s: float) -> None:
        """Write to the journal, again and again."""
        await patiently(
            call,
            clock=self._rooms.clock,
            random=self._rooms.random,
            backoff=JOURNAL_BACKOFF,
            life_s=life_s,
            on_delay=lambda error, delay_s: log.warning("incident.delayed", error=str(error), retry_in_s=round(delay_s, 1)),
        )
