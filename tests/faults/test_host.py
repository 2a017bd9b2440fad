"""What the line to the host, or the host, may do to a publication, as docs/design/faults.md has it; with a real host behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from tests.faults.street import PAGE, REQUESTS, Street, at, http, in_body, portal, street, working
from tests.real.fault_proxy import Fault, FaultProxy, Link, Spot
from tests.real.network_faults import Answer, Corrupt, HalfClose, Latency, Rate, Reset, Stall
from vigintd.journal import EffectState
from vigintd.model import AlertKind, NoVideo

TEXT_AFTER_S = 20
IMPATIENT_S = 0.5
LINK = (AlertKind.LINK, None)
TEXT = (AlertKind.TEXT, NoVideo.LATE)
FOLLOW_UP = (AlertKind.FOLLOW_UP, None)
NONE = range(1)
SOME = range(1, 9)
"""Of a client that is this impatient a busy machine may make more than the fault does."""
EACH = range(len(REQUESTS), len(REQUESTS) + 1)


class Limit(Answer):
    """A proxy before the host that takes no body longer than to the spot."""

    def reached(self, link: Link, piece: bytes) -> int | None:
        if self.spot.after[0] in piece:
            # The next request, which waited for the answer to the one before.
            link.seekers.pop(self, None)
        return super().reached(link, piece)


@dataclass(frozen=True)
class Passing:
    """What breaks a publication off, and lets it go on by itself."""

    faults: Callable[[int], Sequence[Fault]]
    """For a clip of so many bytes."""
    delays: range = range(1, 2)
    """How often the log says that it has to wait; each time for a second or so."""
    reason: str = ""
    """What is said in the log."""
    timeout_s: float = 5.0


PASSING = {
    "host-latency": Passing(lambda _size: [Latency("up", 0.02), Latency("down", 0.02)], delays=NONE),
    "host-slow": Passing(lambda size: [Rate("up", 1.4 * size, 1000)], delays=SOME, timeout_s=IMPATIENT_S),
    "host-narrow": Passing(lambda size: [Reset(in_body(size // 2), times=99)], SOME, reason="broke the connection off"),
    "host-413-proxy": Passing(
        lambda size: [Limit(in_body(size // 3), http("413 Payload Too Large", PAGE, Content_Type="text/html"), times=99)],
        delays=NONE,
    ),
    "host-cut-first": Passing(lambda _size: [Reset(in_body(0))], reason="broke the connection off"),
    "host-cut-second": Passing(lambda _size: [Reset(in_body(1))], reason="broke the connection off"),
    "host-cut-middle": Passing(lambda size: [Reset(in_body(size // 2))], reason="broke the connection off"),
    "host-cut-last": Passing(lambda size: [Reset(in_body(size - 1))], reason="broke the connection off"),
    "host-cut-answer": Passing(lambda _size: [Reset(Spot("down", (b"HTTP/1.1 204",)))], reason="broke the connection off"),
    "host-corrupt": Passing(lambda size: [Corrupt(in_body(size // 2))], reason="answered 460"),
    "host-corrupt-head": Passing(lambda _size: [Corrupt(Spot("up", (REQUESTS["append"], b"\r\n\r\n")))], reason="answered 400"),
    "host-stall": Passing(
        lambda size: [Stall(in_body(size // 2))], SOME, reason="did not answer within 0.5 s", timeout_s=IMPATIENT_S
    ),
    "host-silent": Passing(
        lambda _size: [Stall(Spot("down", (b"HTTP/1.1 201",)))],
        SOME,
        reason="did not answer within 0.5 s",
        timeout_s=IMPATIENT_S,
    ),
    "host-half-close": Passing(
        lambda size: [HalfClose(in_body(size // 2)), HalfClose(Spot("down", (b"HTTP/1.1 201",)))], delays=range(2, 3)
    ),
    "host-500": Passing(
        lambda _size: [Answer(at(request), http("500 Internal Server Error")) for request in REQUESTS],
        delays=EACH,
        reason="answered 500",
    ),
    "host-portal-page": Passing(lambda _size: [portal(request) for request in REQUESTS], delays=EACH, reason="captive portal"),
}


@asynccontextmanager
async def left(tmp_path, *, timeout_s: float = 5.0):
    """The street with its clip; its size."""
    async with street(tmp_path, timeout_s=timeout_s) as it:
        yield it, await it.leave()


def delays(it: Street) -> list[str]:
    return [
        str(line.get("reason") or line.get("error"))
        for line in it.logs
        if line["event"] in ("upload.delayed", "publish.delayed")
    ]


@pytest.mark.fault(*PASSING)
@pytest.mark.parametrize("case", PASSING.values(), ids=PASSING)
async def test_what_passes_costs_a_moment_and_nobody_hears_of_it(tmp_path, case: Passing):
    """One mail, with the link and in time; the clip whole; the log says why it was late."""
    async with left(tmp_path, timeout_s=case.timeout_s) as (it, size):
        faults = [it.proxy.strike(fault) for fault in case.faults(size)]
        async with working(it):
            await it.run()
        assert all(fault.fired for fault in faults)
        assert it.told == [LINK]
        assert it.told_after_s[0] < TEXT_AFTER_S
        assert len(delays(it)) in case.delays, it.logs
        assert all(case.reason in reason for reason in delays(it)), delays(it)
        assert it.host.offsets == sorted(it.host.offsets)
        await it.assert_whole()


@pytest.mark.fault("host-portal-redirect")
async def test_the_key_goes_nowhere_that_a_redirection_names(tmp_path):
    """Each request is sent elsewhere once; nobody comes there, and the host gets the clip."""
    async with left(tmp_path) as (it, _size):
        elsewhere = FaultProxy("127.0.0.1", it.proxy.port)
        await elsewhere.up()
        location = f"http://127.0.0.1:{elsewhere.port}/login"
        faults = [it.proxy.strike(portal(request, "302 Found", Location=location)) for request in REQUESTS]
        async with working(it):
            await it.run()
        await elsewhere.down()
        assert all(fault.fired for fault in faults)
        assert elsewhere.connections == 0
        assert it.told == [LINK]
        assert all("302" in reason and "captive portal" in reason for reason in delays(it))
        await it.assert_whole()


@pytest.mark.fault("host-503-retry-after")
async def test_a_host_that_asks_for_two_minutes_gets_them_and_people_their_text_in_time(tmp_path):
    """The text does not wait for what the host wants; the link follows."""
    async with left(tmp_path) as (it, _size):
        busy = it.proxy.strike(Answer(at("create"), http("503 Service Unavailable", Retry_After="120")))
        async with working(it):
            await it.pass_time(lambda row: bool(it.told))
            assert it.told == [TEXT]
            assert it.told_after_s[0] == pytest.approx(TEXT_AFTER_S, abs=1)
            await it.run(step_s=1)
        assert busy.fired == 1
        assert it.told == [TEXT, FOLLOW_UP]
        assert 120 <= it.told_after_s[1] < 130
        (postponed,) = it.logged("publish.postponed")
        assert postponed["retry_in_s"] == 120
        await it.assert_whole()


REFUSALS = {
    # Not even one fragment: a shorter body was tried.
    "host-413": ("append", "413 Payload Too Large", b'{"error": "a clip holds at most 1000 bytes"}', 2),
    "host-401": ("create", "401 Unauthorized", b'{"error": "an API key is required"}', 1),
}


@pytest.mark.fault(*REFUSALS)
@pytest.mark.parametrize(("ask", "status", "body", "times"), REFUSALS.values(), ids=REFUSALS)
async def test_after_a_refusal_people_know_at_once_and_the_clip_waits_for_somebody_who_mends_it(
    *, tmp_path, ask, status, body, times
):
    """There will be no link, says the text; the clip stays in the spool, and is listed. Retried, it has its link."""
    async with left(tmp_path) as (it, _size):
        refusal = it.proxy.strike(Answer(at(ask), http(status, body), times=99))
        async with working(it):
            await it.run()
            await it.pass_time(lambda row: bool(it.told))
            assert refusal.fired >= times
            assert it.told == [(AlertKind.TEXT, NoVideo.REFUSED)]
            assert it.told_after_s[0] < 5
            publication = await it.publication()
            assert publication.state is EffectState.DEAD
            assert f"{status[:3]} ({json.loads(body)['error']})" in publication.last_error
            assert [row.incident.id for row in await it.journal.incidents(owing=True)] == [publication.incident_id]
            assert it.logged("publish.given_up", error=publication.last_error)
            await it.assert_in_spool()
            it.proxy.recover()
            await it.retry()
            await it.run()
        assert it.told[1:] == [FOLLOW_UP]
        await it.assert_whole()


def away(it: Street) -> None:
    """Nobody listens."""


def behind_a_portal(it: Street) -> None:
    """A login page answers whatever is asked."""
    for request in REQUESTS:
        it.proxy.strike(portal(request, times=10_000))


def broken(it: Street) -> None:
    """It has no answer for anything."""
    for request in REQUESTS:
        it.proxy.strike(Answer(at(request), http("500 Internal Server Error"), times=10_000))


HOURS = {"host-away-hour": away, "host-portal-hour": behind_a_portal, "host-500-hour": broken}


@pytest.mark.fault(*HOURS)
@pytest.mark.parametrize("trouble", HOURS.values(), ids=HOURS)
async def test_after_an_hour_without_the_host_the_link_follows_within_five_minutes(tmp_path, trouble):
    """The text went in time; the host was asked often enough to be found again, and not more often than each few seconds."""
    async with left(tmp_path) as (it, _size):
        trouble(it)
        if trouble is away:
            await it.proxy.down()
        async with working(it):
            await it.pass_time(lambda row: bool(it.told))
            assert it.told == [TEXT]
            assert it.told_after_s[0] == pytest.approx(TEXT_AFTER_S, abs=1)
            began_s = it.clock.monotonic_s()
            await it.pass_time(lambda row: it.clock.monotonic_s() > began_s + 3600, step_s=10)
            assert it.told == [TEXT]
            asked = len(delays(it))
            it.proxy.recover()
            if trouble is away:
                await it.proxy.up()
            ended_s = it.clock.monotonic_s()
            await it.run(step_s=2)
            assert it.clock.monotonic_s() - ended_s < 320
        assert it.told == [TEXT, FOLLOW_UP]
        assert 20 < asked < 150
        await it.assert_whole()


@pytest.mark.fault("host-away-nothing-recorded")
async def test_what_was_never_recorded_is_not_published(tmp_path):
    """People are told; no host is asked, now or for five days."""
    async with street(tmp_path) as it:
        await it.leave_nothing()
        async with working(it):
            await it.run()
        assert it.proxy.connections == 0
        assert it.told == [(AlertKind.TEXT, NoVideo.UNRECORDED)]
        assert (await it.publication()).attempts == 1
