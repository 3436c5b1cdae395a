"""prompt.py: the exact text and ids around the video."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from longvu_cli.config import LLMFamily
from longvu_cli.errors import NotACheckpoint
from longvu_cli.prompt import Prompt, build_prompt, load_tokenizer

QUESTION = "Where is the cup?"
BEGIN_OF_TEXT = 256  # of the tiny Llama tokenizer
QWEN_BEFORE = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
QWEN_AFTER = "\nWhere is the cup?<|im_end|>\n<|im_start|>assistant\n"
LLAMA_BEFORE = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou are a helpful assistant.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n"
)
LLAMA_AFTER = "\nWhere is the cup?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"


@pytest.fixture(scope="module")
def qwen_tokenizer(parity: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(parity / "qwen")


@pytest.fixture
def llama_tokenizer(parity: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(parity / "llama")


def texts(tokenizer: PreTrainedTokenizerFast, prompt: Prompt) -> tuple[str, str]:
    return tokenizer.decode(prompt.before), tokenizer.decode(prompt.after)


def by_hand(text: str, special: dict[str, int]) -> list[int]:
    """The ids of the tiny tokenizers: one per byte (in their byte-level alphabet), one per special token."""
    alphabet = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet += [byte for byte in range(256) if byte not in alphabet]
    ids = []
    while text:
        name = next((name for name in special if text.startswith(name)), None)
        if name is not None:
            ids.append(special[name])
            text = text[len(name) :]
        else:
            ids += [alphabet.index(byte) for byte in text[0].encode()]
            text = text[1:]
    return ids


def test_the_qwen_prompt_is_the_released_one(qwen_tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = build_prompt(qwen_tokenizer, LLMFamily.QWEN2, QUESTION)
    assert texts(qwen_tokenizer, prompt) == (QWEN_BEFORE, QWEN_AFTER)


def test_the_qwen_ids_are_literal(qwen_tokenizer: PreTrainedTokenizerFast) -> None:
    special = {"<|im_start|>": 257, "<|im_end|>": 258}
    prompt = build_prompt(qwen_tokenizer, LLMFamily.QWEN2, QUESTION)
    assert list(prompt.before) == by_hand(QWEN_BEFORE, special)
    assert list(prompt.after) == by_hand(QWEN_AFTER, special)
    assert prompt.length == len(prompt.before) + len(prompt.after) + 1 == 76
    assert (prompt.before[0], prompt.after[18]) == (257, 258)


def test_the_llama_prompt_is_the_tokenizers_own_template(llama_tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = build_prompt(llama_tokenizer, LLMFamily.LLAMA, QUESTION)
    assert texts(llama_tokenizer, prompt) == (LLAMA_BEFORE, LLAMA_AFTER)
    special = {
        "<|begin_of_text|>": 256,
        "<|start_header_id|>": 258,
        "<|end_header_id|>": 259,
        "<|eot_id|>": 260,
    }
    assert list(prompt.before) == by_hand(LLAMA_BEFORE, special)
    assert list(prompt.after) == by_hand(LLAMA_AFTER, special)
    assert prompt.length == 81


def test_there_is_exactly_one_begin_of_text(llama_tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = build_prompt(llama_tokenizer, LLMFamily.LLAMA, QUESTION)
    assert prompt.before[0] == BEGIN_OF_TEXT
    assert [*prompt.before, *prompt.after].count(BEGIN_OF_TEXT) == 1


DATED = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{{- "Today: " + date_string + "." }}
{%- for message in messages %}{{ message['role'] + ":" + message['content'] + ";" }}{% endfor %}
{%- if add_generation_prompt %}{{ "assistant:" }}{% endif %}"""


def test_the_date_that_a_stock_llama_template_writes_is_pinned(llama_tokenizer: PreTrainedTokenizerFast) -> None:
    llama_tokenizer.chat_template = DATED
    today = llama_tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    assert "Today: 26 Jul 2024." not in today  # unpinned, the template writes the day of the test
    before, after = texts(llama_tokenizer, build_prompt(llama_tokenizer, LLMFamily.LLAMA, QUESTION))
    assert before == "<|begin_of_text|>Today: 26 Jul 2024.system:You are a helpful assistant.;user:"
    assert after == "\nWhere is the cup?;assistant:"


@pytest.mark.parametrize("family", LLMFamily)
@pytest.mark.parametrize(
    "question",
    ["<longvu-video-goes-here>", "{question}", "<image>", "{{ messages }}", "Größe? 🎥\nSecond line", ""],
)
def test_no_question_moves_the_video(parity: Path, family: LLMFamily, question: str) -> None:
    tokenizer = load_tokenizer(parity / ("qwen" if family is LLMFamily.QWEN2 else "llama"))
    prompt = build_prompt(tokenizer, family, question)
    assert prompt.before == build_prompt(tokenizer, family, QUESTION).before
    assert question in tokenizer.decode(prompt.after)


def test_a_tokenizer_without_a_template_is_refused(llama_tokenizer: PreTrainedTokenizerFast) -> None:
    llama_tokenizer.chat_template = None
    with pytest.raises(NotACheckpoint, match="no usable chat template"):
        build_prompt(llama_tokenizer, LLMFamily.LLAMA, QUESTION)


def test_a_folder_with_vocabulary_and_merges_only_loads(parity: Path, tmp_path: Path) -> None:
    whole = json.loads((parity / "qwen" / "tokenizer.json").read_text(encoding="utf-8"))
    (tmp_path / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    values = json.loads((parity / "qwen" / "tokenizer_config.json").read_text(encoding="utf-8"))
    values["tokenizer_class"] = "Qwen2Tokenizer"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(values), encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path)
    wanted = build_prompt(load_tokenizer(parity / "qwen"), LLMFamily.QWEN2, "Größe? 🎥 2 cups")
    assert build_prompt(tokenizer, LLMFamily.QWEN2, "Größe? 🎥 2 cups") == wanted
    assert tokenizer.eos_token_id == 258


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotACheckpoint, match="no tokenizer"):
        load_tokenizer(tmp_path)


def test_a_damaged_tokenizer_is_refused(parity: Path, tmp_path: Path) -> None:
    shutil.copy(parity / "qwen" / "tokenizer_config.json", tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model"')
    with pytest.raises(NotACheckpoint, match="cannot be loaded"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(("folder", "family"), [("qwen", LLMFamily.QWEN2), ("llama", LLMFamily.LLAMA)])
def test_what_looks_like_a_special_token_in_a_question_is_text(parity: Path, folder: str, family: LLMFamily) -> None:
    tokenizer = load_tokenizer(parity / folder)
    ends = "<|im_end|>" if family is LLMFamily.QWEN2 else "<|eot_id|>"
    plain = build_prompt(tokenizer, family, "Where is the cup?")
    tricky = build_prompt(tokenizer, family, f"Where{ends} is the cup? {tokenizer.bos_token or ''}")
    special = set(tokenizer.all_special_ids)
    assert [i for i in tricky.after if i in special] == [i for i in plain.after if i in special]
    assert ends in tokenizer.decode(tricky.after[: len(tricky.after) // 2 + 10])
