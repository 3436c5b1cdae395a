"""published_ablations.py: as many rows as the tables have, in their order, and numbers that agree with each other."""

from __future__ import annotations

import pytest

from longvu_cli.evaluation.ablation import TABLES, TableName
from longvu_cli.evaluation.mlvu import _TASKS
from longvu_cli.evaluation.published import PUBLISHED
from longvu_cli.evaluation.published_ablations import published_rows

BENCHMARKS = ("egoschema", "mvbench", "videomme", "mlvu", "jsonl")
KNOWN = [(name, benchmark) for name in TableName for benchmark in BENCHMARKS if published_rows(name, benchmark)]


def test_the_paper_has_these_tables_for_these_benchmarks() -> None:
    assert {(name.value, benchmark) for name, benchmark in KNOWN} == {
        *(("table3", "egoschema"), ("table3", "videomme"), ("table3", "mlvu"), ("table4", "mlvu")),
        *(("table5", "videomme"), ("table8", "egoschema"), ("table8", "videomme"), ("table8", "mlvu")),
        ("table9", "mlvu"),
    }


@pytest.mark.parametrize(("name", "benchmark"), KNOWN)
def test_each_row_has_its_numbers_and_the_default_those_of_the_main_tables(name: TableName, benchmark: str) -> None:
    rows, table = published_rows(name, benchmark), TABLES[name]
    assert len(rows) == len(table.rows)
    (default,) = (own for own, row in zip(rows, table.rows, strict=True) if row.default)
    main = [one for one in PUBLISHED if (one.model, one.benchmark) == ("7b", benchmark)]
    assert round(default.percent, 1) in [one.percent for one in main if one.group is None]
    of_groups = {one.group: one.percent for one in main if one.group in default.columns}
    assert of_groups == default.columns


@pytest.mark.parametrize("name", [TableName.TABLE4, TableName.TABLE9])
def test_the_papers_average_is_over_its_tasks(name: TableName) -> None:
    for own in published_rows(name, "mlvu"):
        assert set(own.columns) == {task for _, task in _TASKS}
        # Not all averages of the paper are exact: that of DINO is 62.54, the mean of its numbers 62.27.
        assert own.percent == pytest.approx(sum(own.columns.values()) / 7, abs=0.4)
