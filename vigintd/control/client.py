"""The commands' end of the control socket.

Owns the deadline and the sentences a user reads when nobody answers. Every failure is a `ControlError`.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from vigintd.control import MAX_LIMIT, check_path
from vigintd.errors import ControlError
from vigintd.model import Risk

MAX_ANSWER_BYTES = 32 << 20
"""A longer answer is no vigintd's; reading stops there."""


@dataclass(frozen=True, slots=True)
class Triggered:
    """What a trigger did."""

    incident_id: str
    opened: bool
    """It opened this incident; or else it extended it, because it was open already."""


class ControlClient:
    """Asks the daemon whose control socket is at `path`; each question has `timeout_s` seconds in all."""

    def __init__(self, path: Path, *, timeout_s: float = 15) -> None:
        self._path = path
        self._timeout_s = timeout_s

    async def trigger(
        self,
        camera: str,
        *,
        type: str = "trigger",  # noqa: A002  (the glossary's word)
        risk: Risk = Risk.UNKNOWN,
        confidence: float | None = None,
        text: str = "",
    ) -> Triggered:
        """Open or extend the camera's incident; answers once its row is on disk."""
        body = {"camera": camera, "type": type, "risk": risk.value, "confidence": confidence, "text": text}
        answer = await self._ask("POST", "/trigger", body)
        return Triggered(self._part(answer, "incident_id", str), self._part(answer, "opened", bool))

    async def incidents(self, limit: int = 20, *, owed: bool = False) -> list[dict[str, Any]]:
        """The newest incidents, newest first; with `owed`, of those of which something is owed or was given up."""
        answer = await self._ask("GET", f"/incidents?limit={limit}" + ("&owed=1" if owed else ""))
        found: list[dict[str, Any]] = self._part(answer, "incidents", list)
        return found

    async def incident(self, incident_id: str) -> dict[str, Any] | None:
        """One incident, or None when the daemon has no such one."""
        return await self._ask("GET", f"/incidents/{quote(incident_id, safe='')}", missing_is_none=True)

    async def incident_like(self, beginning: str) -> dict[str, Any] | None:
        """The incident of this id, or the only one whose id begins so; None when there is none.

        Looked for among the newest `MAX_LIMIT`, and as many of which something is owed.

        Raises `ControlError` when several begin so.
        """
        found = await self.incident(beginning)
        if found is not None or not beginning:
            return found
        listed = await self.incidents(MAX_LIMIT) + await self.incidents(MAX_LIMIT, owed=True)
        ids = [str(incident.get("id", "")) for incident in listed]
        near = sorted({id_ for id_ in ids if id_.startswith(beginning.lower())})
        if len(near) > 1:
            some = ", ".join(near[:3]) + (", …" if len(near) > 3 else "")
            raise ControlError(f"{len(near)} incidents begin with {beginning}: {some}; write more of the id")
        return await self.incident(near[0]) if near else None

    async def retry(self, incident_id: str | None) -> list[dict[str, Any]]:
        """Try again now what failed, of one incident or (None) of all; answers what that is."""
        path = "/incidents/retry" if incident_id is None else f"/incidents/{quote(incident_id, safe='')}/retry"
        retried: list[dict[str, Any]] = self._part(await self._ask("POST", path), "retried", list)
        return retried

    async def status(self) -> dict[str, Any]:
        """How the daemon is."""
        answer = await self._ask("GET", "/status")
        assert answer is not None
        return answer

    async def _ask(
        self, method: str, path: str, body: object = None, *, missing_is_none: bool = False
    ) -> dict[str, Any] | None:
        check_path(self._path)
        connector = aiohttp.UnixConnector(str(self._path), force_close=True)
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        try:
            async with (
                aiohttp.ClientSession("http://vigintd", connector=connector, timeout=timeout, trust_env=False) as session,
                session.request(method, path, json=body, allow_redirects=False) as response,
            ):
                status, raw = response.status, await _bounded(response)
        except TimeoutError as error:
            raise ControlError(f"vigintd did not answer within {self._timeout_s:g} s; see its log ({self._path})") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ControlError(self._sentence(error)) from error
        answer = self._object(raw)
        if status == 404 and missing_is_none:
            return None
        if status != 200:
            raise ControlError(str(self._part(answer, "error", str)))
        return answer

    def _sentence(self, error: Exception) -> str:
        cause = getattr(error, "os_error", error)
        if isinstance(cause, FileNotFoundError | ConnectionRefusedError | NotADirectoryError):
            return f"no vigintd runs here: nobody listens at {self._path}; start it with: vigintd run (is --config the same?)"
        if isinstance(cause, PermissionError):
            return f"this user may not speak to vigintd ({self._path}: permission denied); ask as root or as the service's user"
        if self._is_crowded():
            return f"too many ask vigintd at once ({self._path}); try again"
        return f"vigintd broke off ({self._path}: {type(error).__name__}); see its log"

    def _is_crowded(self) -> bool:
        """Nobody is let in: the socket's queue is full. asyncio takes that for a connection, which then breaks."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.setblocking(False)  # noqa: FBT003 - the standard library's
            return caller.connect_ex(os.fspath(self._path)) == errno.EAGAIN

    def _object(self, raw: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(raw)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ControlError(f"what answers at {self._path} is no vigintd")
        return answer

    def _part(self, answer: dict[str, Any] | None, key: str, kind: type) -> Any:  # noqa: ANN401  (JSON)
        value = (answer or {}).get(key)
        if not isinstance(value, kind):
            raise ControlError(f"what answers at {self._path} is another version of vigintd; restart the daemon")
        return value


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    raw = bytearray()
    async for chunk in response.content.iter_any():
        raw += chunk
        if len(raw) > MAX_ANSWER_BYTES:
            raise aiohttp.ClientPayloadError
    return bytes(raw)
