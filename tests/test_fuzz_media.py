"""Mutated media: a few hundred of them, the same each time. ``fuzz_media.py`` tries any number."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz_media import MUTATIONS, corpus_of, fuzz, make_corpus, mutated

from longvu_cli import isolation
from longvu_cli.isolation import Server

FILES = 500
CRASHING = """
import os, signal, sys
from longvu_cli import decoding_server, source
def crash(*_):
    os.kill(os.getpid(), signal.SIGSEGV)
source._StreamSource._samples = crash
decoding_server.main(int(sys.argv[1]))
"""


def test_mutated_files_end_as_documented(tmp_path: Path) -> None:
    tally = fuzz(FILES, 0, None, tmp_path / "finds")
    assert tally.wrong == []
    assert sum(tally.ends.values()) == FILES
    # Neither is all of it refused at the door, nor does all of it pass.
    assert tally.ends["read"] > 20 and tally.ends["warned"] > 20 and tally.ends["NotAVideo"] > 20


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path)
    assert len(corpus) == 12
    assert [mutated(seed, corpus) for seed in range(20)] == [mutated(seed, corpus) for seed in range(20)]
    assert len({mutated(seed, corpus)[1] for seed in range(20)}) > 15
    assert corpus_of(tmp_path, tmp_path) == corpus


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_each_mutation_changes_something(mutation: Callable[..., None]) -> None:
    import random

    original = bytes(range(256)) * 8
    changed = []
    for seed in range(10):
        data = bytearray(original)
        mutation(data, random.Random(seed))
        changed.append(bytes(data) != original)
    assert sum(changed) >= 8


def test_a_crash_is_found_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(CRASHING)
    monkeypatch.setattr(isolation, "server", functools.cache(lambda _: server))
    tally = fuzz(20, 0, None, tmp_path)
    assert tally.wrong and all("crashed" in line for line in tally.wrong)
    assert len(list(tmp_path.iterdir())) == len(tally.wrong)
    server.close()
