"""The hop of packets to the loop: in batches, in order, bounded."""

import asyncio

from tests.camera.streams import parameters
from vigintd import metrics
from vigintd.camera import handover
from vigintd.camera.handover import Handover
from vigintd.model import Packet


def packet(number: int, *, is_key: bool = False) -> Packet:
    return Packet(bytes(10), number, number, 0, is_key, float(number), parameters())


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_packets_from_a_thread_come_in_order_and_in_few_batches():
    """However many are put while the loop is busy, it is woken once."""
    batches: list[list[Packet]] = []
    hop = Handover("entree", asyncio.get_running_loop(), batches.append)
    sent = [packet(number) for number in range(100)]
    for one in sent:
        hop.put(one)
    await settle()
    assert batches == [sent]

    def put() -> None:
        for one in sent:
            hop.put(one)

    await asyncio.to_thread(put)
    await settle()
    assert [one for batch in batches[1:] for one in batch] == sent


async def test_when_the_loop_is_too_late_packets_are_dropped_up_to_a_key_frame(monkeypatch):
    """What is delivered can be decoded, and what is not is counted."""
    monkeypatch.setattr(handover, "_MAX_WAITING_PACKETS", 5)
    got: list[Packet] = []
    hop = Handover("entree", asyncio.get_running_loop(), got.extend)
    for number in range(8):
        hop.put(packet(number, is_key=number == 0))
    await settle()
    hop.put(packet(8))
    hop.put(packet(9, is_key=True))
    hop.put(packet(10))
    await settle()
    assert [one.dts_90k for one in got] == [0, 1, 2, 3, 4, 9, 10]
    assert metrics.snapshot()["camera.packets_dropped"] == {"entree": 4}


async def test_the_bound_is_one_of_bytes_too(monkeypatch):
    """A few large key frames are as much as many small packets."""
    monkeypatch.setattr(handover, "_MAX_WAITING_BYTES", 25)
    got: list[Packet] = []
    hop = Handover("entree", asyncio.get_running_loop(), got.extend)
    for number in range(5):
        hop.put(packet(number, is_key=True))
    await settle()
    hop.put(packet(5, is_key=True))
    await settle()
    assert [one.dts_90k for one in got] == [0, 1, 2, 5]


async def test_after_closing_nothing_is_delivered():
    """Not even what was put before."""
    got: list[Packet] = []
    hop = Handover("entree", asyncio.get_running_loop(), got.extend)
    hop.put(packet(0, is_key=True))
    hop.close()
    hop.put(packet(1, is_key=True))
    await settle()
    assert got == []
