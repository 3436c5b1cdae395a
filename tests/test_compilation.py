"""compilation.py: compiled layers compute what plain ones do, for any number of frames."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from longvu_cli.compilation import compile_decoder, compile_layers, require_compiler
from longvu_cli.config import GenerationOptions, ModelOptions
from longvu_cli.errors import DeviceUnavailable
from longvu_cli.loading import Modules
from longvu_cli.longvu import LongVU

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")


@pytest.fixture
def fresh() -> Iterator[None]:
    """Nothing that was compiled before is used."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@needs_compiler
@pytest.mark.usefixtures("fresh")
def test_compiled_layers_compute_what_plain_ones_do(load: Callable[..., Modules], parity: Path) -> None:
    modules = load(parity / "qwen")
    language_model = modules.language_model
    assert language_model is not None
    towers = (modules.vision.dinov2, modules.vision.siglip)
    rows = torch.randn(20, modules.config.hidden_size, generator=torch.Generator().manual_seed(0))
    pixels = [torch.randint(0, 256, (5, tower.input.side, tower.input.side, 3), dtype=torch.uint8) for tower in towers]
    plain = [tower(frames) for tower, frames in zip(towers, pixels, strict=True)]
    logits = language_model.first_logits(rows)

    for tower in towers:
        compile_layers(tower.layers)
    compile_decoder(language_model.decoder)
    compiled = 0
    for tower, frames, wanted in zip(towers, pixels, plain, strict=True):
        compiled += sum(layer._compiled_call_impl is not None for layer in tower.layers)
        for count in (5, 3):
            # float32, sums in another order
            torch.testing.assert_close(tower(frames[:count]), wanted[:count], atol=1e-4, rtol=1e-4)
    assert compiled == sum(len(tower.layers) for tower in towers) > 0
    torch.testing.assert_close(language_model.first_logits(rows), logits, atol=1e-4, rtol=1e-4)
    norms = [m for name, m in language_model.decoder.named_modules() if name.endswith(("norm", ".mlp"))]
    assert len(norms) == 3 * modules.config.language_model["num_hidden_layers"] + 1
    assert all(module._compiled_call_impl is not None for module in norms)


@needs_compiler
@pytest.mark.usefixtures("fresh")
def test_a_compiled_model_gives_the_same_answer_and_says_what_it_is(
    qwen: LongVU, tiny_options: ModelOptions, parity: Path
) -> None:
    compiled = LongVU.from_pretrained(str(parity / "qwen"), options=replace(tiny_options, compile=True))
    assert compiled.info.compiled and not qwen.info.compiled
    video, generation = parity / "square_mixed.mkv", GenerationOptions(max_new_tokens=4)
    wanted = qwen.answer(video, "Where is the cup?", generation=generation)
    found = compiled.answer(video, "Where is the cup?", generation=generation)
    assert found.token_ids == wanted.token_ids
    assert torch.equal(torch.tensor(found.compression.kept), torch.tensor(wanted.compression.kept))


def test_what_cannot_compile_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_nothing(_: object) -> Callable[[torch.Tensor], torch.Tensor]:
        def broken(_: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("InvalidCxxCompiler: No working\nC++ compiler found")

        return broken

    monkeypatch.setattr(torch, "compile", compile_nothing)
    with pytest.raises(
        DeviceUnavailable, match=r"--compile cannot be used on cpu: .*No working C\+\+ compiler"
    ) as error:
        require_compiler(CPU)
    assert error.value.hint == "install a C++ compiler, or leave --compile out"
