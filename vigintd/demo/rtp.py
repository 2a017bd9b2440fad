"""H.264 as RTP over an interleaved RTSP connection: bytes in, bytes out.

Owns the payload format (RFC 6184, packetization mode 1: single NAL units and FU-A), the framing of RFC 2326
section 10.12, the session description (RFC 8866) and the sender report (RFC 3550). Knows nothing of sockets and time.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Sequence
from datetime import datetime

from vigintd.model import MEDIA_CLOCK_HZ, Packet, StreamParameters

PAYLOAD_TYPE = 96
MAX_PAYLOAD_BYTES = 1400
"""Longest RTP payload; what is longer is cut into FU-A, as a camera does for Ethernet's sake."""

_SPS, _PPS, _FU_A = 7, 8, 28
_HEADER = struct.Struct("!cBHBBHII")
"""`$`, channel, length; then version, marker and payload type, sequence, timestamp, SSRC."""
_STAMP = struct.Struct("!HII")
_STAMP_OFFSET_BYTES = 6
_NTP_EPOCH_OFFSET_S = 2_208_988_800
"""Seconds between 1900 and 1970 (RFC 3550, section 4)."""


def nal_units(data: bytes) -> list[bytes]:
    """The NAL units of an Annex B byte stream (ITU-T H.264, annex B), without start codes."""
    units = []
    start = data.find(b"\0\0\1")
    while start >= 0:
        following = data.find(b"\0\0\1", start + 3)
        # A NAL unit never ends in a zero byte; what does belongs to the next start code.
        unit = data[start + 3 : following if following >= 0 else len(data)].rstrip(b"\0")
        if unit:
            units.append(unit)
        start = following
    return units


def parameter_sets(parameters: StreamParameters) -> list[bytes]:
    """SPS and PPS out of Annex B extradata, or [] where it holds none."""
    return [unit for unit in nal_units(parameters.extradata) if _kind(unit) in (_SPS, _PPS)]


class AccessUnit:
    """One packet, cut into RTP once, to be stamped each time it is sent.

    Key frames that bring no parameter sets are given those of their stream, so that a client can begin at any of them.
    """

    def __init__(self, packet: Packet) -> None:
        self.is_key = packet.is_key
        self.pts_90k = packet.pts_90k
        units = nal_units(packet.data)
        if not units:
            raise ValueError("a packet holds no NAL unit; Annex B is wanted")
        if packet.is_key and not any(_kind(unit) == _SPS for unit in units):
            units = [*parameter_sets(packet.parameters), *units]
        payloads = [payload for unit in units for payload in _payloads(unit)]
        self.rtp_packets = len(payloads)
        self.payload_bytes = sum(map(len, payloads))
        self._bytes = bytearray()
        self._stamps: list[int] = []
        for number, payload in enumerate(payloads, 1):
            self._stamps.append(len(self._bytes) + _STAMP_OFFSET_BYTES)
            marker = 0x80 if number == len(payloads) else 0
            self._bytes += _HEADER.pack(b"$", 0, 12 + len(payload), 0x80, marker | PAYLOAD_TYPE, 0, 0, 0)
            self._bytes += payload

    def stamped(self, sequence: int, timestamp: int, ssrc: int) -> bytes:
        """All its RTP packets, framed for channel 0, numbered from `sequence`; every number is taken modulo its field."""
        timestamp &= 0xFFFF_FFFF
        for number, offset in enumerate(self._stamps, sequence):
            _STAMP.pack_into(self._bytes, offset, number & 0xFFFF, timestamp, ssrc)
        return bytes(self._bytes)

    def on_channel(self, stamped: bytes, channel: int) -> bytes:
        """What `stamped` answered, for a client that chose another channel."""
        moved = bytearray(stamped)
        for offset in self._stamps:
            moved[offset - _STAMP_OFFSET_BYTES + 1] = channel
        return bytes(moved)


def session_description(parameters: StreamParameters, *, fps: float, address: str) -> bytes:
    """The SDP of one H.264 stream, with its parameter sets out of band (RFC 6184, section 8.2.1)."""
    sets = parameter_sets(parameters)
    profile = next((unit[1:4].hex().upper() for unit in sets if _kind(unit) == _SPS), "42C01E")
    sprop = ",".join(base64.b64encode(unit).decode("ascii") for unit in sets)
    lines = [
        "v=0",
        f"o=- 1 1 IN IP4 {address}",
        "s=vigintd",
        f"c=IN IP4 {address}",
        "t=0 0",
        "a=control:*",
        "a=range:npt=now-",
        f"m=video 0 RTP/AVP {PAYLOAD_TYPE}",
        f"a=rtpmap:{PAYLOAD_TYPE} H264/{MEDIA_CLOCK_HZ}",
        f"a=fmtp:{PAYLOAD_TYPE} packetization-mode=1;profile-level-id={profile};sprop-parameter-sets={sprop}",
        f"a=framerate:{fps:g}",
        "a=control:trackID=0",
    ]
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def sender_report(*, ssrc: int, at: datetime, timestamp: int, rtp_packets: int, payload_bytes: int, channel: int) -> bytes:
    """A framed RTCP compound of sender report and CNAME (RFC 3550, sections 6.4.1 and 6.5)."""
    ntp = round((at.timestamp() + _NTP_EPOCH_OFFSET_S) * 2**32)
    report = struct.pack(
        "!BBHIQIII",
        0x80,
        200,
        6,
        ssrc,
        ntp & 0xFFFF_FFFF_FFFF_FFFF,
        timestamp & 0xFFFF_FFFF,
        rtp_packets & 0xFFFF_FFFF,
        payload_bytes & 0xFFFF_FFFF,
    )
    name = b"vigintd"
    # One chunk, one item, ended by zeros up to the next word.
    chunk = struct.pack("!IBB", ssrc, 1, len(name)) + name
    chunk += bytes(4 - len(chunk) % 4)
    report += struct.pack("!BBH", 0x81, 202, len(chunk) // 4) + chunk
    return struct.pack("!cBH", b"$", channel, len(report)) + report


def access_units(packets: Sequence[Packet]) -> list[AccessUnit]:
    """The packets of one loop, ready to be sent; a `ValueError` where no client could begin with the first."""
    if not packets or not packets[0].is_key:
        raise ValueError("a camera's loop begins with a key frame")
    if packets[0].parameters.codec != "h264":
        raise ValueError(f"the built-in camera sends H.264 only, not {packets[0].parameters.codec}")
    return [AccessUnit(packet) for packet in packets]


def _kind(unit: bytes) -> int:
    return unit[0] & 0x1F


def _payloads(unit: bytes) -> Iterator[bytes]:
    """One NAL unit as it is, or in fragments of RFC 6184, section 5.8."""
    if len(unit) <= MAX_PAYLOAD_BYTES:
        yield unit
        return
    indicator = (unit[0] & 0xE0) | _FU_A
    step = MAX_PAYLOAD_BYTES - 2
    for start in range(1, len(unit), step):
        first = 0x80 if start == 1 else 0
        last = 0x40 if start + step >= len(unit) else 0
        yield bytes((indicator, first | last | _kind(unit))) + unit[start : start + step]
