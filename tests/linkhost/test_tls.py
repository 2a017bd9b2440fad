"""A certificate of the host's own: what it is spoken with, what is refused, and how it is renewed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
import trustme

from tests.linkhost.client import BASE_URL, GUARD, KEY, Client, inside, path_of
from tests.linkhost.videos import fragments, video
from vigintd import metrics
from vigintd.errors import PermanentError
from vigintd.linkhost import Certificate, LinkHost, door
from vigintd.linkhost.certificate import facts_of

AUTHORITY = trustme.CA()
NAME = "videos.exemple.fr"


@dataclass(frozen=True)
class Secured:
    """A link host with a certificate."""

    host: LinkHost
    files: tuple[Path, Path]
    session: aiohttp.ClientSession

    @property
    def client(self) -> Client:
        return Client(self.session, f"https://{NAME}:{self.host.port}")

    async def serial(self, **limits: ssl.TLSVersion) -> int:
        """Shake hands and leave; answers a number of the certificate that was shown."""
        context = trusting()
        for name, version in limits.items():
            setattr(context, name, version)
        _, writer = await asyncio.open_connection("127.0.0.1", self.host.port, ssl=context, server_hostname=NAME)
        shown = writer.get_extra_info("peercert")["serialNumber"]
        writer.close()
        await writer.wait_closed()
        return int(shown, 16)


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def issue(folder: Path, *names: str, until: datetime | None = None) -> tuple[Path, Path]:
    """Write a certificate and its key; answers their paths."""
    folder.mkdir(exist_ok=True)
    begin = until - timedelta(days=90) if until else None
    issued = AUTHORITY.issue_cert(*(names or (NAME,)), not_before=begin, not_after=until)
    certificate, key = folder / "fullchain.pem", folder / "privkey.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return certificate, key


@pytest.fixture
async def secured(tmp_path, clock) -> AsyncIterator[Secured]:
    files = issue(tmp_path / "tls")
    host = LinkHost(
        tmp_path / "linkhost", base_url=BASE_URL, api_keys={"nvr": KEY}, clock=clock, certificate=Certificate(*files)
    )
    await host.start(listen=("127.0.0.1", 0), unix_path=None)

    class Here(aiohttp.abc.AbstractResolver):
        async def resolve(self, name, port=0, family=socket.AF_INET):
            return [{"hostname": name, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": 0}]

        async def close(self):
            pass

    connector = aiohttp.TCPConnector(ssl=trusting(), resolver=Here(), limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Secured(host, files, session)
    await host.aclose()


async def test_an_upload_and_its_viewer_go_through_tls(secured):
    """A clip is published and watched, by a client that checks name and authority."""
    link = await secured.client.publish(data := video(2))
    page = await secured.client.ask("GET", link)
    assert page.status == 200
    assert (await secured.client.ask("GET", inside(link, "part/0.mp4"), Range="bytes=100-299")).body == data[100:300]
    assert "linkhost.handshake_failed" not in metrics.snapshot()


async def test_nothing_older_than_tls_1_2_is_spoken(secured):
    """1.2 and 1.3 are; 1.1 is refused by us, and not by the client."""
    await secured.serial(maximum_version=ssl.TLSVersion.TLSv1_2)
    await secured.serial(minimum_version=ssl.TLSVersion.TLSv1_3)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    said, heard = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        old.wrap_bio(heard, said).do_handshake()
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        Certificate(*secured.files).context().wrap_bio(said, heard, server_side=True).do_handshake()


async def test_plain_http_gets_no_answer_on_a_tls_port(secured):
    """Not a byte of HTTP, and nothing in the log but a count."""
    reader, writer = await asyncio.open_connection("127.0.0.1", secured.host.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with contextlib.suppress(ConnectionResetError):
        assert b"HTTP" not in await reader.read()
    writer.close()
    await until(lambda: "linkhost.handshake_failed" in metrics.snapshot())


async def test_a_renewed_certificate_is_served_and_drops_nobody(secured):
    """Who watches goes on on the old connection; who comes anew is shown the new one."""
    pieces = fragments(video(2))
    before = await secured.serial()
    link = path_of((await secured.client.create()).json["links"][GUARD])
    await secured.client.append(pieces[0], 0)
    async with secured.session.get(secured.client.base + inside(link, "live/0.mp4")) as follower:
        assert await follower.content.readexactly(len(pieces[0])) == pieces[0]
        issue(secured.files[0].parent)
        await secured.host.refresh_certificate()
        assert await secured.serial() != before
        await secured.client.append(pieces[1], len(pieces[0]))
        assert await follower.content.readexactly(len(pieces[1])) == pieces[1]


@pytest.mark.parametrize("broken", ["empty", "another key", "gone", "encrypted"])
async def test_a_broken_renewal_is_told_and_the_old_certificate_kept(secured, log_text, broken):
    """Once, in a sentence that names the file; when it is mended the new one is taken."""
    before = await secured.serial()
    certificate, key = secured.files
    match broken:
        case "empty":
            certificate.write_bytes(b"")
        case "another key":
            key.write_bytes(AUTHORITY.issue_cert(NAME).private_key_pem.bytes())
        case "gone":
            certificate.unlink()
        case "encrypted":
            key.write_text(ENCRYPTED, encoding="ascii")
    for _ in range(3):
        await secured.host.refresh_certificate()
    assert await secured.serial() == before
    told = [line for line in log_text().splitlines() if "linkhost.certificate_broken" in line]
    assert len(told) == 1
    assert str(certificate) in told[0]
    issue(certificate.parent)
    await secured.host.refresh_certificate()
    assert await secured.serial() != before


async def test_whoever_stalls_in_the_handshake_is_shown_out(secured, monkeypatch):
    """By the deadline, and the oldest at once where there are too many; others come in meanwhile."""
    monkeypatch.setattr(door, "MAX_HANDSHAKES", 5)
    async with contextlib.AsyncExitStack() as stalled:
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", secured.host.port)
            stalled.callback(writer.close)
            writer.write(b"\x16\x03\x01\x02\x00")
        await until(lambda: metrics.snapshot().get("linkhost.handshake_dropped", {}).get("", 0) >= 15)
        await secured.serial()
    monkeypatch.setattr(door, "HANDSHAKE_S", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", secured.host.port)
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()


async def test_whoever_does_not_say_farewell_is_not_waited_for(secured, monkeypatch):
    """A client that never answers the end of TLS is closed in moments, and not in half a minute."""
    monkeypatch.setattr(door, "FAREWELL_S", 0.05)
    said, heard = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting().wrap_bio(heard, said, server_hostname=NAME)
    reader, writer = await asyncio.open_connection("127.0.0.1", secured.host.port)
    async with asyncio.timeout(5):
        for step in (client.do_handshake, lambda: client.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")):
            while True:
                try:
                    step()
                except ssl.SSLWantReadError:
                    writer.write(said.read())
                    heard.write(await reader.read(65536))
                else:
                    writer.write(said.read())
                    break
        with contextlib.suppress(ConnectionResetError):
            while await reader.read(65536):
                pass
    writer.close()


async def test_a_reader_over_tls_who_takes_nothing_is_let_go(secured, monkeypatch):
    """As without TLS, whose buffers are others."""
    monkeypatch.setattr("vigintd.linkhost.media.STALL_S", 0.1)
    link = path_of((await secured.client.create()).json["links"][GUARD])
    await secured.client.append(bytes(4_000_000), 0)
    context = trusting()
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(5)
        await loop.run_in_executor(None, sock.connect, ("127.0.0.1", secured.host.port))
        with await loop.run_in_executor(None, lambda: context.wrap_socket(sock, server_hostname=NAME)) as inner:
            inner.send(f"GET {inside(link, 'part/0.mp4')} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 3)
            await until(lambda: "linkhost.stalled_reader" in metrics.snapshot())


@pytest.mark.parametrize(
    ("names", "host", "covered"),
    [
        ((NAME,), NAME, True),
        ((NAME,), "autre.exemple.fr", False),
        (("*.exemple.fr",), NAME, True),
        (("*.exemple.fr",), "exemple.fr", False),
        (("192.0.2.7",), "192.0.2.7", True),
    ],
)
def test_a_certificate_says_whom_it_is_for(tmp_path, names, host, covered):
    assert facts_of(*issue(tmp_path, *names)).covers(host) is covered


def test_an_expired_certificate_is_read_all_the_same(tmp_path):
    """Whoever looks at it wants to know since when."""
    over = datetime.now(UTC).replace(microsecond=0) - timedelta(days=3)
    facts = facts_of(*issue(tmp_path, until=over))
    assert facts.expires_at == over


async def test_without_a_good_certificate_the_host_does_not_start(tmp_path, clock):
    """And says which files to correct."""
    host = LinkHost(
        tmp_path / "linkhost",
        base_url=BASE_URL,
        api_keys={},
        clock=clock,
        certificate=Certificate(tmp_path / "no.pem", tmp_path / "no.key"),
    )
    with pytest.raises(PermanentError, match=r"no\.pem cannot be read: No such file.*linkhost\.certificate"):
        await host.start(listen=("127.0.0.1", 0), unix_path=None)


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not happened():  # noqa: ASYNC110 - a count has no event
            await asyncio.sleep(0)


ENCRYPTED = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAg64An0Kv6IawICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEH/UpJHQOJw8lplJG1TZzfcEgZC/
hd3Y26qcvgOY9bOYfOZMOE6cfP9rVXu1QhCaCj9fyFwvsXmHqEe1HPA7oHqdD+IA
htFMVMMvO6RRGUUKMo9w+8RxLQPot/wDM16bD1pUQ2I70pyfL+DRoBSZ6fdXICEt
anGsiseIISaSnx6JyEtOs3sBb1MT7eL8Uv10FVQkZBPRS89beN9GJwYsp3aPNfY=
-----END ENCRYPTED PRIVATE KEY-----
"""
