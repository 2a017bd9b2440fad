"""The link host as a whole: opens its folder, listens, and lets clips go when their time is over.

Owns the life of everything in this room; joins the handlers into one site for both listeners.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from vigintd.clock import Clock
from vigintd.errors import PermanentError
from vigintd.linkhost import keyfile
from vigintd.linkhost.certificate import Certificate
from vigintd.linkhost.clips import Clips
from vigintd.linkhost.door import Door
from vigintd.linkhost.evidence import DATABASE
from vigintd.linkhost.files import Files
from vigintd.linkhost.growth import Growth
from vigintd.linkhost.keeper import Keeper
from vigintd.linkhost.keyring import Keyring
from vigintd.linkhost.links import Links
from vigintd.linkhost.passes import Passes
from vigintd.linkhost.proxies import Proxies
from vigintd.linkhost.rendering import Pages
from vigintd.linkhost.sparse_ai import SparseAi
from vigintd.linkhost.store import AuditRow, Head, Record, Store, StoreError
from vigintd.linkhost.uploads import Uploads
from vigintd.linkhost.viewer import Gone, Viewer, accepts
from vigintd.linkhost.web import SHUTDOWN_S, Request, Site, json_refusal
from vigintd.linkhost.wire import Refusal

MAX_CLIP_BYTES = 8 * 1024**3
"""An hour at 18 Mbit/s."""

EXPIRY_EVERY_S = 60.0
KEEP_S = 300.0
"""So much lived time is lost at most when the machine loses its power."""

HEAD = "audit.head"
"""Beside the database: how far the record went when this was written last."""

_BACKLOG = 128

_log = structlog.get_logger(__name__)


class _Shared(TypedDict):
    """What every handler of one host needs, by the names they know it by."""

    store: Store
    files: Files
    growth: Growth
    passes: Passes
    clock: Clock


@dataclass(frozen=True, slots=True)
class _Rooms:
    """What is there once the folder is open."""

    shared: _Shared
    link_key: bytes
    links: Links
    keeper: Keeper
    keyring: Keyring

    @property
    def store(self) -> Store:
        return self.shared["store"]

    @property
    def files(self) -> Files:
        return self.shared["files"]


class LinkHost:
    """One link host on one folder (created with mode 0700).

    `api_keys` (name → key) are the ones that may upload; only their hashes are kept. `base_url` is where people
    reach it, and what each link begins with. `language` is for pages of which nothing better is known. What `proxies`
    tell of their clients is believed. With a `certificate`, the TCP address speaks TLS and nothing else. While less than
    `keep_free_bytes` of its disk are free, nothing is taken.
    """

    def __init__(
        self,
        folder: Path,
        *,
        base_url: str,
        api_keys: Mapping[str, str],
        clock: Clock,
        language: str = "fr",
        max_clip_bytes: int = MAX_CLIP_BYTES,
        proxies: Proxies | None = None,
        certificate: Certificate | None = None,
        keep_free_bytes: int = 0,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.port = 0
        """The bound TCP port; 0 without one."""
        self._folder = folder
        self._api_keys = dict(api_keys)
        self._clock = clock
        self._max_clip_bytes = max_clip_bytes
        self._proxies = proxies or Proxies()
        self._certificate = certificate
        self._keep_free_bytes = keep_free_bytes
        self._pages = Pages(language, root=urlsplit(self.base_url).path + "/")
        self._growth = Growth()
        self._passes = Passes()
        self._life = AsyncExitStack()
        self._rooms: _Rooms | None = None

    async def start(self, *, listen: tuple[str, int] | None, unix_path: Path | None) -> None:
        """Open the folder and serve on a TCP address, a unix socket (mode 0600), or both.

        Raises `PermanentError` that says what to do when one of them cannot be had; nothing is left open then.
        """
        async with AsyncExitStack() as life:
            site = await self._open(life)
            await self.run_once()
            life.push_async_callback(site.aclose)
            runner = web.ServerRunner(site.server(), shutdown_timeout=SHUTDOWN_S)
            await runner.setup()
            life.push_async_callback(runner.cleanup)
            # Followers end first; the runner would wait for them.
            life.callback(self._growth.close)
            if unix_path is not None:
                sock = _unix_socket(unix_path)
                life.callback(unix_path.unlink, missing_ok=True)
                await web.SockSite(runner, sock, backlog=_BACKLOG).start()
            if listen is not None:
                await self._listen(runner, life, *listen)
            _log.info("linkhost.started", port=self.port, socket=str(unix_path or ""))
            self._life = life.pop_all()

    async def run(self) -> None:
        """For ever: let go of what has expired, and look after the certificate, each minute."""
        while True:
            try:
                await self.run_once()
            except (OSError, StoreError) as error:
                _log.error("linkhost.expiry_failed", error=str(error))
            await self.refresh_certificate()
            await self._clock.sleep(EXPIRY_EVERY_S)

    async def run_once(self) -> None:
        """Delete the files of clips that have expired; their row and their record stay."""
        await self._opened().keeper.run_once()

    async def refresh_certificate(self) -> None:
        """Serve the certificate that its files hold now; nobody who is connected notices."""
        if self._certificate is not None:
            await self._opened().files.blocking(self._certificate.refresh)

    async def audit(self, clip_id: str) -> list[AuditRow]:
        """The record of a clip, oldest first; empty for one that was never here."""
        return await self._opened().store.audit(clip_id)

    @property
    def links(self) -> Links:
        """What may be done with the links of its clips."""
        return self._opened().links

    @property
    def keyring(self) -> Keyring:
        """Its API keys."""
        return self._opened().keyring

    @property
    def record(self) -> Record:
        """Its record, of every clip."""
        return self._opened().store.record

    async def noted_head(self) -> Head | None:
        """How far the record went when that was noted last; None where no note can be read."""
        return await self._opened().keeper.noted()

    async def aclose(self) -> None:
        """Stop listening, end what is under way within moments, and close the folder."""
        await self._life.aclose()
        self._rooms = None

    def _opened(self) -> _Rooms:
        if self._rooms is None:
            raise RuntimeError("the link host is not started")
        return self._rooms

    async def _open(self, life: AsyncExitStack) -> Site:
        try:
            files = Files(self._folder / "clips", keep_free_bytes=self._keep_free_bytes)
            self._folder.chmod(0o700)
            life.callback(files.close)
            link_key = await files.blocking(keyfile.load_or_create, self._folder / "link.key")
            store = await Store.open(self._folder / DATABASE, self._clock)
        except (OSError, StoreError) as error:
            raise PermanentError(f"the link host cannot use its folder {self._folder}: {error}") from error
        life.push_async_callback(store.aclose)
        rooms = self._rooms = self._join(store, files, link_key)
        await rooms.keyring.begin(self._api_keys)
        await rooms.keeper.begin()
        life.push_async_callback(rooms.keeper.note_head)
        return self._site(rooms)

    def _join(self, store: Store, files: Files, link_key: bytes) -> _Rooms:
        shared: _Shared = {
            "store": store,
            "files": files,
            "growth": self._growth,
            "passes": self._passes,
            "clock": self._clock,
        }
        links = Links(**shared, link_key=link_key, base_url=lambda: self.base_url)
        keeper = Keeper(**shared, head_path=self._folder / HEAD)
        return _Rooms(shared, link_key, links, keeper, Keyring(store.keys, self._clock))

    def _site(self, rooms: _Rooms) -> Site:
        uploads = Uploads(
            **rooms.shared,
            keyring=rooms.keyring,
            link_key=rooms.link_key,
            link=rooms.links.url,
            max_clip_bytes=self._max_clip_bytes,
        )
        sparse_ai = SparseAi(
            **rooms.shared,
            keyring=rooms.keyring,
            links=rooms.links,
            turns=uploads.turns,
            who=uploads.key_name,
            link_key=rooms.link_key,
            max_clip_bytes=self._max_clip_bytes,
        )
        clips = Clips(store=rooms.store, links=rooms.links, who=uploads.key_name)
        viewer = Viewer(**rooms.shared, link_key=rooms.link_key, pages=self._pages)
        routes = [*uploads.routes(), *clips.routes(), *sparse_ai.routes(), *viewer.routes()]
        return Site(routes, self._refuse, proxies=self._proxies, clock=self._clock)

    async def _listen(self, runner: web.ServerRunner, life: AsyncExitStack, host: str, port: int) -> None:
        files = self._opened().files
        context = await files.blocking(self._certificate.context) if self._certificate is not None else None
        assert runner.server is not None
        door = Door(runner.server, context, self._proxies.household_of_peer)
        try:
            self.port = door.open(host, port, backlog=_BACKLOG)
        except (OSError, OverflowError) as error:
            raise PermanentError(f"the link host cannot listen on {host}:{port}: {_listen_advice(error, port)}") from error
        life.push_async_callback(door.aclose)

    def _refuse(self, request: Request, refusal: Refusal) -> web.Response:
        if request.raw_path.startswith("/api/"):
            return json_refusal(refusal)
        language = accepts(request)
        if isinstance(refusal, Gone):
            text = self._pages.gone(refusal.clip, language)
        else:
            text = self._pages.refusal(refusal.status, language)
        return web.Response(status=refusal.status, text=text, content_type="text/html", headers=refusal.headers)


def _listen_advice(error: Exception, port: int) -> str:
    match getattr(error, "errno", None):
        case errno.EADDRINUSE:
            return "another program uses this port; stop it, or write another port in linkhost.listen"
        case errno.EACCES:
            return f"port {port} needs a right this program does not have; write one above 1023 in linkhost.listen"
        case errno.EADDRNOTAVAIL:
            return "this machine does not have this address; correct linkhost.listen"
        case _:
            return f"{error}; correct linkhost.listen"


def _unix_socket(path: Path) -> socket.socket:
    """A listening place at `path` for this user alone; takes over what a dead process left, never a live one's."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if path.is_socket():
            _refuse_live(path)
            path.unlink()
        # On Linux a socket's file takes its mode from the unbound socket: it is never open to others, even for a moment.
        os.fchmod(sock.fileno(), 0o600)
        sock.bind(str(path))
    except OSError as error:
        sock.close()
        raise PermanentError(f"the link host cannot listen on the socket {path}: {error}") from error
    except BaseException:
        sock.close()
        raise
    return sock


def _refuse_live(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
    raise PermanentError(f"another link host already serves the socket {path}; stop it first")
