import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from longvu_cli.config import (
    Anchor,
    CompressionOptions,
    Decoder,
    DecodingOptions,
    FrameResolution,
    GenerationOptions,
    ModelOptions,
    Orientation,
    RecipeName,
    SamplingOptions,
    TemporalReduction,
)
from longvu_cli.encoded_video import EncodedVideo
from longvu_cli.errors import VideoError
from longvu_cli.feature_cache import FeatureCache, cache_key, files_identity
from longvu_cli.feature_folder import FeatureFolder
from longvu_cli.longvu import LongVU
from longvu_cli.results import Answer, CacheUse
from longvu_cli.video import VideoInfo
from longvu_cli.weights import Part

PARITY = Path(__file__).parent / "data" / "parity"

QUESTION = "Where is the cup?"
SHORT = GenerationOptions(max_new_tokens=6)
HIT, MISS, OFF = CacheUse.HIT, CacheUse.MISS, CacheUse.OFF


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Towers this small run several times faster on one thread than on some that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "features")


@pytest.fixture
def model(qwen: LongVU, cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> LongVU:
    """The loaded tiny model, with a cache of the test's own."""
    monkeypatch.setattr(qwen, "_cache", cache)
    return qwen


@pytest.fixture
def video(parity: Path, tmp_path: Path) -> Path:
    """Twelve frames, all kept in a context of 900 tokens, 7 of them at full resolution."""
    return Path(shutil.copy2(parity / "short_window.mkv", tmp_path / "video.mkv"))


def ask(model: LongVU, video: Path, question: str = QUESTION, **settings: Any) -> Answer:
    settings.setdefault("compression", CompressionOptions(context_length=900))
    return model.answer(video, question, generation=SHORT, **settings)


def use(model: LongVU, video: Path, **settings: Any) -> CacheUse:
    return model.compress(video, **settings).cache


def entries(cache: FeatureCache) -> list[Path]:
    return sorted(cache.folder.glob("*")) if cache.folder.is_dir() else []


@pytest.fixture
def blind(model: LongVU, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and whatever decodes a frame or runs a tower or the aggregator fails."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the features should have come from the cache")

    def blindfold() -> None:
        monkeypatch.setattr("longvu_cli.longvu.Video", refuse)
        monkeypatch.setattr("longvu_cli.video.Video.frames", refuse)
        for tower in (model._modules.vision.siglip, model._modules.vision.dinov2):
            monkeypatch.setattr(type(tower), "__call__", refuse)
        monkeypatch.setattr(type(model._modules.vision.connector), "aggregate", refuse)

    return blindfold


def test_the_second_question_decodes_nothing_and_finds_the_same(
    model: LongVU, video: Path, blind: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as context:
        context.setattr(model, "_cache", None)
        without = ask(model, video)
    first = ask(model, video)
    blind()
    second = ask(model, video)
    other = ask(model, video, "Why?")
    uses = [answer.compression.cache for answer in (without, first, second, other)]
    assert uses == [OFF, MISS, HIT, HIT]
    assert without.compression.statistics == first.compression.statistics == second.compression.statistics
    assert without.compression.kept == first.compression.kept == second.compression.kept
    assert without.compression.video == first.compression.video == second.compression.video
    assert without.token_ids == first.token_ids == second.token_ids
    assert without.text == second.text
    timing = second.compression.timing
    assert (timing.decode, timing.dinov2, timing.siglip, timing.connector) == (0, 0, 0, 0)
    relevances = [[frame.relevance for frame in answer.compression.statistics.per_frame] for answer in (second, other)]
    assert relevances[0] != relevances[1]


def test_a_blindfold_would_be_noticed(model: LongVU, video: Path, blind: Callable[[], None]) -> None:
    blind()
    with pytest.raises(AssertionError, match="should have come from the cache"):
        model.compress(video)


def test_the_same_file_in_another_place_is_found(model: LongVU, video: Path, tmp_path: Path) -> None:
    assert use(model, video) is MISS
    copy = Path(shutil.copy2(video, tmp_path / "copy.mkv"))
    result = model.compress(copy)
    assert (result.cache, result.video.path) == (HIT, str(copy))


def test_a_changed_file_is_another(model: LongVU, video: Path) -> None:
    assert use(model, video) is MISS
    status = video.stat()
    content = bytearray(video.read_bytes())
    content[-1] ^= 1
    video.write_bytes(content)
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert use(model, video) is MISS
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
    assert use(model, video) is MISS
    assert use(model, video) is HIT


@pytest.mark.parametrize(
    "settings",
    [
        {"sampling": SamplingOptions(fps=0.5)},
        {"sampling": SamplingOptions(start_s=2)},
        {"sampling": SamplingOptions(end_s=5)},
        {"compression": CompressionOptions(orientation=Orientation.UPRIGHT)},
        {"compression": CompressionOptions(dino_threshold=0.5)},
        {"compression": CompressionOptions(recipe=RecipeName.PAPER)},
        {"compression": CompressionOptions(temporal_reduction=TemporalReduction.SIGLIP)},
    ],
    ids=["fps", "start", "end", "orientation", "threshold", "recipe", "tower"],
)
def test_other_settings_are_other_features(model: LongVU, video: Path, settings: dict[str, Any]) -> None:
    assert use(model, video) is MISS
    assert use(model, video, **settings) is MISS
    assert use(model, video, **settings) is HIT
    assert use(model, video) is HIT


def test_settings_that_do_not_matter_share_their_features(model: LongVU, video: Path) -> None:
    assert use(model, video) is MISS
    for options in (
        CompressionOptions(stc_threshold=0.3),
        CompressionOptions(context_length=900),
        CompressionOptions(anchor=Anchor.MIDDLE),
        CompressionOptions(frame_position_encoding=True),
        CompressionOptions(query_guided=False),
        CompressionOptions(spatial_compression=False),
        CompressionOptions(resolution=FrameResolution.LOW),
    ):
        assert use(model, video, compression=options) is HIT


def test_a_question_that_needs_more_frames_than_were_kept_finds_them(
    model: LongVU, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = (CompressionOptions(context_length=length, dino_threshold=-1.0) for length in (500, 2000))
    narrow = model.compress(video, compression=few)
    assert (narrow.cache, len(narrow.kept) < 12) == (MISS, True)
    wide = model.compress(video, QUESTION, compression=many)
    assert wide.cache is MISS
    with monkeypatch.context() as context:
        context.setattr(model, "_cache", None)
        expected = model.compress(video, QUESTION, compression=many)
    assert wide.statistics == expected.statistics
    again = model.compress(video, compression=few)
    assert (again.cache, again.statistics) == (HIT, narrow.statistics)


def test_evenly_spaced_frames_are_all_there_for_questions_that_leave_another_room(model: LongVU, video: Path) -> None:
    few, many = (
        CompressionOptions(context_length=length, temporal_reduction=TemporalReduction.UNIFORM) for length in (500, 900)
    )
    made = [model.compress(video, compression=options) for options in (few, many, few)]
    assert [one.cache for one in made] == [MISS, HIT, HIT]
    assert len(made[0].kept) < len(made[1].kept)
    assert made[2].statistics == made[0].statistics


def test_other_towers_are_other_features(
    model: LongVU, video: Path, cache: FeatureCache, parity: Path, tmp_path: Path
) -> None:
    assert use(model, video) is MISS
    towers = Path(shutil.copytree(parity / "towers", tmp_path / "towers"))

    def loaded() -> LongVU:
        options = ModelOptions(dinov2=str(towers / "dinov2"), siglip=str(towers / "siglip"), device="cpu")
        return LongVU.from_pretrained(str(parity / "qwen"), options=options, cache=cache)

    # The same files, byte for byte and of the same time: the same towers.
    assert use(loaded(), video) is HIT
    for number, file in enumerate(
        ("siglip/model.safetensors", "dinov2/preprocessor_config.json", "siglip/config.json")
    ):
        os.utime(towers / file, ns=(0, 1_000_000_000 + number))
        assert use(loaded(), video) is MISS, file
        assert use(loaded(), video) is HIT


def test_the_identity_of_files(tmp_path: Path) -> None:
    file, other = tmp_path / "file", tmp_path / "other"
    file.write_text("one")
    first = files_identity([file])
    other.write_text("beside it")
    assert files_identity([file]) == first
    assert files_identity([file, other]) != first
    file.write_text("other")
    assert files_identity([file]) != first


def test_a_file_that_does_not_matter_changes_nothing(tmp_path: Path, video: Path, cache: FeatureCache) -> None:
    folder = tmp_path / "model"
    shutil.copytree(PARITY / "qwen", folder)
    options = ModelOptions(dinov2=str(PARITY / "towers" / "dinov2"), siglip=str(PARITY / "towers" / "siglip"))

    def used() -> CacheUse:
        model = LongVU.from_pretrained(str(folder), part=Part.VISION, options=options, cache=cache)
        return model.compress(video).cache

    assert used() is MISS
    (folder / "README.md").write_text("About this model.")
    assert used() is HIT


@pytest.mark.parametrize("name", ["x" * 300 + ".mp4", "no\0file.mp4"])
def test_a_path_that_cannot_be_looked_at_is_the_videos_error(model: LongVU, name: str) -> None:
    with pytest.raises(VideoError):
        model.compress(name)


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"\xff" * len(data), lambda data: data[:8]],
    ids=["empty", "cut", "noise", "no header"],
)
def test_a_damaged_entry_is_made_again(
    model: LongVU, video: Path, cache: FeatureCache, damage: Callable[[bytes], bytes]
) -> None:
    before = model.compress(video, QUESTION)
    (entry,) = entries(cache)
    good = entry.read_bytes()
    entry.write_bytes(damage(good))
    after = model.compress(video, QUESTION)
    assert (after.cache, after.statistics) == (MISS, before.statistics)
    assert [path.name for path in entries(cache)] == [entry.name]
    assert use(model, video) is HIT


def test_a_bit_that_changed_where_the_form_does_not_tell_is_noticed(
    model: LongVU, video: Path, cache: FeatureCache
) -> None:
    use(model, video)
    (entry,) = entries(cache)
    content = bytearray(entry.read_bytes())
    content[-1000] ^= 1
    entry.write_bytes(content)
    assert use(model, video) is MISS
    assert use(model, video) is HIT


def test_frames_of_the_gpus_decoder_are_kept_apart(video: Path, model: LongVU) -> None:
    recipe = CompressionOptions().resolve(model._modules.config)
    keys = [
        cache_key(video, SamplingOptions(), recipe, decoding=decoding, model="m", dtype="d", device="cuda")
        for decoding in (
            DecodingOptions(),
            DecodingOptions(decoder=Decoder.CPU, workers=3, isolated=False),
            DecodingOptions(decoder=Decoder.NVDEC),
        )
    ]
    assert keys[0] == keys[1] != keys[2]


def test_features_that_were_thinned_are_kept_apart(video: Path, model: LongVU) -> None:
    recipe = CompressionOptions().resolve(model._modules.config)
    keys = {
        cache_key(video, sampling, recipe, decoding=DecodingOptions(), model="m", dtype="d", device="cuda")
        for sampling in (SamplingOptions(), SamplingOptions(thin_above=9), SamplingOptions(thin_above=5))
    }
    assert len(keys) == 3


def test_features_of_compiled_towers_are_kept_apart(video: Path, model: LongVU) -> None:
    recipe = CompressionOptions().resolve(model._modules.config)
    keys = {
        cache_key(
            video,
            SamplingOptions(),
            recipe,
            decoding=DecodingOptions(),
            model="m",
            dtype="d",
            device="cuda",
            compiled=compiled,
        )
        for compiled in (False, True)
    }
    assert len(keys) == 2


def test_an_entry_of_another_form_is_made_again(model: LongVU, video: Path, cache: FeatureCache) -> None:
    from safetensors.torch import save_file

    use(model, video)
    (entry,) = entries(cache)
    for metadata in (
        None,
        {"longvu": "{}"},
        {"longvu": "[1]"},
        {"longvu": "null"},
        {"longvu": "no json"},
        {"other": "1"},
    ):
        save_file({"fused": torch.zeros(2)}, entry, metadata=metadata)
        assert use(model, video) is MISS
        assert use(model, video) is HIT


# --- the folder ----------------------------------------------------------------------------------------------------


def encoded(size: int = 1000) -> EncodedVideo:
    return EncodedVideo(
        times=(0.5, 1.5),
        similarity=torch.tensor([0.25, float("nan")]),
        indices=torch.tensor([1]),
        fused=torch.arange(size, dtype=torch.float32).reshape(1, 1, size),
        size=(64, 36),
        image=False,
    )


INFO = VideoInfo("a\x1b\udcff.mp4", 12.5, 64, 36, None, 90, "h264", False, ("cut short",), "Holidays")


def test_an_entry_comes_back_as_it_was(cache: FeatureCache) -> None:
    assert cache.get("key") is None
    cache.put("key", encoded(), INFO)
    found = cache.get("key")
    assert found is not None
    back, info = found
    assert info == INFO
    made = encoded()
    assert (back.times, back.size, back.image) == (made.times, made.size, made.image)
    assert torch.equal(back.fused, made.fused)
    assert torch.equal(back.indices, made.indices)
    assert torch.equal(back.similarity.nan_to_num(9), made.similarity.nan_to_num(9))
    assert [path.name for path in entries(cache)] == ["key.safetensors"]


def test_the_least_recently_used_leave(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, max_bytes=15_000)  # three of a bit more than 4,000
    for number, key in enumerate("abc"):
        cache.put(key, encoded(), INFO)
        os.utime(tmp_path / f"{key}.safetensors", ns=(0, number))
    assert cache.get("a") is not None  # used now: "b" is the oldest
    cache.put("d", encoded(), INFO)
    assert [path.stem for path in entries(cache)] == ["a", "c", "d"]
    assert sum(path.stat().st_size for path in entries(cache)) <= cache.max_bytes


def test_what_is_larger_than_the_whole_cache_does_not_stay(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, max_bytes=100)
    cache.put("a", encoded(), INFO)
    assert entries(cache) == []


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine" * 100)
    cache = FeatureCache(tmp_path, max_bytes=100)
    cache.put("a", encoded(), INFO)
    assert [path.name for path in entries(cache)] == ["notes.txt"]


def test_a_folder_that_cannot_be_made_is_no_error(model: LongVU, video: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    model._cache = FeatureCache(tmp_path / "file" / "features")
    assert use(model, video) is MISS
    assert use(model, video) is MISS
    assert (tmp_path / "file").read_bytes() == b""


def test_a_folder_that_cannot_be_written_is_no_error(
    model: LongVU, video: Path, cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("longvu_cli.feature_cache.whole_file", refuse)
    assert use(model, video) is MISS
    assert entries(cache) == []


def test_a_cache_that_can_only_be_read_is_used(
    model: LongVU, video: Path, cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(model, video)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    assert use(model, video) is HIT


def test_a_damaged_entry_that_cannot_be_removed_is_no_error(model: LongVU, video: Path, cache: FeatureCache) -> None:
    use(model, video)
    (entry,) = entries(cache)
    entry.unlink()
    entry.mkdir()  # what is no file cannot be unlinked, whoever runs this
    assert use(model, video) is MISS


def test_a_write_that_fails_leaves_nothing_behind(
    model: LongVU, video: Path, cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: object, path: str, metadata: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("longvu_cli.feature_cache.save_file", full)
    assert use(model, video) is MISS
    assert entries(cache) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError('Error while serializing: I/O error: Os { code: 28, kind: StorageFull, message: "full" }'),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["system", "code", "os error"],
)
def test_a_full_disk_is_said_while_it_lasts(
    model: LongVU, video: Path, cache: FeatureCache, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    def notices() -> list[str]:
        return [notice for notice in model.compress(video).notices if "cannot be kept" in notice]

    with monkeypatch.context() as patched:
        patched.setattr("longvu_cli.feature_cache.save_file", full)
        said = notices()
        assert len(said) == 1 and "(No space left on device)" in said[0] and str(cache.folder) in said[0]
        assert notices() == said
    assert notices() == [] and notices() == []


def test_what_is_wrong_in_words_of_its_own_is_said_without_them(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise SafetensorError("/secret/.writing-0123: something else")

    monkeypatch.setattr("longvu_cli.feature_cache.save_file", refuse)
    cache.put("key", encoded(), INFO)
    assert cache.trouble is not None and "(it cannot be written)" in cache.trouble and "writing-" not in cache.trouble


def test_the_command_says_it_once_for_several_videos(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cli.running import TINY, run_here

    (tmp_path / "file").touch()
    cache = tmp_path / "file" / "cache"
    for name, value in {**TINY, "LONGVU_CONFIG": "", "LONGVU_CACHE_DIR": str(cache)}.items():
        monkeypatch.setenv(name, value)
    ran = run_here(("describe", video, video, "--json", "--max-new-tokens=1"), monkeypatch, capsys)
    assert ran.code == 0
    assert ran.err.count("longvu: warning: the features of videos cannot be kept in ") == 1
    for line in ran.out.splitlines():
        assert [notice for notice in json.loads(line)["notices"] if "(Not a directory)" in notice]


def test_the_folder_is_where_the_variable_or_platformdirs_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import platformdirs

    monkeypatch.setenv("LONGVU_CACHE_DIR", str(tmp_path / "named"))
    assert FeatureCache.default().folder == tmp_path / "named" / "features"
    monkeypatch.delenv("LONGVU_CACHE_DIR")
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "user" / name)
    assert FeatureCache.default().folder == tmp_path / "user" / "longvu" / "features"
    assert FeatureCache.default().max_bytes == 10 * 10**9


def test_many_at_once_read_write_and_prune_one_folder(tmp_path: Path) -> None:
    """What is read is whole, whoever writes or prunes meanwhile."""
    cache = FeatureCache(tmp_path, max_bytes=15_000)  # three entries
    made = encoded()

    def work(number: int) -> int:
        hits = 0
        for turn in range(25):
            key = "abcde"[(number + turn) % 5]
            found = cache.get(key)
            if found is None:
                cache.put(key, made, INFO)
            else:
                hits += 1
                assert torch.equal(found[0].fused, made.fused)
            if turn % 10 == 9:
                FeatureFolder(tmp_path).prune(everything=True)
        return hits

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) > 0
    assert all(path.suffix == ".safetensors" for path in entries(cache))
    cache.put("f", made, INFO)
    assert sum(path.stat().st_size for path in entries(cache)) <= cache.max_bytes


# --- the command line ----------------------------------------------------------------------------------------------


def test_hit_miss_and_off_are_told(
    video: Path, parity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cli.running import TINY, run_here

    for name, value in {**TINY, "LONGVU_CONFIG": "", "LONGVU_CACHE_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")

    def told(*flags: str) -> str:
        ran = run_here(("stats", video, *flags, "--json"), monkeypatch, capsys)
        return str(json.loads(ran.out)["cache"]["features"])

    assert told("--no-cache") == "off"
    assert not (tmp_path / "features").exists()
    assert told() == "miss"
    assert told() == "hit"
    monkeypatch.setattr(FeatureCache, "get", None)  # --no-cache neither reads
    monkeypatch.setattr(FeatureCache, "put", None)  # nor writes
    assert told("--no-cache") == "off"
