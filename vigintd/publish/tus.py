"""A vigintd link host, spoken to by tus 1.0.

Owns the client's side of the wire (docs/design): creation with deferred length, offset, append with a
checksum, seal, and the clip's metadata. Does not retry and does not know the spool; the uploader does.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from urllib.parse import quote, urlsplit

import aiohttp

from vigintd.errors import HostRefused, HostUnavailable
from vigintd.failpoints import failpoint
from vigintd.publish import Capabilities, ClipRequest, Host, Publication
from vigintd.publish.answers import CHECKSUM_MISMATCH, TOO_LARGE, Answer
from vigintd.publish.faults import BodyTooLarge, SealMismatch
from vigintd.redact import MASK, redacted

TUS_VERSION = "1.0.0"

_MAX_ANSWER_BYTES = 1 << 20
"""A longer answer is no link host's; reading stops there."""

_NOBODY = "00000000-0000-0000-0000-000000000000"
"""The nil UUID (RFC 9562, section 5.9): no clip has it, so asking for it tries the key and nothing else."""

_KEEP_ALIVE_S = 10.0


class TusHost(Host):
    """The link host at `url`, or the built-in one behind a unix socket.

    With `unix_path`, everything goes through that socket and `url` only names the host in messages. Each stage
    of a request (connecting, every chunk sent, the answer) has `timeout_s` seconds. Redirections are not
    followed, cookies not kept, and the key appears in no error. An empty key is `HostRefused` at once.
    """

    capabilities = Capabilities(
        link_at="creation", playable_at="first_fragment", resumable=True, per_recipient=True, revocable=True, audited=True
    )

    def __init__(self, url: str, api_key: str, *, unix_path: Path | None = None, timeout_s: float = 15) -> None:
        if not api_key:
            raise HostRefused("no API key for the link host; set the credential publish__api_key")
        self._base = "http://linkhost" if unix_path else url.rstrip("/")
        self._where = "the built-in link host" if unix_path else f"the link host at {urlsplit(url).netloc.rpartition('@')[2]}"
        self._api_key = api_key
        self._unix_path = unix_path
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def create(self, request: ClipRequest) -> Publication:
        """POST with everything about the clip: part 0 is created, and the links come back."""
        failpoint("upload.create.before")
        metadata = {
            "clip": request.clip_id,
            "part": "0",
            "recipients": json.dumps(list(request.recipients)),
            "expiry_h": repr(float(request.expiry_h)),
            "metadata": json.dumps(_wellformed(request.metadata)),
        }
        answer = await self._create_upload(metadata)
        publication = _publication(answer, request)
        failpoint("upload.create.after")
        return publication

    async def offset(self, clip_id: str, part: int) -> int:
        """HEAD; a part that the host has not seen is created, with nothing but its clip and number."""
        answer = await self._ask("HEAD", _upload_path(clip_id, part))
        if answer.status == 404:
            await self._create_upload({"clip": clip_id, "part": str(part)})
            answer = await self._ask("HEAD", _upload_path(clip_id, part))
        answer.refuse_unless(200)
        return answer.number("Upload-Offset")

    async def append(self, clip_id: str, part: int, offset: int, body: AsyncIterator[bytes], sha256: bytes) -> int:
        """PATCH with a chunked body; the host checks the digest before it keeps a byte."""
        failpoint("upload.append.before")
        headers = {
            "Content-Type": "application/offset+octet-stream",
            "Upload-Offset": str(offset),
            "Upload-Checksum": f"sha256 {base64.b64encode(sha256).decode('ascii')}",
        }
        pump = _Pump(body)
        answer = await self._ask("PATCH", _upload_path(clip_id, part), headers=headers, pump=pump)
        if answer.status == TOO_LARGE:
            raise BodyTooLarge(answer.said())
        # A wrong offset or a damaged body: the uploader asks for the offset again.
        answer.refuse_unless(204, again=(409, CHECKSUM_MISMATCH))
        held = answer.number("Upload-Offset")
        if held != offset + pump.sent_bytes:
            raise HostUnavailable(f"{self._where} holds {held} bytes after {pump.sent_bytes} were sent from {offset}")
        failpoint("upload.append.after")
        return held

    async def seal(self, clip_id: str, part: int, length_bytes: int, sha256: str) -> None:
        """POST …/seal; 422 is `SealMismatch`."""
        failpoint("upload.seal.before")
        answer = await self._ask(
            "POST", f"{_upload_path(clip_id, part)}/seal", json_body={"length": length_bytes, "sha256": sha256}
        )
        if answer.status == 422:
            raise SealMismatch(f"{self._where} holds other bytes of part {part} of clip {clip_id} than were recorded")
        answer.refuse_unless(200)
        if answer.json().get("verified") is not True:
            raise answer.foreign("no verified seal")
        failpoint("upload.seal.after")

    async def update(self, clip_id: str, metadata: Mapping[str, str | int | float | bool | None]) -> None:
        """PATCH of the clip's metadata."""
        failpoint("upload.update.before")
        answer = await self._ask("PATCH", f"/api/v1/clips/{quote(clip_id, safe='')}", json_body=_wellformed(metadata))
        answer.refuse_unless(200, 204)
        if answer.is_html:
            raise answer.foreign("no metadata")
        failpoint("upload.update.after")

    async def probe(self) -> str:
        """What tus says of itself, and whether the key is taken."""
        answer = await self._ask("OPTIONS", "/api/v1/uploads")
        answer.refuse_unless(200, 204)
        versions = [version.strip() for version in answer.headers.get("Tus-Version", "").split(",")]
        if TUS_VERSION not in versions:
            raise answer.foreign(f"no tus {TUS_VERSION}")
        if "sha256" not in answer.headers.get("Tus-Checksum-Algorithm", "").replace(" ", "").split(","):
            raise HostRefused(f"{self._where} does not check SHA-256; a vigintd link host does")
        (await self._ask("HEAD", _upload_path(_NOBODY, 0))).refuse_unless(200, 404)
        limit = f", clips up to {answer.number('Tus-Max-Size') / 1e6:.0f} MB" if "Tus-Max-Size" in answer.headers else ""
        return f"{self._where} takes the API key: tus {TUS_VERSION}{limit}"

    async def aclose(self) -> None:
        """Close the session; a later call opens another."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _create_upload(self, metadata: Mapping[str, str]) -> Answer:
        encoded = ",".join(f"{key} {base64.b64encode(value.encode()).decode('ascii')}" for key, value in metadata.items())
        answer = await self._ask("POST", "/api/v1/uploads", headers={"Upload-Defer-Length": "1", "Upload-Metadata": encoded})
        answer.refuse_unless(200, 201)
        return answer

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        json_body: object = None,
        pump: _Pump | None = None,
    ) -> Answer:
        """One request, its answer read whole; everything below HTTP that goes wrong is `HostUnavailable`."""
        session = self._open_session()
        try:
            async with asyncio.timeout(self._timeout_s) as deadline:
                data = pump.run(deadline, self._timeout_s) if pump else None
                async with session.request(
                    method, self._base + path, headers=headers, data=data, json=json_body, allow_redirects=False
                ) as response:
                    payload = bytearray()
                    async for chunk in response.content.iter_chunked(64 << 10):
                        payload += chunk
                        if len(payload) > _MAX_ANSWER_BYTES:
                            break
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if pump and pump.broken is not None:
                # Not the host's fault: the part could not be read.
                raise pump.broken from None
            raise self._unavailable(error) from None
        finally:
            if pump:
                pump.wanted = False
        # A server that repeats what it was sent must not bring the key into an error.
        return Answer(
            self._where, response.status, response.headers, bytes(payload).replace(self._api_key.encode(), MASK.encode())
        )

    def _open_session(self) -> aiohttp.ClientSession:
        """The session, made on first use since it belongs to the running loop."""
        if self._session is None:
            connector = (
                aiohttp.UnixConnector(path=str(self._unix_path), keepalive_timeout=_KEEP_ALIVE_S)
                if self._unix_path
                else aiohttp.TCPConnector(keepalive_timeout=_KEEP_ALIVE_S)
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers={
                    "Authorization": f"Bearer {self._api_key}",
                    "Tus-Resumable": TUS_VERSION,
                    "User-Agent": "vigintd",
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                },
                # Every stage has its deadline in _ask, which also sees a body that nobody reads.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None, sock_read=None),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _unavailable(self, error: Exception) -> HostUnavailable:
        match error:
            case TimeoutError():
                text = f"did not answer within {self._timeout_s:g} s"
            case aiohttp.ClientConnectorCertificateError():
                text = f"has a certificate that could not be verified: {error.certificate_error}"
            case aiohttp.ClientConnectorDNSError():
                text = f"could not be found: {error.os_error.strerror or error.os_error}"
            case aiohttp.ClientConnectorError():
                text = f"could not be reached: {error.os_error.strerror or error.os_error}"
            case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | aiohttp.ClientPayloadError() | ConnectionError():
                text = "broke the connection off"
            case _:
                text = f"could not be spoken to: {error}"
        return HostUnavailable(redacted(f"{self._where} {text}").replace(self._api_key, MASK))


class _Pump:
    """A request's body on its way: moves the deadline on with each chunk, and keeps its own failure apart."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self.sent_bytes = 0
        self.broken: Exception | None = None
        self.wanted = True
        """False once the host has answered, which it may do before the body's end; the deadline is gone then."""

    async def run(self, deadline: asyncio.Timeout, timeout_s: float) -> AsyncIterator[bytes]:
        """The body's chunks; aiohttp asks for the next one when the last has left."""
        try:
            async for chunk in self._body:
                if not self._goes_on(deadline, timeout_s):
                    return
                self.sent_bytes += len(chunk)
                yield chunk
                failpoint("upload.append.sending")
            self._goes_on(deadline, timeout_s)
        except Exception as error:
            self.broken = error
            raise

    def _goes_on(self, deadline: asyncio.Timeout, timeout_s: float) -> bool:
        """Put the deadline off; False when it has passed, or there is none any more."""
        if not self.wanted or deadline.expired():
            return False
        deadline.reschedule(asyncio.get_running_loop().time() + timeout_s)
        return True


def _upload_path(clip_id: str, part: int) -> str:
    return f"/api/v1/uploads/{quote(clip_id, safe='')}.{part}"


def _wellformed(metadata: Mapping[str, str | int | float | bool | None]) -> dict[str, str | int | float | bool | None]:
    """`metadata` without lone surrogates, which no UTF-8 at the other end can hold."""
    return {
        key: value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace") if isinstance(value, str) else value
        for key, value in metadata.items()
    }


def _publication(answer: Answer, request: ClipRequest) -> Publication:
    content = answer.json()
    links, revoked = content.get("links"), content.get("revoked", [])
    # Somebody whose link was revoked is given no other one, and is no reason not to publish for the rest.
    wanted = [recipient for recipient in request.recipients if not (isinstance(revoked, list) and recipient in revoked)]
    if not isinstance(links, dict) or not all(isinstance(links.get(recipient), str) for recipient in wanted):
        raise answer.foreign("no link for each recipient")
    try:
        expires_at = datetime.fromisoformat(content["expires_at"])
    except (KeyError, TypeError, ValueError):
        raise answer.foreign("no time of expiry") from None
    if expires_at.tzinfo is None:
        raise answer.foreign("no time of expiry with its zone")
    return Publication(request.clip_id, {recipient: links[recipient] for recipient in wanted}, expires_at)
