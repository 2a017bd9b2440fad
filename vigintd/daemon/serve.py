"""From settings to a running daemon, and back to nothing.

Start: state folder locked, journal, spool, link host, host, courier, control socket, cameras; READY last.
Stop (SIGTERM, SIGINT): STOPPING first; then the cameras; then the incidents under way seal, publish and tell
for at most `DRAIN_S`; then everything else. Mails that are not out by then stay owed in the journal. A second signal
stops at once.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random, SystemRandom
from uuid import uuid4

import structlog

from vigintd.alert.smtp import MailChannel
from vigintd.camera import Camera
from vigintd.clock import Clock
from vigintd.config import Settings, secrets_of
from vigintd.control import SOCKET_NAME, check_path
from vigintd.control.server import ControlServer
from vigintd.daemon.answers import Answers
from vigintd.daemon.link_answers import LinkAnswers
from vigintd.daemon.timekeeper import Timekeeper
from vigintd.detect import Detector, registry
from vigintd.detect.watch import Watch, watch
from vigintd.errors import PermanentError, TransientError
from vigintd.incident import (
    Audience,
    Bounds,
    Courier,
    Desk,
    Memory,
    Plan,
    Publisher,
    Recovery,
    Reminders,
    Retention,
    Rooms,
    Space,
    Story,
)
from vigintd.incident.story import OPENING_LIFE_S
from vigintd.journal import Journal
from vigintd.linkhost import Certificate, LinkHost, Proxies
from vigintd.model import Detection
from vigintd.publish import Host
from vigintd.publish.tus import TusHost
from vigintd.redact import hide
from vigintd.spool import Spool
from vigintd.systemd import Notifier

log = structlog.get_logger(__name__)

DRAIN_S = 10.0
"""For so long after a stop the incidents under way may seal, publish and tell."""
HURRY_AFTER_S = 4.0
"""For so long after a stop alerts wait for their links."""
TELLING_S = 3.0
"""For so long an alert may take that could not be written down, when the journal is to be mended."""
CAMERA_FAILED_S = 5.0
LINKHOST_SOCKET = "linkhost.sock"
"""In the runtime folder: where the daemon's own uploads reach the built-in host."""


async def serve(settings: Settings, *, clock: Clock, random: Random | None = None, notifier: Notifier | None = None) -> None:
    """Run the daemon until SIGTERM, SIGINT or cancellation.

    Raises `VigintdError` where it cannot start: the state folder is in use or not to be written, the listen
    address is taken, a detector cannot be built.
    """
    for secret in secrets_of(settings):
        hide(secret)
    _make_folder(settings.state_dir, "state_dir")
    _make_folder(settings.runtime_path, "runtime_dir")
    for name in (SOCKET_NAME, LINKHOST_SOCKET):
        check_path(settings.runtime_path / name)
    with _sole_owner(settings.state_dir), _stop_signals() as stop:
        async with AsyncExitStack() as stack:
            daemon = Daemon(settings, clock=clock, random=random or SystemRandom(), notifier=notifier or Notifier())
            await daemon.open(stack)
            await daemon.live(stop)


class Daemon:
    """Everything that runs, joined. `open` it on a stack that closes it, then let it `live`."""

    def __init__(self, settings: Settings, *, clock: Clock, random: Random, notifier: Notifier) -> None:
        self._settings = settings
        self._clock = clock
        self._random = random
        self._notifier = notifier
        self._desk: Desk | None = None
        self._bounds = Bounds(settings.spool.keep_free_mb, settings.spool.max_mb)
        self._built: dict[tuple[str, str], Detector] = {}
        self._audience = Audience(
            site=settings.site,
            language=settings.language,
            recipients=settings.mail.recipients,
            expiry_h=settings.publish.expiry_h,
            text_after_s=settings.alert.text_after_s,
        )

    async def open(self, stack: AsyncExitStack) -> None:
        """Open what must be open before anything runs; the stack closes it in the reverse order."""
        settings = self._settings
        self._journal = await stack.enter_async_context(Journal.open(settings.state_dir / "journal.sqlite3", self._clock))
        _make_folder(settings.state_dir / "spool", "state_dir")
        self._spool = Spool(settings.state_dir / "spool")
        stack.push_async_callback(self._spool.aclose)
        await self._open_host(stack)
        self._channel = MailChannel(settings.mail, clock=self._clock)
        self._courier = Courier(
            journal=self._journal,
            spool=self._spool,
            channel=self._channel,
            host=self._host,
            audience=self._audience,
            clock=self._clock,
            random=self._random,
        )
        self._publisher = Publisher(
            journal=self._journal,
            spool=self._spool,
            host=self._host,
            courier=self._courier,
            audience=self._audience,
            clock=self._clock,
            random=self._random,
        )
        self._memory = Memory(journal=self._journal, spool=self._spool, clock=self._clock)
        self._space = Space(
            journal=self._journal,
            spool=self._spool,
            bounds=self._bounds,
            expiry_h=settings.publish.expiry_h,
            clock=self._clock,
        )
        self._rooms = Rooms(
            journal=self._journal,
            spool=self._spool,
            host=self._host,
            courier=self._courier,
            publisher=self._publisher,
            space=self._space,
            clock=self._clock,
            random=self._random,
        )
        self._cameras = {name: self._camera(name) for name in settings.cameras}
        # A detector that cannot be built is said now, and not by a camera that is running already.
        for camera, configured in settings.cameras.items():
            for name in configured.detectors:
                self._built[camera, name] = self._detector(camera, name)

    async def live(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set, then end in order."""
        recovery = Recovery(
            journal=self._journal,
            spool=self._spool,
            courier=self._courier,
            publisher=self._publisher,
            audience=self._audience,
            clock=self._clock,
            random=self._random,
        )
        await recovery.run_once()
        async with asyncio.TaskGroup() as services:
            reminders = Reminders(
                journal=self._journal, remind=self._channel.remind, audience=self._audience, clock=self._clock
            )
            retention = Retention(
                journal=self._journal, spool=self._spool, expiry_h=self._settings.publish.expiry_h, clock=self._clock
            )
            encoding = services.create_task(recovery.encode_left(), name="recovery")
            running = [
                services.create_task(self._courier.run(), name="courier"),
                services.create_task(self._publisher.run(), name="publisher"),
                services.create_task(retention.run(), name="retention"),
                services.create_task(reminders.run(), name="reminders"),
                services.create_task(self._space.run(), name="space"),
                services.create_task(self._memory.run(), name="memory"),
                services.create_task(Timekeeper(journal=self._journal, clock=self._clock).run(), name="timekeeper"),
                services.create_task(self._end_with_a_damaged_journal(), name="damage"),
            ]
            if self._linkhost is not None:
                running.append(services.create_task(self._linkhost.run(), name="link host"))
            # The drain's deadline is set only when the cameras have stopped; a TimeoutError is its normal end.
            with suppress(TimeoutError):
                async with asyncio.timeout(None) as drain:
                    async with asyncio.TaskGroup() as incidents:
                        self._desk = Desk(tasks=incidents, begin=self._begin)
                        async with self._controlled(self._desk):
                            await self._watch_cameras(stop)
                        self._desk.stop()
                        encoding.cancel()  # which the next start goes on with; the drain is for what can be ended
                        drain.reschedule(asyncio.get_running_loop().time() + DRAIN_S)
                        running.append(services.create_task(self._hurry(), name="hurry"))
                    await self._publisher.drained()
                    await self._courier.drained()
                    await self._memory.run_once()
            if drain.expired():
                log.warning("daemon.undrained", drain_s=DRAIN_S)
            for task in running:
                task.cancel()
        log.info("daemon.stopped")

    async def _watch_cameras(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as cameras:
            tasks = [cameras.create_task(self._watch_camera(name), name=f"camera {name}") for name in self._cameras]
            status = f"{len(tasks)} cameras, {self._settings.publish.host} host"
            log.info("daemon.ready", cameras=sorted(self._cameras), host=self._settings.publish.host)
            self._notifier.ready(status)
            await stop.wait()
            self._notifier.stopping()
            log.info("daemon.stopping")
            for task in tasks:
                task.cancel()

    async def _watch_camera(self, name: str) -> None:
        """One camera for ever; a defect in its task costs that camera a few seconds, and the others nothing."""
        while True:
            try:
                await self._cameras[name].run()
            except Exception:
                log.exception("camera.failed", camera=name)
                await self._clock.sleep(CAMERA_FAILED_S)
                self._cameras[name] = self._camera(name)

    async def _end_with_a_damaged_journal(self) -> None:
        """A journal that is damaged under way is mended by a start; what happens meanwhile is told first, as unwritten.

        Raises `TransientError`.
        """
        await self._journal.damaged.wait()
        await self._clock.sleep(min(OPENING_LIFE_S, self._audience.text_after_s) + TELLING_S)
        raise TransientError("the journal was damaged while it was open; the next start sets it aside and makes a new one")

    async def _hurry(self) -> None:
        """While stopping, give links a moment to play; then tell people without them, as there may be no later."""
        await self._clock.sleep(HURRY_AFTER_S)
        await self._courier.tell_all()

    async def _open_host(self, stack: AsyncExitStack) -> None:
        settings = self._settings
        self._linkhost: LinkHost | None = None
        if settings.publish.host == "linkhost":
            # The daemon and its own host share a key for as long as they live, and nobody else ever has it.
            api_key = secrets.token_urlsafe(32)
            hide(api_key)
            self._linkhost = LinkHost(
                settings.state_dir / "linkhost",
                base_url=settings.linkhost.base_url,
                api_keys={"vigintd": api_key},
                clock=self._clock,
                language=settings.language,
                # Less than recording leaves free, or what is owed could fill the disk and never be published.
                keep_free_bytes=self._bounds.keep_free_bytes(shutil.disk_usage(settings.state_dir).total) // 2,
                proxies=Proxies(settings.linkhost.proxies, settings.linkhost.proxy_header),
                certificate=Certificate(*files) if (files := settings.linkhost.certificate_files) else None,
            )
            unix_path = settings.runtime_path / LINKHOST_SOCKET
            await self._linkhost.start(listen=settings.linkhost.address, unix_path=unix_path)
            stack.push_async_callback(self._linkhost.aclose)
            self._host: Host = TusHost("http://linkhost", api_key, unix_path=unix_path)
        else:
            assert settings.publish.url
            assert settings.publish.api_key
            self._host = TusHost(settings.publish.url, settings.publish.api_key.get_secret_value())
        stack.push_async_callback(self._host.aclose)

    def _camera(self, name: str) -> Camera:
        settings = self._settings.cameras[name]
        return Camera(
            name,
            settings,
            clock=self._clock,
            watches=partial(self._watches, name),
            on_detection=self._detected,
            random=self._random,
        )

    def _watches(self, camera: str, emit: Callable[[Detection], None]) -> list[Watch]:
        loop = asyncio.get_running_loop()
        return [
            watch(name, camera, partial(self._detector, camera, name), emit=emit, loop=loop)
            for name in self._settings.cameras[camera].detectors
        ]

    def _detector(self, camera: str, name: str) -> Detector:
        """The one that was built at the start, and a fresh one each time it must be replaced."""
        built = self._built.pop((camera, name), None)
        return built or registry.build(name, self._settings.detectors[name], camera, language=self._settings.language)

    def _detected(self, detection: Detection) -> None:
        if self._desk is not None:
            self._desk.detect(detection)

    @asynccontextmanager
    async def _controlled(self, desk: Desk) -> AsyncIterator[None]:
        answers = Answers(
            cameras=self._cameras,
            desk=desk,
            journal=self._journal,
            spool=self._spool,
            courier=self._courier,
            publisher=self._publisher,
            space=self._space,
            clock=self._clock,
        )
        links = LinkAnswers(self._linkhost, self._journal)
        control = ControlServer(self._settings.runtime_path / SOCKET_NAME, answers, links)
        await control.start()
        try:
            yield
        finally:
            await control.aclose()

    def _begin(self, detection: Detection) -> Story:
        camera = self._cameras[detection.camera]
        return Story(str(uuid4()), detection, plan=self._plan(detection.camera), ring=camera.ring, rooms=self._rooms)

    def _plan(self, camera: str) -> Plan:
        settings = self._settings.cameras[camera]
        return Plan(
            audience=self._audience,
            pre_roll_s=settings.pre_roll_s,
            post_roll_s=settings.post_roll_s,
            max_clip_s=settings.max_clip_s,
            keep_original=settings.keep_original,
        )


def _make_folder(folder: Path, key: str) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise PermanentError(
            f"{folder}: cannot be made: {error.strerror}; set {key} to a folder that vigintd may write"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermanentError(f"{folder}: cannot be written; set {key} to a folder that vigintd may write")


@contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM or SIGINT sets; a second signal cancels the task that asked for it."""
    loop, task, stop = asyncio.get_running_loop(), asyncio.current_task(), asyncio.Event()
    assert task is not None

    def received() -> None:
        if stop.is_set():
            log.warning("daemon.stopped_at_once")
            task.cancel()
        stop.set()

    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, received)
    try:
        yield stop
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


@contextmanager
def _sole_owner(state_dir: Path) -> Iterator[None]:
    """Hold the state folder's lock; one daemon owns a state folder."""
    try:
        lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise PermanentError(f"{state_dir / 'lock'}: {error.strerror}; does it belong to somebody else?") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PermanentError(
                f"{state_dir}: another vigintd uses this state folder; stop it, or set another state_dir"
            ) from error
        yield
    finally:
        os.close(lock)
