"""The TCP socket that FFmpeg reads a stream from, so that a stuck reader can be woken from outside.

FFmpeg does not say which socket is its own, and closing its container from another thread is a crash. But
`shutdown` of the socket ends its read cleanly. So a stream claims, once it is open, the one connection of this
process to its peer that no other stream has claimed; where that is not exactly one, it claims none and may
try again. Linux only (`/proc/self/fd`); elsewhere nothing is ever claimed.
"""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

Peer = tuple[str, int]

_FDS = Path("/proc/self/fd")

_lock = threading.Lock()
_claimed: set[int] = set()
"""Inodes of claimed sockets."""


def resolve(host: str, port: int) -> frozenset[Peer]:
    """Every address of the peer; blocks. Raises `socket.gaierror` for a name without one."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return frozenset((str(address[0]), port) for *_, address in answers)


class Claim:
    """One connection, known by the inode of its socket, which no other connection has while it lives."""

    def __init__(self, inode: int) -> None:
        self._inode = inode
        self._released = False

    def shut(self) -> bool:
        """Shut the connection down both ways; False when it was gone already."""
        with _lock:
            if self._released:
                return False
            for inode, connection in _connections():
                if inode == self._inode:
                    # It may be gone by now, which is as good.
                    with suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)
                    return True
        return False

    def release(self) -> None:
        """The connection is closed, or about to be; to be called before its number can be another's."""
        with _lock:
            self._released = True
            _claimed.discard(self._inode)


def claim(peers: frozenset[Peer]) -> Claim | None:
    """The one unclaimed connection to any of `peers`, or None when there are none or several."""
    with _lock:
        found = [inode for inode, connection in _connections() if inode not in _claimed and _peer(connection) in peers]
        if len(found) != 1:
            return None
        _claimed.add(found[0])
        return Claim(found[0])


def _connections() -> Iterator[tuple[int, socket.socket]]:
    """Every socket of this process, as a duplicate that is closed after its turn, so that no other thread's close matters."""
    try:
        numbers = [int(entry) for entry in os.listdir(_FDS)]  # noqa: PTH208 - names alone, and half as dear
    except OSError:
        return
    for number in numbers:
        with _duplicate(number) as found:
            if found is not None:
                yield found


@contextmanager
def _duplicate(number: int) -> Iterator[tuple[int, socket.socket] | None]:
    try:
        duplicate = os.dup(number)
    except OSError:
        yield None
        return
    status = os.fstat(duplicate)
    if not stat.S_ISSOCK(status.st_mode):
        os.close(duplicate)
        yield None
        return
    with socket.socket(fileno=duplicate) as connection:
        yield status.st_ino, connection


def _peer(connection: socket.socket) -> Peer | None:
    if connection.family not in (socket.AF_INET, socket.AF_INET6) or connection.type != socket.SOCK_STREAM:
        return None
    try:
        address = connection.getpeername()
    except OSError:
        return None
    return str(address[0]), int(address[1])
