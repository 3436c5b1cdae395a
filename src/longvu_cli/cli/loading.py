"""Loading a model for a command: what is said about it, and with which bars."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from longvu_cli.cli.options import CacheFlags, ModelFlags
from longvu_cli.cli.output import Output
from longvu_cli.config import DecodingOptions

if TYPE_CHECKING:
    from longvu_cli.hub import DownloadPlan
    from longvu_cli.longvu import LongVU
    from longvu_cli.results import ModelInfo
    from longvu_cli.weights import Part

# Downloads, and files to be read, above this size are announced.
ANNOUNCED_BYTES = 100_000_000


class Announcer:
    """Says which model it is, and what is about to be downloaded or read, where it is much."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def download(self, plan: DownloadPlan) -> None:
        """A download is about to start."""
        if plan.bytes_missing > ANNOUNCED_BYTES:
            self._output.note(f"downloading {plan.bytes_missing / 1e9:.2f} GB of {plan.repo} to {plan.destination}")

    def check(self, repo: str, size: int) -> None:
        """Files are about to be compared."""
        if size > ANNOUNCED_BYTES:
            self._output.note(f"comparing {size / 1e9:.2f} GB of {repo} with what the hub lists, which is done once")

    def chosen(self, model: str) -> None:
        """``auto`` takes this one."""
        self._output.note(f"--model auto takes {model}, the largest that fits the free memory of the device")

    def loaded(self, info: ModelInfo) -> None:
        """The model is there."""
        told = f"model {info.name} from {info.source}" + (f" at {info.revision}" if info.revision else "")
        quantized = "" if info.quantization == "none" else f", {info.quantization}"
        self._output.detail(f"{told} ({info.dtype}{quantized} on {info.device})")
        for notice in info.notices:
            self._output.warning(notice)


def load_model(
    flags: ModelFlags,
    part_name: str,
    output: Output,
    cache: CacheFlags,
    decoding: DecodingOptions | None = None,
    *,
    features: Path | None = None,
) -> LongVU:
    """Load the part (a name of ``Part``) of the model that the flags ask for.

    Args:
        features: folder for the features of videos, in place of the user's own.
    """
    options = flags.options()
    from longvu_cli.cli.bars import Bar
    from longvu_cli.feature_cache import FeatureCache
    from longvu_cli.longvu import LongVU
    from longvu_cli.weights import Part

    part: Part = Part[part_name]

    announcer = Announcer(output)

    model = LongVU.from_pretrained(
        flags.model,
        part=part,
        options=options,
        cache=None if cache.no_cache else FeatureCache(features) if features else FeatureCache.default(),
        decoding=decoding,
        on_chosen=lambda variant: announcer.chosen(variant.name),
        on_download=announcer.download,
        on_check=announcer.check,
        tqdm_class=Bar if output.animated else None,
    )
    announcer.loaded(model.info)
    return model
