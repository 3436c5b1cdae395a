"""Question → ids with one place for the video."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from longvu_cli.config import LLMFamily
from longvu_cli.errors import NotACheckpoint, UsageError

SYSTEM = "You are a helpful assistant."
DESCRIBE = "Describe this video in detail."

# To count the ids of a longer question would take longer than anything else.
MAX_CHARACTERS = 1_000_000

# Where the system text, the video, the questions and the answers go while a template is rendered.
_SYSTEM = "<longvu-system-text-goes-here>"
_VIDEO = "<longvu-video-goes-here>"
_QUESTION = "<longvu-question-goes-here>"
_ANSWER = "<longvu-answer-goes-here>"
# A stock Llama 3.2 template writes today's date, which would change the prompt from day to day.
_PINNED_DATE = "26 Jul 2024"
_CHATML = (
    f"<|im_start|>system\n{_SYSTEM}<|im_end|>\n"
    f"<|im_start|>user\n{_VIDEO}\n{_QUESTION}<|im_end|>\n<|im_start|>assistant\n"
)
_CHATML_TURN = f"{_ANSWER}<|im_end|>\n<|im_start|>user\n{_QUESTION}<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True)
class Turn:
    """A question of a conversation, with what was answered.

    Attributes:
        answer: the generated ids, without the one that ended the turn.
    """

    question: str
    answer: tuple[int, ...]


@dataclass(frozen=True)
class Prompt:
    """Ids around the video.

    Attributes:
        before: ids before the video.
        after: ids after it, with the earlier turns of the conversation.
        asked: what would follow the video if the question were the only one; the relevance of frames is measured by it.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    asked: tuple[int, ...]

    @property
    def length(self) -> int:
        """t: all ids, the video counted as one."""
        return len(self.before) + 1 + len(self.after)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a checkpoint folder (AutoTokenizer refuses the released ``model_type``).

    Raises:
        NotACheckpoint: it is missing or malformed.
    """
    # A folder saved with the slow Qwen2 tokenizer has vocab.json and merges.txt in place of tokenizer.json.
    whole = (folder / "tokenizer.json").is_file()
    tokenizer_class = PreTrainedTokenizerFast if whole else Qwen2Tokenizer
    if not whole and not (folder / "vocab.json").is_file():
        raise NotACheckpoint(f"there is no tokenizer in {folder} (tokenizer.json, or vocab.json and merges.txt)")
    try:
        tokenizer: PreTrainedTokenizerFast = tokenizer_class.from_pretrained(folder, local_files_only=True)
    # tokenizers raises bare Exceptions for malformed files.
    except Exception as error:
        raise NotACheckpoint(f"the tokenizer in {folder} cannot be loaded: {error}") from error
    return tokenizer


def build_prompt(
    tokenizer: PreTrainedTokenizerFast,
    family: LLMFamily,
    question: str,
    *,
    system: str | None = None,
    context: str = "",
    turns: Sequence[Turn] = (),
) -> Prompt:
    """Render the conversation and tokenise the text before and after the video separately.

    No special token is added at the seam. Special tokens are only those that the template writes: what looks like one
    in a question is text, so that a question cannot end its own turn.

    Args:
        system: takes the place of the released system text; no special tokens are found in it either.
        context: stands between the video and the first question (subtitles).
        turns: what was said before. Answers go in as the ids that they are, so that nothing is read in another way
            than it was written.

    Raises:
        UsageError: the question or the system text is longer than any context by far.
    """
    for name, said in (("question", question), ("system text", system or "")):
        if len(said) > MAX_CHARACTERS:
            raise UsageError(
                f"the {name} has {len(said):,} characters, and no more than {MAX_CHARACTERS:,} are read",
                hint=f"shorten the {name}",
            )
    text = _llama_template(tokenizer, len(turns)) if family is LLMFamily.LLAMA else _CHATML + _CHATML_TURN * len(turns)
    # The tokenizer's own template trims what the user says.
    questions = [
        asked.rstrip() if family is LLMFamily.LLAMA else asked
        for asked in (*(turn.question for turn in turns), question)
    ]
    before, _, rest = text.partition(_VIDEO)
    between, *parts = re.split(f"{_QUESTION}|{_ANSWER}", rest)
    literals = [_ids(tokenizer, part) for part in parts]
    after = _spoken(tokenizer, between + context + questions[0])
    for number, turn in enumerate(turns):
        after += literals[2 * number] + turn.answer
        after += literals[2 * number + 1] + _spoken(tokenizer, questions[number + 1])
    ending = literals[-1]
    asked_alone = _spoken(tokenizer, between + context + questions[-1])
    return Prompt(_before(tokenizer, before, system), after + ending, asked_alone + ending)


def said_turn(tokenizer: PreTrainedTokenizerFast, question: str, answer: str) -> Turn:
    """A turn of which only the text is known; nothing in the answer is special, whoever wrote it."""
    return Turn(question, _spoken(tokenizer, answer))


def count_ids(tokenizer: PreTrainedTokenizerFast, text: str) -> int:
    """How many ids a text takes that someone says, between others."""
    return len(_spoken(tokenizer, text))


def fitting_turns(
    tokenizer: PreTrainedTokenizerFast, family: LLMFamily, turns: Sequence[Turn], room: int
) -> tuple[Turn, ...]:
    """The latest turns whose ids, with what the template writes around them, fit into a room; the oldest go first."""
    alone = build_prompt(tokenizer, family, "").length

    def latest(count: int) -> tuple[Turn, ...]:
        return tuple(turns[len(turns) - count :])

    def is_too_much(count: int) -> bool:
        return build_prompt(tokenizer, family, "", turns=latest(count)).length - alone > room

    # Of thousands of turns a few fit: not all are read to find out which.
    most = 1
    while most < len(turns) and not is_too_much(most):
        most *= 2
    return latest(bisect_left(range(1, min(most, len(turns)) + 1), True, key=is_too_much))


def _llama_template(tokenizer: PreTrainedTokenizerFast, turns: int) -> str:
    conversation = [
        {"role": "system", "content": _SYSTEM},
        {"role": "user", "content": f"{_VIDEO}\n{_QUESTION}"},
        *[{"role": "assistant", "content": _ANSWER}, {"role": "user", "content": _QUESTION}] * turns,
    ]
    try:
        text = tokenizer.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=True, date_string=_PINNED_DATE
        )
    except ValueError as error:
        raise NotACheckpoint(f"the tokenizer has no usable chat template: {error}") from error
    return str(text)


def _before(tokenizer: PreTrainedTokenizerFast, text: str, system: str | None) -> tuple[int, ...]:
    """What stands before the video. A system text of the user's own is read apart: nothing in it is special."""
    if system is None:
        return _ids(tokenizer, text.replace(_SYSTEM, SYSTEM))
    start, _, end = text.partition(_SYSTEM)
    return _ids(tokenizer, start) + _spoken(tokenizer, system.strip()) + _ids(tokenizer, end)


def _spoken(tokenizer: PreTrainedTokenizerFast, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


def _ids(tokenizer: PreTrainedTokenizerFast, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
