"""How often the first evidence moment shows what was asked for, on fresh films of the tiny model's world.

    python bench/evidence.py FOLDER [--films 200] [--questions 0] [--context-length N] [--recipe NAME]

Films of the test split (seeds that no training saw) are written as mp4, of 8 to 120 seconds (log-uniform) at 2 to 5
frames per second. Each is asked every question that is about a thing and rests on certain moments (`--questions` of
them at most, 0: all) through the Python API, as far as the compression goes: no answer is generated. A moment is right
when its peak, the frame with the highest relevance, shows the thing. With a shorter `--context-length` than the
model's own, the films come into the regimes in which the relevance steers (mixed), or frames are dropped.

"peak" is the share of right moments; "picture" of those at whose peak the thing is in the picture (one that is carried
away is on its way out for three seconds, which do not count as evidence); "touches" of those that have a second with
the thing in common; "purity" the mean share of the moment's time in which the thing is seen; "kept" the share of
questions for which a frame that shows it was kept at all; "films" the share of films whose questions all got a right
one.
FOLDER keeps the films, the features, and `evidence.json` with every question.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from longvu_cli import CompressionOptions, LongVU, ModelOptions, Part
from longvu_cli.config import RecipeName
from longvu_cli.evaluation.proportions import wilson
from longvu_cli.feature_cache import FeatureCache
from longvu_cli.world.film import write_film
from longvu_cli.world.questions import Question, Spans, questions
from longvu_cli.world.story import Split, Story, story
from longvu_cli.world.things import THINGS

SHORTEST_S, LONGEST_S = 8, 120
RATES = (2, 3, 4, 5)
# Kinds of question about one thing; of the others `describe` is about everything, and `count` may be about nothing.
KINDS = ("colour", "place", "left", "direction", "when", "often", "needle", "yes_no")


@dataclass(frozen=True)
class Found:
    """A question, and the first moment that was given for it.

    Attributes:
        purity: share of the moment in which the thing is seen.
        deviations: how far the peak stands out.
        in_picture: whether the thing is in the picture at the peak, be it on its way out.
        kept: whether any frame that shows the thing was kept.
    """

    film: int
    seconds: int
    regime: str
    kind: str
    question: str
    evidence: Spans
    start_s: float
    end_s: float
    peak_s: float
    deviations: float | None
    right: bool
    in_picture: bool
    touches: bool
    purity: float
    kept: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--films", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="number of the first test story")
    parser.add_argument("--questions", type=int, default=0, help="per film at most; 0: all")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--context-length", type=int)
    parser.add_argument("--recipe", default="released", type=RecipeName)
    parser.add_argument("--show-wrong", action="store_true", help="print every question that got a wrong moment")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    compression = CompressionOptions(recipe=arguments.recipe, context_length=arguments.context_length)
    model = LongVU.from_pretrained(
        arguments.model,
        part=Part.QUESTION,
        options=ModelOptions(device=arguments.device),
        cache=FeatureCache(arguments.folder / "features"),
    )
    found: list[Found] = []
    for done in range(arguments.films):
        found += of_film(model, arguments.first + done, arguments.folder, compression, arguments.questions)
        if done % 20 == 19:
            print(f"{done + 1} of {arguments.films} films", file=sys.stderr, flush=True)
    rows = [asdict(one) for one in found]
    (arguments.folder / "evidence.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if arguments.show_wrong:
        for one in found:
            if not one.right:
                print(one)
    show(found)


def of_film(model: LongVU, number: int, folder: Path, compression: CompressionOptions, most: int) -> Iterator[Found]:
    chance = random.Random(number)
    seconds = round(math.exp(chance.uniform(math.log(SHORTEST_S), math.log(LONGEST_S))))
    told, fps = story(Split.TEST.seed(number), seconds), chance.choice(RATES)
    film = folder / f"{number:06}-{seconds}s-{fps}fps.mp4"
    if not film.exists():
        aside = film.with_suffix(".part")
        write_film(told, aside, fps=fps)
        aside.replace(film)
    asked = [question for question in questions(told) if question.kind in KINDS and question.evidence]
    for question in asked[: most or None]:
        yield of_question(model, number, told, film, question, compression)


def of_question(
    model: LongVU, number: int, told: Story, film: Path, question: Question, compression: CompressionOptions
) -> Found:
    compressed = model.compress(film, question.text, compression=compression)
    moment = compressed.evidence(1).moments[0]
    common = sum(
        max(0.0, min(moment.end_s, end) - max(moment.start_s, start)) for start, end in merged(question.evidence)
    )
    return Found(
        film=number,
        seconds=told.seconds,
        regime=compressed.statistics.regime.value,
        kind=question.kind,
        question=question.text,
        evidence=question.evidence,
        start_s=moment.start_s,
        end_s=moment.end_s,
        peak_s=moment.peak_s,
        deviations=moment.deviations,
        right=shows(question.evidence, moment.peak_s),
        in_picture=thing_of(question) in {item.name for item in told.scene_at(moment.peak_s).items},
        touches=common > 0,
        purity=common / (moment.end_s - moment.start_s),
        kept=any(shows(question.evidence, frame.time_s) for frame in compressed.statistics.per_frame),
    )


def thing_of(question: Question) -> str:
    """The thing that is asked about: the one that the question names or, where it names none, the answer."""
    named = [word for text in (question.text, question.answer) for word in re.findall(r"\w+", text) if word in THINGS]
    return named[0]


def shows(evidence: Spans, moment_s: float) -> bool:
    """Whether the thing is seen at a moment."""
    return any(start <= moment_s < end for start, end in evidence)


def merged(spans: Spans) -> list[tuple[float, float]]:
    """The same stretches of time without overlaps."""
    apart: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if apart and start <= apart[-1][1]:
            apart[-1] = apart[-1][0], max(end, apart[-1][1])
        else:
            apart.append((start, end))
    return apart


def show(found: Sequence[Found]) -> None:
    columns = "".join(f"{name:>8}" for name in ("picture", "touches", "purity", "kept", "films"))
    print(f"{'':<12}{'questions':>10}{'peak':>8}   {'95 % interval':<16}{columns}")
    for kind in KINDS:
        line(kind, [one for one in found if one.kind == kind])
    for regime in sorted({one.regime for one in found}):
        line(regime, [one for one in found if one.regime == regime])
    line("all", found)


def line(name: str, own: Sequence[Found]) -> None:
    if not own:
        return
    right = sum(one.right for one in own)
    interval = wilson(right, len(own))
    films = {one.film for one in own}
    whole = len(films) - len({one.film for one in own if not one.right})
    kept = statistics.mean(one.kept for one in own)
    picture = statistics.mean(one.in_picture for one in own)
    touching, pure = statistics.mean(one.touches for one in own), statistics.mean(one.purity for one in own)
    print(
        f"{name:<12}{len(own):>10}{right / len(own):>8.3f}   {interval.low:.3f} … {interval.high:.3f}   "
        f"{picture:>8.3f}{touching:>8.3f}{pure:>8.3f}{kept:>8.3f}{whole / len(films):>8.3f}"
    )


if __name__ == "__main__":
    main()
