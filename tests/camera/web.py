"""A real web server for the camera's tests, in a thread of its own: Motion JPEG, playlists, redirects."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

JPEG_FPS = 50
BOUNDARY = "frame"


class CameraServer:
    """Serves the JPEGs of a list at /cam.mjpg, the files of a folder by name, and sends on what is in `moved`."""

    def __init__(self, folder: Path, jpegs: list[bytes]) -> None:
        self._folder = folder
        self._jpegs = jpegs
        self.moved: dict[str, str] = {}
        """From a name to the Location that is answered."""
        self.texts: dict[str, str] = {}
        """Playlists."""
        self.asked: list[str] = []
        self.port = 0
        self._stop = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def run(self, ready: threading.Event) -> None:
        app = web.Application()
        app.router.add_get("/{name:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        ready.set()
        await self._stop.wait()
        await runner.cleanup()

    def stop(self) -> None:
        self._stop.set()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        self.asked.append(name)
        if name in self.moved:
            return web.Response(status=302, headers={"Location": self.moved[name]})
        if name in self.texts:
            return web.Response(text=self.texts[name], content_type="application/vnd.apple.mpegurl")
        if name == "cam.mjpg":
            return await self._pictures(request)
        path = self._folder / name
        while name.endswith(".m3u8") and not path.exists():  # noqa: ASYNC110 - a file sets no event
            # An encoder of another process is about to write it.
            await asyncio.sleep(0.01)
        return web.FileResponse(path) if path.is_file() else web.Response(status=404)

    async def _pictures(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": f"multipart/x-mixed-replace; boundary={BOUNDARY}"})
        await answer.prepare(request)
        while True:
            for jpeg in self._jpegs:
                head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                await answer.write(head.encode() + jpeg + b"\r\n")
                await asyncio.sleep(1 / JPEG_FPS)


@contextmanager
def camera_server(folder: Path, jpegs: list[bytes] | None = None) -> Iterator[CameraServer]:
    """A server that runs as long as the block."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    server = CameraServer(folder, jpegs or [])
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.run(ready)))
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(server.stop)
        thread.join()
        loop.close()


@contextmanager
def ffmpeg(*arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """Debian's ffmpeg at work, ended with the block."""
    process = subprocess.Popen(["ffmpeg", "-nostdin", "-loglevel", "error", "-y", *map(str, arguments)])
    try:
        yield process
    finally:
        process.kill()
        process.wait()
