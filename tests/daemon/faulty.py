"""One daemon, healthy cameras, and beside them one camera for each way a camera can fail, all at once.

Owns the stage and how one fault's story is played on it; what faults there are and what must hold is the tests'.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.daemon.box import DEADLINE_S, Box, boxed
from tests.real.camera_lock import Lock
from tests.real.scripted_camera import Fault, ScriptedCamera
from vigintd.clip.encode import encode_pictures
from vigintd.model import Packet

FPS = 15
GOP = 8
LOOP = 32
PRE_ROLL_S = 1.0
POST_ROLL_S = 6.0
STALL_S = 3.0
"""Longer than a healthy camera is ever silent on a busy machine, shorter than what is left of an incident under way."""
HEALTHY_S = 12.0
"""How long the incidents of healthy cameras last: until the others have had their troubles."""


@cache
def pictures(size: tuple[int, int] = (120, 160)) -> list[Packet]:
    """A loop of two seconds in which something moves, so that no two key frames are alike."""
    height_px, width_px = size
    ground = np.random.default_rng(5).integers(80, 120, (height_px, width_px, 3), dtype=np.uint8)

    def draw(number: int):
        picture = ground.copy()
        left = number * (width_px - 24) // LOOP
        picture[height_px // 3 : height_px // 2, left : left + 24] = 230
        return picture

    return encode_pictures((draw(number) for number in range(LOOP)), fps=FPS, gop=GOP)


@dataclass
class Trouble:
    """One fault in one camera: how it comes, how it goes, and as what it is known."""

    make: Callable[[], Fault]
    reason: str
    """As which the camera counts as lost; empty where it must not be lost at all."""
    cut: bool = False
    """Connections are reset first, so that the fault meets whoever opens the stream anew."""
    settings: Callable[[ScriptedCamera], dict[str, Any]] = lambda _camera: {}
    lock: Lock | None = None
    host: str | None = None
    """Of the camera; an address of its own where it does not matter, as on a real network."""

    async def prepare(self, stage: Stage, camera: ScriptedCamera) -> None:
        """Before the daemon starts."""

    async def strike(self, stage: Stage, camera: ScriptedCamera) -> Fault:
        """Switch the fault on."""
        return camera.strike(self.make(), cut=self.cut)

    async def confirm(self, stage: Stage, fault: Fault) -> None:
        """Wait until it has really fired."""
        async with asyncio.timeout(DEADLINE_S):
            await fault.happened.wait()

    async def end(self, stage: Stage, camera: ScriptedCamera) -> None:
        """Switch it off."""
        camera.recover()


@dataclass
class Story:
    """What came of one trouble."""

    fired: int
    lost: dict[str, Any] | None
    """The line of the log, where there is one."""
    noticed_after_s: float
    """From when the fault was switched on to that line."""
    status: dict[str, Any]
    """Of this camera, while the fault lasted."""
    incident: dict[str, Any]
    post_roll_s: float
    after: dict[str, Any]
    """Status of this camera, once it was well again."""

    @property
    def parts(self) -> list[dict[str, Any]]:
        """Of the clip of the incident that was under way."""
        return list(self.incident["parts"])

    @property
    def promised_s(self) -> float:
        """The wall clock's seconds from the clip's beginning to the incident's end."""
        return float(self.incident["pre_roll_s"]) + self.post_roll_s


@dataclass
class Neighbour:
    """What came of a healthy camera meanwhile."""

    incident: dict[str, Any]
    status: dict[str, Any]
    missing: int
    """Access units that the camera sent and the ring never got, from when it was live until all was over; a few may be
    on their way at either end."""


class Stage:
    """The box, its cameras, and the stories that are played on it side by side."""

    def __init__(self, box: Box, cameras: Mapping[str, ScriptedCamera]) -> None:
        self.box = box
        self.cameras = cameras
        self.stories: dict[str, asyncio.Task[Story]] = {}
        self.neighbours: dict[str, asyncio.Task[Neighbour]] = {}

    async def status(self, name: str) -> dict[str, Any]:
        """A camera's status, as the control socket has it."""
        found: dict[str, Any] = (await self.box.control.status())["cameras"][name]
        return found

    async def play(self, name: str, trouble: Trouble) -> Story:
        """Trigger, strike amid the incident, see the camera lost and the incident ended, end the fault, see it live."""
        box, camera = self.box, self.cameras[name]
        await box.event("camera.live", camera=name)
        incident_id = await box.trigger(name)
        await _sends(camera, FPS)
        fault = await trouble.strike(self, camera)
        assert fault.fired == 0
        struck_at = datetime.now(UTC)
        lost = await box.event("camera.lost", camera=name, reason=trouble.reason) if trouble.reason else None
        noticed_at = datetime.fromisoformat(lost["timestamp"]) if lost else struck_at
        status = await self.status(name)
        await trouble.confirm(self, fault)
        incident = await box.closed(incident_id)
        fired = fault.fired
        await trouble.end(self, camera)
        await self._is_live(name)
        post_roll_s = float(box.config["cameras"][name]["post_roll_s"])
        noticed_after_s = (noticed_at - struck_at).total_seconds()
        return Story(fired, lost, noticed_after_s, status, incident, post_roll_s, await self.status(name))

    async def keep_well(self, name: str) -> Neighbour:
        """Let a healthy camera record an incident of its own while the others are in trouble."""
        camera = self.cameras[name]
        await self.box.event("camera.live", camera=name)
        incident_id = await self.box.trigger(name)
        before = camera.units_sent - (await self.status(name))["packets"]
        incident = await self.box.closed(incident_id)
        await asyncio.wait(self.stories.values())
        status = await self.status(name)
        return Neighbour(incident, status, camera.units_sent - status["packets"] - before)

    async def _is_live(self, name: str) -> None:
        """Wait until a camera is live, if it is not."""
        lives = sum((event["event"], event.get("camera")) == ("camera.live", name) for event in self.box.events)
        if (await self.status(name))["state"] != "live":
            await self.box.event("camera.live", camera=name, nth=lives + 1)


async def _sends(camera: ScriptedCamera, count: int) -> None:
    """Wait until the camera has sent so many access units more."""
    wanted = camera.units_sent + count
    async with asyncio.timeout(DEADLINE_S):
        while camera.units_sent < wanted:
            await camera.sent.wait()


@asynccontextmanager
async def staged(folder: Path, log_folder: Path, troubles: Mapping[str, Trouble], healthy: tuple[str, ...]):
    """A running daemon with a camera for each of `troubles` and `healthy` ones; every story has begun."""
    shown = await asyncio.to_thread(pictures)
    async with AsyncExitStack() as stack:
        cameras: dict[str, ScriptedCamera] = {}
        for number, name in enumerate((*healthy, *troubles), 2):
            trouble = troubles.get(name, NO_TROUBLE)
            camera = cameras[name] = ScriptedCamera(shown, fps=FPS, lock=trouble.lock)
            # Streams of one host are opened one after another, so each has an address of its own, as on a real network.
            await camera.start(trouble.host or f"127.0.0.{number}")
            stack.push_async_callback(_stop, camera)
        settings = {name: _settings(camera, troubles.get(name, NO_TROUBLE)) for name, camera in cameras.items()}
        box = await stack.enter_async_context(boxed(folder, log_folder, settings))
        stage = Stage(box, cameras)
        for name, trouble in troubles.items():
            await trouble.prepare(stage, cameras[name])
        await box.start()
        for name, trouble in troubles.items():
            stage.stories[name] = asyncio.create_task(stage.play(name, trouble))
        stage.neighbours = {name: asyncio.create_task(stage.keep_well(name)) for name in healthy}
        try:
            yield stage
        finally:
            tasks = (*stage.stories.values(), *stage.neighbours.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


NO_TROUBLE = Trouble(Fault, "", settings=lambda _camera: {"post_roll_s": HEALTHY_S})


def _settings(camera: ScriptedCamera, trouble: Trouble) -> dict[str, Any]:
    return {
        "url": camera.url,
        "pre_roll_s": PRE_ROLL_S,
        "post_roll_s": POST_ROLL_S,
        "max_clip_s": 60,
        "open_timeout_s": 3,
        "stall_timeout_s": STALL_S,
        **trouble.settings(camera),
    }


async def _stop(camera: ScriptedCamera) -> None:
    camera.recover()
    await camera.stop()


def clip_of(part: Mapping[str, Any]) -> bytes:
    """A part's file, whose hash is the one that was sealed."""
    data = Path(part["path"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == part["sha256"]
    assert len(data) == part["length_bytes"]
    return data
