import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from longvu_cli.errors import UsageError
from longvu_cli.result_file import ResultFile

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def record(key: str, **more: object) -> dict[str, object]:
    return {"schema_version": 1, "key": key, **more}


def keys(path: Path) -> list[str]:
    assert path.read_bytes().endswith(b"\n")
    return [json.loads(line)["key"] for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def in_another_process(path: Path, code: str) -> str:
    """Run code with ``results`` open in a process of its own; what it prints."""
    script = (
        "from pathlib import Path\nfrom longvu_cli.result_file import ResultFile\n"
        f"A, B, C = {A!r}, {B!r}, {C!r}\n"
        f"with ResultFile(Path({str(path)!r})) as results:\n    {code}"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def test_lines_are_added_and_found_again(path: Path) -> None:
    with ResultFile(path) as results:
        results.append(record(A))
        results.append(record(B, error={}, place="p"))
    with ResultFile(path) as results:
        assert [(entry.key, entry.failed, entry.place) for entry in results.entries.values()] == [
            (A, False, None),
            (B, True, "p"),
        ]
    assert keys(path) == [A, B]
    assert os.listdir(path.parent) == ["out.jsonl"]


def test_a_key_has_one_line(path: Path) -> None:
    with ResultFile(path) as results:
        results.append(record(A, n=1))
        results.append(record(A, n=2))
    assert keys(path) == [A]


def test_nothing_is_made_before_the_first_line(path: Path) -> None:
    with ResultFile(path):
        assert not path.exists()
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("torn", ["{", '{"schema_version": 1, "key": "cc', json.dumps(record(C))])
def test_a_torn_line_is_cut_off(path: Path, torn: str) -> None:
    path.write_text(json.dumps(record(A)) + "\n" + torn)
    with ResultFile(path) as results:
        assert set(results.entries) == {A}
        results.append(record(B))
    assert keys(path) == [A, B]


def test_a_line_torn_by_another_process_meanwhile_is_cut_off(path: Path) -> None:
    with ResultFile(path) as results:
        results.append(record(A))
        with path.open("a") as other:
            other.write(json.dumps(record(C))[:30])
        results.append(record(B))
    assert keys(path) == [A, B]


@pytest.mark.parametrize("content", ["notes", "notes\n", "{}\n", '{"key": "short"}\n', "[1]\n", "\n", "\0" * 99])
def test_what_is_no_result_is_left_alone(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(UsageError, match="holds something else"):
        ResultFile(path)
    assert path.read_text() == content
    assert os.listdir(path.parent) == ["out.jsonl"]


def test_places_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no regular file"):
        ResultFile(tmp_path)
    with pytest.raises(UsageError, match="No such file or directory"):
        ResultFile(tmp_path / "missing" / "out.jsonl")
    assert os.listdir(tmp_path) == []


def test_lines_are_dropped_at_once(path: Path) -> None:
    with ResultFile(path) as results:
        for key in (A, B, C):
            results.append(record(key))
        path.chmod(0o640)
        assert results.drop(lambda entry: entry.key == B) == 1
        assert set(results.entries) == {A, C}
        results.append(record(B))
    assert keys(path) == [A, C, B]
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(path.parent) == ["out.jsonl"]


def test_what_a_killed_process_was_rewriting_is_removed(path: Path) -> None:
    path.with_name("out.jsonl.rewriting").write_text("half")
    with ResultFile(path) as results:
        assert results.drop(lambda entry: False) == 0
    assert os.listdir(path.parent) == []


def test_a_line_behind_a_link_is_written_to_its_target(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    with ResultFile(link) as results:
        results.append(record(A))
        results.append(record(B))
        results.drop(lambda entry: entry.key == A)
    assert link.is_symlink()
    assert keys(path) == [B]


def test_a_claim_holds_against_other_processes_until_it_is_released(path: Path) -> None:
    with ResultFile(path) as results:
        assert results.claim(A)
        assert in_another_process(path, "print(results.claim(A), results.claim(B))") == "False True"
        results.release(A)
        assert in_another_process(path, "print(results.claim(A))") == "True"


def test_what_another_process_wrote_is_seen_with_the_claim(path: Path) -> None:
    with ResultFile(path) as results:
        results.append(record(A))
        in_another_process(path, "results.append({'schema_version': 1, 'key': B})")
        assert set(results.entries) == {A}
        assert results.claim(C)
        assert set(results.entries) == {A, B}


def test_what_another_process_dropped_is_gone(path: Path) -> None:
    with ResultFile(path) as results:
        results.append(record(A))
        results.append(record(B))
        in_another_process(path, "results.drop(lambda entry: entry.key == A)")
        results.append(record(C))
        assert set(results.entries) == {B, C}
    assert keys(path) == [B, C]


def test_the_locks_stay_as_long_as_anyone_has_the_file_open(path: Path) -> None:
    lock = path.with_name("out.jsonl.lock")
    with ResultFile(path):
        in_another_process(path, "pass")
        assert lock.exists()
    assert not lock.exists()


def test_a_killed_process_keeps_no_claim(path: Path) -> None:
    in_another_process(path, "results.claim(A); import os; os._exit(0)")
    assert path.with_name("out.jsonl.lock").exists()
    with ResultFile(path) as results:
        assert results.claim(A)
    assert os.listdir(path.parent) == []


def test_a_file_of_someone_else_in_the_place_of_the_locks_stays(path: Path) -> None:
    lock = path.with_name("out.jsonl.lock")
    lock.write_text("my own")
    with ResultFile(path) as results:
        results.append(record(A))
    assert lock.read_text() == "my own"


def test_a_full_disk_leaves_no_half_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with ResultFile(path) as results:
        results.append(record(A))
        monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:10]))
        with pytest.raises(OSError, match="No space left"):
            results.append(record(B))
    assert keys(path) == [A]
