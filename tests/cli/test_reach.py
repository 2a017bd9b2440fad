"""What `vigintd check` says of the way in: the certificate, and who stands before the link host."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from pydantic import ValidationError

from vigintd.cli import reach
from vigintd.cli.check import State, examine, real_probes
from vigintd.config import LinkhostSettings, load
from vigintd.errors import PermanentError

NOW = datetime(2026, 3, 14, 9, 0, tzinfo=UTC)
NAME = "videos.exemple.fr"
URL = f"https://{NAME}"


def certified(folder: Path, *, name: str = NAME, until: datetime) -> LinkhostSettings:
    issued = trustme.CA().issue_cert(name, not_before=until - timedelta(days=90), not_after=until)
    (folder / "c.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    (folder / "k.pem").write_bytes(issued.private_key_pem.bytes())
    return LinkhostSettings(public_url=URL, certificate=folder / "c.pem", key=folder / "k.pem")


@pytest.mark.parametrize(
    ("name", "left", "notes"),
    [
        (NAME, timedelta(days=60), []),
        (NAME, timedelta(days=13), ["it expires on 2026-03-27 09:00 UTC"]),
        (NAME, timedelta(days=-1), ["it has expired on 2026-03-13 09:00 UTC: browsers refuse it"]),
        ("autre.fr", timedelta(days=60), ["it is for autre.fr and not for videos.exemple.fr"]),
    ],
)
async def test_a_certificate_is_told_before_visitors_are(tmp_path, name, left, notes):
    result, found = await reach.certificate(certified(tmp_path, name=name, until=NOW + left), NOW)
    assert result == f"for {name}, until {NOW + left:%Y-%m-%d %H:%M} UTC"
    assert [note for note, _ in found] == notes


async def test_a_broken_certificate_is_a_failure(tmp_path):
    settings = certified(tmp_path, until=NOW)
    (tmp_path / "k.pem").write_text("no key", encoding="ascii")
    with pytest.raises(PermanentError, match=r"c\.pem and .*k\.pem are no certificate and its own unencrypted key"):
        await reach.certificate(settings, NOW)


@pytest.mark.parametrize(
    ("given", "note"),
    [
        ({"listen": "0.0.0.0:8443"}, "anybody on the network reaches 0.0.0.0:8443 without TLS"),
        ({"listen": "[::]:8443", "trusted_proxies": ("127.0.0.1",)}, "anybody on the network reaches"),
        ({"listen": "10.0.0.5:8443", "trusted_proxies": ("10.0.0.1",), "public_url": URL}, None),
        ({"listen": "0.0.0.0:8443", "certificate": "c", "key": "k", "public_url": URL}, None),
        ({"public_url": URL}, "a web server before it is not trusted to say who visits"),
        ({"public_url": URL, "trusted_proxies": ("127.0.0.1",)}, None),
        ({}, None),
    ],
)
def test_what_stands_before_it_is_told_where_something_is_missing(given, note):
    found = [text for text, _ in reach.notes(LinkhostSettings(**given))]
    assert [text.startswith(note or "-") for text in found] == [True] * (note is not None)


async def test_check_really_tries_the_certificate(config, tmp_path):
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    files = certified(tmp_path, until=until)
    environ = {
        "VIGINTD_LINKHOST__PUBLIC_URL": URL,
        "VIGINTD_LINKHOST__CERTIFICATE": str(files.certificate),
        "VIGINTD_LINKHOST__KEY": str(files.key),
    }
    found = [one for one in await examine(load(config, environ=environ), real_probes()) if one.what == "certificate"]
    assert [one.state for one in found] == [State.OK, State.NOTE]
    assert found[1].result.startswith("it expires on")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"certificate": "/c.pem"}, "goes together with certificate; give both or neither"),
        ({"key": "/k.pem"}, "goes together with certificate; give both or neither"),
        ({"trusted_proxies": ("nginx",)}, "'nginx' is not an address or a network"),
        ({"trusted_proxies": ("10.0.0.5/24",)}, "is not an address or a network"),
        ({"trusted_proxies": ("0.0.0.0/0",)}, "is everybody"),
        ({"proxy_header": "X-Real-IP"}, "X-Forwarded-For"),
    ],
)
def test_a_wrong_way_in_is_refused(given, said):
    with pytest.raises(ValidationError, match=said):
        LinkhostSettings(**given)


def test_links_begin_with_https_where_there_is_a_certificate():
    assert LinkhostSettings(listen="10.0.0.5:443", certificate=Path("c"), key=Path("k")).base_url == "https://10.0.0.5:443"
    assert LinkhostSettings(listen="10.0.0.5:443").base_url == "http://10.0.0.5:443"
