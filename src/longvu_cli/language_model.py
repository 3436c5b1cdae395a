"""Embeddings → streamed ids, by the stock decoder and transformers' generation."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from torch import nn
from transformers import (
    BitsAndBytesConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer

from longvu_cli.config import GenerationOptions, LLMFamily, ModelConfig, Quantization
from longvu_cli.errors import DeviceUnavailable, NonFiniteLogits, WeightsDamaged

# Keys of config.json that would change how the stock class is built: the released names of the custom classes.
_NOT_THE_DECODERS = ("architectures", "auto_map", "model_type", "torch_dtype", "dtype", "transformers_version")


def stock_config(config: ModelConfig) -> Qwen2Config | LlamaConfig:
    """The stock decoder's config from the checkpoint's config.json."""
    values = {key: value for key, value in config.language_model.items() if key not in _NOT_THE_DECODERS}
    return Qwen2Config(**values) if config.family is LLMFamily.QWEN2 else LlamaConfig(**values)


def stock_class(config: ModelConfig) -> type[Qwen2ForCausalLM] | type[LlamaForCausalLM]:
    """The stock decoder's class."""
    return Qwen2ForCausalLM if config.family is LLMFamily.QWEN2 else LlamaForCausalLM


class LanguageModel:
    """The decoder, ready to continue a sequence of embeddings.

    Args:
        model: a stock causal language model.
        dtype_name: how errors call its number format.
    """

    def __init__(self, model: Any, *, dtype_name: str) -> None:
        self._model = model
        self._dtype_name = dtype_name

    @classmethod
    def load(
        cls,
        config: ModelConfig,
        weights: Mapping[str, torch.Tensor],
        *,
        device: torch.device,
        dtype: torch.dtype,
        quantize: Quantization,
    ) -> LanguageModel:
        """Build the decoder and load its tensors, straight to the device.

        Quantisation is transformers' and bitsandbytes': the decoder's linear layers only, never ``lm_head``.

        Raises:
            WeightsDamaged: tensors are missing, unexpected or of the wrong shape.
            DeviceUnavailable: bitsandbytes cannot quantise on this device.
        """
        try:
            decoder: Any = stock_class(config)
            model, info = decoder.from_pretrained(
                None,
                config=stock_config(config),
                state_dict=dict(weights),
                dtype=dtype,
                device_map=device,
                quantization_config=_quantization_config(quantize, dtype),
                output_loading_info=True,
            )
        except ImportError as error:
            raise DeviceUnavailable(
                f"--quantize {quantize} needs the package bitsandbytes, which cannot be used here: {error}",
                hint="install bitsandbytes, or leave --quantize out",
            ) from error
        for kind in ("missing", "unexpected", "mismatched"):
            if names := sorted(str(key) for key in info[f"{kind}_keys"]):
                raise WeightsDamaged(f"the language model has {len(names)} {kind} tensors: {', '.join(names[:3])}")
        # A config.json may carry sampling defaults; what is generated with is what the user asked for, and no more.
        model.generation_config = GenerationConfig()
        model.requires_grad_(False)
        return cls(model.eval(), dtype_name=str(dtype).removeprefix("torch."))

    @property
    def embeddings(self) -> nn.Embedding:
        """The input embeddings."""
        embeddings: nn.Embedding = self._model.get_input_embeddings()
        return embeddings

    @torch.inference_mode()
    def first_logits(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Logits of the position after the sequence.

        Args:
            embeddings: [n, h].

        Returns:
            [vocabulary] float32.
        """
        logits: torch.Tensor = self._model(inputs_embeds=embeddings[None], logits_to_keep=1).logits
        return logits[0, -1].float()

    def generate(
        self, embeddings: torch.Tensor, options: GenerationOptions, *, stop_ids: Sequence[int]
    ) -> Generator[int, None, None]:
        """Continue the sequence, one id at a time, as they are made.

        Generation runs in a thread of its own; it ends when the iterator is closed, and its errors are raised here.

        Args:
            embeddings: [n, h].
            stop_ids: ids after which to stop; such an id is yielded, too.

        Raises:
            NonFiniteLogits: the model computed NaN or infinity.
        """
        ids = _IdQueue()
        cancelled = threading.Event()
        thread = threading.Thread(
            target=self._generate, args=(embeddings, options, list(stop_ids), ids, cancelled), daemon=True
        )
        thread.start()
        try:
            yield from ids
        finally:
            cancelled.set()
            thread.join(timeout=1.0)

    def _generate(
        self,
        embeddings: torch.Tensor,
        options: GenerationOptions,
        stop_ids: list[int],
        ids: _IdQueue,
        cancelled: threading.Event,
    ) -> None:
        try:
            if options.seed is not None:
                torch.manual_seed(options.seed)
            self._model.generate(
                inputs_embeds=embeddings[None],
                attention_mask=torch.ones(1, len(embeddings), dtype=torch.long, device=embeddings.device),
                generation_config=_generation_config(options, stop_ids),
                logits_processor=LogitsProcessorList([_RefuseNonFinite(self._dtype_name)]),
                stopping_criteria=StoppingCriteriaList([_StopWhen(cancelled)]),
                streamer=ids,
            )
        except BaseException as error:  # noqa: BLE001  everything is raised again in the thread that reads
            ids.fail(error)
        else:
            ids.end()


def decode_stream(tokenizer: PreTrainedTokenizerFast, ids: Iterator[int]) -> Iterator[tuple[int, str]]:
    """Pair each id with the text that it completes; special tokens have none.

    The text of an id may be empty while a character is not complete.
    """
    stream = DecodeStream(skip_special_tokens=True)
    for token_id in ids:
        yield token_id, stream.step(tokenizer.backend_tokenizer, token_id) or ""


def _generation_config(options: GenerationOptions, stop_ids: list[int]) -> GenerationConfig:
    sampling = {"temperature": options.temperature, "top_p": options.top_p, "top_k": 0} if options.temperature else {}
    return GenerationConfig(
        max_new_tokens=options.max_new_tokens,
        do_sample=bool(sampling),
        eos_token_id=stop_ids or None,
        pad_token_id=stop_ids[0] if stop_ids else 0,
        **sampling,
    )


def _quantization_config(quantize: Quantization, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    # Naming modules to skip replaces the library's own list, so lm_head has to be named, too.
    if quantize is Quantization.NF4:
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=["lm_head"],
        )
    if quantize is Quantization.INT8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["lm_head"])
    return None


class _IdQueue(BaseStreamer):
    """Hands ids, the end, or an error from the generating thread to the reading one."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()

    def put(self, value: torch.Tensor) -> None:
        # The first call carries the prompt's ids: none, since the prompt is given as embeddings.
        for token_id in value.flatten().tolist():
            self._items.put(token_id)

    def end(self) -> None:
        self._items.put(None)

    def fail(self, error: BaseException) -> None:
        self._items.put(error)

    def __iter__(self) -> Iterator[int]:
        while (item := self._items.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item


class _RefuseNonFinite(LogitsProcessor):
    """Raises when the logits are not numbers, instead of answering with garbage."""

    def __init__(self, dtype_name: str) -> None:
        self._dtype_name = dtype_name

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        # The largest is NaN if any is; −inf alone is fine: that is how sampling rules tokens out.
        if not torch.isfinite(scores.max()):
            raise NonFiniteLogits(
                f"the language model computed NaN or infinity in {self._dtype_name}",
                hint="use --dtype bfloat16 or --dtype float32",
            )
        return scores


class _StopWhen(StoppingCriteria):
    """Ends generation when nobody reads it any more."""

    def __init__(self, cancelled: threading.Event) -> None:
        self._cancelled = cancelled

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._cancelled.is_set(), device=input_ids.device)
