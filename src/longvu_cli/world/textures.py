"""Backgrounds of the world's places and cards: textures that a few numbers vary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from longvu_cli.world.story import STYLES

Colour = tuple[float, float, float]

_NOISE_SIDE = 512


@dataclass(frozen=True)
class Ground:
    """What a texture is painted on.

    Attributes:
        look: [n, 8], numbers from 0 to 1.
        y, x: [1, S, 1] and [1, 1, S], in frame sides; a little below 0 and above 1 at the rims.
        fine, coarse: [n, S, S], noise from 0 to 1.
    """

    look: torch.Tensor
    y: torch.Tensor
    x: torch.Tensor
    fine: torch.Tensor
    coarse: torch.Tensor

    def number(self, index: int) -> torch.Tensor:
        """[n, 1, 1], one of the numbers."""
        return self.look[:, index, None, None]

    def varied(self, colour: Colour, index: int, amount: float = 0.12) -> torch.Tensor:
        """[n, 1, 1, 3]: a colour, lighter or darker by one of the numbers."""
        base = self.look.new_tensor(colour)
        return (base + amount * (self.number(index)[..., None] - 0.5)).clamp(0, 1)


class Textures:
    """Paints backgrounds on one device.

    Args:
        side: pixels per side of a frame.
        rim: pixels around the frame that the camera may shift into view.
    """

    def __init__(self, side: int, rim: int, device: torch.device) -> None:
        steps = (torch.arange(side + 2 * rim, device=device) + 0.5 - rim) / side
        self._y, self._x = steps[None, :, None], steps[None, None, :]
        chance = torch.Generator().manual_seed(20)
        fine = torch.rand(_NOISE_SIDE, _NOISE_SIDE, generator=chance)
        coarse = torch.rand(_NOISE_SIDE // 8, _NOISE_SIDE // 8, generator=chance)
        coarse = torch.nn.functional.interpolate(coarse[None, None], scale_factor=8, mode="bilinear")[0, 0]
        self._fine, self._coarse = fine.to(device), coarse.to(device)
        self._pixels = torch.arange(side + 2 * rim, device=device)

    def paint(self, style: str, look: torch.Tensor) -> torch.Tensor:
        """Backgrounds of one style.

        Args:
            look: [n, 8].

        Returns:
            [n, S, S, 3] from 0 to 1.
        """
        ground = Ground(look, self._y, self._x, self._cut(self._fine, look, 6), self._cut(self._coarse, look, 7))
        return _PAINTERS[STYLES.index(style)](ground).clamp(0, 1)

    def _cut(self, noise: torch.Tensor, look: torch.Tensor, index: int) -> torch.Tensor:
        """[n, S, S]: a piece of the noise that one of the numbers chooses."""
        start = (look[:, index] * _NOISE_SIDE).long()[:, None]
        rows = (self._pixels + start) % _NOISE_SIDE
        columns = (self._pixels + 3 * start) % _NOISE_SIDE
        return noise[rows[:, :, None], columns[:, None, :]]


def _fraction(values: torch.Tensor) -> torch.Tensor:
    return values - values.floor()


def _where(mask: torch.Tensor, yes: torch.Tensor, no: torch.Tensor) -> torch.Tensor:
    return torch.where(mask[..., None], yes, no)


def _kitchen(on: Ground) -> torch.Tensor:
    """White and blue tiles over a chequered floor."""
    side = 0.075 + 0.03 * on.number(0)
    across, down = on.x / side + on.number(1), on.y / side + on.number(2)
    joint = (_fraction(across) < 0.07) | (_fraction(down) < 0.07)
    odd = (across.floor() + down.floor()) % 2 > 0.5
    tiles = _where(odd, on.varied((0.72, 0.84, 0.92), 3), on.varied((0.88, 0.92, 0.94), 3))
    wall = _where(joint, on.varied((0.62, 0.66, 0.68), 4), tiles)
    squares = ((on.x / 0.16 + on.number(5)).floor() + (on.y / 0.1).floor()) % 2 > 0.5
    floor = _where(squares, on.varied((0.52, 0.5, 0.5), 4), on.varied((0.7, 0.68, 0.66), 4))
    return _where(on.y + 0 * on.x > 0.62, floor, wall) - 0.05 * on.fine[..., None]


def _garden(on: Ground) -> torch.Tensor:
    """Sky and clouds over a hedge and grass."""
    sky = on.varied((0.52, 0.76, 0.95), 0) + (0.5 * (on.coarse - 0.55).clamp(min=0))[..., None]
    leaves = on.varied((0.2, 0.42, 0.2), 1) + 0.22 * (on.coarse[..., None] - 0.5)
    grass = on.varied((0.42, 0.68, 0.28), 2) + 0.2 * (on.fine[..., None] - 0.5)
    edge = 0.46 + 0.06 * (0.5 + 0.5 * torch.sin(on.x * (14 + 10 * on.number(3)) + 6 * on.number(4)))
    return _where(on.y > 0.66 + 0 * on.x, grass, _where(on.y > edge, leaves, sky))


def _beach(on: Ground) -> torch.Tensor:
    """Sky, sea with waves, and sand."""
    sky = on.varied((0.68, 0.86, 0.98), 0) + 0.12 * on.y[..., None]
    waves = torch.sin(on.y * 150 + 3 * torch.sin(on.x * (9 + 6 * on.number(1)) + 6 * on.number(2)))
    sea = on.varied((0.1, 0.5, 0.68), 3) + 0.07 * waves[..., None]
    sand = on.varied((0.92, 0.82, 0.58), 4) + 0.16 * (on.fine[..., None] - 0.5)
    return _where(
        on.y > 0.62 + 0.02 * torch.sin(on.x * 11 + 6 * on.number(5)), sand, _where(on.y > 0.3 + 0 * on.x, sea, sky)
    )


def _street(on: Ground) -> torch.Tensor:
    """Bricks over asphalt with a white line."""
    height, width = 0.05 + 0.015 * on.number(0), 0.13 + 0.03 * on.number(0)
    row = (on.y / height).floor()
    across = on.x / width + 0.5 * (row % 2) + on.number(1)
    joint = (_fraction(across) < 0.06) | (_fraction(on.y / height) < 0.14)
    bricks = on.varied((0.6, 0.34, 0.26), 2) + 0.18 * (on.coarse[..., None] - 0.5)
    wall = _where(joint, on.varied((0.74, 0.68, 0.62), 3), bricks)
    asphalt = on.varied((0.4, 0.4, 0.42), 4) + 0.14 * (on.fine[..., None] - 0.5)
    line = ((on.y - 0.93).abs() < 0.012) & (_fraction(on.x * 4 + on.number(5)) < 0.6)
    return _where(on.y > 0.7 + 0 * on.x, _where(line, torch.full_like(asphalt, 0.9), asphalt), wall)


def _library(on: Ground) -> torch.Tensor:
    """Wooden panels over a green carpet."""
    width = 0.1 + 0.05 * on.number(0)
    across = on.x / width + on.number(1)
    grain = torch.sin((on.x * 160 + 8 * on.coarse) + 6 * on.number(2))
    wood = on.varied((0.5, 0.34, 0.2), 3) + 0.035 * grain[..., None]
    wall = _where((_fraction(across) < 0.08) & (on.y < 9), on.varied((0.26, 0.16, 0.09), 3), wood)
    carpet = on.varied((0.16, 0.34, 0.26), 4) + 0.1 * (on.fine[..., None] - 0.5)
    return _where(on.y > 0.68 + 0 * on.x, carpet, wall)


def _bedroom(on: Ground) -> torch.Tensor:
    """Dotted wallpaper over floorboards."""
    step = 0.09 + 0.04 * on.number(0)
    down = on.y / step
    across = on.x / step + 0.5 * (down.floor() % 2) + on.number(1)
    dot = (_fraction(across) - 0.5) ** 2 + (_fraction(down) - 0.5) ** 2 < 0.045
    wall = _where(dot, on.varied((0.96, 0.9, 0.94), 2), on.varied((0.8, 0.68, 0.84), 2))
    board = (on.y / 0.075).floor()
    joint = (_fraction(on.y / 0.075) < 0.09) | (_fraction(on.x * 2.2 + 0.37 * board + on.number(3)) < 0.015)
    wood = on.varied((0.78, 0.6, 0.4), 4) + 0.08 * (on.coarse[..., None] - 0.5)
    return _where(on.y > 0.64 + 0 * on.x, _where(joint, 0.6 * wood, wood), wall)


def _card(on: Ground) -> torch.Tensor:
    """Paper in a double frame on dark cloth."""
    paper = on.varied((0.8, 0.8, 0.74), 0) + 0.05 * (on.fine[..., None] - 0.5)
    away = torch.maximum((on.x - 0.5).abs(), (on.y - 0.5).abs())
    cloth = on.varied((0.22, 0.2, 0.3), 1) + 0.08 * (on.coarse[..., None] - 0.5)
    line = ((away > 0.405) & (away < 0.415)) | ((away > 0.425) & (away < 0.445))
    return _where(away > 0.445, cloth, _where(line, torch.full_like(paper, 0.3), paper))


def _spotlight(on: Ground) -> torch.Tensor:
    """A disc of light on a dark curtain."""
    away = ((on.x - 0.5) ** 2 + (on.y - 0.5) ** 2).sqrt()
    folds = torch.sin(on.x * (40 + 20 * on.number(0)) + 6 * on.number(1))
    curtain = on.varied((0.2, 0.1, 0.14), 2) + 0.05 * folds[..., None]
    light = on.varied((0.62, 0.6, 0.5), 3) + 0.1 * (0.4 - away)[..., None]
    return _where(away < 0.4, light, curtain)


# In the order of STYLES.
_PAINTERS: Sequence[Callable[[Ground], torch.Tensor]] = (
    _kitchen,
    _garden,
    _beach,
    _street,
    _library,
    _bedroom,
    _card,
    _spotlight,
)
