"""Who guesses: 404 as long as it may be a mistake, then 429; and whoever has the right token is served, also beside them."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter

import pytest

from tests.linkhost.client import CLIP
from tests.linkhost.videos import video
from vigintd import metrics
from vigintd.linkhost import connections
from vigintd.linkhost.crowds import FORGIVEN_EVERY_S, MAX_HOUSEHOLDS, MAX_WRONG, Crowd, Guesses

GUESSES = 10_000
_AT_ONCE = 50


async def asked(host, lines: list[str], *, address: str = "127.0.0.1") -> list[tuple[int, dict[str, str]]]:
    """Status and headers of the answers to requests on one connection from this address, many of them under way at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port, local_addr=(address, 0))
    answers = []
    for begin in range(0, len(lines), _AT_ONCE):
        some = lines[begin : begin + _AT_ONCE]
        writer.write("".join(f"HEAD {line} HTTP/1.1\r\nHost: x\r\n\r\n" for line in some).encode())
        for _ in some:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            answers.append((int(head[0].split()[1]), dict(line.split(": ", 1) for line in head[1:] if line)))
    writer.close()
    return answers


async def test_ten_thousand_random_tokens_open_nothing_and_are_soon_too_many(client, host):
    """The first are 404, all others 429 with Retry-After; the right token is served meanwhile, from there and elsewhere."""
    link = await client.publish(video(2))
    wrong = [f"/video/{CLIP}?token={secrets.token_urlsafe(32)}" for _ in range(GUESSES)]
    half = GUESSES // 2
    answers = await asked(host, wrong[:half], address="127.0.0.9")
    beside, elsewhere = await asked(host, [link], address="127.0.0.9"), await asked(host, [link], address="127.0.0.8")
    answers += await asked(host, wrong[half:], address="127.0.0.9")
    statuses = [status for status, _ in answers]
    assert statuses == [404] * MAX_WRONG + [429] * (GUESSES - MAX_WRONG)
    assert all(int(headers["Retry-After"]) >= 1 for _, headers in answers[MAX_WRONG:])
    assert (beside[0][0], elsewhere[0][0]) == (200, 200)
    assert metrics.snapshot()["linkhost.too_many_guesses"][""] == GUESSES - MAX_WRONG


async def test_wrong_api_keys_are_guesses_too(client):
    """401, then 429; the right key is served."""
    answers = [
        await client.ask("HEAD", f"/api/v1/uploads/{CLIP}.0", Authorization=f"Bearer {secrets.token_urlsafe()}")
        for _ in range(MAX_WRONG + 2)
    ]
    assert Counter(answer.status for answer in answers) == {401: MAX_WRONG, 429: 2}
    assert answers[-1].headers["Connection"] == "close"
    assert (await client.create()).status == 201


async def test_what_is_wrong_without_a_guess_is_not_counted(client, host):
    """Places that are not there, parts that are not there yet, methods: a 404 or 405 as long as one likes."""
    link = await client.publish(video(2))
    part = link.replace("?", "/part/7.mp4?")
    answers = await asked(host, ["/wp-login.php", part] * MAX_WRONG)
    assert {status for status, _ in answers} == {404}


def test_wrong_guesses_are_forgiven_with_time():
    """One in so many seconds; never more is held against anybody than a little too much."""
    guesses = Guesses(limit=2)
    assert [guesses.wrong("a", 0.0) for _ in range(100)][:3] == [0, 0, FORGIVEN_EVERY_S]
    assert guesses.wrong("b", 0.0) == 0
    assert guesses.wrong("a", 2 * FORGIVEN_EVERY_S) == 0
    assert guesses.wrong("a", 2 * FORGIVEN_EVERY_S) > 0


def test_of_so_many_households_the_oldest_guesses_are_forgotten():
    """A network of endless addresses costs a bounded memory."""
    guesses = Guesses(limit=1)
    for number in range(MAX_HOUSEHOLDS + 1):
        assert guesses.wrong(str(number), 0.0) == 0
    assert guesses.wrong("0", 0.0) == 0
    assert guesses.wrong(str(MAX_HOUSEHOLDS), 0.0) > 0


def test_a_household_has_so_many_requests_under_way_and_no_more():
    """They are given back, also by those that fail; this machine has no bound."""
    crowd = Crowd(limit=1)
    with crowd.one_more("a") as first, crowd.one_more("a") as second, crowd.one_more("b") as other:
        assert (first, second, other) == (True, False, True)
        with crowd.one_more(None) as here, crowd.one_more(None) as here_too:
            assert (here, here_too) == (True, True)
    with pytest.raises(ZeroDivisionError), crowd.one_more("a"):
        _ = 1 / 0
    with crowd.one_more("a") as again:
        assert again


async def test_one_households_connections_make_room_for_its_own(client, host, monkeypatch):
    """Beyond its share the oldest of the same household that only waits is closed, and nobody else's."""
    monkeypatch.setattr("vigintd.linkhost.proxies.household", str)  # here, all addresses are this machine's
    monkeypatch.setattr(connections, "MAX_OF_ONE", 3)
    link = await client.publish(video(2))
    other = await asyncio.open_connection("127.0.0.1", host.port, local_addr=("127.0.0.8", 0))
    crowd = [await asyncio.open_connection("127.0.0.1", host.port, local_addr=("127.0.0.9", 0)) for _ in range(10)]
    async with asyncio.timeout(5):
        for reader, _ in crowd[:7]:
            assert await reader.read() == b""
    assert metrics.snapshot()["linkhost.connection_dropped"][""] == 7
    assert (await client.ask("GET", link)).status == 200
    other[1].write(b"GET /robots.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await other[0].read()).startswith(b"HTTP/1.1 200 ")
    for _, writer in (*crowd, other):
        writer.close()
