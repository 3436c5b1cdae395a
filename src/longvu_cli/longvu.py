"""The Python API: a loaded model that compresses videos and answers questions about them."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from longvu_cli.adaptive_batch import AdaptiveBatch
from longvu_cli.compression.budget import Budget, budget
from longvu_cli.config import (
    CompressionOptions,
    DecodingOptions,
    GenerationOptions,
    ModelOptions,
    PromptOptions,
    Quantization,
    Recipe,
    SamplingOptions,
)
from longvu_cli.conversation import Conversation, Remembered, Watched
from longvu_cli.device import (
    free_memory,
    other_gpus,
    out_of_memory_is_an_error,
    peak_device_bytes,
    peak_host_bytes,
    reset_peak_device_bytes,
    resolve_device,
    resolve_dtype,
    synchronize,
    usable_memory,
)
from longvu_cli.encoded_video import EncodedVideo
from longvu_cli.errors import DeviceUnavailable, UsageError
from longvu_cli.feature_cache import FeatureCache, cache_key, files_identity
from longvu_cli.hub import DownloadPlan
from longvu_cli.identity import weights_digest
from longvu_cli.isolation import warm_up
from longvu_cli.language_model import LanguageModel, decode_stream
from longvu_cli.loading import Modules, load_modules
from longvu_cli.pipeline import CompressedVideo, Progress, compress, encode, frames_together, kept_frames
from longvu_cli.prompt import Prompt, Turn, build_prompt, count_ids, fitting_turns, said_turn
from longvu_cli.put_question import put_question
from longvu_cli.results import (
    Answer,
    CacheUse,
    Chunk,
    Compression,
    FinishReason,
    History,
    Memory,
    ModelInfo,
    SubtitleUse,
    Timing,
    folded,
)
from longvu_cli.subtitles import AUTO, Subtitles, block, fitting, lines_of, sidecar
from longvu_cli.timing import Stopwatch
from longvu_cli.tiny_world import FOREIGN, is_foreign
from longvu_cli.variants import choose_variant, what_would_fit
from longvu_cli.video import Video, VideoInfo, subtitle_cues, text_track
from longvu_cli.weights import Part, Variant, locate


def _unheard(*_: object) -> None:
    """The default of every callback."""


# What the source of subtitles is called that are a track of the video itself.
TRACK = "text track"
# One part of so many of the video's room may go to subtitles, and of what is left to earlier turns of a conversation.
_SUBTITLES_SHARE = 2
_HISTORY_SHARE = 4


@dataclass(frozen=True)
class _Prepared:
    """A video, compressed for a prompt, with what is known of it."""

    prompt: Prompt
    history: History
    sampling: SamplingOptions
    prompting: PromptOptions
    subtitles: SubtitleUse | None
    compressed: CompressedVideo
    video: VideoInfo
    recipe: Recipe
    cache: CacheUse


class LongVU:
    """A LongVU model, loaded. Make one with :meth:`from_pretrained`.

    Attributes:
        info: which model it is, and how it is held.
        part: how much of it was loaded.
    """

    def __init__(
        self,
        modules: Modules,
        info: ModelInfo,
        part: Part,
        *,
        vision_identity: str,
        folders: tuple[Path, ...],
        load_seconds: float,
        cache: FeatureCache | None,
        decoding: DecodingOptions | None = None,
    ) -> None:
        self.info = info
        self.part = part
        self._modules = modules
        self._vision_identity = vision_identity
        self._folders = folders
        self._load_seconds = load_seconds
        self._cache = cache
        device = modules.vision.device
        self._batch = AdaptiveBatch(frames_together(device.type, free_memory(device)))
        self._decoding = decoding or DecodingOptions()

    @classmethod
    def from_pretrained(
        cls,
        model: str = "auto",
        *,
        part: Part = Part.ANSWER,
        options: ModelOptions | None = None,
        cache: FeatureCache | None = None,
        decoding: DecodingOptions | None = None,
        on_chosen: Callable[[Variant], None] = _unheard,
        on_download: Callable[[DownloadPlan], None] = _unheard,
        on_check: Callable[[str, int], None] = _unheard,
        tqdm_class: type[Any] | None = None,
    ) -> LongVU:
        """Find the weights, downloading what is missing, and load them.

        Args:
            model: ``auto`` (the largest released model that fits the device), a short name (``7b``, ``3b``, ``1b``),
                a hub repository, or a folder.
            part: how much is needed: ``Part.VISION`` compresses without a question, ``Part.QUESTION`` with one,
                ``Part.ANSWER`` does everything.
            options: device, number format, quantisation and so on; its ``model`` is replaced by ``model``.
            cache: keeps the features of videos, so that further questions about one are quick; None: nothing is kept.
            decoding: how videos are decoded; the frames are the same whatever the choice.
            on_chosen: hears which model ``auto`` takes, before anything is downloaded.
            on_download: hears of a download before it starts.
            on_check: hears how many bytes of a repository are read, once, to be compared with what the hub lists.
            tqdm_class: draws a download's progress.

        Raises:
            WeightsError: the weights cannot be found, fetched or loaded.
            DeviceError: the device is missing or too small.
        """
        decoding = decoding or DecodingOptions()
        if decoding.isolated:
            # It gets ready while the weights are loaded.
            warm_up()
        chosen = replace(options or ModelOptions(), model=model)
        device = resolve_device(chosen.device)
        dtype = resolve_dtype(chosen.dtype, device)
        if chosen.quantize is not Quantization.NONE and device.type != "cuda":
            raise DeviceUnavailable(
                f"--quantize {chosen.quantize} needs a CUDA GPU, and the device is {device}",
                hint="leave --quantize out, or use --device cuda",
            )
        if chosen.model == "auto":
            variant = choose_variant(free_memory(device), dtype=dtype, quantize=chosen.quantize, device=str(device))
            on_chosen(variant)
            chosen = replace(chosen, model=variant.name)
        weights = locate(chosen, part, on_download=on_download, on_check=on_check, tqdm_class=tqdm_class)
        watch = Stopwatch(lambda: synchronize(device))
        with watch.stage("load"):
            modules = load_modules(
                weights,
                part,
                device=device,
                dtype=dtype,
                quantize=chosen.quantize,
                compile=chosen.compile,
                others=other_gpus(chosen.device),
            )
        info = ModelInfo(
            name=weights.name,
            source=weights.source,
            revision=weights.revision,
            dtype=str(dtype).removeprefix("torch."),
            quantization=chosen.quantize.value,
            device=",".join(map(str, modules.devices)),
            notices=modules.notices,
            compiled=chosen.compile,
        )
        return cls(
            modules,
            info,
            part,
            vision_identity=files_identity(modules.vision_files),
            folders=(weights.checkpoint, weights.dinov2, weights.siglip),
            load_seconds=watch.seconds("load"),
            cache=cache,
            decoding=decoding,
        )

    @functools.cached_property
    def identity(self) -> str:
        """Tells this model's answers from another's: a digest of its weights, revision, number format and quantisation.

        The device is not part of it, so that the GPUs of a machine can share work.
        """
        facts = [weights_digest(*self._folders), self.info.revision, self.info.dtype, self.info.quantization]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    @property
    def context_length(self) -> int:
        """The model's own, in tokens."""
        return self._modules.config.context_length

    def compress(
        self,
        video: str | Path,
        question: str | None = None,
        *,
        sampling: SamplingOptions | None = None,
        compression: CompressionOptions | None = None,
        prompting: PromptOptions | None = None,
        on_progress: Progress = _unheard,
    ) -> Compression:
        """Compress a video, for a question or as far as that goes without one, and say what was kept.

        Args:
            on_progress: called with a stage's name, how much of it is done, and how much there is (None: unknown).

        Raises:
            VideoError: the video cannot be read.
            UsageError: the question leaves no room, or was asked of a model loaded without its embeddings.
            DeviceOutOfMemory: the video does not fit.
        """
        sampling, compression = sampling or SamplingOptions(), compression or CompressionOptions()
        watch = self._watch()
        prepared = self._prepare(video, question, sampling, compression, prompting, watch, on_progress)
        return self._report(prepared, question, watch)

    def stream(
        self,
        video: str | Path,
        question: str,
        *,
        sampling: SamplingOptions | None = None,
        compression: CompressionOptions | None = None,
        prompting: PromptOptions | None = None,
        generation: GenerationOptions | None = None,
        on_progress: Progress = _unheard,
        remembered: Remembered | None = None,
    ) -> Generator[Chunk, None, None]:
        """Answer a question, token by token. The last chunk carries the whole answer.

        Args:
            on_progress: as in :meth:`compress`.
            remembered: what a conversation about this video, with these settings, remembers; gets this turn added. See
                :meth:`conversation`.

        Raises:
            VideoError: the video cannot be read.
            UsageError: the question leaves no room, or the model was loaded without its language model.
            DeviceOutOfMemory: the video does not fit.
            NonFiniteLogits: the model computed NaN or infinity.
        """
        sampling, compression = sampling or SamplingOptions(), compression or CompressionOptions()
        generation = generation or GenerationOptions()
        language_model = self._language_model()
        watch = self._watch()
        prefix = None if remembered is None else remembered.prefix
        prepared = self._prepare(video, question, sampling, compression, prompting, watch, on_progress, remembered)
        stop_ids = self._stop_ids()
        texts: list[str] = []
        token_ids: list[int] = []
        with (
            out_of_memory_is_an_error(self._modules.vision.device, "answering", self._what_would_fit),
            closing(
                language_model.generate(self._sequence(prepared), generation, stop_ids=stop_ids, prefix=prefix)
            ) as ids,
        ):
            for token_id, text in decode_stream(self._modules.tokenizer, _timed(ids, watch)):
                if token_id is not None:
                    token_ids.append(token_id)
                texts.append(text)
                yield Chunk(text=text, token_id=token_id)
        answer = Answer(
            text="".join(texts),
            token_ids=tuple(token_ids),
            finish_reason=FinishReason.STOP if token_ids[-1] in stop_ids else FinishReason.LENGTH,
            compression=self._report(prepared, question, watch),
            generation=generation,
            history=prepared.history,
            reused_tokens=prefix.reused if prefix is not None else 0,
        )
        if remembered is not None:
            said = token_ids[:-1] if answer.finish_reason is FinishReason.STOP else token_ids
            remembered.turns += (Turn(put_question(question, prepared.prompting), tuple(said)),)
        yield Chunk(text="", token_id=None, answer=answer)

    def answer(
        self,
        video: str | Path,
        question: str,
        *,
        sampling: SamplingOptions | None = None,
        compression: CompressionOptions | None = None,
        prompting: PromptOptions | None = None,
        generation: GenerationOptions | None = None,
        on_progress: Progress = _unheard,
    ) -> Answer:
        """Answer a question: :meth:`stream`, folded. Raises the same."""
        return folded(
            self.stream(
                video,
                question,
                sampling=sampling,
                compression=compression,
                prompting=prompting,
                generation=generation,
                on_progress=on_progress,
            )
        )

    def conversation(
        self,
        video: str | Path,
        *,
        sampling: SamplingOptions | None = None,
        compression: CompressionOptions | None = None,
        prompting: PromptOptions | None = None,
        generation: GenerationOptions | None = None,
    ) -> Conversation:
        """Begin to talk about a video: it is watched when the first question comes, and once."""
        return Conversation(
            self, video, sampling=sampling, compression=compression, prompting=prompting, generation=generation
        )

    def turn(self, question: str, answer: str) -> Turn:
        """A turn of a conversation that was held elsewhere, for ``Remembered.turns``."""
        return said_turn(self._modules.tokenizer, question, answer)

    def _language_model(self) -> LanguageModel:
        if self._modules.language_model is None:
            raise UsageError("this model was loaded without its language model", hint="load Part.ANSWER")
        return self._modules.language_model

    def _stop_ids(self) -> tuple[int, ...]:
        """The ids that end a turn, by the config and by the tokenizer."""
        end = self._modules.tokenizer.eos_token_id
        return (*self._modules.config.end_of_turn_ids, *((end,) if isinstance(end, int) else ()))

    def _watch(self) -> Stopwatch:
        device = self._modules.vision.device
        reset_peak_device_bytes(self._modules.devices)
        return Stopwatch(lambda: synchronize(device))

    def _prepare(
        self,
        path: str | Path,
        question: str | None,
        sampling: SamplingOptions,
        compression: CompressionOptions,
        prompting: PromptOptions | None,
        watch: Stopwatch,
        on_progress: Progress,
        remembered: Remembered | None = None,
    ) -> _Prepared:
        """File → visual tokens. Without a question the bare template takes its place in the count."""
        modules = self._modules
        recipe = compression.resolve(modules.config)
        prompting = prompting or PromptOptions()
        if sampling.thin_above:
            with Video(path, sampling, self._decoding) as opened:
                sampling = opened.sampling
        turns = () if remembered is None else remembered.turns
        found = self._subtitles(Path(path), sampling, prompting, remembered)
        prompt, history, subtitles = self._prompt(question or "", turns, prompting, found, recipe)
        room = budget(recipe, prompt.length)
        with out_of_memory_is_an_error(modules.vision.device, "compressing the video", self._what_would_fit):
            encoded, video, cache = self._encode(Path(path), sampling, recipe, room, watch, on_progress, remembered)
            with watch.stage("compression"), torch.inference_mode():
                compressed = compress(
                    encoded,
                    modules.vision,
                    recipe,
                    room,
                    text_tokens=prompt.length - 1,
                    text=None if question is None else self._embed(prompt.asked),
                )
        return _Prepared(prompt, history, sampling, prompting, subtitles, compressed, video, recipe, cache)

    def _subtitles(
        self, path: Path, sampling: SamplingOptions, prompting: PromptOptions, remembered: Remembered | None
    ) -> Subtitles | None:
        """The subtitles that were asked for, if there are any; a conversation looks for them once."""
        if prompting.subtitles is None:
            return None
        if remembered is not None and remembered.subtitles is not None:
            return remembered.subtitles
        beside = sidecar(path) if prompting.subtitles == AUTO else Path(prompting.subtitles)
        cues = text_track(path, self._decoding) if beside is None else subtitle_cues(beside, self._decoding)
        if beside is None and not cues:
            return None
        found = Subtitles(source=TRACK if beside is None else str(beside), lines=lines_of(cues, sampling))
        if remembered is not None:
            remembered.subtitles = found
        return found

    def _prompt(
        self,
        question: str,
        turns: tuple[Turn, ...],
        prompting: PromptOptions,
        found: Subtitles | None,
        recipe: Recipe,
    ) -> tuple[Prompt, History, SubtitleUse | None]:
        """The prompt with as many subtitles and earlier turns as leave the video its room."""
        tokenizer, family = self._modules.tokenizer, self._modules.config.family
        put = put_question(question, prompting)
        prompt = build_prompt(tokenizer, family, put, system=prompting.system)
        context, subtitles = "", None
        if found is not None:
            room = budget(recipe, prompt.length).visual_budget // _SUBTITLES_SHARE
            lines = fitting(found.lines, room, lambda text: count_ids(tokenizer, text))
            context, subtitles = block(lines), SubtitleUse(found.source, len(found.lines), len(lines))
            prompt = build_prompt(tokenizer, family, put, system=prompting.system, context=context)
        if not turns:
            return prompt, History(turns=0, dropped=0), subtitles
        room = budget(recipe, prompt.length).visual_budget // _HISTORY_SHARE
        kept = fitting_turns(tokenizer, family, turns, room)
        history = History(turns=len(kept), dropped=len(turns) - len(kept))
        prompt = build_prompt(tokenizer, family, put, system=prompting.system, context=context, turns=kept)
        return prompt, history, subtitles

    def _encode(
        self,
        path: Path,
        sampling: SamplingOptions,
        recipe: Recipe,
        room: Budget,
        watch: Stopwatch,
        on_progress: Progress,
        remembered: Remembered | None,
    ) -> tuple[EncodedVideo, VideoInfo, CacheUse]:
        """The fused features of the video, from a conversation or the cache where they are there."""
        if remembered is None:
            return self._encode_or_fetch(path, sampling, recipe, room, watch, on_progress)
        known = remembered.watched
        if known is not None and known.encoded.holds(kept_frames(known.encoded, recipe, room)):
            return known.encoded, known.info, CacheUse.MEMORY
        encoded, info, use = self._encode_or_fetch(path, sampling, recipe, room, watch, on_progress)
        remembered.watched = Watched(encoded, info)
        return encoded, info, use

    def _encode_or_fetch(
        self,
        path: Path,
        sampling: SamplingOptions,
        recipe: Recipe,
        room: Budget,
        watch: Stopwatch,
        on_progress: Progress,
    ) -> tuple[EncodedVideo, VideoInfo, CacheUse]:
        """The fused features of the video, from the cache where they are there."""
        key = self._cache_key(path, sampling, recipe)
        if self._cache is not None and key is not None and (entry := self._cache.get(key)) is not None:
            encoded, info = entry
            # Only the number of frames that fit depends on the question: it may ask for frames that were not kept.
            if encoded.holds(kept_frames(encoded, recipe, room)):
                return encoded, replace(info, path=str(path)), CacheUse.HIT
        with Video(path, sampling, self._decoding) as video:
            encoded = encode(
                video.frames(),
                self._modules.vision,
                recipe,
                room=room,
                still=video.info.is_still,
                batch=self._batch,
                watch=watch,
                on_progress=on_progress,
                expected=video.expected_frames,
            )
            info = video.info
        if self._cache is None or key is None:
            return encoded, info, CacheUse.OFF
        self._cache.put(key, encoded, info)
        return encoded, info, CacheUse.MISS

    def _notices(self, prepared: _Prepared) -> Iterator[str]:
        subtitles = prepared.subtitles
        if subtitles is not None and subtitles.read < subtitles.lines:
            yield (
                f"the subtitles would take more than half the room for the video: {subtitles.read} of "
                f"{subtitles.lines} lines, evenly spread, are read"
            )
        if prepared.prompting.subtitles == AUTO and subtitles is None:
            yield "there are no subtitles beside the video, and no text track in it"
        if self._batch.reduced:
            device = self._modules.vision.device
            yield f"{device} ran out of memory: frames now go through the towers {self._batch.size} at a time"
        if prepared.cache is CacheUse.MISS and self._cache is not None and self._cache.trouble is not None:
            yield self._cache.trouble
        if is_foreign(self.info, prepared.video):
            yield FOREIGN

    def _what_would_fit(self) -> str:
        """What to try after the memory has run out."""
        vision, language_model = self._modules.vision, self._modules.language_model
        modules = [vision.siglip, vision.dinov2, vision.connector]
        modules += [language_model.decoder] if language_model is not None else []
        fits = what_would_fit(
            usable_memory(vision.device),
            held=sum(parameter.nbytes for module in modules for parameter in module.parameters()),
            dtype=next(vision.connector.parameters()).dtype,
            quantizable=vision.device.type == "cuda",
        )
        if not self._batch.reduced:
            return fits
        return f"{fits}; frames already went through the towers {self._batch.size} at a time"

    def _cache_key(self, path: Path, sampling: SamplingOptions, recipe: Recipe) -> str | None:
        return cache_key(
            path,
            sampling,
            recipe,
            decoding=self._decoding,
            model=self._vision_identity,
            dtype=self.info.dtype,
            device=self._modules.vision.device.type,
            compiled=self.info.compiled,
        )

    @torch.inference_mode()
    def _embed(self, ids: tuple[int, ...]) -> torch.Tensor:
        """[m, h]."""
        embeddings = self._modules.embeddings
        if embeddings is None:
            raise UsageError("this model was loaded without what a question needs", hint="load Part.QUESTION or more")
        embedded: torch.Tensor = embeddings(torch.tensor(ids, dtype=torch.long, device=embeddings.weight.device))
        return embedded

    def _sequence(self, prepared: _Prepared) -> torch.Tensor:
        """[n, h]: the prompt with the video's tokens in their place."""
        tokens = prepared.compressed.tokens
        if tokens is None:
            raise AssertionError("with a question every resolution is decided")
        before, after = self._embed(prepared.prompt.before), self._embed(prepared.prompt.after)
        return torch.cat((before, tokens.to(before.dtype), after))

    def _report(
        self,
        prepared: _Prepared,
        question: str | None,
        watch: Stopwatch,
    ) -> Compression:
        return Compression(
            video=prepared.video,
            question=question,
            statistics=prepared.compressed.statistics,
            model=self.info,
            sampling=prepared.sampling,
            recipe=prepared.recipe,
            kept=tuple(prepared.compressed.kept.tolist()),
            prompting=prepared.prompting,
            subtitles=prepared.subtitles,
            timeline=prepared.compressed.timeline,
            notices=tuple(self._notices(prepared)),
            timing=Timing(
                load=self._load_seconds,
                decode=watch.seconds("decode"),
                preprocess=watch.seconds("preprocess"),
                dinov2=watch.seconds("dinov2"),
                siglip=watch.seconds("siglip"),
                connector=watch.seconds("connector"),
                compression=watch.seconds("compression"),
                prefill=watch.seconds("prefill"),
                generate=watch.seconds("generate"),
                first_token=watch.seconds("first_token"),
                total=watch.elapsed(),
            ),
            memory=Memory(
                peak_device_bytes=peak_device_bytes(self._modules.devices),
                peak_host_bytes=peak_host_bytes(),
            ),
            cache=prepared.cache,
        )


def _timed(ids: Iterator[int], watch: Stopwatch) -> Iterator[int]:
    """Count the first id's time as prefill and the others' as generation."""
    first = next(watch.over("prefill", ids), None)
    if first is None:
        return
    watch.add("first_token", watch.elapsed())
    yield first
    yield from watch.over("generate", ids)
