"""Who answers the rows of a command: the engine that its flags ask for. The only place that makes one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from longvu_cli.cli.loading import load_model
from longvu_cli.cli.options import CacheFlags, ModelFlags
from longvu_cli.cli.output import Output
from longvu_cli.config import DecodingOptions

if TYPE_CHECKING:
    from longvu_cli.engines.engine import Engine
    from longvu_cli.longvu import LongVU


@contextmanager
def open_engine(
    command: str, output: Output, *, model: ModelFlags, cache: CacheFlags, decoding: DecodingOptions
) -> Iterator[Engine]:
    """An engine with its model loaded, for as many batches as one likes.

    Args:
        command: as the records have it.

    Raises:
        LongVUError: the model cannot be loaded.
    """
    yield plain_engine(command, output, load_model(model, "ANSWER", output, cache, decoding))


def plain_engine(command: str, output: Output, loaded: LongVU) -> Engine:
    """One model, in this process, that is loaded already."""
    from longvu_cli.engines.answering import Answering
    from longvu_cli.engines.plain import Plain

    answer = Answering(
        loaded, command, on_progress=output.on_progress, on_notice=output.warning_once, on_bug=output.trace
    )
    return Plain(loaded.identity, answer)
