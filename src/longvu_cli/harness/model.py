"""The class that lmms-eval makes and asks."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from loguru import logger
from tqdm import tqdm

from longvu_cli.coverage import Merge, ask_segments, merged
from longvu_cli.errors import UsageError
from longvu_cli.feature_cache import FeatureCache
from longvu_cli.harness.arguments import generation_of, model_arguments, text_before
from longvu_cli.harness.visuals import as_file
from longvu_cli.longvu import LongVU
from longvu_cli.manifest import Settings

_INSTEAD = "take a task of output_type generate_until"


def _unheard(*_: object) -> None:
    """Nobody looks at the stages of one answer."""


class LongVUModel(lmms):
    """LongVU as the harness's model: ``lmms-eval --model longvu --model_args pretrained=7b,fps=0.5``.

    Questions are answered one by one, by as many processes as the harness was started with, each with its own GPU.

    Args:
        batch_size, max_batch_size: one video at a time.
        device: of a single process; each of several has the one that accelerate gives it.
        values: see :func:`~longvu_cli.harness.arguments.model_arguments`.

    Raises:
        UsageError: a value is none, or there is no option of its name.
        WeightsError: the weights cannot be found, fetched or loaded.
        DeviceError: the device is missing or too small.
    """

    def __init__(
        self,
        *,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        **values: object,
    ) -> None:
        super().__init__()
        if str(batch_size) != "1" or max_batch_size not in (None, 1):
            raise UsageError("LongVU answers one question at a time", hint="add --batch_size 1")
        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        if self._world_size > 1:
            own = self.accelerator.device
            device = str(own) if own.type == "cuda" else own.type
        arguments = model_arguments(values if device is None else {**values, "device": device})
        self._settings = arguments.settings
        self._longvu = LongVU.from_pretrained(
            arguments.model.model,
            options=arguments.model,
            cache=None if arguments.no_cache else FeatureCache.default(),
            decoding=arguments.decoding,
        )
        self._told: set[str] = set()
        self._tell(self._longvu.info.notices)

    @property
    def device(self) -> torch.device:
        """Where the harness gathers the counts of several processes."""
        return torch.device(self._longvu.info.device)

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """The answers, in the order of the requests.

        Raises:
            UsageError: a task shows or wants what this model does not do.
            VideoError: a video cannot be read.
            DeviceError: a video does not fit, or the model computed NaN.
        """
        bar = tqdm(requests, desc="LongVU", unit="question", disable=self.rank != 0)
        return [self._answer(*request.args) for request in bar]

    def loglikelihood(self, requests: Sequence[Instance]) -> NoReturn:
        """Not there: LongVU is trained and evaluated by what it answers.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"LongVU gives no log-likelihoods, which {_tasks(requests)} wants: {_INSTEAD}")

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> NoReturn:
        """Not there: the questions of a task stand alone.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"LongVU answers in one round, and {_tasks(requests)} has several: {_INSTEAD}")

    def _answer(
        self, context: str, generation_kwargs: dict[str, Any], doc_to_visual: Any, doc_id: int, task: str, split: str
    ) -> str:
        generation = generation_of(generation_kwargs)
        visuals = doc_to_visual(self.task_dict[task][split][doc_id])
        settings = replace(self._settings, generation=generation.options)
        answer = self._covered if settings.covering.coverage else self._streamed
        with (
            as_file(visuals if isinstance(visuals, list) else [visuals], fps=settings.sampling.fps) as path,
            closing(answer(path, context, settings)) as pieces,
        ):
            return text_before(pieces, generation.until)

    def _streamed(self, path: Path, question: str, settings: Settings) -> Generator[str, None, None]:
        chunks = self._longvu.stream(
            path,
            question,
            sampling=settings.sampling,
            compression=settings.compression,
            prompting=settings.prompting,
            generation=settings.generation,
        )
        with closing(chunks):
            for chunk in chunks:
                if chunk.answer is not None:
                    self._tell(chunk.answer.compression.notices)
                yield chunk.text

    def _covered(self, path: Path, question: str, settings: Settings) -> Generator[str, None, None]:
        segments = ask_segments(
            self._longvu,
            path,
            question,
            sampling=settings.sampling,
            compression=settings.compression,
            prompting=settings.prompting,
            generation=settings.generation,
            on_progress=_unheard,
        )
        covered = merged(list(segments), Merge.RELEVANCE)
        self._tell(covered.answer.compression.notices)
        yield covered.text

    def _tell(self, notices: Sequence[str]) -> None:
        """Once each, in the harness's own log."""
        for notice in notices:
            if notice not in self._told:
                self._told.add(notice)
                logger.warning(notice)


def _tasks(requests: Sequence[Instance]) -> str:
    return ", ".join(sorted({request.task_name for request in requests}))
