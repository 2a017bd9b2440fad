"""What the built-in camera looks at: a shop's front at night, and a customer who comes out and walks off.

Owns the drawing, in numpy alone. Nothing moves until `STILL_S`, so that a pre-roll can fill; then the door slides open
at once with somebody standing in it, so that the first pictures of the movement already show a person. The last
picture equals the first: a loop has no jump.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH_PX, HEIGHT_PX = 640, 360
FPS = 15
LOOP_S = 12.0
STILL_S = 6.0
"""First movement."""
MOVED_S = 11.4
"""Last movement, at the latest."""

Picture = NDArray[np.uint8]
Canvas = NDArray[np.float32]
Colour = tuple[int, int, int]
Point = tuple[float, float]
"""x, y in pixels from the top left."""

_OPENING_S = 0.5
_WAIT_S = 0.3
_PACE_PX_S = 112.0
_CLOSE_AFTER_S = 1.6
_STRIDE_HZ = 1.7

_DOOR_LEFT, _DOOR_RIGHT, _DOOR_TOP, _DOOR_BOTTOM = 408, 488, 116, 296
_PAVEMENT_Y = 296

_LETTERS = {
    "B": ("####.", "#...#", "#...#", "####.", "#...#", "#...#", "####."),
    "O": (".###.", "#...#", "#...#", "#...#", "#...#", "#...#", ".###."),
    "U": ("#...#", "#...#", "#...#", "#...#", "#...#", "#...#", ".###."),
    "T": ("#####", "..#..", "..#..", "..#..", "..#..", "..#..", "..#.."),
    "I": (".###.", "..#..", "..#..", "..#..", "..#..", "..#..", ".###."),
    "Q": (".###.", "#...#", "#...#", "#...#", "#.#.#", "#..#.", ".##.#"),
    "E": ("#####", "#....", "#....", "####.", "#....", "#....", "#####"),
}


def pictures(*, fps: int = FPS) -> Iterator[Picture]:
    """One loop of the scene: `LOOP_S` × `fps` RGB pictures of `HEIGHT_PX` × `WIDTH_PX`."""
    front, inside = _front(), _inside()
    leaf = front[_DOOR_TOP:_DOOR_BOTTOM, _DOOR_LEFT:_DOOR_RIGHT].copy()
    for number in range(round(LOOP_S * fps)):
        canvas = front.copy()
        after_s = number / fps - STILL_S
        if 0 < after_s < MOVED_S - STILL_S:
            _movement(canvas, inside, leaf, after_s)
        yield np.clip(canvas, 0, 255).astype(np.uint8)


def _movement(canvas: Canvas, inside: Canvas, leaf: Canvas, after_s: float) -> None:
    """The door and the customer, `after_s` seconds after the first movement."""
    opened = min(1.0, after_s / _OPENING_S)
    if after_s > _CLOSE_AFTER_S:
        opened = max(0.0, 1.0 - (after_s - _CLOSE_AFTER_S) / _OPENING_S)
    opened = opened * opened * (3 - 2 * opened)
    walked_s = max(0.0, after_s - _OPENING_S - _WAIT_S)
    person = _Person(
        x=(_DOOR_LEFT + _DOOR_RIGHT) / 2 - _PACE_PX_S * walked_s,
        feet_y=_DOOR_BOTTOM - 4 + min(30.0, 26.0 * walked_s),
        height=150 + min(16.0, 14.0 * walked_s),
        phase=2 * math.pi * _STRIDE_HZ * walked_s,
        stride=min(1.0, walked_s * 4),
    )
    doorway = canvas[_DOOR_TOP:_DOOR_BOTTOM, _DOOR_LEFT:_DOOR_RIGHT]
    doorway[:] = inside
    if not walked_s:
        _draw_person(canvas, person)
    # The leaf slides into the wall on the right; what is left of it covers what is behind.
    slid = round(opened * (_DOOR_RIGHT - _DOOR_LEFT - 8))
    doorway[:, slid:] = leaf[:, : leaf.shape[1] - slid]
    if opened > 0:
        _glow(canvas, (_DOOR_LEFT + 30, _DOOR_BOTTOM + 20), (190, 42), (255, 196, 120), 0.22 * opened)
    if walked_s:
        _draw_person(canvas, person)


@dataclass(frozen=True, slots=True)
class _Person:
    """Somebody walking to the left; lengths in pixels, angles in radians."""

    x: float
    feet_y: float
    height: float
    phase: float
    stride: float
    """0 (stands) to 1 (walks)."""

    @property
    def size(self) -> float:
        """Of one length, for somebody 166 pixels tall, in pixels."""
        return self.height / 166


_SKIN, _HAIR, _COAT, _COAT_FAR = (206, 158, 128), (44, 32, 28), (146, 44, 46), (104, 30, 36)
_JEANS, _JEANS_FAR, _SHOES, _SHOES_FAR = (52, 66, 102), (36, 46, 74), (226, 222, 214), (160, 156, 152)
_BAG, _SCARF = (214, 178, 96), (226, 206, 170)


def _draw_person(canvas: Canvas, person: _Person) -> None:
    size = person.size
    swing = math.sin(person.phase) * person.stride
    bob = abs(math.cos(person.phase)) * 3 * size * person.stride
    x, hip_y = person.x, person.feet_y - 80 * size + bob * 0.3
    shoulder_y, head_y = hip_y - 56 * size, hip_y - 79 * size
    _glow(canvas, (x, person.feet_y + 2), (42 * size, 9 * size), (0, 0, 0), 0.62)
    _leg(canvas, person, -swing, hip_y=hip_y, colours=(_JEANS_FAR, _SHOES_FAR))
    _arm(canvas, (x, shoulder_y + 5 * size), swing, size, _COAT_FAR)
    _leg(canvas, person, swing, hip_y=hip_y, colours=(_JEANS, _SHOES))
    _stroke(canvas, (x, shoulder_y + 8 * size), (x + 1, hip_y + 2 * size), 15 * size, _COAT)
    _stroke(canvas, (x - 1, hip_y - 6 * size), (x + 1, hip_y + 14 * size), 15 * size, _COAT)
    _stroke(canvas, (x - 4 * size, shoulder_y - 3 * size), (x + 5 * size, shoulder_y - 3 * size), 6 * size, _SCARF)
    _stroke(canvas, (x - 2 * size, head_y), (x - 2 * size, head_y + 5 * size), 10.5 * size, _SKIN)
    _stroke(canvas, (x - 1 * size, head_y - 5 * size), (x + 4 * size, head_y), 10 * size, _HAIR)
    _stroke(canvas, (x - 12 * size, head_y + 4 * size), (x - 10 * size, head_y + 5 * size), 2.5 * size, _SKIN)
    hand = _arm(canvas, (x + 1, shoulder_y + 6 * size), -swing, size, (172, 56, 56))
    _stroke(canvas, hand, (hand[0], hand[1] + 9 * size), 1.2 * size, _HAIR)
    _stroke(canvas, (hand[0] - 4 * size, hand[1] + 16 * size), (hand[0] + 4 * size, hand[1] + 16 * size), 8 * size, _BAG)
    _stroke(canvas, (hand[0] - 6 * size, hand[1] + 25 * size), (hand[0] + 6 * size, hand[1] + 25 * size), 5 * size, _BAG)


def _leg(canvas: Canvas, person: _Person, swing: float, *, hip_y: float, colours: tuple[Colour, Colour]) -> None:
    size = person.size
    knee = (person.x - 17 * size * swing - 3 * size * person.stride, hip_y + 40 * size)
    lift = max(0.0, -swing) * 9 * size
    foot = (person.x - 27 * size * swing + (4 * size if swing < 0 else 0), person.feet_y - 5 * size - lift)
    trousers, shoe = colours
    _stroke(canvas, (person.x, hip_y), knee, 9 * size, trousers)
    _stroke(canvas, knee, foot, 7 * size, trousers)
    _stroke(canvas, (foot[0] + 2 * size, foot[1] + 3 * size), (foot[0] - 10 * size, foot[1] + 4 * size), 4 * size, shoe)


def _arm(canvas: Canvas, shoulder: Point, swing: float, size: float, colour: Colour) -> Point:
    """Draw an arm, and answer where its hand is."""
    elbow = (shoulder[0] - 12 * size * swing + 2 * size, shoulder[1] + 27 * size)
    hand = (elbow[0] - (9 * swing + 4) * size, elbow[1] + 24 * size)
    _stroke(canvas, shoulder, elbow, 6.5 * size, colour)
    _stroke(canvas, elbow, hand, 5.5 * size, colour)
    _stroke(canvas, hand, (hand[0], hand[1] + 3 * size), 4.5 * size, _SKIN)
    return hand


def _stroke(canvas: Canvas, a: Point, b: Point, radius: float, colour: Colour) -> None:
    """A line from `a` to `b` (x, y) with round ends, its edge smoothed over one pixel."""
    left, right = int(max(0, min(a[0], b[0]) - radius - 1)), int(min(WIDTH_PX, max(a[0], b[0]) + radius + 2))
    top, bottom = int(max(0, min(a[1], b[1]) - radius - 1)), int(min(HEIGHT_PX, max(a[1], b[1]) + radius + 2))
    if left >= right or top >= bottom:
        return
    y, x = np.ogrid[top:bottom, left:right]
    along_x, along_y = b[0] - a[0], b[1] - a[1]
    squared = along_x**2 + along_y**2
    place = np.clip(((x - a[0]) * along_x + (y - a[1]) * along_y) / squared, 0, 1) if squared else np.zeros((1, 1))
    distance = np.hypot(x - a[0] - place * along_x, y - a[1] - place * along_y)
    # Rounder than flat: a little darker on the side away from the lamp.
    shade = 1 - 0.28 * np.clip(((x - a[0] - place * along_x) + (y - a[1] - place * along_y) * 0.4) / radius, 0, 1)
    cover = np.clip(radius + 0.5 - distance, 0, 1)[..., None]
    patch = canvas[top:bottom, left:right]
    patch += cover * (np.asarray(colour, np.float32) * shade[..., None] - patch)


def _glow(canvas: Canvas, centre: Point, reach: Point, colour: Colour, strength: float) -> None:
    """Light (or shadow) in a soft ellipse around `centre`, fading out at `reach` to the sides and up and down."""
    (x, y), (width, height) = centre, reach
    left, right = int(max(0, x - width)), int(min(WIDTH_PX, x + width + 1))
    top, bottom = int(max(0, y - height)), int(min(HEIGHT_PX, y + height + 1))
    if left >= right or top >= bottom:
        return
    rows, columns = np.ogrid[top:bottom, left:right]
    distance = np.clip(np.hypot((columns - x) / width, (rows - y) / height), 0, 1)
    cover = (strength * (1 - distance) ** 2 * (1 + 2 * distance))[..., None]
    patch = canvas[top:bottom, left:right]
    patch += cover * (np.asarray(colour, np.float32) - patch)


def _fill(canvas: Canvas, box: tuple[int, int, int, int], colour: Colour) -> None:
    """Paint `box`: left, top, and right and bottom outside of it."""
    left, top, right, bottom = box
    canvas[top:bottom, left:right] = colour


def _front() -> Canvas:
    """The shop's front with its door shut."""
    canvas = _wall_and_pavement()
    _window(canvas)
    _door(canvas)
    _awning_and_sign(canvas)
    _fill(canvas, (532, 150, 542, 166), (30, 30, 34))
    _fill(canvas, (529, 166, 545, 186), (255, 236, 190))
    _glow(canvas, (537, 182), (150, 150), (255, 206, 130), 0.5)
    _glow(canvas, (537, _PAVEMENT_Y + 22), (130, 40), (255, 206, 130), 0.3)
    _glow(canvas, (205, _PAVEMENT_Y + 24), (230, 46), (255, 200, 130), 0.34)
    rows, columns = np.ogrid[:HEIGHT_PX, :WIDTH_PX]
    away = np.hypot((columns - WIDTH_PX / 2) / WIDTH_PX, (rows - HEIGHT_PX / 2) / HEIGHT_PX)
    canvas *= (1 - 0.75 * away**2)[..., None]
    return canvas


def _wall_and_pavement() -> Canvas:
    grain = np.random.default_rng(20).normal(0, 2.2, (HEIGHT_PX, WIDTH_PX, 1)).astype(np.float32)
    canvas = np.empty((HEIGHT_PX, WIDTH_PX, 3), np.float32)
    canvas[:] = (64, 54, 60)
    for row in range(0, _PAVEMENT_Y, 12):
        canvas[row : row + 1] = (46, 40, 48)
        for column in range(0 if row % 24 else 14, WIDTH_PX, 28):
            canvas[row : row + 12, column : column + 1] = (48, 42, 50)
    _fill(canvas, (0, _PAVEMENT_Y - 8, WIDTH_PX, _PAVEMENT_Y), (44, 44, 52))
    depth = np.linspace(0, 1, HEIGHT_PX - _PAVEMENT_Y, dtype=np.float32)[:, None, None]
    canvas[_PAVEMENT_Y:] = np.asarray((74, 74, 84), np.float32) * (1 - 0.3 * depth)
    for row in (_PAVEMENT_Y + 14, _PAVEMENT_Y + 38):
        canvas[row : row + 1] *= 0.72
    for far in range(-60, WIDTH_PX + 120, 60):
        # Joints of the paving run towards the middle of the picture's far edge.
        rows = np.arange(_PAVEMENT_Y, HEIGHT_PX)
        columns = (far + (far - WIDTH_PX / 2) * (rows - _PAVEMENT_Y) / 160).astype(int)
        held = (columns >= 0) & (columns < WIDTH_PX)
        canvas[rows[held], columns[held]] *= 0.72
    return canvas + grain


def _window(canvas: Canvas) -> None:
    left, top, right, bottom = 66, 126, 346, 266
    _fill(canvas, (left - 7, top - 7, right + 7, bottom + 9), (30, 44, 46))
    warm = np.linspace(1.0, 0.72, bottom - top, dtype=np.float32)[:, None, None]
    canvas[top:bottom, left:right] = np.asarray((222, 172, 104), np.float32) * warm
    goods = np.random.default_rng(8)
    for shelf_y in (172, 214, 256):
        column = left + 10
        while column < right - 30:
            width, height = int(goods.integers(9, 24)), int(goods.integers(14, 31))
            red, green, blue = (int(goods.integers(low, high)) for low, high in ((90, 210), (60, 160), (50, 150)))
            _fill(canvas, (column, shelf_y - height, column + width, shelf_y), (red, green, blue))
            column += width + int(goods.integers(3, 16))
        _fill(canvas, (left, shelf_y, right, shelf_y + 4), (112, 74, 44))
    for lamp_x in (112, 206, 300):
        _glow(canvas, (lamp_x, top + 4), (62, 70), (255, 240, 206), 0.6)
    for bar in (158, 252):
        _fill(canvas, (bar, top, bar + 5, bottom), (30, 44, 46))


def _door(canvas: Canvas) -> None:
    _fill(canvas, (_DOOR_LEFT - 8, _DOOR_TOP - 8, _DOOR_RIGHT + 8, _DOOR_BOTTOM), (30, 44, 46))
    _fill(canvas, (_DOOR_LEFT, _DOOR_TOP, _DOOR_RIGHT, _DOOR_BOTTOM), (40, 62, 64))
    height = _DOOR_BOTTOM - _DOOR_TOP - 42
    frosted = np.linspace(1.0, 0.66, height, dtype=np.float32)[:, None, None]
    canvas[_DOOR_TOP + 12 : _DOOR_TOP + 12 + height, _DOOR_LEFT + 10 : _DOOR_RIGHT - 10] = (
        np.asarray((170, 146, 108), np.float32) * frosted
    )
    _fill(canvas, (_DOOR_LEFT + 12, _DOOR_TOP + 86, _DOOR_LEFT + 16, _DOOR_TOP + 118), (226, 214, 180))


def _inside() -> Canvas:
    """What the open door shows; as large as the door."""
    height, width = _DOOR_BOTTOM - _DOOR_TOP, _DOOR_RIGHT - _DOOR_LEFT
    canvas = np.empty((height, width, 3), np.float32)
    canvas[:] = np.asarray((252, 214, 150), np.float32) * np.linspace(1.0, 0.8, height, dtype=np.float32)[:, None, None]
    canvas[height - 40 :] = (176, 132, 86)
    canvas[60:64, :] = canvas[96:100, :] = (168, 116, 70)
    canvas[44:60, 6:18] = canvas[78:96, 58:70] = (130, 84, 78)
    canvas[40:60, 54:64] = canvas[82:96, 10:26] = (92, 112, 104)
    return canvas


def _awning_and_sign(canvas: Canvas) -> None:
    for row in range(84, 112):
        spread = (row - 84) // 2
        columns = np.arange(48 - spread, 364 + spread)
        red = ((columns - 206) * 200 // (316 + 2 * spread) + 1000) // 12 % 2 == 0
        shade = 0.62 + 0.3 * (row - 84) / 28
        canvas[row, columns] = np.where(red[:, None], (150, 34, 40), (212, 204, 190)) * np.float32(shade)
    _fill(canvas, (34, 112, 378, 114), (40, 26, 30))
    word, dot = "BOUTIQUE", 4
    left, top = 206 - len(word) * 6 * dot // 2, 40
    _fill(canvas, (left - 16, top - 12, left + len(word) * 6 * dot + 12, top + 7 * dot + 12), (24, 34, 40))
    for place, letter in enumerate(word):
        for row, dots in enumerate(_LETTERS[letter]):
            for column in (index for index, mark in enumerate(dots) if mark == "#"):
                x, y = left + (place * 6 + column) * dot, top + row * dot
                _fill(canvas, (x, y, x + dot, y + dot), (255, 222, 150))
    _glow(canvas, (206, top + 14), (200, 60), (255, 206, 120), 0.16)
