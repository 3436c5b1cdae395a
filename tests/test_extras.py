import sys

import pytest

from longvu_cli.errors import ExtraNotInstalled
from longvu_cli.extras import require_matplotlib


def test_what_is_installed_is_no_matter() -> None:
    pytest.importorskip("matplotlib")
    require_matplotlib("the map", extra="eval")


def test_what_is_missing_is_told_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ExtraNotInstalled) as told:
        require_matplotlib("the map", extra="train")
    assert told.value.message == "the map needs matplotlib, which is not installed"
    assert told.value.hint == "run: pip install 'longvu-cli[train]'"
