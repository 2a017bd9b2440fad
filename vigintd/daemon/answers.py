"""What the control socket answers: incidents and status as plain JSON values, and triggers.

Owns the shape of these answers (`vigintd incidents show --json` prints them as they are) and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from vigintd import __version__, metrics
from vigintd.camera import Camera
from vigintd.clock import Clock
from vigintd.errors import ControlError
from vigintd.incident import Courier, Desk, Publisher, Space
from vigintd.journal import Effect, EffectKind, EffectState, IncidentRow, Journal
from vigintd.model import Detection, Risk
from vigintd.spool import Spool


class Answers:
    """The handlers of the control socket, over the rooms of a running daemon."""

    def __init__(
        self,
        *,
        cameras: Mapping[str, Camera],
        desk: Desk,
        journal: Journal,
        spool: Spool,
        courier: Courier,
        publisher: Publisher,
        space: Space,
        clock: Clock,
    ) -> None:
        self._courier = courier
        self._publisher = publisher
        self._space = space
        self._cameras = cameras
        self._desk = desk
        self._journal = journal
        self._spool = spool
        self._clock = clock

    async def trigger(
        self,
        camera: str,
        type: str,  # noqa: A002 - the glossary's word
        risk: Risk,
        confidence: float | None,
        text: str,
    ) -> dict[str, Any]:
        """Open or extend the camera's incident as if a detector had seen something now; answers its id and which it was.

        Returns once the incident's row is on disk. Raises `ControlError` for a camera that is not configured.
        """
        if camera not in self._cameras:
            known = ", ".join(sorted(self._cameras))
            raise ControlError(f"no camera is called {camera!r}; there are: {known}")
        detection = Detection(
            camera=camera,
            arrived_s=self._clock.monotonic_s(),
            at=self._clock.now(),
            type=type,
            risk=risk,
            confidence=confidence,
            text=text,
            detector="trigger",
        )
        story = self._desk.detect(detection)
        if story is None:
            raise ControlError("vigintd is stopping; nothing was triggered")
        opened = story.incident.detections == 1  # nothing was awaited since: this is the first
        await story.acknowledged.wait()
        if not story.promised:
            raise ControlError("the incident could not be written to the journal; see the log")
        return {"incident_id": story.incident.id, "opened": opened}

    async def incidents(self, limit: int) -> list[dict[str, Any]]:
        """The newest incidents, newest first."""
        return [self._incident(row) for row in await self._journal.incidents(limit=limit)]

    async def incident(self, incident_id: str) -> dict[str, Any] | None:
        """One incident, or None."""
        row = await self._journal.incident(incident_id)
        return self._incident(row) if row else None

    async def owing(self, limit: int) -> list[dict[str, Any]]:
        """The newest incidents of which something is owed or was given up, newest first."""
        return [self._incident(row) for row in await self._journal.incidents(limit=limit, owing=True)]

    async def retry(self, incident_id: str | None) -> list[dict[str, Any]] | None:
        """Try again now what failed, of one incident or (None) of all; None when there is no such incident."""
        if incident_id is not None and await self._journal.incident(incident_id) is None:
            return None
        failed = await self._courier.retry(incident_id)
        self._publisher.look()
        return [{"incident_id": effect.incident_id, **self._effect(effect)} for effect in failed]

    async def status(self) -> dict[str, Any]:
        """How the daemon is: version, cameras, counters, disk, and the damaged journals that lie there."""
        cameras = {}
        for name, camera in self._cameras.items():
            status = asdict(camera.status)
            status["since"] = camera.status.since.isoformat()
            cameras[name] = status | {"ring_s": round(camera.ring.held_s, 1), "ring_bytes": camera.ring.size_bytes}
        journal = {"damaged": [str(path) for path in self._journal.set_aside()]}
        return {
            "version": __version__,
            "cameras": cameras,
            "counters": metrics.snapshot(),
            "disk": self._space.status(),
            "journal": journal,
        }

    def _incident(self, row: IncidentRow) -> dict[str, Any]:
        incident, detection = row.incident, row.incident.detection
        alerts = [effect for effect in row.effects if effect.kind is EffectKind.ALERT and effect.state is EffectState.DONE]
        mailed = [effect.settled_at for effect in alerts if effect.settled_at]
        return {
            "id": incident.id,
            "camera": incident.camera,
            "at": detection.at.isoformat(),
            "type": detection.type,
            "risk": detection.risk.value,
            "confidence": detection.confidence,
            "text": detection.text,
            "state": incident.state.value,
            "detections": incident.detections,
            "pre_roll_s": incident.pre_roll_s,
            "ended_at": incident.ended_at.isoformat() if incident.ended_at else None,
            "playable_at": row.playable_at.isoformat() if row.playable_at else None,
            "mailed_at": min(mailed).isoformat() if mailed else None,
            "parts": [asdict(part) | {"path": str(self._spool.part_path(incident.id, part.index))} for part in incident.parts],
            "originals": [
                asdict(original) | {"path": str(self._spool.source_path(incident.id, original.index))}
                for original in incident.originals
            ],
            "effects": [self._effect(effect) for effect in row.effects],
            "no_video": incident.no_video.value if incident.no_video else None,
            "problem": incident.problem,
        }

    def _effect(self, effect: Effect) -> dict[str, Any]:
        return {
            "kind": effect.kind.value,
            "what": effect.what,
            "state": effect.state.value,
            "attempts": effect.attempts,
            "next_try_at": self._journal.lived.wall(effect.next_try_at).isoformat()
            if effect.state is EffectState.OWED
            else None,
            "last_error": effect.last_error,
        }
