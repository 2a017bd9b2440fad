"""Boxes by hand, so that the parser is held against the standard and not against another program."""

import struct


def box(kind: bytes, *bodies: bytes) -> bytes:
    body = b"".join(bodies)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full(kind: bytes, version: int, flags: int, *bodies: bytes) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *bodies)


def words(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def moov(timescale_hz: int = 90_000, *, track_id: int = 1, handler: bytes = b"vide", trex: bytes | None = None) -> bytes:
    avcc = box(b"avcC", b"\x01\x64\x00\x1f\xff\xe1\x00\x00")
    entry = box(b"avc1", bytes(24), struct.pack(">HH", 1920, 1080), bytes(50), avcc)
    stbl = box(b"stbl", full(b"stsd", 0, 0, words(1), entry if handler == b"vide" else box(b"mp4a", bytes(28))))
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
