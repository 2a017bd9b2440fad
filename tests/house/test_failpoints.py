"""Faults on demand: off unless asked, and counted when they happen."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from vigintd import failpoints
from vigintd.errors import PermanentError, TransientError
from vigintd.failpoints import FailpointError, FailpointRefusal, failpoint


def test_off_unless_asked():
    """Nothing happens at any point, and nothing is counted."""
    for name in failpoints.POINTS:
        failpoint(name)
    assert not failpoints.fired


def test_an_error_strikes_once_at_the_passage_asked_for():
    """It is a transient error, so that the code under it retries as ever."""
    failpoints.arm("mail.send.before", "error", passage=3)
    failpoint("mail.send.before")
    failpoint("mail.send.after")
    failpoint("mail.send.before")
    with pytest.raises(FailpointError, match=r"mail\.send\.before") as caught:
        failpoint("mail.send.before")
    assert isinstance(caught.value, TransientError)
    failpoint("mail.send.before")
    assert failpoints.fired == {"mail.send.before": 1}


def test_a_refusal_is_for_good():
    """It is a permanent error, so that the code under it gives up as ever."""
    failpoints.arm("mail.send.before", "refuse")
    with pytest.raises(FailpointRefusal, match=r"mail\.send\.before") as caught:
        failpoint("mail.send.before")
    assert isinstance(caught.value, PermanentError)
    assert failpoints.fired == {"mail.send.before": 1}


def test_the_environment_arms_several():
    """Entries are separated by commas; empty ones do not matter."""
    failpoints.arm_from_environment({"VIGINTD_FAILPOINTS": "spool.seal.after=refuse@2,,upload.create.before=error"})
    with pytest.raises(FailpointError):
        failpoint("upload.create.before")
    failpoint("spool.seal.after")
    with pytest.raises(FailpointRefusal):
        failpoint("spool.seal.after")


@pytest.mark.parametrize(
    "text",
    [
        "mail.send.before",
        "mail.send.before=boom",
        "mail.sent.before=kill",
        "mail.send.before=kill@x",
        "mail.send.before=kill@0",
    ],
)
def test_a_slip_in_the_environment_is_refused(text):
    """A test that arms nothing by mistake would prove nothing."""
    with pytest.raises(ValueError, match=r"failpoint|int"):
        failpoints.arm_from_environment({"VIGINTD_FAILPOINTS": text})


def test_passing_an_unknown_point_is_refused_while_any_is_armed():
    """A point that is not on the list could never be armed."""
    failpoints.arm("mail.send.before", "error")
    with pytest.raises(ValueError, match="unknown failpoint"):
        failpoint("mail.send.befor")


def test_kill_is_a_kill():
    """The process dies as by `kill -9`, without another word."""
    code = "from vigintd import failpoints as f; f.arm_from_environment(); f.failpoint('journal.settle.after'); print('alive')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"VIGINTD_FAILPOINTS": "journal.settle.after=kill"}, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == b""
