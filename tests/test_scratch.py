"""scratch.py: temporary files, and what is said where there is no room for them."""

from __future__ import annotations

import io
import resource
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from longvu_cli.errors import NoScratchSpace
from longvu_cli.scratch import scratch_file, write_all


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 10 bytes."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, most))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("small_files")
def test_what_finds_no_room_is_told_also_when_a_part_of_it_did() -> None:
    with scratch_file() as file:
        write_all(file, memoryview(b"12345"))
        with pytest.raises(NoScratchSpace, match="too large"):
            write_all(file, memoryview(b"6789012345"))
        assert file.tell() == 10


def test_a_write_that_takes_a_part_is_gone_on_with() -> None:
    class Sluggish(io.BytesIO):
        def write(self, data: object) -> int:
            return super().write(bytes(memoryview(data))[:3])  # type: ignore[arg-type]

    file = Sluggish()
    write_all(file, memoryview(b"12345678"))
    assert file.getvalue() == b"12345678"


def test_no_folder_for_them_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(NoScratchSpace, match="No such file") as error:
        scratch_file()
    assert "TMPDIR" in error.value.hint
