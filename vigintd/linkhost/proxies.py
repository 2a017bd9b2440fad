"""Who really asks, where a reverse proxy stands between: the address that counts, and whether it came in the clear. Pure.

Only what a trusted proxy says is believed, and of that only the one header it is known to write: a proxy passes the other
on as the client sent it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

Headers = Callable[[str], Sequence[str]]
"""Every value of the header of that name, in their order."""

X_FORWARDED_FOR = "X-Forwarded-For"
FORWARDED = "Forwarded"
"""RFC 7239."""

HouseholdOf = Callable[[str | None], str | None]
"""For whose share a connection from this peer counts; None where it is not bounded."""

_MAX_HEADER_CHARS = 2000
_MAX_HOPS = 32
"""So many proxies one behind the other, and so long a header, are nobody's; what is told beyond is not looked at."""

# A quote that does not end takes all that follows with it; to look for an end from each one would take long.
_ELEMENT = re.compile(r'(?:[^",]|"(?:\\.|[^"\\])*+(?:"|$|\\$))+')
_PAIR = re.compile(r'(?:^|;)\s*(for|proto)\s*=\s*(?:"((?:\\.|[^"\\])*)"|([^";,\s]*))', re.IGNORECASE)
_NODE = re.compile(r"\[(?P<v6>[0-9A-Fa-f:.]+)\](?::\d{1,5})?|(?P<v4>[0-9.]+)(?::\d{1,5})?|(?P<bare>[0-9A-Fa-f:.]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from."""

    address: Address | None = None
    """None for what came through the unix socket."""
    in_the_clear: bool = False
    """It came over a network without TLS, as far as we can tell."""


class Proxies:
    """The reverse proxies that are believed, and the header by which each tells whom it speaks for."""

    def __init__(self, trusted: Iterable[Network] = (), header: str = X_FORWARDED_FOR) -> None:
        self._trusted = tuple(trusted)
        self._header = header

    def trusts(self, address: Address | None) -> bool:
        """Whether what this peer says of its clients is believed."""
        return address is not None and any(address in network for network in self._trusted)

    def household_of_peer(self, peer: str | None) -> str | None:
        """For whose share a connection counts; one from a trusted proxy, which brings many visitors, for nobody's."""
        address = parsed(peer)
        return None if self.trusts(address) else household(address)

    def origin(self, peer: str | None, headers: Headers, *, tls: bool) -> Origin:
        """Where a request came from that `peer` brought: the right-most address that is not a trusted proxy's."""
        address = parsed(peer)
        if address is None or not self.trusts(address):
            return Origin(address, in_the_clear=not tls and address is not None and not address.is_loopback)
        hops, scheme = self._told(headers)
        for hop in hops:
            told = _node(hop)
            if told is None:
                break  # it is not told any further, or nonsense: the last proxy is all we know
            address = told
            if not self.trusts(told):
                break
        return Origin(address, in_the_clear=scheme == "http")

    def _told(self, headers: Headers) -> tuple[Iterable[str], str]:
        """What proxies tell of the hops, the nearest first, and of the scheme."""
        value = ",".join(headers(self._header))
        if len(value) > _MAX_HEADER_CHARS:
            return (), ""
        if self._header == FORWARDED:
            elements = [dict(_pairs(element)) for element in _ELEMENT.findall(value)][-_MAX_HOPS:]
            return [pairs.get("for", "") for pairs in reversed(elements)], elements[-1].get("proto", "") if elements else ""
        scheme = ",".join(headers("X-Forwarded-Proto")).rpartition(",")[2]
        return reversed(value.split(",")[-_MAX_HOPS:]), scheme.strip().lower()


def parsed(peer: str | None) -> Address | None:
    """An address as the kernel writes it; None for anything else. An IPv4 address in IPv6's clothes is one of IPv4."""
    try:
        address = ipaddress.ip_address((peer or "").partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def household(address: Address | None) -> str | None:
    """By what one visitor's share is counted: an IPv4 address, or an IPv6 /64, which is one line's; None for this machine."""
    if address is None or address.is_loopback:
        return None
    return str(address) if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


def _node(text: str) -> Address | None:
    match = _NODE.fullmatch(text.strip())
    return parsed(match["v6"] or match["v4"] or match["bare"]) if match else None


def _pairs(element: str) -> Iterator[tuple[str, str]]:
    for name, quoted, plain in _PAIR.findall(element.strip()):
        yield name.lower(), (re.sub(r"\\(.)", r"\1", quoted) or plain).lower()
