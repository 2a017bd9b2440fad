"""What a camera says of itself, and which of its streams to record and which to watch.

Owns the making harmless of what strangers say: texts, service addresses, stream addresses. No I/O.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from vigintd.redact import MASK

MAX_TEXT = 80
"""Characters of a name, a maker or a model; the rest is cut off."""
MAX_URL = 1024
"""A longer address is none."""

STREAM_SCHEMES = ("rtsp", "rtsps", "http", "https")

_MIN_DETECT_PX = (320, 180)
"""In a smaller picture, a person at the far end of a shop is a handful of pixels."""

# Some cameras write the password into the path: …/user=admin_password=x_channel=1.sdp
_PASSWORD = re.compile(r"(?i)((?:password|passwd|pwd)=)[^&/?]+?(?=[&/?]|_[a-z]+=|$)")

_CODECS = {
    "h264": "h264",
    "h265": "hevc",
    "hevc": "hevc",
    "jpeg": "mjpeg",
    "mjpeg": "mjpeg",
    "mpeg4": "mpeg4",
    "mpv4-es": "mpeg4",
}


@dataclass(frozen=True, slots=True)
class Profile:
    """One stream that a camera offers."""

    name: str
    source: str
    """The camera's own word for the lens, or a recorder's for the channel."""
    codec: str
    """By FFmpeg's name: `h264`, `hevc`, `mjpeg`, `mpeg4`."""
    width_px: int
    height_px: int
    fps: float | None
    url: str
    """Without credentials (`***` where a password stood); empty where the camera gave none that can be used."""
    elsewhere: str = ""
    """The host that `url` names, where it is another machine than the one that answered."""

    @property
    def size_px(self) -> int:
        """Pixels of a picture."""
        return self.width_px * self.height_px


@dataclass(frozen=True, slots=True)
class FoundCamera:
    """A camera that answered, or a named one that did not."""

    address: str
    name: str = ""
    maker: str = ""
    model: str = ""
    profiles: tuple[Profile, ...] = ()
    locked: bool = False
    """It wants a user name and a password, or refused those it was given."""
    problem: str = ""
    """Why there is no more to tell; empty when everything was told."""

    @property
    def usable(self) -> bool:
        """Whether it is a camera to go on with, maybe after giving a password."""
        return self.locked or any(profile.url for profile in self.profiles)


@dataclass(frozen=True, slots=True)
class Streams:
    """What to configure for one lens or channel."""

    main: Profile
    detect: Profile | None


def streams_of(profiles: Sequence[Profile]) -> Iterator[Streams]:
    """For each source: its largest picture to record, and its smallest H.264 picture that still shows enough to watch.

    Only what the camera itself serves is chosen. Among equals H.264 comes first, because nothing must be encoded then.
    """
    usable = [profile for profile in profiles if profile.url and not profile.elsewhere]
    for source in dict.fromkeys(profile.source for profile in usable):
        ours = [profile for profile in usable if profile.source == source]
        main = max(ours, key=lambda profile: (profile.size_px, profile.codec == "h264", profile.fps or 0))
        smaller = [profile for profile in ours if _shows_enough(profile) and profile.size_px < main.size_px]
        yield Streams(main, min(smaller, key=lambda profile: profile.size_px, default=None))


def _shows_enough(profile: Profile) -> bool:
    width_px, height_px = _MIN_DETECT_PX
    return profile.codec == "h264" and profile.width_px >= width_px and profile.height_px >= height_px


def codec_of(encoding: str) -> str:
    """FFmpeg's name of an ONVIF `Encoding`, such as `H264` or `video/H265`."""
    word = encoding.lower().rpartition("/")[2]
    return _CODECS.get(word, word)


def plain(text: str) -> str:
    """`text` as one short line without anything that a terminal might obey."""
    kept = "".join(c if c.isprintable() else " " for c in text[: 4 * MAX_TEXT])
    return " ".join(kept.split())[:MAX_TEXT].strip()


def pinned(xaddr: str, address: str) -> str | None:
    """The service address `xaddr` at `address`, whatever host it names; None where it is no web address.

    A camera behind another address, with a stale one or with none yet names a host that leads nowhere; a hostile one names
    a victim. Both are asked at the address that answered.
    """
    parts = _split(xaddr)
    if parts is None or parts.scheme not in ("http", "https") or not parts.netloc:
        return None
    return parts._replace(netloc=_netloc(address, parts.port), fragment="").geturl()


def host_of(url: str) -> str:
    """The host that `url` names; empty where it names none."""
    parts = _split(url)
    return (parts.hostname or "") if parts else ""


def stream_address(uri: str, address: str) -> tuple[str, str]:
    """A stream's URL without credentials, and the host it names where that is neither `address` nor nobody's.

    Two empty strings where it is no address of a stream.
    """
    parts = _split(uri)
    if parts is None or parts.scheme not in STREAM_SCHEMES:
        return "", ""
    host = parts.hostname or ""
    if _is_itself(host):
        host = address
    elsewhere = "" if _same(host, address) else host
    url = parts._replace(netloc=_netloc(host, parts.port), fragment="").geturl()
    return _PASSWORD.sub(rf"\g<1>{MASK}", url), elsewhere


def _split(url: str) -> SplitResult | None:
    url = url.strip()
    # Nothing but printable ASCII is a URL (RFC 3986, section 2); the rest is for fooling terminals, logs and eyes.
    if len(url) > MAX_URL or not all("!" <= c <= "~" for c in url):
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts._replace(scheme=parts.scheme.lower())


def _netloc(host: str, port: int | None) -> str:
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if port is None else f"{bracketed}:{port}"


def _is_itself(host: str) -> bool:
    if host in ("", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_unspecified or address.is_loopback


def _same(host: str, address: str) -> bool:
    try:
        return ipaddress.ip_address(host) == ipaddress.ip_address(address)
    except ValueError:
        return False
