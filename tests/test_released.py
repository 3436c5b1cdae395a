from dataclasses import fields
from pathlib import Path

import pytest

from longvu_cli.config import ModelConfig
from longvu_cli.released import RELEASED_CONFIGS
from longvu_cli.weights import VARIANTS

CONFIGS = Path(__file__).parent / "data" / "configs"


@pytest.mark.parametrize("name", ["7b", "3b", "1b"])
def test_the_values_are_those_of_the_released_files(name: str) -> None:
    read, known = ModelConfig.from_file(CONFIGS / f"{name}.json"), RELEASED_CONFIGS[name]
    for field in fields(ModelConfig):
        if field.name not in ("language_model", "end_of_turn_ids"):
            assert getattr(known, field.name) == getattr(read, field.name), field.name
    for key, value in known.language_model.items():
        assert read.language_model[key] == value


def test_every_video_model_is_known() -> None:
    assert set(RELEASED_CONFIGS) == {name for name in VARIANTS if not name.endswith("-image")}
