"""Asking the running daemon: HTTP over a unix socket that only its owner can open.

Owns the socket, the routes and the client. What the answers hold is the handlers' business; who may ask is the
file system's (the socket is 0600, its folder 0700 when we make it).
"""

from __future__ import annotations

import os
from pathlib import Path

from vigintd.errors import ControlError

SOCKET_NAME = "control.sock"
"""The socket's name in the runtime folder."""

MAX_LIMIT = 200
"""Incidents in one answer; asked for more, the server answers 400."""

_LONGEST_PATH_BYTES = 107
"""sockaddr_un holds 108 bytes with the closing NUL (unix(7))."""


def check_path(path: Path) -> None:
    """Raise `ControlError` for a path that the system cannot use as a socket's address."""
    length = len(os.fsencode(path))
    if length > _LONGEST_PATH_BYTES:
        raise ControlError(
            f"{path}: this path has {length} bytes, and the path of a socket may have {_LONGEST_PATH_BYTES}; "
            "set runtime_dir to a shorter folder"
        )
