"""training/world_pictures.py: frames as numbers, which moments are kept, and where the things are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from longvu_cli.training import world_pictures
from longvu_cli.training.world_pictures import (
    SIDE,
    WINDOW,
    Camera168,
    _parts,
    kept_moments,
    neighbours,
    patch_labels,
    shown,
)
from longvu_cli.world.render import FILM_SIDE, SceneArrays, offset
from longvu_cli.world.story import LOOKS, Camera, Item, Scene, Split, needle_story, story
from longvu_cli.world.things import COLOURS, FURNITURE, THINGS

CPU = torch.device("cpu")
NAMES, PALETTE = (*THINGS, *FURNITURE), tuple(COLOURS)
STILL = Camera((0.0, 0.0), 1.0, 0.0)
LOOK = (0.5,) * LOOKS


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Pictures are so small that more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def labels(*items: Item, camera: Camera = STILL, side: int = 12) -> np.ndarray:
    return patch_labels(Scene("garden", LOOK, items), camera, side, NAMES, PALETTE)


def test_labels_are_where_the_thing_is() -> None:
    found = labels(Item("hat", "green", 0.625, 0.375, 0.2))
    rows, columns = np.nonzero(found[..., 0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 5, 6, 8)
    assert set(found[rows, columns, 0]) == {1 + NAMES.index("hat")}
    assert set(found[rows, columns, 1]) == {1 + PALETTE.index("green")}
    assert (found[..., 1] > 0).sum() == len(rows)


def test_furniture_has_no_colour_and_only_an_upper_half() -> None:
    found = labels(Item("table", None, 0.5, 0.75, 0.44))
    rows, columns = np.nonzero(found[..., 0])
    assert set(found[rows, columns, 0]) == {1 + NAMES.index("table")}
    assert rows.max() / 12 < 0.75
    assert (columns.max() - columns.min() + 1) / 12 == pytest.approx(0.44, abs=0.1)
    assert not found[..., 1].any()


def test_later_items_cover_earlier_ones() -> None:
    found = labels(Item("shelf", None, 0.5, 0.6, 0.44), Item("cup", "red", 0.5, 0.45, 0.2))
    assert found[5, 6].tolist() == [1 + NAMES.index("cup"), 1 + PALETTE.index("red")]
    found = labels(Item("cup", "red", 0.5, 0.5, 0.2), Item("cup", "blue", 0.5, 0.5, 0.2))
    assert found[6, 6, 1] == 1 + PALETTE.index("blue")
    assert 1 + PALETTE.index("red") not in found[..., 1]


def test_labels_follow_the_camera() -> None:
    item = Item("ball", "blue", 0.5, 0.5, 0.3)
    right = Camera((0.04, 0.0), 1.0, 0.0)
    moved = offset(right, 1)[1] - offset(STILL, 1)[1]
    assert moved > 0
    fine, shifted = labels(item, side=FILM_SIDE), labels(item, camera=right, side=FILM_SIDE)
    assert np.array_equal(fine[:, moved:], shifted[:, :-moved])


@pytest.mark.parametrize("seed", range(4))
def test_labels_point_at_what_is_painted(seed: int) -> None:
    """Where a thing is labelled, the picture differs from one without it; elsewhere hardly: labels are rectangles."""
    told = story(seed, 1)
    scene, camera = told.scene_at(0), told.camera_at(0)
    number = next(n for n, item in enumerate(scene.items) if item.colour)
    without = replace(scene, items=(*scene.items[:number], *scene.items[number + 1 :]))
    frames = shown([(scene, camera), (without, camera)], np.random.default_rng(0))
    quiet = replace(frames, noise=np.zeros_like(frames.noise), blur=np.zeros_like(frames.blur))
    pictures = Camera168(CPU).film(quiet).float()
    differs = (pictures[0] - pictures[1]).abs().amax(dim=-1).numpy() > 4
    name = 1 + NAMES.index(scene.items[number].name)
    labelled = patch_labels(scene, camera, SIDE, NAMES, PALETTE)[..., 0] == name
    labelled &= patch_labels(without, camera, SIDE, NAMES, PALETTE)[..., 0] != name
    assert (differs & labelled).sum() > 0.8 * differs.sum()
    assert differs[labelled].mean() > 0.2


def test_equal_scenes_travel_once() -> None:
    told = needle_story(1, 30, 0.5)
    moments = [(told.scene_at(t), told.camera_at(t)) for t in range(30)]
    frames = shown(moments, np.random.default_rng(0))
    scenes = list(dict.fromkeys(scene for scene, _ in moments))
    assert len(frames) == 30
    assert len(frames.scenes.style) == len(scenes) < 6
    assert [scenes[number] for number in frames.scene] == [scene for scene, _ in moments]
    assert frames.start.tolist() == [list(offset(camera, 2)) for _, camera in moments]


def test_many_scenes_are_painted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    told = story(0, 20)
    moments = [(told.scene_at(t), told.camera_at(t)) for t in range(20)]
    frames = shown(moments, np.random.default_rng(0))
    frames = replace(frames, noise=np.zeros_like(frames.noise))
    whole = Camera168(CPU).film(frames)
    assert whole.shape == (20, SIDE, SIDE, 3)
    parts: list[int] = []

    def some(scenes: SceneArrays) -> Iterator[SceneArrays]:
        for part in _parts(scenes, most=3):
            parts.append(len(part.style))
            yield part

    monkeypatch.setattr(world_pictures, "_parts", some)
    assert Camera168(CPU).film(frames).equal(whole)
    assert len(parts) > 1
    assert sum(parts) == len(frames.scenes.style)


@pytest.mark.parametrize("depth", [0.0, 0.31, 0.77, 1.0])
def test_a_card_and_the_middles_of_windows_are_kept(depth: float) -> None:
    told = needle_story(5, 1000, depth)
    kept = kept_moments(told, 0.6, 0.35).tolist()
    middles = [first + min(WINDOW, 1000 - first) // 2 for first in range(0, 1000, WINDOW)]
    assert set(middles) <= set(kept)
    assert told.cards[0].start_s in kept
    assert kept == sorted(set(kept))
    # Apart from these only what is rare within its window: the shorter part where two shots meet.
    assert len(kept) < len(middles) + 1 + WINDOW // 2 * len(told.shots)


def test_a_window_in_which_nothing_happens_keeps_one_moment() -> None:
    told = needle_story(5, 1000, 0.31)
    kept = kept_moments(told, 0.6, 0.35)
    calm = [
        first
        for first in range(0, 1000 - WINDOW, WINDOW)
        if told.shot_at(first) == told.shot_at(first + WINDOW - 1)
        and not any(first <= card.start_s < first + WINDOW for card in told.cards)
    ]
    assert calm
    assert all(((kept >= first) & (kept < first + WINDOW)).sum() == 1 for first in calm)


def test_no_more_is_kept_than_is_read() -> None:
    kept = kept_moments(story(1, 36_000), 0.6, 0.35)
    assert len(kept) == 400
    assert (np.diff(kept) > 0).all()
    assert kept[0] < 100 and kept[-1] > 35_000


def test_neighbours_stand_on_one_piece_of_furniture() -> None:
    pairs = 0
    for number in range(60):
        told = story(Split.VALIDATION.seed(number), 1)
        place, scene = told.places[told.shots[0].place], told.scene_at(0)
        first = 1 + len(place.stands)  # the number of the first thing: furniture is drawn before
        expected = {
            first + index: first + other
            for index, placed in enumerate(place.things)
            for other, beside in enumerate(place.things)
            if beside.stand == placed.stand and beside.x < placed.x
        }
        assert neighbours(scene) == expected
        pairs += len(expected)
    assert pairs > 20


def test_the_nearest_thing_on_the_left_counts() -> None:
    row = [Item("cup", "red", x, 0.5, 0.18) for x in (0.2, 0.35, 0.5)]
    table = Item("table", None, 0.35, 0.5, 0.4)
    assert neighbours(Scene("garden", LOOK, (table, *row))) == {3: 2, 4: 3}
