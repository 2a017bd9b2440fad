"""What every host of clips keeps to, as far as its stated capabilities go.

A new host joins by one more entry in `CASES`: a function that starts a real one and answers a `Case`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import aiohttp
import pytest

from tests.publish.conftest import CLIP, KEY, Clock, Part
from tests.publish.tus_server import TusServer
from vigintd import failpoints
from vigintd.clock import SystemClock
from vigintd.errors import HostRefused, HostUnavailable
from vigintd.linkhost import LinkHost
from vigintd.model import Fragment
from vigintd.publish import ClipRequest, Host
from vigintd.publish.faults import SealMismatch
from vigintd.publish.tus import TusHost
from vigintd.publish.uploader import upload_part
from vigintd.retry import Backoff
from vigintd.spool import Spool

RECIPIENTS = ("gardien@exemple.fr", "gérante@exemple.fr")
REQUEST = ClipRequest(
    clip_id=CLIP,
    recipients=RECIPIENTS,
    expiry_h=48,
    metadata={
        "site": "Boutique Rivoli",
        "camera": "entree",
        "at": "2026-11-22T13:37:24+00:00",
        "type": "vol à l'étalage \ud83d",  # ends in half an emoji, as a careless detector might say
        "risk": "HIGH",
        "confidence": 0.87,
        "text": "",
        "language": "fr",
    },
)


@dataclass
class Case:
    """A running host."""

    host: Host
    again: Callable[[], Host]
    """Another client of the same host, as after a restart."""
    intruder: Host
    """A client with a wrong key."""
    held: Callable[[int], Awaitable[bytes]]
    """The bytes that a viewer gets of a sealed part of clip `CLIP`."""


@asynccontextmanager
async def small_tus_server(folder: Path) -> AsyncIterator[Case]:
    server = TusServer(key=KEY)
    await server.start()

    async def held(part: int) -> bytes:
        return bytes(server.clips[CLIP].parts[part].data)

    try:
        yield Case(TusHost(server.base, KEY), lambda: TusHost(server.base, KEY), TusHost(server.base, "wrong-key"), held)
    finally:
        await server.stop()


@asynccontextmanager
async def real_linkhost(folder: Path) -> AsyncIterator[Case]:
    linkhost = LinkHost(folder / "links", base_url="https://videos.exemple.fr", api_keys={"nvr": KEY}, clock=SystemClock())
    socket = folder / "host.sock"
    await linkhost.start(listen=None, unix_path=socket)

    def client(key: str = KEY) -> TusHost:
        return TusHost("https://videos.exemple.fr", key, unix_path=socket)

    async def held(part: int) -> bytes:
        host = client()
        link = (await host.create(REQUEST)).links[RECIPIENTS[0]]
        await host.aclose()
        page, _, token = link.partition("?")
        path = page.removeprefix("https://videos.exemple.fr")
        connector = aiohttp.UnixConnector(str(socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(f"http://linkhost{path}/part/{part}.mp4?{token}") as response,
        ):
            assert response.status == 200
            return await response.read()

    try:
        yield Case(client(), client, client("wrong-key"), held)
    finally:
        await linkhost.aclose()


CASES: Sequence[Callable[[Path], AbstractAsyncContextManager[Case]]] = (
    small_tus_server,
    real_linkhost,
)


@pytest.fixture(params=CASES, ids=lambda case: case.__name__)
async def case(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Case]:
    async with request.param(tmp_path) as case:
        yield case
        await case.host.aclose()
        await case.intruder.aclose()


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def send(host: Host, offset: int, data: bytes, *, part: int = 0) -> int:
    return await host.append(CLIP, part, offset, chunks(data), hashlib.sha256(data).digest())


async def test_creation_answers_a_link_for_each_recipient_and_the_same_again(case: Case):
    """Asked twice, also by another process, a host mints the same private links, one for each recipient."""
    first = await case.host.create(REQUEST)
    other = case.again()
    second = await other.create(REQUEST)
    await other.aclose()
    assert first == second
    assert set(first.links) == set(RECIPIENTS)
    assert len(set(first.links.values())) == (2 if case.host.capabilities.per_recipient else 1)
    assert first.expires_at is not None
    assert first.expires_at.tzinfo is not None


async def test_a_new_part_is_at_offset_zero(case: Case):
    """Of a part that a host has not seen it holds nothing, whichever part it is."""
    await case.host.create(REQUEST)
    assert await case.host.offset(CLIP, 0) == 0
    assert await case.host.offset(CLIP, 1) == 0


async def test_appended_fragments_are_held_as_they_were(case: Case, film: list[bytes]):
    """What is appended in several requests is one part, byte for byte."""
    await case.host.create(REQUEST)
    offset = await send(case.host, 0, film[0] + film[1])
    for fragment in film[2:]:
        offset = await send(case.host, offset, fragment)
    whole = b"".join(film)
    assert offset == await case.host.offset(CLIP, 0) == len(whole)
    await case.host.seal(CLIP, 0, len(whole), hashlib.sha256(whole).hexdigest())
    assert await case.held(0) == whole


async def test_a_damaged_body_is_discarded_and_may_be_sent_again(case: Case, film: list[bytes]):
    """A body that does not match its digest leaves the offset where it was."""
    await case.host.create(REQUEST)
    offset = await send(case.host, 0, film[0])
    with pytest.raises(HostUnavailable):
        await case.host.append(CLIP, 0, offset, chunks(film[1]), bytes(32))
    assert await case.host.offset(CLIP, 0) == offset
    assert await send(case.host, offset, film[1]) == offset + len(film[1])


async def test_a_body_for_another_offset_changes_nothing(case: Case, film: list[bytes]):
    """Neither a hole nor a repetition can get into a part."""
    await case.host.create(REQUEST)
    offset = await send(case.host, 0, film[0])
    for wrong in (0, offset + len(film[1])):
        with pytest.raises(HostUnavailable):
            await send(case.host, wrong, film[1])
    assert await case.host.offset(CLIP, 0) == offset


async def test_a_body_broken_off_goes_on_from_the_hosts_offset(case: Case, film: list[bytes]):
    """After a body that ended too early, sending from the offset that the host names makes the part whole."""
    await case.host.create(REQUEST)
    whole = b"".join(film)

    async def half() -> AsyncIterator[bytes]:
        yield whole[: len(whole) // 2]
        raise HostUnavailable("the line broke")

    with pytest.raises(HostUnavailable, match="the line broke"):
        await case.host.append(CLIP, 0, 0, half(), hashlib.sha256(whole).digest())
    offset = await case.host.offset(CLIP, 0)
    assert await send(case.host, offset, whole[offset:]) == len(whole)
    await case.host.seal(CLIP, 0, len(whole), hashlib.sha256(whole).hexdigest())


async def test_a_seal_may_be_asked_again(case: Case, film: list[bytes]):
    """Sealing the same bytes twice is verified twice."""
    await case.host.create(REQUEST)
    await send(case.host, 0, film[0] + film[1])
    digest = hashlib.sha256(film[0] + film[1]).hexdigest()
    for _ in range(2):
        await case.host.seal(CLIP, 0, len(film[0] + film[1]), digest)
    assert await case.host.offset(CLIP, 0) == len(film[0] + film[1])


async def test_a_seal_that_does_not_match_is_said_and_the_part_begins_again(case: Case, film: list[bytes]):
    """The host forgets bytes that are not the sealed ones, and takes the right ones."""
    await case.host.create(REQUEST)
    await send(case.host, 0, film[0] + film[1])
    right = film[0] + film[2]
    digest = hashlib.sha256(right).hexdigest()
    with pytest.raises(SealMismatch):
        await case.host.seal(CLIP, 0, len(right), digest)
    assert await case.host.offset(CLIP, 0) == 0
    await send(case.host, 0, right)
    await case.host.seal(CLIP, 0, len(right), digest)
    assert await case.held(0) == right


async def test_what_became_of_the_incident_is_taken(case: Case):
    """Metadata may be told again and again."""
    await case.host.create(REQUEST)
    for _ in range(2):
        await case.host.update(CLIP, {"risk": "LOW", "ended": True})


async def test_a_wrong_key_is_refused_and_never_repeated(case: Case):
    """Wrong credentials are permanent, for every call; no error shows the key."""
    await case.host.create(REQUEST)
    for ask in (
        lambda: case.intruder.create(REQUEST),
        lambda: case.intruder.offset(CLIP, 0),
        lambda: case.intruder.seal(CLIP, 0, 1, "0" * 64),
        lambda: case.intruder.update(CLIP, {}),
        case.intruder.probe,
    ):
        with pytest.raises(HostRefused) as refused:
            await ask()
        assert "wrong-key" not in str(refused.value)


async def test_the_probe_is_one_line(case: Case):
    """`vigintd check` has something to show."""
    line = await case.host.probe()
    assert line
    assert "\n" not in line
    assert KEY not in line


@pytest.mark.parametrize(
    "point", ["upload.append.before", "upload.append.after", "upload.seal.before", "upload.seal.after", None]
)
async def test_a_growing_part_arrives_whole(case: Case, part: Part, clock: Clock, film: list[bytes], point: str | None):
    """Tailed while it grows, with a failure at any step, a part is at the end held and verified as it was recorded."""
    await case.host.create(REQUEST)
    await part.grow(*film[:3])
    if point:
        failpoints.arm(point, "error")
    part.coming = iter(film[3:])
    accepted: list[int] = []
    await upload_part(
        case.host, CLIP, part, clock=clock, random=Random(1), backoff=Backoff(), life_s=600, on_accepted=accepted.append
    )
    assert await case.held(0) == b"".join(film)
    assert accepted == sorted(accepted)
    assert accepted[-1] == len(b"".join(film))
    if point:
        assert failpoints.fired[point] == 1


async def test_two_parts_of_a_clip_are_held_apart(case: Case, tmp_path: Path, clock: Clock, film: list[bytes]):
    """A second part is created by its upload and held beside the first."""
    await case.host.create(REQUEST)
    for index, data in enumerate([film[:3], film[:2]]):
        part = Part(tmp_path / f"{index}.mp4", index)
        await part.grow(*data)
        await part.seal()
        await upload_part(
            case.host, CLIP, part, clock=clock, random=Random(1), backoff=Backoff(), life_s=60, on_accepted=lambda _: None
        )
    assert await case.held(0) == b"".join(film[:3])
    assert await case.held(1) == b"".join(film[:2])


async def test_a_part_of_the_spool_arrives_whole(case: Case, tmp_path: Path, clock: Clock, film: list[bytes]):
    """The spool's own parts are what the uploader tails: begun before the first fragment, sealed while it waits."""
    await case.host.create(REQUEST)
    spool = Spool(tmp_path / "spool")
    part = await spool.new_part(CLIP, 0)
    accepted: asyncio.Queue[int] = asyncio.Queue()
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(
            upload_part(
                case.host,
                CLIP,
                part,
                clock=clock,
                random=Random(1),
                backoff=Backoff(),
                life_s=60,
                on_accepted=accepted.put_nowait,
            )
        )
        for fragment in film:
            before = part.visible_bytes
            await part.append(fragment, [Fragment(before, len(fragment), 0, 0, is_key=True)])
            assert await accepted.get() == before + len(fragment)
        await part.seal(duration_s=1.0)
    assert await case.held(0) == b"".join(film)
    await spool.aclose()
