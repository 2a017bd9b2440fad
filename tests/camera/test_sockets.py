"""The reader's socket: found, shut from outside, asked how it is, never somebody else's."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.camera.scene import until
from tests.real.scripted_camera import deafen
from vigintd.camera import sockets
from vigintd.camera.sockets import Attempt, Claim, attempting, resolve, wire_of


def claim(*peers: tuple[str, int]) -> Claim | None:
    """The connection to any of the peers, whenever it was opened."""
    return Attempt(frozenset(peers)).claim()


def opened_in_turn(peer: tuple[str, int], claims: list[Claim | None]) -> None:
    """Open a connection as a stream does, and claim it."""
    with attempting(f"rtsp://127.0.0.1:{peer[1]}/main"):
        attempt = resolve(*peer)
        with socket.create_connection(peer):
            claims.append(attempt.claim())


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@contextmanager
def pair(listener) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection, and the other end of it."""
    with socket.create_connection(listener.getsockname()) as connection:
        other, _ = listener.accept()
        with other:
            yield connection, other


def test_a_blocked_reader_is_woken(listener):
    """Its read ends as if the other side had closed."""
    peer = listener.getsockname()
    with socket.create_connection(peer) as connection:
        claimed = claim(peer)
        assert claimed is not None
        got = []
        reader = threading.Thread(target=lambda: got.append(connection.recv(1)))
        reader.start()
        assert claimed.shut()
        reader.join(5)
        assert got == [b""]
        claimed.release()


def test_one_of_several_is_claimed_once_the_others_are(listener):
    """While two look alike, neither is taken for the other."""
    peer = listener.getsockname()
    with socket.create_connection(peer):
        first = claim(peer)
        assert first is not None
        with socket.create_connection(peer), socket.create_connection(peer):
            assert claim(peer) is None
        with socket.create_connection(peer):
            second = claim(peer)
            assert second is not None
            second.release()
        first.release()


def test_streams_of_one_host_open_in_turn_and_each_knows_its_own(listener):
    """A camera's two streams open at the same moment."""
    peer = listener.getsockname()
    second_waits = threading.Event()
    claims: list[Claim | None] = []

    def open_second() -> None:
        second_waits.set()
        opened_in_turn(peer, claims)

    thread = threading.Thread(target=open_second)
    with attempting(f"rtsp://127.0.0.1:{peer[1]}/main"):
        attempt = resolve(*peer)
        with socket.create_connection(peer):
            thread.start()
            assert second_waits.wait(5)
            claims.append(attempt.claim())
    thread.join(5)
    assert len(claims) == 2
    for each in claims:
        assert each is not None
        each.release()


def test_who_waited_in_vain_opens_beside_the_other_and_is_not_taken_for_it(listener, monkeypatch):
    """An opening that hangs keeps the other streams of its host away for a moment only."""
    monkeypatch.setattr(sockets, "_TURN_S", 0.01)
    peer = listener.getsockname()
    claims: list[Claim | None] = []
    with attempting(f"rtsp://127.0.0.1:{peer[1]}/main"), socket.create_connection(peer):
        thread = threading.Thread(target=opened_in_turn, args=(peer, claims))
        thread.start()
        thread.join(5)
    assert len(claims) == 1
    assert claims[0] is not None
    claims[0].release()


def test_whoever_looks_later_takes_no_connection_that_was_there_before(listener):
    """A stream that was sent on elsewhere has none of its own here, and another stream's is not shut in its stead."""
    peer = listener.getsockname()
    with socket.create_connection(peer):
        with attempting(f"rtsp://127.0.0.1:{peer[1]}/main"):
            attempt = resolve(*peer)
        looked: list[Claim | None] = []
        later = threading.Thread(target=lambda: looked.append(attempt.claim()))
        later.start()
        later.join(5)
    assert looked == [None]


def test_connections_to_others_are_left_alone(listener):
    """Only the camera's own address and port count."""
    host, port = listener.getsockname()
    with socket.create_connection((host, port)):
        assert claim((host, port + 1)) is None
        assert claim() is None


def test_a_claim_whose_socket_is_closed_knows_nothing_and_shuts_nothing(listener):
    """Also where its number is another's already."""
    peer = listener.getsockname()
    connection = socket.create_connection(peer)
    claimed = claim(peer)
    assert claimed is not None
    number = connection.fileno()
    connection.close()
    with socket.create_connection(peer) as another:
        assert another.fileno() == number
        assert claimed.wire() is None
        assert not claimed.shut()
        another.sendall(b"still there")
    claimed.release()


class TestWire:
    async def test_it_tells_how_long_ago_a_byte_came(self, listener):
        """Whether it was read or not."""
        with pair(listener) as (connection, other):
            claimed = claim(listener.getsockname())
            assert claimed is not None
            await until(lambda: heard_ago_s(claimed) > 0.1)
            other.sendall(b"x")
            await until(lambda: heard_ago_s(claimed) < 0.1)
            claimed.release()
            assert connection.recv(1) == b"x"

    async def test_a_peer_that_is_only_silent_answers_the_kernel(self, listener):
        """It is asked each second, and answers without its program."""
        with pair(listener):
            claimed = claim(listener.getsockname())
            assert claimed is not None
            await until(lambda: heard_ago_s(claimed) > 1.8)
            assert not is_unanswered(claimed)
            claimed.release()

    @pytest.mark.parametrize("has_sent", [True, False], ids=["with something under way", "with nothing to be acknowledged"])
    async def test_a_peer_that_vanished_does_not(self, listener, has_sent):
        """Neither what was sent, nor the kernel's questions."""
        with pair(listener) as (connection, other):
            claimed = claim(listener.getsockname())
            assert claimed is not None
            deafen(other)
            if has_sent:
                connection.sendall(b"hello?")
            await until(lambda: is_unanswered(claimed))
            claimed.release()

    def test_a_kernel_that_says_less_leaves_it_unknown(self):
        """The structure has grown over the years."""
        assert wire_of(bytes(40)) is None
        assert wire_of(bytes(300)) is not None


def heard_ago_s(claimed: sockets.Claim) -> float:
    wire = claimed.wire()
    assert wire is not None
    return wire.heard_ago_s


def is_unanswered(claimed: sockets.Claim) -> bool:
    wire = claimed.wire()
    assert wire is not None
    return wire.is_unanswered


def test_a_name_without_an_address_is_told_apart():
    """The resolver's own error."""
    with pytest.raises(socket.gaierror):
        resolve("no-such-camera.invalid", 554)
    assert ("127.0.0.1", 554) in resolve("127.0.0.1", 554).peers
