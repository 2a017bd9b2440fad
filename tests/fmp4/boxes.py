"""Boxes by hand, so that the parser is held against the standard and not against another program."""

import struct
from collections.abc import Iterator


def box(kind: bytes, *bodies: bytes) -> bytes:
    body = b"".join(bodies)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full(kind: bytes, version: int, flags: int, *bodies: bytes) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *bodies)


def words(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def descriptor(tag: int, *bodies: bytes) -> bytes:
    body = b"".join(bodies)
    return bytes([tag, 0x80, len(body)]) + body


def esds(object_type: int = 0x40, setup: bytes = b"\x15\x88", *, flags: int = 0, between: bytes = b"") -> bytes:
    config = descriptor(4, bytes([object_type]), bytes(12), descriptor(5, setup))
    return full(b"esds", 0, 0, descriptor(3, b"\0\1", bytes([flags]), between, config, descriptor(6, b"\2")))


def sound_entry(*inside: bytes) -> bytes:
    return box(b"mp4a", bytes(28), *(inside or (esds(),)))


def with_sound(entry: bytes) -> bytes:
    """`ftyp` and `moov` of a video track 1 and, before it, a sound track 2 at 48 kHz."""
    sound = moov(48_000, track_id=2, handler=b"soun", entry=entry)
    begin = sound.index(b"trak") - 4
    trak = sound[begin : begin + int.from_bytes(sound[begin : begin + 4])]
    return box(b"ftyp", b"isom", bytes(4)) + box(b"moov", trak, moov()[8:])


def moov(
    timescale_hz: int = 90_000,
    *,
    track_id: int = 1,
    handler: bytes = b"vide",
    trex: bytes | None = None,
    entry: bytes | None = None,
) -> bytes:
    avcc = box(b"avcC", b"\x01\x64\x00\x1f\xff\xe1\x00\x00")
    picture = box(b"avc1", bytes(24), struct.pack(">HH", 1920, 1080), bytes(50), avcc)
    stbl = box(b"stbl", full(b"stsd", 0, 0, words(1), entry or (picture if handler == b"vide" else sound_entry())))
    mdia = box(
        b"mdia",
        full(b"mdhd", 0, 0, words(0, 0, timescale_hz, 0), bytes(4)),
        full(b"hdlr", 0, 0, bytes(4), handler, bytes(13)),
        box(b"minf", stbl),
    )
    trak = box(b"trak", full(b"tkhd", 0, 3, words(0, 0, track_id, 0, 0), bytes(60)), mdia)
    return box(
        b"moov", full(b"mvhd", 0, 0, bytes(96)), trak, box(b"mvex", trex or full(b"trex", 0, 0, words(track_id, 1, 0, 0, 0)))
    )


def init(timescale_hz: int = 90_000) -> bytes:
    return box(b"ftyp", b"isom", bytes(4)) + moov(timescale_hz)


def moof(start: int, durations: list[int], *, key: bool = True, track_id: int = 1) -> bytes:
    run = full(b"trun", 0, 0x104, words(len(durations), 0 if key else 0x10000, *durations))
    traf = box(b"traf", full(b"tfhd", 0, 0x20000, words(track_id)), full(b"tfdt", 1, 0, struct.pack(">Q", start)), run)
    return box(b"moof", full(b"mfhd", 0, 0, words(1)), traf)


def fragment(start: int, durations: list[int], payload: bytes = b"media", *, key: bool = True) -> bytes:
    return moof(start, durations, key=key) + box(b"mdat", payload)


def children(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of the boxes inside the first box of `data`."""
    size = int.from_bytes(data[:4])
    at = 8
    while at < size:
        (length,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 8], data[at + 8 : at + length]
        at += length
