"""The link host as a whole: opens its folder, listens, and lets clips go when their time is over.

Owns the life of everything in this room; joins the handlers into one site for both listeners.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from vigintd.clock import Clock
from vigintd.errors import PermanentError
from vigintd.linkhost import keyfile
from vigintd.linkhost.files import Files
from vigintd.linkhost.growth import Growth
from vigintd.linkhost.rendering import Pages
from vigintd.linkhost.store import AuditKind, AuditRow, Store, StoreError
from vigintd.linkhost.uploads import Uploads
from vigintd.linkhost.viewer import Gone, Viewer, accepts
from vigintd.linkhost.web import SHUTDOWN_S, Request, Site, json_refusal
from vigintd.linkhost.wire import Refusal

MAX_CLIP_BYTES = 8 * 1024**3
"""An hour at 18 Mbit/s."""

EXPIRY_EVERY_S = 60.0
KEEP_S = 300.0
"""So much lived time is lost at most when the machine loses its power."""

_BACKLOG = 128

_log = structlog.get_logger(__name__)


class LinkHost:
    """One link host on one folder (created with mode 0700).

    `api_keys` (name → key) are the ones that may upload; only their hashes are kept. `base_url` is where people
    reach it, and what each link begins with. `language` is for pages of which nothing better is known. While less than
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
        keep_free_bytes: int = 0,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.port = 0
        """The bound TCP port; 0 without one."""
        self._folder = folder
        self._api_keys = {name: hashlib.sha256(key.encode()).digest() for name, key in api_keys.items()}
        self._clock = clock
        self._max_clip_bytes = max_clip_bytes
        self._keep_free_bytes = keep_free_bytes
        self._pages = Pages(language, root=urlsplit(self.base_url).path + "/")
        self._growth = Growth()
        self._kept_s = -math.inf
        self._life = AsyncExitStack()
        self._store: Store | None = None
        self._files: Files | None = None

    async def start(self, *, listen: tuple[str, int] | None, unix_path: Path | None) -> None:
        """Open the folder and serve on a TCP address, a unix socket (mode 0600), or both.

        Raises `PermanentError` that says what to do when one of them cannot be had; nothing is left open then.
        """
        async with AsyncExitStack() as life:
            site = await self._open(life)
            await self.run_once()
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
                await self._listen(runner, *listen)
            _log.info("linkhost.started", port=self.port, socket=str(unix_path or ""))
            self._life = life.pop_all()

    async def run(self) -> None:
        """For ever: let go of what has expired, each minute."""
        while True:
            try:
                await self.run_once()
            except StoreError as error:
                _log.error("linkhost.expiry_failed", error=str(error))
            await self._clock.sleep(EXPIRY_EVERY_S)

    async def run_once(self) -> None:
        """Delete the files of clips whose time has passed, by lived time too; their row and their record stay."""
        store, files = self._opened()
        for clip_id in await store.overdue():
            try:
                await self._let_go(clip_id, store, files)
            except OSError as error:  # the others go all the same
                _log.error("linkhost.expiry_failed", clip=clip_id, error=str(error))
        if self._clock.monotonic_s() >= self._kept_s + KEEP_S:
            self._kept_s = self._clock.monotonic_s()
            await store.keep_time()

    async def _let_go(self, clip_id: str, store: Store, files: Files) -> None:
        parts = await store.parts(clip_id)
        for part in parts:
            await files.remove(clip_id, part.index)
        now = self._clock.now()
        size_bytes = sum(part.offset_bytes for part in parts)
        rows = [
            AuditRow(now, AuditKind.EXPIRED, clip_id),
            AuditRow(now, AuditKind.DELETED, clip_id, detail={"bytes": size_bytes, "by": "expiry"}),
        ]
        await store.bury(clip_id, rows, now)
        self._growth.changed(clip_id)
        _log.info("linkhost.clip_expired", clip=clip_id, bytes=size_bytes)

    async def audit(self, clip_id: str) -> list[AuditRow]:
        """The record of a clip, oldest first; empty for one that was never here."""
        store, _ = self._opened()
        return await store.audit(clip_id)

    async def aclose(self) -> None:
        """Stop listening, end what is under way within moments, and close the folder."""
        await self._life.aclose()
        self._store = self._files = None

    def _opened(self) -> tuple[Store, Files]:
        if self._store is None or self._files is None:
            raise RuntimeError("the link host is not started")
        return self._store, self._files

    async def _open(self, life: AsyncExitStack) -> Site:
        try:
            files = Files(self._folder / "clips", keep_free_bytes=self._keep_free_bytes)
            self._folder.chmod(0o700)
            life.callback(files.close)
            link_key = await files.blocking(keyfile.load_or_create, self._folder / "link.key")
            store = await Store.open(self._folder / "linkhost.sqlite3", self._clock)
        except (OSError, StoreError) as error:
            raise PermanentError(f"the link host cannot use its folder {self._folder}: {error}") from error
        life.push_async_callback(store.aclose)
        await store.replace_api_keys(self._api_keys)
        uploads = Uploads(
            store=store,
            files=files,
            growth=self._growth,
            clock=self._clock,
            link_key=link_key,
            base_url=lambda: self.base_url,
            max_clip_bytes=self._max_clip_bytes,
        )
        await uploads.read_api_keys()
        viewer = Viewer(store=store, files=files, growth=self._growth, clock=self._clock, link_key=link_key, pages=self._pages)
        self._store, self._files = store, files
        await self._sweep(store, files)
        return Site([*uploads.routes(), *viewer.routes()], self._refuse)

    async def _sweep(self, store: Store, files: Files) -> None:
        """Remove files of which the store knows nothing: deletions that a crash cut short."""
        for clip_id, index, path in await files.names():
            clip = await store.clip(clip_id)
            if clip is None or clip.deleted_at is not None or await store.part(clip_id, index) is None:
                _log.warning("linkhost.stray_file", file=path.name)
                await files.blocking(path.unlink, True)  # noqa: FBT003  (missing_ok, by place: the executor takes no keywords)

    async def _listen(self, runner: web.ServerRunner, host: str, port: int) -> None:
        try:
            await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()
        except (OSError, OverflowError) as error:
            raise PermanentError(f"the link host cannot listen on {host}:{port}: {_listen_advice(error, port)}") from error
        self.port = next(int(address[1]) for address in runner.addresses if isinstance(address, tuple))

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
