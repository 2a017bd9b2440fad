"""A real nginx before the link host, set up as docs/guide/linkhost-behind-a-proxy.md says."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import re
import shutil
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

import aiohttp
import pytest

from tests.daemon.box import free_port
from tests.linkhost.client import BASE_URL, CLIP, GUARD, KEY, METADATA, Client, b64, inside, path_of, rows
from tests.linkhost.test_tls import NAME, issue, trusting
from tests.linkhost.videos import fragments, video
from tests.real.parts import NGINX_PATH
from vigintd.linkhost import AuditKind, LinkHost, Proxies

pytestmark = pytest.mark.needs("nginx")

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "linkhost-behind-a-proxy.md"
FAR = "127.5.6.7"
"""A visitor's address that is not nginx's."""


@dataclass(frozen=True)
class Proxied:
    host: LinkHost
    port: int
    session: aiohttp.ClientSession

    @property
    def client(self) -> Client:
        return Client(self.session, f"https://127.0.0.1:{self.port}")


def site(certificate: Path, key: Path, *, port: int, upstream: int) -> str:
    """The guide's own server, moved to these ports and files."""
    block = GUIDE.read_text(encoding="utf-8").partition("```nginx\n")[2].partition("\n}\n")[0] + "\n}\n"
    for pattern, ours in (
        (r"listen 443 ssl http2;", f"listen 127.0.0.1:{port} ssl http2;"),
        (r"listen \[::\]:443 ssl http2;\n", ""),
        (r"/etc/letsencrypt/\S+/fullchain.pem", str(certificate)),
        (r"/etc/letsencrypt/\S+/privkey.pem", str(key)),
        (r"/var/log/nginx/vigintd.log", str(certificate.with_name("nginx.log"))),
        (r"127.0.0.1:8443", f"127.0.0.1:{upstream}"),
    ):
        block, count = re.subn(pattern, ours, block)
        assert count == 1, pattern
    return block


@pytest.fixture
async def proxied(tmp_path, clock) -> AsyncIterator[Proxied]:
    host = LinkHost(
        tmp_path / "linkhost", base_url=BASE_URL, api_keys={"nvr": KEY}, clock=clock, proxies=Proxies([ip_network("127.0.0.1")])
    )
    await host.start(listen=("127.0.0.1", 0), unix_path=None)
    port, tls = free_port(), tmp_path / "tls"
    certificate, key = issue(tls, NAME, "127.0.0.1")
    kept = "".join(f"{kind}_temp_path {tls};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (tls / "nginx.conf").write_text(
        f"daemon off; master_process off; worker_processes 1; pid {tls}/nginx.pid; error_log {tls}/nginx.log;\n"
        f"events {{}} http {{ {kept}\n{site(certificate, key, port=port, upstream=host.port)}\n}}\n",
        encoding="utf-8",
    )
    nginx = await asyncio.create_subprocess_exec(
        str(shutil.which("nginx", path=NGINX_PATH)), "-c", str(tls / "nginx.conf"), stderr=asyncio.subprocess.PIPE
    )
    try:
        await listening(nginx, port)
        far = aiohttp.TCPConnector(ssl=trusting(), local_addr=(FAR, 0), limit=0)
        async with aiohttp.ClientSession(connector=far, auto_decompress=False) as session:
            yield Proxied(host, port, session)
    finally:
        nginx.kill()
        await nginx.communicate()
        await host.aclose()


async def listening(nginx: asyncio.subprocess.Process, port: int) -> None:
    async with asyncio.timeout(10):
        while nginx.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return
    assert nginx.stderr is not None
    pytest.fail((await nginx.stderr.read()).decode())


async def test_a_recording_comes_through_as_it_grows(proxied):
    """Each fragment is with the viewer before the next one is sent."""
    pieces = fragments(video(2))
    link = path_of((await proxied.client.create()).json["links"][GUARD])
    await proxied.client.append(pieces[0], offset := 0)
    async with proxied.session.get(proxied.client.base + inside(link, "live/0.mp4")) as follower, asyncio.timeout(10):
        assert await follower.content.readexactly(len(pieces[0])) == pieces[0]
        for before, piece in itertools.pairwise(pieces):
            offset += len(before)
            assert (await proxied.client.append(piece, offset)).status == 204
            assert await follower.content.readexactly(len(piece)) == piece
        await proxied.client.seal(b"".join(pieces))
        assert await follower.content.read() == b""


async def test_what_breaks_off_here_breaks_off_there(proxied):
    """Nobody takes a recording that was cut for a whole one."""
    link = path_of((await proxied.client.create()).json["links"][GUARD])
    await proxied.client.create(part=1)
    await proxied.client.append(b"a" * 1000, 0)
    async with proxied.session.get(proxied.client.base + inside(link, "live/0.mp4")) as follower, asyncio.timeout(10):
        assert await follower.content.readexactly(1000) == b"a" * 1000
        assert (await proxied.client.api("DELETE", f"/uploads/{CLIP}.0")).status == 204
        with pytest.raises(aiohttp.ClientError):
            await follower.content.read()


async def test_an_upload_reaches_the_disk_while_it_comes(proxied, tmp_path):
    """Its first half is written although the second has not been sent."""
    data, go_on = bytes(1_200_000), asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield data[:600_000]
        await go_on.wait()
        yield data[600_000:]

    await proxied.client.create(metadata={**METADATA, "text": "x" * 15_000})
    checksum = f"sha256 {b64(hashlib.sha256(data).digest())}"
    upload = asyncio.create_task(proxied.client.append(b"", 0, body=pieces(), Upload_Checksum=checksum))
    file = tmp_path / "linkhost" / "clips" / f"{CLIP}.0.mp4"
    async with asyncio.timeout(10):
        while not file.exists() or not file.stat().st_size:
            await proxied.client.head()
    go_on.set()
    assert (await upload).status == 204


async def test_the_record_holds_the_visitors_own_address(proxied):
    """And not the proxy's, nor the one that the visitor claims."""
    link = await proxied.client.publish(data := video(2))
    claimed = {"X_Forwarded_For": "192.0.2.1", "Forwarded": "for=192.0.2.2", "X_Real_IP": "192.0.2.3"}
    part = await proxied.client.ask("GET", inside(link, "part/0.mp4"), Range="bytes=0-999", **claimed)
    assert (part.status, part.body) == (206, data[:1000])
    (row,) = await rows(proxied.host, AuditKind.PLAY, 1)
    assert row.address == "127.5.6.0/24"


async def test_browsers_get_http_2_and_no_log_gets_a_token(proxied, tmp_path):
    """Also when the host behind is gone, of which nginx would write with the address."""
    link = await proxied.client.publish(video(2))
    context = trusting()
    context.set_alpn_protocols(["h2", "http/1.1"])
    _, writer = await asyncio.open_connection("127.0.0.1", proxied.port, ssl=context, server_hostname=NAME)
    spoken = writer.get_extra_info("ssl_object")
    assert isinstance(spoken, ssl.SSLObject)
    assert spoken.selected_alpn_protocol() == "h2"
    writer.close()
    await proxied.host.aclose()
    assert (await proxied.client.ask("GET", link)).status == 502
    token = link.partition("token=")[2]
    kept = [path for path in (tmp_path / "tls").iterdir() if path.is_file()]
    assert kept
    assert not [path for path in kept if token.encode() in path.read_bytes()]
