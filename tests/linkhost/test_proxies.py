"""Behind a reverse proxy: whose address counts, and who may say so."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator

import pytest

from tests.linkhost.client import BASE_URL, KEY, Client, inside, rows
from tests.linkhost.videos import video
from vigintd import metrics
from vigintd.linkhost import AuditKind, LinkHost, Proxies, crowds
from vigintd.linkhost.proxies import FORWARDED, household, parsed

TRUSTED = [ipaddress.ip_network(text) for text in ("127.0.0.1", "10.1.0.0/16", "2001:db8:ffff::/48")]


def origin(peer: str | None, *values: str, header: str = "X-Forwarded-For", proto: str = "", tls: bool = False):
    told = {header: list(values), "X-Forwarded-Proto": [proto] if proto else []}
    return Proxies(TRUSTED, header).origin(peer, lambda name: told.get(name, []), tls=tls)


@pytest.mark.parametrize(
    ("peer", "values", "address"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),  # a stranger may claim what they like
        ("127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["192.0.2.66, 198.51.100.1"], "198.51.100.1"),  # what the client wrote itself stands further left
        ("127.0.0.1", ["192.0.2.66", "198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["192.0.2.66, 198.51.100.1, 10.1.2.3"], "198.51.100.1"),
        ("127.0.0.1", ["10.1.9.9, 10.1.2.3"], "10.1.9.9"),  # nobody but proxies: the first of them
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.1, nonsense"], "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.1, unknown, 10.1.2.3"], "10.1.2.3"),
        ("127.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("127.0.0.1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("127.0.0.1", ["2001:db8::7"], "2001:db8::7"),
        ("127.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("::ffff:127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("2001:db8:ffff::1", ["198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["198.51.100.1" + ", 10.1.2.3" * 31], "198.51.100.1"),
        ("127.0.0.1", ["198.51.100.1" + ", 10.1.2.3" * 32], "10.1.2.3"),  # so many proxies there are not
        ("127.0.0.1", ["198.51.100.1," * 300], "127.0.0.1"),  # nor so long a header
        (None, ["198.51.100.1"], None),  # the unix socket is this machine's own
        ("", ["198.51.100.1"], None),
    ],
)
def test_the_right_most_address_that_is_no_trusted_proxy_counts(peer, values, address):
    """What stands left of it was written by somebody we do not know."""
    assert origin(peer, *values).address == parsed(address)


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("for=198.51.100.1", "198.51.100.1"),
        ('For="[2001:db8::7]:4711";proto=https;by=203.0.113.43', "2001:db8::7"),
        ("for=192.0.2.66, for=198.51.100.1;proto=http", "198.51.100.1"),
        ('for="198.51.100.1:80"', "198.51.100.1"),
        ('for=192.0.2.66, for="_hidden, for=192.0.2.67"', "127.0.0.1"),
        ("for=unknown", "127.0.0.1"),
        ("proto=https", "127.0.0.1"),
        ('for="', "127.0.0.1"),
        ('"' * 1999, "127.0.0.1"),
        ('"\\' * 999, "127.0.0.1"),
    ],
)
def test_the_header_of_rfc_7239_is_read_where_the_proxy_writes_it(value, address):
    """Quoted, with ports, in brackets; what is hidden or broken stays with the proxy."""
    assert origin("127.0.0.1", value, header=FORWARDED).address == parsed(address)


def test_only_the_header_that_the_proxy_writes_is_believed():
    """The other one comes from the client as it is."""
    both = {"X-Forwarded-For": ["198.51.100.1"], "Forwarded": ["for=192.0.2.66"]}
    assert Proxies(TRUSTED).origin("127.0.0.1", lambda name: both.get(name, []), tls=False).address == parsed("198.51.100.1")
    assert Proxies(TRUSTED, FORWARDED).origin("127.0.0.1", lambda name: both.get(name, []), tls=False).address == parsed(
        "192.0.2.66"
    )


@pytest.mark.parametrize(
    ("peer", "proto", "tls", "clear"),
    [
        ("203.0.113.9", "", False, True),
        ("203.0.113.9", "", True, False),
        ("203.0.113.9", "https", False, True),
        ("127.0.0.1", "https", False, False),
        ("127.0.0.1", "http", False, True),
        ("127.0.0.1", "https, http", False, True),
        ("127.0.0.1", "", False, False),
        (None, "", False, False),
    ],
)
def test_what_came_in_the_clear_is_known(peer, proto, tls, clear):
    """By our own TLS, or by what a trusted proxy says of its side."""
    assert origin(peer, "198.51.100.1", proto=proto, tls=tls).in_the_clear is clear


@pytest.mark.parametrize(
    ("address", "share"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", None),
        ("::1", None),
        (None, None),
    ],
)
def test_an_ipv6_line_is_one_household_and_this_machine_none(address, share):
    """Who has a /64 has all its addresses."""
    assert household(parsed(address)) == share


@pytest.fixture
async def proxied(tmp_path, clock) -> AsyncIterator[LinkHost]:
    host = LinkHost(tmp_path / "linkhost", base_url=BASE_URL, api_keys={"nvr": KEY}, clock=clock, proxies=Proxies(TRUSTED))
    await host.start(listen=("127.0.0.1", 0), unix_path=None)
    yield host
    await host.aclose()


async def test_the_record_holds_the_visitors_address_and_not_the_proxys(proxied, session):
    """Truncated as ever; and not the one that the visitor claims."""
    client = Client(session, f"http://127.0.0.1:{proxied.port}")
    link = await client.publish(video(2))
    await client.ask("GET", inside(link, "part/0.mp4"), X_Forwarded_For="192.0.2.66, 198.51.100.77")
    (row,) = await rows(proxied, AuditKind.PLAY, 1)
    assert row.address == "198.51.100.0/24"


async def test_behind_a_proxy_each_visitor_has_a_share_of_their_own(proxied, session, monkeypatch):
    """One who follows too much is told 429; another, through the same proxy, is served."""
    client = Client(session, f"http://127.0.0.1:{proxied.port}")
    created = await client.create()
    await client.append(video(2)[:2000], 0)
    path, _, query = next(iter(created.json["links"].values())).removeprefix(BASE_URL).partition("?")
    live = f"{client.base}{path}/live/0.mp4?{query}"
    greedy = {"X-Forwarded-For": "2001:db8:1:2::1"}
    followers = [await session.get(live, headers=greedy) for _ in range(crowds.MAX_UNDER_WAY)]
    refused = await client.ask("GET", f"{path}?{query}", X_Forwarded_For="2001:db8:1:2:ffff::2")
    assert (refused.status, refused.headers["Retry-After"]) == (429, "5")
    assert metrics.snapshot()["linkhost.too_many_of_one_address"][""] == 1
    assert (await client.ask("GET", f"{path}?{query}", X_Forwarded_For="2001:db8:1:3::2")).status == 200
    assert (await client.head()).status == 200
    for follower in followers:
        follower.close()


async def test_that_the_proxy_speaks_plain_http_outside_is_told_once(proxied, session, log_text):
    """A link that travels in the clear is no secret any more."""
    client = Client(session, f"http://127.0.0.1:{proxied.port}")
    for _ in range(3):
        await client.ask("GET", "/robots.txt", X_Forwarded_For="198.51.100.1", X_Forwarded_Proto="http")
    assert log_text().count("linkhost.in_the_clear") == 1
