"""What is asked of the control socket, read strictly.

Owns how a request's body is read and refused; what it means is the routes'.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from typing import Any

from aiohttp import web

BODY_S = 5.0


class Refused(Exception):
    """Answered with this status and sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


async def read_object(request: web.Request, keys: Collection[str], wanted: str) -> dict[str, Any]:
    """The JSON object in the body, which holds none but these keys. Raises `Refused`, with `wanted` as its sentence."""
    try:
        async with asyncio.timeout(BODY_S):
            asked = json.loads(await request.read())
    except TimeoutError:
        raise Refused(408, "the request did not arrive in time") from None
    except (ValueError, RecursionError):
        raise Refused(400, "the request is not JSON") from None
    if not isinstance(asked, dict) or asked.keys() - set(keys):
        raise Refused(400, wanted)
    return asked


def number(request: web.Request, name: str, default: int, most: int, *, least: int = 1) -> int:
    """A whole number in the query. Raises `Refused`."""
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= 15 and least <= int(text) <= most):
        raise Refused(400, f"{name} is a number from {least} to {most}")
    return int(text)


def flag(request: web.Request, name: str) -> bool:
    """0 or 1 in the query. Raises `Refused`."""
    text = request.query.get(name, "0")
    if text not in ("0", "1"):
        raise Refused(400, f"{name} is 0 or 1")
    return text == "1"
