"""The paper's ablations on the questions of a benchmark: a variant for each way to compress, and the tables' rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from longvu_cli.config import CompressionOptions
from longvu_cli.evaluation.ablation import TABLES, AblationRow, RowScores, TableName, Tried, scored, ways
from longvu_cli.evaluation.benchmark import Group, Variant
from longvu_cli.manifest import Settings

# The groups of a benchmark's questions that are the columns of tables.
_TASK, _DURATION = "task", "duration"
_NAME = "ablation"


@dataclass(frozen=True)
class Ablation:
    """Which tables, and what their rows change.

    Attributes:
        settings: of the benchmark, with what the user wants otherwise.
        context_length: that counts as 8k.
    """

    tables: tuple[TableName, ...]
    settings: Settings
    context_length: int

    @property
    def noted(self) -> tuple[Variant, ...]:
        """What all rows of all tables share: a folder of answers takes more tables later."""
        return (
            Variant(
                _NAME,
                replace(
                    self.settings, compression=replace(self.settings.compression, context_length=self.context_length)
                ),
            ),
        )

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The ways of all rows, each once. Their names do not depend on which tables are asked for."""
        base = self.settings.compression
        names: dict[CompressionOptions, str] = {}
        for table in TABLES.values():
            for row in table.rows:
                names.setdefault(row.applied(base, self.context_length), _name(row))
        return tuple(
            Variant(names[way], replace(self.settings, compression=way))
            for way in ways(self.tables, base, self.context_length)
        )

    def rows(self, tried: Sequence[Tried], *, averaged: bool) -> Mapping[TableName, tuple[RowScores, ...]]:
        """What came of the rows of each table.

        Args:
            tried: the same questions in the way of every variant, and in the same order.
            averaged: each kind of question counts the same.
        """
        return {
            name: scored(TABLES[name], tried, self.settings.compression, self.context_length, averaged=averaged)
            for name in self.tables
        }


def _name(row: AblationRow) -> str:
    """``Uniform, 16k, full``: the row's own name, and what it does not say."""
    encoding = {None: "", True: "", False: ", without FPE"}[row.frame_position_encoding]
    return f"{row.name.removesuffix(' (default)')}, {8 * row.contexts}k, {row.tokens}{encoding}"


def kind_of(groups: Sequence[Group]) -> str | None:
    """The kind of a question, where the benchmark has one."""
    return _named(groups, _TASK)


def length_of(groups: Sequence[Group]) -> str | None:
    """How long the video of a question is, in the benchmark's own words."""
    return _named(groups, _DURATION)


def _named(groups: Sequence[Group], kind: str) -> str | None:
    return next((group.name for group in groups if group.kind == kind), None)
