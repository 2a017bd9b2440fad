"""What `vigintd check` says of how the link host is reached: its certificate, and who stands before it.

Owns the sentences. Prints nothing; the certificate is tried by `linkhost.certificate`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from vigintd.config import LinkhostSettings, is_loopback

SOON = timedelta(days=14)
"""Who renews by themselves do so a month before; later than this something is wrong."""

Note = tuple[str, str]
"""What works and is probably not meant, and what to do."""


def notes(settings: LinkhostSettings) -> Iterator[Note]:
    """Of what is configured."""
    if settings.in_the_clear:
        yield (
            f"anybody on the network reaches {settings.listen} without TLS, and reads links and keys on the way",
            "set linkhost.certificate and linkhost.key, or listen on 127.0.0.1 behind a web server with a certificate",
        )
    elif is_loopback(settings.address[0]) and settings.public_url and not settings.trusted_proxies:
        yield (
            "a web server before it is not trusted to say who visits: the record shows its own address for everybody",
            'set linkhost.trusted_proxies = ["127.0.0.1"], and have it write X-Forwarded-For',
        )


async def certificate(settings: LinkhostSettings, now: datetime) -> tuple[str, list[Note]]:
    """What the certificate is good for, and what of it is not as it should be. Raises `PermanentError` for a broken one."""
    from vigintd.linkhost.certificate import facts_of  # noqa: PLC0415  (every command loads this module)

    assert settings.certificate_files is not None
    facts = await asyncio.to_thread(facts_of, *settings.certificate_files)
    host, until = urlsplit(settings.base_url).hostname or "", f"{facts.expires_at:%Y-%m-%d %H:%M} UTC"
    found: list[Note] = []
    if facts.expires_at <= now:
        found.append((f"it has expired on {until}: browsers refuse it", "renew it; vigintd takes the new one by itself"))
    elif facts.expires_at - now < SOON:
        found.append((f"it expires on {until}", "see why it was not renewed; vigintd takes the new one by itself"))
    if not facts.covers(host):
        found.append(
            (
                f"it is for {', '.join(facts.names) or 'nobody'} and not for {host}",
                "ask for one with the name in linkhost.public_url",
            )
        )
    return f"for {', '.join(facts.names) or 'nobody'}, until {until}", found
