"""One stream of one camera for ever: opened, watched over, given up, opened again.

Owns the life of a stream as the event loop sees it: the watchdog, the reasons, the backoff, and what is logged once.
The reading itself is the capture thread's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from random import Random
from typing import Any, Literal, NoReturn

import structlog

from vigintd import metrics
from vigintd.camera.capture import Capture, Progress
from vigintd.camera.feed import Feed
from vigintd.camera.reasons import lost
from vigintd.camera.stream import OpenStream, Reason, StreamRequest
from vigintd.clock import Clock
from vigintd.errors import StreamLost
from vigintd.model import Packet, StreamParameters
from vigintd.retry import Backoff

State = Literal["connecting", "live", "lost", "stopped"]

_OPEN_GRACE_S = 5.0
"""Resolving a name and closing come on top of FFmpeg's own time-out for opening."""

_LET_GO_S = 3.0
"""How long a reader that was interrupted may take before it is abandoned."""

_LEAVE_S = 1.0
"""The same when the camera is stopped: its thread is a daemon and may end later."""

_MAX_ABANDONED = 3
"""With so many readers of one stream stuck, no more are started until one of them ends."""

_MAX_KEY_PATIENCE_S = 120.0

_log = structlog.get_logger()


class Lane:
    """One stream of one camera. Everything here happens on the event loop."""

    def __init__(
        self,
        camera: str,
        role: Literal["main", "detect"],
        request: StreamRequest,
        *,
        open_stream: OpenStream,
        make_feed: Callable[[], Feed],
        deliver: Callable[[list[Packet]], None],
        clock: Clock,
        random: Random,
        backoff: Backoff,
    ) -> None:
        """`make_feed` makes the decoding side of one life; `deliver` gets packets in batches."""
        self._camera = camera
        self._role = role
        self._request = request
        self._open_stream = open_stream
        self._make_feed = make_feed
        self._deliver = deliver
        self._clock = clock
        self._random = random
        self._backoff = backoff
        self._failures = 0
        self._is_kept = False
        """Kept alive by `run`: only then is it news that it lives. A probe has an answer of its own."""
        self._abandoned: list[Capture] = []
        self._key_patience_s = request.stall_timeout_s
        self.state: State = "connecting"
        self.reason = ""
        self.problem = ""
        self.since: datetime = clock.now()
        self.parameters: StreamParameters | None = None
        self.packets = 0
        self.reconnects = 0
        self.live = asyncio.Event()
        """Set while key frames are being decoded."""

    async def run(self) -> NoReturn:
        """Live for ever: one life after another, with growing waits that only a decoded key frame makes short again."""
        self._is_kept = True
        try:
            while True:
                try:
                    await self.run_once()
                except StreamLost as error:
                    self._note_lost(error)
                self._failures += 1
                await self._clock.sleep(self._backoff.delay_s(self._failures, self._random))
        finally:
            self._enter("stopped", "", "")

    async def run_once(self) -> NoReturn:
        """One life of the stream. Raises `StreamLost` when it is over; cancelled, it stops its thread."""
        self._abandoned = [capture for capture in self._abandoned if capture.is_alive]
        if len(self._abandoned) >= _MAX_ABANDONED:
            raise lost("stuck", self._request.label)
        capture = Capture(
            self._camera,
            self._request,
            open_stream=self._open_stream,
            feed=self._make_feed(),
            clock=self._clock,
            deliver=self._take,
            on_key=self._note_key,
        )
        capture.start()
        patience_s = _LEAVE_S
        try:
            error = await self._watch_over(capture)
            patience_s = _LET_GO_S
            raise error
        finally:
            self.live.clear()
            capture.stop()
            await asyncio.wait({capture.ended}, timeout=patience_s)
            if not capture.ended.done():
                self._abandoned.append(capture)
                metrics.count("camera.readers_abandoned", self._camera)

    async def _watch_over(self, capture: Capture) -> StreamLost:
        """Why this life is over: what the thread says, or that it makes no progress."""
        started_s = self._clock.monotonic_s()
        while not capture.ended.done():
            due_s, reason, detail = self._deadline(capture.progress, started_s)
            left_s = due_s - self._clock.monotonic_s()
            if left_s <= 0:
                if reason == "garbage":
                    # It may be a camera with few key frames: wait longer for the next one.
                    self._key_patience_s = min(2 * self._key_patience_s, max(_MAX_KEY_PATIENCE_S, self._key_patience_s))
                return lost(reason, self._request.label, detail)
            await self._wait(capture.ended, left_s)
        return capture.ended.result()

    async def _wait(self, ended: asyncio.Future[StreamLost], most_s: float) -> None:
        alarm = asyncio.ensure_future(self._clock.sleep(most_s))
        either: set[asyncio.Future[Any]] = {ended, alarm}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            alarm.cancel()

    def _deadline(self, progress: Progress, started_s: float) -> tuple[float, Reason, str]:
        """Until when the next sign of life must come, and what its absence means."""
        if progress.opened_s is None:
            patience_s = self._request.open_timeout_s + _OPEN_GRACE_S
            return started_s + patience_s, "timeout", f"not open after {patience_s:g} s"
        stall_s = self._request.stall_timeout_s
        key_s = max(self._key_patience_s, 2 * progress.longest_gop_s)
        silent = (progress.last_packet_s or progress.opened_s) + stall_s
        blind = (progress.last_key_s or progress.opened_s) + key_s
        if silent <= blind:
            return silent, "stalled", f"nothing for {stall_s:g} s"
        return blind, "garbage", f"no key frame could be decoded for {key_s:g} s, though data come"

    def _take(self, packets: list[Packet]) -> None:
        self.packets += len(packets)
        self._deliver(packets)

    def _note_key(self, parameters: StreamParameters) -> None:
        self._failures = 0
        self.parameters = parameters
        if self.state == "live":
            return
        if self.state == "lost":
            self.reconnects += 1
        self._enter("live", "", "")
        self.live.set()
        if not self._is_kept:
            return
        _log.info(
            "camera.live",
            camera=self._camera,
            stream=self._role,
            codec=parameters.codec,
            size=f"{parameters.width_px}x{parameters.height_px}",
        )

    def _note_lost(self, error: StreamLost) -> None:
        # Once for an outage, and again only when its reason is another.
        if (self.state, self.reason) != ("lost", error.reason):
            self._enter("lost", error.reason, str(error))
            _log.warning("camera.lost", camera=self._camera, stream=self._role, reason=error.reason, text=str(error))

    def _enter(self, state: State, reason: str, problem: str) -> None:
        if state != self.state:
            self.since = self._clock.now()
        self.state, self.reason, self.problem = state, reason, problem
