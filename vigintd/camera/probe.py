"""A look at a configured camera for `vigintd check`: whether it can be opened, and what it sends.

Owns what is looked at, for how long, and the figures. Wording and advice are the command's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import SystemRandom

from vigintd.camera.address import request_for
from vigintd.camera.av_stream import open_av_stream
from vigintd.camera.feed import Feed, PictureCount
from vigintd.camera.lane import Lane
from vigintd.camera.stream import OpenStream, StreamRequest
from vigintd.clock import SystemClock
from vigintd.config import CameraSettings
from vigintd.errors import StreamLost
from vigintd.model import MEDIA_CLOCK_HZ, Packet, StreamParameters
from vigintd.retry import Backoff

LOOK_S = 10.0
"""How long a stream is looked at, at most, from its first decoded key frame on."""

_LEAST_S = 2.0
"""Of media time: what a rate needs to mean anything, where key frames come fast."""


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What one stream sends."""

    url_number: int
    """Which of the configured URLs this is, from 1."""
    url_count: int
    failed: tuple[str, ...]
    """Why each URL before it was lost."""
    codec: str
    width_px: int
    height_px: int
    fps: float | None
    """Pictures a second; None with fewer than two pictures."""
    gop_s: float | None
    """The longest time from one key frame to the next; None when there was no second one."""
    looked_s: float
    """Media time that was looked at; without a second key frame the GOP is longer than this."""
    bits_per_s: float | None
    """Coded, sound included; of whole GOPs where there was one."""
    sound: str | None
    """Codec of the sound that came; None when none came or none was asked for."""


@dataclass(frozen=True, slots=True)
class CameraFacts:
    """What a camera's streams send."""

    main: StreamFacts
    detect: StreamFacts | None
    """Of the detection stream, where there is one."""


async def probe_camera(
    name: str, settings: CameraSettings, *, look_s: float = LOOK_S, open_stream: OpenStream = open_av_stream
) -> CameraFacts:
    """Open each of a camera's streams, decode a key frame of it, and look until its second one or for `look_s`.

    Of several URLs the first that lives is looked at. Raises `StreamLost` with the first one's reason where none does.
    """
    wanted = [[request_for(settings, url) for url in settings.url]]
    if settings.detect_url:
        wanted.append([request_for(settings, url, with_sound=False) for url in settings.detect_url])
    found = await asyncio.gather(
        *(_first_that_lives(name, requests, look_s, open_stream) for requests in wanted), return_exceptions=True
    )
    facts = []
    for one in found:
        if isinstance(one, BaseException):
            raise one
        facts.append(one)
    return CameraFacts(facts[0], facts[1] if len(facts) > 1 else None)


async def _first_that_lives(
    name: str, requests: Sequence[StreamRequest], look_s: float, open_stream: OpenStream
) -> StreamFacts:
    failures: list[StreamLost] = []
    for number, request in enumerate(requests, 1):
        try:
            look, parameters = await _look_at(name, request, look_s, open_stream)
        except StreamLost as error:
            failures.append(error)
        else:
            return look.facts(number, len(requests), tuple(map(str, failures)), parameters)
    raise failures[0]


async def _look_at(name: str, request: StreamRequest, look_s: float, open_stream: OpenStream) -> tuple[_Look, StreamParameters]:
    clock = SystemClock.from_environment()
    look = _Look()
    lane = Lane(
        name,
        "main",
        [request],
        open_stream=open_stream,
        make_feed=lambda: Feed(name, (), count=PictureCount(), detect_fps=None, look_back_bytes=0, clock=clock),
        deliver=look.take,
        clock=clock,
        random=SystemRandom(),
        backoff=Backoff(1, 60),
    )
    life = asyncio.create_task(lane.run_once())
    live = asyncio.create_task(lane.live.wait())
    enough = asyncio.create_task(look.enough.wait())
    try:
        await asyncio.wait({life, live}, return_when=asyncio.FIRST_COMPLETED)
        if not live.done():
            await life
        await asyncio.wait({life, enough}, return_when=asyncio.FIRST_COMPLETED, timeout=look_s)
        assert lane.parameters is not None
        return look, lane.parameters
    finally:
        tasks = {life, live, enough}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


class _Look:
    """Counts what comes of one stream."""

    def __init__(self) -> None:
        self.enough = asyncio.Event()
        """Two key frames and a while between have been seen."""
        self._times: list[int] = []
        self._sizes: list[int] = []
        self._keys: list[int] = []
        """Numbers of key frames among the packets."""
        self._sound: str | None = None

    def take(self, packets: list[Packet]) -> None:
        """Packets of the stream, in order."""
        for packet in packets:
            if packet.is_key:
                self._keys.append(len(self._times))
            self._times.append(packet.dts_90k)
            self._sizes.append(packet.size_bytes)
            if packet.audio:
                self._sound = packet.audio[-1].parameters.codec
        if len(self._keys) > 1 and self._seconds(self._keys[0], self._keys[-1]) >= _LEAST_S:
            self.enough.set()

    def facts(self, number: int, count: int, failed: tuple[str, ...], parameters: StreamParameters) -> StreamFacts:
        """All that was counted."""
        last = len(self._times) - 1
        looked_s = self._seconds(0, last)
        starts = [self._seconds(0, key) for key in self._keys]
        gops = [later - earlier for earlier, later in pairwise(starts)]
        # A GOP in part would count its key frame too much.
        first, end = (self._keys[0], self._keys[-1]) if gops else (0, last)
        counted_s = self._seconds(first, end)
        return StreamFacts(
            url_number=number,
            url_count=count,
            failed=failed,
            codec=parameters.codec,
            width_px=parameters.width_px,
            height_px=parameters.height_px,
            fps=last / looked_s if looked_s else None,
            gop_s=max(gops, default=None),
            looked_s=looked_s,
            bits_per_s=8 * sum(self._sizes[first:end]) / counted_s if counted_s else None,
            sound=self._sound,
        )

    def _seconds(self, first: int, last: int) -> float:
        return (self._times[last] - self._times[first]) / MEDIA_CLOCK_HZ if 0 <= first < last else 0.0
