"""The bytes of H.264, as far as a clip must know them."""

from hypothesis import given
from hypothesis import strategies as st

from vigintd.clip import h264

SPS, PPS, SEI = b"\x67\x64\x00\x1f\x11", b"\x68\xee\x3c", b"\x06\x05\x01"
IDR = b"\x65\x88\x84" + bytes(range(1, 200))


def test_parameter_sets_are_those_before_the_picture():
    """SPS and PPS are found behind any start code and delimiter; what follows the first slice is not looked at."""
    data = (
        b"\0\0\0\1\x09\xf0" + b"\0\0\0\1" + SPS + b"\0\0\1" + PPS + b"\0\0\1" + SEI + b"\0\0\1" + IDR + b"\0\0\1" + b"\x68late"
    )
    assert h264.parameter_sets(data) == (SPS, PPS)
    assert h264.parameter_sets(b"\0\0\1" + IDR) == ()


def test_extradata_comes_in_two_forms():
    """Start codes, or an avcC record that also says how long the lengths are."""
    record = b"\1\x64\0\x1f\xff\xe1" + len(SPS).to_bytes(2) + SPS + b"\1" + len(PPS).to_bytes(2) + PPS
    assert h264.read_extradata(record) == h264.Setup((SPS, PPS), 4)
    assert h264.read_extradata(h264.joined((SPS, PPS))) == h264.Setup((SPS, PPS), 0)
    assert h264.read_extradata(b"") == h264.Setup((), 0)
    assert h264.read_extradata(record[:-1]) == h264.Setup((SPS,), 4)


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=5), st.sampled_from([1, 2, 4]))
def test_lengths_become_start_codes(units, length_bytes):
    """Each length-prefixed unit gets a start code instead."""
    data = b"".join(len(unit).to_bytes(length_bytes) + unit for unit in units)
    assert h264.annex_b(data, length_bytes) == h264.joined(units)


@given(st.binary(max_size=80), st.integers(0, 4))
def test_any_bytes_are_read_without_a_fault(noise, length_bytes):
    """Garbage has no parameter sets worth an exception, and what does not add up stays as it is."""
    h264.read_extradata(noise)
    h264.read_extradata(b"\1" + noise)
    h264.parameter_sets(noise)
    assert isinstance(h264.annex_b(noise, length_bytes), bytes)
