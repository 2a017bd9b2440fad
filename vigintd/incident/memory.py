"""What an incident's files know of it without the journal: a sidecar that follows its row.

Owns `{id}.incident.json` in the spool, written soon after the row and whenever that changes: what was detected, what has
become of it, who is owed what and who was told. From it a journal that was lost is filled again (see `recovery`), and
nobody is told twice. It follows and promises nothing: where it cannot be written, everything else goes on.
"""

from __future__ import annotations

import asyncio
import json

import structlog

from vigintd.clock import Clock
from vigintd.errors import VigintdError
from vigintd.failpoints import failpoint
from vigintd.journal import IncidentRow, Journal, as_plain, of_plain
from vigintd.spool import Spool

log = structlog.get_logger(__name__)

SUFFIX = ".incident.json"
SCHEMA = 1
"""Raised when a sidecar means something else; an older one must stay readable."""
GATHER_S = 1.0
"""Changes within so long are written as one: an incident's first second brings a dozen."""
LATEST = 50
"""So many of the newest incidents are looked at when a daemon begins: its predecessor may have died ahead of their sidecars."""
RETRY_S = 30.0
"""A disk that could not take a sidecar is tried again after so long."""


class Memory:
    """Writes the sidecars of what has changed; `run` does so for ever. One disk call at a time, never in anybody's way."""

    def __init__(self, *, journal: Journal, spool: Spool, clock: Clock) -> None:
        self._journal = journal
        self._spool = spool
        self._clock = clock
        self._changed: dict[str, None] = {}
        """In order, each once: as many as incidents have changed since the disk last took a sidecar."""
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()
        journal.on_change = self.note

    def note(self, incident_id: str) -> None:
        """Write this incident's sidecar soon."""
        self._changed[incident_id] = None
        self._wake.set()

    async def run(self) -> None:
        """Follow the journal, for ever, from what is unfinished and what is new: a daemon that died may not have got to it."""
        try:
            for row in await self._journal.unfinished():
                self.note(row.incident.id)
            for row in await self._journal.incidents(limit=LATEST):
                sidecar = await self._spool.read_kept(row.incident.id, SUFFIX)
                # What has none any more may have been let go.
                if sidecar is not None and not _holds(sidecar, row):
                    self.note(row.incident.id)
        except (VigintdError, OSError) as error:
            log.warning("sidecar.unwritten", error=str(error))
        while True:
            await self._wake.wait()
            is_done = await self.run_once()
            await self._clock.sleep(GATHER_S if is_done else RETRY_S)

    async def run_once(self) -> bool:
        """Write what has changed; False where something could not be, which is written the next time."""
        async with self._turn:  # two writers of one file would write over each other
            self._wake.clear()
            waiting, self._changed = self._changed, {}
            while waiting:
                incident_id = next(iter(waiting))
                try:
                    row = await self._journal.incident(incident_id)
                    if row is not None:
                        failpoint("memory.write.before")
                        await self._spool.keep(incident_id, SUFFIX, written(row))
                        failpoint("memory.write.after")
                except (VigintdError, OSError) as error:
                    log.warning("sidecar.unwritten", incident=incident_id, error=str(error))
                    self._changed = waiting | self._changed
                    self._wake.set()
                    return False
                except Exception:  # a row that is beyond writing down stops no other
                    log.exception("sidecar.unwritten", incident=incident_id)
                del waiting[incident_id]
            return True


def written(row: IncidentRow) -> bytes:
    """The sidecar of a row."""
    return json.dumps({"schema": SCHEMA, **as_plain(row)}, indent=1).encode()


def read(incident_id: str, sidecar: bytes) -> IncidentRow:
    """The row of a sidecar. Raises `ValueError` for one that is damaged, another incident's or of a schema not known here."""
    try:
        plain = json.loads(sidecar)
        if plain.pop("schema") == SCHEMA and plain["id"] == incident_id:
            return of_plain(plain)
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise ValueError(f"damaged: {type(error).__name__}") from error
    raise ValueError("of another incident, or of another vigintd")


def _holds(sidecar: bytes, row: IncidentRow) -> bool:
    try:
        return read(row.incident.id, sidecar) == row
    except ValueError:
        return False
