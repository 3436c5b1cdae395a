"""Batches of the synthetic world for training: numbers that workers prepare and the device turns into pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from longvu_cli.world.render import FILM_SIDE, RIM, Painter, SceneArrays, cut, light_of, offset, scene_arrays
from longvu_cli.world.story import Camera, Item, Scene, Story

# The towers of the tiny model see half the film's pixels.
_SCALE = 2
SIDE = FILM_SIDE // _SCALE
# Things on one piece of furniture stand nearer to each other than this, in frame sides, and exactly as high.
_BESIDE = 0.3
# Noise and blur stand for what a codec does.
_NOISE = 0.03


@dataclass(frozen=True)
class Shown:
    """Some frames as numbers: the scenes that they show, each once, and how each frame films one.

    Attributes:
        scene: [f] index of the frame's scene.
        start: [f, 2] row and column at which the frame begins on the scene's small canvas.
        light: [f, 3] factors of red, green and blue.
        noise, blur: [f].
    """

    scenes: SceneArrays
    scene: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    light: npt.NDArray[np.float32]
    noise: npt.NDArray[np.float32]
    blur: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scene)


def shown(moments: Sequence[tuple[Scene, Camera]], chance: np.random.Generator) -> Shown:
    """Frames as numbers."""
    numbers: dict[Scene, int] = {}
    index = [numbers.setdefault(scene, len(numbers)) for scene, _ in moments]
    count = len(moments)
    return Shown(
        scenes=scene_arrays(list(numbers)),
        scene=np.array(index, np.int64),
        start=np.array([offset(camera, _SCALE) for _, camera in moments], np.int64).reshape(count, 2),
        light=np.array([light_of(camera) for _, camera in moments], np.float32).reshape(count, 3),
        noise=(_NOISE * chance.random(count) ** 2).astype(np.float32),
        blur=chance.random(count, dtype=np.float32),
    )


class Camera168:
    """Turns :class:`Shown` into what the tiny model's towers see, on one device."""

    def __init__(self, device: torch.device) -> None:
        self._painter = Painter(device)
        self._device = device

    @torch.no_grad()
    def film(self, frames: Shown) -> torch.Tensor:
        """[f, SIDE, SIDE, 3] uint8."""
        small = torch.cat([self._small(part) for part in _parts(frames.scenes)])
        scene, start = self._on_device(frames.scene), self._on_device(frames.start)
        pictures = cut(small, scene, start, SIDE)
        pictures = pictures + self._on_device(frames.blur)[:, None, None, None] * (_blurred(pictures) - pictures) * 0.7
        pictures = pictures * self._on_device(frames.light)[:, None, None, :]
        noise = torch.randn(pictures.shape, device=self._device, dtype=pictures.dtype)
        pictures = pictures + self._on_device(frames.noise)[:, None, None, None] * noise
        return (pictures * 255).round().clamp(0, 255).to(torch.uint8)

    def _small(self, scenes: SceneArrays) -> torch.Tensor:
        painted = self._painter.paint(scenes).permute(0, 3, 1, 2)
        return functional.avg_pool2d(painted, _SCALE).permute(0, 2, 3, 1).contiguous()

    def _on_device(self, values: npt.NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(values).to(self._device)


def _blurred(pictures: torch.Tensor) -> torch.Tensor:
    channels_first = pictures.permute(0, 3, 1, 2)
    return functional.avg_pool2d(channels_first, 3, stride=1, padding=1, count_include_pad=False).permute(0, 2, 3, 1)


def _parts(scenes: SceneArrays, most: int = 256) -> Iterator[SceneArrays]:
    """Canvases of a film's size are large: some at a time."""
    for first in range(0, len(scenes.style), most):
        rows = slice(first, first + most)
        yield SceneArrays(**{name: values[rows] for name, values in vars(scenes).items()})


# --- which moments a training video consists of --------------------------------------------------------------------

WINDOW = 16
_CAP = 400


def kept_moments(story: Story, threshold: float, likeness: float) -> npt.NDArray[np.int64]:
    """The seconds of a long video that temporal reduction keeps, by what is on screen rather than by looking.

    Two moments in one place are alike, two others are so by ``likeness``.
    """
    label = np.empty(story.seconds, np.int64)
    for shot in story.shots:
        label[shot.start_s : shot.end_s] = shot.place
    for number, card in enumerate(story.cards):
        label[card.start_s : card.end_s] = 100 + number
    kept: list[int] = []
    for first in range(0, story.seconds, WINDOW):
        window = label[first : first + WINDOW]
        alike = np.where(window[:, None] == window, 1.0, likeness).mean(axis=1)
        keep = alike < threshold
        keep[len(window) // 2] = True
        kept += (first + np.flatnonzero(keep)).tolist()
    moments = np.array(kept, np.int64)
    return moments if len(moments) <= _CAP else moments[np.arange(_CAP) * len(moments) // _CAP]


# --- what the towers are taught ------------------------------------------------------------------------------------


def patch_items(scene: Scene, camera: Camera, side: int) -> npt.NDArray[np.int64]:
    """Which of the scene's items is at each patch's middle: [side, side], its number from 1, 0 for none.

    Later items cover earlier ones.
    """
    row, column = offset(camera, 1)
    steps = (np.arange(side) + 0.5) / side
    xs, ys = steps + (column - RIM) / FILM_SIDE, steps + (row - RIM) / FILM_SIDE
    items = np.zeros((side, side), np.int64)
    for number, item in enumerate(scene.items, start=1):
        # Furniture hangs from the upper edge of its drawing and takes less than half of it.
        below = 0.44 if item.colour is not None else -0.06
        wide = 0.44 if item.colour is not None else 0.48
        inside_x = np.abs(xs - item.x) < wide * item.size
        inside_y = (ys > item.y - 0.47 * item.size) & (ys < item.y + below * item.size)
        items[np.ix_(inside_y, inside_x)] = number
    return items


def patch_labels(
    scene: Scene, camera: Camera, side: int, names: Sequence[str], colours: Sequence[str | None]
) -> npt.NDArray[np.int64]:
    """What is at each patch's middle: [side, side, 2], number of the drawing and of its colour, 0 for none."""
    labels = [(0, 0)]
    for item in scene.items:
        labels.append((1 + names.index(item.name), 0 if item.colour is None else 1 + colours.index(item.colour)))
    return np.array(labels, np.int64)[patch_items(scene, camera, side)]


def neighbours(scene: Scene) -> dict[int, int]:
    """The thing left of each one that has one on its piece of furniture: the items' numbers, from 1."""
    things = [(number, item) for number, item in enumerate(scene.items, start=1) if item.colour is not None]
    found: dict[int, int] = {}
    for number, item in things:
        beside = [
            (other.x, of_other)
            for of_other, other in things
            if 0 < item.x - other.x < _BESIDE and math.isclose(_foot(item), _foot(other), abs_tol=1e-6)
        ]
        if beside:
            found[number] = max(beside)[1]
    return found


def _foot(item: Item) -> float:
    return item.y + 0.47 * item.size
