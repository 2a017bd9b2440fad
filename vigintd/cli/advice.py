"""What `vigintd check` says of a camera: what it sends, in one line, and what would be better otherwise.

Owns the words, the limits beyond which something is worth saying, and what the ring can hold. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vigintd.config import CameraSettings
from vigintd.errors import StreamLost, VigintdError

if TYPE_CHECKING:
    # Every command loads this module, and only `check` shall load FFmpeg.
    from vigintd.camera.probe import CameraFacts, StreamFacts

_LONG_GOP_S = 4.0
_LARGE_PX = 1280 * 720
_SLOW_FPS = 5.0
_FAST_FPS = 31.0
_ROUGHLY = 1.25
"""Bit rates vary with what there is to see."""
_MIB = 1024 * 1024

_CODEC_ADVICE = "choose H.264 in the camera's own settings, or another stream in {key}.url"
_LOST_ADVICE = {
    "unauthorized": "set {key}.username and its password (as a credential, {credential}__password)",
    "not_found": "correct the path in {key}.url",
    "dns": "correct the name in {key}.url, or write an address",
    "unsupported": _CODEC_ADVICE,
    "garbage": _CODEC_ADVICE,
    "no_video": "switch the video of this stream on in the camera's own settings, or name another stream in {key}.url",
    "vanished": "see to the camera's power supply and cable, and to the switches between",
    "redirects": "write the address where the stream really is in {key}.url",
    "frozen": "restart the camera; where nothing ever moves, set {key}.frozen_after_s to 0",
}
_UDP_ADVICE = 'set {key}.transport to "tcp": what comes over UDP may be held up on the way'
Advice = tuple[str, str]
"""What is not as it should be, and what to do."""


def lost_advice(name: str, settings: CameraSettings, error: VigintdError) -> str:
    """What to do about a camera that could not be looked at."""
    reason = error.reason if isinstance(error, StreamLost) else ""
    advice = _LOST_ADVICE.get(reason, "see that the camera is on and reachable from here, and that {key}.url is right")
    if settings.transport == "udp" and reason in ("timeout", "stalled", "no_video"):
        advice = _UDP_ADVICE
    return advice.format(key=f"cameras.{name}", credential=f"cameras__{name}")


def summary(settings: CameraSettings, facts: CameraFacts) -> str:
    """What the camera sends, in one line."""
    words = [_stream(facts.main)]
    if settings.audio:
        words.append(f"sound {facts.main.sound}" if facts.main.sound else "no sound")
    held_s = pre_roll_s(settings, facts.main)
    if held_s is not None:
        words.append(f"pre-roll {held_s:.3g} s")
    if facts.detect is not None:
        words.append(f"detection {_stream(facts.detect)}")
    return ", ".join(words)


def figures(settings: CameraSettings, facts: CameraFacts) -> dict[str, object]:
    """The same for a program."""
    ring = pre_roll_s(settings, facts.main)
    return {
        "main": _figures(facts.main),
        "detect": _figures(facts.detect) if facts.detect else None,
        "pre_roll_s": None if ring is None else round(ring, 1),
    }


def pre_roll_s(settings: CameraSettings, main: StreamFacts) -> float | None:
    """Seconds of pre-roll that the ring has at any moment, at most what is asked for; None when that is not known.

    Whole GOPs leave the ring, so up to one GOP less than fits in may be there.
    """
    if not main.bits_per_s:
        return None
    fits_s = settings.ring_mb * _MIB * 8 / main.bits_per_s
    return max(0.0, min(settings.pre_roll_s, fits_s - _gop_s(main)))


def advice(name: str, settings: CameraSettings, facts: CameraFacts) -> Iterator[Advice]:
    """What works, and would be better otherwise."""
    key = f"cameras.{name}"
    main = facts.main
    for stream, url_key in ((main, "url"), (facts.detect, "detect_url")):
        if stream is not None and stream.failed:
            yield "; ".join(stream.failed), f"correct the first of {key}.{url_key}, or leave it out"
    yield from _gop_advice(main)
    if main.codec != "h264":
        yield (
            f"{main.codec} has to be encoded to H.264 for each clip, which takes computing time",
            "choose H.264 in the camera's own settings",
        )
    yield from _rate_advice(main)
    held_s = pre_roll_s(settings, main)
    if held_s is not None and held_s < settings.pre_roll_s:
        need = math.ceil((settings.ring_s + _gop_s(main)) * (main.bits_per_s or 0) / 8 / _MIB * _ROUGHLY)
        yield f"the ring holds {held_s:.3g} s of the {settings.pre_roll_s:g} s of pre-roll", f"set {key}.ring_mb to {need}"
    if settings.audio and main.sound is None:
        yield "audio is on, and no sound comes", f"switch sound on in the camera's own settings, or set {key}.audio to false"
    yield from _detection_advice(key, settings, facts)


def _gop_advice(main: StreamFacts) -> Iterator[Advice]:
    todo = "set the key-frame interval (I-frame interval, GOP) to 1–2 s in the camera's own settings"
    if main.gop_s is None and main.looked_s > _LONG_GOP_S:
        yield f"no second key frame within {main.looked_s:.0f} s; pre-roll comes in steps of that", todo
    elif main.gop_s is not None and main.gop_s > _LONG_GOP_S:
        yield f"a key frame only every {main.gop_s:.3g} s; pre-roll comes in steps of that", todo


def _rate_advice(main: StreamFacts) -> Iterator[Advice]:
    if main.fps is None:
        return
    if main.fps < _SLOW_FPS:
        yield f"{main.fps:.2g} pictures a second leave much unseen", "set the camera's frame rate to 10–25"
    elif main.fps > _FAST_FPS:
        yield f"{main.fps:.3g} pictures a second cost more than they show", "set the camera's frame rate to 25 or less"


def _detection_advice(key: str, settings: CameraSettings, facts: CameraFacts) -> Iterator[Advice]:
    if not settings.detectors:
        return
    watched = facts.detect or facts.main
    if watched.width_px * watched.height_px > _LARGE_PX:
        size = f"{watched.width_px}x{watched.height_px}"
        yield f"detectors watch a picture of {size}", f"name the camera's small stream (sub-stream) in {key}.detect_url"


def _stream(stream: StreamFacts) -> str:
    words = [f"{stream.codec} {stream.width_px}x{stream.height_px}"]
    if stream.fps is not None:
        words.append(f"{stream.fps:.3g} fps")
    if stream.gop_s is not None:
        words.append(f"a key frame every {stream.gop_s:.2g} s")
    elif stream.looked_s:
        words.append(f"key frames more than {stream.looked_s:.0f} s apart")
    if stream.bits_per_s:
        words.append(f"{stream.bits_per_s / 1e6:.2g} Mbit/s")
    if stream.url_count > 1:
        words[0] += f" from url {stream.url_number} of {stream.url_count}"
    return ", ".join(words)


def _figures(stream: StreamFacts) -> dict[str, object]:
    return {
        "url_number": stream.url_number,
        "codec": stream.codec,
        "width_px": stream.width_px,
        "height_px": stream.height_px,
        "fps": None if stream.fps is None else round(stream.fps, 2),
        "gop_s": None if stream.gop_s is None else round(stream.gop_s, 2),
        "looked_s": round(stream.looked_s, 1),
        "bits_per_s": None if stream.bits_per_s is None else round(stream.bits_per_s),
        "sound": stream.sound,
    }


def _gop_s(stream: StreamFacts) -> float:
    return stream.gop_s if stream.gop_s is not None else stream.looked_s
