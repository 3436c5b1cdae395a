"""The things and the furniture of the world, as small drawings.

A drawing is a stack of maps: where there is ink, how light it is, and which part of it does not take the colour.
They are drawn once, large and by hand, and scaled down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Maps = npt.NDArray[np.float32]
Point = tuple[float, float]
Box = tuple[float, float, float, float]

# Name → red, green, blue of 0…255.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (212, 40, 42),
    "orange": (242, 140, 30),
    "yellow": (245, 222, 50),
    "green": (48, 160, 70),
    "blue": (48, 92, 214),
    "purple": (142, 58, 172),
    "white": (242, 242, 242),
    "black": (38, 38, 42),
}
# Side of the finished drawings in pixels, and how much larger they are drawn.
SIDE = 96
_OVERSAMPLING = 4


class _Pen:
    """Draws on the maps, in units of a hundredth of the drawing's side."""

    def __init__(self) -> None:
        side = SIDE * _OVERSAMPLING
        self._unit = side / 100
        self.maps = [Image.new("L", (side, side), 0) for _ in range(4)]
        self._on = [ImageDraw.Draw(image) for image in self.maps]

    def _ink(self, draw: Callable[[ImageDraw.ImageDraw, int], None], shade: float, line: bool, white: bool) -> None:
        alpha, light, dark, blank = self._on
        draw(alpha, 255)
        draw(light, round(255 * shade))
        draw(dark, 255 if line else 0)
        draw(blank, 255 if white else 0)

    def polygon(self, points: Sequence[Point], *, shade: float = 0.8, line: bool = False, white: bool = False) -> None:
        """A filled polygon."""
        scaled = [(x * self._unit, y * self._unit) for x, y in points]
        self._ink(lambda on, value: on.polygon(scaled, fill=value), shade, line, white)

    def box(self, box: Box, *, shade: float = 0.8, line: bool = False, white: bool = False, round_: float = 0) -> None:
        """A filled rectangle, its corners rounded by ``round_``."""
        scaled = tuple(value * self._unit for value in box)
        self._ink(
            lambda on, value: on.rounded_rectangle(scaled, radius=round_ * self._unit, fill=value), shade, line, white
        )

    def disc(self, box: Box, *, shade: float = 0.8, line: bool = False, white: bool = False) -> None:
        """A filled ellipse."""
        scaled = tuple(value * self._unit for value in box)
        self._ink(lambda on, value: on.ellipse(scaled, fill=value), shade, line, white)

    def pie(self, box: Box, start: float, end: float, *, shade: float = 0.8) -> None:
        """A filled sector of an ellipse, in degrees clockwise from the right."""
        scaled = tuple(value * self._unit for value in box)
        self._ink(lambda on, value: on.pieslice(scaled, start, end, fill=value), shade, False, False)

    def arc(self, box: Box, start: float, end: float, width: float, *, shade: float = 0.8, line: bool = False) -> None:
        """Part of the rim of an ellipse."""
        scaled = tuple(value * self._unit for value in box)
        thick = round(width * self._unit)
        self._ink(lambda on, value: on.arc(scaled, start, end, fill=value, width=thick), shade, line, False)

    def stroke(self, points: Sequence[Point], width: float, *, shade: float = 0.8, line: bool = True) -> None:
        """A line."""
        scaled = [(x * self._unit, y * self._unit) for x, y in points]
        thick = round(width * self._unit)
        self._ink(lambda on, value: on.line(scaled, fill=value, width=thick, joint="curve"), shade, line, False)

    def hole(self, box: Box) -> None:
        """Take the ink away inside an ellipse."""
        scaled = tuple(value * self._unit for value in box)
        for on in self._on:
            on.ellipse(scaled, fill=0)


def _cup(pen: _Pen) -> None:
    pen.arc((60, 34, 96, 74), 0, 360, 9, shade=0.65)
    pen.polygon([(16, 24), (78, 24), (70, 92), (24, 92)])
    pen.disc((16, 14, 78, 34), shade=0.95)
    pen.disc((23, 18, 71, 31), shade=0.35)


def _key(pen: _Pen) -> None:
    pen.disc((3, 26, 51, 74))
    pen.hole((18, 41, 36, 59))
    pen.box((46, 43, 97, 57))
    pen.box((70, 55, 79, 75))
    pen.box((87, 55, 97, 75))


def _ball(pen: _Pen) -> None:
    pen.disc((8, 8, 92, 92))
    pen.arc((-42, 2, 42, 98), -60, 60, 5, line=True)
    pen.arc((58, 2, 142, 98), 120, 240, 5, line=True)
    pen.stroke([(8, 50), (92, 50)], 5)
    pen.disc((24, 18, 42, 32), shade=1.0)


def _book(pen: _Pen) -> None:
    pen.polygon([(14, 10), (80, 10), (88, 18), (88, 94), (22, 94), (14, 86)], white=True)
    pen.box((14, 8, 80, 86))
    pen.box((14, 8, 27, 86), shade=0.5)
    pen.box((38, 22, 70, 32), white=True)
    pen.box((38, 40, 70, 45), shade=0.45)


def _hat(pen: _Pen) -> None:
    pen.disc((2, 62, 98, 92), shade=0.7)
    pen.box((26, 14, 74, 78), round_=10)
    pen.box((26, 58, 74, 70), line=True)


def _shoe(pen: _Pen) -> None:
    pen.polygon([(12, 14), (48, 14), (52, 46), (86, 58), (97, 72), (97, 82), (8, 82)])
    pen.box((6, 80, 98, 92), line=True)
    for step in range(3):
        pen.stroke([(42, 24 + 11 * step), (60 + 4 * step, 22 + 11 * step)], 4)


def _lamp(pen: _Pen) -> None:
    pen.box((45, 48, 55, 88), line=True)
    pen.disc((24, 82, 76, 98), shade=0.6)
    pen.polygon([(32, 6), (68, 6), (94, 54), (6, 54)])
    pen.polygon([(32, 6), (44, 6), (26, 54), (6, 54)], shade=1.0)


def _clock(pen: _Pen) -> None:
    pen.disc((4, 4, 96, 96))
    pen.disc((20, 20, 80, 80), white=True)
    pen.stroke([(50, 52), (50, 26)], 6)
    pen.stroke([(50, 50), (68, 60)], 6)


def _apple(pen: _Pen) -> None:
    pen.stroke([(50, 34), (56, 8)], 6)
    pen.polygon([(56, 18), (78, 4), (86, 16), (68, 26)], line=True)
    pen.disc((6, 24, 60, 90))
    pen.disc((40, 24, 94, 90))
    pen.disc((22, 50, 78, 97))
    pen.disc((18, 34, 36, 54), shade=1.0)


def _car(pen: _Pen) -> None:
    pen.polygon([(20, 50), (32, 22), (68, 22), (84, 50)])
    pen.polygon([(29, 47), (37, 29), (48, 29), (48, 47)], white=True)
    pen.polygon([(53, 47), (53, 29), (65, 29), (74, 47)], white=True)
    pen.box((2, 46, 98, 74), round_=7)
    pen.disc((12, 60, 38, 88), line=True)
    pen.disc((62, 60, 88, 88), line=True)
    pen.disc((20, 68, 30, 80), white=True)
    pen.disc((70, 68, 80, 80), white=True)


def _bottle(pen: _Pen) -> None:
    pen.polygon([(41, 14), (59, 14), (59, 34), (72, 46), (72, 98), (28, 98), (28, 46), (41, 34)])
    pen.box((39, 2, 61, 14), line=True)
    pen.box((28, 56, 72, 80), white=True)


def _umbrella(pen: _Pen) -> None:
    pen.stroke([(50, 40), (50, 88)], 6)
    pen.arc((30, 78, 54, 100), 0, 180, 6, line=True)
    pen.pie((2, 4, 98, 108), 180, 360)
    pen.pie((34, 4, 66, 108), 180, 360, shade=1.0)
    pen.stroke([(50, 0), (50, 10)], 5)


def _table(pen: _Pen) -> None:
    pen.box((2, 0, 98, 9), shade=1.0)
    pen.box((6, 9, 94, 13), shade=0.6)
    pen.box((9, 12, 18, 44), shade=0.75)
    pen.box((82, 12, 91, 44), shade=0.75)


def _stool(pen: _Pen) -> None:
    pen.box((22, 0, 80, 9), shade=1.0)
    pen.box((24, 9, 32, 44), shade=0.75)
    pen.box((70, 9, 78, 44), shade=0.75)
    pen.stroke([(30, 26), (72, 26)], 3, shade=0.6, line=False)


def _box(pen: _Pen) -> None:
    pen.box((20, 0, 80, 42), shade=0.85)
    pen.box((20, 0, 80, 5), shade=1.0)
    pen.box((45, 0, 55, 42), shade=0.6)
    pen.stroke([(26, 34), (38, 34)], 3, shade=0.4, line=True)


def _rug(pen: _Pen) -> None:
    pen.polygon([(12, 0), (88, 0), (100, 22), (0, 22)], shade=0.8)
    for step in range(5):
        left = 14 + 16 * step
        pen.polygon([(left, 0), (left + 7, 0), (left + 5 + 1.5 * step, 22), (left - 4 + 1.5 * step, 22)], white=True)


def _shelf(pen: _Pen) -> None:
    pen.box((0, 0, 100, 8), shade=1.0)
    pen.polygon([(14, 8), (24, 8), (14, 26)], shade=0.6)
    pen.polygon([(86, 8), (76, 8), (86, 26)], shade=0.6)


def _cupboard(pen: _Pen) -> None:
    pen.box((2, 0, 98, 36), shade=0.75)
    pen.box((0, 0, 100, 5), shade=1.0)
    pen.box((7, 9, 47, 33), shade=0.95)
    pen.box((53, 9, 93, 33), shade=0.95)
    pen.disc((40, 18, 45, 24), line=True)
    pen.disc((55, 18, 60, 24), line=True)


# Name → how it is drawn. The order is that of the drawings, and of the labels that the towers are taught.
_THINGS: dict[str, Callable[[_Pen], None]] = {
    "cup": _cup,
    "key": _key,
    "ball": _ball,
    "book": _book,
    "hat": _hat,
    "shoe": _shoe,
    "lamp": _lamp,
    "clock": _clock,
    "apple": _apple,
    "car": _car,
    "bottle": _bottle,
    "umbrella": _umbrella,
}
_FURNITURE: dict[str, Callable[[_Pen], None]] = {
    "table": _table,
    "stool": _stool,
    "box": _box,
    "rug": _rug,
    "shelf": _shelf,
    "cupboard": _cupboard,
}
THINGS = tuple(_THINGS)
FURNITURE = tuple(_FURNITURE)


@dataclass(frozen=True)
class Furniture:
    """A kind of furniture.

    Attributes:
        slots: offsets from its middle at which a thing can stand on it, in frame widths.
        colour: of its wood, cardboard or cloth, before it varies.
        wall: whether it hangs on the wall rather than stands on the floor.
        depth: how far below its upper edge things stand.
    """

    slots: tuple[float, ...]
    colour: tuple[int, int, int]
    wall: bool
    depth: float = 0.0


FURNITURE_FACTS: dict[str, Furniture] = {
    "table": Furniture((-0.105, 0.105), (150, 98, 55), wall=False),
    "stool": Furniture((0.0,), (176, 120, 66), wall=False),
    "box": Furniture((0.0,), (196, 160, 112), wall=False),
    "rug": Furniture((-0.105, 0.105), (120, 82, 120), wall=False, depth=0.05),
    "shelf": Furniture((-0.105, 0.105), (112, 74, 44), wall=True),
    "cupboard": Furniture((-0.105, 0.105), (128, 150, 150), wall=True),
}


@cache
def drawings() -> Maps:
    """Every drawing, things first, then furniture.

    Returns:
        [drawings, 4, SIDE, SIDE] from 0 to 1: ink, lightness, dark (or light) line, white.
    """
    return np.stack([_drawn(draw) for draw in (*_THINGS.values(), *_FURNITURE.values())])


def _drawn(draw: Callable[[_Pen], None]) -> Maps:
    pen = _Pen()
    draw(pen)
    small = [image.resize((SIDE, SIDE), Image.Resampling.BOX) for image in pen.maps]
    return np.stack([np.asarray(image, dtype=np.float32) / 255 for image in small])
