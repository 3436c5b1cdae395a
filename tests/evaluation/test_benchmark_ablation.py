"""benchmark_ablation.py: a variant for each way, by a name that stays."""

from __future__ import annotations

from dataclasses import replace

from longvu_cli.config import CompressionOptions, GenerationOptions, SamplingOptions
from longvu_cli.evaluation.ablation import TableName
from longvu_cli.evaluation.benchmark import Group
from longvu_cli.evaluation.benchmark_ablation import Ablation, kind_of, length_of
from longvu_cli.manifest import Settings

SETTINGS = Settings(SamplingOptions(fps=0.5), CompressionOptions(stc_threshold=0.65), GenerationOptions())
ALL = Ablation(tuple(TableName), SETTINGS, 1000)


def test_each_way_is_a_variant_with_the_settings_of_the_benchmark() -> None:
    variants = ALL.variants
    assert len(variants) == 8 + 2 + 4
    assert len({variant.name for variant in variants}) == len({variant.settings for variant in variants}) == 14
    assert [variant.name for variant in variants[:4]] == [
        "Uniform, 16k, full",
        "DINO, 16k, full",
        "Uniform, 8k, low",
        "Uniform, 8k, full",
    ]
    for variant in variants:
        assert (variant.settings.sampling, variant.settings.generation) == (SETTINGS.sampling, SETTINGS.generation)
        assert variant.settings.compression.stc_threshold == 0.65
        assert variant.settings.compression.context_length == (2000 if "16k" in variant.name else 1000)


def test_a_way_has_the_same_name_whichever_tables_are_asked_for() -> None:
    names = {variant.settings: variant.name for variant in ALL.variants}
    for name in TableName:
        alone = replace(ALL, tables=(name,))
        assert {variant.settings: variant.name for variant in alone.variants}.items() <= names.items()
        assert alone.noted == ALL.noted


def test_the_context_is_noted_wherever_it_came_from() -> None:
    asked = replace(SETTINGS, compression=replace(SETTINGS.compression, context_length=1000))
    assert replace(ALL, settings=asked).noted == ALL.noted
    assert replace(ALL, context_length=900).noted != ALL.noted


def test_tasks_and_durations_are_columns() -> None:
    groups = (Group("set", "subset"), Group("duration", "short"), Group("task", "count"))
    assert (kind_of(groups), length_of(groups)) == ("count", "short")
    assert (kind_of(groups[:1]), length_of(groups[:1])) == (None, None)
