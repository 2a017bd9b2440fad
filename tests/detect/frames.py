"""Scenes for the detectors' tests, made of arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import numpy as np

from vigintd.detect import Detector
from vigintd.model import Detection, Frame

BEGAN_AT = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
HEIGHT, WIDTH = 180, 320


def frame(
    number: int = 0, pixels: np.ndarray | None = None, *, arrived_s: float | None = None, fps: float = 5, life: int = 1
) -> Frame:
    """Frame `number` of the camera `entree`."""
    arrived_s = number / fps if arrived_s is None else arrived_s
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8) if pixels is None else pixels
    return Frame("entree", number, arrived_s, BEGAN_AT + timedelta(seconds=arrived_s), pixels, life)


def room(seed: int = 1) -> np.ndarray:
    """A room with furniture: patches of different grey."""
    patches = np.random.default_rng(seed).integers(40, 200, (18, 32), dtype=np.uint8)
    picture = np.empty((HEIGHT, WIDTH), np.uint8)
    picture.reshape(18, 10, 32, 10)[:] = patches[:, None, :, None]
    return picture


def noisy(picture: np.ndarray, sigma: float, seed: int) -> np.ndarray:
    """The same picture from a sensor with noise."""
    noise = np.random.default_rng(seed).standard_normal(picture.shape, np.float32)
    noised: np.ndarray = np.clip(picture + np.float32(sigma) * noise, 0, 255).astype(np.uint8)
    return noised


def with_person(picture: np.ndarray, x: float, *, size: tuple[int, int] = (60, 20), grey: int = 10) -> np.ndarray:
    """The same picture with somebody (height × width) standing at `x` (0–1)."""
    changed = picture.copy()
    left = int(x * (WIDTH - size[1]))
    changed[80 : 80 + size[0], left : left + size[1]] = grey
    return changed


def shown(detector: Detector, frames: Iterable[Frame]) -> list[Detection]:
    """What a plain detector says to these frames."""
    answers = [detector(one) for one in frames]
    return [answer for answer in answers if isinstance(answer, Detection)]


def scene(
    seconds: float, picture_at: Callable[[float], np.ndarray], *, fps: float = 5, from_s: float = 0.0, life: int = 1
) -> list[Frame]:
    """Frames of a scene that is drawn for each moment from its own beginning, with a little noise."""
    count = round(seconds * fps)
    return [
        frame(number, noisy(picture_at(number / fps), 2, number), arrived_s=from_s + number / fps, life=life)
        for number in range(count)
    ]
