"""From an alert to what a reader is told, value by value, ready to print.

Owns the cleaning of text that strangers wrote (detectors, settings, hosts) and the writing of moments, sizes
and numbers in the reader's language. Both bodies of the mail print these and nothing else.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from babel.dates import format_datetime
from babel.numbers import format_percent
from babel.units import format_unit

from vigintd.alert.words import Words, words
from vigintd.model import Alert, AlertKind, MissingVideo, NoVideo

MAX_TYPE_CHARS = 120
MAX_NAME_CHARS = 200
MAX_TEXT_CHARS = 8000
"""Longer texts end with an ellipsis; the journal keeps them whole."""

_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_LINK = re.compile(r"https?://[^\s<>\"'\\\x00-\x20\x7f-\U0010ffff]+")
_UNITS = (("gigabyte", 1e9), ("megabyte", 1e6), ("kilobyte", 1e3))
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the reading direction round, and with it what a name or a link seems to say."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the templates print. Everything is text; what is not known is empty."""

    type: str
    at: str
    site: str
    camera: str
    risk: str
    risk_word: str
    """LOW, MEDIUM, HIGH or UNKNOWN, as in settings and on every wire."""
    frame_number: str
    confidence: str
    text: str
    """The analysis; may have several lines."""
    link: str
    size: str
    is_live: bool
    """The clip is still being recorded."""
    expires_at: str
    expiry: str
    """How long the link lives from its making: "48 heures"."""
    clip_id: str
    no_video: str
    """Why there is no link; empty when there is one."""
    is_follow_up: bool


@dataclass(frozen=True, slots=True)
class MissingFacts:
    """What a reminder prints of one video."""

    at: str
    camera: str
    type: str
    no_video: str
    """Why it will not come by itself; empty while it is still tried."""
    until: str


def missing_facts(video: MissingVideo, language: str, zone: tzinfo | None) -> MissingFacts:
    """The facts of a missing video, its moments in `zone` (None: the zone of this machine)."""
    speech = words(language)
    return MissingFacts(
        at=_moment(video.at, zone, speech),
        camera=clean_line(video.camera, MAX_NAME_CHARS),
        type=_type(video.type, speech),
        no_video=speech.no_video[video.no_video] if video.no_video else "",
        until=_moment(video.until, zone, speech),
    )


def facts_of(alert: Alert, zone: tzinfo | None) -> Facts:
    """The facts of `alert`, its moments in `zone` (None: the zone of this machine)."""
    speech = words(alert.language)
    detection = alert.detection
    link = alert.link if alert.link and _LINK.fullmatch(alert.link) else ""
    confidence = detection.confidence
    return Facts(
        type=type_of(alert),
        at=_moment(detection.at, zone, speech),
        site=clean_line(alert.site, MAX_NAME_CHARS),
        camera=clean_line(alert.camera, MAX_NAME_CHARS),
        risk=speech.risks[detection.risk],
        risk_word=detection.risk.value,
        frame_number="" if detection.frame_number is None else str(detection.frame_number),
        confidence=""
        if confidence is None or not math.isfinite(confidence)
        else _plain(format_percent(min(max(confidence, 0.0), 1.0), locale=speech.locale)),
        text=clean(detection.text, MAX_TEXT_CHARS),
        link=link,
        size=speech.growing if alert.size_bytes is None else _size(alert.size_bytes, speech),
        is_live=alert.size_bytes is None,
        expires_at="" if alert.expires_at is None else _moment(alert.expires_at, zone, speech),
        expiry="" if alert.expiry_h is None else _duration(alert.expiry_h, speech),
        clip_id=clean_line(alert.incident_id, MAX_NAME_CHARS),
        # A link that nobody could safely follow is no link.
        no_video="" if link else speech.no_video[alert.no_video or NoVideo.REFUSED],
        is_follow_up=alert.kind is AlertKind.FOLLOW_UP,
    )


def type_of(alert: Alert) -> str:
    """The detection's type in one line, a built-in one translated."""
    return _type(alert.detection.type, words(alert.language))


def _type(name: str, speech: Words) -> str:
    name = clean_line(name, MAX_TYPE_CHARS)
    return speech.types.get(name, name) or speech.untyped


def clean(text: str, max_chars: int) -> str:
    """`text` as any mail and any screen can hold it: no lone surrogate, no control but line ends, no turned direction."""
    text = text[: 4 * max_chars].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    text = _LINE_ENDS.sub("\n", text).replace("\t", " ")
    text = "".join(c for c in text if c == "\n" or not (unicodedata.category(c) == "Cc" or c in _BIDI))
    text = "\n".join(line.rstrip() for line in text.split("\n")).strip()
    return text if len(text) <= max_chars else text[: max_chars - 1].rstrip() + "…"


def clean_line(text: str, max_chars: int) -> str:
    """`clean`, on one line with single spaces."""
    return clean(" ".join(clean(text, 4 * max_chars).split()), max_chars)


def _moment(moment: datetime, zone: tzinfo | None, speech: Words) -> str:
    """Date and time of the place with its zone: "lundi 2 novembre 2026 à 14:03:22 (CET, UTC+01:00)"."""
    local = moment.astimezone(zone)
    minutes = round((local.utcoffset() or timedelta()).total_seconds() / 60)
    offset = f"UTC{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}" if minutes else "UTC"
    name = local.tzname() or ""
    # Zones without a name of their own are called by their offset, "+03".
    label = f"{name}, {offset}" if name.isalpha() and name != "UTC" else offset
    return f"{format_datetime(local, speech.moment, locale=speech.locale)} ({label})"


def _size(size_bytes: int, speech: Words) -> str:
    """Decimal units, as file managers of phones count: "4,2 Mo"."""
    unit, scale = next(((unit, scale) for unit, scale in _UNITS if size_bytes >= scale), _UNITS[-1])
    number = round(size_bytes / scale, 1 if size_bytes >= 1e6 else 0)
    return _plain(format_unit(number, f"digital-{unit}", length="short", locale=speech.locale))


def _duration(hours: float, speech: Words) -> str:
    """In hours, or in minutes when it is less than one."""
    value, unit = (hours, "hour") if hours >= 1 else (max(1, round(hours * 60)), "minute")
    return _plain(format_unit(round(value, 1), f"duration-{unit}", length="long", locale=speech.locale))


def _plain(text: str) -> str:
    """Ordinary spaces for Babel's narrow and unbreakable ones, so that a reader's search finds what is seen."""
    return text.replace("\u202f", " ").replace("\u00a0", " ")
