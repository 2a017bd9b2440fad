"""The tus client against a real server with faults."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.publish.conftest import CLIP, KEY
from tests.publish.tus_server import Fault, TusServer
from vigintd.errors import HostRefused, HostUnavailable
from vigintd.publish import ClipRequest
from vigintd.publish.tus import TusHost

REQUEST = ClipRequest(CLIP, ["gardien@exemple.fr"], 48, {"camera": "entree"})
DATA = bytes(range(256)) * 4096
Ask = Callable[[TusHost], Awaitable[object]]


async def body(data: bytes = DATA, size: int = 64 << 10) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def append(host: TusHost) -> Awaitable[int]:
    return host.append(CLIP, 0, 0, body(), hashlib.sha256(DATA).digest())


ASKS: dict[str, Ask] = {
    "probe": lambda host: host.probe(),
    "create": lambda host: host.create(REQUEST),
    "offset": lambda host: host.offset(CLIP, 0),
    "append": append,
    "seal": lambda host: host.seal(CLIP, 0, 0, hashlib.sha256(b"").hexdigest()),
    "update": lambda host: host.update(CLIP, {"ended": True}),
}
EVERY_ASK = pytest.mark.parametrize("ask", list(ASKS))


@pytest.fixture
async def created(host: TusHost) -> TusHost:
    await host.create(REQUEST)
    return host


@EVERY_ASK
@pytest.mark.parametrize("status", [400, 429, 500, 502, 503])
async def test_a_host_that_cannot_now_is_unavailable(created: TusHost, server: TusServer, ask, status: int):
    """5xx and 429 are tried again, after the wait that the host asked for; so is what came there broken (400)."""
    fault = Fault(ask, status=status, headers={"Retry-After": "7"})
    server.faults.append(fault)
    with pytest.raises(HostUnavailable) as unavailable:
        await ASKS[ask](created)
    assert fault.fired
    assert unavailable.value.retry_after_s == 7


@EVERY_ASK
@pytest.mark.parametrize("status", [401, 403, 410, 413])
async def test_a_host_that_will_not_has_refused(created: TusHost, server: TusServer, ask, status: int):
    """4xx is not tried again, and the host's words are passed on."""
    fault = Fault(ask, status=status)
    server.faults.append(fault)
    with pytest.raises(HostRefused, match=str(status)) as refused:
        await ASKS[ask](created)
    assert fault.fired
    assert ask == "offset" or "(a fault of the test)" in str(refused.value)


async def test_a_key_that_the_host_does_not_know_says_all_that_is_to_be_done(created: TusHost, server: TusServer):
    """It is final, so a new key alone brings no link."""
    fault = Fault("append", status=401)
    server.faults.append(fault)
    with pytest.raises(
        HostRefused, match="check the credential publish__api_key, restart vigintd, then: vigintd incidents retry"
    ):
        await append(created)
    assert fault.fired


@EVERY_ASK
async def test_a_dropped_connection_is_unavailable(created: TusHost, server: TusServer, ask):
    """A connection that ends without an answer is tried again."""
    server.faults += [Fault(ask, cut_at=0), Fault(ask, cut_at=0)]  # aiohttp itself asks a second time where that is harmless
    with pytest.raises(HostUnavailable, match="broke the connection off"):
        await ASKS[ask](created)
    assert server.faults[0].fired


@EVERY_ASK
async def test_a_silent_host_is_unavailable_within_the_deadline(server: TusServer, host: TusHost, ask):
    """A host that takes the request and says nothing costs one deadline."""
    await host.create(REQUEST)
    fault = Fault(ask, stall=True)
    server.faults.append(fault)
    impatient = TusHost(server.base, KEY, timeout_s=0.2)
    began = time.monotonic()
    with pytest.raises(HostUnavailable, match=r"within 0\.2 s"):
        await ASKS[ask](impatient)
    assert time.monotonic() - began < 2
    assert fault.fired
    await impatient.aclose()


@EVERY_ASK
async def test_a_login_page_is_no_link_host(created: TusHost, server: TusServer, ask):
    """A captive portal that answers 200 with a web page is unavailable, and said to be one."""
    page = "<html>Bienvenue sur le WiFi</html>"
    fault = Fault(ask, status=200, body=page, content_type="text/html; charset=utf-8")
    server.faults.append(fault)
    with pytest.raises(HostUnavailable, match="captive portal"):
        await ASKS[ask](created)
    assert fault.fired


@EVERY_ASK
async def test_a_redirection_is_not_followed(created: TusHost, server: TusServer, ask):
    """The key goes nowhere but to the configured host."""
    fault = Fault(ask, status=302, headers={"Location": f"{server.base}/elsewhere"})
    server.faults.append(fault)
    before = len(server.requests)
    with pytest.raises(HostUnavailable, match="302"):
        await ASKS[ask](created)
    assert fault.fired
    assert server.requests[before:] == [ask]


async def test_a_web_page_with_a_4xx_is_not_the_hosts_refusal(created: TusHost, server: TusServer):
    """A proxy's own error page does not end an upload for good."""
    fault = Fault("append", status=403, body="<html>Forbidden</html>", content_type="text/html")
    server.faults.append(fault)
    with pytest.raises(HostUnavailable):
        await append(created)
    assert fault.fired


async def test_a_reader_that_stalls_costs_one_deadline(server: TusServer, host: TusHost):
    """A body that the other side stops reading is given up, however long it is."""
    await host.create(REQUEST)
    fault = Fault("append", stall=True)
    server.faults.append(fault)
    impatient = TusHost(server.base, KEY, timeout_s=0.3)
    pulled = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal pulled
        while True:
            pulled += 1
            yield bytes(64 << 10)

    with pytest.raises(HostUnavailable, match="within"):
        await impatient.append(CLIP, 0, 0, endless(), bytes(32))
    assert fault.fired
    assert pulled < 2000, "no more was pulled than the sockets' buffers hold"
    await impatient.aclose()


async def test_a_body_that_moves_in_the_moment_of_its_deadline_is_a_timeout(server: TusServer, host: TusHost):
    """As when the machine was too busy to look: both are seen in one turn of the loop, and nothing else is made of that."""
    await host.create(REQUEST)
    loop, timeout_s = asyncio.get_running_loop(), 0.3
    impatient = TusHost(server.base, KEY, timeout_s=timeout_s)

    async def until_the_deadline() -> AsyncIterator[bytes]:
        yield DATA
        moved = loop.create_future()
        loop.call_later(timeout_s - 0.05, moved.set_result, None)
        loop.call_later(timeout_s - 0.1, time.sleep, 0.2)
        await moved
        yield DATA

    with pytest.raises(HostUnavailable, match="within"):
        await impatient.append(CLIP, 0, 0, until_the_deadline(), bytes(32))
    await impatient.aclose()


async def test_a_slow_body_that_moves_is_no_timeout(created: TusHost, server: TusServer):
    """The deadline is each stage's: a body may take longer in all, as long as its chunks go on leaving."""
    patient = TusHost(server.base, KEY, timeout_s=0.4)

    async def slowly() -> AsyncIterator[bytes]:
        for chunk in (DATA[:10], DATA[10:20], DATA[20:30]):
            await asyncio.sleep(0.2)  # the pace is what is meant here
            yield chunk

    assert await patient.append(CLIP, 0, 0, slowly(), hashlib.sha256(DATA[:30]).digest()) == 30
    await patient.aclose()


async def test_a_body_cut_half_way_keeps_nothing_by_halves(created: TusHost, server: TusServer):
    """Cut at a byte in the middle, the upload is unavailable, and the offset is still a known one."""
    fault = Fault("append", cut_at=len(DATA) // 2)
    server.faults.append(fault)
    with pytest.raises(HostUnavailable):
        await append(created)
    assert fault.fired
    assert await created.offset(CLIP, 0) == 0
    assert await append(created) == len(DATA)


async def test_an_answer_before_the_bodys_end_is_heard(created: TusHost, server: TusServer):
    """A refusal that comes while a long body is still leaving is the answer."""
    fault = Fault("append", status=413)
    server.faults.append(fault)
    with pytest.raises((HostRefused, HostUnavailable)):
        await created.append(CLIP, 0, 0, body(bytes(4 << 20)), bytes(32))
    assert fault.fired


async def test_a_part_that_cannot_be_read_is_not_the_hosts_fault(created: TusHost):
    """The reader's own error comes out as it is."""

    async def unreadable() -> AsyncIterator[bytes]:
        yield b"a little"
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        await created.append(CLIP, 0, 0, unreadable(), bytes(32))


async def test_retry_after_may_be_a_date(created: TusHost, server: TusServer):
    """A date counts from the answer's own date, and no wait is longer than an hour."""
    dates = {"Date": "Sun, 22 Nov 2026 13:00:00 GMT", "Retry-After": "Sun, 22 Nov 2026 13:01:30 GMT"}
    for headers, wait_s in ((dates, 90), ({"Retry-After": "999999"}, 3600), ({"Retry-After": "bientôt"}, None)):
        server.faults.append(Fault("create", status=503, headers=headers))
        with pytest.raises(HostUnavailable) as unavailable:
            await created.create(REQUEST)
        assert unavailable.value.retry_after_s == wait_s


@pytest.mark.parametrize(
    "answer",
    [
        "null",
        "[1]",
        '{"links": {}}',
        '{"links": {"gardien@exemple.fr": 1}}',
        '{"links": {"gardien@exemple.fr": "https://x"}, "expires_at": "demain"}',
        '{"links": {"gardien@exemple.fr": "https://x"}, "expires_at": "2026-11-24T13:37:24"}',
    ],
)
async def test_a_creation_without_links_or_expiry_is_no_creation(host: TusHost, server: TusServer, answer: str):
    """JSON that lacks what a link host says is not taken for a publication."""
    server.faults.append(Fault("create", status=201, body=answer))
    with pytest.raises(HostUnavailable):
        await host.create(REQUEST)


async def test_an_endless_answer_is_not_read_to_its_end(host: TusHost, server: TusServer):
    """A megabyte is more than any link host says."""
    server.faults.append(Fault("create", status=201, body="x" * (3 << 20)))
    with pytest.raises(HostUnavailable, match="no JSON object"):
        await host.create(REQUEST)


@pytest.mark.parametrize("offset", ["-1", "1e3", "", "9" * 30])
async def test_an_offset_that_is_no_number_is_not_believed(created: TusHost, server: TusServer, offset: str):
    """Only plain digits are an offset."""
    server.faults.append(Fault("offset", status=200, headers={"Upload-Offset": offset}))
    with pytest.raises(HostUnavailable, match="no Upload-Offset"):
        await created.offset(CLIP, 0)


async def test_a_host_that_counts_otherwise_is_not_believed(created: TusHost, server: TusServer):
    """An append that answers another offset than was sent is asked again."""
    server.faults.append(Fault("append", status=204, headers={"Upload-Offset": "3"}))
    with pytest.raises(HostUnavailable, match="holds 3 bytes"):
        await append(created)


async def test_no_host_at_all_is_unavailable():
    """A port where nobody listens, a name that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for url, text in ((f"http://127.0.0.1:{port}", "could not be reached"), ("https://nobody.invalid", "could not be found")):
        host = TusHost(url, KEY, timeout_s=5)
        with pytest.raises(HostUnavailable, match=text):
            await host.create(REQUEST)
        await host.aclose()


async def test_the_built_in_host_is_reached_by_its_socket(tmp_path: Path):
    """With a unix socket, neither the public name nor TLS is used."""
    server = TusServer(key=KEY)
    await server.start(str(tmp_path / "host.sock"))
    host = TusHost("https://videos.exemple.fr", KEY, unix_path=tmp_path / "host.sock")
    await host.create(REQUEST)
    assert await append(host) == len(DATA)
    await host.aclose()
    await server.stop()
    with pytest.raises(HostUnavailable, match="built-in link host could not be reached"):
        await host.offset(CLIP, 0)
    await host.aclose()


@EVERY_ASK
async def test_no_error_shows_the_key(server: TusServer, ask):
    """Neither a refusal nor a breakdown, nor what caused it, holds the key."""
    key = "Ze-secret-key-42"
    host = TusHost(server.base, key, timeout_s=5)
    server.faults.append(Fault(ask, status=500, body=f'{{"error": "bad key {key}"}}'))
    texts = []
    for _ in range(2):
        with pytest.raises((HostUnavailable, HostRefused)) as failed:
            await ASKS[ask](host)
        error: BaseException | None = failed.value
        while error:
            texts += [str(error), repr(error)]
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert len(texts) >= 4
    assert not [text for text in texts if key in text]
    await host.aclose()
