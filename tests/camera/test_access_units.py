"""Key frames in pieces become whole again, at the price of a delay only where there are pieces."""

from vigintd.camera.access_units import AccessUnits
from vigintd.model import Packet, StreamParameters

PARAMETERS = StreamParameters("h264", 640, 360, b"")
CODE = b"\x00\x00\x01"
HEAD = CODE + b"\x67sps" + CODE + b"\x68pps"
IDR = CODE + b"\x65slice"


def packet(data: bytes, *, is_key: bool) -> Packet:
    return Packet(data, 0, 0, 0, is_key, 0.0, PARAMETERS)


def test_pieces_of_the_same_time_are_joined_without_repeated_parameter_sets():
    """SPS and PPS in the middle of an access unit are what broke it."""
    units = AccessUnits("h264")
    assert units.take(packet(HEAD + IDR, is_key=True), same_time=False) == []
    assert units.take(packet(HEAD + IDR, is_key=True), same_time=True) == []
    key, delta = units.take(packet(b"delta", is_key=False), same_time=False)
    assert (key.data, delta.data) == (HEAD + IDR + IDR, b"delta")
    assert units.take(packet(HEAD + IDR, is_key=True), same_time=False) == []


def test_a_stream_in_one_piece_is_delayed_by_its_first_key_frame_only():
    """After that every packet comes out as it goes in."""
    units = AccessUnits("h264")
    first, delta, second = packet(IDR, is_key=True), packet(b"delta", is_key=False), packet(IDR, is_key=True)
    assert units.take(first, same_time=False) == []
    assert units.take(delta, same_time=False) == [first, delta]
    assert units.take(second, same_time=False) == [second]
    assert units.rest() == []


def test_what_is_held_at_the_end_is_not_lost():
    """A stream that ends at a key frame."""
    units = AccessUnits("hevc")
    key = packet(IDR, is_key=True)
    units.take(key, same_time=False)
    assert units.rest() == [key]


def test_codecs_without_slices_are_never_held():
    """Each picture of Motion JPEG is whole."""
    key = packet(b"jpeg", is_key=True)
    assert AccessUnits("mjpeg").take(key, same_time=False) == [key]
