"""Embeddings → ids, one at a time, by the stock decoder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import (
    BitsAndBytesConfig,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessorList,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    StaticCache,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from longvu_cli.config import GenerationOptions, LLMFamily, ModelConfig, Quantization
from longvu_cli.errors import DeviceUnavailable, NonFiniteLogits, WeightsDamaged
from longvu_cli.prompt_attention import lacks_flash, prompts_by_repeated_heads
from longvu_cli.step_attention import steps_by_products

# The smallest number of float32 that has its full precision.
_SMALLEST = 2.0**-126
# Keys of config.json that would change how the stock class is built: the released names of the custom classes.
_NOT_THE_DECODERS = ("architectures", "auto_map", "model_type", "torch_dtype", "dtype", "transformers_version")


def stock_config(config: ModelConfig) -> Qwen2Config | LlamaConfig:
    """The stock decoder's config from the checkpoint's config.json."""
    values = {key: value for key, value in config.language_model.items() if key not in _NOT_THE_DECODERS}
    return Qwen2Config(**values) if config.family is LLMFamily.QWEN2 else LlamaConfig(**values)


def stock_class(config: ModelConfig) -> type[Qwen2ForCausalLM] | type[LlamaForCausalLM]:
    """The stock decoder's class."""
    return Qwen2ForCausalLM if config.family is LLMFamily.QWEN2 else LlamaForCausalLM


# The length of a cache that does not grow is a multiple of this.
CACHE_MULTIPLE = 64


class Prefix:
    """The keys and values of the sequence that was read last: another one that begins alike is read from there on.

    Attributes:
        reused: rows of the sequence that was read last which were not read again.
    """

    def __init__(self) -> None:
        self.reused = 0
        self._rows: torch.Tensor | None = None
        self._layers: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()

    def keep(self, embeddings: torch.Tensor, cache: DynamicCache) -> None:
        """Keep what was computed of a whole sequence.

        The tensors are those of the cache, which makes new ones when it grows and leaves these as they are, whatever
        becomes of it. A cache that forgets (sliding windows) is of no use here.

        Args:
            embeddings: [n, h].
        """
        layers: list[Any] = cache.layers
        if any(layer.is_sliding for layer in layers):
            return
        self._rows = embeddings
        self._layers = tuple((layer.keys, layer.values) for layer in layers)

    def start(self, embeddings: torch.Tensor, cache: DynamicCache) -> int:
        """Fill an empty cache with what is known of a sequence, and let go of the rest.

        The last row is always left to be read: its logits are what is asked for.

        Args:
            embeddings: [n, h].

        Returns:
            How many of the rows are in the cache.
        """
        self.reused = 0 if self._rows is None else min(_common_rows(self._rows, embeddings), len(embeddings) - 1)
        layers, self._rows, self._layers = self._layers, None, ()
        if self.reused:
            for number, (keys, values) in enumerate(layers):
                cache.update(keys[..., : self.reused, :], values[..., : self.reused, :], number)
        return self.reused


def _common_rows(one: torch.Tensor, other: torch.Tensor) -> int:
    """How many rows two sequences have in common at their beginning."""
    length = min(len(one), len(other))
    same = (one[:length] == other[:length]).all(dim=1)
    return int(same.long().cumprod(0).sum())


class LanguageModel:
    """The decoder, ready to continue a sequence of embeddings.

    Args:
        model: a stock causal language model.
        dtype_name: how errors call its number format.
        graphs: whether its steps are recorded as CUDA graphs.
    """

    def __init__(self, model: Any, *, dtype_name: str, graphs: bool = False) -> None:
        self._model = model
        self._dtype_name = dtype_name
        self._graphs = graphs

    @classmethod
    def load(
        cls,
        config: ModelConfig,
        weights: Mapping[str, torch.Tensor],
        *,
        device: torch.device,
        dtype: torch.dtype,
        quantize: Quantization,
        places: Mapping[str, torch.device] | None = None,
    ) -> LanguageModel:
        """Build the decoder and load its tensors, straight to the device.

        Args:
            places: name of a part → its device, in place of one device for all.

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
                device_map=device if places is None else dict(places),
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
        model.requires_grad_(False)
        # Quantised layers wait for the device in the middle of a step, which cannot be recorded.
        # A graph is of one device.
        graphs = device.type == "cuda" and quantize is Quantization.NONE and places is None
        return cls(model.eval(), dtype_name=str(dtype).removeprefix("torch."), graphs=graphs)

    @property
    def decoder(self) -> Any:
        """The stock causal language model."""
        return self._model

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
        logits, _ = self._prefill(embeddings)
        return logits

    @torch.inference_mode()
    def generate(
        self,
        embeddings: torch.Tensor,
        options: GenerationOptions,
        *,
        stop_ids: Collection[int],
        prefix: Prefix | None = None,
    ) -> Generator[int, None, None]:
        """Continue the sequence, one id at a time, as they are made.

        Args:
            embeddings: [n, h].
            stop_ids: ids after which to stop; such an id is yielded, too.
            prefix: what is known of an earlier sequence, and will be of this one; the ids are the same without it, up
                to the rounding of sums that are made in another order.

        Raises:
            NonFiniteLogits: the model computed NaN or infinity.
        """
        pick = _picker(options, embeddings.device)
        logits, cache = self._prefill(embeddings, prefix)
        token_id = self._picked(pick, logits)
        yield token_id
        step: Callable[[int], torch.Tensor] | None = None
        for _ in range(options.max_new_tokens - 1):
            if token_id in stop_ids:
                return
            if step is None:
                step = self._decoder(cache, length=len(embeddings), room=options.max_new_tokens)
            token_id = self._picked(pick, step(token_id))
            yield token_id

    def _prefill(self, embeddings: torch.Tensor, prefix: Prefix | None = None) -> tuple[torch.Tensor, DynamicCache]:
        cache = DynamicCache(config=self._model.config)
        known = 0 if prefix is None else prefix.start(embeddings, cache)
        repeated = prompts_by_repeated_heads(self._model) if lacks_flash(embeddings) else nullcontext()
        with _attention_for_changing_lengths(), repeated:
            output = self._model(
                inputs_embeds=embeddings[None, known:], past_key_values=cache, use_cache=True, logits_to_keep=1
            )
        if prefix is not None:
            prefix.keep(embeddings, cache)
        return output.logits[0, -1].float(), cache

    def _decoder(self, cache: DynamicCache, *, length: int, room: int) -> Callable[[int], torch.Tensor]:
        """Make what turns an id into the next logits."""
        if self._graphs:
            return _GraphDecoder(self._model, cache, length=length, room=room)
        return _EagerDecoder(self._model, cache)

    def _picked(self, pick: Callable[[torch.Tensor], torch.Tensor], logits: torch.Tensor) -> int:
        # One look at the device for both: it takes as long as several of a step's kernels.
        is_finite, token_id = torch.stack((torch.isfinite(logits).all().long(), pick(logits))).tolist()
        if not is_finite:
            raise NonFiniteLogits(
                f"the language model computed NaN or infinity in {self._dtype_name}",
                hint="use --dtype bfloat16 or --dtype float32",
            )
        return int(token_id)


class _EagerDecoder:
    """One forward pass per id."""

    def __init__(self, model: Any, cache: DynamicCache) -> None:
        self._model = model
        self._cache = cache

    def __call__(self, token_id: int) -> torch.Tensor:
        """The logits after an id, [vocabulary] float32."""
        ids = torch.tensor([[token_id]], device=self._model.device)
        with _attention_for_changing_lengths():
            output = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True)
        logits: torch.Tensor = output.logits[0, -1].float()
        return logits


class _GraphDecoder:
    """One replay of a recorded CUDA graph per id: the thousand small kernels of a step start as one.

    The recording needs fixed shapes, so the keys and values move into a cache of fixed length.

    Args:
        length: ids in the cache.
        room: ids that will be added at most.
    """

    def __init__(self, model: Any, cache: DynamicCache, *, length: int, room: int) -> None:
        self._static: Any = StaticCache(config=model.config, max_cache_len=_aligned(length + room))
        layers: list[Any] = cache.layers
        for number, layer in enumerate(layers):
            self._static.update(layer.keys, layer.values, number)
        self._model = model
        self._ids = torch.zeros((1, 1), dtype=torch.long, device=model.device)
        with torch.cuda.device(model.device), steps_by_products(model):
            # The first passes set libraries up, which cannot be recorded; what they wrote is written over.
            stream = torch.cuda.Stream(model.device)
            stream.wait_stream(torch.cuda.current_stream(model.device))
            with torch.cuda.stream(stream):
                for _ in range(2):
                    self._forward()
                    self._rewind(length)
            torch.cuda.current_stream(model.device).wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            # The library's own stream for it is of the device that was current when it was first asked for one.
            with torch.cuda.graph(self._graph, stream=stream):
                self._logits = self._forward()
        self._rewind(length)

    def __call__(self, token_id: int) -> torch.Tensor:
        """The logits after an id, [vocabulary] float32; valid until the next call."""
        self._ids.fill_(token_id)
        self._graph.replay()
        return self._logits

    def _forward(self) -> torch.Tensor:
        output = self._model(input_ids=self._ids, past_key_values=self._static, use_cache=True)
        logits: torch.Tensor = output.logits[0, -1].float()
        return logits

    def _rewind(self, length: int) -> None:
        for layer in self._static.layers:
            layer.cumulative_length.fill_(length)


def _aligned(length: int) -> int:
    """Room for at least so many ids: products over another number are half as fast, their rows being unaligned."""
    return -(-length // CACHE_MULTIPLE) * CACHE_MULTIPLE


def _picker(options: GenerationOptions, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """Logits → id, [] int64 on their device: the likeliest, or a sample that a seed makes repeatable."""
    if options.temperature == 0:
        return torch.Tensor.argmax
    # What float32 has not would be 0, by which nothing can be divided.
    warpers = LogitsProcessorList([TemperatureLogitsWarper(max(options.temperature, _SMALLEST))])
    if options.top_p < 1:
        warpers.append(TopPLogitsWarper(options.top_p))
    random = torch.Generator(device)
    if options.seed is None:
        random.seed()
    else:
        random.manual_seed(options.seed)
    no_ids: Any = torch.empty((1, 0), dtype=torch.long, device=device)

    def sample(logits: torch.Tensor) -> torch.Tensor:
        # What is no number is noticed afterwards; drawing from it would end the process's use of the GPU.
        scores: Any = torch.nan_to_num(logits, nan=0.0, posinf=0.0, neginf=0.0)[None]
        # The likeliest at 0: divided by the smallest temperatures, the others may become −∞, and none +∞.
        probabilities = warpers(no_ids, scores - scores.max()).softmax(dim=-1)
        return torch.multinomial(probabilities, 1, generator=random).reshape(())

    return sample


def _attention_for_changing_lengths() -> AbstractContextManager[None]:
    """Attention kernels that need no plan per length.

    cuDNN's builds one for every new length of the cache, which makes each step of a decoder three times as long.
    """
    context: AbstractContextManager[None] = sdpa_kernel(
        [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    )
    return context


def decode_stream(tokenizer: PreTrainedTokenizerFast, ids: Iterator[int]) -> Iterator[tuple[int | None, str]]:
    """Pair each id with the text that it completes; special tokens have none.

    The text of an id may be empty while a character is not complete. A character that is never completed comes at the
    end, with None for an id, as the replacement character that decoding all ids at once would give.
    """
    stream = DecodeStream(skip_special_tokens=True)
    seen: list[int] = []
    shown = ""
    for token_id in ids:
        text = stream.step(tokenizer.backend_tokenizer, token_id) or ""
        seen.append(token_id)
        shown += text
        yield token_id, text
    whole = str(tokenizer.decode(seen, skip_special_tokens=True))
    if whole.startswith(shown) and len(whole) > len(shown):
        yield None, whole[len(shown) :]


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
