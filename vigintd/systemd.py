"""Telling systemd how the service is: the sd_notify protocol (sd_notify(3)), a datagram to `$NOTIFY_SOCKET`.

Owns nothing but the socket; does nothing where systemd did not ask.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping


class Notifier:
    """Sends states such as READY=1 to the service manager that started us, if one did."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the NUL byte of Linux' abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self, status: str) -> None:
        """All is up: what waited for the service may go on."""
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def stopping(self) -> None:
        """Said first of all when the service begins to stop."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """A sign of progress."""
        self._send("WATCHDOG=1")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={_line(status)}")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # The manager's absence must never stop the service.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
            notify.sendto(message.encode(), socket.MSG_DONTWAIT, self._address)


def _line(text: str) -> str:
    # A line break would begin another assignment.
    return " ".join(text.splitlines())
