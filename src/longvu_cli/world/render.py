"""Scenes → pictures, on any device.

A scene is painted once, with a rim around the frame; the frames that show it are cut out of it by the camera. So an
hour of video costs little more than its different scenes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from longvu_cli.world.story import LOOKS, STYLES, Camera, Scene
from longvu_cli.world.textures import Textures
from longvu_cli.world.things import COLOURS, FURNITURE, FURNITURE_FACTS, THINGS, drawings

# Pixels per side of a frame of a film.
FILM_SIDE = 336
# Pixels around it; the camera's shifts stay within.
RIM = 18
_NAMES = (*THINGS, *FURNITURE)
# Items that may overlap are drawn in order; windows into which they are drawn, in pixels of a film.
_WINDOWS = (76, 200)
_INK, _CHALK, _PAPER = 0.09, 0.74, 0.95
_LIGHTNESS = 1.2


@dataclass(frozen=True)
class SceneArrays:
    """Some scenes as numbers, so that they can travel to a device together. M items at most.

    Attributes:
        style: [n] index into ``STYLES``.
        look: [n, 8].
        drawing: [n, M] index of the drawing; −1 for none.
        colour: [n, M, 3] from 0 to 1.
        line: [n, M] lightness of the item's lines.
        box: [n, M, 3] middle (x, y) and size, in frame sides.
        mirrored: [n, M].
    """

    style: npt.NDArray[np.int64]
    look: npt.NDArray[np.float32]
    drawing: npt.NDArray[np.int64]
    colour: npt.NDArray[np.float32]
    line: npt.NDArray[np.float32]
    box: npt.NDArray[np.float32]
    mirrored: npt.NDArray[np.bool_]


def scene_arrays(scenes: Sequence[Scene]) -> SceneArrays:
    """Scenes as numbers."""
    count, most = len(scenes), max((len(scene.items) for scene in scenes), default=1)
    arrays = SceneArrays(
        style=np.array([STYLES.index(scene.style) for scene in scenes], np.int64),
        look=np.array([scene.look for scene in scenes], np.float32).reshape(count, LOOKS),
        drawing=np.full((count, most), -1, np.int64),
        colour=np.zeros((count, most, 3), np.float32),
        line=np.full((count, most), _INK, np.float32),
        box=np.zeros((count, most, 3), np.float32),
        mirrored=np.zeros((count, most), np.bool_),
    )
    for row, scene in enumerate(scenes):
        for column, item in enumerate(scene.items):
            rgb = FURNITURE_FACTS[item.name].colour if item.colour is None else COLOURS[item.colour]
            arrays.drawing[row, column] = _NAMES.index(item.name)
            arrays.colour[row, column] = [value / 255 for value in rgb]
            arrays.line[row, column] = _CHALK if item.colour == "black" else _INK
            arrays.box[row, column] = item.x, item.y, item.size
            arrays.mirrored[row, column] = item.mirrored
    return arrays


class Painter:
    """Paints scenes on one device, at the size of a film."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._textures = Textures(FILM_SIDE, RIM, device)
        self._drawings = torch.from_numpy(drawings()).to(device)
        self._side = FILM_SIDE + 2 * RIM

    def paint(self, scenes: SceneArrays) -> torch.Tensor:
        """Paint the scenes, with their rims.

        Returns:
            [n, S, S, 3] float32 from 0 to 1, S = FILM_SIDE + 2 RIM.
        """
        canvas = torch.zeros(len(scenes.style), self._side, self._side, 3, device=self.device)
        look = torch.from_numpy(scenes.look).to(self.device)
        for number, style in enumerate(STYLES):
            rows = np.flatnonzero(scenes.style == number)
            if len(rows):
                chosen = torch.from_numpy(rows).to(self.device)
                canvas[chosen] = self._textures.paint(style, look[chosen])
        self.add(canvas, scenes)
        return canvas

    def add(self, canvas: torch.Tensor, scenes: SceneArrays) -> None:
        """Draw the scenes' items onto canvases that show what is behind them, in place."""
        pixels = scenes.box[:, :, 2] * FILM_SIDE
        for column in range(scenes.drawing.shape[1]):
            smaller = 0.0
            for window in _WINDOWS:
                fits = (pixels[:, column] > smaller) & (pixels[:, column] <= window)
                smaller = window
                rows = np.flatnonzero((scenes.drawing[:, column] >= 0) & fits)
                if len(rows):
                    self._draw(canvas, scenes, rows, column, window)

    def _draw(
        self, canvas: torch.Tensor, scenes: SceneArrays, rows: npt.NDArray[np.int64], column: int, window: int
    ) -> None:
        """Draw one item on each of some canvases."""

        def take(values: npt.NDArray[np.generic]) -> torch.Tensor:
            return torch.from_numpy(values[rows, column]).to(self.device)

        box = take(scenes.box) * FILM_SIDE
        x, y, size = box[:, 0] + RIM, box[:, 1] + RIM, box[:, 2]
        steps = torch.arange(window, device=self.device)
        left = (x - window / 2).floor().long().clamp(0, self._side - window)
        top = (y - window / 2).floor().long().clamp(0, self._side - window)
        columns, lines = left[:, None] + steps, top[:, None] + steps
        # Where each pixel's middle lies on the drawing, from −1 to 1.
        u = 2 * (columns + 0.5 - x[:, None]) / size[:, None]
        v = 2 * (lines + 0.5 - y[:, None]) / size[:, None]
        u = torch.where(take(scenes.mirrored)[:, None], -u, u)
        grid = torch.stack(torch.broadcast_tensors(u[:, None, :], v[:, :, None]), dim=-1)
        maps = functional.grid_sample(self._drawings[take(scenes.drawing)], grid, align_corners=False)
        alpha, light, line, white = maps.permute(1, 0, 2, 3)[..., None]
        # The maps are multiplied by the ink already: where there is half the ink, there is half the light.
        colour = take(scenes.colour)[:, None, None, :]
        plain = (1 - (line + white) / alpha.clamp(min=1e-3)).clamp(0, 1) * light * _LIGHTNESS * colour
        drawn = plain + line * take(scenes.line)[:, None, None, None] + white * _PAPER
        where = torch.from_numpy(rows).to(self.device)[:, None, None], lines[:, :, None], columns[:, None, :]
        canvas[where] = (canvas[where] * (1 - alpha) + drawn).clamp(0, 1)


class Layers:
    """Paints one scene after the other, and only what is new: for films, where hardly anything changes between frames.

    The furniture is one layer, each thing another. Later things cover earlier ones, so what is below the first thing
    that has changed can be used again.

    Args:
        kept: how many layers are remembered; the ones used last stay.
    """

    def __init__(self, painter: Painter, *, kept: int = 48) -> None:
        self._painter = painter
        self._kept = kept
        self._painted: OrderedDict[Scene, torch.Tensor] = OrderedDict()

    def paint(self, scene: Scene) -> torch.Tensor:
        """[S, S, 3]: the same as :meth:`Painter.paint`, not to be written to."""
        if (known := self._painted.get(scene)) is not None:
            self._painted.move_to_end(scene)
            return known
        top = scene.items[-1] if scene.items else None
        if top is None or top.colour is None:
            canvas = self._painter.paint(scene_arrays([scene]))
        else:
            canvas = self.paint(replace(scene, items=scene.items[:-1])).clone()[None]
            self._painter.add(canvas, scene_arrays([replace(scene, items=(top,))]))
        self._painted[scene] = canvas[0]
        if len(self._painted) > self._kept:
            self._painted.popitem(last=False)
        return canvas[0]


def film_frames(canvas: torch.Tensor, cameras: Sequence[Camera]) -> torch.Tensor:
    """Cut frames out of painted scenes, at the size of a film.

    Args:
        canvas: [n, S, S, 3], the painted scene of each frame.

    Returns:
        [n, FILM_SIDE, FILM_SIDE, 3] uint8.
    """
    offsets = torch.tensor([offset(camera, 1) for camera in cameras], device=canvas.device)
    light = torch.tensor([light_of(camera) for camera in cameras], device=canvas.device)
    frames = cut(canvas, torch.arange(len(cameras), device=canvas.device), offsets, FILM_SIDE)
    # Whole lines at a time: three numbers are too few for a CPU to be quick with.
    lit = frames.flatten(2) * light.repeat(1, FILM_SIDE)[:, None]
    return lit.mul_(255).round_().clamp_(0, 255).to(torch.uint8).view_as(frames)


def offset(camera: Camera, scale: int) -> tuple[int, int]:
    """(row, column) at which the frame begins on a canvas that is ``scale`` times smaller.

    Whole pixels of the smaller canvas, so that a film and a small rendering of it show the same.
    """
    step = FILM_SIDE / 2
    row, column = (round(RIM / 2 + value * step) for value in (camera.shift[1], camera.shift[0]))
    limit = RIM
    return tuple(max(0, min(limit, value)) * 2 // scale for value in (row, column))  # type: ignore[return-value]


def light_of(camera: Camera) -> tuple[float, float, float]:
    """Factors of red, green and blue."""
    return camera.gain * (1 + camera.warmth), camera.gain, camera.gain * (1 - camera.warmth)


def cut(canvas: torch.Tensor, index: torch.Tensor, offsets: torch.Tensor, side: int) -> torch.Tensor:
    """[f, side, side, 3]: frames that begin at (row, column) ``offsets`` [f, 2] of the canvases ``index`` [f]."""
    if canvas.device.type == "cpu":
        # Slices are copied row by row, indices pixel by pixel.
        places = zip(index.tolist(), offsets.tolist(), strict=True)
        return torch.stack([canvas[n, row : row + side, column : column + side] for n, (row, column) in places])
    steps = torch.arange(side, device=canvas.device)
    rows, columns = offsets[:, 0, None] + steps, offsets[:, 1, None] + steps
    return canvas[index[:, None, None], rows[:, :, None], columns[:, None, :]]
