"""The reader's socket: found, shut from outside, never somebody else's."""

import socket
import threading

import pytest

from vigintd.camera.sockets import claim, resolve


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_blocked_reader_is_woken(listener):
    """Its read ends as if the other side had closed."""
    peer = listener.getsockname()
    with socket.create_connection(peer) as connection:
        claimed = claim(frozenset({peer}))
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
        first = claim(frozenset({peer}))
        assert first is not None
        with socket.create_connection(peer), socket.create_connection(peer):
            assert claim(frozenset({peer})) is None
        with socket.create_connection(peer):
            second = claim(frozenset({peer}))
            assert second is not None
            second.release()
        first.release()


def test_connections_to_others_are_left_alone(listener):
    """Only the camera's own address and port count."""
    host, port = listener.getsockname()
    with socket.create_connection((host, port)):
        assert claim(frozenset({(host, port + 1)})) is None
        assert claim(frozenset()) is None


def test_a_released_claim_shuts_nothing(listener):
    """Its number may be another connection's by then."""
    peer = listener.getsockname()
    with socket.create_connection(peer) as connection:
        claimed = claim(frozenset({peer}))
        assert claimed is not None
        claimed.release()
        assert not claimed.shut()
        connection.sendall(b"still there")


def test_a_name_without_an_address_is_told_apart():
    """The resolver's own error."""
    with pytest.raises(socket.gaierror):
        resolve("no-such-camera.invalid", 554)
    assert ("127.0.0.1", 554) in resolve("127.0.0.1", 554)
