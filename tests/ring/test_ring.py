"""The ring: what is kept, what leaves, and what a reader gets."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vigintd import metrics
from vigintd.model import Packet, StreamParameters
from vigintd.ring import GAP_S, Ring

PARAMETERS = StreamParameters("h264", 640, 360, b"")


@pytest.fixture(autouse=True)
def _fresh_metrics():
    metrics.reset()


def packet(arrived_s: float, *, is_key: bool = False, size: int = 10) -> Packet:
    ticks = round(arrived_s * 90_000)
    return Packet(bytes(size), ticks, ticks, 0, is_key, arrived_s, PARAMETERS)


def gops(*lengths: int, step_s: float = 1.0, size: int = 10) -> list[Packet]:
    """GOPs of so many packets each, a packet a step."""
    flags = [index == 0 for length in lengths for index in range(length)]
    return [packet(number * step_s, is_key=is_key, size=size) for number, is_key in enumerate(flags)]


def ring(span_s: float = 1000, limit_bytes: int = 1_000_000) -> Ring:
    return Ring(camera="entree", span_s=span_s, limit_bytes=limit_bytes)


def times(packets: list[Packet]) -> list[float]:
    return [packet.arrived_s for packet in packets]


async def next_batch(reader: AsyncGenerator[list[Packet]]) -> list[Packet]:
    async with asyncio.timeout(5):
        return await anext(reader)


class TestReading:
    def test_reading_begins_at_the_key_frame_at_or_before_the_moment(self):
        """The key frame that a decoder needs for the moment asked comes first, and all that followed."""
        held = ring()
        held.append(gops(3, 3, 3))
        assert times(held.since(5.5)) == [3, 4, 5, 6, 7, 8]
        assert times(held.since(6)) == [6, 7, 8]

    def test_a_moment_before_everything_gives_everything(self):
        """What cannot be had is left out, never invented."""
        held = ring()
        held.append(gops(2, 2))
        assert times(held.since(-100)) == [0, 1, 2, 3]

    def test_a_moment_in_the_future_gives_the_newest_gop(self):
        """A trigger that is dated a little ahead still finds a picture."""
        held = ring()
        held.append(gops(2, 2))
        assert times(held.since(3 + GAP_S)) == [2, 3]

    def test_what_came_before_an_outage_is_not_the_pre_roll_of_what_came_after(self):
        """A camera that was away for minutes and is back for two seconds has two seconds to give."""
        held = ring()
        held.append(gops(2, 2))
        held.append([replace(one, arrived_s=one.arrived_s + 600) for one in gops(2)])
        assert times(held.since(595)) == [600, 601]

    def test_a_dead_camera_has_nothing_of_the_moment(self):
        """Its last picture shows another time."""
        held = ring()
        held.append(gops(2, 2))
        assert held.since(600) == []

    def test_nothing_is_held_before_the_first_key_frame(self):
        """A stream that begins in the middle of a GOP cannot be decoded there."""
        held = ring()
        held.append([packet(0), packet(1)])
        assert (len(held), held.size_bytes, held.held_s, held.since(0)) == (0, 0, 0.0, [])
        held.append([packet(2, is_key=True), packet(3)])
        assert times(held.since(0)) == [2, 3]


class TestBounds:
    def test_old_gops_leave_while_the_rest_still_spans_the_seconds(self):
        """The span is kept whole: a GOP goes only when what stays is long enough without it."""
        held = ring(span_s=4)
        held.append(gops(3, 3, 1))
        assert times(held.since(0)) == [0, 1, 2, 3, 4, 5, 6]
        held.append([packet(7)])
        assert times(held.since(0)) == [3, 4, 5, 6, 7]

    def test_whole_gops_leave_when_there_are_too_many_bytes(self):
        """Memory comes before seconds."""
        held = ring(limit_bytes=75)
        held.append(gops(3, 3, 2))
        assert times(held.since(0)) == [3, 4, 5, 6, 7]
        assert held.size_bytes == 50

    def test_a_gop_larger_than_the_ring_empties_it_until_the_next_key_frame(self):
        """There is no use in a GOP without its beginning; the loss is counted."""
        held = ring(limit_bytes=45)
        held.append(gops(6))
        assert (len(held), held.size_bytes, held.since(0)) == (0, 0, [])
        assert metrics.snapshot()["ring.gop_too_large"] == {"entree": 1}
        held.append([packet(6, is_key=True), packet(7)])
        assert times(held.since(0)) == [6, 7]

    @given(
        span_s=st.floats(0, 20),
        limit_bytes=st.integers(0, 400),
        stream=st.lists(st.tuples(st.booleans(), st.integers(0, 120), st.floats(0, 3)), max_size=80),
        reads=st.lists(st.floats(-10, 100), max_size=3),
    )
    def test_the_invariants_hold_for_any_stream(self, span_s, limit_bytes, stream, reads):
        """Order of arrival, a key frame first, never over the bytes, never shorter than the span for want of trying."""
        held = ring(span_s, limit_bytes)
        now_s, sent = 0.0, []
        for is_key, size, step_s in stream:
            now_s += step_s
            sent.append(packet(now_s, is_key=is_key, size=size))
            held.append([sent[-1]])
            assert held.size_bytes <= limit_bytes
            everything = held.since(float("-inf"))
            assert len(everything) == len(held)
            assert held.size_bytes == sum(len(one.data) for one in everything)
            if not everything:
                continue
            assert everything[0].is_key
            assert everything == sent[-len(everything) :]
            assert held.held_s == now_s - everything[0].arrived_s
            keys = [one.arrived_s for one in everything if one.is_key]
            assert len(keys) == 1 or now_s - keys[1] < span_s
            for moment_s in reads:
                found = held.since(moment_s)
                if not found:
                    assert now_s < moment_s - GAP_S
                    continue
                assert found[0].is_key
                assert found == everything[-len(found) :]
                if moment_s < found[0].arrived_s and len(found) < len(everything):
                    # What lies before it ended too long before the moment.
                    assert everything[-len(found) - 1].arrived_s < moment_s - GAP_S


class TestFollowing:
    async def test_a_follower_of_a_moment_after_an_outage_waits_for_the_next_key_frame(self):
        """It is not given what a camera showed before it went away."""
        held = ring()
        held.append(gops(2, 2))
        reader = held.follow(600)
        waiting = asyncio.create_task(next_batch(reader))
        await asyncio.sleep(0)
        held.append([packet(601, is_key=True), packet(602)])
        assert times(await waiting) == [601, 602]
        assert "ring.packets_missed" not in metrics.snapshot()
        await reader.aclose()

    async def test_a_follower_gets_the_past_and_then_what_arrives(self):
        """Pre-roll first, live after it, nothing twice and nothing left out."""
        held = ring()
        held.append(gops(2, 2))
        reader = held.follow(2.5)
        assert times(await next_batch(reader)) == [2, 3]
        held.append([packet(4)])
        held.append([packet(5, is_key=True), packet(6)])
        assert times(await next_batch(reader)) == [4, 5, 6]
        await reader.aclose()

    async def test_a_follower_waits_for_the_first_key_frame(self):
        """An empty ring is followed from the key frame that comes next."""
        held = ring()
        reader = held.follow(0)
        waiting = asyncio.create_task(next_batch(reader))
        await asyncio.sleep(0)
        held.append([packet(0), packet(1, is_key=True), packet(2)])
        assert times(await waiting) == [1, 2]
        assert metrics.snapshot() == {}
        await reader.aclose()

    async def test_closing_ends_every_follower_after_what_is_held(self):
        """Whoever follows a camera that stops has all of it and is not left waiting."""
        held = ring()
        held.append(gops(2))
        one, other = held.follow(0), held.follow(0)
        assert times(await next_batch(one)) == [0, 1]
        waiting = asyncio.create_task(next_batch(one))
        await asyncio.sleep(0)
        held.close()
        held.append(gops(2))
        with pytest.raises(StopAsyncIteration):
            await waiting
        assert [times(batch) async for batch in other] == [[0, 1]]

    async def test_a_follower_that_fell_behind_goes_on_at_the_next_key_frame(self):
        """What left before it was read is counted, and what it gets can be decoded."""
        held = ring(limit_bytes=40)
        held.append(gops(2))
        reader = held.follow(0)
        assert times(await next_batch(reader)) == [0, 1]
        held.append(gops(2, 3, 3)[2:])
        assert times(await next_batch(reader)) == [5, 6, 7]
        assert metrics.snapshot()["ring.packets_missed"] == {"entree": 3}
        await reader.aclose()

    async def test_a_live_follower_gets_a_gop_that_is_too_large_to_be_held(self):
        """A recording under way does not suffer from a ring that is too small, and the bound holds all the same."""
        held = ring(limit_bytes=45)
        held.append(gops(1))
        reader = held.follow(0)
        got = times(await next_batch(reader))
        for now_s in range(1, 20):
            held.append([packet(now_s)])
            assert held.size_bytes <= 45
            got += times(await next_batch(reader))
        assert got == list(range(20))
        assert (len(held), metrics.snapshot()["ring.gop_too_large"]) == (0, {"entree": 1})
        assert "ring.packets_missed" not in metrics.snapshot()
        held.append([packet(20, is_key=True)])
        assert times(await next_batch(reader)) == [20]
        await reader.aclose()

    async def test_a_new_follower_of_a_gop_that_is_too_large_waits_for_a_key_frame(self):
        """It has no beginning to start from."""
        held = ring(limit_bytes=45)
        held.append(gops(8))
        reader = held.follow(0)
        waiting = asyncio.create_task(next_batch(reader))
        await asyncio.sleep(0)
        held.append([packet(8)])
        held.append([packet(9, is_key=True)])
        assert times(await waiting) == [9]
        await reader.aclose()

    @given(
        limit_bytes=st.integers(1, 300),
        stream=st.lists(st.tuples(st.booleans(), st.integers(1, 60), st.booleans()), max_size=60),
    )
    def test_a_follower_never_gets_anything_out_of_order_or_undecodable(self, limit_bytes, stream):
        """However slow it reads: rising, no packet twice, each gap ends at a key frame, and what is missed is counted."""

        async def story() -> None:
            metrics.reset()
            held = ring(5, limit_bytes)
            held.append([packet(0, is_key=True, size=1)])
            sent = [*held.since(0)]
            reader = held.follow(0)
            got = await next_batch(reader)
            for number, (is_key, size, reads) in enumerate(stream, 1):
                sent.append(packet(number, is_key=is_key, size=size))
                held.append([sent[-1]])
                assert held.size_bytes <= limit_bytes
                if reads and (held.since(0) or held.size_bytes):
                    reading = asyncio.ensure_future(anext(reader))
                    for _ in range(3):
                        await asyncio.sleep(0)
                    if reading.done():
                        got += reading.result()
                    else:
                        reading.cancel()
                        await asyncio.wait({reading})
                        return
            held.close()
            async for batch in reader:
                got += batch
            places = [sent.index(one) for one in got]
            assert places == sorted(set(places))
            assert all(later == earlier + 1 or sent[later].is_key for earlier, later in pairwise(places))
            missed = metrics.snapshot().get("ring.packets_missed", {}).get("entree", 0)
            assert missed <= len(sent) - len(got)

        asyncio.run(story())
