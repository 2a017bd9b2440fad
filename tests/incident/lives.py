"""One life of a daemon after another over the same files, with real rooms and a scripted outside.

Owns how a life begins and ends, and how one can tell that nothing more happens in it. What it does is the machine's.
"""

from __future__ import annotations

import asyncio
import functools
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AsyncExitStack, ExitStack
from contextvars import Context
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar, TypeVarTuple

from tests.clip.pictures import FPS, coded
from tests.incident.outside import PEOPLE, Life, Outside
from vigintd.clip.recorder import ClipRecorder
from vigintd.incident import Audience, Courier, Publisher, Recovery
from vigintd.journal import Journal
from vigintd.model import Fragment, Incident
from vigintd.spool import PartFile, Spool

AUDIENCE = Audience("Boutique Rivoli", "fr", PEOPLE, expiry_h=48, text_after_s=20)

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


@functools.cache
def clip() -> tuple[bytes, tuple[Fragment, ...]]:
    """A part as a recorder writes it, with its fragments."""

    async def recorded() -> tuple[bytes, tuple[Fragment, ...]]:
        with tempfile.TemporaryDirectory() as folder:
            spool, parts = Spool(Path(folder)), list[PartFile]()
            recorder = ClipRecorder(spool, "00000000-0000-4000-8000-000000000000", on_part=parts.append)
            await recorder.write(coded(2 * FPS))
            await recorder.seal()
            data = parts[0].path.read_bytes()
            await recorder.aclose()
            await spool.aclose()
            return data, tuple(parts[0].fragments)

    return asyncio.run(recorded())


class CountingLoop(asyncio.SelectorEventLoop):
    """A loop that knows what it was asked to do, so that one can tell when there is nothing left."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.in_threads: set[asyncio.Future[Any]] = set()

    def call_soon(self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None) -> asyncio.Handle:
        """Count."""
        self.calls += 1
        return super().call_soon(callback, *args, context=context)

    def call_soon_threadsafe(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Count."""
        self.calls += 1
        return super().call_soon_threadsafe(callback, *args, context=context)

    def run_in_executor(self, executor: Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts) -> asyncio.Future[_T]:
        """Know of it until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self.in_threads.add(future)
        future.add_done_callback(self.in_threads.discard)
        return future


@dataclass
class Case:
    """What the model knows of one incident."""

    incident: Incident
    acknowledged: bool = False
    furthest: int = 0
    """The highest state that was seen."""
    written: int = 0
    """Fragments in the spool."""
    part: PartFile | None = None
    reel: Any = None
    live: ExitStack | None = None
    """While it is recorded."""

    @property
    def id(self) -> str:
        return self.incident.id


@dataclass
class House:
    """One life of the daemon."""

    outside: Outside
    journal: Journal = field(init=False)
    spool: Spool = field(init=False)
    courier: Courier = field(init=False)
    publisher: Publisher = field(init=False)
    reels: ExitStack = field(default_factory=ExitStack)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _running: list[asyncio.Task[None]] = field(default_factory=list)
    _calls_of_a_read: int = 0

    async def begin(self) -> None:
        """As the daemon begins: what is left is recovered before anything runs."""
        clock, reached = self.outside.clock, Life(self.outside)
        folder = self.outside.folder
        self.journal = await self._stack.enter_async_context(Journal.open(folder / "journal.sqlite3", clock))
        self.spool = Spool(folder / "spool")
        self._stack.push_async_callback(self.spool.aclose)
        given: dict[str, Any] = {"journal": self.journal, "spool": self.spool, "audience": AUDIENCE, "clock": clock}
        given["courier"] = self.courier = Courier(**given, channel=reached, host=reached, random=Random(1))
        self.publisher = Publisher(**given, host=reached, random=Random(1))
        self._calls_of_a_read = await self._read()
        await Recovery(**given, publisher=self.publisher, random=Random(1)).run_once()
        self._running = [asyncio.create_task(self.courier.run()), asyncio.create_task(self.publisher.run())]

    async def end(self) -> None:
        """Let go of everything that is open here."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self.reels.close()
        await self._stack.aclose()

    async def settled(self) -> None:
        """Return when nothing more happens unless time passes or somebody does something."""
        loop, still = _loop(), 0
        while still < 2:
            if loop.in_threads:
                await asyncio.wait(set(loop.in_threads))
            before = loop.calls
            await asyncio.sleep(0)
            # One call is our own. A read of the journal waits for every statement before it.
            quiet = loop.calls == before + 1 and not loop.in_threads
            still = still + 1 if quiet and await self._read() == self._calls_of_a_read else 0

    async def _read(self) -> int:
        before = _loop().calls
        await self.journal.known(())
        return _loop().calls - before


def _loop() -> CountingLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, CountingLoop)
    return loop
