"""One stream of one camera for ever: opened, watched over, given up, opened again, at its next URL where it has several.

Owns the life of a stream as the event loop sees it: the order of its URLs, the watchdog, the reasons, the backoff, and what is
logged once. The reading itself is the capture thread's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from random import Random
from typing import Literal, NoReturn

import structlog

from vigintd import metrics
from vigintd.camera.capture import Capture
from vigintd.camera.feed import Feed
from vigintd.camera.patience import Over, Patience, silence
from vigintd.camera.reasons import lost
from vigintd.camera.redirects import redirects_without_end
from vigintd.camera.stillness import Stillness
from vigintd.camera.stream import OpenStream, StreamRequest
from vigintd.clock import Clock, first_of
from vigintd.errors import StreamLost
from vigintd.model import Packet, StreamParameters
from vigintd.retry import Backoff

State = Literal["connecting", "live", "lost", "stopped"]

UNAUTHORIZED_BACKOFF = Backoff(30, 600)
"""Cameras lock an account after a few wrong passwords, often for half an hour, and people then cannot log in either."""

_LET_GO_S = 3.0
"""How long a reader that was interrupted may take before it is abandoned."""

_LEAVE_S = 1.0
"""The same when the camera is stopped: its thread is a daemon and may end later."""

_MAX_ABANDONED = 3
"""With so many readers of one stream stuck, no more are started until one of them ends."""

_log = structlog.get_logger()


class _Place:
    """One URL of a stream and what has been learnt of it."""

    def __init__(self, request: StreamRequest, frozen_after_s: float) -> None:
        self.request = request
        self.patience = Patience(request.open_timeout_s, request.stall_timeout_s)
        # A file loops, so it shows the same again and again.
        self.stillness = Stillness(0 if request.url.startswith("file:") else frozen_after_s)
        self.reason = ""
        self.problem = ""
        """Why it has not lived when it was last tried; empty since it has."""
        self.refusals = 0
        """Times that user name or password were refused, since it last lived."""
        self.not_before_s = float("-inf")


class Lane:
    """One stream of one camera. Everything here happens on the event loop."""

    def __init__(
        self,
        camera: str,
        role: Literal["main", "detect"],
        requests: Sequence[StreamRequest],
        *,
        open_stream: OpenStream,
        make_feed: Callable[[], Feed],
        deliver: Callable[[list[Packet]], None] | None,
        clock: Clock,
        random: Random,
        backoff: Backoff,
        unauthorized_backoff: Backoff = UNAUTHORIZED_BACKOFF,
        frozen_after_s: float = 0,
        is_redirected: Callable[[str], Awaitable[bool]] = redirects_without_end,
    ) -> None:
        """`requests` are the stream's URLs, at least one, in the order in which they are tried.

        `make_feed` makes the decoding side of one life; `deliver` gets packets in batches, None: they are only looked
        at. With one same picture for `frozen_after_s` the stream counts as lost, 0: never.
        """
        self._camera = camera
        self._role = role
        self._places = [_Place(request, frozen_after_s) for request in requests]
        self._place = self._places[0]
        self._open_stream = open_stream
        self._make_feed = make_feed
        self._deliver = deliver
        self._clock = clock
        self._random = random
        self._backoff = backoff
        self._unauthorized_backoff = unauthorized_backoff
        self._is_redirected = is_redirected
        self._failures = 0
        self._hold_s = 0.0
        """How long a life that shows the frozen picture still is borne with."""
        self._has_lived = False
        """The present life has shown a picture that was not frozen."""
        self._is_kept = False
        """Kept alive by `run`: only then is it news that it lives. A probe has an answer of its own."""
        self._capture: Capture | None = None
        self._abandoned: list[Capture] = []
        self._froze: asyncio.Future[None] | None = None
        """Done when the present life was found to show a frozen picture."""
        self.state: State = "connecting"
        self.reason = ""
        self.problem = ""
        self.since: datetime = clock.now()
        self.parameters: StreamParameters | None = None
        self.packets = 0
        self.reconnects = 0
        self.live = asyncio.Event()
        """Set while key frames are being decoded."""

    @property
    def url(self) -> str:
        """The URL that is live or being tried, without credentials."""
        return self._place.request.label

    @property
    def readers_abandoned(self) -> int:
        """Readers that did not let go when they were told to, and still have not."""
        return sum(capture.is_alive for capture in self._abandoned)

    def flush(self) -> None:
        """Deliver now whatever has been read until now."""
        if self._capture is not None:
            self._capture.flush()

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
                wait_s = self._backoff.delay_s(self._failures, self._random)
                if self.reason == "frozen":
                    # It is waited for with the stream open, so that an incident goes on being recorded.
                    self._hold_s = wait_s
                else:
                    await self._clock.sleep(max(wait_s, self._barred_s()))
        finally:
            self._enter("stopped", "", "")

    async def run_once(self) -> NoReturn:
        """One life of the stream, at the first of its URLs that lives.

        Raises `StreamLost` when that is over, or when each of them has failed; cancelled, it stops its thread.
        """
        now_s = self._clock.monotonic_s()
        for place in [place for place in self._places if place.not_before_s <= now_s] or self._places[:1]:
            try:
                await self._live(place)
            except StreamLost as error:
                if self._has_lived:
                    raise
                self._note_failure(place, error)
        failed = [place for place in self._places if place.reason]
        # A frozen one is at least there.
        reason = "frozen" if any(place.reason == "frozen" for place in failed) else failed[0].reason
        raise StreamLost("; ".join(place.problem for place in failed), reason=reason)

    def _barred_s(self) -> float:
        """How long none of the URLs may be asked again."""
        return min(place.not_before_s for place in self._places) - self._clock.monotonic_s()

    async def _live(self, place: _Place) -> NoReturn:
        """One life at one URL. Raises `StreamLost` when it is over."""
        self._place, self._has_lived = place, False
        place.stillness.begin()
        self._froze = asyncio.get_running_loop().create_future()
        self._abandoned = [capture for capture in self._abandoned if capture.is_alive]
        if len(self._abandoned) >= _MAX_ABANDONED:
            raise lost("stuck", place.request.label)
        self._capture = capture = Capture(
            self._camera,
            place.request,
            open_stream=self._open_stream,
            feed=self._make_feed(),
            clock=self._clock,
            deliver=self._take if self._deliver is not None else None,
            on_key=partial(self._note_key, place),
        )
        capture.start()
        patience_s = _LEAVE_S
        try:
            error = await self._watch_over(capture, place, self._froze)
            patience_s = _LET_GO_S
            raise error
        finally:
            self.live.clear()
            capture.stop()
            self._capture = None
            await asyncio.wait({capture.ended}, timeout=patience_s)
            if not capture.ended.done():
                self._abandoned.append(capture)
                metrics.count("camera.readers_abandoned", self._camera)

    async def _watch_over(self, capture: Capture, place: _Place, froze: asyncio.Future[None]) -> StreamLost:
        """Why this life is over: what the thread says, or that it makes no progress."""
        began_s = self._clock.monotonic_s()
        while not capture.ended.done():
            now_s = self._clock.monotonic_s()
            verdict = place.patience.verdict(capture.progress, capture.wire, began_s=began_s, now_s=now_s)
            if isinstance(verdict, Over):
                if capture.is_resolving:
                    return lost("dns", place.request.label, "the resolver does not answer")
                return lost(verdict.reason, place.request.label, verdict.detail)
            if place.stillness.is_frozen:
                verdict = min(verdict, began_s + self._hold_s)
                if verdict <= now_s:
                    return lost("frozen", place.request.label)
            turns: list[asyncio.Future[None]] = [sign for sign in (capture.opened, froze) if not sign.done()]
            await first_of(self._clock, capture.ended, *turns, within_s=verdict - now_s)
        return await self._named(capture, place, capture.ended.result())

    async def _named(self, capture: Capture, place: _Place, error: StreamLost) -> StreamLost:
        """What the thread says, told more exactly where it can be found out."""
        progress, label = capture.progress, place.request.label
        if progress.opened_s is None:
            # FFmpeg follows redirects of RTSP until its time is over; those of HTTP it gives up with an error of I/O.
            if error.reason in ("timeout", "failed") and await self._is_redirected(place.request.url):
                return lost("redirects", label)
            if error.reason == "timeout" and capture.is_heard:
                return lost("no_video", label)
        elif error.reason == "stalled":
            quiet_s = self._clock.monotonic_s() - (progress.last_packet_s or progress.opened_s)
            return lost(silence(capture.wire(), quiet_s), label, f"for {quiet_s:.0f} s")
        return error

    def _take(self, packets: list[Packet]) -> None:
        assert self._deliver is not None
        self.packets += len(packets)
        self._deliver(packets)

    def _note_key(self, place: _Place, parameters: StreamParameters, digest: int) -> None:
        self.parameters = parameters
        if place.stillness.see(digest, self._clock.monotonic_s()):
            # It is no progress, and nothing else changes: its packets go where they went.
            self.live.clear()
            self._note_lost(lost("frozen", place.request.label))
            if self._froze is not None and not self._froze.done():
                self._froze.set_result(None)
            return
        self._failures, self._hold_s, self._has_lived = 0, 0.0, True
        place.refusals, place.reason, place.problem = 0, "", ""
        if self.state == "live":
            return
        if self.state == "lost":
            self.reconnects += 1
        self._enter("live", "", "")
        self.live.set()
        if self._is_kept:
            self._say_live(parameters)

    def _say_live(self, parameters: StreamParameters) -> None:
        which = {"url": self.url} if len(self._places) > 1 else {}
        size = f"{parameters.width_px}x{parameters.height_px}"
        _log.info("camera.live", camera=self._camera, stream=self._role, codec=parameters.codec, size=size, **which)

    def _note_failure(self, place: _Place, error: StreamLost) -> None:
        """One of the URLs has failed; the stream is lost only when all have."""
        if len(self._places) > 1 and place.reason != error.reason:
            _log.info("camera.url_failed", camera=self._camera, stream=self._role, reason=error.reason, text=str(error))
        place.reason, place.problem = error.reason, str(error)
        if error.reason == "unauthorized":
            place.refusals += 1
            wait_s = self._unauthorized_backoff.delay_s(place.refusals, self._random)
            place.not_before_s = self._clock.monotonic_s() + wait_s

    def _note_lost(self, error: StreamLost) -> None:
        # Once for an outage, and again only when its reason is another.
        if (self.state, self.reason) != ("lost", error.reason):
            self._enter("lost", error.reason, str(error))
            _log.warning("camera.lost", camera=self._camera, stream=self._role, reason=error.reason, text=str(error))

    def _enter(self, state: State, reason: str, problem: str) -> None:
        if state != self.state:
            self.since = self._clock.now()
        self.state, self.reason, self.problem = state, reason, problem
