"""The bytes of AAC, as far as a clip must know them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vigintd.clip import aac

SETUPS = st.builds(aac.Setup, st.integers(1, 4), st.integers(0, 12), st.integers(1, 2))


@given(SETUPS, st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_frames_with_headers_describe_themselves(setup, bare):
    """A header says set-up and length; frames in a row are found again, up to the one that is cut."""
    described = [aac.with_header(frame, setup) for frame in bare]
    assert all(aac.read_header(frame) == setup for frame in described)
    row = b"".join(described)
    assert list(aac.frames(row)) == described
    assert list(aac.frames(row[:-1])) == described[:-1]


@given(SETUPS)
def test_a_set_up_survives_its_config(setup):
    """Config and set-up say the same."""
    assert aac.read_config(aac.config(setup)) == setup


@pytest.mark.parametrize(
    ("config", "setup"),
    [
        ("1588", aac.Setup(2, 11, 1)),
        ("1188", aac.Setup(2, 3, 1)),
        ("1188 56e500", aac.Setup(2, 3, 1)),
        ("2b92 0800", aac.Setup(2, 7, 2)),  # replication on top of LC at 22,050 Hz
        ("eb8a 0800", aac.Setup(2, 7, 1)),  # and parametric stereo
        ("158c", None),  # frames of 960 samples
        ("1780 0000 08", None),  # a rate that has no index
        ("15", None),
        ("", None),
        ("1580", None),  # channels that only the stream says
        ("b988", None),  # low delay
    ],
)
def test_configs_are_read_as_the_standard_has_them(config, setup):
    """What a header cannot say is not taken."""
    assert aac.read_config(bytes.fromhex(config)) == setup


def test_a_frame_too_long_for_its_header_is_none():
    """Thirteen bits of length are all there are."""
    assert aac.with_header(bytes(8185), aac.Setup(2, 3, 1)) == b""


@given(st.binary(max_size=60))
def test_any_bytes_are_read_without_a_fault(noise):
    """Garbage is no set-up and no frame."""
    aac.read_config(noise)
    aac.read_header(noise)
    for data in (noise, b"\xff\xf1" + noise):
        assert data.startswith(b"".join(aac.frames(data)))
