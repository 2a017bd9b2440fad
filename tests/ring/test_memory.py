"""The ring's memory: what is really alive, counted, never passes the bound.

Packets here can be asked whether they are still alive, and the tests keep none themselves: so what is alive is in the ring or
was handed to a reader.
"""

import asyncio
import weakref
from dataclasses import dataclass
from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from vigintd import metrics
from vigintd.model import AudioChunk, AudioParameters, Packet, StreamParameters
from vigintd.ring import Ring

PARAMETERS = StreamParameters("h264", 640, 360, b"")
SOUND = AudioParameters("aac", 16_000, 1, b"")


class Mortal(Packet):
    """A packet whose end is noticed."""

    __slots__ = ("__weakref__",)


@dataclass(frozen=True)
class Scene:
    """A stretch of a stream: one GOP."""

    pictures: int
    picture_bytes: int
    key_bytes: int
    sound_bytes: tuple[int, ...]
    """Of the chunks that travel with each packet."""
    step_s: float
    clock_90k: int
    """Where the source's clock stands at its beginning; it may have jumped either way."""
    begins_with_key: bool


scenes = st.builds(
    Scene,
    pictures=st.integers(1, 40),
    picture_bytes=st.integers(0, 60),
    key_bytes=st.integers(0, 400),
    sound_bytes=st.lists(st.integers(0, 80), max_size=3).map(tuple),
    step_s=st.sampled_from((0.0, 0.04, 0.1, 1.0, 30.0)),
    clock_90k=st.integers(-(2**33), 2**33),
    begins_with_key=st.booleans(),
)


class Stream:
    """Makes the packets of some scenes, and knows which are alive."""

    def __init__(self, made_of: list[Scene]) -> None:
        self._plan = iter([(scene, number) for scene in made_of for number in range(scene.pictures)])
        self._alive: weakref.WeakSet[Mortal] = weakref.WeakSet()
        self.now_s = 0.0

    def take(self, count: int) -> list[Packet]:
        """The next packets, so many or what is left."""
        made = [self._packet(scene, number) for scene, number in islice(self._plan, count)]
        self._alive.update(made)
        return [*made]

    def alive(self) -> set[Mortal]:
        return set(self._alive)

    def _packet(self, scene: Scene, number: int) -> Mortal:
        self.now_s += scene.step_s
        is_key = number == 0 and scene.begins_with_key
        ticks = scene.clock_90k + 3600 * number
        sound = tuple(AudioChunk(bytes(size), ticks, 0, SOUND) for size in scene.sound_bytes)
        data = bytes(scene.key_bytes if is_key else scene.picture_bytes)
        return Mortal(data, ticks, ticks, 0, is_key, self.now_s, PARAMETERS, sound)


class Reader:
    """Follows the ring and asks for the next batch only at every so many looks; keeps a batch until then."""

    def __init__(self, ring: Ring, since_s: float, every: int) -> None:
        self._batches = ring.follow(since_s)
        self._every = every
        self._looks = 0
        self._asking: asyncio.Task[list[Packet]] | None = None
        self.batch: list[Packet] = []

    async def look(self) -> None:
        self._looks += 1
        if self._asking is None and self._looks % self._every == 0:
            self.batch = []
            self._asking = asyncio.create_task(self._next())
        for _ in range(3):
            await asyncio.sleep(0)
        if self._asking is not None and self._asking.done():
            self.batch, self._asking = self._asking.result(), None

    async def leave(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})
        await self._batches.aclose()

    async def _next(self) -> list[Packet]:
        return await anext(self._batches)


def size(packets: set[Mortal] | list[Packet]) -> int:
    """Of pictures and sound, counted anew."""
    return sum(len(packet.data) + sum(len(chunk.data) for chunk in packet.audio) for packet in packets)


@settings(deadline=None)
@given(
    span_s=st.floats(0, 60),
    limit_bytes=st.integers(0, 3000),
    made_of=st.lists(scenes, max_size=8),
    at_once=st.integers(1, 12),
    readers=st.lists(st.tuples(st.integers(0, 100), st.floats(-50, 50), st.integers(1, 10)), max_size=3),
)
def test_the_packets_alive_never_pass_the_bound(span_s, limit_bytes, made_of, at_once, readers):
    """Whatever GOPs, rates, clocks and sound arrive and however slowly it is read.

    What the ring keeps alive is what it says it holds, and no more than its bound; a batch in a reader's hands is no
    larger than that either.
    """
    metrics.reset()

    async def story() -> None:
        stream, ring = Stream(made_of), Ring(camera="entree", span_s=span_s, limit_bytes=limit_bytes)
        following: list[Reader] = []
        for number in range(0, sum(scene.pictures for scene in made_of), at_once):
            ring.append(stream.take(at_once))
            new = [
                Reader(ring, stream.now_s + since_s, every)
                for begin, since_s, every in readers
                if number <= begin < number + at_once
            ]
            following += new
            for reader in following:
                await reader.look()
            handed = {packet for reader in following for packet in reader.batch}
            kept = stream.alive() - handed
            assert size(kept) <= ring.size_bytes <= limit_bytes
            assert all(size(reader.batch) <= limit_bytes for reader in following)
            del handed, kept
        for reader in following:
            await reader.leave()

    asyncio.run(story())


def test_a_bound_that_is_never_reached_keeps_everything_of_the_span():
    """The test above would be passed by a ring that keeps nothing."""
    stream = Stream([Scene(25, 20, 200, (30,), 0.04, 0, begins_with_key=True)] * 8)
    ring = Ring(camera="entree", span_s=5, limit_bytes=100_000)
    ring.append(stream.take(1000))
    assert len(ring) == len(stream.alive()) == 150
    assert ring.size_bytes == size(stream.alive()) == 6 * (200 + 24 * 20 + 25 * 30)
