"""What stands between a stream and its server in the camera's tests: it listens in, and over UDP it loses packets."""

from __future__ import annotations

import re
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

_ANSWER_S = 10.0


class RtspRelay:
    """One RTSP connection to a server on this machine. What is sent over UDP goes through it as well."""

    def __init__(self, port: int, *, lose_every: int = 0) -> None:
        self._server_port = port
        self._lose_every = lose_every
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.asked = b""
        """What the client sent."""
        self.lost = 0
        """UDP packets that were thrown away."""
        self._datagrams: dict[socket.socket, int] = {}
        self._taken = 0
        self._stop, self._stopped = socket.socketpair()

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/cam"

    def run(self) -> None:
        with ExitStack() as stack:
            stack.enter_context(self._listener)
            stack.enter_context(self._stopped)
            if self._listener not in select.select([self._listener, self._stopped], [], [])[0]:
                return
            client = stack.enter_context(self._listener.accept()[0])
            server = stack.enter_context(socket.create_connection(("127.0.0.1", self._server_port)))
            while True:
                ready, _, _ = select.select([client, server, self._stopped, *self._datagrams], [], [], _ANSWER_S)
                if self._stopped in ready or not ready:
                    return
                for one in ready:
                    if one in self._datagrams:
                        self._forward(one)
                    elif not self._pass_on(one, client, server, stack):
                        return

    def stop(self) -> None:
        with self._stop, suppress(OSError):  # its thread may have ended with the connection
            self._stop.send(b"x")

    def _pass_on(self, one: socket.socket, client: socket.socket, server: socket.socket, stack: ExitStack) -> bool:
        try:
            data = one.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            return False
        if one is client:
            self.asked += data
            data = re.sub(rb"client_port=(\d+)-(\d+)", lambda found: self._between(found, stack), data)
            server.sendall(data)
        else:
            with suppress(ConnectionError):  # it closes while pictures come
                client.sendall(data)
        return True

    def _between(self, found: re.Match[bytes], stack: ExitStack) -> bytes:
        """Two ports of ours in place of the client's."""
        ports = []
        for wanted in found.groups():
            ours = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            ours.bind(("127.0.0.1", 0))
            self._datagrams[ours] = int(wanted)
            ports.append(ours.getsockname()[1])
        return b"client_port=%d-%d" % tuple(ports)

    def _forward(self, one: socket.socket) -> None:
        data = one.recv(1 << 16)
        self._taken += 1
        if self._lose_every and self._taken % self._lose_every == 0:
            self.lost += 1
        else:
            one.sendto(data, ("127.0.0.1", self._datagrams[one]))


@contextmanager
def rtsp_relay(port: int, *, lose_every: int = 0) -> Iterator[RtspRelay]:
    """A relay in a thread of its own, to a server on `port`."""
    relay = RtspRelay(port, lose_every=lose_every)
    thread = threading.Thread(target=relay.run)
    thread.start()
    yield relay
    relay.stop()
    thread.join()
