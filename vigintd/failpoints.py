"""Named points at which a test can kill the process or make a step fail; off unless asked.

Owns the list of names and what is armed. A point costs one look at an empty dictionary in
ordinary life. Armed by `arm`, or for a whole process by the environment variable `VIGINTD_FAILPOINTS`, which
only `arm_from_environment` reads: `name=kill`, `name=error` (try again) or `name=refuse` (do not), each optionally
`@N` for the N-th passage, comma-separated. What fired is counted in `fired`, so that a test can assert that its fault
happened.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from vigintd.errors import PermanentError, TransientError

_STEPS = (
    # Rows: with all statements made, before the commit; and after it, before anybody was told.
    "journal.open_incident",
    "journal.record_incident",
    "journal.record_playable",
    "journal.hasten",
    "journal.settle",
    "journal.postpone",
    "journal.bury",
    "journal.revive",
    "journal.take_over",
    "journal.adopt",
    # Files of the spool. `rename` is that of any small file: its new content is whole and on disk, its folder is not.
    "spool.create",
    "spool.append",
    "spool.seal",
    "spool.rename",
    "spool.remove",  # one file of those that are to go
    "snapshot.keep",
    "memory.write",
    # Requests to the host.
    "upload.create",
    "upload.append",
    "upload.seal",
    "upload.update",
    # A mail: all of it; the link asked for; the transaction of a server that is ready, up to its 250 and short of QUIT.
    "mail.send",
    "mail.link",
    "mail.data",
    # The link host's own: its rows, as the journal's, and the files in between.
    "linkhost.make_key",
    "linkhost.create",
    "linkhost.add_part",
    "linkhost.append",  # bytes received and checked, and then on disk; their row is `linkhost.commit`
    "linkhost.commit",
    "linkhost.seal",
    "linkhost.put_metadata",
    "linkhost.remove",  # a file
    "linkhost.bury",
    "linkhost.change",  # any other row
    # A start, before any camera runs.
    "recovery.survey",
    "recovery.salvage",
)
POINTS = frozenset(f"{step}.{side}" for step in _STEPS for side in ("before", "after")) | {
    "spool.append.written",  # and not yet fsynced
    "upload.append.sending",  # a chunk has left, the body's end has not
}
"""Every point there is; arming or passing an unknown one is a `ValueError`."""

Action = Literal["kill", "error", "refuse"]


class FailpointError(TransientError):
    """Raised by a point that was armed with `error`."""


class FailpointRefusal(PermanentError):
    """Raised by a point that was armed with `refuse`."""


@dataclass(slots=True)
class _Armed:
    action: Action
    passages_left: int


_armed: dict[str, _Armed] = {}
fired: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Do what was armed for this point: nothing, die at once as by `kill -9`, or raise one of the errors above."""
    if not _armed:
        return
    if name not in POINTS:
        raise ValueError(f"unknown failpoint {name!r}")
    armed = _armed.get(name)
    if armed is None:
        return
    armed.passages_left -= 1
    if armed.passages_left > 0:
        return
    del _armed[name]
    fired[name] += 1
    if armed.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise (FailpointRefusal if armed.action == "refuse" else FailpointError)(f"failpoint {name}")


def arm(name: str, action: Action, *, passage: int = 1) -> None:
    """Make the `passage`-th passage of point `name` fail, once."""
    if name not in POINTS:
        raise ValueError(f"unknown failpoint {name!r}")
    if passage < 1:
        raise ValueError(f"failpoint {name!r}: passages count from 1")
    _armed[name] = _Armed(action, passage)


def disarm() -> None:
    """Forget everything armed and fired."""
    _armed.clear()
    fired.clear()


def arm_from_environment(environ: Mapping[str, str] = os.environ) -> None:
    """Arm what `VIGINTD_FAILPOINTS` says; a malformed or unknown entry is a `ValueError`."""
    for entry in filter(None, environ.get("VIGINTD_FAILPOINTS", "").split(",")):
        name, _, rest = entry.partition("=")
        action, _, passage = rest.partition("@")
        if action not in get_args(Action):
            raise ValueError(f"failpoint {entry!r}: the action is {', '.join(get_args(Action))}")
        arm(name, cast("Action", action), passage=int(passage or 1))
