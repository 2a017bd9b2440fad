"""Cameras in the network that speak ONVIF, and their streams, for `vigintd cameras discover`.

Owns the search and the asking, both bounded whatever strangers answer. Nothing here runs in the daemon; printing and
advice are the command's.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence

from vigintd.camera.discovery.device import CAMERA_S, look_at
from vigintd.camera.discovery.found import FoundCamera, Profile, Streams, streams_of
from vigintd.camera.discovery.soap import Asker, Credentials, new_session
from vigintd.camera.discovery.ws_discovery import MAX_CAMERAS, Answer, named, search
from vigintd.clock import Clock

__all__ = ["MAX_CAMERAS", "Answer", "Credentials", "FoundCamera", "Profile", "Streams", "discover", "named", "streams_of"]

_AT_ONCE = 32
"""Devices asked at a time; the others wait."""


async def discover(
    at: Sequence[Answer] = (),
    *,
    clock: Clock,
    timeout_s: float,
    interface: str | None = None,
    credentials: Credentials | None = None,
    patience_s: float = CAMERA_S,
) -> list[FoundCamera]:
    """Every ONVIF device that answers a search of `timeout_s`, or those `at` known places; sorted by address.

    The credentials are offered, as a digest, to every device that wants some. Each device is asked for at most `patience_s`,
    and one that fails is told with its problem. Raises what `search` raises.
    """
    turns = asyncio.Semaphore(_AT_ONCE)

    async with new_session() as session:

        async def ask(answer: Answer) -> FoundCamera:
            async with turns:
                return await look_at(answer, Asker(session, answer.url, credentials, clock=clock), patience_s=patience_s)

        asking = [asyncio.create_task(ask(answer)) for answer in at[:MAX_CAMERAS]]
        try:
            if not at:
                await search(
                    lambda answer: asking.append(asyncio.create_task(ask(answer))),
                    clock=clock,
                    timeout_s=timeout_s,
                    interface=interface,
                )
            cameras = await asyncio.gather(*asking)
        finally:
            for task in asking:
                task.cancel()
    return sorted(cameras, key=lambda camera: ipaddress.ip_address(camera.address).packed)
