"""From a camera's settings to what FFmpeg is told.

Owns the credentials' way into a URL, and FFmpeg's options for each kind of source. No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from vigintd.camera.stream import StreamRequest
from vigintd.config import CameraSettings
from vigintd.redact import redacted

_DEFAULT_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}

_ANALYZE_US = 200_000
"""How much FFmpeg reads before it says what a stream is: 0.3 s to open instead of 1–3 s."""

_WHITELISTS = {
    "rtsp": "rtsp,rtp,tcp",  # itself too, because a recorder may redirect to the camera
    "rtsps": "rtsps,rtp,tls,tcp",
    "http": "http,tcp",
    "https": "https,http,tls,tcp,crypto",
    "file": "file",
}
"""FFmpeg's `protocol_whitelist`: what a source, or a playlist it points to, may make FFmpeg open."""


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
        """A file is paced to real time and looped."""
        return self.scheme == "file"


def request_for(settings: CameraSettings, url: str) -> StreamRequest:
    """The request for one of a camera's two URLs, its user name and password written in where they were apart."""
    return StreamRequest(
        url=_with_credentials(settings, url),
        label=redacted(url),
        open_timeout_s=settings.open_timeout_s,
        stall_timeout_s=settings.stall_timeout_s,
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
    options = {
        "analyzeduration": str(_ANALYZE_US),
        "protocol_whitelist": _WHITELISTS[scheme],
        # FFmpeg's own bound on a silent socket, in microseconds; PyAV's read timeout would take the GIL at each poll.
        "timeout": str(round(request.stall_timeout_s * 1_000_000)),
    }
    if scheme in ("rtsp", "rtsps"):
        options |= {"rtsp_transport": "tcp", "allowed_media_types": "video"}
    return Source(scheme, request.url, options, host=parts.hostname, port=parts.port or _DEFAULT_PORTS[scheme])
