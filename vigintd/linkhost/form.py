"""A form with a video in it, taken apart as it comes (multipart/form-data, RFC 7578).

Owns what of a form is bounded: every wait, the number of its fields, their texts, and the video. Knows nothing of clips.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import BodyPartReader, MultipartReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from vigintd.linkhost.growth import Superseded, Turn
from vigintd.linkhost.web import BODY_IDLE_S, BODY_TOTAL_S, Request, invite
from vigintd.linkhost.wire import Refusal

MAX_FIELDS = 16
MAX_FIELD_BYTES = 64 * 1024
FORM_BYTES = 1024 * 1024
"""What a form may hold beside its video."""
CLOSE = {"Connection": "close"}
"""Of an answer that does not wait for the rest of a body."""

_CHUNK_BYTES = 64 * 1024


class Sink(Protocol):
    """Where a video's bytes go."""

    async def write(self, data: bytes) -> None:
        """Take these bytes as the next ones."""
        ...


@dataclass
class Form:
    """What came of a form: its texts by name, and how large its video was; None where it held none."""

    video_bytes: int | None = None
    texts: dict[str, str] = field(default_factory=dict)


async def read(request: Request, turn: Turn, video: Sink, room_bytes: int) -> Form:
    """Take the form apart, its field `video` (of at most `room_bytes`) into the sink. Raises `Refusal`."""
    reader, form = await _multipart(request, room_bytes), Form()
    deadline_s = asyncio.get_running_loop().time() + BODY_TOTAL_S
    with _plain_faults():
        for _ in range(MAX_FIELDS + 1):
            async with turn.patience(BODY_IDLE_S):
                piece = await reader.next()
            if piece is None:
                return form
            if not isinstance(piece, BodyPartReader) or not piece.name:
                raise Refusal(400, "the form is flat, and each of its fields has a name", CLOSE)
            if piece.name != "video":
                form.texts[piece.name] = await _text(piece, turn)
            elif form.video_bytes is None:
                form.video_bytes = await _pour(piece, turn, video, room_bytes, deadline_s)
            else:
                raise Refusal(400, "the form holds two videos", CLOSE)
    raise Refusal(413, f"a form of more than {MAX_FIELDS} fields", CLOSE)


@contextmanager
def _plain_faults() -> Generator[None]:
    """What a client's form, or its connection, makes go wrong becomes a `Refusal`."""
    try:
        yield
    except Superseded:
        raise Refusal(409, "a newer request has taken over", CLOSE) from None
    except TimeoutError:
        raise Refusal(408, "the form stopped coming", CLOSE) from None
    except (ConnectionError, web.RequestPayloadError) as error:
        raise Refusal(400, "the form broke off", CLOSE) from error
    except (ValueError, HttpProcessingError) as error:
        raise Refusal(400, "this is no multipart form", CLOSE) from error


async def _multipart(request: Request, room_bytes: int) -> MultipartReader:
    if request.content_type != "multipart/form-data":
        raise Refusal(415, "the video comes as multipart/form-data", CLOSE)
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise Refusal(415, "no Content-Encoding here", CLOSE)
    if request.content_length is not None and request.content_length > room_bytes + FORM_BYTES:
        raise Refusal(413, f"a video holds at most {room_bytes} bytes", CLOSE)
    with _plain_faults():
        reader = MultipartReader(request.headers, request.content)
    await invite(request)
    return reader


async def _pour(piece: BodyPartReader, turn: Turn, sink: Sink, room_bytes: int, deadline_s: float) -> int:
    """The video into the sink; answers its size."""
    loop, size_bytes = asyncio.get_running_loop(), 0
    while True:
        async with turn.patience(min(BODY_IDLE_S, deadline_s - loop.time())):
            chunk = await piece.read_chunk(_CHUNK_BYTES)
        if not chunk:
            return size_bytes
        size_bytes += len(chunk)
        if size_bytes > room_bytes:
            raise Refusal(413, f"a video holds at most {room_bytes} bytes", CLOSE)
        await sink.write(chunk)


async def _text(piece: BodyPartReader, turn: Turn) -> str:
    whole = bytearray()
    async with turn.patience(BODY_IDLE_S):
        while chunk := await piece.read_chunk(_CHUNK_BYTES):
            whole += chunk
            if len(whole) > MAX_FIELD_BYTES:
                raise Refusal(413, f"a field of more than {MAX_FIELD_BYTES} bytes", CLOSE)
    return whole.decode()
