"""A detector at work: shown frames, kept to its deadline, replaced when it fails.

Owns where a detector runs and what its failures cost: nothing but its own answers. The thread that decodes offers
frames and goes on; of frames that a detector had no time for only the newest is kept. Who looks back may wait a little.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol, cast

import structlog

from vigintd import metrics
from vigintd.detect import Detector, Pixels
from vigintd.detect.answer import plain
from vigintd.model import Detection, Frame
from vigintd.redact import redacted

MakeDetector = Callable[[], Detector]
Emit = Callable[[Detection], None]

_HEALED_AFTER = 300
"""Answers in a row that make earlier failures forgotten: a minute at the usual rate."""

_MAX_HANGING = 8
"""So many threads of one detector may hang at a time, whatever was forgotten; with more it is disabled."""

_log = structlog.get_logger()


class Watch(Protocol):
    """One detector watching one camera, as the camera sees it."""

    pixels: Pixels
    """What `Frame.pixels` shall hold."""

    def offer(self, frame: Frame) -> None:
        """Show the newest frame; from the thread that decodes. Never raises; blocks only for a detector that runs inline."""
        ...

    def close(self) -> None:
        """Show it nothing more and emit nothing more; from the loop, more than once does no harm."""
        ...


def watch(
    name: str,
    camera: str,
    make: MakeDetector,
    *,
    emit: Emit,
    loop: asyncio.AbstractEventLoop,
    deadline_s: float = 5.0,
    max_replacements: int = 5,
) -> Watch:
    """Set the detector that `make` makes to watch `camera`; `emit` is called on the loop with its detections.

    It runs in the thread that decodes when it says `inline = True`, on the loop when its call is `async`, and otherwise on a
    daemon thread of its own. One that raises, answers nonsense, or does not answer within `deadline_s` is detached and
    replaced by a fresh one, `max_replacements` times; then the watch is disabled. What `make` raises the first time
    is raised here.
    """
    detector = make()
    fate = _Fate(name, camera, emit=emit, loop=loop, max_replacements=max_replacements)
    if getattr(detector, "inline", False):
        return _InlineWatch(detector, make, fate, deadline_s)
    if inspect.iscoroutinefunction(detector) or inspect.iscoroutinefunction(getattr(detector, "__call__", None)):  # noqa: B004
        return _AsyncWatch(detector, make, fate, deadline_s)
    return _ThreadWatch(detector, make, fate, deadline_s)


def wait_until_free(watched: Watch, within_s: float) -> None:
    """Wait, so long at most, until the watch can take a frame without skipping one; from the thread that offers frames.

    For frames that are late anyway, because they were looked back at: they come faster than a detector is used to.
    """
    if isinstance(watched, _ThreadWatch | _AsyncWatch):
        watched.wait_until_free(within_s)


class _Fate:
    """What becomes of a detector: its answers passed on, its failures counted and said. From any thread."""

    def __init__(self, name: str, camera: str, *, emit: Emit, loop: asyncio.AbstractEventLoop, max_replacements: int) -> None:
        self.name = name
        self.camera = camera
        self.loop = loop
        self._label = f"{camera}/{name}"
        self._emit = emit
        self._max_replacements = max_replacements
        self._lock = threading.Lock()
        self._replacements = 0
        self._good_answers = 0
        self.closed = False
        """No more frames are wanted: closed, or disabled after too many failures."""

    def answered(self, answer: object, frame: Frame) -> None:
        """Pass the answer to a frame on. Raises `TypeError` or `ValueError` for what is neither a detection nor None."""
        if inspect.iscoroutine(answer):
            answer.close()
        detection = plain(answer, frame, camera=self.camera, detector=self.name)
        with self._lock:
            self._good_answers += 1
            if self._good_answers >= _HEALED_AFTER:
                self._replacements = 0
        if detection is not None:
            self.on_loop(lambda: self._pass_on(detection))

    def failed(self, problem: str, *, for_good: bool = False) -> bool:
        """Count and say a failure; True when the detector may be replaced once more."""
        with self._lock:
            if self.closed:
                return False
            self._good_answers = 0
            self._replacements += 1
            again = not for_good and self._replacements <= self._max_replacements
            self.closed = not again
        metrics.count("detector.failed", self._label)
        if again:
            metrics.count("detector.replaced", self._label)
            _log.warning("detector.replaced", camera=self.camera, detector=self.name, problem=problem)
        else:
            metrics.count("detector.disabled", self._label)
            _log.error("detector.disabled", camera=self.camera, detector=self.name, problem=problem)
        return again

    def skipped(self) -> None:
        """A frame was replaced by a newer one before the detector had time for it."""
        metrics.count("detector.frames_skipped", self._label)

    def on_loop(self, call: Callable[[], object]) -> None:
        """Have `call` called on the loop."""
        # The loop is closed only when the whole process ends.
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(call)

    def close(self) -> None:
        """Pass nothing on any more."""
        self.closed = True

    def _pass_on(self, detection: Detection) -> None:
        if not self.closed:
            self._emit(detection)


class _InlineWatch:
    """A detector that is quick and trusted enough to run where its frame was decoded."""

    def __init__(self, detector: Detector, make: MakeDetector, fate: _Fate, deadline_s: float) -> None:
        self.pixels = detector.pixels
        self._detector = detector
        self._make = make
        self._fate = fate
        self._deadline_s = deadline_s
        # Only an abandoned thread of an earlier life could come beside the present one.
        self._running = threading.Lock()

    def offer(self, frame: Frame) -> None:
        """See `Watch`."""
        if self._fate.closed or not self._running.acquire(blocking=False):
            return
        try:
            began_s = self._fate.loop.time()
            self._fate.answered(self._detector(frame), frame)
            took_s = self._fate.loop.time() - began_s
            if took_s > self._deadline_s:
                self._replace(f"took {took_s:.1f} s for a frame")
        except Exception as error:  # noqa: BLE001 - a detector's failure is the detector's alone
            self._replace(_said(error))
        finally:
            self._running.release()

    def close(self) -> None:
        """See `Watch`."""
        self._fate.close()

    def _replace(self, problem: str) -> None:
        while self._fate.failed(problem):
            try:
                self._detector = self._make()
            except Exception as error:  # noqa: BLE001 - the same for its making
                problem = _said(error)
            else:
                return


class _ThreadWatch:
    """A plain detector on a daemon thread of its own. One that hangs keeps its thread; another takes its place."""

    def __init__(self, detector: Detector, make: MakeDetector, fate: _Fate, deadline_s: float) -> None:
        self.pixels = detector.pixels
        self._make = make
        self._fate = fate
        self._deadline_s = deadline_s
        self._changed = threading.Condition()
        self._slot: Frame | None = None
        self._busy_since_s: float | None = None
        self._post = 0
        """Number of the thread that holds the post; an older one that wakes up finds itself dismissed."""
        self._hanging: list[threading.Thread] = []
        self._thread = self._started(detector)

    def offer(self, frame: Frame) -> None:
        """See `Watch`. It is also here that a hanging detector is noticed."""
        with self._changed:
            if self._fate.closed:
                return
            since_s = self._busy_since_s
            is_late = since_s is not None and self._fate.loop.time() - since_s > self._deadline_s
            if is_late and not self._replaced():
                return
            if self._slot is not None:
                self._fate.skipped()
            self._slot = frame
            self._changed.notify_all()

    def wait_until_free(self, within_s: float) -> None:
        """See the function of that name."""
        with self._changed:
            self._changed.wait_for(lambda: self._slot is None or self._fate.closed, within_s)

    def close(self) -> None:
        """See `Watch`."""
        self._fate.close()
        with self._changed:
            self._post += 1
            self._slot = None
            self._changed.notify_all()

    def _replaced(self) -> bool:
        """Leave the hanging detector's thread behind and start another, unless too many have failed or hang."""
        self._busy_since_s = None
        self._post += 1
        self._hanging = [thread for thread in (*self._hanging, self._thread) if thread.is_alive()]
        too_many = len(self._hanging) > _MAX_HANGING
        if not self._fate.failed(f"no answer for {self._deadline_s:g} s", for_good=too_many):
            return False
        self._thread = self._started(None)
        return True

    def _started(self, detector: Detector | None) -> threading.Thread:
        name = f"detector-{self._fate.camera}-{self._fate.name}"
        thread = threading.Thread(target=self._work, args=(self._post, detector), name=name, daemon=True)
        thread.start()
        return thread

    def _work(self, post: int, detector: Detector | None) -> None:
        while not self._fate.closed:
            frame = self._next(post)
            if frame is None:
                return
            problem = ""
            answer: object = None
            try:
                # A replacement is made here, because that may take its time too.
                detector = detector or self._make()
                answer = detector(frame)
            except Exception as error:  # noqa: BLE001 - a detector's failure is the detector's alone
                problem = _said(error)
            if not self._done(post):
                return
            problem = problem or self._pass_on(answer, frame)
            if problem:
                detector = None
                if not self._fate.failed(problem):
                    return

    def _next(self, post: int) -> Frame | None:
        """The newest frame, when there is one; None for a thread that is dismissed."""
        with self._changed:
            self._changed.wait_for(lambda: self._slot is not None or self._post != post or self._fate.closed)
            if self._post != post or self._fate.closed:
                return None
            frame, self._slot = self._slot, None
            self._busy_since_s = self._fate.loop.time()
            self._changed.notify_all()
            return frame

    def _done(self, post: int) -> bool:
        """The work is over; True while this thread holds the post."""
        with self._changed:
            if self._post != post:
                return False
            self._busy_since_s = None
            return True

    def _pass_on(self, answer: object, frame: Frame) -> str:
        try:
            self._fate.answered(answer, frame)
        except Exception as error:  # noqa: BLE001 - whatever a plug-in put into its answer is its failure
            return _said(error)
        return ""


class _AsyncWatch:
    """An `async` detector as a task on the loop. One that neither answers nor yields to cancelling is left behind."""

    def __init__(self, detector: Detector, make: MakeDetector, fate: _Fate, deadline_s: float) -> None:
        self.pixels = detector.pixels
        self._make = make
        self._fate = fate
        self._deadline_s = deadline_s
        self._slot: Frame | None = None
        self._filled = asyncio.Event()
        self._lock = threading.Lock()
        self._is_free = threading.Event()
        self._is_free.set()
        self._task = fate.loop.create_task(self._work(detector), name=f"detector-{fate.camera}-{fate.name}")

    def offer(self, frame: Frame) -> None:
        """See `Watch`."""
        with self._lock:
            if self._fate.closed:
                return
            was_full, self._slot = self._slot is not None, frame
            self._is_free.clear()
        if was_full:
            self._fate.skipped()
        else:
            self._fate.on_loop(self._filled.set)

    def wait_until_free(self, within_s: float) -> None:
        """See the function of that name."""
        if not self._fate.closed:
            self._is_free.wait(within_s)

    def close(self) -> None:
        """See `Watch`."""
        self._fate.close()
        self._task.cancel()

    async def _work(self, first: Detector) -> None:
        detector: Detector | None = first
        while not self._fate.closed:
            await self._filled.wait()
            self._filled.clear()
            with self._lock:
                frame, self._slot = self._slot, None
                self._is_free.set()
            if frame is None:
                continue
            problem = ""
            try:
                detector = detector or self._make()
                self._fate.answered(await self._answer(detector, frame), frame)
            except Exception as error:  # noqa: BLE001 - a detector's failure is the detector's alone
                problem = _said(error)
            if problem:
                detector = None
                self._fate.failed(problem)

    async def _answer(self, detector: Detector, frame: Frame) -> object:
        call = asyncio.ensure_future(cast("Awaitable[Detection | None]", detector(frame)))
        try:
            # Not `asyncio.timeout`: that would wait for a detector that does not yield to cancelling.
            await asyncio.wait({call}, timeout=self._deadline_s)
        finally:
            if not call.done():
                call.cancel()
                call.add_done_callback(_forget)
        if not call.done():
            raise TimeoutError(f"no answer for {self._deadline_s:g} s")
        return call.result()


def _forget(call: asyncio.Future[Detection | None]) -> None:
    """Look at the end of a call that nobody waits for, so that asyncio does not complain of it."""
    if not call.cancelled():
        call.exception()


def _said(error: Exception) -> str:
    return redacted(f"{type(error).__name__}: {error}")
