"""A camera whose faults a test switches on and off: the built-in RTSP camera with a `Fault` between it and its clients.

Owns the switching, what faults need to reach (sockets, the media clock, what is shown), and the count of what was sent.
The faults themselves are in `faults`.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
from collections.abc import Sequence

from tests.real.camera_lock import Lock
from vigintd.demo.rtsp import Client, Request, Response, RtspCamera
from vigintd.model import MEDIA_CLOCK_HZ, Packet

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_RETURN_NOTHING = 0x06


class Fault:
    """What is wrong with a camera between `strike` and `recover`. This one does nothing.

    Whoever is struck calls `fire` each time the fault really shows, so that a test can wait for it and assert it.
    """

    def __init__(self) -> None:
        self.fired = 0
        self.happened = asyncio.Event()

    def fire(self) -> None:
        """It has shown once more."""
        self.fired += 1
        self.happened.set()

    def begin(self, camera: ScriptedCamera) -> None:
        """It is switched on."""

    def end(self, camera: ScriptedCamera) -> None:
        """It is switched off."""

    def answer(self, camera: ScriptedCamera, client: Client, request: Request) -> Response | None:
        """What a request is answered."""
        return camera.answer(client, request)

    def send(self, camera: ScriptedCamera, client: Client, data: bytes, *, is_media: bool) -> None:
        """What becomes of one access unit (`is_media`) or one RTCP report on its way to a client."""
        camera.send(client, data)


class ScriptedCamera(RtspCamera):
    """`RtspCamera` with at most one fault at a time, and a lock if it has one."""

    def __init__(self, packets: Sequence[Packet], *, fps: float, lock: Lock | None = None) -> None:
        super().__init__(packets, fps=fps)
        self.packets = packets
        self.lock = lock
        self.fault: Fault | None = None
        self.units_sent = 0
        """Access units, to all clients together."""
        self.sent = asyncio.Event()
        """Set, and replaced, with each of them."""

    def strike(self, fault: Fault, *, cut: bool = False) -> Fault:
        """Switch a fault on; with `cut`, connections there are reset first, so that it meets whoever comes back."""
        self.recover()
        if cut:
            self.drop_clients()
        self.fault = fault
        fault.begin(self)
        return fault

    def recover(self) -> None:
        """Switch the fault off, if there is one."""
        fault, self.fault = self.fault, None
        if fault is not None:
            fault.end(self)

    # What the server calls

    def respond(self, client: Client, request: Request) -> Response | None:
        """See `RtspCamera`."""
        return self.fault.answer(self, client, request) if self.fault else self.answer(client, request)

    def deliver(self, client: Client, data: bytes) -> None:
        """See `RtspCamera`."""
        is_media = data[1] == (client.channel or 0)
        if is_media:
            self.units_sent += 1
            self.sent.set()
            self.sent = asyncio.Event()
        if self.fault:
            self.fault.send(self, client, data, is_media=is_media)
        else:
            self.send(client, data)

    # What faults call

    @property
    def playing(self) -> frozenset[Client]:
        """The clients that are sent video."""
        return frozenset(client for client in self._clients if client.started)

    def answer(self, client: Client, request: Request) -> Response | None:
        """What a healthy camera answers."""
        refusal = self.lock.refusal(request) if self.lock and request.method != "OPTIONS" else None
        return refusal or super().respond(client, request)

    def send(self, client: Client, data: bytes) -> None:
        """Send a client bytes, as a healthy camera does."""
        super().deliver(client, data)

    def drop_clients(self, *, reset: bool = True) -> None:
        """End every connection, by RST or by FIN."""
        for client in self._clients:
            drop(client, reset=reset)

    def show(self, packets: Sequence[Packet]) -> None:
        """Show other packets from the next access unit on, time stamps going on."""
        self._base_90k += self._units[self._position].pts_90k - self._units[0].pts_90k
        self._load(packets)

    def turn_clock(self, seconds: float) -> None:
        """Let RTP timestamps go on from so much later, or earlier."""
        self._base_90k += round(seconds * MEDIA_CLOCK_HZ)

    def begin_clock(self, seconds: float) -> None:
        """Before anybody plays: let RTP timestamps begin so long before they wrap at 32 bits."""
        elapsed_s = asyncio.get_running_loop().time() - self._started_s
        self._epoch_90k = 2**32 - round((seconds + elapsed_s) * MEDIA_CLOCK_HZ)
        self._last_90k = self._epoch_90k

    def deafen_listener(self, *, deaf: bool) -> None:
        """Let the camera's host answer to no new connection, not even by refusing it."""
        assert self._server
        for listening in self._server.sockets:
            (deafen if deaf else undeafen)(listening)


def drop(client: Client, *, reset: bool) -> None:
    """End a client's connection, by RST or by FIN."""
    if reset:
        _socket_of(client).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.writer.transport.abort()
    else:
        client.writer.close()


def is_acknowledged(client: Client) -> bool:
    """Whether the client's host has acknowledged all that was sent to it."""
    unacknowledged = struct.unpack_from("I", _socket_of(client).getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 24)[0]
    return bool(unacknowledged == 0) and client.writer.transport.get_write_buffer_size() == 0


def deafen_client(client: Client) -> None:
    """Let this machine drop whatever the client's host sends on this connection, and so never acknowledge it."""
    deafen(_socket_of(client))


class _Instruction(ctypes.Structure):
    """`struct sock_filter` of linux/filter.h."""

    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    """`struct sock_fprog` of linux/filter.h."""

    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def deafen(connection: socket.socket) -> None:
    """Attach a filter that takes nothing in (socket(7), SO_ATTACH_FILTER). `PermissionError` where that is not allowed."""
    instructions = (_Instruction * 1)(_Instruction(_RETURN_NOTHING, 0, 0, 0))
    program = _Program(1, instructions)
    connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(program))


def undeafen(connection: socket.socket) -> None:
    """Take the filter away."""
    connection.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def _socket_of(client: Client) -> socket.socket:
    found: socket.socket = client.writer.get_extra_info("socket")
    return found
