"""The TCP socket that FFmpeg reads a stream from, so that it can be asked how it is and a stuck reader be woken.

FFmpeg does not say which socket is its own, and closing its container from another thread is a crash. But
`shutdown` of the socket ends its read cleanly. So a stream claims, once it is open, the one connection of this
process to its peer that no other stream has claimed; where that is not exactly one, it claims none and may
try again. Streams of one peer take turns at opening, because otherwise a camera's two streams, which open at the same
moment, look alike for ever. Linux only (`/proc/self/fd`); elsewhere nothing is ever claimed.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import threading
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from vigintd.camera.stream import Wire

Peer = tuple[str, int]

_FDS = Path("/proc/self/fd")

_TURN_S = 3.0
"""How long a stream waits for its turn to open; a peer that lets one opening hang must not keep the others away."""

_TCP_INFO = struct.Struct("=8B13I")
"""The head of `struct tcp_info` (linux/tcp.h), which every kernel has had since 2.6."""

_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    # Only while nothing comes, so a camera that sends is never asked.
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
    # As many as there can be: the watchdog ends a stream, not the kernel.
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 127),
)

_UNHEARD_MS = 1500
"""Half as long again as between two of the kernel's questions: one that was asked this moment is no sign yet."""

_lock = threading.Lock()
"""Held for a look into the tables below, never while the system is asked."""
_claimed: set[int] = set()
"""Inodes of claimed sockets."""
_turns: dict[str, threading.Lock] = {}
"""By host; as many as are configured."""
_own = threading.local()
"""`attempt`: the one this thread is making."""


class Attempt:
    """One attempt to open a stream, and what of this process's connections may be its own."""

    def __init__(self, peers: frozenset[Peer] = frozenset(), before: frozenset[int] = frozenset()) -> None:
        self.peers = peers
        """Where it leads; empty until that is known."""
        self._before = before
        """Inodes of the sockets that were there already, and so are not its own."""
        self.is_resolving = False
        """The resolver has been asked for the peer's addresses, and has not answered."""

    def wire(self) -> Wire | None:
        """How its connection is, from any thread; None when it has none yet, or several look alike."""
        found = self._found()
        return found.wire() if found is not None else None

    def claim(self) -> Claim | None:
        """The one unclaimed connection to its peers that it can have opened; None when there are none or several.

        From then on the kernel asks the peer, while it is silent, whether it is still there: FFmpeg sends nothing of its own
        while it waits, so that otherwise a peer that vanished would never be missed. From any thread.
        """
        found = self._found()
        with _lock:
            if found is None or found.inode in _claimed:
                return None
            _claimed.add(found.inode)
        found.keep_asking()
        return found

    def _found(self) -> Claim | None:
        with _lock:
            not_mine = self._before | _claimed
        found = [Claim(number, inode) for number, inode, connection in _sockets(not_mine) if _peer(connection) in self.peers]
        return found[0] if len(found) == 1 else None


def resolve(host: str, port: int) -> Attempt:
    """This thread's attempt, now with every address of the peer; blocks. Raises `socket.gaierror` for a name without one."""
    attempt: Attempt = getattr(_own, "attempt", None) or Attempt()
    attempt.is_resolving = True
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    finally:
        attempt.is_resolving = False
    attempt.peers = frozenset((str(address[0]), port) for *_, address in answers)
    return attempt


@contextmanager
def attempting(url: str) -> Iterator[Attempt]:
    """To be held by the thread that opens a stream, until it is open and claimed.

    Others who open a stream of the same host wait for their turn, at most `_TURN_S`; whoever has waited in vain opens
    beside them. Connections that were there before are never taken for this thread's own.
    """
    turn = _turn_of(url)
    mine = turn is not None and turn.acquire(timeout=_TURN_S)
    try:
        _own.attempt = Attempt(before=frozenset(inode for _, inode in _socket_numbers()))
        yield _own.attempt
    finally:
        _own.attempt = None
        if turn is not None and mine:
            turn.release()


def _turn_of(url: str) -> threading.Lock | None:
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return None
    with _lock:
        return _turns.setdefault(host, threading.Lock()) if host else None


class Claim:
    """One connection, known by its number and the inode of its socket, which no other connection has while it lives.

    Once the socket is closed it knows and does nothing, also where its number has become another's.
    """

    def __init__(self, number: int, inode: int) -> None:
        self._number = number
        self.inode = inode

    def keep_asking(self) -> None:
        """Have the kernel ask the peer, while it is silent, whether it is still there (RFC 9293, section 3.8.4)."""
        with self._connection() as connection:
            if connection is not None:
                for level, option, value in _KEEPALIVE:
                    with suppress(OSError):
                        connection.setsockopt(level, option, value)

    def shut(self) -> bool:
        """End whatever reads from the connection; False when it is closed."""
        with self._connection() as connection:
            if connection is None:
                return False
            # It may be gone by now, which is as good.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            return True

    def wire(self) -> Wire | None:
        """How the connection is (tcp(7), TCP_INFO); None when it is closed or the kernel does not say."""
        with self._connection() as connection:
            if connection is None:
                return None
            try:
                told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            except OSError:
                return None
        return wire_of(told)

    def release(self) -> None:
        """The connection is closed. Not to be called before that: it would look like one that nobody has claimed."""
        with _lock:
            _claimed.discard(self.inode)

    @contextmanager
    def _connection(self) -> Iterator[socket.socket | None]:
        with _duplicate(self._number) as found:
            yield found[1] if found is not None and found[0] == self.inode else None


def wire_of(tcp_info: bytes) -> Wire | None:
    """What a `struct tcp_info` says; None for one that is too short."""
    if len(tcp_info) < _TCP_INFO.size:
        return None
    fields = _TCP_INFO.unpack_from(tcp_info)
    retransmits, probes = fields[2:4]
    last_data_recv_ms, last_ack_recv_ms = fields[-2:]
    return Wire(last_data_recv_ms / 1000, bool(retransmits or probes) and last_ack_recv_ms >= _UNHEARD_MS)


def _sockets(not_these: Container[int]) -> Iterator[tuple[int, int, socket.socket]]:
    """Number, inode and duplicate of the other sockets of this process; closed after its turn, so no other close matters."""
    for number, inode in _socket_numbers():
        if inode in not_these:
            continue
        with _duplicate(number) as found:
            if found is not None:
                yield number, *found


def _socket_numbers() -> Iterator[tuple[int, int]]:
    """Number and inode of every socket of this process, as they are just now."""
    try:
        numbers = [int(entry) for entry in os.listdir(_FDS)]  # noqa: PTH208 - names alone, and half as dear
    except OSError:
        return
    for number in numbers:
        # The list's own, at least, is closed by now.
        with suppress(OSError):
            status = os.fstat(number)
            if stat.S_ISSOCK(status.st_mode):
                yield number, status.st_ino


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
