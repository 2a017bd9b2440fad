"""What one ONVIF device tells of itself: who made it, and which streams it has.

Owns the order of questions (Core Specification: device management; Media and Media2 Service Specifications), and the
bound on all of them together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import islice
from xml.sax.saxutils import escape

from vigintd.camera.discovery.found import FoundCamera, Profile, codec_of, pinned, plain, stream_address
from vigintd.camera.discovery.soap import DEVICE, Asker, Element, NotAuthorized, Refused, Unanswered, every, listed, said
from vigintd.camera.discovery.ws_discovery import Answer

CAMERA_S = 20.0
"""For all questions to one device; what it has told by then is what is known of it."""
_MAX_PROFILES = 64
"""Of a device with more (a recorder), the first ones."""
_MAX_PX = 32_768
"""No picture is wider or higher."""

_MEDIA = "http://www.onvif.org/ver10/media/wsdl"
_MEDIA2 = "http://www.onvif.org/ver20/media/wsdl"
_SCHEMA = "http://www.onvif.org/ver10/schema"
# Media2 first: only there can a profile be H.265.
_GET_PROFILES = {_MEDIA2: "<q:Type>VideoSource</q:Type><q:Type>VideoEncoder</q:Type>", _MEDIA: ""}
_GET_STREAM_URI = {
    _MEDIA2: "<q:Protocol>RTSP</q:Protocol>",
    _MEDIA: (
        f'<q:StreamSetup xmlns:t="{_SCHEMA}"><t:Stream>RTP-Unicast</t:Stream>'
        "<t:Transport><t:Protocol>RTSP</t:Protocol></t:Transport></q:StreamSetup>"
    ),
}


async def look_at(answer: Answer, asker: Asker, *, patience_s: float = CAMERA_S) -> FoundCamera:
    """Ask a device for everything; never raises for what the device does."""
    camera = FoundCamera(answer.address, name=answer.name, model=answer.hardware)
    profiles: list[Profile] = []
    try:
        async with asyncio.timeout(patience_s):
            camera = await _identity(camera, asker)
            async for profile in _profiles(camera, asker):
                profiles.append(profile)  # noqa: PERF401  (at the deadline, those that came before it are kept)
        problem = "" if profiles else "offers no video stream"
    except NotAuthorized:
        return replace(camera, profiles=tuple(profiles), locked=True)
    except TimeoutError:
        problem = f"did not tell everything within {patience_s:g} s"
    except (Unanswered, Refused) as error:
        problem = str(error)
    return replace(camera, profiles=tuple(profiles), problem=problem)


async def _identity(camera: FoundCamera, asker: Asker) -> FoundCamera:
    answer = await asker.ask(DEVICE, "GetDeviceInformation")
    maker, model = plain(said(answer, "Manufacturer")), plain(said(answer, "Model"))
    return replace(camera, maker=maker or camera.maker, model=model or camera.model)


async def _profiles(camera: FoundCamera, asker: Asker) -> AsyncIterator[Profile]:
    services = await _media_services(camera, asker)
    last = next(reversed(services))
    for namespace, url in services.items():
        try:
            answer = await asker.ask(namespace, "GetProfiles", _GET_PROFILES[namespace], url=url)
        except (Unanswered, Refused):
            if namespace == last:
                raise
            continue
        tokens = 0
        for element in islice(listed(answer, "Profiles"), _MAX_PROFILES):
            if (token := element.get("token")) and (profile := _profile(element)):
                tokens += 1
                yield await _with_stream(camera, asker, profile, namespace=namespace, url=url, token=token)
        if tokens:
            return


async def _media_services(camera: FoundCamera, asker: Asker) -> dict[str, str]:
    """Namespace → URL of the media services, in the order of use."""
    told: dict[str, str | None] = {}
    try:
        answer = await asker.ask(DEVICE, "GetServices", "<q:IncludeCapability>false</q:IncludeCapability>")
        for service in listed(answer, "Service"):
            told[said(service, "Namespace")] = pinned(said(service, "XAddr"), camera.address)
    except (Unanswered, Refused):
        # A device of before GetServices.
        answer = await asker.ask(DEVICE, "GetCapabilities", "<q:Category>Media</q:Category>")
        told[_MEDIA] = pinned(said(answer, "Media", "XAddr"), camera.address)
    known = {namespace: url for namespace in _GET_PROFILES if (url := told.get(namespace))}
    return known or {_MEDIA: asker.url}


def _profile(element: Element) -> Profile | None:
    """A profile without its stream; None where it has no video. Media2's names first, then Media's."""
    for encoder, source in (("VideoEncoder", "VideoSource"), ("VideoEncoderConfiguration", "VideoSourceConfiguration")):
        if next(every(element, encoder), None) is not None:
            return Profile(
                name=plain(said(element, "Name")),
                source=plain(said(element, source, "SourceToken")),
                codec=plain(codec_of(said(element, encoder, "Encoding"))),
                width_px=_pixels(said(element, encoder, "Resolution", "Width")),
                height_px=_pixels(said(element, encoder, "Resolution", "Height")),
                fps=_rate(said(element, encoder, "RateControl", "FrameRateLimit")),
                url="",
            )
    return None


async def _with_stream(camera: FoundCamera, asker: Asker, profile: Profile, *, namespace: str, url: str, token: str) -> Profile:
    """The profile with the URL of its stream; without one where the device refuses to tell it."""
    inner = f"{_GET_STREAM_URI[namespace]}<q:ProfileToken>{escape(token)}</q:ProfileToken>"
    try:
        answer = await asker.ask(namespace, "GetStreamUri", inner, url=url)
    except Refused:
        return profile
    stream, elsewhere = stream_address(said(answer, "Uri"), camera.address)
    return replace(profile, url=stream, elsewhere=elsewhere)


def _pixels(text: str) -> int:
    try:
        return min(max(int(text[:8]), 0), _MAX_PX)
    except ValueError:
        return 0


def _rate(text: str) -> float | None:
    try:
        rate = float(text[:16])
    except ValueError:
        return None
    return rate if 0 < rate <= 1000 else None
