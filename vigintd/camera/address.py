"""From a camera's settings to what FFmpeg is told.

Owns the credentials' way into a URL, and FFmpeg's options for each kind of source. No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from vigintd.camera.stream import StreamRequest
from vigintd.config import CameraSettings
from vigintd.redact import redacted

_DEFAULT_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443, "rtmp": 1935, "rtmps": 443}

_AFTER_WATCHDOG_S = 1.0

_ANALYZE_US = 200_000
"""How much FFmpeg reads before it says what a stream is: 0.3 s to open instead of 1–3 s."""

_STALE_LOOKS = 20
"""How often FFmpeg asks for a playlist that does not go on, each half a segment's length: nothing else ends that wait, which
would be a thousand times otherwise."""

_UDP_BUFFER_BYTES = 4 * 1024 * 1024
"""Asked of the system for each stream over UDP: a key frame comes at once. It gives what `net.core.rmem_max` allows."""

_WHITELISTS = {
    "rtsp": "rtsp,rtp,tcp",  # itself too, because a recorder may redirect to the camera
    "rtsps": "rtsps,rtp,tls,tcp",
    "http": "http,tcp",
    "https": "https,tls,tcp",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,tls,tcp",
    "file": "file",
}
"""FFmpeg's `protocol_whitelist`: what a source, a redirect or a playlist it points to may make FFmpeg open."""


@dataclass(frozen=True, slots=True)
class Source:
    """A URL in FFmpeg's terms."""

    scheme: str
    place: str = field(repr=False)
    """What `av.open` is given; may hold credentials."""
    options: dict[str, str]
    format: str | None = None
    host: str | None = None
    port: int | None = None
    """The peer, for sources on the network."""

    @property
    def is_file(self) -> bool:
        """A file is looped."""
        return self.scheme == "file"


def request_for(settings: CameraSettings, url: str, *, with_sound: bool = True) -> StreamRequest:
    """The request for one of a camera's URLs, its user name and password written in where they were apart.

    Without `with_sound` the camera is not asked for sound even where it is recorded: nobody listens to a detection stream.
    """
    return StreamRequest(
        url=_with_credentials(settings, url),
        label=redacted(url),
        open_timeout_s=settings.open_timeout_s,
        stall_timeout_s=settings.stall_timeout_s,
        transport=settings.transport,
        audio=settings.audio and with_sound,
    )


def _with_credentials(settings: CameraSettings, url: str) -> str:
    parts = urlsplit(url)
    if settings.username is None or parts.scheme not in _DEFAULT_PORTS:
        return url
    userinfo = quote(settings.username, safe="")
    if settings.password is not None:
        userinfo += ":" + quote(settings.password.get_secret_value(), safe="")
    return parts._replace(netloc=f"{userinfo}@{parts.netloc.rpartition('@')[2]}").geturl()


def source_of(request: StreamRequest) -> Source:
    """FFmpeg's place, format and options for a request. Raises `ValueError` for a port that is no number."""
    parts = urlsplit(request.url)
    scheme = parts.scheme
    if scheme == "file":
        return Source(scheme, f"file:{unquote(parts.path)}", {"protocol_whitelist": _WHITELISTS[scheme]})
    if scheme == "v4l2":
        # Compressed pictures: what USB cameras give at full size.
        return Source(scheme, unquote(parts.path), {"input_format": "mjpeg"}, format="video4linux2")
    # FFmpeg's own bound on a silent socket, in microseconds; PyAV's read timeout would take the GIL at each poll. Later than
    # the watchdog's, because FFmpeg at its own end hands out a picture it had held, which would then pass for a sign of life.
    bound_us = str(round((request.stall_timeout_s + _AFTER_WATCHDOG_S) * 1_000_000))
    options = {"analyzeduration": str(_ANALYZE_US), "protocol_whitelist": _WHITELISTS[scheme]}
    format_ = None
    if scheme in ("rtsp", "rtsps"):
        options |= {"timeout": bound_us} | _rtsp_options(request, scheme)
    elif scheme in ("rtmp", "rtmps"):
        # Here `timeout` would make FFmpeg listen like a server.
        options |= {"rw_timeout": bound_us, "rtmp_live": "live"}
    else:
        # A playlist hands on the second one, and no other, to each of its connections.
        options |= {"timeout": bound_us, "rw_timeout": bound_us, "m3u8_hold_counters": str(_STALE_LOOKS)}
        if parts.path.lower().endswith(".m3u8"):
            format_ = "hls"
            options["protocol_whitelist"] += ",crypto"  # segments may be encrypted (RFC 8216 section 5.2)
    return Source(scheme, request.url, options, format_, host=parts.hostname, port=parts.port or _DEFAULT_PORTS[scheme])


def _rtsp_options(request: StreamRequest, scheme: str) -> dict[str, str]:
    options = {"rtsp_transport": "tcp", "allowed_media_types": "video+audio" if request.audio else "video"}
    # Over TLS the pictures come in the same connection; FFmpeg knows no other way.
    if request.transport == "udp" and scheme == "rtsp":
        options |= {
            "rtsp_transport": "udp",
            "protocol_whitelist": f"{_WHITELISTS[scheme]},udp",
            "buffer_size": str(_UDP_BUFFER_BYTES),
        }
    return options
