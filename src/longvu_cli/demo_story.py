"""What happens in the demo's clip: a story of the world, written by hand.

A white cup is put on the shelf of the kitchen, which is not seen again. Later a red car crosses the street, a blue key
is shown for one second, and a book is carried away.
"""

from __future__ import annotations

from longvu_cli.world.story import Card, Direction, Motion, Place, Placed, Shot, Split, Stand, Story, Thing
from longvu_cli.world.things import FURNITURE_FACTS

# Beyond every split: no story that anything was trained or tested on has it.
_SEED = Split.TEST.seed(2**40 - 1) + 1
_SECONDS = 240
_KITCHEN, _GARDEN, _LIBRARY, _STREET = range(4)
_LEFT, _RIGHT, _WALL, _FLOOR = 0.27, 0.73, 0.39, 0.79


def demo_story() -> Story:
    """The story; always the same."""
    motion = Motion(Thing("car", "red"), shot=3, start_s=97.0, end_s=109.0, direction=Direction.LEFT, size=0.18)
    card = Card(141, 142, Thing("key", "blue"), "card", 0.47, 0.52, 0.4, (0.3, 0.7, 0.2, 0.5, 0.4, 0.6, 0.8, 0.1))
    return Story(_SEED, _SECONDS, (_kitchen(), _garden(), _library(), _street()), _shots(), (card,), motion)


def _shots() -> tuple[Shot, ...]:
    return (
        Shot(0, 30, _KITCHEN, (0.01, -0.01), 0.94, -0.02, 0.4),
        Shot(30, 58, _GARDEN, (-0.015, 0.01), 1.06, -0.01, 1.9),
        Shot(58, 90, _LIBRARY, (0.005, 0.015), 0.92, 0.04, 3.1),
        Shot(90, 126, _STREET, (0.0, -0.005), 1.02, -0.03, 4.4),
        Shot(126, 156, _GARDEN, (0.02, -0.01), 0.96, 0.02, 5.2),
        Shot(156, 190, _LIBRARY, (-0.01, 0.005), 1.0, 0.0, 0.9),
        Shot(190, 214, _STREET, (0.015, 0.01), 0.88, -0.04, 2.6),
        Shot(214, 240, _GARDEN, (-0.005, -0.015), 1.04, 0.01, 3.8),
    )


def _kitchen() -> Place:
    stands = (_stand("shelf", _RIGHT, _WALL), _stand("table", _LEFT, _FLOOR), _stand("stool", _RIGHT, _FLOOR))
    return Place(
        "kitchen",
        (0.35, 0.6, 0.15, 0.05, 0.1, 0.45, 0.2, 0.5),
        stands,
        (
            _on(stands, 0, 0, Thing("cup", "white"), since_s=8.0),
            _on(stands, 0, 1, Thing("bottle", "green")),
            _on(stands, 1, 0, Thing("apple", "yellow"), mirrored=True),
        ),
    )


def _garden() -> Place:
    stands = (_stand("cupboard", _LEFT, _WALL), _stand("rug", _RIGHT, _FLOOR), _stand("box", _LEFT, _FLOOR))
    return Place(
        "garden",
        (0.6, 0.3, 0.55, 0.2, 0.7, 0.4, 0.1, 0.9),
        stands,
        (
            _on(stands, 1, 0, Thing("ball", "orange")),
            _on(stands, 1, 1, Thing("ball", "purple"), mirrored=True),
            _on(stands, 2, 0, Thing("ball", "red")),
            _on(stands, 0, 1, Thing("hat", "black")),
        ),
    )


def _library() -> Place:
    stands = (_stand("table", _RIGHT, _FLOOR), _stand("stool", _LEFT, _FLOOR), _stand("shelf", _LEFT, _WALL))
    return Place(
        "library",
        (0.2, 0.8, 0.4, 0.95, 0.9, 0.8, 0.6, 0.15),
        stands,
        (
            _on(stands, 0, 1, Thing("book", "purple"), until_s=171.0),
            _on(stands, 2, 0, Thing("lamp", "yellow")),
        ),
    )


def _street() -> Place:
    stands = (_stand("cupboard", _RIGHT, _WALL), _stand("box", _RIGHT, _FLOOR), _stand("table", _LEFT, _FLOOR))
    return Place(
        "street",
        (0.75, 0.2, 0.65, 0.35, 0.1, 0.5, 0.3, 0.6),
        stands,
        (_on(stands, 2, 1, Thing("umbrella", "green"), mirrored=True),),
    )


def _stand(kind: str, x: float, y: float) -> Stand:
    return Stand(kind, x, y, 0.43)


def _on(
    stands: tuple[Stand, ...],
    stand: int,
    slot: int,
    thing: Thing,
    *,
    mirrored: bool = False,
    since_s: float = 0.0,
    until_s: float = float("inf"),
) -> Placed:
    """A thing in a slot of a piece of furniture."""
    under, size = stands[stand], 0.185
    facts = FURNITURE_FACTS[under.kind]
    y = under.y + facts.depth - size * 0.47
    return Placed(thing, stand, under.x + facts.slots[slot], y, size, mirrored, since_s, until_s)
