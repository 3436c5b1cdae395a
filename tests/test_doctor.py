import re
import tomllib
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hub import Hub, serve
from huggingface_hub import constants

from longvu_cli import doctor, weights
from longvu_cli.doctor import OPTIONAL, REQUIRED, Area, Finding, Level, can_run, examine
from longvu_cli.errors import DeviceOutOfMemory
from longvu_cli.longvu import LongVU
from longvu_cli.weights import VARIANTS

OK, NOTE, PROBLEM = Level.OK, Level.NOTE, Level.PROBLEM


@pytest.fixture(autouse=True)
def own_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LONGVU_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def found(area: Area, name: str = "", *, device: str = "cpu", offline: bool = True, self_test: bool = False) -> Any:
    findings = [finding for finding in examine(device, offline=offline, self_test=self_test) if finding.area is area]
    return next(finding for finding in findings if finding.name == name) if name else findings


def test_the_libraries_are_those_that_the_package_requires() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    more = project["optional-dependencies"]
    required = {re.split(r"[>=;<]", line)[0] for line in project["dependencies"]}
    extras = [line for name in ("eval", "ray", "serve", "train") for line in more[name]]
    optional = {"bitsandbytes"} | {re.split(r"[>=;<]", line)[0] for line in extras}
    assert required - optional == set(REQUIRED.values())
    assert optional == {distribution for distribution, _ in OPTIONAL.values()}


@pytest.mark.skipif(not (weights.tiny_folder() / "demo.mp4").is_file(), reason="needs the trained tiny model")
def test_the_self_test_passes_here() -> None:
    (finding,) = found(Area.SELF_TEST, self_test=True)
    assert (finding.name, finding.level) == ("tiny on cpu", OK)
    assert finding.value.startswith("watched 30 s of the demo and answered rightly, in ")


def pretend(monkeypatch: pytest.MonkeyPatch, outcomes: dict[str, Any]) -> None:
    """On each device the self-test's model gives an answer, or raises an error."""

    def load(name: str, *, options: Any, decoding: Any) -> Any:
        assert (name, options.offline) == ("tiny", True)
        outcome = outcomes[options.device]
        if isinstance(outcome, Exception):
            raise outcome
        timing = SimpleNamespace(timing=SimpleNamespace(total=1.25))
        return SimpleNamespace(answer=lambda *_, **__: SimpleNamespace(text=outcome, compression=timing))

    monkeypatch.setattr(LongVU, "from_pretrained", load)


@pytest.mark.parametrize(
    ("outcome", "told", "advice"),
    [
        ("Green.", "asked 'What colour is the cup?', it answered 'Green.' in place of 'White.'", "try --device cpu"),
        (DeviceOutOfMemory("cpu ran out", hint="do this"), "cpu ran out", "do this"),
        (OSError("libsomething.so: cannot open"), "OSError: libsomething.so: cannot open", ""),
        (ImportError("no torch"), "ImportError: no torch", "install longvu anew"),
    ],
)
def test_a_self_test_that_fails(monkeypatch: pytest.MonkeyPatch, outcome: Any, told: str, advice: str) -> None:
    pretend(monkeypatch, {"cpu": outcome})
    (finding,) = found(Area.SELF_TEST, self_test=True)
    assert (finding.level, finding.value) == (PROBLEM, told)
    assert advice in finding.advice
    assert not can_run([finding])


def test_what_fails_on_the_gpu_is_tried_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {"cuda:1": "!!!!", "cpu": "White."})
    monkeypatch.setattr("longvu_cli.device.resolve_device", lambda name: "cuda:1")
    findings = list(doctor._self_test("auto"))
    assert [(finding.name, finding.level) for finding in findings] == [("tiny on cuda:1", PROBLEM), ("tiny on cpu", OK)]
    assert can_run(findings)


def finding(area: Area, level: Level) -> Finding:
    return Finding(area, "name", level, "value")


def test_without_a_self_test_all_that_it_needs_has_to_be_there() -> None:
    whole = [finding(area, OK) for area in Area if area is not Area.SELF_TEST]
    assert can_run(whole)
    for area in Area:
        if area is not Area.SELF_TEST:
            broken = area in (Area.LIBRARIES, Area.DEVICE, Area.DECODING)
            assert can_run([*whole, finding(area, PROBLEM)]) is not broken
            assert can_run([*whole, finding(area, NOTE)])
    assert can_run([finding(Area.LIBRARIES, PROBLEM), finding(Area.SELF_TEST, OK)])


def test_a_device_that_is_not_there_is_a_problem() -> None:
    (device,) = found(Area.DEVICE, device="cuda:7")
    assert (device.level, device.value[:19]) == (PROBLEM, "there is no cuda:7:")
    assert device.advice == "use --device auto or cpu"


@pytest.mark.parametrize(
    ("free", "level", "told"),
    [(64, OK, "fit: 7b (36.3 GiB), 3b (21.4 GiB), 1b (13.5 GiB)"), (8, NOTE, "none fits into 8.0 GiB")],
)
def test_which_models_fit_is_told(monkeypatch: pytest.MonkeyPatch, free: int, level: Level, told: str) -> None:
    monkeypatch.setattr("longvu_cli.device.free_memory", lambda device: free * 2**30)
    models = found(Area.DEVICE, "released models")
    assert (models.level, models.value) == (level, told)


def test_a_driver_that_pytorch_does_not_use_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("longvu_cli.doctor.shutil.which", lambda name: "/usr/bin/nvidia-smi")
    driver = found(Area.DEVICE, "NVIDIA driver")
    assert driver.level is NOTE
    assert "CUDA_VISIBLE_DEVICES" in driver.advice


def test_codecs_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(Area.DECODING, "codecs").level is OK
    monkeypatch.setitem(doctor._CODECS, "no_such_codec", "Betamax")
    codecs = found(Area.DECODING, "codecs")
    assert (codecs.level, codecs.value.endswith("; not Betamax")) == (NOTE, True)


@pytest.mark.parametrize(("free", "level"), [(10**12, OK), (10**8, NOTE)])
def test_a_disk_that_is_nearly_full(monkeypatch: pytest.MonkeyPatch, free: int, level: Level) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("longvu_cli.doctor.shutil.disk_usage", lambda path: usage(2 * free, free, free))
    weights_place, features = found(Area.DISK)
    assert (weights_place.level, features.level) == (level, level)
    if level is NOTE:
        assert "HF_HOME" in weights_place.advice and "LONGVU_CACHE_DIR" in features.advice


def test_a_disk_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longvu_cli.doctor.os.access", lambda path, mode: False)
    for place in found(Area.DISK):
        assert (place.level, "it cannot be written" in place.value) == (NOTE, True)


# --- the hub --------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    (tmp_path / "1b").mkdir()
    (tmp_path / "1b" / "config.json").write_text("{}")
    with serve({VARIANTS["1b"].repo: tmp_path / "1b"}) as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield running


def test_a_hub_that_answers(hub: Hub) -> None:
    finding = found(Area.HUB, hub.url, offline=False)
    assert (finding.level, finding.value) == (OK, "answers")
    assert set(hub.requests) == {f"API {VARIANTS['1b'].repo}"}


@pytest.mark.parametrize(("status", "told"), [(500, "status 500"), (401, "without a permission")])
def test_a_hub_that_refuses(hub: Hub, status: int, told: str) -> None:
    hub.refuse[VARIANTS["1b"].repo] = status
    finding = found(Area.HUB, hub.url, offline=False)
    assert (finding.level, told in finding.value, bool(finding.advice)) == (NOTE, True, True)


def test_a_hub_without_the_models(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "repos", {})
    finding = found(Area.HUB, hub.url, offline=False)
    assert (finding.level, finding.value[:20]) == (NOTE, "answers, but the hub")


def test_offline_nothing_is_asked(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(Area.HUB, hub.url).value == "not asked: offline mode is on"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert found(Area.HUB, hub.url, offline=False).value == "not asked: offline mode is on"
    assert not hub.requests


def test_no_token_or_password_is_ever_shown(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "hf_Geheim4711"
    monkeypatch.setenv("HF_TOKEN", secret)
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{secret}@127.0.0.1:9")
    # A password that no other variable has, in a form that curl takes, too.
    monkeypatch.setenv("HTTP_PROXY", f"me:Other{secret[3:]}@127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    address = hub.url.replace("http://", f"http://me:{secret}@")
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    hub.refuse[VARIANTS["1b"].repo] = 403
    findings = list(examine("cpu", offline=False, self_test=False))
    shown = " ".join(f"{finding.name} {finding.value} {finding.advice}" for finding in findings)
    assert secret[3:] not in shown
    assert "http://…@127.0.0.1:9" in shown
    assert "HTTP_PROXY …@127.0.0.1:9 " in shown
    token = next(finding for finding in findings if finding.name == "token")
    assert token.value == "there is one"
    pretend(monkeypatch, {"cpu": RuntimeError(f"refused with {secret}")})
    (failed,) = found(Area.SELF_TEST, self_test=True)
    assert failed.value == "RuntimeError: refused with …"
