"""What an uploader may say, read strictly: headers of tus 1.0, Upload-Metadata, JSON. Pure.

Owns the bounds of it all. Everything here raises `Refusal` with the status the wire's contract gives.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vigintd.errors import VigintdError

Scalar = str | int | float | bool | None

TUS_VERSION = "1.0.0"
TUS_EXTENSIONS = "creation,creation-defer-length,checksum,expiration,termination"
CHECKSUM_MISMATCH = 460
"""The status that tus 1.0's checksum extension gives to a body that does not fit its checksum."""

CLIP_ID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
PART = r"(?:0|[1-9][0-9]{0,2})"
"""At most a thousand parts."""

MAX_RECIPIENTS = 50
MAX_RECIPIENT_CHARS = 254
MAX_EXPIRY_H = 720
"""Thirty days: the longest that images of video surveillance may be kept."""
MAX_METADATA_KEYS = 64
MAX_METADATA_BYTES = 16 * 1024
MAX_JSON_BYTES = 64 * 1024
MAX_LENGTH = 2**53

_SHA256_HEX = re.compile(r"[0-9a-f]{64}")


class Refusal(VigintdError):
    """An answer other than success: `status` and, as its text, what the client is told."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True)
class Announcement:
    """The first part's creation: everything about the clip."""

    recipients: Sequence[str]
    expiry_h: float
    metadata: Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class Creation:
    """What one creation request says."""

    clip_id: str
    part: int
    announcement: Announcement | None
    """None when this part rides on a clip that was announced before."""


def creation(header: str | None) -> Creation:
    """Read Upload-Metadata (tus 1.0, creation): comma-separated `key base64` pairs."""
    pairs: dict[str, str] = {}
    for item in filter(None, (item.strip() for item in (header or "").split(","))):
        key, _, value = item.partition(" ")
        if key in pairs:
            raise Refusal(400, f"Upload-Metadata holds {key!r} twice")
        try:
            pairs[key] = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, ValueError) as error:
            raise Refusal(400, f"Upload-Metadata: {key!r} is not base64 of UTF-8") from error
    clip_id, part = pairs.get("clip", ""), pairs.get("part", "0")
    if not re.fullmatch(CLIP_ID, clip_id):
        raise Refusal(400, "Upload-Metadata: clip is a UUID in its canonical, lower-case form")
    if not re.fullmatch(PART, part):
        raise Refusal(400, "Upload-Metadata: part is a number from 0 to 999")
    if "recipients" not in pairs:
        if part == "0":
            raise Refusal(400, "Upload-Metadata: part 0 names recipients, expiry_h and metadata")
        return Creation(clip_id, int(part), None)
    announcement = Announcement(
        recipients=_recipients(pairs["recipients"]),
        expiry_h=_expiry_h(pairs.get("expiry_h", "48")),
        metadata=metadata(json_object(pairs.get("metadata", "{}").encode())),
    )
    return Creation(clip_id, int(part), announcement)


def metadata(value: Mapping[str, object]) -> dict[str, Scalar]:
    """A clip's metadata: a flat object of bounded size, its texts cleaned of what no page can show."""
    if len(value) > MAX_METADATA_KEYS:
        raise Refusal(413, f"metadata holds more than {MAX_METADATA_KEYS} keys")
    checked: dict[str, Scalar] = {}
    for key, item in value.items():
        if item is not None and not isinstance(item, str | int | float | bool):
            raise Refusal(400, "metadata is a flat object of texts, numbers, true, false and null")
        checked[clean(key)] = clean(item) if isinstance(item, str) else item
    if len(json.dumps(checked, ensure_ascii=False).encode()) > MAX_METADATA_BYTES:
        raise Refusal(413, f"metadata is larger than {MAX_METADATA_BYTES} bytes")
    return checked


def json_object(body: bytes) -> dict[str, object]:
    """A JSON object (RFC 8259, so without NaN) from bytes."""
    value = _json(body)
    if not isinstance(value, dict):
        raise Refusal(400, "a JSON object is wanted")
    return value


def length(header: str | None, name: str) -> int:
    """A count of bytes in a header."""
    if header is None or not re.fullmatch(r"[0-9]{1,16}", header, re.ASCII) or int(header) > MAX_LENGTH:
        raise Refusal(400, f"{name} is a number of bytes")
    return int(header)


def checksum(header: str | None) -> bytes:
    """The digest in Upload-Checksum, `sha256 BASE64` (tus 1.0, checksum)."""
    algorithm, _, value = (header or "").partition(" ")
    if algorithm != "sha256":
        raise Refusal(400, "Upload-Checksum: sha256 and the body's digest in base64 are required")
    try:
        digest = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != 32:
        raise Refusal(400, "Upload-Checksum is not base64 of 32 bytes")
    return digest


def seal(value: Mapping[str, object]) -> tuple[int, str]:
    """Length and hex SHA-256 of a seal's body."""
    length_bytes, sha256 = value.get("length"), value.get("sha256")
    if not isinstance(length_bytes, int) or isinstance(length_bytes, bool) or not 0 <= length_bytes <= MAX_LENGTH:
        raise Refusal(400, "length is a number of bytes")
    if not isinstance(sha256, str) or not _SHA256_HEX.fullmatch(sha256):
        raise Refusal(400, "sha256 is 64 lower-case hex digits")
    return length_bytes, sha256


def recipient(name: object) -> str:
    """Whom a link is for: an address or any other text."""
    if not isinstance(name, str) or not name or name != clean(name):
        raise Refusal(400, "each recipient is a text")
    if len(name) > MAX_RECIPIENT_CHARS:
        raise Refusal(413, f"a recipient is longer than {MAX_RECIPIENT_CHARS} characters")
    return name


def _recipients(text: str) -> tuple[str, ...]:
    value = _json(text.encode())
    if not isinstance(value, list) or not value:
        raise Refusal(400, "recipients is a JSON list of at least one")
    if len(value) > MAX_RECIPIENTS:
        raise Refusal(413, f"more than {MAX_RECIPIENTS} recipients")
    return tuple(dict.fromkeys(recipient(name) for name in value))


def _expiry_h(text: str) -> float:
    try:
        expiry_h = float(text)
    except ValueError:
        expiry_h = math.nan
    if not 0 < expiry_h <= MAX_EXPIRY_H:  # also false for NaN
        raise Refusal(400, f"expiry_h is more than 0 and at most {MAX_EXPIRY_H} hours")
    return expiry_h


def _json(body: bytes) -> object:
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "this is not JSON") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def clean(text: str) -> str:
    """`text` without NUL and lone surrogates, which a JSON text can hold and UTF-8 cannot."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()
