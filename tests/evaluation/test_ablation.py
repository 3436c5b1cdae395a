"""ablation.py: the rows say what the paper's tables say, and the sums are sums."""

from __future__ import annotations

import pytest

from longvu_cli.config import Anchor, CompressionOptions, FrameResolution, RecipeName, TemporalReduction
from longvu_cli.errors import UsageError
from longvu_cli.evaluation.ablation import (
    TABLES,
    Columns,
    TableName,
    Tried,
    require_free,
    score,
    scored,
    ways,
)
from longvu_cli.evaluation.reduction import Reduction

BASE = CompressionOptions(recipe=RecipeName.PAPER, stc_threshold=0.95)


def applied(name: TableName) -> list[CompressionOptions]:
    return [row.applied(BASE, 1000) for row in TABLES[name].rows]


def test_table_3_has_the_papers_rows() -> None:
    table = TABLES[TableName.TABLE3]
    # Paper, Table 3: methods, context length, #tokens (144 is full, 64 is low).
    assert [(row.name, row.contexts, row.tokens) for row in table.rows] == [
        ("Uniform", 2, "full"),
        ("DINO", 2, "full"),
        ("Uniform", 1, "low"),
        ("Uniform", 1, "full"),
        ("SigLIP", 1, "low"),
        ("DINO", 1, "low"),
        ("DINO + Query", 1, "low/full"),
        ("DINO + Query + STC (default)", 1, "dynamic"),
    ]
    made = applied(TableName.TABLE3)
    assert [one.context_length for one in made] == [2000, 2000, *[1000] * 6]
    assert [one.temporal_reduction.value for one in made] == [
        *("uniform", "dinov2", "uniform", "uniform", "siglip"),
        *["dinov2"] * 3,
    ]
    assert [one.resolution.value for one in made] == ["full", "full", "low", "full", "low", "low", "auto", "auto"]
    assert [one.spatial_compression for one in made] == [False] * 7 + [True]


def test_what_a_row_does_not_say_is_the_callers() -> None:
    for name in TableName:
        for made in applied(name):
            assert (made.recipe, made.stc_threshold) == (RecipeName.PAPER, 0.95)


def test_the_default_row_is_what_is_done_without_any_flag() -> None:
    default = TABLES[TableName.TABLE3].rows[-1].applied(CompressionOptions(), 8192)
    assert default == CompressionOptions(context_length=8192)


def test_table_4_is_the_end_of_table_3_by_kind_of_question() -> None:
    assert applied(TableName.TABLE4) == applied(TableName.TABLE3)[-3:]
    assert TABLES[TableName.TABLE4].columns is Columns.KIND


def test_table_5_changes_the_anchor_only() -> None:
    made = applied(TableName.TABLE5)
    assert [one.anchor for one in made] == [Anchor.FIRST, Anchor.MIDDLE, Anchor.CHANGE]
    assert made[0] == applied(TableName.TABLE3)[-1]
    assert TABLES[TableName.TABLE5].columns is Columns.LENGTH


def test_tables_8_and_9_say_in_every_row_whether_there_is_frame_position_encoding() -> None:
    assert [one.frame_position_encoding for one in applied(TableName.TABLE8)] == [False, False, True]
    assert [one.frame_position_encoding for one in applied(TableName.TABLE9)] == [False, False, False, True]
    assert applied(TableName.TABLE9)[1:] == applied(TableName.TABLE8)


def test_rows_that_are_in_several_tables_are_tried_once() -> None:
    made = ways(tuple(TableName), BASE, 1000)
    assert len(made) == len(set(made)) == 8 + 2 + 4
    assert ways((TableName.TABLE4,), BASE, 1000) == tuple(applied(TableName.TABLE4))


@pytest.mark.parametrize(
    ("compression", "told"),
    [
        (CompressionOptions(temporal_reduction=TemporalReduction.NONE), "temporal reduction"),
        (CompressionOptions(resolution=FrameResolution.LOW), "resolution"),
        (CompressionOptions(query_guided=False), "query guided"),
        (CompressionOptions(spatial_compression=False), "spatial compression"),
        (CompressionOptions(anchor=Anchor.MIDDLE), "anchor"),
        (CompressionOptions(frame_position_encoding=False), "frame position encoding"),
    ],
)
def test_an_option_that_the_rows_would_overrule_is_refused(compression: CompressionOptions, told: str) -> None:
    with pytest.raises(UsageError, match=f"--ablate itself decides on {told}"):
        require_free(compression)
    require_free(BASE)


HALF = Reduction(sampled=100, kept=50, before=600, after=300, cut=20)
ALL = Reduction(sampled=300, kept=100, before=1400, after=1200, cut=0)


def tried(right: bool, reduction: Reduction | None, *, kind: str = "colour") -> Tried:
    return Tried(BASE, kind, "60 s", right, reduction)


def test_reduction_rates_are_of_sums() -> None:
    made = score([tried(True, HALF), tried(False, ALL)])
    assert (made.right, made.questions, made.errors) == (1, 2, 0)
    assert made.kept == 150 / 400
    assert made.reduced == pytest.approx(500 / 2000)
    assert (made.before, made.read, made.cut) == (1000, 750, 10)
    assert (made.accuracy, made.interval.low < 0.5 < made.interval.high) == (0.5, True)


def test_an_error_is_wrong_and_reduces_nothing() -> None:
    made = score([tried(True, HALF), tried(False, None)])
    assert (made.right, made.questions, made.errors, made.kept, made.read) == (1, 2, 1, 0.5, 300)
    assert score([tried(False, None)]).reduced == 0


def test_rows_are_told_apart_by_their_settings_and_columns_by_theirs() -> None:
    first, middle, change = applied(TableName.TABLE5)
    lengths = ("60 s", "60 s", "600 s")
    answers = [
        *(Tried(first, "colour", length, length == "60 s", HALF) for length in lengths),
        *(Tried(middle, "colour", length, False, ALL) for length in lengths),
        *(Tried(change, "count", length, True, HALF) for length in lengths),
    ]
    rows = scored(TABLES[TableName.TABLE5], answers, BASE, 1000)
    assert [(one.whole.right, one.whole.questions) for one in rows] == [(2, 3), (0, 3), (3, 3)]
    assert {name: own.accuracy for name, own in rows[0].parts.items()} == {"60 s": 1.0, "600 s": 0.0}
    # The first frame is the default: ahead of the middle one on two questions of three, behind the third on one.
    assert [one.behind.difference for one in rows] == [0, pytest.approx(2 / 3), pytest.approx(-1 / 3)]
    assert [one.behind.pairs for one in rows] == [3, 3, 3]
    everything = [Tried(way, "count", "60 s", True, ALL) for way in applied(TableName.TABLE3)]
    assert [one.parts for one in scored(TABLES[TableName.TABLE3], everything, BASE, 1000)] == [{}] * 8


def test_each_kind_can_count_the_same() -> None:
    table = TABLES[TableName.TABLE4]
    dino, query, default = applied(TableName.TABLE4)
    kinds = ("count", "count", "count", "needle", "needle")
    says = {dino: (1, 0, 0, 0, 0), query: (1, 1, 0, 0, 1), default: (1, 1, 1, 1, 0)}
    answers = [
        Tried(way, kind, None, bool(right), HALF)
        for way, rights in says.items()
        for kind, right in zip(kinds, rights, strict=True)
    ]
    rows = scored(table, answers, BASE, 1000, averaged=True)
    assert [one.whole.accuracy for one in rows] == pytest.approx([1 / 6, 7 / 12, 3 / 4])
    assert [one.whole.right for one in rows] == [1, 3, 4]
    assert [list(one.parts) for one in rows] == [["count", "needle"]] * 3
    # To the query: of count 0, 0, 1; of needle 1, -1, whose mean is 0 with the error 1.
    assert rows[1].behind.difference == pytest.approx((1 / 3 + 0) / 2)
    assert rows[1].behind.standard_error == pytest.approx(((1 / 3) ** 2 + 1) ** 0.5 / 2)
    assert (rows[2].behind.difference, rows[2].behind.standard_error) == (0, 0)
    plain = scored(table, answers, BASE, 1000)
    assert [one.whole.accuracy for one in plain] == [1 / 5, 3 / 5, 4 / 5]


def test_questions_without_a_name_for_their_kind_or_length_have_no_column() -> None:
    for name in (TableName.TABLE4, TableName.TABLE5):
        answers = [Tried(way, None, None, True, ALL) for way in applied(name)]
        assert [one.parts for one in scored(TABLES[name], answers, BASE, 1000)] == [{}] * 3


def test_every_table_has_one_default() -> None:
    for table in TABLES.values():
        assert [row.name for row in table.rows if row.default] == [
            row.name for row in table.rows if row.name.endswith("(default)")
        ]
        assert sum(row.default for row in table.rows) == 1
