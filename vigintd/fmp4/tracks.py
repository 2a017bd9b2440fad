"""The initialisation segment: which tracks a file has, and how their codecs are named to a player.

Owns what `moov` says (ISO/IEC 14496-12, section 8). Of codecs it knows those a browser is shown: H.264 and AAC.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from vigintd.fmp4.boxes import boxes, unpack, version_flags

_MAX_TRACKS = 8
"""More than video and audio needs none; it bounds the work a tiny `moof` can ask for."""

_DESCRIPTOR_SIZE_BYTES = 4
"""The longest size field of a descriptor (ISO/IEC 14496-1, section 8.3.3)."""


class Kind(Enum):
    """What a track holds, by its handler (section 8.4.3)."""

    VIDEO = b"vide"
    SOUND = b"soun"
    OTHER = b""


@dataclass(frozen=True, slots=True)
class Track:
    """What the `moov` box says of one track."""

    id: int
    timescale_hz: int
    kind: Kind = Kind.OTHER
    codec: str = ""
    """As RFC 6381 writes it, such as `avc1.64001F` or `mp4a.40.2`; empty for what is neither H.264 nor MPEG-4 audio."""
    width_px: int = 0
    height_px: int = 0
    default_duration: int = 0
    """Ticks of a sample whose fragment does not say (`trex`); size and flags likewise."""
    default_size: int = 0
    default_flags: int = 0

    @property
    def is_video(self) -> bool:
        """Whether it holds pictures."""
        return self.kind is Kind.VIDEO


def read_init(init: bytes | memoryview) -> tuple[Track, ...]:
    """The tracks of an initialisation segment (`ftyp` + `moov`), the first video track first.

    Raises `ValueError` when it is not whole, or is none.
    """
    for kind, body in boxes(memoryview(init)):
        if kind == b"moov":
            return read_moov(body)
    raise ValueError("no moov box")


def codec_string(init: bytes | memoryview) -> str:
    """The codecs as Media Source wants them, picture first: `avc1.PPCCLL`, or `avc1.PPCCLL, mp4a.40.2` with sound.

    By RFC 6381, sections 3.3 and 3.4. Only letters, digits, points, a comma and a space ever come out. Raises `ValueError`
    where there is no H.264 track, or sound of another codec than MPEG-4 audio: a player cannot be told what it gets.
    """
    video, *others = read_init(init)
    sound = [track for track in others if track.kind is Kind.SOUND]
    if not video.is_video or not video.codec:
        raise ValueError("no H.264 track")
    if not all(track.codec for track in sound):
        raise ValueError("sound of an unknown codec")
    return ", ".join(dict.fromkeys([video.codec, *(track.codec for track in sound)]))


def video_size(init: bytes | memoryview) -> tuple[int, int]:
    """Width and height of the coded picture in pixels. Raises `ValueError` where there is no video track."""
    track = read_init(init)[0]
    if not track.is_video:
        raise ValueError("no video track")
    return track.width_px, track.height_px


def read_moov(body: memoryview) -> tuple[Track, ...]:
    """The tracks in the body of a `moov` box, the first video track first; `ValueError` where it makes no sense."""
    tracks: dict[int, Track] = {}
    defaults: dict[int, tuple[int, int, int]] = {}
    for kind, inner in boxes(body):
        if kind == b"trak":
            track = _read_trak(inner)
            tracks[track.id] = track
            if len(tracks) > _MAX_TRACKS:
                raise ValueError("too many tracks")
        elif kind == b"mvex":
            for name, extends in boxes(inner):
                if name == b"trex":
                    track_id, _, duration, size, flags = unpack(">IIIII", extends, 4)
                    defaults[track_id] = duration, size, flags
    if not tracks:
        raise ValueError("a moov box without a track")
    for track_id, (duration, size, flags) in defaults.items():
        if track_id in tracks:
            extended = replace(tracks[track_id], default_duration=duration, default_size=size, default_flags=flags)
            tracks[track_id] = extended
    return tuple(sorted(tracks.values(), key=lambda track: not track.is_video))


def _read_trak(body: memoryview) -> Track:
    track_id = 0
    track = Track(id=0, timescale_hz=0)
    for kind, inner in boxes(body):
        if kind == b"tkhd":
            version, _ = version_flags(inner)
            (track_id,) = unpack(">I", inner, 20 if version else 12)
        elif kind == b"mdia":
            track = _read_mdia(inner, track)
    if not track_id or not track.timescale_hz:
        raise ValueError("a track without number or timescale")
    return replace(track, id=track_id)


def _read_mdia(body: memoryview, track: Track) -> Track:
    for kind, inner in boxes(body):
        if kind == b"mdhd":
            version, _ = version_flags(inner)
            track = replace(track, timescale_hz=unpack(">I", inner, 20 if version else 12)[0])
        elif kind == b"hdlr":
            handler = bytes(inner[8:12])
            track = replace(track, kind=Kind(handler) if handler in (b"vide", b"soun") else Kind.OTHER)
        elif kind == b"minf":
            for name, table in boxes(inner):
                if name == b"stbl":
                    track = _read_stbl(table, track)
    return track


def _read_stbl(body: memoryview, track: Track) -> Track:
    for kind, inner in boxes(body):
        if kind == b"stsd":
            for entry, fields in boxes(inner[8:]):
                if entry in (b"avc1", b"avc3"):
                    return _read_avc_entry(entry, fields, track)
                if entry == b"mp4a":
                    return _read_mp4a_entry(fields, track)
    return track


def _read_avc_entry(entry: bytes, fields: memoryview, track: Track) -> Track:
    """A VisualSampleEntry (section 12.1.3): 78 bytes of fields, then boxes, `avcC` among them."""
    width_px, height_px = unpack(">HH", fields, 24)
    for kind, record in boxes(fields[78:]):
        if kind == b"avcC":
            _, profile, compatibility, level = unpack(">BBBB", record)
            codec = f"{entry.decode()}.{profile:02X}{compatibility:02X}{level:02X}"
            return replace(track, codec=codec, width_px=width_px, height_px=height_px)
    raise ValueError("an H.264 track without avcC")


def _read_mp4a_entry(fields: memoryview, track: Track) -> Track:
    """An AudioSampleEntry (section 12.2.3): 28 bytes of fields, then boxes; without an `esds` the codec stays unknown."""
    for kind, record in boxes(fields[28:]):
        if kind == b"esds":
            return replace(track, codec=_mpeg4_audio(record[4:]))
    return track


def _mpeg4_audio(descriptors: memoryview) -> str:
    """The codec in an ES_Descriptor (ISO/IEC 14496-1, section 7.2.6.5), as RFC 6381, section 3.3 writes it."""
    stream = _descriptor(3, descriptors)
    (flags,) = unpack(">B", stream, 2)
    at = 3 + (2 if flags & 0x80 else 0)
    if flags & 0x40:
        at += 1 + unpack(">B", stream, at)[0]
    config = _descriptor(4, stream[at + (2 if flags & 0x20 else 0) :])
    (object_type,) = unpack(">B", config)
    if object_type != 0x40:
        return f"mp4a.{object_type:02X}"
    (setup,) = unpack(">H", _descriptor(5, config[13:]))
    # AudioObjectType (ISO/IEC 14496-3, section 1.6.2.1): five bits, and six more where they are all set.
    audio_type = setup >> 11
    return f"mp4a.40.{audio_type if audio_type != 31 else 32 + (setup >> 5 & 0x3F)}"


def _descriptor(tag: int, data: memoryview) -> memoryview:
    """The body of the descriptor that begins here."""
    found, at, size = unpack(">B", data)[0], 1, 0
    if found != tag:
        raise ValueError(f"a descriptor {found} where {tag} is due")
    for _ in range(_DESCRIPTOR_SIZE_BYTES):
        (octet,) = unpack(">B", data, at)
        at, size = at + 1, size << 7 | octet & 0x7F
        if not octet & 0x80:
            break
    if at + size > len(data):
        raise ValueError("a descriptor reaches beyond its box")
    return data[at : at + size]
