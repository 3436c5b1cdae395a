"""Settings: what the checkpoint says (:class:`ModelConfig`), what the user asks for, and what follows from both.

Every setting is a field of a frozen dataclass that is verified once, when it is made. Nothing here imports torch.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from longvu_cli.errors import NotACheckpoint, UsageError

# The reference reserves this many ids for the reply when config.json has no `inference_max_length`.
DEFAULT_REPLY_TOKENS = 16


class LLMFamily(StrEnum):
    """The stock decoder under the connector."""

    QWEN2 = "qwen2"
    LLAMA = "llama"


class EngineName(StrEnum):
    """Who answers many questions."""

    PLAIN = "plain"
    PROCESSES = "processes"
    RAY = "ray"


class RecipeName(StrEnum):
    """Whose numbers: those of the released code and weights, or those of the paper."""

    RELEASED = "released"
    PAPER = "paper"


class Orientation(StrEnum):
    """Which way round a video's size is read when its padding is cropped (see ``token_grid.py``)."""

    RELEASED = "released"
    UPRIGHT = "upright"


class TemporalReduction(StrEnum):
    """What decides which frames stay (paper, Table 3)."""

    DINOV2 = "dinov2"
    SIGLIP = "siglip"
    UNIFORM = "uniform"
    NONE = "none"


class FrameResolution(StrEnum):
    """At which resolution frames are read: by what fits and what the question is about, or all at the same one."""

    AUTO = "auto"
    FULL = "full"
    LOW = "low"


class Anchor(StrEnum):
    """Which frame of a window the others are compared with (paper, Table 5)."""

    FIRST = "first"
    MIDDLE = "middle"
    CHANGE = "change"


class StillMode(StrEnum):
    """How a single picture is given to the model: as an image, or as a video of one frame."""

    IMAGE = "image"
    VIDEO = "video"


class DType(StrEnum):
    """Number format of the weights and of the computation."""

    AUTO = "auto"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT32 = "float32"


class Quantization(StrEnum):
    """How the linear layers of the language model are stored."""

    NONE = "none"
    INT8 = "8bit"
    NF4 = "4bit"


@dataclass(frozen=True)
class ModelConfig:
    """What a LongVU checkpoint's config.json says of itself.

    Attributes:
        family: the decoder.
        language_model: config.json as it stands; the stock decoder's config is built from it.
        hidden_size: width of the decoder (h).
        vision_hidden_size: width inside the connector (v).
        connector_depth: SVA layers.
        image_token_len: queries per frame: 144 (video checkpoints) or 576 (image checkpoints).
        lowres_token: side of the low-resolution grid.
        highres: whether frames have two resolutions.
        tower_token_lens: tokens per frame that each tower hands on: (SigLIP, DINOv2).
        dinov2_resolution: side of DINOv2's input in pixels.
        context_length: ids the decoder is given at most (L).
        reply_tokens: ids kept free for the reply (R).
        dino_threshold: mean similarity from which a frame is dropped.
        stc_threshold: similarity from which a token is dropped (``drop_threshold`` in the file).
        frame_position_encoding: whether the model was trained with it (``frame_pos`` in the file).
        end_of_turn_ids: ids that end a reply.
    """

    family: LLMFamily
    language_model: Mapping[str, Any] = field(repr=False)
    hidden_size: int
    vision_hidden_size: int
    connector_depth: int
    image_token_len: int
    lowres_token: int
    highres: bool
    tower_token_lens: tuple[int, int]
    dinov2_resolution: int
    context_length: int
    reply_tokens: int
    dino_threshold: float
    stc_threshold: float
    frame_position_encoding: bool
    end_of_turn_ids: tuple[int, ...]

    @classmethod
    def from_file(cls, path: Path) -> ModelConfig:
        """Read a checkpoint's config.json.

        Raises:
            NotACheckpoint: the file is missing or malformed, or describes a model that is not LongVU or that the
                released code would run in another way than this package does.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise NotACheckpoint(
                f"there is no config.json in {path.parent}",
                hint="name a folder that holds a LongVU checkpoint, or one of the models 7b, 3b, 1b",
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise NotACheckpoint(f"{path} cannot be read: {error}") from error
        if not isinstance(values, dict):
            raise NotACheckpoint(f"{path} is no JSON object")
        return cls.from_values(values, name=str(path))

    @classmethod
    def from_values(cls, values: Mapping[str, Any], *, name: str = "config.json") -> ModelConfig:
        """Take the fields from config.json's values; ``name`` is what errors call the file.

        Raises:
            NotACheckpoint: see :meth:`from_file`.
        """
        families = {"cambrian_qwen": LLMFamily.QWEN2, "cambrian_llama": LLMFamily.LLAMA}
        model_type = values.get("model_type")
        if not isinstance(model_type, str) or model_type not in families:
            raise NotACheckpoint(
                f"{name} describes a {model_type!r} model, not a LongVU one ({' or '.join(families)})",
                hint="name a folder that holds a LongVU checkpoint, or one of the models 7b, 3b, 1b",
            )
        _refuse_other_architectures(values, name)
        try:
            return cls(
                family=families[model_type],
                language_model=dict(values),
                hidden_size=_positive(values, "hidden_size"),
                vision_hidden_size=_positive(values, "vision_hidden_size"),
                connector_depth=_positive(values, "connector_depth"),
                image_token_len=_square(_positive(values, "image_token_len"), "image_token_len"),
                lowres_token=_positive(values, "lowres_token"),
                highres=bool(values["highres"]),
                tower_token_lens=_tower_token_lens(values),
                dinov2_resolution=_resolution_of_label(values["mm_vision_tower_aux_list"][1]),
                context_length=_positive(values, "tokenizer_model_max_length"),
                reply_tokens=int(values.get("inference_max_length") or DEFAULT_REPLY_TOKENS),
                dino_threshold=float(values["dino_threshold"]),
                stc_threshold=float(values["drop_threshold"]),
                frame_position_encoding=bool(values.get("frame_pos", False)),
                end_of_turn_ids=_ids(values["eos_token_id"]),
            )
        except KeyError as error:
            raise NotACheckpoint(f"{name} lacks {error.args[0]!r}") from error
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            raise NotACheckpoint(f"{name} has an unusable value: {error}") from error

    def with_image_token_len(self, tokens: int) -> ModelConfig:
        """The same with another number of queries per frame."""
        return replace(self, image_token_len=tokens)

    @property
    def high_side(self) -> int:
        """Side of the full-resolution grid: 12 (video checkpoints) or 24 (image checkpoints)."""
        return math.isqrt(self.image_token_len)

    @property
    def low_side(self) -> int:
        """Side of the low-resolution grid; the full one where the model has a single resolution."""
        return self.lowres_token if self.highres else self.high_side

    @property
    def key_side(self) -> int:
        """Side of the block of tower tokens that one query attends to: 2 (video) or 1 (image checkpoints)."""
        return math.isqrt(self.tower_token_lens[0]) // self.high_side


def _refuse_other_architectures(values: Mapping[str, Any], name: str) -> None:
    """Refuse variants of the architecture that no released checkpoint uses, rather than run them wrongly."""
    required: dict[str, Any] = {
        "mm_projector_type": "sva",
        "connector_only": True,
        "num_query_group": 1,
        "image_aspect_ratio": "pad",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
    }
    for key, wanted in required.items():
        if key in values and values[key] != wanted:
            raise NotACheckpoint(f"{name} has {key} = {values[key]!r}; only {wanted!r} is supported")
    for key in ("mm_projector_type", "connector_only"):
        if key not in values:
            raise NotACheckpoint(f"{name} lacks {key!r}: it is no LongVU checkpoint")


def _positive(values: Mapping[str, Any], key: str) -> int:
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{key} = {value!r} is no positive whole number")
    return value


def _square(value: int, key: str) -> int:
    if math.isqrt(value) ** 2 != value:
        raise ValueError(f"{key} = {value} is no square number")
    return value


def _tower_token_lens(values: Mapping[str, Any]) -> tuple[int, int]:
    siglip, dinov2 = values["mm_vision_tower_aux_token_len_list"]
    if siglip != dinov2:
        raise ValueError(f"the towers hand on {siglip} and {dinov2} tokens; they have to be equal")
    return _square(int(siglip), "tower tokens"), _square(int(dinov2), "tower tokens")


def _resolution_of_label(label: str) -> int:
    """``facebook/dinov2-giant-res378`` → 378."""
    match = re.search(r"-res(\d+)$", label)
    if match is None:
        raise ValueError(f"the tower label {label!r} names no resolution (…-res378)")
    return int(match.group(1))


def _ids(value: int | list[int]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(int(item) for item in value)


# A frame in eleven days, and one in a millisecond.
SLOWEST_FPS, FASTEST_FPS = 1e-6, 1000.0


@dataclass(frozen=True)
class SamplingOptions:
    """Which moments of the video are looked at.

    Attributes:
        fps: frames per second of presentation time.
        start_s: seconds after the first frame at which sampling starts.
        end_s: seconds after the first frame before which sampling ends; None: the end of the video.
        thin_above: of n frames that are more than this, only every ``n // thin_above``-th is looked at, as the
            reference's scripts for MLVU and EgoSchema do; 0: all are. The header of the video says how many they are:
            one that does not say how long it is, is not thinned.
    """

    fps: float = 1.0
    start_s: float = 0.0
    end_s: float | None = None
    thin_above: int = 0

    def __post_init__(self) -> None:
        if not SLOWEST_FPS <= self.fps <= FASTEST_FPS:
            raise UsageError(
                f"--fps {self.fps} is not a rate between {SLOWEST_FPS:f} and {FASTEST_FPS:.0f} frames per second",
                hint="1 is usual",
            )
        if not (math.isfinite(self.start_s) and self.start_s >= 0):
            raise UsageError(f"--start {self.start_s} is not a time in the video", hint="give seconds, or [hh:]mm:ss")
        if self.end_s is not None and not (math.isfinite(self.end_s) and self.end_s > self.start_s):
            raise UsageError(
                f"--end {self.end_s:g} is not after --start {self.start_s:g}",
                hint="both count seconds from the beginning of the video",
            )
        if self.thin_above < 0:
            raise UsageError(f"--thin-above {self.thin_above} is no number of frames", hint="0 looks at all of them")


class Decoder(StrEnum):
    """What decodes the video."""

    AUTO = "auto"
    CPU = "cpu"
    NVDEC = "nvdec"


# What a decoding process needs for itself and a small video.
MIN_DECODING_BYTES = 500_000_000


@dataclass(frozen=True)
class DecodingOptions:
    """How the video is decoded; the frames are the same whatever the choice.

    Attributes:
        decoder: ``auto`` is the CPU, which is faster; ``nvdec`` leaves its cores to others.
        workers: groups of pictures that are decoded side by side; 0: one per core.
        every_frame: decode every frame, also those that are not looked at: slower, and a reference for the rest.
        isolated: open and decode the file in a process of its own, so that no file can crash this one, hang it or fill
            its memory. Where processes cannot be forked (Windows), it is decoded in this one.
        memory_bytes: what that process may allocate; None: 2 GB, or a sixteenth of the machine's memory if that is
            more. Not enforced with ``nvdec``: the driver maps memory as it likes.
        patience_s: seconds of CPU time that may go by without a packet being read or decoded; one more per GiB of the
            file. Six times as long may go by on the clock.
    """

    decoder: Decoder = Decoder.AUTO
    workers: int = 0
    every_frame: bool = False
    isolated: bool = True
    memory_bytes: int | None = None
    patience_s: float = 10.0

    def __post_init__(self) -> None:
        if self.memory_bytes is not None and self.memory_bytes < MIN_DECODING_BYTES:
            raise UsageError(
                f"{self.memory_bytes} bytes are too few to decode anything",
                hint=f"{MIN_DECODING_BYTES} are the least, and None is usual",
            )
        if not (math.isfinite(self.patience_s) and self.patience_s > 0):
            raise UsageError(f"{self.patience_s} is no number of seconds to wait for a decoder", hint="10 is usual")
        if self.workers < 0:
            raise UsageError(f"--workers {self.workers} is no number of workers", hint="0 is one per core")


@dataclass(frozen=True)
class CompressionOptions:
    """How the user wants the video compressed. None stands for what the recipe or the checkpoint says."""

    recipe: RecipeName = RecipeName.RELEASED
    orientation: Orientation = Orientation.RELEASED
    temporal_reduction: TemporalReduction = TemporalReduction.DINOV2
    anchor: Anchor = Anchor.FIRST
    frame_position_encoding: bool | None = None
    context_length: int | None = None
    dino_threshold: float | None = None
    stc_threshold: float | None = None
    still: StillMode = StillMode.IMAGE
    query_guided: bool = True
    spatial_compression: bool = True
    resolution: FrameResolution = FrameResolution.AUTO

    def __post_init__(self) -> None:
        if self.context_length is not None and self.context_length < 1:
            raise UsageError(
                f"--context-length {self.context_length} is no positive number of tokens",
                hint="leave it out for the model's own",
            )
        for flag, value in (("--dino-threshold", self.dino_threshold), ("--stc-threshold", self.stc_threshold)):
            if value is not None and not -1.0 <= value <= 1.0:
                raise UsageError(f"{flag} {value} is no cosine similarity", hint="give a number from -1 to 1")

    def resolve(self, config: ModelConfig) -> Recipe:
        """Fill in what the checkpoint says.

        Raises:
            UsageError: the context is longer than the language model's positions.
        """
        context_length = self.context_length or config.context_length
        positions = config.language_model.get("max_position_embeddings")
        if isinstance(positions, int) and context_length > positions:
            raise UsageError(
                f"--context-length {context_length} is more than the model's {positions} positions",
                hint=f"this checkpoint's own context is {config.context_length}",
            )
        return Recipe(
            name=self.recipe,
            orientation=self.orientation,
            temporal_reduction=self.temporal_reduction,
            anchor=self.anchor,
            frame_position_encoding=(
                config.frame_position_encoding if self.frame_position_encoding is None else self.frame_position_encoding
            ),
            context_length=context_length,
            reply_tokens=config.reply_tokens,
            dino_threshold=config.dino_threshold if self.dino_threshold is None else self.dino_threshold,
            stc_threshold=self._stc_threshold(config),
            high_side=config.high_side,
            low_side=config.low_side,
            image_checkpoint=config.key_side == 1,
            still=self.still,
            query_guided=self.query_guided,
            spatial_compression=self.spatial_compression,
            resolution=self.resolution,
        )

    def _stc_threshold(self, config: ModelConfig) -> float:
        if self.stc_threshold is not None:
            return self.stc_threshold
        return PAPER_STC_THRESHOLD if self.recipe is RecipeName.PAPER else config.stc_threshold


# Paper, §4.3: "The STC reduction threshold θ = 0.8 and the sliding window size K = 8."
PAPER_STC_THRESHOLD = 0.8
STC_WINDOW = 8
# Paper, §3.1: J = 8. The released code cuts windows of 16 and keeps at most 400 frames.
PAPER_TEMPORAL_WINDOW = 8
RELEASED_TEMPORAL_WINDOW = 16
RELEASED_FRAME_CAP = 400


@dataclass(frozen=True)
class Recipe:
    """Everything the compression steps need to know, with nothing left open.

    Attributes:
        context_length: L, ids the decoder is given at most.
        reply_tokens: R, ids kept free for the reply.
        high_side, low_side: sides of the two grids.
        image_checkpoint: whether the checkpoint was trained on stills only (one key per query).
        query_guided: whether the frames that get full resolution are those most relevant for the question; else as
            many are spread evenly (paper, Figure 7: "w/o Query").
        spatial_compression: whether tokens that look alike are dropped where there are too many; else what exceeds the
            budget is cut from the end (paper, Figure 7: "w/o STC").
        resolution: ``auto`` chooses by what fits and by the question (paper, §3.2); else every frame has the same, and
            what fits is counted at that one (paper, Table 3: "144" and "64").
    """

    name: RecipeName
    orientation: Orientation
    temporal_reduction: TemporalReduction
    anchor: Anchor
    frame_position_encoding: bool
    context_length: int
    reply_tokens: int
    dino_threshold: float
    stc_threshold: float
    high_side: int
    low_side: int
    image_checkpoint: bool
    still: StillMode
    query_guided: bool
    spatial_compression: bool
    resolution: FrameResolution

    @property
    def temporal_window(self) -> int:
        """Frames per window of the temporal reduction."""
        return PAPER_TEMPORAL_WINDOW if self.name is RecipeName.PAPER else RELEASED_TEMPORAL_WINDOW


@dataclass(frozen=True)
class GenerationOptions:
    """How the answer is generated.

    Attributes:
        max_new_tokens: longest answer, in tokens.
        temperature: 0 takes the likeliest token each time (greedy).
        top_p: nucleus sampling keeps the likeliest tokens up to this probability; needs a temperature.
        seed: makes sampling repeatable.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UsageError(
                f"--max-new-tokens {self.max_new_tokens} is no positive number of tokens", hint="128 is usual"
            )
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UsageError(
                f"--temperature {self.temperature} is not 0 or more", hint="0 is greedy; 0.2 varies a little"
            )
        if not 0 < self.top_p <= 1:
            raise UsageError(f"--top-p {self.top_p} is no probability", hint="give a number above 0 and up to 1")
        if self.top_p < 1 and self.temperature == 0:
            raise UsageError(
                f"--top-p {self.top_p:g} has no effect on greedy decoding (temperature 0)",
                hint="add --temperature 0.2, or leave --top-p out",
            )
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed {self.seed} is no seed", hint="give a number from 0 to 2^63 - 1")


# Where the question goes in a template of the user's own.
QUESTION_PLACE = "{question}"
# As many options as there are letters.
MOST_CHOICES = 26


@dataclass(frozen=True)
class PromptOptions:
    """What the prompt holds beside the video and the question. The defaults give the released prompt.

    Attributes:
        system: takes the place of the system text.
        prompt_template: text around the question, whose place is ``{question}``.
        choices: options to choose from; the answer is one's letter.
        subtitles: a file of subtitles, or ``auto``: one beside the video, else a text track within it.
    """

    system: str | None = None
    prompt_template: str | None = None
    choices: tuple[str, ...] = ()
    subtitles: str | None = None

    def __post_init__(self) -> None:
        template = self.prompt_template
        if template is not None and template.count(QUESTION_PLACE) != 1:
            times = "no place" if QUESTION_PLACE not in template else "several places"
            raise UsageError(
                f"the prompt template has {times} for the question", hint=f"write {QUESTION_PLACE} once, where it goes"
            )
        if self.choices and not 2 <= len(self.choices) <= MOST_CHOICES:
            raise UsageError(
                f"{len(self.choices)} options are no choice" if len(self.choices) < 2 else "there are too many options",
                hint=f"give 2 to {MOST_CHOICES}",
            )
        if any(not choice.strip() for choice in self.choices) or len(set(self.choices)) < len(self.choices):
            raise UsageError("an option is empty, or there twice", hint="give each its own text")
        if self.subtitles is not None and not self.subtitles.strip():
            raise UsageError("the file of the subtitles has no name", hint="name it, or say auto")


@dataclass(frozen=True)
class CoverageOptions:
    """Whether a video that is too long to be seen at once is asked piece by piece (``coverage.py``)."""

    coverage: bool = False


@dataclass(frozen=True)
class ModelOptions:
    """Which weights, from where, and how they are held.

    Attributes:
        model: ``auto``, a short name, a hub repository id, or a folder.
        dinov2, siglip: repository id or folder of a tower; None: the checkpoint's own subfolder, else the hub's.
        revision: branch, tag or commit of the hub repository of the model.
        offline: use only what is on this machine.
        device: ``auto``, ``cuda``, ``cuda:N``, ``mps`` or ``cpu``.
        compile: whether layers are compiled by ``torch.compile`` before they are first used.
    """

    model: str = "auto"
    dinov2: str | None = None
    siglip: str | None = None
    revision: str | None = None
    offline: bool = False
    device: str = "auto"
    dtype: DType = DType.AUTO
    quantize: Quantization = Quantization.NONE
    compile: bool = False
