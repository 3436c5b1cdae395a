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
from longvu_cli.evaluation.proportions import Interval, PairedDifference, paired_difference, wilson


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
class Reduction:
    """What the compression made of a video for a question; sums over its indices and masks.

    Attributes:
        sampled, kept: frames.
        dense: tokens of all sampled frames at full resolution.
        before: tokens of the kept frames, before spatial token compression.
        after: tokens that the language model read.
        cut: of those that went last, those that went for lack of room only.
    """

    sampled: int
    kept: int
    dense: int
    before: int
    after: int
    cut: int


@dataclass(frozen=True)
class Tried:
    """A question that was asked in one way.

    Attributes:
        kind: of question.
        seconds: of the video.
        reduction: None: there was an error, which counts as wrong.
    """

    compression: CompressionOptions
    kind: str
    seconds: int
    right: bool
    reduction: Reduction | None


@dataclass(frozen=True)
class Score:
    """Right answers, and by how much frames and tokens were reduced for them.

    Attributes:
        errors: questions without an answer.
        kept: share of the sampled frames that were kept (paper, Figure 4a).
        reduced: share of their tokens that went before the language model read them (paper, Figure 4b, Table 5).
        before, read: tokens of the kept frames, and those that it read, for each question.
        cut: of those that went, how many for lack of room only, for each question.
    """

    right: int
    questions: int
    errors: int
    kept: float
    reduced: float
    before: float
    read: float
    cut: float

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.questions

    @property
    def interval(self) -> Interval:
        """What the share may be with more questions: 95 %, by Wilson."""
        return wilson(self.right, self.questions)


@dataclass(frozen=True)
class RowScores:
    """What came of a row.

    Attributes:
        parts: a score per column of the table, by its name; none of a column without questions.
        behind: by how much the table's default row is better on the same questions.
    """

    row: AblationRow
    compression: CompressionOptions
    whole: Score
    parts: dict[str, Score]
    behind: PairedDifference


def scored(
    table: AblationTable, tried: Sequence[Tried], compression: CompressionOptions, context_length: int
) -> tuple[RowScores, ...]:
    """The rows of a table.

    Args:
        tried: the same questions in the way of every row, and in the same order.
    """
    settings = {row: row.applied(compression, context_length) for row in table.rows}
    of_row = {row: [one for one in tried if one.compression == options] for row, options in settings.items()}
    (default,) = (own for row, own in of_row.items() if row.default)
    made = []
    for row, own in of_row.items():
        names = dict.fromkeys(_column(one, table.columns) for one in own if table.columns is not Columns.NOTHING)
        parts = {name: score([one for one in own if _column(one, table.columns) == name]) for name in names}
        pairs = [(best.right, one.right) for best, one in zip(default, own, strict=True)]
        made.append(RowScores(row, settings[row], score(own), parts, paired_difference(pairs)))
    return tuple(made)


def _column(one: Tried, columns: Columns) -> str:
    return one.kind if columns is Columns.KIND else f"{one.seconds} s"


def score(tried: Sequence[Tried]) -> Score:
    """Sum up questions, of which there has to be one."""
    sizes = [one.reduction for one in tried if one.reduction is not None]
    before, after = sum(size.before for size in sizes), sum(size.after for size in sizes)
    return Score(
        right=sum(one.right for one in tried),
        questions=len(tried),
        errors=len(tried) - len(sizes),
        kept=_share(sum(size.kept for size in sizes), sum(size.sampled for size in sizes)),
        reduced=_share(before - after, before),
        before=_share(before, len(sizes)),
        read=_share(after, len(sizes)),
        cut=_share(sum(size.cut for size in sizes), len(sizes)),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def ways(
    tables: Iterable[TableName], compression: CompressionOptions, context_length: int
) -> tuple[CompressionOptions, ...]:
    """The settings of all rows of the tables, each once."""
    rows = (row for name in tables for row in TABLES[name].rows)
    return tuple(dict.fromkeys(row.applied(compression, context_length) for row in rows))
