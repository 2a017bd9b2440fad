"""The host's own life: starting, restarting, letting clips go, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sqlite3
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.linkhost.client import BASE_URL, CLIP, GUARD, KEY, OTHER_CLIP, OTHER_KEY, Client, inside
from tests.linkhost.videos import fragments, video
from vigintd.clock import Clock
from vigintd.errors import PermanentError
from vigintd.linkhost import AuditKind, LinkHost
from vigintd.linkhost.files import Files
from vigintd.linkhost.growth import Turns
from vigintd.publish import ClipRequest
from vigintd.publish.tus import TusHost


async def _body(piece: bytes) -> AsyncIterator[bytes]:
    yield piece


def make(folder: Path, clock: Clock, **options: Any) -> LinkHost:
    return LinkHost(folder, **{"base_url": BASE_URL, "api_keys": {"nvr": KEY}, "clock": clock, **options})


async def test_links_and_offsets_outlive_the_process(tmp_path, clock, session):
    """After a restart the same links open the same clips, and an upload goes on where it was."""
    data = video(2)
    host = make(tmp_path, clock)
    await host.start(listen=("127.0.0.1", 0), unix_path=None)
    client = Client(session, f"http://127.0.0.1:{host.port}")
    link = await client.publish(data)
    await client.create(OTHER_CLIP)
    await client.append(data[:1000], 0, OTHER_CLIP)
    await host.aclose()
    host = make(tmp_path, clock)
    await host.start(listen=("127.0.0.1", 0), unix_path=None)
    client = Client(session, f"http://127.0.0.1:{host.port}")
    try:
        assert (await client.ask("GET", inside(link, "part/0.mp4"))).body == data
        assert (await client.head(OTHER_CLIP)).headers["Upload-Offset"] == "1000"
        assert (await client.append(data[1000:], 1000, OTHER_CLIP)).status == 204
        assert (await client.seal(data, OTHER_CLIP)).status == 200
        assert [row.kind for row in await host.audit(CLIP)][-1] == AuditKind.PLAY
    finally:
        await host.aclose()


async def test_neither_database_nor_key_file_alone_opens_a_clip(tmp_path, client, host):
    """The database holds no token and no API key; the key lies beside it, for its owner alone."""
    link = await client.publish(video(2))
    token = link.partition("token=")[2]
    folder = tmp_path / "linkhost"
    stored = b"".join(path.read_bytes() for path in folder.glob("linkhost.sqlite3*"))
    key = (folder / "link.key").read_bytes()
    assert len(key) == 32
    assert CLIP.encode() in stored
    for secret in (token.encode(), KEY.encode(), key):
        assert secret not in stored
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "link.key").stat().st_mode & 0o777 == 0o600


async def test_a_lost_or_foreign_link_key_opens_nothing(tmp_path, clock, session):
    """With another key old links are the plain 404; a file that is no key stops the start with what to do."""
    host = make(tmp_path, clock)
    await host.start(listen=("127.0.0.1", 0), unix_path=None)
    link = await Client(session, f"http://127.0.0.1:{host.port}").publish(video(2))
    await host.aclose()
    (tmp_path / "link.key").unlink()
    host = make(tmp_path, clock)
    await host.start(listen=("127.0.0.1", 0), unix_path=None)
    assert (await Client(session, f"http://127.0.0.1:{host.port}").ask("GET", link)).status == 404
    await host.aclose()
    (tmp_path / "link.key").write_bytes(b"short")
    with pytest.raises(PermanentError, match="restore it from a backup"):
        await make(tmp_path, clock).start(listen=None, unix_path=None)


async def test_a_key_that_others_could_read_is_closed_to_them(tmp_path, clock):
    """A link key with a loose mode is set to 0600 at start."""
    (tmp_path / "link.key").write_bytes(bytes(range(32)))
    (tmp_path / "link.key").chmod(0o644)
    host = make(tmp_path, clock)
    await host.start(listen=None, unix_path=None)
    await host.aclose()
    assert (tmp_path / "link.key").stat().st_mode & 0o777 == 0o600


async def test_only_the_keys_of_this_start_are_taken(tmp_path, clock, session):
    """A key that is configured no more is refused; its clips stay."""
    for keys in ({"nvr": KEY, "old": OTHER_KEY}, {"nvr": KEY}):
        host = make(tmp_path, clock, api_keys=keys)
        await host.start(listen=("127.0.0.1", 0), unix_path=None)
        answer = await Client(session, f"http://127.0.0.1:{host.port}", OTHER_KEY).api("OPTIONS", "/uploads")
        assert answer.status == (204 if "old" in keys else 401)
        await host.aclose()


async def test_it_listens_on_a_socket_for_its_own_user(short_path, tmp_path, clock):
    """The unix socket has mode 0600, serves the same as the port, and is gone afterwards."""
    path = short_path / "linkhost.sock"
    host = make(tmp_path, clock)
    await host.start(listen=None, unix_path=path)
    assert path.stat().st_mode & 0o777 == 0o600
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
        client = Client(session, "http://linkhost")
        link = await client.publish(video(2))
        assert (await client.ask("GET", link)).status == 200
    assert {row.address for row in await host.audit(CLIP)} == {"local"}
    await host.aclose()
    assert not path.exists()


async def test_a_dead_hosts_socket_is_taken_over_and_a_live_ones_is_not(short_path, tmp_path, clock):
    """What `kill -9` left does not stop the next start; a second host beside a live one says so."""
    path = short_path / "linkhost.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    host = make(tmp_path / "a", clock)
    await host.start(listen=None, unix_path=path)
    with pytest.raises(PermanentError, match="already serves"):
        await make(tmp_path / "b", clock).start(listen=None, unix_path=path)
    assert path.exists()
    await host.aclose()


async def test_a_port_in_use_is_said_with_what_to_do(tmp_path, clock, host, short_path):
    """The error names the address and the setting; the socket that was open already is closed again."""
    path = short_path / "linkhost.sock"
    with pytest.raises(PermanentError, match=rf"127\.0\.0\.1:{host.port}: another program uses this port.*linkhost\.listen"):
        await make(tmp_path / "b", clock).start(listen=("127.0.0.1", host.port), unix_path=path)
    assert not path.exists()
    with pytest.raises(PermanentError, match=r"does not have this address|linkhost\.listen"):
        await make(tmp_path / "c", clock).start(listen=("192.0.2.1", 0), unix_path=None)
    with pytest.raises(PermanentError, match="cannot listen on the socket"):
        await make(tmp_path / "d", clock).start(listen=None, unix_path=short_path / "missing" / "x.sock")


async def test_a_folder_that_cannot_be_used_is_said(tmp_path, clock):
    """A file in the folder's place, or a database of a newer version, ends the start with a sentence."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(PermanentError, match="cannot use its folder"):
        await make(tmp_path / "file", clock).start(listen=None, unix_path=None)
    (tmp_path / "newer").mkdir()
    with sqlite3.connect(tmp_path / "newer" / "linkhost.sqlite3") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(PermanentError, match="newer vigintd"):
        await make(tmp_path / "newer", clock).start(listen=None, unix_path=None)


async def test_expired_clips_are_let_go_each_minute(client, host, clock, tmp_path):
    """`run` deletes what has expired, once a minute, and leaves the rest."""
    await client.publish(video(2), expiry_h=1)
    await client.publish(video(2), OTHER_CLIP, expiry_h=2)
    running = asyncio.create_task(host.run())
    await clock.asleep()
    clips = tmp_path / "linkhost" / "clips"
    assert len(list(clips.iterdir())) == 2
    await clock.advance(3600 - 60)
    await clock.asleep()
    await clock.advance(60)
    await clock.asleep()
    async with asyncio.timeout(30):
        while not any(row.kind == AuditKind.DELETED for row in await host.audit(CLIP)):
            pass
    assert [path.name for path in clips.iterdir()] == [f"{OTHER_CLIP}.0.mp4"]
    record = await host.audit(CLIP)
    assert [row.kind for row in record][-2:] == [AuditKind.EXPIRED, AuditKind.DELETED]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_clip_whose_files_cannot_be_deleted_keeps_no_other(client, host, clock, tmp_path, monkeypatch):
    """It is tried again at the next look."""
    clips, failed = tmp_path / "linkhost" / "clips", list[str]()
    for clip in (CLIP, OTHER_CLIP):
        await client.publish(video(1), clip)
        await clock.advance(1)
    remove = Files.remove

    async def failing(files: Files, clip_id: str, index: int) -> None:
        if clip_id == CLIP:
            failed.append(clip_id)
            raise PermissionError(errno.EPERM, "Operation not permitted")
        await remove(files, clip_id, index)

    await clock.advance(48 * 3600)
    with monkeypatch.context() as patch:
        patch.setattr(Files, "remove", failing)
        await host.run_once()
    assert failed
    assert [path.name for path in clips.iterdir()] == [f"{CLIP}.0.mp4"]
    await host.run_once()
    assert list(clips.iterdir()) == []


async def test_what_a_crash_left_over_is_swept_at_start(tmp_path, clock):
    """Files that the database knows nothing of are removed; foreign files are left alone."""
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / f"{CLIP}.0.mp4").write_bytes(b"x")
    (clips / "notes.txt").write_bytes(b"x")
    host = make(tmp_path, clock)
    await host.start(listen=None, unix_path=None)
    await host.aclose()
    assert [path.name for path in clips.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(("code", "status"), [(errno.ENOSPC, 507), (errno.EIO, 500)])
async def test_bytes_that_cannot_be_made_durable_are_not_promised(client, monkeypatch, code, status):
    """A full disk is 507 and a failing one 500; the offset stays, and the same bytes are taken later."""
    await client.create()

    def failing(_descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr("vigintd.linkhost.files.os.fsync", failing)
        assert (await client.append(b"abc", 0)).status == status
    assert (await client.head()).headers["Upload-Offset"] == "0"
    assert (await client.append(b"abc", 0)).status == 204


async def test_what_is_left_of_a_disk_is_kept_free(tmp_path, clock, session):
    """Below that nothing is taken (507), and the offset stays: whoever uploads waits, and the rest of the box goes on."""
    host = make(tmp_path, clock, keep_free_bytes=1 << 60)
    await host.start(listen=("127.0.0.1", 0), unix_path=None)
    client = Client(session, f"http://127.0.0.1:{host.port}")
    await client.create()
    assert (await client.append(b"abc", 0)).status == 507
    assert (await client.head()).headers["Upload-Offset"] == "0"
    await host.aclose()


async def test_it_ends_within_moments_though_somebody_watches(client, host, session):
    """Closing does not wait for followers; their streams break off."""
    data = video(2)
    link = (await client.create()).json["links"][GUARD].removeprefix(BASE_URL)
    await client.append(data, 0)
    async with session.get(client.base + inside(link, "live/0.mp4")) as answer:
        await answer.content.readexactly(len(data))
        async with asyncio.timeout(5):
            await host.aclose()
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await answer.content.read()


async def test_turns_are_taken_one_after_the_other():
    """However many want a part, one holds it at a time, and nothing is kept of them afterwards."""
    turns, inside_now, most = Turns(), 0, 0

    async def take() -> None:
        nonlocal inside_now, most
        async with turns.take(CLIP, 0):
            inside_now += 1
            most = max(most, inside_now)
            await asyncio.sleep(0)
            inside_now -= 1

    await asyncio.gather(*(take() for _ in range(20)))
    assert most == 1
    assert turns._lines == {}


async def test_our_own_uploader_speaks_this_wire(short_path, tmp_path, clock):
    """`publish` creates, appends, seals, updates and probes through the unix socket, and goes on after a lost answer."""
    data = video(3)
    path = short_path / "linkhost.sock"
    host = make(tmp_path, clock)
    await host.start(listen=None, unix_path=path)
    uploader = TusHost("http://linkhost", KEY, unix_path=path)
    try:
        assert "takes the API key" in await uploader.probe()
        request = ClipRequest(
            CLIP, (GUARD, "été@exemple.fr"), 48.0, {"camera": "entrée", "text": "a\ud800b", "confidence": None}
        )
        publication = await uploader.create(request)
        assert await uploader.create(request) == publication
        assert set(publication.links) == set(request.recipients)
        for part in (0, 1):
            offset = await uploader.offset(CLIP, part)
            assert offset == 0
            for piece in fragments(data):
                offset = await uploader.append(CLIP, part, offset, _body(piece), sha256(piece).digest())
            assert await uploader.offset(CLIP, part) == len(data)
            await uploader.seal(CLIP, part, len(data), sha256(data).hexdigest())
            await uploader.seal(CLIP, part, len(data), sha256(data).hexdigest())
        await uploader.update(CLIP, {"ended": True})
        assert [row.detail.get("what") for row in await host.audit(CLIP)].count("sealed") == 2
    finally:
        await uploader.aclose()
        await host.aclose()
