"""The database, opened: one connection, used from the loop; changes take their turn, and so do readers."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import aiosqlite

from vigintd.clock import Clock
from vigintd.errors import PermanentError
from vigintd.failpoints import failpoint
from vigintd.linkhost.store.schema import SCHEMA_VERSION, prepare

Value = str | int | float | bytes | None
StoreError = aiosqlite.Error
"""What any call on the store may raise when the database cannot be used."""


class Database:
    """Runs statements. Each change has committed, synchronously to disk (WAL, synchronous=FULL), when it is over."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path, clock: Clock) -> Self:
        """Open or create the database in `path`. Raises `PermanentError` for one from a newer version."""
        connection = await aiosqlite.connect(path, isolation_level=None)
        try:
            await prepare(connection, path, clock.now())
        except BaseException:
            await connection.close()
            raise
        return cls(connection)

    @classmethod
    async def open_to_read(cls, path: Path) -> Self:
        """Open a database that is there, without changing it. Raises `PermanentError` for one of another version."""
        connection = await aiosqlite.connect(_to_read(path), uri=True, isolation_level=None)
        try:
            ((version,),) = await connection.execute_fetchall("PRAGMA user_version")
        except BaseException:
            await connection.close()
            raise
        if version != SCHEMA_VERSION:
            await connection.close()
            raise PermanentError(f"{path} is of another version of vigintd; start this one once to bring it up to date")
        return cls(connection)

    async def aclose(self) -> None:
        """Close the database."""
        await self._connection.close()

    async def all(self, sql: str, *arguments: Value) -> list[sqlite3.Row]:
        """The rows of a query."""
        # A turn for readers too: they share the connection and would see half of a change.
        async with self._turn:
            return list(await self._connection.execute_fetchall(sql, arguments))

    @asynccontextmanager
    async def change(self, step: str = "change") -> AsyncGenerator[aiosqlite.Connection]:
        """A transaction, committed at its end and undone by any error. `step` names its failpoint."""
        async with self._turn:
            await self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                failpoint(f"linkhost.{step}.before")
                await self._connection.execute("COMMIT")
                failpoint(f"linkhost.{step}.after")
            except BaseException:
                # A cancelled statement still runs in its thread; this one is queued behind it.
                if self._connection.in_transaction:
                    await self._connection.execute("ROLLBACK")
                raise


def _to_read(path: Path) -> str:
    return f"{path.absolute().as_uri()}?mode=ro"


async def number(connection: aiosqlite.Connection, sql: str, *arguments: Value) -> int:
    """The one number that a query answers, inside a change."""
    rows = list(await connection.execute_fetchall(sql, arguments))
    return int(rows[0][0])
