"""The demonstration: the whole way from a camera's picture to a mail with a link, on one machine with nothing else.

Owns the built-in camera and its scene, the mail catcher, and the story that joins them to a daemon of their own.
Listens on this machine alone.
"""

from __future__ import annotations

from typing import TextIO


async def run(*, once: bool, as_json: bool, out: TextIO) -> None:
    """Show an alert on `out`, and serve its link until told to stop; see `vigintd.demo.story`."""
    # The camera and the mailbox are also used alone; they shall not load the daemon.
    from vigintd.demo.story import tell  # noqa: PLC0415

    await tell(once=once, as_json=as_json, out=out)
