"""language_model.py: the decoder's stream of ids, and how it ends."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from longvu_cli.checkpoint import Checkpoint
from longvu_cli.config import GenerationOptions, ModelConfig, Quantization
from longvu_cli.errors import NonFiniteLogits
from longvu_cli.language_model import LanguageModel, Prefix, decode_stream
from longvu_cli.loading import Modules, language_model_shapes
from longvu_cli.prompt import load_tokenizer


@pytest.fixture(scope="module")
def model(load: Callable[..., Modules], parity: Path) -> LanguageModel:
    loaded = load(parity / "qwen").language_model
    assert loaded is not None
    return loaded


@pytest.fixture(scope="module")
def embeddings() -> torch.Tensor:
    return torch.randn(20, 64, generator=torch.Generator().manual_seed(0))


def generate(model: LanguageModel, embeddings: torch.Tensor, *stop_ids: int, **options: float) -> list[int]:
    return list(model.generate(embeddings, GenerationOptions(**options), stop_ids=stop_ids))


def test_greedy_decoding_takes_the_likeliest_id_each_time(model: LanguageModel, embeddings: torch.Tensor) -> None:
    sequence, wanted = embeddings, []
    for _ in range(6):
        wanted.append(int(model.first_logits(sequence).argmax()))
        sequence = torch.cat((sequence, model.embeddings(torch.tensor(wanted[-1:]))))
    assert generate(model, embeddings, max_new_tokens=6) == wanted


def test_the_first_logits_are_of_the_whole_vocabulary_in_float32(
    model: LanguageModel, embeddings: torch.Tensor
) -> None:
    logits = model.first_logits(embeddings)
    assert logits.shape == (288,)
    assert logits.dtype is torch.float32


def test_max_new_tokens_ends_the_answer(model: LanguageModel, embeddings: torch.Tensor) -> None:
    assert len(generate(model, embeddings, max_new_tokens=1)) == 1
    assert len(generate(model, embeddings, max_new_tokens=9)) == 9


def test_a_stop_id_ends_the_answer_and_is_part_of_it(model: LanguageModel, embeddings: torch.Tensor) -> None:
    free = generate(model, embeddings, max_new_tokens=12)
    stop = free[4]
    wanted = free[: free.index(stop) + 1]
    assert generate(model, embeddings, stop, max_new_tokens=12) == wanted
    unused = next(token_id for token_id in range(288) if token_id not in free)
    assert generate(model, embeddings, unused, stop, max_new_tokens=12) == wanted
    assert generate(model, embeddings, unused, max_new_tokens=12) == free


def test_a_seed_makes_sampling_repeatable(model: LanguageModel, embeddings: torch.Tensor) -> None:
    def sample(seed: int) -> list[int]:
        return generate(model, embeddings, max_new_tokens=24, temperature=1.5, seed=seed)

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)
    assert sample(1) != generate(model, embeddings, max_new_tokens=24)


def test_a_small_top_p_leaves_only_the_likeliest(model: LanguageModel, embeddings: torch.Tensor) -> None:
    greedy = generate(model, embeddings, max_new_tokens=8)
    assert generate(model, embeddings, max_new_tokens=8, temperature=1.0, top_p=1e-6, seed=3) == greedy


@pytest.mark.parametrize("temperature", [1e-320, 1e-45, 1e-38, 1e-30])
def test_the_smallest_temperatures_leave_only_the_likeliest(
    model: LanguageModel, embeddings: torch.Tensor, temperature: float
) -> None:
    greedy = generate(model, embeddings, max_new_tokens=8)
    assert generate(model, embeddings, max_new_tokens=8, temperature=temperature, seed=3) == greedy


def test_sampling_takes_from_the_whole_vocabulary(model: LanguageModel, embeddings: torch.Tensor) -> None:
    # The library would keep the 50 likeliest by default; a very high temperature makes all 288 alike.
    first_ids = {generate(model, embeddings, max_new_tokens=1, temperature=1e4, seed=seed)[0] for seed in range(120)}
    assert len(first_ids) > 60


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_raise(load: Callable[..., Modules], parity: Path, poison: float) -> None:
    poisoned = load(parity / "qwen")
    assert poisoned.language_model is not None
    weight = poisoned.language_model._model.lm_head.weight
    with torch.inference_mode():
        weight[7, :] = poison
    ids = poisoned.language_model.generate(torch.ones(3, 64), GenerationOptions(max_new_tokens=3), stop_ids=())
    with pytest.raises(NonFiniteLogits, match="NaN or infinity in float32") as error:
        list(ids)
    assert "bfloat16" in error.value.hint


def test_an_error_of_the_decoder_is_raised_where_the_ids_are_read(model: LanguageModel) -> None:
    with pytest.raises(RuntimeError):
        list(model.generate(torch.ones(3, 65), GenerationOptions(), stop_ids=()))


class CountedModel:
    """The stock decoder, with its forward passes counted."""

    def __init__(self, model: LanguageModel) -> None:
        self.passes = 0
        self.rows_read: list[int] = []
        self._model = vars(model)["_model"]
        self.config, self.device = self._model.config, self._model.device

    def __call__(self, **inputs: object) -> object:
        self.passes += 1
        if isinstance(rows := inputs.get("inputs_embeds"), torch.Tensor):
            self.rows_read.append(rows.shape[1])
        return self._model(**inputs)


def test_no_pass_runs_before_an_id_is_asked_for(model: LanguageModel, embeddings: torch.Tensor) -> None:
    counted = CountedModel(model)
    ids = LanguageModel(counted, dtype_name="float32").generate(embeddings, GenerationOptions(), stop_ids=())
    assert counted.passes == 0
    for passes in (1, 2, 3):
        next(ids)
        assert counted.passes == passes
    ids.close()
    assert counted.passes == 3


def test_no_pass_runs_after_the_last_id(model: LanguageModel, embeddings: torch.Tensor) -> None:
    counted = CountedModel(model)
    counted_model = LanguageModel(counted, dtype_name="float32")
    assert len(list(counted_model.generate(embeddings, GenerationOptions(max_new_tokens=4), stop_ids=()))) == 4
    assert counted.passes == 4


def test_sampling_leaves_the_callers_random_numbers_alone(model: LanguageModel, embeddings: torch.Tensor) -> None:
    before = torch.random.get_rng_state()
    generate(model, embeddings, temperature=1.0, seed=3, max_new_tokens=4)
    assert torch.equal(torch.random.get_rng_state(), before)


# --- what two prompts have in common ---------------------------------------------------------------------------------


def read_twice(
    model: LanguageModel, first: torch.Tensor, second: torch.Tensor, prefix: Prefix
) -> tuple[list[int], list[int]]:
    """The ids that continue the second sequence, read after the first; and how many rows were read of each."""
    counted = CountedModel(model)
    reader = LanguageModel(counted, dtype_name="float32")
    options = GenerationOptions(max_new_tokens=12)
    list(reader.generate(first, options, stop_ids=(), prefix=prefix))
    return list(reader.generate(second, options, stop_ids=(), prefix=prefix)), counted.rows_read


@pytest.mark.parametrize(("common", "length"), [(15, 23), (19, 23), (20, 23), (7, 12)])
def test_what_a_sequence_has_in_common_with_the_last_is_not_read_again(
    model: LanguageModel, embeddings: torch.Tensor, common: int, length: int
) -> None:
    other = torch.randn(length, 64, generator=torch.Generator().manual_seed(1))
    other[:common] = embeddings[:common]
    prefix = Prefix()
    ids, rows_read = read_twice(model, embeddings, other, prefix)
    assert ids == generate(model, other, max_new_tokens=12)
    assert ids != generate(model, embeddings, max_new_tokens=12)
    assert (rows_read, prefix.reused) == ([20, length - common], common)


@pytest.mark.parametrize("length", [20, 12])
def test_the_last_row_is_read_again_for_its_logits(model: LanguageModel, embeddings: torch.Tensor, length: int) -> None:
    prefix = Prefix()
    ids, rows_read = read_twice(model, embeddings, embeddings[:length], prefix)
    assert ids == generate(model, embeddings[:length], max_new_tokens=12)
    assert (rows_read, prefix.reused) == ([20, 1], length - 1)


def test_a_sequence_that_begins_otherwise_is_read_as_a_whole(model: LanguageModel, embeddings: torch.Tensor) -> None:
    other = embeddings.clone()
    other[0] += 1
    prefix = Prefix()
    ids, rows_read = read_twice(model, embeddings, other, prefix)
    assert ids == generate(model, other, max_new_tokens=12)
    assert (rows_read, prefix.reused) == ([20, 20], 0)


def test_an_answer_that_was_left_in_the_middle_leaves_the_prefix_whole(
    model: LanguageModel, embeddings: torch.Tensor
) -> None:
    prefix, longer = Prefix(), torch.cat((embeddings, embeddings[:3]))
    stream = model.generate(embeddings, GenerationOptions(), stop_ids=(), prefix=prefix)
    for _ in range(5):
        next(stream)
    stream.close()
    ids = list(model.generate(longer, GenerationOptions(max_new_tokens=12), stop_ids=(), prefix=prefix))
    assert ids == generate(model, longer, max_new_tokens=12)
    assert prefix.reused == 20


def test_a_cache_that_forgets_is_not_relied_on(parity: Path, embeddings: torch.Tensor) -> None:
    values = json.loads((parity / "qwen" / "config.json").read_text())
    sliding = {**values, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}
    sliding.pop("layer_types", None)
    config = ModelConfig.from_values(sliding)
    weights = Checkpoint.open(parity / "qwen").read(list(language_model_shapes(config)))
    model = LanguageModel.load(
        config, weights, device=torch.device("cpu"), dtype=torch.float32, quantize=Quantization.NONE
    )
    prefix = Prefix()
    ids, rows_read = read_twice(model, embeddings, torch.cat((embeddings, embeddings[:3])), prefix)
    assert ids == generate(model, torch.cat((embeddings, embeddings[:3])), max_new_tokens=12)
    assert (rows_read, prefix.reused) == ([20, 23], 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("folder", ["qwen", "llama"])
# The last GPU is not the current one, where there are several.
@pytest.mark.parametrize("number", sorted({0, max(0, torch.cuda.device_count() - 1)}))
def test_recorded_steps_give_the_ids_of_plain_ones(parity: Path, folder: str, number: int) -> None:
    device = torch.device("cuda", number)
    checkpoint = Checkpoint.open(parity / folder)
    config = ModelConfig.from_file(parity / folder / "config.json")
    names = list(language_model_shapes(config))
    loaded = LanguageModel.load(
        config,
        checkpoint.read(names),
        device=device,
        dtype=torch.float32,
        quantize=Quantization.NONE,
    )
    plain = LanguageModel(vars(loaded)["_model"], dtype_name="float32", graphs=False)
    sequence = torch.randn(50, 64, generator=torch.Generator().manual_seed(1)).to(device)
    options = GenerationOptions(max_new_tokens=60)
    recorded = list(loaded.generate(sequence, options, stop_ids=()))
    assert recorded == list(plain.generate(sequence, options, stop_ids=()))
    assert len(set(recorded)) > 2


# --- text -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(parity: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(parity / "qwen")


def ids_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_text_comes_when_a_character_is_complete(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = ids_of(tokenizer, "aé€🎥b")
    assert len(ids) == 1 + 2 + 3 + 4 + 1
    pairs = list(decode_stream(tokenizer, iter(ids)))
    assert [token_id for token_id, _ in pairs] == ids
    assert [text for _, text in pairs] == ["a", "", "é", "", "", "€", "", "", "", "🎥", "b"]


def test_special_tokens_have_no_text(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = ids_of(tokenizer, "Yes.<|im_end|>")
    assert ids[-1] == 258
    assert [text for _, text in decode_stream(tokenizer, iter(ids))] == ["Y", "e", "s", ".", ""]


def test_spaces_at_the_start_of_words_are_kept(tokenizer: PreTrainedTokenizerFast) -> None:
    text = " On the  table.\n\nYes"
    assert "".join(piece for _, piece in decode_stream(tokenizer, iter(ids_of(tokenizer, text)))) == text


def test_ids_are_paired_as_they_come(tokenizer: PreTrainedTokenizerFast) -> None:
    taken = []

    def source() -> Iterator[int]:
        for token_id in ids_of(tokenizer, "abc"):
            taken.append(token_id)
            yield token_id

    stream = decode_stream(tokenizer, source())
    assert taken == []
    assert next(stream)[1] == "a"
    assert len(taken) == 1


def test_an_id_outside_the_vocabulary_has_no_text(tokenizer: PreTrainedTokenizerFast) -> None:
    # The embedding matrix is larger than the tokenizer: such ids can be generated.
    assert list(decode_stream(tokenizer, iter([*ids_of(tokenizer, "a"), 287, *ids_of(tokenizer, "b")]))) == [
        (ids_of(tokenizer, "a")[0], "a"),
        (287, ""),
        (ids_of(tokenizer, "b")[0], "b"),
    ]


def test_any_ids_give_the_text_of_decoding_them_at_once(tokenizer: PreTrainedTokenizerFast) -> None:
    generator = random.Random(0)
    for _ in range(300):
        ids = [generator.randrange(288) for _ in range(generator.randint(1, 40))]
        streamed = "".join(text for _, text in decode_stream(tokenizer, iter(ids)))
        whole = tokenizer.decode(ids, skip_special_tokens=True)
        # A character that the answer breaks off in is not shown.
        assert whole.startswith(streamed)
        assert set(whole[len(streamed) :]) <= {"\N{REPLACEMENT CHARACTER}"}
