"""Question → ids with one place for the video."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from longvu_cli.config import LLMFamily
from longvu_cli.errors import NotACheckpoint

SYSTEM = "You are a helpful assistant."
DESCRIBE = "Describe this video in detail."

# Where the video and the question go while a template is rendered.
_VIDEO = "<longvu-video-goes-here>"
_QUESTION = "<longvu-question-goes-here>"
# A stock Llama 3.2 template writes today's date, which would change the prompt from day to day.
_PINNED_DATE = "26 Jul 2024"
_CHATML = (
    f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
    f"<|im_start|>user\n{_VIDEO}\n{_QUESTION}<|im_end|>\n<|im_start|>assistant\n"
)


@dataclass(frozen=True)
class Prompt:
    """Ids before and after the video."""

    before: tuple[int, ...]
    after: tuple[int, ...]

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


def build_prompt(tokenizer: PreTrainedTokenizerFast, family: LLMFamily, question: str) -> Prompt:
    """Render the conversation and tokenise the text before and after the video separately.

    No special token is added at the seam. Special tokens are only those that the template writes: what looks like one
    in the question is text, so that a question cannot end its own turn.
    """
    text = _llama_template(tokenizer) if family is LLMFamily.LLAMA else _CHATML
    # The tokenizer's own template trims what the user says.
    asked = question.rstrip() if family is LLMFamily.LLAMA else question
    before, _, rest = text.partition(_VIDEO)
    between, _, after = rest.partition(_QUESTION)
    spoken = tuple(tokenizer(between + asked, add_special_tokens=False, split_special_tokens=True)["input_ids"])
    return Prompt(_ids(tokenizer, before), spoken + _ids(tokenizer, after))


def _llama_template(tokenizer: PreTrainedTokenizerFast) -> str:
    conversation = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"{_VIDEO}\n{_QUESTION}"},
    ]
    try:
        text = tokenizer.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=True, date_string=_PINNED_DATE
        )
    except ValueError as error:
        raise NotACheckpoint(f"the tokenizer has no usable chat template: {error}") from error
    return str(text)


def _ids(tokenizer: PreTrainedTokenizerFast, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
