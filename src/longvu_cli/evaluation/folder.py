"""The folder of an evaluation: which one it is, so that it goes on as it began, and can be scored without its model.

::

    run.json       which benchmark, model (its digest, its context) and settings
    results.jsonl  every answer as the model gave it: the results of a batch
    answers.jsonl  every question with its answer and how it was scored
    summary.json   accuracy by group and overall, with what the paper has; summary.csv is the same as a table
    films/         videos that the benchmark has as folders of pictures
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longvu_cli.errors import UsageError
from longvu_cli.evaluation.benchmark import Benchmark, Variant
from longvu_cli.evaluation.scoring import RESULTS
from longvu_cli.records import SCHEMA_VERSION
from longvu_cli.whole_file import whole_file

_RUN, _FILMS = "run.json", "films"
_SPOKEN = {"benchmark": "benchmark", "identity": "model", "variants": "settings"}


class EvaluationFolder:
    """A folder that holds one evaluation.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def results(self) -> Path:
        """The file of the answers."""
        return self.path / RESULTS

    @property
    def films(self) -> Path:
        """Where videos go that are made of pictures."""
        return self.path / _FILMS

    def make(self) -> None:
        """Make it, if it is not there.

        Raises:
            UsageError: it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"--output {self.path} is no folder that can be written to: {error.strerror}",
                hint="name another folder",
            ) from error

    def begin(self, benchmark: Benchmark, identity: str, context_length: int, variants: Sequence[Variant]) -> None:
        """Note which evaluation this is, or find that it is the one that was noted.

        Args:
            identity: tells the model from others.
            context_length: the model's own.

        Raises:
            UsageError: the folder holds another one.
            OSError: it cannot be written.
        """
        facts = {"benchmark": benchmark.name, "identity": identity, "variants": _facts(variants)}
        known = self._noted()
        if known is None:
            if self.results.exists():
                raise UsageError(f"{self.path} has results, but not of an evaluation", hint="name another folder")
            noted = {**facts, "context_length": context_length, "schema_version": SCHEMA_VERSION}
            with whole_file(self.path / _RUN) as aside:
                aside.write_text(json.dumps(noted, indent=1) + "\n", encoding="utf-8")
            return
        self._compare(known, facts)

    def require(self, benchmark: Benchmark, variants: Sequence[Variant]) -> None:
        """Find that the folder holds this evaluation, whichever its model.

        Raises:
            UsageError: it holds none, or another one.
        """
        self._compare(self._held(), {"benchmark": benchmark.name, "variants": _facts(variants)})

    def context_length(self) -> int:
        """The own one of the model that answered.

        Raises:
            UsageError: the folder holds no evaluation, or one that was begun before this was noted.
        """
        length = self._held().get("context_length")
        if not isinstance(length, int):
            raise UsageError(
                f"{self.path} does not say which context its model has", hint="give its --context-length, or ask again"
            )
        return length

    def _held(self) -> dict[str, Any]:
        known = self._noted()
        if known is None:
            raise UsageError(f"{self.path} holds no evaluation", hint="leave --rescore out to begin one")
        return known

    def _compare(self, known: dict[str, Any], facts: dict[str, Any]) -> None:
        for key, value in facts.items():
            if known.get(key) != value:
                raise UsageError(
                    f"{self.path} holds an earlier evaluation with not the same {_SPOKEN[key]}",
                    hint="name another folder, or give the same options as before",
                )

    def _noted(self) -> dict[str, Any] | None:
        try:
            noted = json.loads((self.path / _RUN).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f"{self.path / _RUN} cannot be read: {error}", hint="name another folder") from error
        if not isinstance(noted, dict):
            raise UsageError(f"{self.path / _RUN} is no note of an evaluation", hint="name another folder")
        return noted


def _facts(variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """As they come back from JSON."""
    facts: list[dict[str, Any]] = json.loads(
        json.dumps([{"name": variant.name, "settings": variant.settings.changed()} for variant in variants])
    )
    return facts
