"""sd_notify(3) over a real datagram socket."""

from __future__ import annotations

import socket
import uuid

import pytest

from vigintd.systemd import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """A service manager's end: what to put into $NOTIFY_SOCKET, and the socket."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@vigintd-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(name.replace("@", "\0", 1))
        end.settimeout(5)
        yield name, end


def test_states_arrive_as_assignments(manager):
    """One datagram each, in the words of the protocol."""
    name, end = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.ready("2 caméras")
    notifier.status("1 camera lost")
    notifier.watchdog()
    notifier.stopping()
    assert [end.recv(4096).decode() for _ in range(4)] == [
        "READY=1\nSTATUS=2 caméras",
        "STATUS=1 camera lost",
        "WATCHDOG=1",
        "STOPPING=1",
    ]


def test_a_status_is_one_line(manager):
    """A line break in it would be another assignment."""
    name, end = manager
    Notifier({"NOTIFY_SOCKET": name}).status("lost\nWATCHDOG=trigger")
    assert end.recv(4096) == b"STATUS=lost WATCHDOG=trigger"


@pytest.mark.parametrize(
    "environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/notify"}, {"NOTIFY_SOCKET": "/" + "x" * 200}]
)
def test_without_a_manager_nothing_happens(environ):
    """The service never stops for want of one."""
    Notifier(environ).ready("up")


def test_a_manager_that_does_not_read_is_not_waited_for(manager):
    """A full socket drops the message."""
    name, _ = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    for _ in range(5_000):
        notifier.watchdog()
