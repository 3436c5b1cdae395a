"""world/render.py: pictures on which the things can be recognised, whichever way they are painted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from longvu_cli.training.world_pictures import SIDE, Camera168, shown
from longvu_cli.world.render import (
    FILM_SIDE,
    RIM,
    Layers,
    Painter,
    cut,
    film_frames,
    light_of,
    offset,
    scene_arrays,
)
from longvu_cli.world.story import LOOKS, STYLES, Camera, Item, Scene, Story, story
from longvu_cli.world.things import COLOURS, FURNITURE, THINGS

CPU = torch.device("cpu")
LOOK = (0.3,) * LOOKS
STILL = Camera((0.0, 0.0), 1.0, 0.0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Scenes are so small that more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Painter(CPU)


def painted(painter: Painter, *scenes: Scene) -> torch.Tensor:
    return painter.paint(scene_arrays(scenes))


def eventful() -> Story:
    """With a crossing, a coming, a going and cards."""
    stories = (story(seed, 40) for seed in range(200))
    return next(
        told
        for told in stories
        if told.motion
        and told.cards
        and any(placed.since_s > 0 for place in told.places for placed in place.things)
        and any(placed.until_s < told.seconds for place in told.places for placed in place.things)
    )


def busy_scenes(told: Story) -> list[Scene]:
    return list(dict.fromkeys(told.scene_at(0.5 * step) for step in range(2 * told.seconds)))


@pytest.mark.parametrize("style", STYLES)
def test_a_thing_shows_its_colour_in_its_box_and_nowhere_else(painter: Painter, style: str) -> None:
    palette = torch.tensor(list(COLOURS.values())) / 255
    # Each kind in each colour in one of the styles.
    turn = STYLES.index(style)
    boxes = [
        Item(kind, list(COLOURS)[(number + turn) % len(COLOURS)], 0.4, 0.6, 0.19) for number, kind in enumerate(THINGS)
    ]
    background = painted(painter, Scene(style, LOOK, ()))[0]
    canvas = painted(painter, *(Scene(style, LOOK, (item,)) for item in boxes))
    differs = (canvas - background).abs().amax(dim=-1) > 0.02
    half = round(0.19 * FILM_SIDE / 2) + 1
    row, column = round(0.6 * FILM_SIDE) + RIM, round(0.4 * FILM_SIDE) + RIM
    box = (slice(None), slice(row - half, row + half), slice(column - half, column + half))
    assert differs.flatten(1).sum(dim=1).equal(differs[box].flatten(1).sum(dim=1))
    nearest = (canvas[box][..., None, :] - palette).square().sum(dim=-1).argmin(dim=-1)
    for number, item in enumerate(boxes):
        seen = nearest[number][differs[box][number]]
        # Lines, white parts and shades aside, the colour has most of the ink.
        share = (seen == list(COLOURS).index(str(item.colour))).float().mean()
        assert share > 0.3, item
        assert seen.numel() > 0.1 * (2 * half) ** 2, item


def test_kinds_differ_in_shape(painter: Painter) -> None:
    scenes = [Scene("street", LOOK, (Item(kind, "yellow", 0.5, 0.5, 0.19),)) for kind in THINGS]
    canvas = painted(painter, *scenes).flatten(1)
    assert (torch.cdist(canvas, canvas) + 100 * torch.eye(len(THINGS))).min() > 10


@pytest.mark.parametrize("name", FURNITURE)
def test_furniture_hangs_from_the_upper_edge_of_its_box(painter: Painter, name: str) -> None:
    item = Item(name, None, 0.5, 0.5, 0.43)
    changed = (
        painted(painter, Scene("beach", LOOK, (item,)), Scene("beach", LOOK, ())).diff(dim=0)[0].abs().amax(dim=-1)
    )
    rows = (changed > 0.02).any(dim=1).nonzero().flatten() - RIM
    assert rows.min() == pytest.approx((0.5 - 0.43 / 2) * FILM_SIDE, abs=2)
    assert rows.max() < 0.5 * FILM_SIDE


def test_later_items_cover_earlier_ones(painter: Painter) -> None:
    red, blue = (Item("ball", colour, 0.5, 0.5, 0.2) for colour in ("red", "blue"))
    both, alone = painted(painter, Scene("garden", LOOK, (red, blue)), Scene("garden", LOOK, (blue,)))
    middle = slice(FILM_SIDE // 2 + RIM - 10, FILM_SIDE // 2 + RIM + 10)
    assert (both[middle, middle] - alone[middle, middle]).abs().max() < 1e-3


def test_mirrored_things_are_mirrored(painter: Painter) -> None:
    key = Item("key", "red", 0.5, 0.5, 0.2)
    plain, mirrored, background = painted(
        painter,
        *(Scene("card", LOOK, items) for items in ((key,), (replace(key, mirrored=True),), ())),
    )
    ink, other = ((image - background).abs().amax(dim=-1) > 0.2 for image in (plain, mirrored))
    assert (ink.flip(1) != other).float().mean() < 0.01
    assert (ink != other).float().mean() > 0.005


def test_textures_vary_with_the_look_and_stay_recognisable(painter: Painter) -> None:
    chance = np.random.default_rng(0)
    looks = [tuple(chance.random(LOOKS).tolist()) for _ in range(6)]
    means = torch.stack(
        [
            painted(painter, *(Scene(style, look, ()) for look in looks)).unflatten(1, (6, -1)).mean(dim=(2, 3))
            for style in STYLES
        ]
    ).flatten(2)
    within = (means - means.mean(dim=1, keepdim=True)).norm(dim=-1)
    assert within.min() > 1e-4
    centres = means.mean(dim=1)
    between = torch.cdist(centres, centres) + 100 * torch.eye(len(STYLES))
    assert between.min() > 1.5 * within.max()


def test_equal_scenes_have_equal_pixels(painter: Painter) -> None:
    scenes = busy_scenes(eventful())[:9]
    together = painted(painter, *scenes)
    for number, scene in enumerate(scenes):
        assert painted(Painter(CPU), scene)[0].equal(together[number])


@pytest.mark.parametrize("kept", [2, 48])
def test_layers_are_the_same_as_painting_whole(painter: Painter, kept: int) -> None:
    told = eventful()
    layers = Layers(painter, kept=kept)
    scenes = busy_scenes(told)
    some = scenes[:: len(scenes) // 12]
    # To and fro, so that some are there already, and some no longer.
    for scene in [*some, *some[::3]]:
        assert layers.paint(scene).equal(painted(painter, scene)[0])


def test_layers_paint_only_what_is_new(painter: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    wholes: list[int] = []
    drawn: list[int] = []
    paint, add = Painter.paint, Painter.add
    monkeypatch.setattr(Painter, "paint", lambda self, scenes: (wholes.append(1), paint(self, scenes))[1])
    monkeypatch.setattr(
        Painter, "add", lambda self, canvas, scenes: (drawn.append(scenes.drawing.size), add(self, canvas, scenes))[1]
    )
    layers = Layers(painter)
    cups = [Item("cup", "red", 0.1 * step, 0.5, 0.2) for step in range(1, 9)]
    behind = (Item("table", None, 0.3, 0.8, 0.4), Item("ball", "blue", 0.3, 0.6, 0.2))
    for cup in [*cups, *cups]:
        layers.paint(Scene("kitchen", LOOK, (*behind, cup)))
    assert (sum(wholes), sum(drawn)) == (1, 2 + 8)


def test_the_camera_cuts_whole_pixels_out_of_the_scene(painter: Painter) -> None:
    canvas = painted(painter, Scene("library", LOOK, ()))
    for shift in ((0.0, 0.0), (0.02, -0.03), (-0.037, 0.037), (1.0, -1.0)):
        camera = Camera(shift, 1.0, 0.0)
        row, column = offset(camera, 1)
        assert 0 <= row <= 2 * RIM and 0 <= column <= 2 * RIM
        assert (row % 2, column % 2) == (0, 0)
        assert offset(camera, 2) == (row // 2, column // 2)
        (frame,) = film_frames(canvas, [camera])
        part = canvas[0, row : row + FILM_SIDE, column : column + FILM_SIDE]
        assert frame.equal((part * 255).round().to(torch.uint8))
    assert offset(STILL, 1) == (RIM, RIM)
    right, down = offset(Camera((0.02, 0.0), 1.0, 0.0), 1), offset(Camera((0.0, 0.02), 1.0, 0.0), 1)
    assert right[1] > RIM and right[0] == RIM and down[0] > RIM and down[1] == RIM


def test_light_is_brighter_or_warmer(painter: Painter) -> None:
    canvas = painted(painter, Scene("bedroom", LOOK, ()))
    plain, dark, warm = film_frames(
        canvas.expand(3, -1, -1, -1), [STILL, Camera((0, 0), 0.8, 0.0), Camera((0, 0), 0.9, 0.06)]
    ).float()
    assert (dark - 0.8 * plain).abs().max() <= 1
    ratio = warm.mean(dim=(0, 1)) / plain.mean(dim=(0, 1))
    assert ratio.tolist() == pytest.approx(light_of(Camera((0, 0), 0.9, 0.06)), abs=0.005)
    assert ratio[0] > ratio[1] > ratio[2]
    assert film_frames(canvas, [Camera((0, 0), 5.0, 0.0)]).max() == 255


def test_slices_and_indices_cut_the_same() -> None:
    canvas = torch.rand(2, 12, 12, 3)
    index, offsets = torch.tensor([1, 0, 1]), torch.tensor([[0, 3], [4, 4], [2, 0]])
    rows, columns = offsets[:, 0, None] + torch.arange(8), offsets[:, 1, None] + torch.arange(8)
    indexed = canvas[index[:, None, None], rows[:, :, None], columns[:, None, :]]
    assert cut(canvas, index, offsets, 8).equal(indexed)


def test_training_and_film_show_the_same(painter: Painter) -> None:
    """Two by two pixels of the film are one of the towers' input.

    Both are rounded to whole levels, one before and one after the mean is taken, so a level may lie between them.
    """
    told = eventful()
    moments = [(told.scene_at(t), replace(told.camera_at(t), gain=0.85)) for t in (0, 7.4, 13, 22.6, 31, 39)]
    frames = shown(moments, np.random.default_rng(0))
    still = replace(frames, noise=np.zeros_like(frames.noise), blur=np.zeros_like(frames.blur))
    small = Camera168(CPU).film(still)
    canvas = painted(painter, *(scene for scene, _ in moments))
    film = film_frames(canvas, [camera for _, camera in moments])
    halved = film.float().unflatten(2, (SIDE, 2)).unflatten(1, (SIDE, 2)).mean(dim=(2, 4))
    assert small.shape == (6, SIDE, SIDE, 3)
    assert (small.float() - halved).abs().max() <= 1


def test_noise_and_blur_are_slight() -> None:
    told = eventful()
    frames = shown([(told.scene_at(t), told.camera_at(t)) for t in range(0, 40, 4)], np.random.default_rng(0))
    still = replace(frames, noise=np.zeros_like(frames.noise), blur=np.zeros_like(frames.blur))
    camera = Camera168(CPU)
    difference = (camera.film(frames).float() - camera.film(still).float()).abs().mean(dim=(1, 2, 3))
    assert difference.min() > 0
    assert difference.max() < 10
