"""The frozen values that travel between the floors.

Owns the product's nouns (see docs/design/glossary.md) and nothing that acts. Time is given twice, as
everywhere in vigintd: `*_s` fields are seconds of the injected monotonic clock and order things, `at` fields
are aware wall-clock times and label them. Media time is in ticks of 90 kHz, the clock of RTP video
(RFC 6184, section 8.2.1), whatever the source counted in.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

MEDIA_CLOCK_HZ = 90_000


class Risk(StrEnum):
    """How bad a detection is, in the words of the alert."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class StreamParameters:
    """What a decoder or a muxer must know before the first packet; compared at key frames."""

    codec: str
    """FFmpeg's name of the codec: h264, hevc, mjpeg, …"""
    width_px: int
    height_px: int
    extradata: bytes
    """Codec set-up as FFmpeg holds it (H.264: SPS and PPS in Annex B, or an avcC record)."""


@dataclass(frozen=True, slots=True)
class AudioParameters:
    """The same for sound."""

    codec: str
    """FFmpeg's name of the codec: aac, pcm_alaw, pcm_mulaw, g726, …"""
    sample_rate_hz: int
    channels: int
    extradata: bytes
    """Codec set-up as FFmpeg holds it (AAC: an AudioSpecificConfig, ISO/IEC 14496-3)."""


@dataclass(frozen=True, slots=True, eq=False)
class AudioChunk:
    """One coded piece of sound with its time."""

    data: bytes
    pts_90k: int
    """In the media time of the packet it travels with."""
    duration_90k: int
    """0 when the source does not say."""
    parameters: AudioParameters


@dataclass(frozen=True, slots=True, eq=False)
class Packet:
    """One coded access unit with its time."""

    data: bytes
    pts_90k: int
    dts_90k: int
    duration_90k: int
    """0 when the source does not say."""
    is_key: bool
    arrived_s: float
    """Monotonic second at which it was read from the camera; what rings and incidents go by."""
    parameters: StreamParameters
    audio: tuple[AudioChunk, ...] = ()
    """What was heard since the packet before this one. It travels with the picture, so that whatever keeps, drops or
    counts packets need know nothing of sound; empty unless the camera's `audio` is on."""

    @property
    def size_bytes(self) -> int:
        """Coded bytes, its sound included."""
        return len(self.data) + sum(len(chunk.data) for chunk in self.audio)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One decoded picture as a detector sees it."""

    camera: str
    number: int
    """Counted from the start of the camera's task, on over reconnects."""
    arrived_s: float
    """`Packet.arrived_s` of the packet it was decoded from."""
    at: datetime
    pixels: NDArray[np.uint8]
    """Height × width of luma, or height × width × 3 of RGB, as the detector asked. Read-only."""
    life: int = 0
    """Which life of the stream it comes from: between two lives the camera was away, and the scene may be another.
    Within a life pictures come in order but at any distance; while nothing moves only key frames may be shown."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in a frame, in fractions (0–1) of its width and height from the top left."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Detection:
    """Something worth an alert, seen by a detector or told from outside."""

    camera: str
    arrived_s: float
    """Monotonic second of the picture meant; a ring is read by it."""
    at: datetime
    type: str
    """Free text such as "vol à l'étalage"; the built-in ones (`motion`, `trigger`) are translated in alerts."""
    risk: Risk = Risk.UNKNOWN
    confidence: float | None = None
    """0–1, or None when the detector has no opinion."""
    frame_number: int | None = None
    boxes: tuple[Box, ...] = ()
    text: str = ""
    """What the detector has to say, shown as the analysis."""
    detector: str = ""


@dataclass(frozen=True, slots=True)
class Fragment:
    """A whole moof+mdat pair (or the leading ftyp+moov) in a part's file."""

    offset_bytes: int
    length_bytes: int
    start_90k: int
    """Decode time of its first sample from the part's beginning; 0 for ftyp+moov."""
    duration_90k: int
    """0 for ftyp+moov."""
    is_key: bool
    """Begins with a key frame, so that a player can start here."""


@dataclass(frozen=True, slots=True)
class SealedPart:
    """A part that will not grow any more, with the hash that is its evidence."""

    index: int
    length_bytes: int
    sha256: str
    """64 hex digits over the whole file."""
    duration_s: float
    partial: str = ""
    """Why it ends earlier than it should, or empty."""
    reduced: str = ""
    """How the picture gave way because encoding could not keep up (`1280x720`, `1280x720 at 12.5 fps`), or empty."""


@dataclass(frozen=True, slots=True)
class Original:
    """What the camera sent for a part that had to be encoded, kept beside the clip on request."""

    index: int
    """The first has the number of the first part that was made of what the camera sent, each other is one more. One may have
    become several parts."""
    codec: str
    length_bytes: int
    sha256: str
    """64 hex digits over the whole file."""


class IncidentState(StrEnum):
    """How far an incident has come; it only ever moves down this list."""

    TRIGGERED = "triggered"
    RECORDING = "recording"
    SEALED = "sealed"
    PUBLISHED = "published"
    CLOSED = "closed"

    @property
    def is_under_way(self) -> bool:
        """Its clip may still grow."""
        return self in (IncidentState.TRIGGERED, IncidentState.RECORDING)


class NoVideo(StrEnum):
    """Why an alert has no link; the templates word it."""

    LATE = "late"
    """The host had not taken a playable fragment in time; a follow-up comes."""
    REFUSED = "refused"
    """The host refused the clip for good."""
    UNRECORDED = "unrecorded"
    """There was nothing to record."""
    UNSTORED = "unstored"
    """The disk took nothing of it: it is full, read-only or failing."""
    UNWRITTEN = "unwritten"
    """The incident could not be written to the journal, and so nothing of it is kept."""


@dataclass(frozen=True, slots=True)
class Incident:
    """One incident as it is known so far: what opened it and what it has become."""

    id: str
    """A UUID (RFC 9562) in its canonical form; spool names, upload keys and Message-IDs derive from it."""
    detection: Detection
    """The detection that opened it."""
    state: IncidentState = IncidentState.TRIGGERED
    detections: int = 1
    ended_at: datetime | None = None
    pre_roll_s: float | None = None
    """Seconds before the detection that the clip really holds; None until recording began."""
    parts: tuple[SealedPart, ...] = ()
    originals: tuple[Original, ...] = ()
    """What the camera sent where it had to be encoded, when the camera's `keep_original` is on."""
    no_video: NoVideo | None = None
    """Why no link will ever play; None while one may."""
    problem: str = ""
    """What went wrong for good, in words for a user; empty when nothing did."""

    @property
    def camera(self) -> str:
        """Name of the camera it happened on."""
        return self.detection.camera


class AlertKind(StrEnum):
    """Which message of an incident's thread this is."""

    LINK = "link"
    """The first alert, with a link that plays."""
    TEXT = "text"
    """The first alert, without a link and with the reason why."""
    FOLLOW_UP = "follow_up"
    """The link, in the thread of a text alert."""


@dataclass(frozen=True, slots=True)
class Alert:
    """What one recipient is told of an incident; a channel needs nothing else to say it."""

    kind: AlertKind
    incident_id: str
    recipient: str
    language: str
    """fr or en."""
    site: str
    camera: str
    detection: Detection
    link: str | None = None
    expires_at: datetime | None = None
    expiry_h: float | None = None
    """Hours between the link's making and its expiry, as the mail words it."""
    size_bytes: int | None = None
    """Size of the finished clip; None while it is still recording."""
    no_video: NoVideo | None = None
    """Why there is no link; None when there is one."""
    snapshot_jpeg: bytes | None = None


@dataclass(frozen=True, slots=True)
class MissingVideo:
    """A video that somebody was told would follow, and that is not online yet."""

    camera: str
    at: datetime
    """When the incident began."""
    type: str
    no_video: NoVideo | None
    """Why it will not come by itself; None while it is still tried."""
    until: datetime
    """After this its link is promised no more."""


@dataclass(frozen=True, slots=True)
class Reminder:
    """What one recipient is told once a day while videos are missing."""

    recipient: str
    language: str
    """fr or en."""
    site: str
    day: str
    """Which day's reminder this is: the same reminder, sent again, says the same here."""
    missing: tuple[MissingVideo, ...]
    """Newest first."""
    more: int
    """How many others there are beyond these."""
    is_last: bool
    """No other will follow for any of these."""
