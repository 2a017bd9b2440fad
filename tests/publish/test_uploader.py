"""The uploader: what it sends, when it tries again, and when it gives up."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from tests.publish.conftest import CLIP, Clock, Part
from tests.publish.tus_server import Fault, TusServer
from vigintd.errors import HostRefused, HostUnavailable
from vigintd.publish import ClipRequest
from vigintd.publish.faults import SealMismatch
from vigintd.publish.tus import TusHost
from vigintd.publish.uploader import BODY_LIMIT_BYTES, CHUNK_BYTES, BodyLimit, upload_part
from vigintd.retry import Backoff

REQUEST = ClipRequest(CLIP, ["gardien@exemple.fr"], 48, {"camera": "entree"})


@pytest.fixture
async def created(host: TusHost) -> TusHost:
    await host.create(REQUEST)
    return host


async def upload(host: TusHost, part: Part, clock: Clock, *, life_s: float = 3600) -> list[int]:
    accepted: list[int] = []
    await upload_part(
        host, CLIP, part, clock=clock, random=Random(7), backoff=Backoff(1, 60), life_s=life_s, on_accepted=accepted.append
    )
    return accepted


def held(server: TusServer) -> bytes:
    return bytes(server.clips[CLIP].parts[0].data)


async def test_the_backlog_goes_in_one_request_then_each_fragment_as_it_closes(
    created: TusHost, server: TusServer, part: Part, clock: Clock, film: list[bytes]
):
    """What is there goes at once in one body; what comes after goes body by body."""
    await part.grow(*film[:4])
    part.coming = iter(film[4:])
    accepted = await upload(created, part, clock)
    assert server.bodies == [sum(map(len, film[:4])), *map(len, film[4:])]
    assert accepted == [sum(server.bodies[: i + 1]) for i in range(len(server.bodies))]
    assert server.clips[CLIP].parts[0].sealed == (part.visible_bytes, part.sealed.sha256 if part.sealed else "")
    assert clock.waits == []


async def test_a_part_that_does_not_grow_is_waited_for(created: TusHost, server: TusServer, part: Part, clock: Clock):
    """Nothing is sent and nothing spins until a fragment is whole."""
    task = asyncio.create_task(upload(created, part, clock))
    await part.waited_for.wait()
    await part.grow(b"fragment")
    await part.seal()
    assert (await task)[-1] == 8


async def test_a_long_backlog_is_cut_at_fragments_and_never_held_in_memory(
    created: TusHost, server: TusServer, part: Part, clock: Clock
):
    """No body is longer than its limit, each ends with a fragment, and reads stay small."""
    size = 3 << 20
    await part.grow(*(bytes([i]) * size for i in range(7)))
    await part.seal()
    await upload(created, part, clock)
    assert server.bodies == [2 * size, 2 * size, 2 * size, size]
    assert max(server.bodies) <= BODY_LIMIT_BYTES
    assert part.longest_read_bytes == CHUNK_BYTES
    assert held(server) == part.data


async def test_a_fragment_over_the_limit_goes_alone(created: TusHost, server: TusServer, part: Part, clock: Clock):
    """A single huge fragment is sent as it is."""
    await part.grow(b"small", bytes(BODY_LIMIT_BYTES + 1), b"small")
    await part.seal()
    await upload(created, part, clock)
    assert server.bodies == [5, BODY_LIMIT_BYTES + 1, 5]


async def test_after_a_failure_bodies_are_shorter_and_grow_again(
    created: TusHost, server: TusServer, part: Part, clock: Clock, film: list[bytes]
):
    """Half as long after each, twice as long after each success: a line that breaks often carries what it can."""
    await part.grow(*(bytes([i]) * 1000 for i in range(8)))
    await part.seal()
    faults = [Fault("append", cut_at=100), Fault("append", status=500)]
    server.faults += faults
    await upload(created, part, clock)
    assert all(fault.fired for fault in faults)
    assert server.bodies == [2000, 4000, 2000]
    assert held(server) == part.data


async def test_a_body_that_is_too_large_goes_in_pieces_at_once(created: TusHost, server: TusServer, part: Part, clock: Clock):
    """What a proxy before the host does not take whole it may take by halves; nobody waits for that."""
    await part.grow(*(bytes([i]) * 1000 for i in range(4)))
    await part.seal()
    faults = [Fault("append", status=413), Fault("append", status=413)]
    server.faults += faults
    await upload(created, part, clock)
    assert all(fault.fired for fault in faults)
    assert server.bodies == [1000, 2000, 1000]
    assert clock.waits == []


def test_short_bodies_that_arrive_say_nothing_of_long_ones():
    """Fragments of cameras under way do not make a backlog try again and again what a proxy does not take."""
    limit = BodyLimit()
    limit.failed(2_000_000)
    for _ in range(20):
        limit.arrived(50_000)
    assert limit.length_bytes == 1_000_000
    limit.arrived(900_000)
    assert limit.length_bytes == 1_800_000


async def test_bytes_after_the_last_fragment_arrive_with_the_seal(
    created: TusHost, server: TusServer, part: Part, clock: Clock, film: list[bytes]
):
    """A muxer's index at the end belongs to the evidence."""
    await part.grow(*film)
    await part.seal(trailer=b"mfra....")
    await upload(created, part, clock)
    assert held(server) == b"".join(film) + b"mfra...."


async def test_an_empty_part_is_sealed_empty(created: TusHost, server: TusServer, part: Part, clock: Clock):
    """A part that nothing was written to is still closed at the host."""
    await part.seal()
    assert await upload(created, part, clock) == []
    assert server.clips[CLIP].parts[0].sealed is not None


@pytest.mark.parametrize(
    "fault",
    [
        Fault("offset", status=500),
        Fault("append", status=503, headers={"Retry-After": "9"}),
        Fault("append", status=409),
        Fault("append", status=460),
        Fault("append", cut_at=1000),
        Fault("append", cut_after=True),
        Fault("append", status=200, body="<html>", content_type="text/html"),
        Fault("seal", status=502),
        Fault("seal", cut_at=0),
        Fault("seal", cut_after=True),
    ],
    ids=lambda fault: f"{fault.at}-{fault.status or ('cut_after' if fault.cut_after else 'cut')}",
)
async def test_after_a_fault_it_goes_on_where_the_host_is(
    *, created: TusHost, server: TusServer, part: Part, clock: Clock, film: list[bytes], fault: Fault
):
    """Whatever broke off once, the part is whole and verified at the end, and no byte was kept twice."""
    fault.fired = False
    server.faults.append(fault)
    await part.grow(*film[:3])
    part.coming = iter(film[3:])
    await upload(created, part, clock)
    assert fault.fired
    assert held(server) == b"".join(film)
    assert sum(server.bodies) == len(b"".join(film))
    assert server.clips[CLIP].parts[0].sealed
    assert len(clock.waits) == 1
    assert clock.waits[0] >= (9 if fault.status == 503 else 0.5)


async def test_a_host_that_stays_away_is_given_up_after_its_life(
    created: TusHost, server: TusServer, part: Part, clock: Clock, film: list[bytes]
):
    """Failures without progress end after `life_s`, as unavailable, since later it may work."""
    server.faults += [Fault("append", status=500) for _ in range(100)]
    await part.grow(film[0])
    with pytest.raises(HostUnavailable, match="gave up after"):
        await upload(created, part, clock, life_s=300)
    assert 150 < sum(clock.waits) <= 300
    assert server.faults[0].fired


async def test_progress_begins_a_new_life(created: TusHost, server: TusServer, part: Part, clock: Clock, film: list[bytes]):
    """A host that fails often but takes a fragment in between is never given up."""
    part.coming = iter(film)

    class Flapping(TusHost):
        async def append(self, *args, **kwargs) -> int:
            if len(server.faults) < 2 * (1 + len(server.bodies)):
                server.faults.append(Fault("append", status=500))
            return await super().append(*args, **kwargs)

    flapping = Flapping(server.base, server.key)
    await upload(flapping, part, clock, life_s=5)
    await flapping.aclose()
    assert sum(clock.waits) > 5
    assert all(fault.fired for fault in server.faults)
    assert held(server) == b"".join(film)


@pytest.mark.parametrize("operation", ["offset", "append", "seal"])
async def test_a_refusal_ends_it_at_once(created: TusHost, server: TusServer, part: Part, clock: Clock, operation):
    """What the host will not take is not sent again."""
    fault = Fault(operation, status=403)
    server.faults.append(fault)
    await part.grow(b"fragment")
    await part.seal()
    with pytest.raises(HostRefused):
        await upload(created, part, clock)
    assert fault.fired
    assert clock.waits == []


async def test_bytes_changed_on_the_way_are_sent_again_once(
    created: TusHost, server: TusServer, part: Part, clock: Clock, film: list[bytes]
):
    """When the seal does not match, the part is sent again from byte 0."""
    fault = Fault("append", corrupt=True)
    server.faults.append(fault)
    await part.grow(*film)
    await part.seal()
    accepted = await upload(created, part, clock)
    assert fault.fired
    assert held(server) == b"".join(film)
    assert accepted == [part.visible_bytes, part.visible_bytes]


async def test_a_host_that_never_holds_the_right_bytes_is_given_up(
    created: TusHost, server: TusServer, part: Part, clock: Clock, film: list[bytes]
):
    """A second mismatch is a refusal, not a loop."""
    server.faults += [Fault("append", corrupt=True) for _ in range(3)]
    await part.grow(*film)
    await part.seal()
    with pytest.raises(SealMismatch):
        await upload(created, part, clock)
    assert [fault.fired for fault in server.faults] == [True, True, False]


async def test_an_upload_goes_on_from_inside_a_fragment(
    created: TusHost, server: TusServer, part: Part, clock: Clock, film: list[bytes]
):
    """A host that kept a broken-off body gets the rest, and bodies end with fragments again."""
    await part.grow(*film)
    await part.seal()
    server.clips[CLIP].parts[0].data += part.data[: len(film[0]) + 7]
    accepted = await upload(created, part, clock)
    assert held(server) == b"".join(film)
    assert accepted[0] == len(film[0]) + 7


async def test_a_host_with_more_than_was_recorded_is_refused(created: TusHost, server: TusServer, part: Part, clock: Clock):
    """More bytes than the sealed part has cannot be it."""
    await part.grow(b"fragment")
    await part.seal()
    server.clips[CLIP].parts[0].data += b"fragment and more"
    with pytest.raises(HostRefused, match="not 8"):
        await upload(created, part, clock)
