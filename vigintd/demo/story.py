"""The demonstration's story: build a camera, a mailbox and a daemon, wait for the alert, show it, and clean up.

Owns the order, the deadlines and the sentences; every wait ends, and one that ends badly says what did not happen. All
listen on this machine alone, and all of it is in one temporary folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TextIO, TypeVar

from rich.console import Console

from vigintd.clip.encode import encode_pictures
from vigintd.clock import Clock, SystemClock
from vigintd.control import SOCKET_NAME
from vigintd.control.client import ControlClient
from vigintd.daemon import serve
from vigintd.demo import scene
from vigintd.demo.download import download, free_port
from vigintd.demo.mailbox import Letter, Mailbox
from vigintd.demo.rtsp import RtspCamera
from vigintd.demo.settings import demo_settings
from vigintd.demo.showing import Showing
from vigintd.errors import ControlError, PermanentError
from vigintd.model import IncidentState, Packet
from vigintd.systemd import Notifier

READY_S = 30.0
MAIL_S = 60.0
"""From the daemon's readiness; the scene alone takes six seconds to its first movement."""
SEALED_S = 60.0
DOWNLOAD_S = 30.0
END_S = 15.0
"""For so long the daemon may take to end."""
ASK_EVERY_S = 0.25
"""The control socket answers questions and tells nothing by itself."""

T = TypeVar("T")
P = ParamSpec("P")


class DemoFailed(PermanentError):
    """Something that the demonstration waits for did not happen."""


class _Stopped(Exception):
    """No error: somebody pressed Ctrl-C, and the daemon has ended in order."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `vigintd demo --once --json` prints; each file named is there."""

    incident_id: str
    link: str
    mail_path: str
    clip_path: str
    """The clip as it came through the link."""
    sha256: str
    detection_to_mail_s: float
    """To the mail server's acceptance of the mail with the link."""
    detection_to_playable_s: float
    """To the host's acceptance of the first fragment that plays."""


async def tell(*, once: bool, as_json: bool, out: TextIO, clock: Clock | None = None) -> None:
    """Show an alert, then its whole clip; serve the link until Ctrl-C, or with `once` end there.

    With `as_json`, `out` gets one JSON object and nothing else. What `once` made stays in its folder; otherwise the folder
    goes at the end. Raises `VigintdError` saying what did not happen.
    """
    # What is told beside JSON goes where logs go, and so holds no link.
    show = Showing(Console(stderr=True), brief=True) if as_json else Showing(Console(file=out))
    with _folder(keep=once) as (folder, runtime_dir), suppress(_Stopped):
        try:
            async with _stage(folder, runtime_dir, show=show, clock=clock or SystemClock.from_environment()) as stage:
                letter = await stage.letter()
                show.letter(letter)
                outcome = await stage.outcome(letter)
                if as_json:
                    out.write(json.dumps(asdict(outcome)) + "\n")
                    out.flush()
                show.outcome(outcome.clip_path, outcome.sha256, outcome.detection_to_mail_s, outcome.detection_to_playable_s)
                if once:
                    show.kept(folder)
                else:
                    show.serving(letter)
                    await stage.ended()
        except _Stopped:
            if once:
                raise DemoFailed("stopped before the clip was whole") from None
            raise


class _Stage:
    """A running demonstration: what may be waited for."""

    def __init__(
        self, *, folder: Path, daemon: asyncio.Task[None], mailbox: Mailbox, client: ControlClient, clock: Clock
    ) -> None:
        self._folder = folder
        self._daemon = daemon
        self._mailbox = mailbox
        self._client = client
        self._clock = clock

    async def ready(self, ready: asyncio.Event) -> None:
        """Return when the daemon has said that it is ready."""
        await self._while_running(ready.wait(), READY_S, f"vigintd was not ready within {READY_S:g} s")

    async def letter(self) -> Letter:
        """The first letter with a link."""
        waiting = self._mailbox.next(lambda letter: letter.link is not None)
        try:
            return await self._while_running(waiting, MAIL_S, f"no mail with a link came within {MAIL_S:g} s")
        except DemoFailed as failed:
            raise DemoFailed(f"{failed}; {await self._so_far()}") from failed.__cause__

    async def outcome(self, letter: Letter) -> Outcome:
        """What has become of the letter's incident, once its clip is sealed, published, and fetched through the link."""
        assert letter.link is not None
        incident_id = letter.link.partition("/video/")[2].partition("?")[0]
        problem = f"the clip of incident {incident_id} was not whole within {SEALED_S:g} s"
        incident = await self._while_running(self._published(incident_id), SEALED_S, problem)
        if incident["problem"] or not incident["parts"]:
            raise DemoFailed(f"incident {incident_id} has no whole clip: {incident['problem'] or 'nothing was recorded'}")
        clips = []
        for part in incident["parts"]:
            clip = self._folder / f"{incident_id}.{part['index']}.mp4"
            fetching = _on_thread(download, letter.link, part["index"], clip)
            sha256 = await self._while_running(fetching, DOWNLOAD_S, f"the link gave no whole clip within {DOWNLOAD_S:g} s")
            if sha256 != part["sha256"]:
                raise DemoFailed(f"the clip behind the link is not the one recorded: {sha256} instead of {part['sha256']}")
            clips.append(clip)
        return Outcome(
            incident_id=incident_id,
            link=letter.link,
            mail_path=str(letter.path),
            clip_path=str(clips[0]),
            sha256=incident["parts"][0]["sha256"],
            detection_to_mail_s=_seconds(incident, "mailed_at"),
            detection_to_playable_s=_seconds(incident, "playable_at"),
        )

    async def ended(self) -> None:
        """Return when the daemon has ended, by a signal."""
        await asyncio.wait({self._daemon})
        self._raise_daemon()

    async def _published(self, incident_id: str) -> dict[str, Any]:
        """The incident, once nothing of it is owed any more that the story tells of."""
        while True:
            try:
                incident = await self._client.incident(incident_id)
            except ControlError:
                # A daemon that was told to stop closes its socket before it ends; then its end is what there is to say.
                await asyncio.wait({self._daemon}, timeout=END_S)
                raise
            if incident is None:
                raise DemoFailed(f"vigintd knows no incident {incident_id}")
            told = incident["mailed_at"] and incident["playable_at"]
            done = incident["state"] in (IncidentState.PUBLISHED, IncidentState.CLOSED)
            if incident["problem"] or (done and told):
                return incident
            await self._clock.sleep(ASK_EVERY_S)

    async def _so_far(self) -> str:
        """What did happen, for whoever wonders why the rest did not."""
        if self._mailbox.letters:
            return f"{len(self._mailbox.letters)} came without one: {self._mailbox.letters[-1].path}"
        with suppress(PermanentError, LookupError):
            cameras = (await self._client.status())["cameras"]
            states = ", ".join(
                f"camera {name} is {status['state']} {status['reason']}".rstrip() for name, status in cameras.items()
            )
            return f"{len(await self._client.incidents(10))} incidents, {states}"
        return "nothing is known of the daemon"

    async def _while_running(self, what: Coroutine[Any, Any, T], deadline_s: float, otherwise: str) -> T:
        """The answer of `what`, unless its deadline or the daemon's end comes first."""
        task = asyncio.ensure_future(what)
        try:
            await asyncio.wait({task, self._daemon}, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
            if self._daemon.done():
                self._raise_daemon()
                raise _Stopped
            if task.done():
                return task.result()
            raise DemoFailed(otherwise)
        finally:
            task.cancel()

    def _raise_daemon(self) -> None:
        """Raise what ended the daemon, if that was an error."""
        if not self._daemon.cancelled() and (error := self._daemon.exception()):
            raise error


@asynccontextmanager
async def _stage(folder: Path, runtime_dir: Path, *, show: Showing, clock: Clock) -> AsyncIterator[_Stage]:
    """Everything up, with the daemon ready; all of it ended on the way out."""
    show.step("drawing a shop at night, for the camera to see…")
    packets = await _on_thread(_encoded_scene)
    async with AsyncExitStack() as stack:
        camera = RtspCamera(packets, fps=scene.FPS, clock=clock)
        url = await camera.start()
        stack.push_async_callback(camera.stop)
        mailbox = Mailbox(folder / "mails")
        mail_port = await mailbox.start()
        stack.push_async_callback(mailbox.stop)
        settings = demo_settings(
            folder=folder, runtime_dir=runtime_dir, camera_url=url, mail_port=mail_port, link_port=free_port()
        )
        announced = _Announced()
        daemon = asyncio.create_task(serve(settings, clock=clock, notifier=announced), name="daemon")
        stack.push_async_callback(_end, daemon)
        client = ControlClient(settings.runtime_path / SOCKET_NAME)
        stage = _Stage(folder=folder, daemon=daemon, mailbox=mailbox, client=client, clock=clock)
        await stage.ready(announced.event)
        # One story is enough: after this loop nothing moves any more.
        camera.play(packets[: round(scene.STILL_S * scene.FPS)])
        show.step(f"vigintd watches {url}; somebody leaves the shop after {scene.STILL_S:g} s…")
        yield stage


class _Announced(Notifier):
    """Hears what a daemon tells the service manager."""

    def __init__(self) -> None:
        super().__init__({})
        self.event = asyncio.Event()

    def ready(self, status: str) -> None:
        """The daemon is up."""
        super().ready(status)
        self.event.set()


async def _end(daemon: asyncio.Task[None]) -> None:
    """End the daemon; what it then raises was raised before, or is nobody's concern any more."""
    daemon.cancel()
    await asyncio.wait({daemon}, timeout=END_S)
    if daemon.done() and not daemon.cancelled():
        daemon.exception()


def _encoded_scene() -> list[Packet]:
    # A key frame a second, as cameras are advised to send them.
    return encode_pictures(scene.pictures(), fps=scene.FPS, gop=scene.FPS, crf=24)


async def _on_thread(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Run `work` on a thread of its own; the default executor belongs to name look-ups."""
    executor = ThreadPoolExecutor(1, thread_name_prefix="demo")
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, partial(work, *arguments, **named))
    finally:
        executor.shutdown(wait=False)


def _seconds(incident: dict[str, Any], until: str) -> float:
    passed = datetime.fromisoformat(incident[until]) - datetime.fromisoformat(incident["at"])
    return round(passed.total_seconds(), 3)


@contextmanager
def _folder(*, keep: bool) -> Iterator[tuple[Path, Path]]:
    """A folder for everything, and one for sockets; the first stays when `keep` and nothing went wrong."""
    folder = Path(tempfile.mkdtemp(prefix="vigintd-demo-"))
    runtime_dir, far = folder / "run", None
    # A unix socket's path has at most 107 bytes; where temporary folders lie deep, sockets go elsewhere.
    if len(os.fsencode(runtime_dir)) > 80:
        runtime_dir = far = Path(tempfile.mkdtemp(prefix="vigintd-", dir="/tmp"))
    kept = False
    runtime_dir.mkdir(mode=0o700, exist_ok=True)
    try:
        yield folder, runtime_dir
        kept = keep
    finally:
        if far is not None:
            shutil.rmtree(far, ignore_errors=True)
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
