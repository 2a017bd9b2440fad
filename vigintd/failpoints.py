"""Named points at which a test can kill the process or make a step fail; off unless asked.

Owns the list of names and what is armed. A point costs one dictionary look-up of an empty dictionary in
ordinary life. Armed by `arm`, or for a whole process by the environment variable `VIGINTD_FAILPOINTS`, which
only `arm_from_environment` reads: `name=kill`, `name=error`, each optionally `@N` for the N-th passage,
comma-separated. What fired is counted in `fired`, so that a test can assert that its fault happened.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vigintd.errors import TransientError

POINTS = frozenset(
    {
        "journal.open_incident.before",
        "journal.open_incident.after",
        "journal.owe.before",
        "journal.owe.after",
        "journal.settle.before",
        "journal.settle.after",
        "spool.append.before",
        "spool.append.after",
        "spool.seal.before",
        "spool.seal.after",
        "upload.create.before",
        "upload.create.after",
        "upload.append.before",
        "upload.append.after",
        "upload.seal.before",
        "upload.seal.after",
        "mail.send.before",
        "mail.send.after",
        "linkhost.make_key.before",
        "linkhost.make_key.after",
        "linkhost.create.before",
        "linkhost.create.after",
        "linkhost.add_part.before",
        "linkhost.add_part.after",
        "linkhost.append.before",
        "linkhost.append.after",
        "linkhost.commit.before",
        "linkhost.commit.after",
        "linkhost.seal.before",
        "linkhost.seal.after",
        "linkhost.put_metadata.before",
        "linkhost.put_metadata.after",
        "linkhost.remove.before",
        "linkhost.remove.after",
        "linkhost.bury.before",
        "linkhost.bury.after",
        "linkhost.change.before",
        "linkhost.change.after",
    }
)
"""Every point there is; arming or passing an unknown one is a `ValueError`."""


class FailpointError(TransientError):
    """Raised by a point that was armed with `error`."""


@dataclass(slots=True)
class _Armed:
    action: Literal["kill", "error"]
    passages_left: int


_armed: dict[str, _Armed] = {}
fired: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Do what was armed for this point: nothing, die at once as by `kill -9`, or raise `FailpointError`."""
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
    raise FailpointError(f"failpoint {name}")


def arm(name: str, action: Literal["kill", "error"], *, passage: int = 1) -> None:
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
        if action == "kill":
            arm(name, "kill", passage=int(passage or 1))
        elif action == "error":
            arm(name, "error", passage=int(passage or 1))
        else:
            raise ValueError(f"failpoint {entry!r}: the action is kill or error")
