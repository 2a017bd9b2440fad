"""The hop of packets to the loop: in batches, in order, bounded."""

import asyncio
import time
from functools import partial

from tests.camera.streams import parameters
from vigintd import metrics
from vigintd.camera import handover
from vigintd.camera.handover import Handover
from vigintd.model import AudioChunk, AudioParameters, Packet


def packet(number: int, *, is_key: bool = False, sound: bytes = b"") -> Packet:
    chunk = AudioChunk(sound, number, 0, AudioParameters("aac", 8000, 1, b""))
    return Packet(bytes(10), number, number, 0, is_key, float(number), parameters(), (chunk,) if sound else ())


class Desk:
    """What is delivered on the loop, and how often the loop was woken for it."""

    def __init__(self) -> None:
        self.batches: list[list[Packet]] = []
        self.wakes = 0
        self._news = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._wake = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = self._count  # type: ignore[method-assign, assignment]  # only counted
        self.hop = Handover("entree", loop, self._take)

    @property
    def got(self) -> list[int]:
        return [one.dts_90k for batch in self.batches for one in batch]

    async def until(self, count: int) -> list[int]:
        """The numbers of what was delivered, once so many were."""
        async with asyncio.timeout(5):
            while len(self.got) < count:
                self._news.clear()
                await self._news.wait()
        return self.got

    def _take(self, batch: list[Packet]) -> None:
        self.batches.append(batch)
        self._news.set()

    def _count(self, *arguments):
        self.wakes += 1
        return self._wake(*arguments)


async def test_packets_from_a_thread_come_in_order_and_without_a_wake_up_each():
    """However many are put, the loop is woken once, and goes on looking by itself while packets flow."""
    desk = Desk()
    for number in range(100):
        desk.hop.put(packet(number))
    assert await desk.until(100) == list(range(100))
    assert (desk.wakes, len(desk.batches)) == (1, 1)

    def put() -> None:
        for number in range(100, 200):
            desk.hop.put(packet(number))

    await asyncio.to_thread(put)
    woken_by_the_thread_pool = 1
    assert await desk.until(200) == list(range(200))
    assert desk.wakes == 1 + woken_by_the_thread_pool


async def test_after_a_pause_the_loop_is_woken_again(monkeypatch):
    """Nobody looks for a camera that is silent, and its next packet is not lost for that."""
    monkeypatch.setattr(handover, "_EVERY_S", 0.001)
    desk = Desk()
    for number in range(5):
        desk.hop.put(packet(number))
        await desk.until(number + 1)
        async with asyncio.timeout(5):
            while desk.hop._scheduled:  # noqa: ASYNC110 - it stops looking in silence
                await asyncio.sleep(0.001)
    assert desk.wakes == 5


async def test_who_cannot_wait_has_the_packets_at_once():
    """For a detection, its picture is in the ring when it is told."""
    desk = Desk()
    desk.hop.put(packet(0, is_key=True))
    await desk.until(1)
    desk.hop.put(packet(1))
    assert desk.got == [0]
    desk.hop.flush()
    assert desk.got == [0, 1]


async def test_many_threads_wakes_and_looks_lose_nothing(monkeypatch):
    """Whoever puts while the loop decides that there is nothing more wakes it again."""
    monkeypatch.setattr(handover, "_EVERY_S", 0.0005)
    desks = [Desk() for _ in range(4)]

    def put(hop: Handover) -> None:
        for number in range(3000):
            hop.put(packet(number, is_key=True))
            while len(hop._waiting) > 500:
                time.sleep(0.0005)

    await asyncio.gather(*(asyncio.to_thread(partial(put, desk.hop)) for desk in desks))
    for desk in desks:
        assert await desk.until(3000) == list(range(3000))
    assert "camera.packets_dropped" not in metrics.snapshot()


async def test_when_the_loop_is_too_late_packets_are_dropped_up_to_a_key_frame(monkeypatch):
    """What is delivered can be decoded, and what is not is counted."""
    monkeypatch.setattr(handover, "_MAX_WAITING_PACKETS", 5)
    desk = Desk()
    for number in range(8):
        desk.hop.put(packet(number, is_key=number == 0))
    desk.hop.flush()
    desk.hop.put(packet(8))
    desk.hop.put(packet(9, is_key=True))
    desk.hop.put(packet(10))
    assert await desk.until(7) == [0, 1, 2, 3, 4, 9, 10]
    assert metrics.snapshot()["camera.packets_dropped"] == {"entree": 4}


async def test_the_bound_is_one_of_bytes_too(monkeypatch):
    """A few large key frames are as much as many small packets, and sound counts like pictures."""
    monkeypatch.setattr(handover, "_MAX_WAITING_BYTES", 25)
    desk = Desk()
    for number in range(5):
        desk.hop.put(packet(number, is_key=True))
    desk.hop.flush()
    desk.hop.put(packet(5, is_key=True, sound=bytes(20)))
    desk.hop.put(packet(6, is_key=True))
    assert await desk.until(4) == [0, 1, 2, 5]


async def test_closing_delivers_what_was_put_before_and_nothing_after():
    """The end of a life belongs to the recording, too."""
    desk = Desk()
    desk.hop.put(packet(0, is_key=True))
    desk.hop.close()
    desk.hop.put(packet(1, is_key=True))
    desk.hop.flush()
    await asyncio.sleep(0)
    assert desk.got == [0]
