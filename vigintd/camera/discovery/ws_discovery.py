"""Who is there? WS-Discovery: a question to everybody in the network, and the answers.

WS-Discovery of April 2005, which is what ONVIF's Core Specification (chapter "Device discovery") prescribes, not the
later OASIS version 1.1: a SOAP message by UDP to 239.255.255.250, port 3702. Owns the sockets and the bounds on
answers. IPv4 only, which every ONVIF device speaks.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from vigintd.camera.discovery.found import host_of, pinned, plain
from vigintd.camera.discovery.soap import Element, NotSoap, envelope, listed, read, said
from vigintd.clock import Clock
from vigintd.errors import PermanentError, TransientError

GROUP = ("239.255.255.250", 3702)
DEVICE_PATH = "/onvif/device_service"
"""Where every ONVIF device serves its device management (Core Specification, chapter "Web Services overview")."""

MAX_CAMERAS = 256
"""Whoever answers later is left out."""
_MAX_AT_ONE_ADDRESS = 8
"""So that one liar cannot crowd out the others."""
_MAX_DATAGRAMS = 4096
"""What comes after so many is not even read."""

_AGAIN_AFTER_S = 0.5
"""The question is repeated, because UDP loses some; a device takes up to half a second to answer."""

_WSA = "http://schemas.xmlsoap.org/ws/2004/08/addressing"
_WSD = "http://schemas.xmlsoap.org/ws/2005/04/discovery"
# A device need only have one of them, and a question that names both asks for devices that have both.
_TYPES = (
    ("http://www.onvif.org/ver10/network/wsdl", "NetworkVideoTransmitter"),
    ("http://www.onvif.org/ver10/device/wsdl", "Device"),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """Somebody who said to be an ONVIF device, or is said to be one."""

    address: str
    """The IP address that the answer came from."""
    url: str
    """Its device service, at that address."""
    name: str = ""
    hardware: str = ""


def named(place: str) -> Answer:
    """The device at `ADDRESS` or `ADDRESS:PORT`, which need not answer a search. Raises `ValueError`."""
    parts = urlsplit(f"//{place}")
    address = ipaddress.ip_address(parts.hostname or "").compressed
    if parts.netloc != place or parts.username is not None or parts.port == 0:
        raise ValueError("more than an address and a port")
    url = pinned(f"http://{parts.netloc}{DEVICE_PATH}", address)
    assert url
    return Answer(address, url)


async def search(found: Callable[[Answer], None], *, clock: Clock, timeout_s: float, interface: str | None = None) -> None:
    """Ask everybody in reach, and call `found` for each new answer during `timeout_s`.

    With `interface`, one of this machine's IP addresses, only the network there is asked; without it, every network
    that the machine has a card in. Raises `PermanentError` where this machine has no such address, and
    `TransientError` where no network takes the question.
    """
    sock = _open(interface)
    try:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: _Listener(found), sock=sock)
    except BaseException:
        sock.close()
        raise
    try:
        again_s = min(_AGAIN_AFTER_S, timeout_s)
        for pause_s in (again_s, timeout_s - again_s):
            _ask_everybody(sock, interface)
            await clock.sleep(pause_s)
    finally:
        transport.close()


def _open(interface: str | None) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.settimeout(0)
        # One hop: the question shall not leave the local network.
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        sock.bind((interface or "0.0.0.0", 0))  # noqa: S104  (answers come to whichever card the question left by)
    except OSError as error:
        sock.close()
        raise PermanentError(
            f"cannot ask from {interface}: {error.strerror}; see this machine's addresses: ip address"
        ) from error
    return sock


def _ask_everybody(sock: socket.socket, interface: str | None) -> None:
    """One question of each kind to each network; one that takes none (no address, no multicast) is passed over."""
    failed: OSError | None = None
    sent = False
    for way_out in _ways_out(interface):
        try:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, way_out)
            for namespace, name in _TYPES:
                sock.sendto(_probe(namespace, name), GROUP)
            sent = True
        except OSError as error:
            failed = error
    if not sent:
        reason = failed.strerror if failed else "this machine has no network card"
        raise TransientError(f"cannot ask the network for cameras: {reason}; see that it is up, or name cameras by address")


def _ways_out(interface: str | None) -> Iterator[bytes]:
    """Values of IP_MULTICAST_IF: an address, or an `ip_mreqn` that names a card by its number (ip(7))."""
    if interface is not None:
        yield socket.inet_aton(interface)
        return
    for index, _name in socket.if_nameindex():
        yield struct.pack("=4s4si", bytes(4), bytes(4), index)


def _probe(namespace: str, name: str) -> bytes:
    header = (
        f'<a:Action xmlns:a="{_WSA}">{_WSD}/Probe</a:Action>'
        f'<a:MessageID xmlns:a="{_WSA}">urn:uuid:{uuid4()}</a:MessageID>'
        f'<a:To xmlns:a="{_WSA}">urn:schemas-xmlsoap-org:ws:2005:04:discovery</a:To>'
    )
    return envelope(f'<d:Probe xmlns:d="{_WSD}"><d:Types xmlns:n="{namespace}">n:{name}</d:Types></d:Probe>', header)


class _Listener(asyncio.DatagramProtocol):
    """Hears answers; hands on each device once, and no more than the bounds allow."""

    def __init__(self, found: Callable[[Answer], None]) -> None:
        self._found = found
        self._known: set[str] = set()
        self._at: dict[str, int] = {}
        self._datagrams = 0

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._datagrams += 1
        if self._datagrams > _MAX_DATAGRAMS:
            return
        for answer in answers(data, addr[0]):
            at = self._at.get(answer.address, 0)
            if answer.url in self._known or len(self._known) >= MAX_CAMERAS or at >= _MAX_AT_ONE_ADDRESS:
                continue
            self._known.add(answer.url)
            self._at[answer.address] = at + 1
            self._found(answer)


def answers(data: bytes, address: str) -> Iterator[Answer]:
    """The ONVIF devices that a datagram from `address` tells of; none where it is something else."""
    try:
        message = read(data)
    except NotSoap:
        return
    for match in listed(message, "ProbeMatch"):
        # A printer is a `Device` too, of another namespace; whoever is ONVIF's must have its scopes, and old cameras its type.
        known = "onvif" in said(match, "Scopes").lower() or "NetworkVideoTransmitter" in said(match, "Types")
        if known and (url := _service(said(match, "XAddrs").split(), address)):
            yield Answer(address, url, _scope(match, "name"), _scope(match, "hardware"))


def _service(xaddrs: list[str], address: str) -> str | None:
    """The device's own pick among several is the one that names the address it answered from."""
    ordered = sorted(xaddrs, key=lambda xaddr: host_of(xaddr) != address)
    return next(filter(None, (pinned(xaddr, address) for xaddr in ordered)), None)


def _scope(match: Element, kind: str) -> str:
    """The value of a scope such as `onvif://www.onvif.org/name/Entr%C3%A9e`."""
    start = f"onvif://www.onvif.org/{kind}/"
    for scope in said(match, "Scopes").split():
        if scope.lower().startswith(start):
            return plain(unquote(scope[len(start) :]))
    return ""
