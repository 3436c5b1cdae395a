"""whole_file.py: a file appears whole, or what was there stays."""

import os
import stat
from pathlib import Path

import pytest

from longvu_cli.whole_file import ASIDE, whole_file


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "answers.json").write_text("old")
    return tmp_path / "answers.json"


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_takes_the_place_of_an_older_one_when_it_is_whole(target: Path, durable: bool) -> None:
    with whole_file(target, durable=durable) as aside:
        assert (aside.parent, aside.suffix) == (target.parent, ".json")
        assert aside.name.startswith(ASIDE)
        aside.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, SystemExit])
def test_what_was_there_stays_when_something_goes_wrong(target: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), whole_file(target) as aside:
        aside.write_text("ha")
        raise error
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]


def test_those_who_write_at_a_time_do_not_meet(target: Path) -> None:
    with whole_file(target) as one, whole_file(target) as other:
        one.write_text("one")
        other.write_text("other")
    # The block of the first ends last.
    assert target.read_text() == "one"
    assert list(target.parent.iterdir()) == [target]


def test_a_file_that_was_there_aside_already_is_left_alone(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", bytes)
    with whole_file(target) as aside, pytest.raises(FileExistsError), whole_file(target):
        pass
    assert not aside.exists()


@pytest.mark.parametrize(("private", "mode"), [(False, 0o640), (True, 0o600)])
def test_the_umask_says_who_may_read_it_unless_it_is_private(tmp_path: Path, private: bool, mode: int) -> None:
    before = os.umask(0o027)
    try:
        with whole_file(tmp_path / "made", private=private) as aside:
            aside.write_text("something")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == mode


def test_a_long_name_is_no_problem(tmp_path: Path) -> None:
    target = tmp_path / f"{'a' * 251}.csv"
    with whole_file(target) as aside:
        aside.write_text("1,2")
    assert target.read_text() == "1,2"


def test_a_durable_file_is_on_the_disk_before_it_is_there(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda _: happened.append("fsync"))
    monkeypatch.setattr(os, "replace", lambda *paths: (happened.append("replace"), replace(*paths)))
    with whole_file(target, durable=True):
        pass
    with whole_file(target):
        pass
    assert happened == ["fsync", "replace", "replace"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "no" / "file"):
        pass
