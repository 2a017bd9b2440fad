"""A story on a disk that takes nothing: the clip ends early or never begins, the incident goes on, people are told."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from tests.clip.pictures import FPS, coded, later
from tests.incident.test_story import PLAN, ScriptedHost, Stage, both, stage
from vigintd.incident.story import BATCH_S, DISK_PATIENCE_S
from vigintd.model import AlertKind, NoVideo
from vigintd.spool import Measure, Spool


class Disk:
    """A disk that refuses writes to clips for as long as it is told, and says how much room it has."""

    def __init__(self, monkeypatch) -> None:
        self.error = 0
        self.has_room = True
        self.fired = 0
        self._loop = asyncio.get_running_loop()
        self._refused = asyncio.Event()
        real = os.pwrite

        def pwrite(descriptor, data, offset):
            code = self.error
            if code and Path(f"/proc/self/fd/{descriptor}").readlink().suffix == ".mp4":
                self.fired += 1
                self._loop.call_soon_threadsafe(self._refused.set)
                raise OSError(code, os.strerror(code))
            return real(descriptor, data, offset)

        async def measure(_spool) -> Measure:
            return Measure(1 << 34, 1 << 33 if self.has_room else 0, is_read_only=False)

        monkeypatch.setattr(os, "pwrite", pwrite)
        monkeypatch.setattr(Spool, "measure", measure)

    async def refuses(self) -> None:
        """Wait for the next write that is refused."""
        self._refused.clear()
        async with asyncio.timeout(20):
            await self._refused.wait()


@pytest.fixture
async def disk(monkeypatch):
    return Disk(monkeypatch)


def show_a_second(it: Stage) -> None:
    """The camera goes on."""
    moment_s = it.clock.monotonic_s()
    it.ring.append(later(coded(FPS), arrival_s=moment_s - 101, ticks=round(moment_s - it.detection.arrived_s + 5) * 90_000))


async def test_without_any_room_people_are_told_at_once_and_further_detections_open_nothing(tmp_path, disk):
    """The text alert says that there is no video, with the picture; the incident lasts as long as it would have.

    Room that comes then makes no clip: people were told that there is none.
    """
    disk.error, disk.has_room = errno.ENOSPC, False
    async with stage(tmp_path, ScriptedHost()) as (it, living):
        await it.channel.until(lambda: len(it.channel.delivered) == 2)
        assert disk.fired
        assert await it.told() == both(AlertKind.TEXT, NoVideo.UNSTORED)
        assert all(alert.snapshot_jpeg for alert in it.channel.delivered)
        await it.clock.asleep()
        await it.clock.advance(2.9)
        assert it.detect()
        disk.error, disk.has_room = 0, True
        await it.clock.advance(3 + BATCH_S)
        incident = (await it.over(living)).incident
        assert (incident.no_video, incident.detections, incident.parts) == (NoVideo.UNSTORED, 2, ())
        assert incident.problem.startswith("the disk is full: 0 MB of it are free")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
async def test_a_disk_that_takes_nothing_for_seconds_ends_the_clip_at_its_last_whole_fragment(tmp_path, disk, code):
    """What was recorded by then is published, and says what ended it; the incident goes on."""
    async with stage(tmp_path, ScriptedHost()) as (it, living):
        await it.channel.until(lambda: len(it.channel.delivered) == 2)
        disk.error = code
        for passed_s in (1, 2, DISK_PATIENCE_S / 2, DISK_PATIENCE_S / 2):
            await it.clock.advance(passed_s)
            assert it.detect()
            show_a_second(it)
            await disk.refuses()
            await it.clock.asleep()  # the story has borne it, and waits for more
        disk.error = 0
        await it.clock.advance(1)
        show_a_second(it)
        await it.clock.asleep()
        await it.clock.advance(3 + BATCH_S)
        (part,) = (await it.over(living)).incident.parts
        assert "the disk is" in part.partial
        assert part.duration_s < PLAN.pre_roll_s + 3
        assert len(it.host.held[0]) == part.length_bytes
        assert await it.told() == both(AlertKind.LINK)


async def test_a_disk_that_fails_for_a_moment_costs_that_moment(tmp_path, disk):
    """The clip goes on at the next key frame, and says that something is missing."""
    async with stage(tmp_path, ScriptedHost()) as (it, living):
        await it.channel.until(lambda: len(it.channel.delivered) == 2)
        disk.error = errno.ENOSPC
        await it.clock.advance(1)
        show_a_second(it)
        await disk.refuses()
        await it.clock.asleep()
        disk.error = 0
        assert it.detect()
        await it.clock.advance(1)
        show_a_second(it)
        await it.clock.asleep()
        await it.clock.advance(3 + BATCH_S)
        (part,) = (await it.over(living)).incident.parts
        assert "the disk is full" in part.partial
        assert part.duration_s > PLAN.pre_roll_s + 1


async def test_below_what_is_kept_free_nothing_is_even_tried(tmp_path, disk):
    async with stage(tmp_path, ScriptedHost(), filled=False) as (it, _):
        disk.has_room = False
        assert not await it.space.run_once()
        show_a_second(it)
        await it.channel.until(lambda: len(it.channel.delivered) == 2)
        assert await it.told() == both(AlertKind.TEXT, NoVideo.UNSTORED)
        assert not [path for path in it.spool.root.iterdir() if path.suffix == ".mp4"]
