"""A campaign's cameras in a process of their own, spoken to by lines: a word there, JSON back.

Owns both ends. The child says hello once it is ready, answers each word, and ends when its input does.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

_MAX_LINE_BYTES = 1024 * 1024
_END_S = 10.0


class Child:
    """The parent's end."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, word: str) -> dict[str, Any]:
        """Its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode("ascii"))
        return await self.heard()

    async def heard(self) -> dict[str, Any]:
        """What it says next."""
        assert self._process.stdout is not None
        said: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return said


@asynccontextmanager
async def child(module: str, *arguments: str) -> AsyncIterator[tuple[Child, dict[str, Any]]]:
    """`python -m MODULE ARGUMENTS` and its hello; ended at the end."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdin=pipe, stdout=pipe, limit=_MAX_LINE_BYTES
    )
    assert process.stdin is not None
    try:
        it = Child(process)
        yield it, await it.heard()
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _END_S)
        except TimeoutError:
            process.kill()
            await process.wait()


async def serve(hello: dict[str, Any], answer: Callable[[str], dict[str, Any]]) -> None:
    """The child's end: say hello, then answer until the parent has nothing more to ask."""
    _say(hello)
    loop = asyncio.get_running_loop()
    while word := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        _say(answer(word))


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()
