"""A task → the model's stream."""

from __future__ import annotations

from collections.abc import Generator

from longvu_cli.conversation import Remembered
from longvu_cli.longvu import LongVU
from longvu_cli.results import Chunk
from longvu_cli.serving.worker import Ask, Progress, Task


def asking(model: LongVU) -> Ask:
    """What has a model answer tasks. What was said before is read with the question, as in a conversation."""

    def ask(task: Task, on_progress: Progress) -> Generator[Chunk, None, None]:
        turns = tuple(model.turn(question, answer) for question, answer in task.history)
        return model.stream(
            task.video,
            task.question,
            sampling=task.settings.sampling,
            compression=task.settings.compression,
            prompting=task.settings.prompting,
            generation=task.settings.generation,
            on_progress=on_progress,
            remembered=Remembered(turns=turns) if turns else None,
        )

    return ask
