"""A small tus server for tests: the wire of the link host in memory, with faults as data.

What the link host does beyond the wire (links that work, files, audit) it does not do.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import web

Operation = Literal["probe", "create", "offset", "append", "seal", "update"]


@dataclass
class Fault:
    """What goes wrong the next time that `at` is asked; `fired` says that it did."""

    at: Operation
    status: int = 0
    """Answer this instead of doing it."""
    headers: dict[str, str] = field(default_factory=dict)
    body: str = '{"error": "a fault of the test"}'
    content_type: str = "application/json"
    cut_at: int | None = None
    """Read this many bytes of the body, then drop the connection."""
    cut_after: bool = False
    """Do it, then drop the connection instead of answering."""
    stall: bool = False
    """Read nothing, answer nothing."""
    corrupt: bool = False
    """Keep other bytes than those that came, and find nothing wrong with them."""
    fired: bool = False


@dataclass
class Upload:
    data: bytearray = field(default_factory=bytearray)
    sealed: tuple[int, str] | None = None


@dataclass
class Clip:
    key: str
    metadata: dict[str, object]
    links: dict[str, str]
    parts: dict[int, Upload]


class TusServer:
    """Listens on a port of this machine and, if asked, on a unix socket."""

    def __init__(self, *, key: str, max_bytes: int = 64 << 20) -> None:
        self.key = key
        self.max_bytes = max_bytes
        self.clips: dict[str, Clip] = {}
        self.faults: list[Fault] = []
        self.bodies: list[int] = []
        """Length of every accepted body."""
        self.requests: list[str] = []
        self.never = asyncio.Event()
        self.base = ""
        self._runner: web.AppRunner | None = None

    async def start(self, unix_path: str | None = None) -> None:
        app = web.Application(client_max_size=1 << 30)
        upload = r"/api/v1/uploads/{clip:[0-9a-f-]{36}}.{part:\d+}"
        app.router.add_route("OPTIONS", "/api/v1/uploads", self._serve("probe", self._options))
        app.router.add_route("POST", "/api/v1/uploads", self._serve("create", self._create))
        app.router.add_route("HEAD", upload, self._serve("offset", self._offset))
        app.router.add_route("PATCH", upload, self._serve("append", self._append))
        app.router.add_route("POST", upload + "/seal", self._serve("seal", self._seal))
        app.router.add_route("PATCH", "/api/v1/clips/{clip}", self._serve("update", self._update))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        if unix_path:
            await web.UnixSite(self._runner, unix_path).start()
        else:
            await web.TCPSite(self._runner, "127.0.0.1", 0).start()
            self.base = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        self.never.set()
        if self._runner:
            await self._runner.cleanup()

    def _serve(
        self, operation: Operation, handle: Callable[[web.Request, Fault | None], Awaitable[web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def serve(request: web.Request) -> web.Response:
            self.requests.append(operation)
            fault = next((f for f in self.faults if f.at == operation and not f.fired), None)
            if fault:
                fault.fired = True
                if fault.stall:
                    await self.never.wait()
                if fault.cut_at is not None:
                    if fault.cut_at:
                        await request.content.readexactly(fault.cut_at)
                    assert request.transport
                    request.transport.abort()
                    return web.Response()
                if fault.status:
                    return web.Response(
                        status=fault.status,
                        body=fault.body.encode() if operation != "offset" else None,
                        headers={"Content-Type": fault.content_type, **fault.headers},
                    )
            if request.headers.get("Authorization") != f"Bearer {self.key}":
                return _error(401, "wrong key")
            response = await handle(request, fault)
            if fault and fault.cut_after:
                assert request.transport
                request.transport.abort()
            return response

        return serve

    async def _options(self, request: web.Request, fault: Fault | None) -> web.Response:
        return web.Response(
            status=204,
            headers={
                "Tus-Resumable": "1.0.0",
                "Tus-Version": "1.0.0",
                "Tus-Extension": "creation,creation-defer-length,checksum,expiration,termination",
                "Tus-Checksum-Algorithm": "sha256",
                "Tus-Max-Size": str(self.max_bytes),
            },
        )

    async def _create(self, request: web.Request, fault: Fault | None) -> web.Response:
        assert request.headers["Tus-Resumable"] == "1.0.0"
        assert request.headers["Upload-Defer-Length"] == "1"
        pairs = (entry.split(" ") for entry in request.headers["Upload-Metadata"].split(","))
        said = {key: base64.b64decode(value, validate=True).decode() for key, value in pairs}
        number = int(said["part"])
        clip = self.clips.get(said["clip"])
        if clip is None:
            if number or "recipients" not in said:
                return _error(400, "no such clip")
            recipients = json.loads(said["recipients"])
            links = {r: f"{self.base}/video/{said['clip']}?token={'A' * 40}{i:03d}" for i, r in enumerate(recipients)}
            clip = self.clips[said["clip"]] = Clip(self.key, json.loads(said["metadata"]), links, {})
        status = 200 if number in clip.parts else 201
        clip.parts.setdefault(number, Upload())
        return web.json_response(
            {"clip_id": said["clip"], "links": clip.links, "expires_at": "2026-11-24T13:37:24+00:00"},
            status=status,
            headers={"Location": f"/api/v1/uploads/{said['clip']}.{number}"},
        )

    def _upload(self, request: web.Request) -> Upload | None:
        clip = self.clips.get(request.match_info["clip"])
        return clip.parts.get(int(request.match_info["part"])) if clip else None

    async def _offset(self, request: web.Request, fault: Fault | None) -> web.Response:
        upload = self._upload(request)
        if upload is None:
            return web.Response(status=404)
        return web.Response(headers={"Upload-Offset": str(len(upload.data)), "Cache-Control": "no-store"})

    async def _append(self, request: web.Request, fault: Fault | None) -> web.Response:
        upload = self._upload(request)
        if upload is None:
            return _error(404, "no such part")
        assert request.headers["Transfer-Encoding"] == "chunked"
        assert request.headers["Content-Type"] == "application/offset+octet-stream"
        if int(request.headers["Upload-Offset"]) != len(upload.data):
            return _error(409, "wrong offset")
        if upload.sealed:
            return _error(403, "sealed")
        body = await request.read()
        if len(upload.data) + len(body) > self.max_bytes:
            return _error(413, "too large")
        algorithm, _, digest = request.headers["Upload-Checksum"].partition(" ")
        assert algorithm == "sha256"
        if base64.b64decode(digest) != hashlib.sha256(body).digest():
            return _error(460, "checksum mismatch")
        upload.data += bytes(len(body)) if fault and fault.corrupt else body
        self.bodies.append(len(body))
        return web.Response(status=204, headers={"Upload-Offset": str(len(upload.data))})

    async def _seal(self, request: web.Request, fault: Fault | None) -> web.Response:
        upload = self._upload(request)
        if upload is None:
            return _error(404, "no such part")
        said = await request.json()
        held = (len(upload.data), hashlib.sha256(upload.data).hexdigest())
        if (said["length"], said["sha256"]) != held:
            upload.data.clear()
            return _error(422, "not the same bytes")
        upload.sealed = held
        return web.json_response({"verified": True})

    async def _update(self, request: web.Request, fault: Fault | None) -> web.Response:
        clip = self.clips.get(request.match_info["clip"])
        if clip is None:
            return _error(404, "no such clip")
        clip.metadata |= await request.json()
        return web.json_response({})


def _error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)
