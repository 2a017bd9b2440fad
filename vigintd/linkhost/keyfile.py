"""The file that holds the key of every link, outside the database.

Owns its creation (once, durably), its mode and its reading. Blocking: called at start, off the loop.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import structlog

from vigintd.errors import PermanentError
from vigintd.failpoints import failpoint

KEY_BYTES = 32

_log = structlog.get_logger(__name__)


def load_or_create(path: Path) -> bytes:
    """The link key in `path`; made of 32 random bytes, mode 0600 and fsynced, where there is none yet.

    Raises `PermanentError` when the file is not a link key: going on with another would break every link.
    """
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        return _create(path)
    if len(key) != KEY_BYTES:
        raise PermanentError(f"{path} is not a link key ({len(key)} bytes instead of {KEY_BYTES}); restore it from a backup")
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
        _log.warning("linkhost.key_was_readable", path=str(path), problem="others could read the link key; mode set to 0600")
    return key


def _create(path: Path) -> bytes:
    key = secrets.token_bytes(KEY_BYTES)
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    failpoint("linkhost.make_key.before")
    temporary.replace(path)
    fsync_folder(path.parent)
    failpoint("linkhost.make_key.after")
    return key


def fsync_folder(folder: Path) -> None:
    """Make names created in or removed from `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
