"""`[linkhost]`: where the link host listens, what people call it, and what stands before it."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from vigintd.config.section import Section, is_loopback, split_address


class LinkhostSettings(Section):
    """`[linkhost]`: the built-in link host."""

    listen: str = "127.0.0.1:8443"
    public_url: str | None = None
    """How people reach it, without a trailing slash; where links begin. `https://{listen}` with a certificate and
    `http://{listen}` without one when not given."""
    certificate: Path | None = None
    """PEM file of the host's own certificate and those that lead to its authority; without one it speaks plain HTTP."""
    key: Annotated[Path | None, Field(validate_default=True)] = None
    """PEM file of the certificate's key, unencrypted."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of reverse proxies: what they say of whom they speak for is believed."""
    proxy_header: Literal["X-Forwarded-For", "Forwarded"] = "X-Forwarded-For"
    """The header by which they say it."""

    @field_validator("listen")
    @classmethod
    def _address_and_port(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not (host and colon and port.isdecimal() and 0 < int(port) < 65_536):
            raise ValueError("write ADDRESS:PORT, such as 127.0.0.1:8443")
        return value

    @field_validator("public_url")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value is None:
            return value
        parts = split_address(value, "https://videos.exemple.fr")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("write the address people open, such as https://videos.exemple.fr")
        return value.rstrip("/")

    @field_validator("key")
    @classmethod
    def _with_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if "certificate" in info.data and (info.data["certificate"] is None) != (value is None):
            raise ValueError("goes together with certificate; give both or neither")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            try:
                network = ipaddress.ip_network(text)
            except ValueError:
                raise ValueError(f"{text!r} is not an address or a network, such as 127.0.0.1 or 10.0.0.0/24") from None
            if network.prefixlen == 0:
                raise ValueError(f"{text!r} is everybody, and anybody could claim any address; name the proxy alone")
        return value

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def base_url(self) -> str:
        """What every link begins with."""
        return self.public_url or f"{'https' if self.certificate else 'http'}://{self.listen}"

    @property
    def proxies(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """`trusted_proxies` as networks."""
        return tuple(ipaddress.ip_network(text) for text in self.trusted_proxies)

    @property
    def certificate_files(self) -> tuple[Path, Path] | None:
        """Certificate and key, where it speaks TLS itself."""
        return (self.certificate, self.key) if self.certificate is not None and self.key is not None else None

    @property
    def in_the_clear(self) -> bool:
        """Others than a proxy can reach it over a network, without TLS."""
        proxied = any(not network.network_address.is_loopback for network in self.proxies)
        return not is_loopback(self.address[0]) and self.certificate is None and not proxied
