"""The paper's ablations: the rows of its Tables 3, 4, 5, 8 and 9 as settings, and what came of each row.

A row says what it changes; all else (recipe, thresholds, orientation) is the caller's. "8k" is the context that is
asked for, or else the model's own, and "16k" twice that. Rows without spatial token compression cut what does not fit
from the end, as a sequence that is too long is cut; evenly spaced frames are as many as fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum

from longvu_cli.config import Anchor, CompressionOptions, FrameResolution, TemporalReduction
from longvu_cli.errors import UsageError
from longvu_cli.evaluation.proportions import (
    Interval,
    PairedDifference,
    mean_of_differences,
    mean_of_shares,
    paired_difference,
    wilson,
)
from longvu_cli.evaluation.reduction import Reduction
from longvu_cli.records import Record


class TableName(StrEnum):
    """A table of the paper; ``table9`` is the last part of its appendix B."""

    TABLE3 = "table3"
    TABLE4 = "table4"
    TABLE5 = "table5"
    TABLE8 = "table8"
    TABLE9 = "table9"


class Columns(StrEnum):
    """What a table tells apart besides its rows."""

    NOTHING = "nothing"
    KIND = "kind"
    LENGTH = "length"


@dataclass(frozen=True)
class AblationRow:
    """A way to compress.

    Attributes:
        name: as in the paper.
        contexts: of the context that counts as 8k.
        spatial_compression: STC.
        frame_position_encoding: None: what the model was trained with.
        default: whether it is the one that the others of its table are compared with.
    """

    name: str
    contexts: int = 1
    temporal_reduction: TemporalReduction = TemporalReduction.DINOV2
    resolution: FrameResolution = FrameResolution.AUTO
    spatial_compression: bool = False
    anchor: Anchor = Anchor.FIRST
    frame_position_encoding: bool | None = None
    default: bool = False

    @property
    def tokens(self) -> str:
        """Tokens per frame: 144 in the paper are ``full``, 64 are ``low``."""
        if self.resolution is not FrameResolution.AUTO:
            return self.resolution.value
        return "dynamic" if self.spatial_compression else "low/full"

    def applied(self, compression: CompressionOptions, context_length: int) -> CompressionOptions:
        """The caller's settings with what this row changes.

        Args:
            context_length: that counts as 8k.
        """
        return replace(
            compression,
            context_length=self.contexts * context_length,
            temporal_reduction=self.temporal_reduction,
            resolution=self.resolution,
            query_guided=True,
            spatial_compression=self.spatial_compression,
            anchor=self.anchor,
            frame_position_encoding=self.frame_position_encoding,
        )


@dataclass(frozen=True)
class AblationTable:
    """A table of the paper."""

    name: TableName
    title: str
    rows: tuple[AblationRow, ...]
    columns: Columns


_DINO = AblationRow("DINO", resolution=FrameResolution.LOW)
_QUERY = AblationRow("DINO + Query")
_STC = AblationRow("DINO + Query + STC (default)", spatial_compression=True, default=True)
# Whether the model was trained with the encoding or not, the rows of Tables 8 and 9 differ by it.
_WITHOUT_FPE = tuple(replace(row, frame_position_encoding=False) for row in (_DINO, _QUERY, _STC))
_FPE = replace(_STC, name="DINO + Query + STC + FPE", frame_position_encoding=True, default=False)
_ANCHORS = (
    ("1st frame in sliding window (default)", Anchor.FIRST),
    ("(K/2)th frame in sliding window", Anchor.MIDDLE),
    ("frame with high changes", Anchor.CHANGE),
)

TABLES = {
    table.name: table
    for table in (
        AblationTable(
            TableName.TABLE3,
            "Tokens per frame, context lengths, and the steps of the compression (paper, Table 3)",
            (
                AblationRow("Uniform", 2, TemporalReduction.UNIFORM, FrameResolution.FULL),
                AblationRow("DINO", 2, resolution=FrameResolution.FULL),
                AblationRow("Uniform", 1, TemporalReduction.UNIFORM, FrameResolution.LOW),
                AblationRow("Uniform", 1, TemporalReduction.UNIFORM, FrameResolution.FULL),
                AblationRow("SigLIP", 1, TemporalReduction.SIGLIP, FrameResolution.LOW),
                _DINO,
                _QUERY,
                _STC,
            ),
            Columns.NOTHING,
        ),
        AblationTable(TableName.TABLE4, "Each kind of question (paper, Table 4)", (_DINO, _QUERY, _STC), Columns.KIND),
        AblationTable(
            TableName.TABLE5,
            "Anchors of spatial token compression (paper, Table 5)",
            tuple(replace(_STC, name=name, anchor=anchor, default=anchor is Anchor.FIRST) for name, anchor in _ANCHORS),
            Columns.LENGTH,
        ),
        AblationTable(
            TableName.TABLE8,
            "With and without frame position encoding (paper, Table 8)",
            (*_WITHOUT_FPE[1:], _FPE),
            Columns.NOTHING,
        ),
        AblationTable(
            TableName.TABLE9,
            "The same for each kind of question (paper, Table 9)",
            (*_WITHOUT_FPE, _FPE),
            Columns.KIND,
        ),
    )
}

# What rows set themselves.
_OWN = (
    "temporal_reduction",
    "resolution",
    "query_guided",
    "spatial_compression",
    "anchor",
    "frame_position_encoding",
)


def require_free(compression: CompressionOptions) -> None:
    """Refuse settings that the rows of the tables would overrule.

    Raises:
        UsageError: there is one.
    """
    usual = {field.name: field.default for field in fields(CompressionOptions)}
    taken = [name for name in _OWN if asdict(compression)[name] != usual[name]]
    if taken:
        raise UsageError(
            f"--ablate itself decides on {taken[0].replace('_', ' ')}, row by row", hint="leave that option out"
        )


@dataclass(frozen=True)
class Tried:
    """A question that was asked in one way.

    Attributes:
        kind: of question, and length: of the video; None: it has no name for it.
        reduction: None: there was an error, which counts as wrong.
    """

    compression: CompressionOptions
    kind: str | None
    length: str | None
    right: bool
    reduction: Reduction | None


@dataclass(frozen=True)
class Score:
    """Right answers, and by how much frames and tokens were reduced for them.

    Attributes:
        errors: questions without an answer.
        accuracy: share of right answers, or the mean of these shares over the kinds of question.
        interval: what it may be with more questions: 95 %.
        kept: share of the sampled frames that were kept (paper, Figure 4a).
        reduced: share of their tokens that went before the language model read them (paper, Figure 4b, Table 5).
        before, read: tokens of the kept frames, and those that it read, for each question.
        cut: of those that went, how many for lack of room only, for each question.
    """

    right: int
    questions: int
    errors: int
    accuracy: float
    interval: Interval
    kept: float
    reduced: float
    before: float
    read: float
    cut: float


@dataclass(frozen=True)
class RowScores:
    """What came of a row.

    Attributes:
        parts: a score per column of the table, by its name; none of a column without questions.
        behind: by how much the table's default row is better on the same questions; where the accuracy is a mean over
            kinds of question, so is this.
    """

    row: AblationRow
    compression: CompressionOptions
    whole: Score
    parts: dict[str, Score]
    behind: PairedDifference


def scored(
    table: AblationTable,
    tried: Sequence[Tried],
    compression: CompressionOptions,
    context_length: int,
    *,
    averaged: bool = False,
) -> tuple[RowScores, ...]:
    """The rows of a table.

    Args:
        tried: the same questions in the way of every row, and in the same order.
        averaged: each kind of question counts the same.
    """
    settings = {row: row.applied(compression, context_length) for row in table.rows}
    of_row = {row: [one for one in tried if one.compression == options] for row, options in settings.items()}
    (default,) = (own for row, own in of_row.items() if row.default)
    made = []
    for row, own in of_row.items():
        names = dict.fromkeys(name for one in own if (name := _column(one, table.columns)) is not None)
        parts = {name: score([one for one in own if _column(one, table.columns) == name]) for name in names}
        behind = _behind(default, own, averaged=averaged)
        made.append(RowScores(row, settings[row], score(own, averaged=averaged), parts, behind))
    return tuple(made)


def _column(one: Tried, columns: Columns) -> str | None:
    match columns:
        case Columns.NOTHING:
            return None
        case Columns.KIND:
            return one.kind
        case Columns.LENGTH:
            return one.length


def _behind(default: Sequence[Tried], own: Sequence[Tried], *, averaged: bool) -> PairedDifference:
    pairs: dict[str | None, list[tuple[bool, bool]]] = {}
    for best, one in zip(default, own, strict=True):
        pairs.setdefault(one.kind if averaged else None, []).append((best.right, one.right))
    return mean_of_differences([paired_difference(of_kind) for of_kind in pairs.values()])


def score(tried: Sequence[Tried], *, averaged: bool = False) -> Score:
    """Sum up questions, of which there has to be one.

    Args:
        averaged: each kind of question counts the same.
    """
    sizes = [one.reduction for one in tried if one.reduction is not None]
    before, after = sum(size.before for size in sizes), sum(size.after for size in sizes)
    right = sum(one.right for one in tried)
    accuracy, interval = _mean_over_kinds(tried) if averaged else (right / len(tried), wilson(right, len(tried)))
    return Score(
        right=right,
        questions=len(tried),
        errors=len(tried) - len(sizes),
        accuracy=accuracy,
        interval=interval,
        kept=_share(sum(size.kept for size in sizes), sum(size.sampled for size in sizes)),
        reduced=_share(before - after, before),
        before=_share(before, len(sizes)),
        read=_share(after, len(sizes)),
        cut=_share(sum(size.cut for size in sizes), len(sizes)),
    )


def _mean_over_kinds(tried: Sequence[Tried]) -> tuple[float, Interval]:
    of_kind: dict[str | None, list[bool]] = {}
    for one in tried:
        of_kind.setdefault(one.kind, []).append(one.right)
    return mean_of_shares([(sum(right), len(right)) for right in of_kind.values()])


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def ways(
    tables: Iterable[TableName], compression: CompressionOptions, context_length: int
) -> tuple[CompressionOptions, ...]:
    """The settings of all rows of the tables, each once."""
    rows = (row for name in tables for row in TABLES[name].rows)
    return tuple(dict.fromkeys(row.applied(compression, context_length) for row in rows))


# --- JSON -----------------------------------------------------------------------------------------------------------


def row_record(one: RowScores) -> Record:
    """A row as JSON. Fields may be added, never renamed."""
    return {
        "name": one.row.name,
        "compression": asdict(one.compression),
        **score_record(one.whole),
        "behind_default": asdict(one.behind),
        "columns": {column: score_record(own) for column, own in one.parts.items()},
    }


def score_record(own: Score) -> Record:
    """A score as JSON. Fields may be added, never renamed."""
    return {**asdict(own), "interval": [own.interval.low, own.interval.high]}
