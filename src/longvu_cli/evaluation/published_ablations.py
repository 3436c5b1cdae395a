"""What the paper has in the rows of its ablations: percent of right answers of its 7b model (Tables 3, 4, 5, 8, 9).

The rows stand in the order of ``ablation.TABLES``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from longvu_cli.evaluation.ablation import TableName

MODEL = "7b"


@dataclass(frozen=True)
class PublishedRow:
    """A row of a table of the paper, for one benchmark.

    Attributes:
        percent: of right answers, of the whole benchmark.
        columns: percent in each column, in the paper's order, by the benchmark's own names.
        reduction: percent of tokens that went.
    """

    percent: float
    columns: Mapping[str, float]
    reduction: float | None = None


def published_rows(table: TableName, benchmark: str) -> tuple[PublishedRow, ...]:
    """The rows of a table; none where the paper does not have it for this benchmark.

    Args:
        benchmark: its name on the command line.
    """
    return _ROWS.get((table, benchmark), ())


def _whole(*percents: float) -> tuple[PublishedRow, ...]:
    return tuple(PublishedRow(percent, {}) for percent in percents)


def _tasks(percent: float, *percents: float) -> PublishedRow:
    return PublishedRow(percent, dict(zip(_MLVU, percents, strict=True)))


def _durations(percent: float, *percents: float, reduction: float) -> PublishedRow:
    return PublishedRow(percent, dict(zip(_VIDEOMME, percents, strict=True)), reduction)


_MLVU = ("count", "ego", "needle", "order", "plotQA", "anomaly_reco", "topic_reasoning")
_VIDEOMME = ("short", "medium", "long")
_TABLE4 = (
    _tasks(62.54, 24.15, 59.09, 68.16, 52.89, 71.24, 74.00, 86.36),
    _tasks(65.05, 28.98, 55.39, 78.87, 56.37, 72.35, 75.50, 87.87),
    _tasks(65.44, 28.98, 59.37, 76.33, 58.30, 71.61, 76.00, 87.50),
)
_ROWS: Mapping[tuple[TableName, str], tuple[PublishedRow, ...]] = {
    (TableName.TABLE3, "egoschema"): _whole(67.12, 67.34, 66.84, 66.28, 66.04, 66.20, 67.30, 67.62),
    (TableName.TABLE3, "videomme"): _whole(60.01, 61.25, 57.56, 58.84, 58.63, 59.90, 60.08, 60.56),
    (TableName.TABLE3, "mlvu"): _whole(64.70, 64.83, 60.87, 63.28, 62.17, 62.54, 65.05, 65.44),
    (TableName.TABLE4, "mlvu"): _TABLE4,
    (TableName.TABLE5, "videomme"): (
        _durations(60.9, 64.7, 58.2, 59.5, reduction=55.47),
        _durations(60.7, 64.7, 58.7, 58.6, reduction=54.97),
        _durations(60.4, 64.7, 58.2, 58.3, reduction=55.62),
    ),
    (TableName.TABLE8, "egoschema"): _whole(67.30, 67.62, 67.87),
    (TableName.TABLE8, "videomme"): _whole(60.08, 60.56, 60.89),
    (TableName.TABLE8, "mlvu"): _whole(65.05, 65.44, 64.56),
    (TableName.TABLE9, "mlvu"): (*_TABLE4, _tasks(64.56, 29.46, 60.79, 74.08, 52.12, 71.79, 74.50, 86.74)),
}
