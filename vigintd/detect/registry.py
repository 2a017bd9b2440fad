"""Detectors by name: installed entry points of the group `vigintd.detectors`.

Owns the look-up and the sentences for what is wrong with it. Running a detector is `watch`'s.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import cast, get_args

from vigintd.config import DetectorSettings
from vigintd.detect import ENTRY_POINT_GROUP, Detector, DetectorFactory, Pixels
from vigintd.errors import DetectorError


def kinds() -> list[str]:
    """Names that `kind` may have, sorted."""
    return sorted({entry.name for entry in entry_points(group=ENTRY_POINT_GROUP)})


def build(name: str, settings: DetectorSettings, camera: str, *, language: str) -> Detector:
    """The detector of `[detectors.NAME]` for one camera.

    Raises `DetectorError`, in words for a user, when its kind is not installed or not importable, an option is wrong, or
    what it makes is no detector.
    """
    where = f"[detectors.{name}]"
    factory = _factory(where, settings.kind)
    try:
        detector = factory(camera, settings.options, language=language)
    except ValueError as error:
        raise DetectorError(f"{where} {error}") from error
    except Exception as error:
        raise DetectorError(f"{where} kind {settings.kind!r} failed to start: {type(error).__name__}: {error}") from error
    if not callable(cast("object", detector)) or getattr(detector, "pixels", None) not in get_args(Pixels):
        raise DetectorError(f'{where} kind {settings.kind!r} made no detector: a callable with pixels = "luma" or "rgb"')
    return detector


def _factory(where: str, kind: str) -> DetectorFactory:
    found = list(entry_points(group=ENTRY_POINT_GROUP, name=kind))
    if not found:
        raise DetectorError(f"{where} kind {kind!r} is not installed; there are: {', '.join(kinds()) or 'none'}")
    return cast("DetectorFactory", _loaded(where, found[0]))


def _loaded(where: str, entry: EntryPoint) -> object:
    try:
        return entry.load()
    except Exception as error:
        # Whatever a plug-in's import does, it is that plug-in's fault and a sentence for the user.
        raise DetectorError(f"{where} kind {entry.name!r} cannot be loaded: {type(error).__name__}: {error}") from error
