"""What is known of each codec's bytes: its set-up in the stream, and which pictures need others."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clip.pictures import CODECS, FPS, coded
from vigintd.clip import h264
from vigintd.clip.syntax import syntax

ENCODERS = ["libx264", "libx265", "mpeg4", "mjpeg", "libsvtav1"]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_key_frame_says_what_the_stream_is(encoder):
    """Real key frames of one stream say the same, those of another size something else, and other pictures nothing."""
    rules = syntax(CODECS.get(encoder, encoder))
    one, other = coded(2 * FPS, encoder=encoder), coded(1, encoder=encoder, size=(96, 64))
    said = {rules.parameter_sets(p.data) for p in one if p.is_key}
    assert len(said) == 1
    assert said != {()}
    assert rules.parameter_sets(other[0].data) not in said
    assert encoder == "mjpeg" or not any(rules.parameter_sets(p.data) for p in one if not p.is_key)


@pytest.mark.parametrize("encoder", ["libx264", "libx265", "mpeg4", "libsvtav1"])
def test_sets_out_of_band_are_those_of_the_stream(encoder):
    """What stands in the extradata, in front of a picture, is found there again."""
    codec = CODECS.get(encoder, encoder)
    rules = syntax(codec)
    (packet,) = coded(1, encoder=encoder, global_header=True)
    sets = rules.read_extradata(packet.parameters.extradata).parameter_sets
    assert sets
    assert rules.parameter_sets(rules.joined(sets) + packet.data)[: len(sets)] == sets


def test_an_hvcc_record_says_sets_and_lengths():
    """HEVC from a file or over RTMP: the record of ISO/IEC 14496-15, and what of it was whole."""
    (packet,) = coded(1, encoder="libx265", global_header=True)
    sets = syntax("hevc").parameter_sets(packet.parameters.extradata)
    arrays = b"".join(bytes([0x80 | s[0] >> 1 & 0x3F]) + (1).to_bytes(2) + len(s).to_bytes(2) + s for s in sets)
    record = b"\1" + bytes(20) + b"\x0f" + bytes([len(sets)]) + arrays
    assert len(sets) == 3
    assert syntax("hevc").read_extradata(record) == h264.Setup(sets, 4)
    assert syntax("hevc").read_extradata(record[:-1]) == h264.Setup(sets[:2], 4)


def test_an_av1c_record_says_the_sequence():
    """Four bytes, then units (AV1 in ISO base media, section 2.3.3)."""
    (packet,) = coded(1, encoder="libsvtav1")
    sets = syntax("av1").parameter_sets(packet.data)
    assert syntax("av1").read_extradata(b"\x81\0\0\0" + sets[0]) == h264.Setup(sets, 0)


def test_pictures_that_look_back_are_known():
    """HEVC says so of each picture; H.264 does by the key frame's kind and the order of showing."""
    key, radl, rasl = (b"\0\0\0\1" + bytes([kind << 1, 1]) for kind in (21, 7, 9))
    assert [syntax("hevc").needs_earlier(key, p, is_shown_before_key=True) for p in (radl, rasl)] == [False, True]
    idr, recovery = b"\0\0\1\x65\x88", b"\0\0\1\x06\x06\x01\0\0\1\x41\x88"
    assert [syntax("h264").needs_earlier(k, b"", is_shown_before_key=True) for k in (idr, recovery)] == [False, True]
    assert not syntax("h264").needs_earlier(recovery, b"", is_shown_before_key=False)


@given(st.sampled_from([*CODECS.values(), "mpeg4", "mjpeg", "vp9"]), st.binary(max_size=120), st.data())
def test_any_bytes_are_read_without_a_fault(codec, noise, data):
    """Garbage, and real bytes cut or changed, never raise."""
    rules = syntax(codec)
    heads = [b"", b"\1" + bytes(20) + b"\x0f\x03", b"\x81\0\0\0", b"\0\0\1\x20", b"\xff\xd8\xff\xc0", b"\x0a\x0b"]
    mangled = data.draw(st.sampled_from(heads)) + noise
    rules.read_extradata(mangled)
    rules.parameter_sets(mangled)
    rules.needs_earlier(mangled, mangled, is_shown_before_key=True)


def test_a_stream_of_pictures_alone_is_left_as_it_is():
    """Nothing is asked of a codec that is not in the table."""
    packet = replace(coded(1)[0], data=b"anything")
    assert not syntax("vp9").needs_sets
    assert syntax("vp9").parameter_sets(packet.data) == ()
