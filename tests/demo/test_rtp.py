"""The payload format: what a camera cuts, a client puts together again."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vigintd.demo import rtp
from vigintd.model import Packet, StreamParameters

SPS, PPS = bytes.fromhex("6742c01ed90280bfe5c0"), bytes.fromhex("68cb83cb20")
PARAMETERS = StreamParameters("h264", 320, 240, b"\0\0\0\1" + SPS + b"\0\0\0\1" + PPS)

nal_unit = st.builds(
    lambda kind, body: bytes((0x60 | kind,)) + body.replace(b"\0", b"\1") + b"\x80",
    st.sampled_from([1, 5, 6]),
    st.one_of(st.binary(max_size=40), st.integers(1300, 6000).map(lambda size: bytes(range(1, 256)) * (size // 255 + 1))),
)


def packet(data: bytes, *, is_key: bool = False, codec: str = "h264") -> Packet:
    parameters = StreamParameters(codec, 320, 240, PARAMETERS.extradata)
    return Packet(data, 0, 0, 3000, is_key, 0.0, parameters)


def framed(stream: bytes) -> list[tuple[int, bytes]]:
    """Channel and content of each interleaved frame."""
    frames = []
    while stream:
        dollar, channel, length = struct.unpack_from("!cBH", stream)
        assert dollar == b"$"
        frames.append((channel, stream[4 : 4 + length]))
        stream = stream[4 + length :]
    return frames


def put_together(frames: list[bytes]) -> list[bytes]:
    """The NAL units of one access unit's RTP packets, by RFC 6184 sections 5.6 and 5.8."""
    units: list[bytes] = []
    for payload in (frame[12:] for frame in frames):
        if payload[0] & 0x1F != 28:
            units.append(payload)
        elif payload[1] & 0x80:
            units.append(bytes(((payload[0] & 0xE0) | (payload[1] & 0x1F),)) + payload[2:])
        else:
            units[-1] += payload[2:]
    return units


@given(
    units=st.lists(nal_unit, min_size=1, max_size=4),
    sequence=st.integers(0, 65_535),
    start=st.sampled_from([b"\0\0\1", b"\0\0\0\1"]),
)
def test_an_access_unit_survives_being_cut(units, sequence, start):
    """Any NAL units of any length come out as they went in, numbered without a gap, the marker on the last packet alone."""
    unit = rtp.AccessUnit(packet(b"".join(start + each for each in units)))
    frames = framed(unit.stamped(sequence, 2**32 + 5, 77))
    assert put_together([frame for _, frame in frames]) == units
    assert all(channel == 0 and len(frame) <= 12 + rtp.MAX_PAYLOAD_BYTES for channel, frame in frames)
    headers = [struct.unpack("!BBHII", frame[:12]) for _, frame in frames]
    assert [header[2] for header in headers] == [(sequence + step) & 0xFFFF for step in range(unit.rtp_packets)]
    assert {(header[0], header[3], header[4]) for header in headers} == {(0x80, 5, 77)}
    assert [header[1] for header in headers] == [rtp.PAYLOAD_TYPE] * (len(headers) - 1) + [0x80 | rtp.PAYLOAD_TYPE]


def test_a_fragment_has_start_and_end_marked():
    """The first FU-A of a NAL unit bears S, the last E, those between neither (RFC 6184, section 5.8)."""
    unit = rtp.AccessUnit(packet(b"\0\0\1\x65" + b"\x11" * 4000, is_key=False))
    headers = [frame[13] & 0xC0 for _, frame in framed(unit.stamped(0, 0, 0))]
    assert headers == [0x80, 0x00, 0x40]


def test_a_key_frame_without_parameter_sets_is_given_its_streams():
    """A client can begin at any key frame, also where the encoder keeps SPS and PPS out of band."""
    unit = rtp.AccessUnit(packet(b"\0\0\1\x65\x80", is_key=True))
    assert put_together([frame for _, frame in framed(unit.stamped(0, 0, 0))]) == [SPS, PPS, b"\x65\x80"]


def test_a_client_on_another_channel_gets_the_same_bytes_there():
    """Only the channel's byte differs."""
    unit = rtp.AccessUnit(packet(b"\0\0\1\x65" + b"\x11" * 4000))
    stamped = unit.stamped(9, 8, 7)
    moved = framed(unit.on_channel(stamped, 6))
    assert {channel for channel, _ in moved} == {6}
    assert [frame for _, frame in moved] == [frame for _, frame in framed(stamped)]


def test_the_description_tells_a_decoder_all_it_needs():
    """The SDP has packetization mode, profile and parameter sets."""
    text = rtp.session_description(PARAMETERS, fps=12.5, address="127.0.0.1").decode()
    assert "a=rtpmap:96 H264/90000\r\n" in text
    assert "packetization-mode=1;profile-level-id=42C01E;sprop-parameter-sets=Z0LAHtkCgL/lwA==,aMuDyyA=\r\n" in text
    assert "a=framerate:12.5\r\n" in text


def test_a_sender_report_ties_the_media_clock_to_the_wall_clock():
    """NTP seconds count from 1900; the compound ends with a CNAME, in whole words."""
    at = datetime(2026, 11, 22, 12, 0, 0, 500_000, tzinfo=UTC)
    ((channel, report),) = framed(
        rtp.sender_report(ssrc=5, at=at, timestamp=2**32 + 9, rtp_packets=3, payload_bytes=4, channel=1)
    )
    version, kind, words, ssrc, seconds, fraction, timestamp, packets, payload = struct.unpack("!BBHIIIIII", report[:28])
    assert (channel, version, kind, words, ssrc) == (1, 0x80, 200, 6, 5)
    assert seconds == int(at.timestamp()) + 2_208_988_800
    assert fraction == 2**31
    assert (timestamp, packets, payload) == (9, 3, 4)
    assert report[28:32] == b"\x81\xca" + struct.pack("!H", (len(report) - 32) // 4)
    assert len(report) % 4 == 0


@pytest.mark.parametrize(
    ("packets", "sentence"),
    [
        ([], "begins with a key frame"),
        ([packet(b"\0\0\1\x41\x80")], "begins with a key frame"),
        ([packet(b"\0\0\1\x41\x80", is_key=True, codec="hevc")], "H.264 only, not hevc"),
        ([packet(b"no start code", is_key=True)], "no NAL unit"),
    ],
)
def test_what_cannot_be_sent_is_refused_at_once(packets, sentence):
    """A loop that no client could begin is a fault of whoever made it."""
    with pytest.raises(ValueError, match=sentence):
        rtp.access_units(packets)
