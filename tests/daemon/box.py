"""A running `vigintd run` as tests see it: a real process, its real log, its control socket, its mails.

Owns the process and its configuration file; everything that is waited for is an event of the log, a mail, or a
state of the journal, never a time.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vigintd.control.client import ControlClient
from vigintd.demo.mailbox import Letter, Mailbox

DEADLINE_S = 60.0
"""For whatever a test waits for; a healthy one needs a fraction."""


def free_port() -> int:
    """A port of this machine that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def toml(value: object) -> str:
    """A TOML value; JSON's strings, numbers and lists are TOML's."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """Write a configuration: plain keys first, then a table each."""
    plain = [f"{key} = {toml(value)}" for key, value in config.items() if not isinstance(value, Mapping)]
    tables = [
        line
        for key, value in config.items()
        if isinstance(value, Mapping)
        for line in (f"[{key}]", *(f"{name} = {toml(item)}" for name, item in value.items()))
    ]
    path.write_text("\n".join([*plain, *tables, ""]), encoding="utf-8")


@dataclass
class Box:
    """An NVR box under test."""

    folder: Path
    config: dict[str, Any]
    mailbox: Mailbox
    log_path: Path
    events: list[dict[str, Any]] = field(default_factory=list)
    environ: dict[str, str] = field(default_factory=dict)
    program: str = "vigintd"
    """The module that is run as vigintd."""
    _process: asyncio.subprocess.Process | None = None
    _reader: asyncio.Task[None] | None = None
    _logged: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    @property
    def control(self) -> ControlClient:
        return ControlClient(self.state_dir / "run" / "control.sock")

    @property
    def base_url(self) -> str:
        return str(self.config["linkhost"]["public_url"])

    async def start(self, *, ready: bool = True) -> None:
        """Start the daemon and wait until it is `ready`; of an earlier one's events nothing is known any more."""
        self.events.clear()
        path = self.folder / "vigintd.toml"
        write_config(path, self.config)
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", self.program, "run", "--config", str(path), "--log-format", "json", "--log-level", "debug"),
            stderr=asyncio.subprocess.PIPE,
            stdin=asyncio.subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "LANG": "C.UTF-8", **self.environ},
            cwd=Path.cwd(),
        )
        assert self._process.stderr
        self._reader = asyncio.create_task(self._read_log(self._process.stderr))
        if ready:
            await self.event("daemon.ready")

    async def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        # One whose log has ended is ending by itself; asking it to would reap it before asyncio can (exit code 255).
        if process.returncode is None and self._reader is not None and not self._reader.done():
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE_S):
            code = await process.wait()
            assert self._reader
            await self._reader
        return code

    async def kill(self) -> None:
        """As `kill -9`."""
        if self._process is None:
            return
        process, self._process = self._process, None
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        assert self._reader
        await self._reader

    def signal(self, number: signal.Signals) -> None:
        """Send the running daemon a signal."""
        assert self._process
        self._process.send_signal(number)

    async def died(self) -> int:
        """Wait until the daemon has ended by itself; the exit code."""
        assert self._process
        assert self._reader
        process, self._process = self._process, None
        async with asyncio.timeout(DEADLINE_S):
            code = await process.wait()
            await self._reader
        return code

    async def event(self, name: str, *, nth: int = 1, **fields: object) -> dict[str, Any]:
        """The first (or `nth`) log line of this event with these fields; waits for it."""
        wanted = {"event": name, **fields}

        def found() -> dict[str, Any] | None:
            like_it = [event for event in self.events if wanted.items() <= event.items()]
            return like_it[nth - 1] if len(like_it) >= nth else None

        def ended() -> bool:
            return self._reader is not None and self._reader.done()

        try:
            async with asyncio.timeout(DEADLINE_S), self._logged:
                await self._logged.wait_for(lambda: found() or ended())
        except TimeoutError:
            raise AssertionError(f"no {name} {fields} in the log; it ends:\n{self.log_tail()}") from None
        event = found()
        assert event is not None, f"vigintd ended without {name} {fields}; its log ends:\n{self.log_tail()}"
        return event

    async def letter(self, wanted: Callable[[Letter], bool] = lambda _letter: True) -> Letter:
        """The next mail like this."""
        try:
            return await self.mailbox.next(wanted, deadline_s=DEADLINE_S)
        except TimeoutError:
            raise AssertionError(f"no such mail; the log ends:\n{self.log_tail()}") from None

    async def trigger(self, camera: str) -> str:
        """Trigger a camera; the incident's id."""
        return (await self.control.trigger(camera)).incident_id

    async def closed(self, incident_id: str) -> dict[str, Any]:
        """The incident as control tells it, once its story is over."""
        await self.event("incident.closed", incident=incident_id)
        incident = await self.control.incident(incident_id)
        assert incident is not None
        return incident

    def log_tail(self) -> str:
        return "\n".join(self.log_path.read_text(encoding="utf-8").splitlines()[-25:])

    async def _read_log(self, stderr: asyncio.StreamReader) -> None:
        with self.log_path.open("a", encoding="utf-8") as log:
            while line := await stderr.readline():
                text = line.decode("utf-8", "replace")
                log.write(text)
                log.flush()
                try:
                    event = json.loads(text)
                except ValueError:
                    event = {"event": "unreadable", "text": text}
                async with self._logged:
                    self.events.append(event)
                    self._logged.notify_all()
        async with self._logged:
            self._logged.notify_all()


def camera(url: str, **options: object) -> dict[str, Any]:
    """A camera's settings with the short times of tests."""
    return {"url": url, "pre_roll_s": 2, "post_roll_s": 1, "max_clip_s": 30, **options}


@asynccontextmanager
async def boxed(folder: Path, log_folder: Path, cameras: Mapping[str, Mapping[str, Any]], **tables: Any) -> AsyncIterator[Box]:
    """A box with these cameras, its own mailbox and link host, not started yet; stopped at the end."""
    mailbox = Mailbox(folder / "mails")
    smtp_port, web_port = await mailbox.start(), free_port()
    config: dict[str, Any] = {
        "state_dir": str(folder / "state"),
        "site": "Boutique Rivoli",
        "cameras": dict(cameras),
        "detectors": {"mouvement": {"kind": "motion"}},
        "spool": {"keep_free_mb": 1},
        "linkhost": {"listen": f"127.0.0.1:{web_port}", "public_url": f"http://127.0.0.1:{web_port}"},
        "mail": {
            "server": "127.0.0.1",
            "port": smtp_port,
            "security": "none",
            "sender": "alerte@exemple.fr",
            "recipients": ["gardien@exemple.fr"],
        },
        "alert": {"text_after_s": 20},
    }
    for name, table in tables.items():
        config[name] = config.get(name, {}) | table if isinstance(table, Mapping) else table
    box = Box(folder, config, mailbox, log_folder / f"vigintd-{secrets.token_hex(4)}.log")
    box.log_path.touch()
    try:
        yield box
    finally:
        # A test that is about stopping has stopped it; the others do not wait for what is still under way.
        await box.kill()
        await mailbox.stop()
