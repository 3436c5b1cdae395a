"""own_file.py: what may be written over, and what is told else."""

from pathlib import Path

import pytest

from longvu_cli.errors import UsageError
from longvu_cli.reporting.own_file import require_own_file, unwritable


def require(target: Path) -> None:
    require_own_file(target, "the list", kind="list", is_own=lambda beginning: beginning.startswith(b"# list"))


def test_a_free_name_and_a_file_of_its_kind_may_be_written(tmp_path: Path) -> None:
    require(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("# list\none")
    require(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("name", "said", "hint"),
    [
        ("no/list.txt", "the list cannot be written: there is no such folder", "make the folder first"),
        ("mine.txt", "the list is there already, and no list", "name another file, or remove it"),
        ("folder", "the list cannot be written: Is a directory", "name another file"),
    ],
)
def test_anything_else_is_told(tmp_path: Path, name: str, said: str, hint: str) -> None:
    (tmp_path / "mine.txt").write_text("a poem, # list")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError) as told:
        require(tmp_path / name)
    assert (told.value.message, told.value.hint) == (said, hint)


def test_an_error_without_words_of_its_own_is_told_as_it_is() -> None:
    assert unwritable("the list", OSError("full")).message == "the list cannot be written: full"
