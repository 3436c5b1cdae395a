"""Training reads of a video what answering reads: the batched compression against the real pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from longvu_cli.compression.budget import budget
from longvu_cli.config import CompressionOptions, Quantization, Recipe
from longvu_cli.encoded_video import EncodedVideo
from longvu_cli.loading import Modules, load_modules
from longvu_cli.pipeline import compress
from longvu_cli.training.tiny_checkpoint import new_checkpoint
from longvu_cli.training.world import weights_of, word_ids
from longvu_cli.training.world_answers import AnswerModel
from longvu_cli.training.world_towers import TowerPair
from longvu_cli.training.world_videos import THING_WORDS, Group, VideoBatch, WorldVideos
from longvu_cli.weights import Part
from longvu_cli.world.things import THINGS

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Modules:
    folder = tmp_path_factory.mktemp("fresh")
    torch.manual_seed(1)
    TowerPair(CPU).save(folder)
    new_checkpoint(folder)
    return load_modules(weights_of(folder), Part.ANSWER, device=CPU, dtype=torch.float32, quantize=Quantization.NONE)


class Prepared(AnswerModel):
    """Remembers what was shown to the language model."""

    def _answers(self, prefix, lengths, rows, batch):  # type: ignore[no-untyped-def]
        self.prefix, self.lengths = prefix.detach(), lengths
        logits, targets, row, middle = super()._answers(prefix, lengths, rows, batch)
        self.logits, self.row = logits.detach(), row
        return logits, targets, row, middle

    def _left_loss(self, hidden, shown):  # type: ignore[no-untyped-def]
        self.shown = shown
        return super()._left_loss(hidden, shown)

    def _seen(self, frames):  # type: ignore[no-untyped-def]
        self.seen = super()._seen(frames)
        return self.seen


def one_batch(modules: Modules, recipe: Recipe, seconds: int, questions: int = 1) -> VideoBatch:
    videos = WorldVideos([], modules.tokenizer, recipe, run=0)
    return videos.batches(Group("test", (seconds, seconds), 1, questions, 1.0), np.random.default_rng(3))[0]


@pytest.mark.parametrize(
    ("seconds", "context", "regime"),
    [(9, 4096, "all_high"), (12, 460, "mixed"), (12, 200, "mixed"), (16, 160, "spatial"), (9, 425, "all_high")],
)
def test_a_batch_is_compressed_as_the_pipeline_does_it(
    modules: Modules, seconds: int, context: int, regime: str
) -> None:
    recipe = CompressionOptions(context_length=context, stc_threshold=0.999).resolve(modules.config)
    # The videos are so short that a long one's rule of thumb does not apply: all frames are given.
    recipe_for_batch = recipe
    torch.manual_seed(0)
    videos = WorldVideos([], modules.tokenizer, recipe_for_batch, run=0)
    videos._moments = lambda told, draw: np.arange(told.seconds)  # type: ignore[method-assign]
    batch = videos.batches(Group("test", (seconds, seconds), 1, 1, 1.0), np.random.default_rng(3))[0]
    assert modules.language_model is not None
    model = Prepared(modules.vision, modules.language_model.decoder, recipe, word_ids(modules.tokenizer))
    with torch.no_grad():
        model(batch)

    prompt_length = int(batch.prompt[0])
    after = modules.language_model.embeddings(torch.from_numpy(batch.ids[0, :prompt_length]))
    with torch.no_grad():
        fused = modules.vision.connector.aggregate(*model.seen, None)
    room = budget(recipe, len(batch.before) + 1 + prompt_length)
    encoded = EncodedVideo(
        times=tuple(map(float, range(seconds))),
        # So unlike each other that all are kept.
        similarity=torch.zeros(seconds),
        indices=torch.arange(seconds),
        fused=fused,
        size=(336, 336),
        image=False,
    )
    real = compress(
        encoded, modules.vision, recipe, room, text_tokens=len(batch.before) + prompt_length, text=after.detach()
    )
    assert real.statistics.regime == regime
    assert real.tokens is not None
    seen = model.prefix[0, len(batch.before) : int(model.lengths[0])]
    assert len(seen) == len(real.tokens)
    torch.testing.assert_close(seen, real.tokens, rtol=1e-4, atol=1e-4)  # sums in another order

    sequence = torch.cat((model.prefix[0, : int(model.lengths[0])], after.detach()))
    logits = modules.language_model.first_logits(sequence)
    torch.testing.assert_close(model.logits[0], logits, rtol=1e-3, atol=1e-3)  # the same, with a cache between


def test_each_question_of_a_video_gets_its_own_answer_positions(modules: Modules) -> None:
    recipe = CompressionOptions().resolve(modules.config)
    batch = one_batch(modules, recipe, 8, questions=5)
    assert modules.language_model is not None
    model = Prepared(modules.vision, modules.language_model.decoder, recipe, word_ids(modules.tokenizer))
    with torch.no_grad():
        losses = model(batch)
    assert torch.bincount(model.row).tolist() == (batch.length - batch.prompt).tolist()
    assert losses["loss"].isfinite()
    # Rows do not see each other: alone, the first gives the same logits.
    alone = one_batch(modules, recipe, 8, questions=5)
    for name in ("ids", "prompt", "length", "evidence"):
        object.__setattr__(alone, name, getattr(batch, name)[:1])
    with torch.no_grad():
        torch.manual_seed(0)
        model(alone)
    first = model.logits
    with torch.no_grad():
        torch.manual_seed(0)
        model(batch)
    torch.testing.assert_close(model.logits[: len(first)], first, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("seconds", "context"), [(1, 4096), (12, 200)])
def test_each_token_that_is_read_is_asked_for_what_is_left_of_what_it_shows(
    modules: Modules, seconds: int, context: int
) -> None:
    recipe = CompressionOptions(context_length=context).resolve(modules.config)
    batch = one_batch(modules, recipe, seconds)
    assert modules.language_model is not None
    model = Prepared(modules.vision, modules.language_model.decoder, recipe, word_ids(modules.tokenizer))
    with torch.no_grad():
        assert model(batch)["left"].isfinite()
    shows = batch.words[..., : len(THINGS)].any(axis=-1)
    if context == 4096:  # one frame at full resolution, row by row, each row with a newline
        rows = model.shown[0].reshape(6, 7, -1).numpy()
        assert not rows[:, 6].any()
        assert np.array_equal(rows[:, :6, 0].ravel(), shows[0])
        assert np.array_equal(rows[:, :6, 1:].reshape(36, -1), batch.left[0])
        return
    # All frames at low resolution: a token shows what any of four did.
    rows = model.shown[0].reshape(seconds, 3, 4, -1).numpy()
    assert not rows[:, :, 3].any()
    fields = shows.reshape(seconds, 3, 2, 3, 2).any(axis=(2, 4))
    assert fields.any() and np.array_equal(rows[:, :, :3, 0], fields)


def test_the_loss_on_the_left_is_least_where_it_is_told(modules: Modules) -> None:
    recipe = CompressionOptions().resolve(modules.config)
    assert modules.language_model is not None
    model = AnswerModel(modules.vision, modules.language_model.decoder, recipe, word_ids(modules.tokenizer))
    width = modules.language_model.decoder.config.hidden_size
    hidden = torch.nn.functional.one_hot(torch.tensor([[0, 1, 2]]), width).float()
    shown = torch.zeros(1, 3, 1 + len(THING_WORDS), dtype=torch.bool)
    shown[0, 0, 0] = shown[0, 0, 1] = shown[0, 1, 0] = True  # two tokens show a thing; one thing has a neighbour
    with torch.no_grad():
        unknown = model._left_loss(hidden, shown)
        model.left_probe.weight[0, 0] = 1.0  # tells it of the first token; norms make it 16 times as large
        known = model._left_loss(hidden, shown)
        model.left_probe.weight[1, 1] = 1.0  # and a thing that is not there of the second
        wrong = model._left_loss(hidden, shown)
        model.left_probe.weight[2, 2] = 1.0  # what shows nothing is not asked
    assert known < unknown < wrong
    assert torch.equal(model._left_loss(hidden, shown), wrong)
