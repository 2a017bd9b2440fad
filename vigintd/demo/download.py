"""Fetching a clip as its recipient would, to see that it is the one that was recorded. Blocking: belongs on a thread."""

from __future__ import annotations

import hashlib
import http.client
import socket
from pathlib import Path
from urllib.parse import urlsplit

from vigintd.errors import TransientError

_TIMEOUT_S = 10.0
_CHUNK_BYTES = 1 << 16


def download(link: str, part: int, path: Path) -> str:
    """Write one part of the clip behind a private link to `path`; answers its SHA-256 in hex.

    Raises `TransientError` where the link host does not give it whole.
    """
    address = urlsplit(link)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_TIMEOUT_S)
    digest = hashlib.sha256()
    try:
        connection.request("GET", f"{address.path}/part/{part}.mp4?{address.query}")
        response = connection.getresponse()
        if response.status != 200:
            raise TransientError(f"the link host answered {response.status} when asked for part {part} of the clip")
        with path.open("wb") as file:
            while chunk := response.read(_CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
    except (OSError, http.client.HTTPException) as error:
        raise TransientError(f"the link host broke off while sending the clip: {error}") from error
    finally:
        connection.close()
    return digest.hexdigest()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now; links bear it, so it must be known before anybody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
