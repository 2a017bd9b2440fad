"""Where detections arrive: opens an incident, or extends the one that is open on that camera.

Owns which incident is open on which camera, and nothing that waits: `detect` returns at once, so that a
thousand triggers in a second cost a thousand comparisons. Event loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from vigintd import metrics
from vigintd.incident.story import Story
from vigintd.model import Detection

log = structlog.get_logger(__name__)


class Desk:
    """One open story a camera at most; each runs as a task of the group given."""

    def __init__(self, *, tasks: asyncio.TaskGroup, begin: Callable[[Detection], Story]) -> None:
        self._tasks = tasks
        self._begin = begin
        self._open: dict[str, Story] = {}
        self._stopped = False

    def detect(self, detection: Detection) -> Story | None:
        """Open an incident for this detection, or extend the open one; once stopped, None instead of opening.

        The story answered may not have its row yet: await `Story.acknowledged`, and see `Story.promised`, before
        promising anything.
        """
        story = self._open.get(detection.camera)
        if story is not None and story.extend(detection):
            return story
        if self._stopped:
            metrics.count("desk.detections_after_stop", detection.camera)
            return None
        story = self._begin(detection)
        self._open[detection.camera] = story
        self._tasks.create_task(self._live(story), name=f"incident {story.incident.id}")
        return story

    def stop(self) -> None:
        """Open nothing any more; what is open goes on to its end."""
        self._stopped = True

    async def _live(self, story: Story) -> None:
        try:
            await story.run()
        except Exception:  # one incident's end may not be the end of the others
            log.exception("incident.failed", incident=story.incident.id, camera=story.incident.camera)
        finally:
            if self._open.get(story.incident.camera) is story:
                del self._open[story.incident.camera]
