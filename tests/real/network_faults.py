"""What goes wrong on a line, to be switched on in a `FaultProxy`."""

from __future__ import annotations

import asyncio

from tests.real.fault_proxy import Fault, Link, Over, Spot, Way


class Reset(Fault):
    """Both ends are reset (RST) when the byte at the spot is about to pass."""

    async def act(self, link: Link, piece: bytes, at: int) -> bytes:
        await link.send(self.spot.way, piece[:at])
        link.reset()
        raise Over


class Stall(Fault):
    """From the spot on nothing passes any more, though the connection lives."""

    async def act(self, link: Link, piece: bytes, at: int) -> bytes:
        await link.send(self.spot.way, piece[:at])
        await link.over.wait()
        raise Over


class HalfClose(Fault):
    """This way ends at the spot (FIN); the other one goes on."""

    async def act(self, link: Link, piece: bytes, at: int) -> bytes:
        await link.send(self.spot.way, piece[:at])
        link.end(self.spot.way)
        await link.drain(self.spot.way)
        raise Over


class Corrupt(Fault):
    """The bytes at the spot come out changed, by exclusive or with `mask`."""

    def __init__(self, spot: Spot, *, times: int = 1, mask: bytes = b"\xff") -> None:
        super().__init__(spot, times=times)
        self._mask = mask

    async def act(self, link: Link, piece: bytes, at: int) -> bytes:
        end = at + len(self._mask)
        assert end <= len(piece), "what is to be changed came in two pieces"
        return piece[:at] + bytes(a ^ b for a, b in zip(piece[at:end], self._mask, strict=True)) + piece[end:]


class Answer(Fault):
    """Somebody else answers: the client gets `says` and the end, and the server hears nothing of the piece."""

    def __init__(self, spot: Spot, says: bytes, *, times: int = 1) -> None:
        super().__init__(spot, times=times)
        self._says = says

    async def act(self, link: Link, piece: bytes, at: int) -> bytes:
        await link.send("down", self._says)
        link.end("down")
        await link.drain(self.spot.way)
        raise Over


class Latency(Fault):
    """Every piece comes late by `delay_s`."""

    def __init__(self, way: Way, delay_s: float) -> None:
        super().__init__(Spot(way))
        self._delay_s = delay_s

    @property
    def spent(self) -> bool:
        return False

    def reached(self, link: Link, piece: bytes) -> int | None:
        return 0

    async def act(self, link: Link, piece: bytes, at: int) -> bytes:
        await asyncio.sleep(self._delay_s)
        return piece


class Rate(Latency):
    """No more than so many bytes a second pass, `step_bytes` at a time."""

    def __init__(self, way: Way, bytes_s: float, step_bytes: int) -> None:
        super().__init__(way, step_bytes / bytes_s)
        self._step_bytes = step_bytes

    async def act(self, link: Link, piece: bytes, at: int) -> bytes:
        while piece:
            await super().act(link, piece, at)
            await link.send(self.spot.way, piece[: self._step_bytes])
            piece = piece[self._step_bytes :]
        return piece
