"""Results as JSON: the fields that scripts depend on. Fields may be added, never renamed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longvu_cli.config import GenerationOptions
from longvu_cli.errors import LongVUError
from longvu_cli.video_file import without_passwords, without_secrets

if TYPE_CHECKING:
    from longvu_cli.coverage import Covered
    from longvu_cli.evidence import Evidence
    from longvu_cli.results import Answer, Compression

SCHEMA_VERSION = 1

Record = dict[str, Any]


def answer_record(command: str, answer: Answer, found: Evidence | None = None, clips: Sequence[Path] = ()) -> Record:
    """The record of an answered question.

    Args:
        found: its evidence; None: the usual number of moments.
        clips: of the moments, where they were written.
    """
    compression = answer.compression
    return {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "video": _video(compression),
        "question": answer.question,
        "answer": answer.text,
        **({"choice": answer.choice} if answer.compression.prompting.choices else {}),
        "finish_reason": answer.finish_reason.value,
        "token_ids": list(answer.token_ids),
        "model": _model(compression),
        "settings": _settings(compression, answer.generation),
        "prompt": _prompt(compression),
        **_measured(compression),
        "evidence": _evidence(compression, found, clips),
    }


def chat_record(turn: int, answer: Answer) -> Record:
    """The record of a turn of a conversation: that of an answer, with what the prompt had from before.

    Args:
        turn: counts from 1 since the conversation began, or was reset.
    """
    conversation = {"turn": turn, **asdict(answer.history), "reused_tokens": answer.reused_tokens}
    return {**answer_record("chat", answer), "conversation": conversation}


def coverage_record(
    command: str, covered: Covered, found: Evidence | None = None, clips: Sequence[Path] = ()
) -> Record:
    """The record of a video that was asked piece by piece: that of the chosen segment, with the merged answer."""
    record = answer_record(command, covered.answer, found, clips)
    segments = [
        {
            "start_s": segment.start_s,
            "end_s": segment.end_s,
            "answer": None if segment.answer is None else segment.answer.text,
            "relevance": None if segment.best is None else segment.best.relevance,
            "best_time_s": None if segment.best is None else segment.best.time_s,
            "truncated_tokens": (
                None if segment.answer is None else segment.answer.compression.statistics.truncated_tokens
            ),
            "chosen": segment in covered.told,
            "error": None if segment.error is None else error_record(segment.error)["error"],
        }
        for segment in covered.segments
    ]
    return {**record, "answer": covered.text, "segments": segments}


def compression_record(
    command: str,
    compression: Compression,
    generation: GenerationOptions,
    found: Evidence | None = None,
    clips: Sequence[Path] = (),
) -> Record:
    """The record of a compressed video: that of an answer without the answer's fields."""
    record: Record = {"schema_version": SCHEMA_VERSION, "command": command, "video": _video(compression)}
    if compression.question is not None:
        record["question"] = compression.question
    record |= {"model": _model(compression), "settings": _settings(compression, generation)}
    record |= {"prompt": _prompt(compression)}
    return record | _measured(compression) | {"evidence": _evidence(compression, found, clips)}


def error_record(error: LongVUError, *, path: str | None = None) -> Record:
    """The record of a failure; ``path`` says which of several videos failed, without the password of an address."""
    where = {} if path is None else {"video": {"path": without_secrets(path)}}
    return {
        "schema_version": SCHEMA_VERSION,
        **where,
        "error": {
            "type": type(error).__name__,
            "message": without_passwords(error.message),
            "hint": without_passwords(error.hint),
        },
    }


def _video(compression: Compression) -> Record:
    video = asdict(compression.video)
    return {**video, "warnings": list(video["warnings"])}


def _model(compression: Compression) -> Record:
    model = asdict(compression.model)
    return {**model, "notices": list(model["notices"])}


def _settings(compression: Compression, generation: GenerationOptions) -> Record:
    recipe, sampling = compression.recipe, compression.sampling
    return {
        "recipe": recipe.name.value,
        "orientation": recipe.orientation.value,
        "fps": sampling.fps,
        "start_s": sampling.start_s,
        "end_s": sampling.end_s,
        "thin_above": sampling.thin_above,
        "context_length": recipe.context_length,
        "dino_threshold": recipe.dino_threshold,
        "stc_threshold": recipe.stc_threshold,
        "temporal_reduction": recipe.temporal_reduction.value,
        "anchor": recipe.anchor.value,
        "frame_position_encoding": recipe.frame_position_encoding,
        "still": recipe.still.value,
        "query_guided": recipe.query_guided,
        "spatial_compression": recipe.spatial_compression,
        "resolution": recipe.resolution.value,
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "max_new_tokens": generation.max_new_tokens,
        "seed": generation.seed,
    }


def _prompt(compression: Compression) -> Record:
    """What the prompt held beside the video and the question."""
    prompting, subtitles = compression.prompting, compression.subtitles
    return {
        "system": prompting.system,
        "template": prompting.prompt_template,
        "choices": list(prompting.choices),
        "subtitles": None if subtitles is None else asdict(subtitles),
    }


def _measured(compression: Compression) -> Record:
    statistics = asdict(compression.statistics)
    statistics["per_frame"] = list(statistics["per_frame"])
    return {
        "compression": statistics,
        "timing_s": asdict(compression.timing),
        "memory": asdict(compression.memory),
        "cache": {"features": compression.cache.value},
        "notices": list(compression.notices),
    }


def _evidence(compression: Compression, found: Evidence | None, clips: Sequence[Path]) -> Record:
    made = asdict(compression.evidence() if found is None else found)
    paths = [*map(str, clips), *[None] * len(made["moments"])]
    return {
        "steers": made["steers"],
        "moments": [{**moment, "clip": path} for moment, path in zip(made["moments"], paths, strict=False)],
        "dropped": [{**span, "resembles_s": list(span["resembles_s"])} for span in made["dropped"]],
        "truncated": list(made["truncated"]),
    }
