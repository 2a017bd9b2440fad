"""Who touched a link, as little as the record needs: a truncated address and a family of programs. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

LOCAL = "local"
"""What came through the unix socket."""

_FAMILIES = (
    # The first that is found wins; robots first, because they call themselves Mozilla too.
    ("bot", "robot"),
    ("crawl", "robot"),
    ("spider", "robot"),
    ("preview", "robot"),
    ("curl/", "curl"),
    ("wget/", "wget"),
    ("vlc/", "VLC"),
    ("lavf/", "FFmpeg"),
    ("python", "Python"),
    ("aiohttp", "Python"),
    ("vigintd", "vigintd"),
    ("edg", "Edge"),
    ("opr/", "Opera"),
    ("firefox/", "Firefox"),
    ("fxios/", "Firefox"),
    ("samsungbrowser/", "Samsung Internet"),
    ("crios/", "Chrome"),
    ("chrome/", "Chrome"),
    ("safari/", "Safari"),
)
_SYSTEMS = (
    ("iphone", "iPhone"),
    ("ipad", "iPad"),
    ("android", "Android"),
    ("windows", "Windows"),
    ("mac os", "macOS"),
    ("linux", "Linux"),
)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Where a request came from, as far as the record keeps it."""

    address: str = LOCAL
    client: str = ""


def truncated_address(remote: str | None) -> str:
    """An IPv4 address by its /24, an IPv6 address by its /48, anything else as `local`."""
    try:
        address = ipaddress.ip_address((remote or "").partition("%")[0])
    except ValueError:
        return LOCAL
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    length = 24 if address.version == 4 else 48
    return str(ipaddress.ip_network((address, length), strict=False))


def client_family(user_agent: str | None) -> str:
    """`Chrome, Android`, `Safari, iPhone`, `curl`, `robot`, … from a User-Agent; no version, nothing that singles out."""
    agent = (user_agent or "").lower()
    family = next((name for needle, name in _FAMILIES if needle in agent), "")
    system = next((name for needle, name in _SYSTEMS if needle in agent), "")
    return ", ".join(filter(None, (family, system))) or "unknown"
