"""`vigintd check`: everything that is configured, really tried, and what to do where it fails.

Owns the order of what is tried, its bounds and the advice. Prints nothing. What tries comes by argument (`Probes`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vigintd.cli import reach
from vigintd.cli.advice import advice, figures, lost_advice, summary
from vigintd.clock import SystemClock
from vigintd.config import CameraSettings, DetectorSettings, MailSettings, Settings, is_loopback
from vigintd.errors import ControlError, HostRefused, MailRefused, PermanentError, VigintdError
from vigintd.redact import redacted

if TYPE_CHECKING:
    # Every command loads this module, and only `check` shall load FFmpeg.
    from vigintd.camera.probe import CameraFacts

AT_ONCE = 8
"""Probes under way at a time; the others wait."""
PATIENCE_S = 60.0
"""No probe may take longer, whatever its own deadlines; it is then told as failed and left behind."""


class State(StrEnum):
    """How a thing was found."""

    OK = "ok"
    NOTE = "note"
    """It works, but probably not as meant."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried."""

    what: str
    state: State
    result: str
    todo: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    """Figures, for a program; of a camera those of `advice.figures`."""


@dataclass(frozen=True, slots=True)
class Probes:
    """What tries each kind of thing: answers what it found, mostly in one line, or raises a `VigintdError`."""

    camera: Callable[[str, CameraSettings], Awaitable[CameraFacts]]
    detector: Callable[[str, DetectorSettings, str], Awaitable[str]]
    folders: Callable[[Settings], Awaitable[str]]
    host: Callable[[Settings], Awaitable[str]]
    mail: Callable[[MailSettings], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class _Try:
    what: str
    probe: Callable[[], Awaitable[str | list[Finding]]]
    advise: Callable[[VigintdError], str]


async def examine(settings: Settings, probes: Probes, *, patience_s: float = PATIENCE_S) -> list[Finding]:
    """Try everything, at most `AT_ONCE` at a time; findings in the order of the configuration file."""
    turns = asyncio.Semaphore(AT_ONCE)
    found = await asyncio.gather(*(_tried(each, turns, patience_s) for each in _tries(settings, probes)))
    return [Finding("configuration", State.OK, "no fault"), *(one for several in found for one in several), *_notes(settings)]


def _tries(settings: Settings, probes: Probes) -> Iterator[_Try]:
    yield _Try("folders", partial(probes.folders, settings), lambda _error: "correct state_dir or runtime_dir")
    for name, camera in settings.cameras.items():
        yield _Try(f"camera {name}", partial(_camera, name, camera, probes), partial(lost_advice, name, camera))
        for kind in camera.detectors:
            build = partial(probes.detector, kind, settings.detectors[kind], name)
            yield _Try(f"detector {kind} of {name}", build, partial(_detector_advice, kind))
    yield _Try(f"host {settings.publish.host}", partial(probes.host, settings), partial(_host_advice, settings.publish.host))
    if settings.publish.host == "linkhost" and settings.linkhost.certificate_files:
        yield _Try(
            "certificate", partial(_certificate, settings), lambda _error: "correct linkhost.certificate and linkhost.key"
        )
    yield _Try(f"mail server {settings.mail.server}", partial(probes.mail, settings.mail), _mail_advice)


async def _camera(name: str, settings: CameraSettings, probes: Probes) -> list[Finding]:
    what = f"camera {name}"
    facts = await probes.camera(name, settings)
    notes = [Finding(what, State.NOTE, result, todo) for result, todo in advice(name, settings, facts)]
    return [Finding(what, State.OK, summary(settings, facts), facts=figures(settings, facts)), *notes]


async def _certificate(settings: Settings) -> list[Finding]:
    result, notes = await reach.certificate(settings.linkhost, SystemClock.from_environment().now())
    return [Finding("certificate", State.OK, result), *(Finding("certificate", State.NOTE, *note) for note in notes)]


def _notes(settings: Settings) -> list[Finding]:
    """What works and is probably not meant."""
    notes = [
        Finding(
            f"camera {name}",
            State.NOTE,
            "no detector watches it; only vigintd trigger opens incidents there",
            f"name detectors in cameras.{name}.detectors",
        )
        for name, camera in settings.cameras.items()
        if not camera.detectors
    ]
    if settings.publish.host == "linkhost" and settings.linkhost.public_url is None:
        notes.append(
            Finding(
                "links",
                State.NOTE,
                f"they begin with {settings.linkhost.base_url}"
                + (": nobody but this machine can open them" if is_loopback(settings.linkhost.address[0]) else ""),
                "set linkhost.public_url to the address that people reach",
            )
        )
    if settings.publish.host == "linkhost":
        notes += [Finding("links", State.NOTE, *note) for note in reach.notes(settings.linkhost)]
    return notes


async def _tried(each: _Try, turns: asyncio.Semaphore, patience_s: float) -> list[Finding]:
    async with turns:
        try:
            async with asyncio.timeout(patience_s):
                found = await each.probe()
            findings = [Finding(each.what, State.OK, found)] if isinstance(found, str) else found
            return [replace(finding, result=redacted(finding.result)) for finding in findings]
        except TimeoutError:
            result, todo = f"no answer within {patience_s:g} s", "see whether it can be reached from here at all"
        except VigintdError as error:
            result = str(error)
            todo = "" if _ADVICE.search(result) else each.advise(error)
        except Exception as error:  # noqa: BLE001  (one probe's fault shall not hide what the others found)
            result, todo = f"{type(error).__name__}: {error}", "report this; it is a fault in vigintd"
    return [Finding(each.what, State.FAILED, redacted(result), todo)]


# Many errors say themselves what to do; a second advice beside it may contradict the first.
_ADVICE = re.compile(r"[:;,] (?:ask|check|choose|correct|leave|make|name|run|see|set|start|stop|use|write)\b")


def _detector_advice(name: str, _error: VigintdError) -> str:
    return f"correct [detectors.{name}]"


def _host_advice(host: str, error: VigintdError) -> str:
    if host == "linkhost":
        return "correct linkhost.listen"
    if isinstance(error, HostRefused):
        return "give the key that the host knows (credential publish__api_key)"
    return "correct publish.url, and see that the host runs"


def _mail_advice(error: VigintdError) -> str:
    if "mail.ca_file" in str(error):
        return "correct mail.ca_file"
    if isinstance(error, MailRefused):
        return "ask who runs the mail server what its answer means"
    return "correct mail.server, mail.port and mail.security, and see that this machine may reach it"


def real_probes() -> Probes:
    """What `vigintd check` tries with."""
    from vigintd.alert.smtp import MailChannel  # noqa: PLC0415  (a test of `examine` needs none of these)
    from vigintd.camera import probe_camera  # noqa: PLC0415
    from vigintd.detect import registry  # noqa: PLC0415

    async def detector(name: str, settings: DetectorSettings, camera: str) -> str:
        # It is built to see whether it can be, and says nothing to anybody.
        await _in_thread(lambda: registry.build(name, settings, camera, language="en"))
        return settings.kind

    async def mail(settings: MailSettings) -> str:
        return await MailChannel(settings, clock=SystemClock.from_environment()).probe()

    return Probes(camera=probe_camera, detector=detector, folders=probe_folders, host=probe_host, mail=mail)


async def _in_thread(work: Callable[[], object]) -> None:
    """Run `work`, which may take long or for ever, on a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: Exception | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        failed: Exception | None = None
        try:
            work()
        except Exception as error:  # noqa: BLE001  (carried over to who awaits)
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop has ended without waiting
            loop.call_soon_threadsafe(settle, failed)

    threading.Thread(target=run, name="detector check", daemon=True).start()
    await done


async def probe_host(settings: Settings) -> str:
    """Ask the host elsewhere, or see whether the built-in one could start."""
    if settings.publish.host == "linkhost":
        return await _probe_linkhost(settings)
    from vigintd.publish.tus import TusHost  # noqa: PLC0415

    assert settings.publish.url
    assert settings.publish.api_key
    host = TusHost(settings.publish.url, settings.publish.api_key.get_secret_value())
    try:
        return await host.probe()
    finally:
        await host.aclose()


async def _probe_linkhost(settings: Settings) -> str:
    if await _runs_here(settings):
        return "a vigintd runs here and serves it"
    _can_listen(*settings.linkhost.address)
    return f"can listen on {settings.linkhost.listen}"


async def probe_folders(settings: Settings) -> str:
    """See whether the daemon could keep its journal, spool and sockets where it is told to, and has room to record."""
    from vigintd.control import SOCKET_NAME, check_path  # noqa: PLC0415

    check_path(settings.runtime_path / SOCKET_NAME)
    if await _runs_here(settings):
        return f"a vigintd runs here and uses them; {_room(settings)}"
    _writable(settings.state_dir, "state_dir")
    _writable(settings.runtime_path, "runtime_dir")
    return f"{settings.state_dir} and {settings.runtime_path} can be written; {_room(settings)}"


def _room(settings: Settings) -> str:
    """How much may be recorded on the spool's disk; raises where that is nothing."""
    from vigintd.incident import Bounds  # noqa: PLC0415  (it loads FFmpeg)
    from vigintd.spool import measure  # noqa: PLC0415

    bounds = Bounds(settings.spool.keep_free_mb, settings.spool.max_mb)
    disk = measure(_nearest(settings.state_dir / "spool"))
    keep_bytes = bounds.keep_free_bytes(disk.disk_bytes)
    if disk.is_read_only or disk.free_bytes <= keep_bytes:
        raise PermanentError(f"{bounds.words(disk)}; make room there: nothing would be recorded (see spool.keep_free_mb)")
    return f"{disk.free_bytes / 1e9:.1f} GB are free, of which {keep_bytes / 1e9:.1f} stay free"


async def _runs_here(settings: Settings) -> bool:
    from vigintd.control import SOCKET_NAME  # noqa: PLC0415
    from vigintd.control.client import ControlClient  # noqa: PLC0415

    try:
        await ControlClient(settings.runtime_path / SOCKET_NAME, timeout_s=5).status()
    except ControlError:
        return False
    return True


def _writable(folder: Path, key: str) -> None:
    """Whether `folder`, or the nearest folder above it that there is, can be written; nothing is made."""
    nearest = _nearest(folder)
    if not os.path.isdir(nearest):  # noqa: PTH112
        raise PermanentError(f"{folder}: {nearest} is no folder; set {key}")
    if not os.access(nearest, os.W_OK | os.X_OK, effective_ids=True):
        raise PermanentError(f"{folder}: this user may not write there; run check as root (sudo), or set {key}")


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest above it that there is."""
    # os.path answers False for what this user may not even look at, where pathlib raises.
    return next(path for path in (folder, *folder.parents) if os.path.exists(path))  # noqa: PTH110


def _can_listen(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1)
    except OSError as error:
        sentence = {
            errno.EADDRINUSE: "another program listens there",
            errno.EADDRNOTAVAIL: "this machine has no such address",
            errno.EACCES: "ports below 1024 are for root",
        }.get(error.errno or 0, error.strerror or str(error))
        raise PermanentError(f"cannot listen on {host}:{port}: {sentence}") from error
