"""The host's own certificate: read, tried, and read again when its files change.

Owns the TLS context of listeners. What is new is tried by a handshake in memory before anybody meets it; a file that is
broken changes nothing. Blocking, but for a few milliseconds: files are read off the loop.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from vigintd import metrics
from vigintd.errors import PermanentError

_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which Python's `ssl` does not name: an expired certificate is looked at as well."""
_HANDSHAKE_STEPS = 8

_log = structlog.get_logger(__name__)

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a certificate says of itself."""

    expires_at: datetime
    names: Sequence[str]
    """DNS names and addresses that it is for; a name may begin with `*.`."""

    def covers(self, host: str) -> bool:
        """Whether it is for this host (RFC 9525, section 6.3)."""
        wild = f"*.{host.partition('.')[2]}"
        return any(name.lower() in (host.lower(), wild.lower()) for name in self.names)


class Certificate:
    """A certificate and its key in PEM files, the server's own certificate first in its file."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._paths = (certificate, key)
        self._context: ssl.SSLContext | None = None
        self._served: ssl.SSLContext | None = None
        self._stamp: _Stamp = ()

    def context(self) -> ssl.SSLContext:
        """What listeners shake hands with, now and after every change. Raises `PermanentError` as `facts_of` does."""
        if self._context is None:
            self._stamp = self._stamped()
            self._context = self._served = _context(*self._paths)
            facts_of(*self._paths)
            # Each handshake asks which certificate is served at that moment; who is connected keeps what they have.
            self._context.sni_callback = self._choose
        return self._context

    def refresh(self) -> None:
        """Serve what the files hold now, where they have changed; what is broken is told once, and the old one kept."""
        try:
            stamp = self._stamped()
        except PermanentError:
            stamp = ()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            fresh = _context(*self._paths)
            facts = facts_of(*self._paths)
        except PermanentError as error:
            metrics.count("linkhost.certificate_broken")
            _log.error("linkhost.certificate_broken", error=str(error), problem="the one from before is served on")
            return
        self._served = fresh
        _log.info("linkhost.certificate_renewed", expires_at=facts.expires_at.isoformat())

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        if self._served is not None and self._served is not self._context:
            connection.context = self._served

    def _stamped(self) -> _Stamp:
        try:
            found = [path.stat() for path in self._paths]
        except OSError as error:
            raise PermanentError(_unreadable(error)) from error
        return tuple((one.st_mtime_ns, one.st_size, one.st_ino) for one in found)


def facts_of(certificate: Path, key: Path) -> Facts:
    """What the certificate says, once a handshake with it has gone well.

    Raises `PermanentError` with what to do where a file cannot be read, they do not belong together, or no browser
    would shake hands with it. An expired one is no error here.
    """
    server = _context(certificate, key)
    try:
        own = ssl.PEM_cert_to_DER_cert(_first(certificate.read_text(encoding="ascii", errors="replace")))
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.load_verify_locations(cadata=own)
        client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
        told = _shake_hands(server, client)
    except (ssl.SSLError, ValueError) as error:
        raise PermanentError(
            f"{certificate} is no certificate that browsers take ({_reason(error)}); ask for another"
        ) from error
    names = [str(value) for kind, value in told.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    return Facts(datetime.fromtimestamp(ssl.cert_time_to_seconds(told["notAfter"]), UTC), names)


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a callback, OpenSSL would ask on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        told = f"{certificate} and {key} are no certificate and its own unencrypted key, in PEM ({_reason(error)})"
        raise PermanentError(f"{told}; correct linkhost.certificate and linkhost.key, or the files") from error
    except OSError as error:
        raise PermanentError(_unreadable(error, certificate, key)) from error
    return context


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)]
    for step in range(_HANDSHAKE_STEPS):
        try:
            ends[step % 2].do_handshake()
        except ssl.SSLWantReadError:
            continue
    return ends[0].getpeercert() or {}


def _first(pem: str) -> str:
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    inner, found, _ = pem.partition(begin)[2].partition(end)
    if not found:
        raise ValueError("there is no certificate in it")
    return f"{begin}{inner}{end}\n"


def _unreadable(error: OSError, *paths: Path) -> str:
    name = error.filename or " or ".join(map(str, paths))
    return f"{name} cannot be read: {error.strerror}; correct linkhost.certificate and linkhost.key, or the rights of the files"


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error).replace("_", " ").lower()
