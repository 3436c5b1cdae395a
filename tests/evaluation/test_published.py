"""published.py: the numbers, copied once more from the tables of the paper, row by row."""

from __future__ import annotations

import pytest

from longvu_cli.evaluation.published import models_of_paper, published
from longvu_cli.results import ModelInfo

# Columns as they stand in each table; "all" is the benchmark as a whole.
TABLES = [
    # Table 1, LongVU (Ours) 7B
    (1, "7b", "egoschema all | mvbench all | mlvu all | videomme all | videomme long", "67.6 66.9 65.4 60.6 59.5"),
    # Table 2, LongVU (Ours) (Llama3.2-3B)
    (2, "3b", "egoschema all | mvbench all | videomme all | videomme long | mlvu all", "59.1 60.9 51.5 47.2 55.9"),
    # Table 4, DINO+Query+STC (default)
    (
        4,
        "7b",
        "mlvu count | mlvu ego | mlvu needle | mlvu order | mlvu plotQA | mlvu anomaly_reco | mlvu topic_reasoning",
        "28.98 59.37 76.33 58.30 71.61 76.0 87.50",
    ),
    # Table 7, LongVU (Ours); its 59.5 for long videos is that of Table 1.
    (7, "7b", "videomme short | videomme medium | videomme all", "64.7 58.2 60.9"),
]


@pytest.mark.parametrize(("table", "model", "columns", "numbers"), TABLES)
def test_each_table_is_that_of_the_paper(table: int, model: str, columns: str, numbers: str) -> None:
    for column, number in zip(columns.split(" | "), numbers.split(), strict=True):
        benchmark, group = column.split()
        found = published(model, benchmark, None if group == "all" else group)
        assert [one.percent for one in found if one.table == table] == [float(number)], column


def test_a_model_stands_beside_its_own_numbers_and_any_other_beside_all() -> None:
    def named(name: str, source: str) -> tuple[str, ...]:
        return models_of_paper(ModelInfo(name, source, None, "bfloat16", "none", "cuda:0"))

    assert named("7b", "Vision-CAIR/LongVU_Qwen2_7B") == ("7b",)
    assert named("checkpoint", "/data/LongVU_Llama3_2_3B/") == ("3b",)
    assert named("1b", "Vision-CAIR/LongVU_Llama3_2_1B") == ("7b", "3b")
    assert models_of_paper(None) == ("7b", "3b")
