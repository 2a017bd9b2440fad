"""User name and password as cameras ask for them over RTSP: Basic (RFC 7617), Digest (RFC 2617 and RFC 7616).

Owns the challenge and the check of what a client answers, and nothing of the connection. Cameras differ in what they
offer: Digest without `qop`, Digest with it, both Digest and Basic, or SHA-256 ahead of MD5.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

from vigintd.demo.rtsp import Request, Response

Scheme = Literal["basic", "digest", "digest-qop", "digest-sha256"]

_PAIR = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,]*))')


@dataclass
class Lock:
    """Lets in who knows `user` and `password`; both may be changed while the camera runs."""

    schemes: tuple[Scheme, ...] = ("digest",)
    """What is offered, a header each, in this order."""
    user: str = "admin"
    password: str = "the right one"
    realm: str = "IP camera"
    nonce: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def credentials(self) -> str:
        """User name and password as they stand in a URL."""
        return f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"

    def refusal(self, request: Request) -> Response | None:
        """The 401 for a request that shows no right password, or None for one that does."""
        if self._admits(request):
            return None
        # One name with several values (RFC 9110, section 5.3), which a mapping cannot hold otherwise.
        offers = "\r\nWWW-Authenticate: ".join(map(self._challenge, self.schemes))
        return Response(401, {"WWW-Authenticate": offers})

    def _admits(self, request: Request) -> bool:
        scheme, _, rest = request.headers.get("authorization", "").partition(" ")
        if scheme == "Basic" and "basic" in self.schemes:
            expected = base64.b64encode(f"{self.user}:{self.password}".encode()).decode("ascii")
            return hmac.compare_digest(rest.strip().encode(), expected.encode())
        return scheme == "Digest" and self._admits_digest(request, {key: a or b for key, a, b in _PAIR.findall(rest)})

    def _admits_digest(self, request: Request, shown: dict[str, str]) -> bool:
        """RFC 2617, sections 3.2.2.1 to 3.2.2.3; without `qop`, section 3.2.2.1's last form."""
        algorithm = shown.get("algorithm", "MD5")
        offered = {"digest-sha256": "SHA-256"}
        if algorithm not in {offered.get(scheme, "MD5") for scheme in self.schemes if scheme != "basic"}:
            return False
        known = {"username": self.user, "realm": self.realm, "nonce": self.nonce, "uri": request.url}
        if any(shown.get(key) != value for key, value in known.items()):
            return False
        name = "sha256" if algorithm == "SHA-256" else "md5"
        middle = [self.nonce]
        if "qop" in shown:
            middle += [shown.get("nc", ""), shown.get("cnonce", ""), shown["qop"]]
        secret = _hashed(name, self.user, self.realm, self.password)
        expected = _hashed(name, secret, *middle, _hashed(name, request.method, request.url))
        return hmac.compare_digest(shown.get("response", ""), expected)

    def _challenge(self, scheme: Scheme) -> str:
        if scheme == "basic":
            return f'Basic realm="{self.realm}"'
        more = {"digest": "", "digest-qop": ', algorithm=MD5, qop="auth"', "digest-sha256": ', algorithm=SHA-256, qop="auth"'}
        return f'Digest realm="{self.realm}", nonce="{self.nonce}"{more[scheme]}'


def _hashed(name: str, *parts: str) -> str:
    return hashlib.new(name, ":".join(parts).encode("utf-8")).hexdigest()
