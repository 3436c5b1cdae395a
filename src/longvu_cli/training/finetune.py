"""A released checkpoint and a user's own questions and answers → a checkpoint that knows them.

::

    dataset.py        lines → examples, in their order
    pipeline.py       every video once through the frozen towers; the features are kept in the training's folder
    loop.py           connector, compression and language model, with gradients, again and again
    released_form.py  what was trained → a folder like that of a released checkpoint

The compression that an answer is trained with is the one that the same question meets later: same frames, same
resolutions, same tokens. Choices are made as always; gradients flow through what was chosen.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from longvu_cli.adaptive_batch import AdaptiveBatch
from longvu_cli.checkpoint import CONFIG_FILE, Checkpoint
from longvu_cli.compression.budget import Budget, budget
from longvu_cli.config import (
    CompressionOptions,
    DecodingOptions,
    DType,
    ModelConfig,
    ModelOptions,
    Quantization,
    Recipe,
    SamplingOptions,
)
from longvu_cli.device import free_memory, out_of_memory_is_an_error, resolve_device, resolve_dtype, synchronize
from longvu_cli.encoded_video import EncodedVideo
from longvu_cli.errors import ExtraNotInstalled, LongVUError, QuestionTooLong, TrainingError, UsageError
from longvu_cli.feature_cache import FeatureCache, cache_key, files_identity
from longvu_cli.hub import DownloadPlan
from longvu_cli.loading import CONNECTOR_PREFIX, Modules, load_modules
from longvu_cli.pipeline import BATCH, Progress, Vision, compress, encode, kept_frames, side_by_side, tower_mask
from longvu_cli.prompt import Prompt, build_prompt
from longvu_cli.timing import Stopwatch
from longvu_cli.training.dataset import Example, Shuffled, answer_ids
from longvu_cli.training.loop import LogRow, LoopOptions, run_stage
from longvu_cli.training.released_form import write_released_form
from longvu_cli.variants import choose_variant
from longvu_cli.video import Video
from longvu_cli.weights import Part, Variant, locate

# Beside the weights: the log, the state to go on from, and the features of the videos.
TRAINING_FOLDER, FEATURES_FOLDER = "training", "features"

# Frames whose aggregation is held for the gradient at one time; the others' is computed again on the way back.
_FRAMES = 16
_LAYERS = "model.layers."
# α of LoRA is this many times the rank.
_ALPHA = 2


@dataclass(frozen=True)
class FinetuneOptions:
    """What is trained, and for how long.

    Attributes:
        connector: whether the Spatial Vision Aggregator and the projectors are.
        llm: whether the language model is.
        lora_rank: of the adapters on the language model's linear layers; 0: all its parameters are trained.
        batch: examples per optimiser step, over all processes.
        epochs: times that every example is seen; one of this, ``steps`` and ``minutes`` is given.
        learning_rate: None: 2e-4 with adapters on the language model, else 1e-5 (paper, §4.3).
        seed: decides the order of the examples and how the adapters begin.
    """

    connector: bool = True
    llm: bool = True
    lora_rank: int = 16
    batch: int = 1
    epochs: float | None = None
    steps: int | None = None
    minutes: float | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.0
    warmup: float = 0.03
    log_every: int = 10
    save_every_minutes: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.connector or self.llm):
            raise UsageError("neither the connector nor the language model is to be trained", hint="train one of them")
        if self.lora_rank < 0 or self.batch < 1:
            raise UsageError(
                f"a rank of {self.lora_rank} with {self.batch} examples per step is nothing to train with",
                hint="--lora-rank is 0 or more, --batch 1 or more",
            )
        if [self.epochs, self.steps, self.minutes].count(None) != 2:
            raise UsageError("--epochs, --steps and --minutes exclude each other", hint="give one of them")
        if self.epochs is not None and not (math.isfinite(self.epochs) and self.epochs > 0):
            raise UsageError(f"{self.epochs} is no number of epochs", hint="give a number above 0")
        self.loop(examples=1, processes=1, bf16=False, fused=False)  # refuses what it cannot use

    def loop(self, *, examples: int, processes: int, bf16: bool, fused: bool) -> LoopOptions:
        """As the loop takes them.

        Raises:
            UsageError: the batch cannot be shared equally.
        """
        if self.batch % processes:
            raise UsageError(
                f"a batch of {self.batch} cannot be shared by {processes} processes",
                hint=f"give --batch a multiple of {processes}",
            )
        steps = self.steps if self.epochs is None else max(1, math.ceil(self.epochs * examples / self.batch))
        default_rate = 2e-4 if self.llm and self.lora_rank else 1e-5
        return LoopOptions(
            learning_rate=default_rate if self.learning_rate is None else self.learning_rate,
            steps=steps,
            minutes=self.minutes,
            warmup=self.warmup,
            weight_decay=self.weight_decay,
            accumulate=self.batch // processes,
            bf16=bf16,
            log_every=self.log_every,
            save_every_minutes=self.save_every_minutes,
            fused=fused,
        )


@dataclass(frozen=True)
class Listeners:
    """Who hears of what; the callbacks of :meth:`LongVU.from_pretrained` and of the loop."""

    on_progress: Progress
    on_log: Callable[[LogRow], None]
    on_chosen: Callable[[Variant], None]
    on_download: Callable[[DownloadPlan], None]
    on_notice: Callable[[str], None]


@dataclass(frozen=True)
class Finetuned:
    """What came of it.

    Attributes:
        model: name of the model that was trained further.
        source: where it is from.
        trained_parameters: how many numbers were trained.
        last: the last row of the log; None when there was nothing left to do.
        files: the weight files.
        is_main: whether this is the process that speaks.
    """

    model: str
    source: str
    device: str
    examples: int
    videos: int
    trained_parameters: int
    last: LogRow | None
    files: tuple[Path, ...]
    is_main: bool


def finetune(
    examples: tuple[Example, ...],
    folder: Path,
    options: FinetuneOptions,
    *,
    model: ModelOptions,
    sampling: SamplingOptions,
    compression: CompressionOptions,
    decoding: DecodingOptions,
    resume: bool,
    listeners: Listeners,
) -> Finetuned:
    """Train a checkpoint further and write it to a folder.

    Raises:
        UsageError: an option, an example or the folder cannot be used.
        VideoError: a video cannot be read.
        WeightsError: the checkpoint cannot be found or loaded.
        DeviceError: the device is too small, or the training came to NaN or infinity.
    """
    _require_usable(folder, options, model, resume=resume)
    device = _device(model.device)
    state = PartialState()
    dtype = resolve_dtype(model.dtype, device)
    if dtype is torch.float16:
        raise UsageError("training in float16 is not supported: its gradients vanish", hint="use --dtype float32")
    loop = options.loop(
        examples=len(examples),
        processes=state.num_processes,
        bf16=dtype is torch.bfloat16,
        fused=device.type == "cuda",
    )
    if model.model == "auto":
        chosen = choose_variant(free_memory(device), dtype=dtype, quantize=Quantization.NONE, device=str(device))
        listeners.on_chosen(chosen)
        model = replace(model, model=chosen.name)
    weights = locate(model, Part.ANSWER, on_download=listeners.on_download)
    modules = load_modules(weights, Part.ANSWER, device=device, dtype=dtype, quantize=Quantization.NONE)
    for notice in modules.notices:
        listeners.on_notice(notice)
    recipe = compression.resolve(modules.config)
    lessons = _lessons(examples, modules, recipe)
    with out_of_memory_is_an_error(device, "encoding the videos"):
        features = _features(
            lessons,
            modules,
            recipe,
            sampling,
            decoding,
            FeatureCache(folder / TRAINING_FOLDER / FEATURES_FOLDER, max_bytes=2**62),
            str(dtype),
            state,
            listeners.on_progress,
        )
    torch.manual_seed(options.seed)
    pupil = Pupil(modules, recipe, lessons, features, options)
    rows: list[LogRow] = []

    def log(row: LogRow) -> None:
        rows.append(row)
        listeners.on_log(row)

    shuffled = Shuffled(examples, seed=options.seed, process=state.process_index, processes=state.num_processes)
    with out_of_memory_is_an_error(device, "training"):
        run_stage(pupil, shuffled, loop, folder / TRAINING_FOLDER, resume=resume, on_log=log)
    files: tuple[Path, ...] = ()
    if state.is_main_process:
        files = write_released_form(Checkpoint.open(weights.checkpoint), folder, pupil.trained_tensor)
    state.wait_for_everyone()
    return Finetuned(
        model=weights.name,
        source=weights.source,
        device=str(device),
        examples=len(examples),
        videos=len(features.keys),
        trained_parameters=sum(item.numel() for item in pupil.parameters() if item.requires_grad),
        last=rows[-1] if rows else None,
        files=files,
        is_main=state.is_main_process,
    )


@contextmanager
def process_group() -> Iterator[None]:
    """While it runs, the processes of ``accelerate launch`` may work together; afterwards they part."""
    try:
        yield
    finally:
        if PartialState._shared_state:
            PartialState().destroy_process_group()


def _require_usable(folder: Path, options: FinetuneOptions, model: ModelOptions, *, resume: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is no folder", hint="name a new folder for the trained model")
    begun = (folder / TRAINING_FOLDER).is_dir()
    if begun and not resume:
        raise UsageError(
            f"{folder} holds a training already", hint="go on with it with --resume, or name another folder"
        )
    # Not even --resume writes over a model that no training has written.
    if not begun and (folder / CONFIG_FILE).exists():
        raise UsageError(f"{folder} holds a model already", hint="name a new folder for the trained model")
    if model.quantize is not Quantization.NONE:
        raise UsageError(f"a model stored with --quantize {model.quantize} is not trained", hint="leave it out")
    if model.compile:
        raise UsageError("--compile is for answering, not for training", hint="leave it out")
    if model.dtype is DType.FLOAT16:
        raise UsageError("training in float16 is not supported: its gradients vanish", hint="use --dtype bfloat16")
    if options.llm and options.lora_rank:
        _lora_layer()


def _device(name: str) -> torch.device:
    """The device of this process: of several, each has its own."""
    device = resolve_device(name)
    if device.type == "cuda" and ":" in name:
        torch.cuda.set_device(device)
    own: torch.device = PartialState(cpu=device.type == "cpu").device
    if own.type == "cuda" and own.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return own if own.type == "cuda" else torch.device(own.type)  # one of several is called cpu:0


@dataclass(frozen=True)
class _Lesson:
    """An example in ids."""

    video: Path
    prompt: Prompt
    answer: tuple[int, ...]
    room: Budget


def _lessons(examples: tuple[Example, ...], modules: Modules, recipe: Recipe) -> Mapping[int, _Lesson]:
    """By line."""
    lessons: dict[int, _Lesson] = {}
    for example in examples:
        prompt = build_prompt(modules.tokenizer, modules.config.family, example.question)
        try:
            room = budget(recipe, prompt.length)
        except QuestionTooLong as error:
            raise QuestionTooLong(f"line {example.line}: {error.message}", hint=error.hint) from error
        answer = answer_ids(modules.tokenizer, modules.config, example.answer)
        positions = modules.config.language_model.get("max_position_embeddings")
        if isinstance(positions, int) and recipe.context_length + len(answer) > positions:
            raise TrainingError(
                f"line {example.line}: an answer of {len(answer)} tokens after a context of {recipe.context_length} "
                f"is more than the model's {positions} positions",
                hint="shorten the answer, or use a smaller --context-length",
            )
        lessons[example.line] = _Lesson(example.video, prompt, answer, room)
    return lessons


@dataclass(frozen=True)
class _Features:
    """Both towers' features of each video, on disk."""

    cache: FeatureCache
    keys: Mapping[Path, str]

    def of(self, video: Path) -> EncodedVideo:
        """Those of a video."""
        entry = self.cache.get(self.keys[video])
        if entry is None:
            raise TrainingError(
                f"the features of {video} cannot be read from {self.cache.folder}",
                hint="free some space on its disk, and go on with --resume; several machines have to share the folder",
            )
        return entry[0]


def _features(
    lessons: Mapping[int, _Lesson],
    modules: Modules,
    recipe: Recipe,
    sampling: SamplingOptions,
    decoding: DecodingOptions,
    cache: FeatureCache,
    dtype: str,
    state: PartialState,
    on_progress: Progress,
) -> _Features:
    """See every video once: each process a part of them."""
    vision, batch = modules.vision, AdaptiveBatch(BATCH)
    identity = files_identity(modules.vision_files)
    rooms: dict[Path, Budget] = {}
    for lesson in lessons.values():
        # The more frames fit, the more are kept: the shortest question's are enough for all.
        rooms[lesson.video] = max(lesson.room, rooms.get(lesson.video, lesson.room), key=_space)
    keys: dict[Path, str] = {}
    for number, (path, room) in enumerate(rooms.items()):
        key = cache_key(
            path, sampling, recipe, decoding=decoding, model=identity, dtype=dtype, device=vision.device.type
        )
        keys[path] = f"{key}-{recipe.resolution}-{_space(room)}"
        if number % state.num_processes == state.process_index and cache.get(keys[path]) is None:
            watch = Stopwatch(lambda: synchronize(vision.device))
            try:
                with Video(path, sampling, decoding) as video:
                    encoded = encode(
                        video.frames(),
                        vision,
                        recipe,
                        room=room,
                        still=video.info.is_still,
                        batch=batch,
                        watch=watch,
                        on_progress=_unheard,
                        expected=None,
                        fuse=side_by_side,
                    )
                    cache.put(keys[path], encoded, video.info)
            except LongVUError as error:
                lines = [line for line, lesson in lessons.items() if lesson.video == path]
                raise type(error)(f"line {lines[0]}: {error.message}", hint=error.hint) from error
        on_progress("videos", number + 1, len(rooms))
    state.wait_for_everyone()
    # They have seen everything; their memory is needed now.
    vision.siglip.to("cpu")
    vision.dinov2.to("cpu")
    return _Features(cache, keys)


def _space(room: Budget) -> int:
    return room.visual_budget


def _unheard(*_: object) -> None:
    """Nobody listens."""


class Pupil(nn.Module):
    """Connector and language model: examples → the loss of their answers.

    What is trained is held in float32, whatever the format of the rest.
    """

    def __init__(
        self,
        modules: Modules,
        recipe: Recipe,
        lessons: Mapping[int, _Lesson],
        features: _Features,
        options: FinetuneOptions,
    ) -> None:
        super().__init__()
        if modules.language_model is None:
            raise AssertionError("the whole model was loaded")
        self.connector = modules.vision.connector
        self.decoder = modules.language_model.decoder
        self._config: ModelConfig = modules.config
        self._vision: Vision = modules.vision
        self._siglip_width = self.connector.mm_projector_aux_0[0].in_features
        self._recipe, self._lessons, self._features = recipe, lessons, features
        self.requires_grad_(False)
        if options.connector:
            self.connector.requires_grad_(True)
        if options.llm and options.lora_rank:
            _add_adapters(self.decoder, options.lora_rank)
        elif options.llm:
            self.decoder.requires_grad_(True)
        for item in self.parameters():
            if item.requires_grad:
                # A copy in any case: the loaded one may be mapped from its file.
                item.data = item.data.float().clone()
        self.train()
        with warnings.catch_warnings():
            # Newer releases have another name for it, which older ones do not know.
            warnings.simplefilter("ignore", FutureWarning)
            self.decoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def forward(self, batch: list[Example]) -> dict[str, torch.Tensor]:
        """The loss, and the share of the answers' ids that are the likeliest."""
        told = [self._answer_loss(self._lessons[example.line]) for example in batch]
        return {
            "loss": torch.stack([loss for loss, _ in told]).mean(),
            "accuracy": torch.stack([right for _, right in told]).mean(),
        }

    def trained_tensor(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor of a released name after the training; the given one when it was not trained."""
        connector = dict(self.connector.named_parameters(prefix=CONNECTOR_PREFIX.removesuffix(".")))
        own = connector if name in connector else dict(self.decoder.named_parameters())
        if name in own and own[name].requires_grad:
            return own[name].detach()
        layer: Any = dict(self.decoder.named_modules()).get(name.removesuffix(".weight"))
        if not name.endswith(".weight") or not _has_adapter(layer):
            return tensor
        with torch.no_grad():
            difference: torch.Tensor = layer.get_delta_weight("default")
        # Added to what the file holds, not to what was loaded of it in a smaller format.
        return tensor.float() + difference.float().cpu()

    def _answer_loss(self, lesson: _Lesson) -> tuple[torch.Tensor, torch.Tensor]:
        visual = self._visual_tokens(lesson)
        before, after = self._embed(lesson.prompt.before), self._embed((*lesson.prompt.after, *lesson.answer))
        sequence = torch.cat((before, visual.to(before.dtype), after))
        count = len(lesson.answer)
        output = self.decoder(inputs_embeds=sequence[None], use_cache=False, logits_to_keep=count + 1)
        logits = output.logits[0, :-1].float()
        wanted = torch.tensor(lesson.answer, device=logits.device)
        return functional.cross_entropy(logits, wanted), (logits.detach().argmax(dim=-1) == wanted).float().mean()

    def _visual_tokens(self, lesson: _Lesson) -> torch.Tensor:
        encoded = self._features.of(lesson.video)
        kept = kept_frames(encoded, self._recipe, lesson.room)
        mask = tower_mask(encoded.size, self._vision, self._recipe, image=encoded.image)
        fused = self._aggregate(encoded.fused[encoded.rows(kept)], mask)
        compressed = compress(
            replace(encoded, indices=kept, fused=fused),
            self._vision,
            self._recipe,
            lesson.room,
            text_tokens=lesson.prompt.length - 1,
            text=self._embed(lesson.prompt.after).detach(),
        )
        if compressed.tokens is None:
            raise AssertionError("with a question every resolution is decided")
        return compressed.tokens

    def _aggregate(self, features: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        parts: list[torch.Tensor] = []
        for part in features.split(_FRAMES):
            both = part.to(device=self._vision.device, dtype=self.connector.vision_query.dtype)
            siglip, dinov2 = both[..., : self._siglip_width], both[..., self._siglip_width :]
            fused: Any = checkpoint(self.connector.aggregate, siglip, dinov2, mask, use_reentrant=False)
            parts.append(fused)
        return torch.cat(parts)

    def _embed(self, ids: tuple[int, ...]) -> torch.Tensor:
        embeddings = self.decoder.get_input_embeddings()
        embedded: torch.Tensor = embeddings(torch.tensor(ids, dtype=torch.long, device=self._vision.device))
        return embedded


def _lora_layer() -> Any:
    """The class of a linear layer with an adapter."""
    try:
        from peft.tuners.lora import LoraLayer
    except ImportError as error:
        raise ExtraNotInstalled(
            "training with --lora-rank needs the package peft",
            hint="pip install 'longvu-cli[train]', or train everything with --lora-rank 0",
        ) from error
    return LoraLayer


def _add_adapters(decoder: nn.Module, rank: int) -> None:
    """Put a low-rank adapter beside each linear layer of the decoder's layers; they alone are trained."""
    _lora_layer()
    from peft import LoraConfig, inject_adapter_in_model

    targets = [
        name for name, layer in decoder.named_modules() if name.startswith(_LAYERS) and isinstance(layer, nn.Linear)
    ]
    settings = LoraConfig(r=rank, lora_alpha=_ALPHA * rank, target_modules=targets)
    inject_adapter_in_model(settings, decoder)


def _has_adapter(layer: nn.Module | None) -> bool:
    # Where peft is not installed there are none.
    return layer is not None and "lora_A" in dict(layer.named_children())
