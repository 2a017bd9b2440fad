"""Pages from templates, in French and English.

Owns the words, the choice of language, how times, sizes and figures read, and the static files with their hashed
names. Everything that comes from outside is escaped by the templates; nothing here asks the network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path

import jinja2
from babel.core import negotiate_locale
from babel.dates import format_datetime, format_timedelta
from babel.numbers import format_decimal, format_percent

from vigintd.linkhost.showing import ClipState, Showing, file_name
from vigintd.linkhost.store import Clip
from vigintd.linkhost.words import RISKS, TYPES, WORDS

_FOLDER = Path(__file__).parent / "pages"
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_MAX_SHOWN_CHARS = 4000

LANGUAGES = tuple(WORDS)


@dataclass(frozen=True, slots=True)
class Asset:
    """A static file as it is served."""

    data: bytes
    content_type: str


class Pages:
    """The templates, loaded once. `root` is the path that this host has to the outside, with a slash at its end."""

    def __init__(self, language: str, *, root: str = "/") -> None:
        self._root = root
        self._language = language if language in LANGUAGES else LANGUAGES[0]
        self._names: dict[str, str] = {}
        self.assets: dict[str, Asset] = {}
        """By hashed name."""
        for path in sorted(_FOLDER.iterdir()):
            if path.suffix in _TYPES:
                data = path.read_bytes()
                name = f"{path.stem}.{hashlib.sha256(data).hexdigest()[:12]}{path.suffix}"
                self._names[path.name] = name
                self.assets[name] = Asset(data, _TYPES[path.suffix])
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_FOLDER),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def clip(self, showing: Showing, token: str, accept_language: str, length_s: float = 0) -> str:
        """The page of a clip, for whoever holds `token`. `length_s` is that of all its parts, 0 where it is not known."""
        clip = showing.clip
        language = self.language(clip, accept_language)
        at = _moment(clip.metadata.get("at"))
        zone = at.tzinfo if at is not None and at.tzinfo is not None else UTC
        values = {
            "state": showing.state.value,
            "version": showing.version,
            "clip_id": clip.id,
            "token": token,
            "site": _shown(clip, "site"),
            "camera": _shown(clip, "camera"),
            "kind": _kind(clip, language),
            "at": at,
            "at_text": _time_text(at, zone, language) if at else _shown(clip, "at"),
            "risk": _risk(clip),
            "risk_text": RISKS[language][_risk(clip)],
            "confidence": _confidence(clip, language),
            "analysis": _shown(clip, "text"),
            "length": _length(length_s) if length_s else "",
            "size": _size(showing.size_bytes, language) if showing.size_bytes else "",
            "mismatched": showing.mismatched,
            "expires_at": clip.expires_at,
            "expires_text": _time_text(clip.expires_at, zone, language, seconds=False),
            "expires_in": format_timedelta(clip.expires_at - showing.now, add_direction=True, locale=language),
            "parts": [
                {
                    "index": part.index,
                    "sha256": part.sha256,
                    "size": _size(part.offset_bytes, language),
                    "file_name": file_name(clip, part.index),
                }
                for part in showing.playable
            ],
            "states": {state.name: state.value for state in ClipState},
        }
        return self._render("clip.html", language, values)

    def gone(self, clip: Clip, accept_language: str) -> str:
        """The page after a clip's time."""
        return self._render("message.html", self.language(clip, accept_language), {"message": "gone"})

    def refusal(self, status: int, accept_language: str) -> str:
        """The page for any other answer; for 404 the same whatever was wrong."""
        message = {404: "not_found", 503: "busy"}.get(status, "failed")
        return self._render("message.html", self.language(None, accept_language), {"message": message})

    def language(self, clip: Clip | None, accept_language: str) -> str:
        """The clip's language, else the first that the browser asks for and we speak, else the host's."""
        wanted = clip.metadata.get("language") if clip is not None else None
        if wanted in LANGUAGES:
            return str(wanted)
        return negotiate_locale(_preferred(accept_language), LANGUAGES, sep="-") or self._language

    def _render(self, template: str, language: str, values: Mapping[str, object]) -> str:
        return self._templates.get_template(template).render(
            {"root": self._root, **values}, lang=language, words=WORDS[language], asset=self._names.__getitem__
        )


def _preferred(accept_language: str) -> list[str]:
    """Language tags of an Accept-Language header (RFC 9110, section 12.5.4), the most wanted first."""
    weighted: list[tuple[float, str]] = []
    for item in accept_language[:500].split(","):
        tag, _, parameters = item.partition(";")
        try:
            weight = float(parameters.strip().removeprefix("q=") or 1)
        except ValueError:
            continue
        if tag.strip().replace("-", "").isalnum() and weight > 0:
            weighted.append((weight, tag.strip()))
    return [tag for _, tag in sorted(weighted, key=lambda pair: -pair[0])]


def _shown(clip: Clip, key: str) -> str:
    value = clip.metadata.get(key)
    return "" if value is None else str(value)[:_MAX_SHOWN_CHARS].strip()


def _kind(clip: Clip, language: str) -> str:
    kind = _shown(clip, "type")
    kind = TYPES[language].get(kind.lower(), kind) or WORDS[language]["incident"]
    return kind[0].upper() + kind[1:]


def _risk(clip: Clip) -> str:
    risk = _shown(clip, "risk").upper()
    return risk if risk in RISKS["en"] else "UNKNOWN"


def _confidence(clip: Clip, language: str) -> str:
    value = clip.metadata.get("confidence")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        return ""
    return format_percent(value, locale=language)


def _moment(value: object) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _time_text(moment: datetime, zone: tzinfo, language: str, *, seconds: bool = True) -> str:
    """A time in words, on the clock of `zone`, with the offset so that nobody has to guess."""
    local = moment.astimezone(zone) if moment.tzinfo is not None else moment
    pattern = WORDS[language]["time_pattern"] + (":ss" if seconds else "")
    text = format_datetime(local, pattern, tzinfo=local.tzinfo, locale=language)
    if moment.tzinfo is None:
        return text
    offset = local.strftime("%z")
    return f"{text} (UTC{'' if offset == '+0000' else f'{offset[:3]}:{offset[3:5]}'})"


def _length(length_s: float) -> str:
    """As players write it: `0:20`, `1:02:03`."""
    minutes, seconds = divmod(round(length_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _size(size_bytes: int, language: str) -> str:
    units = WORDS[language]["byte_units"].split()
    value, unit = float(size_bytes), units[0]
    for unit in units:  # noqa: B007  (the unit that was reached is what is wanted)
        if value < 1000:
            break
        value /= 1000
    else:
        value *= 1000
    return f"{format_decimal(value, '#,##0.#', locale=language)} {unit}"
