"""Downloads that go wrong, against a hub on this machine, through the command: each with its sentence and exit code 4,
none with damaged weights or left-over bytes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hub import Hub, environment, serve

from cli.forked import Fork, Forks
from cli.running import PARITY, QWEN, TOWERS, Ran

REPO = "org/longvu"
WEIGHTS = "model.safetensors"
CLIP = PARITY / "one_frame.mkv"
HUB_TOWERS = {
    "facebook/dinov2-giant": Path(TOWERS["LONGVU_DINOV2"]),
    "google/siglip-so400m-patch14-384": Path(TOWERS["LONGVU_SIGLIP"]),
}
# The waits between tries are huggingface_hub's; a test need not sit through them.
HASTE = "import time; sleep = time.sleep; time.sleep = lambda seconds: sleep(min(seconds, 0.01))"
# For how long anything that must come is waited for.
SOON_S = 60


@dataclass
class Place:
    """A hub, a cache of one's own, and the command."""

    hub: Hub
    forks: Forks
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def blobs(self) -> Path:
        return self.home / "hub" / "models--org--longvu" / "blobs"

    @property
    def cached(self) -> Path:
        """The weight file, in the cache."""
        (found,) = self.home.glob(f"hub/models--org--longvu/snapshots/*/{WEIGHTS}")
        return found.resolve()

    def start(self, *more: Any, command: tuple[Any, ...] = (), **settings: Any) -> Fork:
        variables = {**environment(self.home, self.hub.url), **TOWERS, "LONGVU_CONFIG": "", **self.variables}
        arguments = [*(command or ("stats", CLIP, "-m", REPO)), *more]
        settings = {"before": HASTE, **settings}
        return self.forks.start(self.folder, arguments, variables, **settings)

    def run(self, *more: Any, **settings: Any) -> Ran:
        return self.start(*more, **settings).end()

    def wait_for(self, request: str, sent: bool = True) -> None:
        """Until a file is under way."""
        until = time.monotonic() + SOON_S
        while not self.hub.requests[request] or (sent and not self.partial()):
            assert time.monotonic() < until
            time.sleep(0.01)

    def partial(self) -> list[Path]:
        return [path for path in self.home.rglob("*.incomplete") if path.stat().st_size > 0]

    def leftovers(self) -> list[str]:
        """Whatever is in the cache and belongs to no file of a snapshot."""
        snapshots = self.home / "hub" / "models--org--longvu" / "snapshots"
        named = {path.resolve() for path in snapshots.rglob("*")}
        return [path.name for path in self.blobs.iterdir() if path.resolve() not in named]

    def assert_mended(self) -> None:
        """The next run, with nothing in its way, succeeds and leaves nothing else behind."""
        ran = self.run()
        assert (ran.code, ran.err) == (0, "")
        assert self.cached.read_bytes() == (QWEN / WEIGHTS).read_bytes()
        assert self.leftovers() == []


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Forks]]:
    with (
        serve({REPO: QWEN, **HUB_TOWERS}) as hub,
        Forks({**environment(tmp_path_factory.mktemp("home"), hub.url), "OMP_NUM_THREADS": "1"}) as forks,
    ):
        yield hub, forks


@pytest.fixture
def place(served: tuple[Hub, Forks], tmp_path: Path) -> Iterator[Place]:
    hub, forks = served
    hub.requests.clear()
    yield Place(hub, forks, tmp_path)
    for faults in (hub.cut, hub.stall, hub.pace, hub.refuse, hub.refuse_files, hub.damage):
        faults.clear()


def assert_told(ran: Ran, *words: str) -> None:
    assert (ran.code, ran.out) == (4, "")
    assert ran.err.startswith("longvu: error: ")
    assert ran.err.count("\n") == 1
    assert "; " in ran.err, "there is no hint"
    for word in words:
        assert word in ran.err


def test_a_transfer_that_is_cut(place: Place) -> None:
    place.hub.cut[WEIGHTS] = 0
    assert_told(place.run(), f"the download of {REPO} broke off: peer closed connection", "run it again")
    assert place.hub.requests[f"GET {REPO}/{WEIGHTS}"] > 1, "it was not tried again"
    assert not list(place.home.rglob(WEIGHTS))
    place.hub.cut.clear()
    place.assert_mended()


def test_a_transfer_that_is_cut_again_and_again_goes_on_where_it_was(place: Place) -> None:
    place.hub.cut[WEIGHTS] = 300_000
    place.assert_mended()
    assert place.hub.requests[f"GET {REPO}/{WEIGHTS}"] == 4


def test_a_transfer_that_stands_still(place: Place) -> None:
    place.hub.stall.add(WEIGHTS)
    place.variables["HF_HUB_DOWNLOAD_TIMEOUT"] = "1"
    assert_told(place.run(), f"the download of {REPO} broke off: ", "timed out", "run it again")
    place.hub.stall.clear()
    place.assert_mended()


def test_a_slow_transfer_arrives(place: Place) -> None:
    place.hub.pace[WEIGHTS] = 0.15
    place.variables["HF_HUB_DOWNLOAD_TIMEOUT"] = "1"
    place.assert_mended()


def test_wrong_bytes_of_the_right_size(place: Place) -> None:
    place.hub.damage.add(WEIGHTS)
    assert_told(place.run(), f"{WEIGHTS} of {REPO} did not arrive as the hub lists it", "run it again")
    assert not list(place.home.rglob(WEIGHTS))
    place.hub.damage.clear()
    place.assert_mended()


def test_wrong_bytes_of_a_small_file(place: Place) -> None:
    place.hub.damage.add("tokenizer.json")
    assert_told(place.run(), f"tokenizer.json of {REPO} did not arrive as the hub lists it")


STATUSES: dict[int, tuple[str, ...]] = {
    401: ("permission", "HF_TOKEN"),
    403: ("permission", "HF_TOKEN"),
    404: ("the hub has no", "check the name"),
    429: ("status 429", "try again"),
    500: ("status 500", "try again"),
}


@pytest.mark.parametrize("what", ["listing", "files"])
@pytest.mark.parametrize("status", STATUSES)
def test_a_refusal_of_the_hub(place: Place, status: int, what: str) -> None:
    (place.hub.refuse if what == "listing" else place.hub.refuse_files)[REPO] = status
    assert_told(place.run(), REPO, *STATUSES[status])
    place.hub.refuse.clear()
    place.hub.refuse_files.clear()
    place.assert_mended()


def test_a_disk_that_fills_up_on_the_way(place: Place) -> None:
    assert_told(place.run(file_size=300_000), f"the download of {REPO} broke off: File too large", "has room")
    place.assert_mended()


def test_a_disk_that_is_too_full_from_the_start(place: Place) -> None:
    full = "import shutil; from types import SimpleNamespace as S; shutil.disk_usage = lambda path: S(free=1000)"
    assert_told(place.run(before=full), "the download needs", "GB are free", "free some space")
    assert place.hub.requests[f"GET {REPO}/{WEIGHTS}"] == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_only_be_read(place: Place) -> None:
    place.home.mkdir()
    place.home.chmod(0o500)
    assert_told(place.run(), "Permission denied", "HF_HOME")


def test_a_cache_that_cannot_be_written(place: Place) -> None:
    refused = (
        "import builtins, os, pathlib, errno\n"
        "def refuse(*_, **__): raise OSError(errno.EROFS, os.strerror(errno.EROFS))\n"
        "os.makedirs = pathlib.Path.mkdir = refuse"
    )
    assert_told(place.run(before=refused), "Read-only file system", "HF_HOME")


def test_a_complete_cache_that_may_only_be_read_will_do(place: Place) -> None:
    place.assert_mended()
    shutil.rmtree(place.home / "longvu")
    place.variables["LONGVU_CACHE_DIR"] = "/proc/nowhere"
    before = {path: path.lstat().st_mtime_ns for path in place.home.rglob("*")}
    ran = place.run("--offline")
    # The weights are all there; what is said is that the features of the video have no place.
    assert ran.code == 0 and ran.err.count("\n") == 1
    assert ran.err.startswith("longvu: warning: the features of videos cannot be kept in /proc/nowhere/features")
    assert {path: path.lstat().st_mtime_ns for path in place.home.rglob("*")} == before


def test_killed_and_started_again(place: Place) -> None:
    place.hub.stall.add(WEIGHTS)
    run = place.start()
    place.wait_for(f"GET {REPO}/{WEIGHTS}")
    run.send(signal.SIGKILL)
    assert run.end().code == -signal.SIGKILL
    assert place.partial(), "nothing was left: the test shows nothing"
    place.hub.stall.clear()
    place.assert_mended()


def test_what_another_process_is_fetching_is_not_swept_away(place: Place) -> None:
    place.hub.stall.add(WEIGHTS)
    first = place.start()
    place.wait_for(f"GET {REPO}/{WEIGHTS}")
    # A command that needs the config alone, and so is done first.
    tokenizer = "import longvu_cli.weights as w; w._weight_files = lambda *_: []"
    place.run(before=f"{HASTE}\n{tokenizer}")
    assert place.partial()
    first.send(signal.SIGTERM)
    assert first.end().code == 143


def test_two_at_once_fetch_each_file_once(place: Place) -> None:
    place.hub.pace[WEIGHTS] = 0.1
    runs = [place.start() for _ in range(2)]
    assert [run.end().code for run in runs] == [0, 0]
    assert set(place.hub.downloads().values()) == {1}
    assert place.leftovers() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", ["weights", "listing"])
def test_a_signal_ends_a_download_within_two_seconds(place: Place, number: signal.Signals, moment: str) -> None:
    # How long this machine takes, at the moment, to begin and end a process that does nothing.
    begun = time.monotonic()
    place.run(command=("--version",))
    pace = time.monotonic() - begun
    place.hub.stall.add(WEIGHTS if moment == "weights" else "")
    run = place.start(before="")
    if moment == "weights":
        place.wait_for(f"GET {REPO}/{WEIGHTS}")
    else:
        place.wait_for(f"API {REPO}", sent=False)
    run.send(number)
    ran = run.end(patience=2 + 2 * pace)
    assert (ran.code, ran.out, ran.err) == (130 if number == signal.SIGINT else 143, "", "")
    assert not list(place.home.rglob("*.incomplete"))
    place.hub.stall.clear()
    place.assert_mended()


def remove_weights(place: Place) -> None:
    place.cached.unlink()


def remove_link(place: Place) -> None:
    for path in place.home.glob(f"hub/models--org--longvu/snapshots/*/{WEIGHTS}"):
        path.unlink()


def cut_weights(place: Place) -> None:
    place.cached.write_bytes(place.cached.read_bytes()[:1000])


def empty_config(place: Place) -> None:
    for path in place.home.glob("hub/models--org--longvu/snapshots/*/config.json"):
        path.resolve().write_bytes(b"")


def damage_weights(place: Place) -> None:
    content = place.cached.read_bytes()
    place.cached.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


PARTIAL: dict[str, Callable[[Place], None]] = {
    "no content": remove_weights,
    "no link": remove_link,
    "cut": cut_weights,
    "an empty file": empty_config,
    "damaged": damage_weights,
}


@pytest.mark.parametrize("name", PARTIAL)
def test_a_partial_snapshot_is_completed(place: Place, name: str) -> None:
    place.assert_mended()
    PARTIAL[name](place)
    assert_told(place.run("--offline"), "offline mode is on", "without --offline")
    place.assert_mended()


# --- what another program put there ---------------------------------------------------------------------------------


def filled_by_another_program(place: Place) -> None:
    """A whole cache, of which this program has no notes; and the weights in it are damaged, with their old time."""
    place.assert_mended()
    shutil.rmtree(place.home / "longvu")
    status = place.cached.stat()
    damage_weights(place)
    os.utime(place.cached, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_weights_are_not_loaded_before_they_were_compared(place: Place) -> None:
    filled_by_another_program(place)
    told = place.run("--offline")
    assert_told(told, f"{WEIGHTS} of {REPO} in the cache is not what the hub lists", "without --offline")
    place.hub.requests.clear()
    place.assert_mended()
    assert place.hub.downloads() == {f"{REPO}/{WEIGHTS}": 1}


def test_weights_are_read_to_be_compared_once(place: Place) -> None:
    counting = (
        "import longvu_cli.hub as h, sys\nread = h.has_digest\n"
        "h.has_digest = lambda path, etag: (sys.stderr.write('read\\n'), read(path, etag))[1]"
    )
    assert place.run(before=counting).err.count("read") > 1
    assert place.run(before=counting).err == ""
    os.utime(place.cached, ns=(1, 1))
    assert place.run("--offline", before=counting).err.count("read") == 1


def test_a_snapshot_that_is_no_link_and_was_never_compared(place: Place) -> None:
    place.assert_mended()
    (link,) = place.home.glob(f"hub/models--org--longvu/snapshots/*/{WEIGHTS}")
    content = link.read_bytes()
    link.unlink()
    link.write_bytes(content)
    assert_told(place.run("--offline"), f"{WEIGHTS} of {REPO} was never compared", "without --offline")
    assert place.run().code == 0
    assert place.run("--offline").code == 0


# --- longvu models verify -------------------------------------------------------------------------------------------

VERIFY = ("models", "verify")


def test_whole_models_are_verified(place: Place) -> None:
    nothing = place.run(command=VERIFY)
    assert (nothing.code, nothing.out) == (0, "") and "no LongVU model is in the cache" in nothing.err
    assert_told(place.run(command=(*VERIFY, "7b")), "the cache has nothing of Vision-CAIR/LongVU_Qwen2_7B")
    place.assert_mended()
    for flags in ((), (REPO,), ("--offline",)):
        ran = place.run(command=(*VERIFY, *flags))
        assert ran.code == 0
        lines = ran.out.splitlines()
        assert len(lines) == 5 and all(line.startswith("ok ") for line in lines)
        assert any(line.split()[1:3] == ["1.1", "MB"] and line.endswith(WEIGHTS) for line in lines)
        assert ran.err == f"longvu: 5 files, 0.00 GB of {REPO} compared\n"


def test_what_is_damaged_is_named_with_what_mends_it(place: Place) -> None:
    filled_by_another_program(place)
    for flags in ((), ("--offline",)):
        ran = place.run(command=(*VERIFY, *flags))
        assert ran.code == 4
        (bad,) = [line for line in ran.out.splitlines() if not line.startswith("ok ")]
        assert bad.startswith("damaged ") and bad.endswith(WEIGHTS)
        assert ran.err.startswith(f"longvu: error: 1 of 5 files, 0.00 GB are damaged or missing, {WEIGHTS} of {REPO}")
        assert ran.err.endswith(f"is downloaded again by: longvu models download {REPO}\n")
    records = [json.loads(line) for line in place.run("--json", command=VERIFY).out.splitlines()]
    assert {file["file"]: file["state"] for file in records[0]["files"]}[WEIGHTS] == "damaged"
    assert records[1]["error"]["type"] == "WeightsDamaged"
    place.hub.requests.clear()
    ran = place.run(command=("models", "download", REPO))
    assert ran.code == 0
    assert place.hub.downloads() == {f"{REPO}/{WEIGHTS}": 1}
    assert place.run(command=VERIFY).code == 0


def test_verifying_finds_damage_that_left_size_and_time_alone(place: Place) -> None:
    place.assert_mended()
    status = place.cached.stat()
    damage_weights(place)
    os.utime(place.cached, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert place.run(command=VERIFY).code == 4
    place.assert_mended()


def test_a_content_that_is_gone(place: Place) -> None:
    place.assert_mended()
    remove_weights(place)
    ran = place.run(command=VERIFY)
    assert ran.code == 4
    assert any(line.startswith("missing ") for line in ran.out.splitlines())


@pytest.mark.parametrize("name", ["tiny", "8b", "./folder"])
def test_what_comes_from_no_hub_cannot_be_verified(place: Place, name: str) -> None:
    ran = place.run(command=(*VERIFY, name))
    assert (ran.code, ran.out) == (2, "")


# --- longvu models list, download, remove ---------------------------------------------------------------------------


def states(place: Place) -> dict[str, tuple[str, int]]:
    ran = place.run("--json", command=("models", "list", "--device", "cpu"))
    assert (ran.code, ran.err) == (0, "")
    return {item["name"]: (item["state"], item["cached_bytes"]) for item in json.loads(ran.out)["models"]}


def test_models_are_downloaded_listed_and_removed(place: Place) -> None:
    assert {state for name, (state, _) in states(place).items() if name != "tiny"} == {"absent"}
    # The hub is not asked for a list.
    assert not place.hub.requests

    ran = place.run(command=("models", "download", REPO, "dinov2"))
    assert (ran.code, ran.err) == (0, "")
    (snapshot,) = place.home.glob("hub/models--org--longvu/snapshots/*")
    assert [line.split()[0] for line in ran.out.splitlines()] == [REPO, "dinov2"]
    assert ran.out.splitlines()[0].endswith(str(snapshot))
    assert max(place.hub.downloads().values()) == 1
    here = states(place)
    size = sum(path.stat().st_size for path in place.blobs.iterdir())
    assert here[REPO] == ("complete", size)
    # The towers that the options name are used: no other was fetched for the model.
    assert (here["dinov2"][0], here["siglip"][0], here["7b"][0]) == ("complete", "absent", "absent")
    assert place.run("--offline").code == 0

    told = place.run(command=("models", "list", "--device", "cpu")).out.splitlines()
    (line,) = [line for line in told if line.startswith(REPO)]
    assert line.split()[1:] == [f"{size / 1e6:.1f}", "MB", "downloaded"]

    refused = place.run(command=("models", "remove", REPO))
    assert (refused.code, refused.out) == (2, "")
    assert "add --yes" in refused.err and snapshot.is_dir()
    ran = place.run(command=("models", "remove", REPO, "dinov2", "--yes"))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[0] == f"{REPO}  {size / 1e6:.1f} MB deleted"
    assert not list(place.home.glob("hub/models--*"))
    again = place.run(command=("models", "remove", REPO, "--yes"))
    assert_told(again, f"the cache has nothing of {REPO}")
    place.assert_mended()


def test_a_model_that_is_half_here_is_listed_so_and_can_be_removed(place: Place) -> None:
    place.hub.stall.add(WEIGHTS)
    run = place.start(command=("models", "download", REPO))
    place.wait_for(f"GET {REPO}/{WEIGHTS}")
    run.send(signal.SIGKILL)
    run.end()
    assert states(place)[REPO][0] == "partial"
    ran = place.run("--json", command=("models", "remove", REPO, "-y"))
    assert json.loads(ran.out)["bytes_freed"] > 0
    assert not list(place.home.glob("hub/models--*"))


def test_only_what_is_named_is_removed(place: Place) -> None:
    for name in (REPO, "facebook/dinov2-giant"):
        assert place.run(command=("models", "download", name)).code == 0
    assert place.run(command=("models", "remove", "dinov2", "--yes")).code == 0
    assert [path.name for path in place.home.glob("hub/models--*")] == ["models--org--longvu"]
    assert states(place)[REPO][0] == "complete"


def test_what_is_not_on_the_hub_or_may_not_be_had_is_told(place: Place) -> None:
    assert_told(place.run(command=("models", "download", "org/other")), "the hub has no repository org/other")
    place.variables["HF_HUB_OFFLINE"] = "1"
    assert_told(place.run(command=("models", "download", REPO)), "offline mode is on")


@pytest.mark.parametrize("command", ["download", "remove"])
@pytest.mark.parametrize("name", ["tiny", "8b", "./folder"])
def test_what_comes_from_no_hub_cannot_be_fetched_or_removed(place: Place, command: str, name: str) -> None:
    ran = place.run(command=("models", command, name))
    assert (ran.code, ran.out) == (2, "")
    assert "name one of 7b, " in ran.err
