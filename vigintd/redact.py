"""What may not be read in a log, an exception or a metric: passwords, API keys, link tokens.

Owns the patterns and the process's list of secrets to hide. A secret is registered where it is read
(`hide`); text that comes from outside (FFmpeg's errors hold whole URLs) passes through `redacted`.
"""

from __future__ import annotations

import json
import re
from urllib.parse import quote, quote_plus

MASK = "***"

_MIN_SECRET_LENGTH = 4
"""Shorter strings would blank ordinary words."""

# A password typed into a URL may hold / @ ? or a quote: after `user:` everything up to the last @ of the word counts as it,
# even where that swallows a harmless path.
_USERINFO = re.compile(r"(?<=://)(?:[^\s/:@]{0,200}:\S{0,500}|[^\s/@]{1,200}(?:@[^\s/@]{1,200}){0,3})(?=@)")
_NAMES = r"(?:token|api[_-]?key|password|passwd|pwd|secret)"
# After a bare `name:` only what stands in quotes is a value; the rest is a sentence, such as "mail.password: is required".
_TOKEN = re.compile(
    rf"(?i)({_NAMES}(?:=|%3D|['\"]\s?:\s?|\s?[:=]\s?(?=['\"])))"
    r"""('(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|['"]?[^\s&'",}]+)""",
)
_HEADER = re.compile(
    rf"(?i)\b((?:x-(?:[a-z]+-)*{_NAMES})\s?:\s?)[^\s'\",]+"
    r"""|\b((?:proxy-)?authorization\s?:\s?)[^\s'"][^\r\n'"]*"""
)
_SECRET_NAME = re.compile(rf"(?i)(?:^|_|-){_NAMES}$")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")

_secrets: set[str] = set()


def hide(secret: str) -> None:
    """Blank this string in every text redacted from now on, also as URLs, JSON and `repr` write it.

    A secret shorter than four characters is not hidden: it would blank ordinary words.
    """
    if len(secret) < _MIN_SECRET_LENGTH:
        return
    escaped = (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1])
    _secrets.update({secret, quote(secret), quote(secret, safe=""), quote_plus(secret), *escaped})


def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds a secret, such as `api_key` or `smtp_password`."""
    return _SECRET_NAME.search(name) is not None


def redacted(text: str) -> str:
    """`text` without credentials in URLs, tokens in queries, bearer keys and registered secrets."""
    text = _USERINFO.sub(MASK, text)
    text = _TOKEN.sub(rf"\g<1>{MASK}", text)
    text = _HEADER.sub(lambda found: f"{found[1] or found[2]}{MASK}", text)
    text = _BEARER.sub(rf"\g<1> {MASK}", text)
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text
