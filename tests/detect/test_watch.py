"""A detector at work: what it costs when it fails, which is nothing but its own answers."""

import asyncio
import threading
from collections.abc import Callable
from functools import partial

import pytest

from tests.detect.frames import frame
from vigintd import metrics
from vigintd.detect import Detector
from vigintd.detect.watch import Watch, wait_until_free, watch
from vigintd.errors import DetectorError
from vigintd.model import Detection, Frame


def seen(one: Frame) -> Detection:
    return Detection(one.camera, one.arrived_s, one.at, "essai", frame_number=one.number)


class Plain:
    """A plain detector that does what it is told with each frame."""

    pixels = "luma"

    def __init__(self, act: Callable[[Frame], object]) -> None:
        self._act = act
        self.threads: set[int] = set()

    def __call__(self, one: Frame) -> object:
        self.threads.add(threading.get_ident())
        return self._act(one)


class Inline(Plain):
    inline = True


class Async(Plain):
    async def __call__(self, one: Frame) -> object:
        self.threads.add(threading.get_ident())
        answer = self._act(one)
        return await answer if asyncio.iscoroutine(answer) else answer


KINDS = [Plain, Inline, Async]


class House:
    """Sets watches, and hears what they emit."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[Detection] = asyncio.Queue()
        self.made: list[Plain] = []
        self.watches: list[Watch] = []
        self.emitting: set[int] = set()

    def emit(self, detection: Detection) -> None:
        self.emitting.add(threading.get_ident())
        self.heard.put_nowait(detection)

    def set(self, kind: type[Plain], act: Callable[[Frame], object], **more: float) -> Watch:
        def make() -> Detector:
            self.made.append(kind(act))
            return self.made[-1]  # type: ignore[return-value]  # the tests' detectors answer anything

        loop = asyncio.get_running_loop()
        made = watch("essai", "entree", make, emit=self.emit, loop=loop, **more)  # type: ignore[arg-type]
        self.watches.append(made)
        return made

    async def hears(self) -> Detection:
        async with asyncio.timeout(5):
            return await self.heard.get()


@pytest.fixture
async def house():
    made = House()
    yield made
    for one in made.watches:
        one.close()
    await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Other threads tell nobody when they are done, so this looks again and again."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.002)


def counted(name: str) -> int:
    return metrics.snapshot().get(name, {}).get("entree/essai", 0)


def has_failed(times: int) -> bool:
    return counted("detector.failed") == times


@pytest.mark.parametrize("kind", KINDS)
async def test_a_detection_reaches_the_loop(house, kind):
    """Named after the watch, on the loop's thread, wherever the detector ran."""
    watching = house.set(kind, seen)
    watching.offer(frame(7))
    detection = await house.hears()
    assert (detection.frame_number, detection.camera, detection.detector) == (7, "entree", "essai")
    assert house.emitting == {threading.get_ident()}
    assert watching.pixels == "luma"


@pytest.mark.parametrize(("kind", "is_here"), [(Plain, False), (Inline, True), (Async, True)])
async def test_each_kind_has_its_place(house, kind, is_here):
    """A thread of its own for a plain one, the caller's for an inline one, the loop for an async one."""
    house.set(kind, seen).offer(frame())
    await house.hears()
    assert (house.made[0].threads == {threading.get_ident()}) == is_here


@pytest.mark.parametrize("kind", KINDS)
async def test_no_answer_is_an_answer(house, kind):
    """Nothing is emitted and nothing is wrong."""
    watching = house.set(kind, lambda one: seen(one) if one.number == 2 else None)
    watching.offer(frame(1))
    await until(lambda: bool(house.made[0].threads))
    watching.offer(frame(2))
    assert (await house.hears()).frame_number == 2
    assert counted("detector.failed") == 0


async def test_only_the_newest_frame_waits(house):
    """A slow detector skips, and skips are counted."""
    busy, go = threading.Event(), threading.Event()

    def slow(one: Frame) -> Detection:
        busy.set()
        go.wait(5)
        return seen(one)

    watching = house.set(Plain, slow)
    watching.offer(frame(1))
    await until(busy.is_set)
    for number in range(2, 6):
        watching.offer(frame(number))
    go.set()
    assert [(await house.hears()).frame_number for _ in range(2)] == [1, 5]
    assert counted("detector.frames_skipped") == 3


async def test_an_async_detector_skips_likewise(house):
    """Frames offered while it waits replace one another."""
    go = asyncio.Event()

    async def slow(one: Frame) -> Detection:
        await go.wait()
        return seen(one)

    watching = house.set(Async, slow)
    watching.offer(frame(1))
    await until(lambda: bool(house.made[0].threads))
    for number in range(2, 6):
        watching.offer(frame(number))
    go.set()
    assert [(await house.hears()).frame_number for _ in range(2)] == [1, 5]
    assert counted("detector.frames_skipped") == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answer", ["raises", "nonsense"])
async def test_one_that_fails_is_replaced_by_a_fresh_one(house, kind, answer):
    """Whether it raises or answers with what is no detection; the offering side hears nothing of it."""

    def act(one: Frame) -> object:
        if one.number == 1 and answer == "raises":
            raise RuntimeError("secret=hunter2000")
        return "nonsense" if one.number == 1 else seen(one)

    watching = house.set(kind, act)
    watching.offer(frame(1))
    await until(lambda: counted("detector.failed") == 1)
    watching.offer(frame(2))
    assert (await house.hears()).frame_number == 2
    assert len(house.made) == 2
    assert (counted("detector.replaced"), counted("detector.disabled")) == (1, 0)


@pytest.mark.parametrize("kind", KINDS)
async def test_one_that_goes_on_failing_is_disabled(house, kind):
    """After so many replacements no more are made, and it is said once."""

    def act(one: Frame) -> object:
        raise RuntimeError("always")

    watching = house.set(kind, act, max_replacements=2)
    for failures in range(1, 4):
        watching.offer(frame(failures))
        await until(partial(has_failed, failures))
    watching.offer(frame(9))
    await asyncio.sleep(0)
    assert (counted("detector.replaced"), counted("detector.disabled"), counted("detector.failed")) == (2, 1, 3)
    assert len(house.made) == 3


async def test_one_that_hangs_is_left_behind(house):
    """Past its deadline another takes its place; what the first says later counts for nothing."""
    hang, busy = threading.Event(), threading.Event()

    def act(one: Frame) -> Detection:
        if one.number == 1:
            busy.set()
            hang.wait(10)
        return seen(one)

    watching = house.set(Plain, act, deadline_s=0.05)
    watching.offer(frame(1))
    await until(busy.is_set)
    await asyncio.sleep(0.06)  # the deadline itself is what is tested
    watching.offer(frame(2))
    assert (await house.hears()).frame_number == 2
    hang.set()
    watching.offer(frame(3))
    assert (await house.hears()).frame_number == 3
    assert (house.heard.empty(), counted("detector.failed"), len(house.made)) == (True, 1, 2)


@pytest.mark.parametrize("stubborn", [False, True])
async def test_an_async_one_that_hangs_is_left_behind(house, stubborn):
    """Also one that does not yield to being cancelled."""
    end = asyncio.Event()

    async def act(one: Frame) -> Detection:
        while one.number == 1 and not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                if not stubborn:
                    raise
        return seen(one)

    watching = house.set(Async, act, deadline_s=0.05)
    watching.offer(frame(1))
    await until(lambda: counted("detector.failed") == 1)
    watching.offer(frame(2))
    assert (await house.hears()).frame_number == 2
    end.set()
    await asyncio.sleep(0)
    assert (house.heard.empty(), len(house.made)) == (True, 2)


async def test_an_inline_one_that_is_slow_is_replaced(house):
    """It cannot be interrupted, but it is not borne for ever."""
    clock = threading.Event()
    watching = house.set(Inline, lambda _: clock.wait(0.02) and None, deadline_s=0.01)
    watching.offer(frame(1))
    assert (counted("detector.failed"), len(house.made)) == (1, 2)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_closed_watch_shows_and_emits_nothing(house, kind):
    """Also not what was under way."""
    watching = house.set(kind, seen)
    watching.offer(frame(1))
    watching.close()
    watching.close()
    watching.offer(frame(2))
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert house.heard.empty()


async def test_closing_ends_the_thread_of_a_plain_detector(house):
    """Nothing is left when a camera stops."""
    watching = house.set(Plain, seen)

    def is_there() -> bool:
        return any(thread.name == "detector-entree-essai" for thread in threading.enumerate())

    assert is_there()
    watching.close()
    await until(lambda: not is_there())


async def test_what_cannot_be_built_is_said_at_once():
    """At start, the sentence goes to whoever configures."""

    def make() -> Detector:
        raise DetectorError("no model")

    with pytest.raises(DetectorError):
        watch("essai", "entree", make, emit=lambda _: None, loop=asyncio.get_running_loop())


async def test_a_replacement_that_cannot_be_built_is_a_failure_too(house):
    """It is tried again with the next frames, up to the bound."""
    loop, made = asyncio.get_running_loop(), []

    def raises(_: Frame) -> Detection:
        raise RuntimeError("once")

    def make() -> Detector:
        made.append(1)
        if len(made) == 2:
            raise DetectorError("model vanished")
        return Plain(raises if len(made) == 1 else seen)  # type: ignore[return-value]  # answers anything

    watching = watch("essai", "entree", make, emit=house.emit, loop=loop)
    house.watches.append(watching)
    for number in (1, 2):
        watching.offer(frame(number))
        await until(partial(has_failed, number))
    watching.offer(frame(3))
    assert (await house.hears()).frame_number == 3


@pytest.mark.parametrize("kind", KINDS)
async def test_whoever_waits_until_it_is_free_has_no_frame_skipped(house, kind):
    """As late frames do, that were looked back at and come faster than the detector is."""
    made = house.set(kind, seen)

    def look_back() -> None:
        for number in range(50):
            wait_until_free(made, 5)
            made.offer(frame(number))

    await asyncio.to_thread(look_back)
    assert [(await house.hears()).frame_number for _ in range(50)] == list(range(50))
    assert "detector.frames_skipped" not in metrics.snapshot()


async def test_waiting_for_one_that_hangs_ends(house):
    """It holds a frame up for so long, and no longer."""
    go_on = threading.Event()
    made = house.set(Plain, lambda one: go_on.wait(10) and None)
    for number in range(3):
        made.offer(frame(number))
    await asyncio.wait_for(asyncio.to_thread(wait_until_free, made, 0.01), 5)
    go_on.set()
    made.close()
    await asyncio.wait_for(asyncio.to_thread(wait_until_free, made, 10), 5)
