"""The desk: one open incident a camera, extended by what comes in while it is open."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from tests.manual_clock import ManualClock
from vigintd import metrics
from vigintd.incident.desk import Desk
from vigintd.model import Detection, Incident


@dataclass
class ShortStory:
    """What a desk sees of a story: it can be extended until it has ended, and runs until let go."""

    incident: Incident
    extended: int = 0
    over: bool = False
    release: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None
    acknowledged: asyncio.Event = field(default_factory=asyncio.Event)
    promised: bool = True

    def extend(self, _detection: Detection) -> bool:
        if self.over:
            return False
        self.extended += 1
        return True

    async def run(self) -> None:
        self.acknowledged.set()
        await self.release.wait()
        if self.error:
            raise self.error


class Bench:
    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.stories: list[ShortStory] = []
        self.desk = Desk(tasks=tasks, begin=self.begin)  # type: ignore[arg-type]  # a story needs a whole house

    def begin(self, detection: Detection) -> ShortStory:
        self.stories.append(ShortStory(Incident(f"id-{len(self.stories)}", detection)))
        return self.stories[-1]

    async def over(self, number: int) -> None:
        """Let one story end, and wait until the desk knows."""
        task = next(task for task in asyncio.all_tasks() if task.get_name() == f"incident id-{number}")
        self.stories[number].release.set()
        await asyncio.wait([task])

    def end(self) -> None:
        for story in self.stories:
            story.release.set()


def detection(camera="entree") -> Detection:
    clock = ManualClock()
    return Detection(camera, clock.monotonic_s(), clock.now(), "motion")


async def test_a_thousand_detections_of_one_camera_are_one_incident():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks)
        for _ in range(1000):
            bench.desk.detect(detection())
        assert [story.extended for story in bench.stories] == [999]
        bench.end()


async def test_every_camera_has_an_incident_of_its_own():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks)
        for name in ("entree", "cour", "entree", "quai"):
            bench.desk.detect(detection(name))
        assert [story.incident.camera for story in bench.stories] == ["entree", "cour", "quai"]
        bench.end()


async def test_a_detection_after_the_end_opens_the_next_incident_although_the_last_is_still_published():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks)
        bench.desk.detect(detection())
        bench.stories[0].over = True
        second = bench.desk.detect(detection())
        assert second is not None
        assert second.incident == bench.stories[1].incident
        await bench.over(0)
        assert bench.desk.detect(detection()) is second, "the first story's end may not forget the second"
        bench.end()


async def test_a_story_that_breaks_ends_alone():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks)
        bench.desk.detect(detection("entree"))
        other = bench.desk.detect(detection("cour"))
        bench.stories[0].error = ZeroDivisionError("a defect")
        await bench.over(0)
        assert bench.desk.detect(detection("cour")) is other
        bench.end()


async def test_after_the_stop_nothing_new_is_opened_and_what_is_open_goes_on():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks)
        story = bench.desk.detect(detection("entree"))
        bench.desk.stop()
        assert bench.desk.detect(detection("entree")) is story
        assert bench.desk.detect(detection("cour")) is None
        assert metrics.snapshot()["desk.detections_after_stop"] == {"cour": 1}
        bench.end()
