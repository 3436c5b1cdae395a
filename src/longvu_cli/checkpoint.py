"""The weight files of a checkpoint folder: strict loading by name.

Four forms are read, in this order of preference: one safetensors file, safetensors shards with an index, one
``pytorch_model.bin``, ``.bin`` shards with an index. Files come from strangers: nothing in them is executed, nothing
outside the folder is opened, and what is malformed is refused by name. torch is imported when the first file is read.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from longvu_cli.config import ModelConfig
from longvu_cli.errors import NotACheckpoint, WeightsDamaged, WeightsNotFound

if TYPE_CHECKING:
    import torch

CONFIG_FILE = "config.json"
# Best first: safetensors can run no code and are read without copying.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
KEY_POSITIONS = "model.vision_sampler_0.layers.0.pos_embed_0"

_INDEX_SUFFIX = ".index.json"
_ZIP_MAGIC = b"PK\x03\x04"
_NAMED_AT_MOST = 3
_AGAIN = "download the file again, or choose another checkpoint"


def preferred_weight_file(names: Collection[str]) -> str | None:
    """The weight file, or index of weight files, to load from a folder that holds these names; None: there is none."""
    return next((name for name in WEIGHT_FILES if name in names), None)


def is_index(file: str) -> bool:
    """Whether a name of :data:`WEIGHT_FILES` is that of an index rather than of weights."""
    return file.endswith(_INDEX_SUFFIX)


def read_index(path: Path) -> dict[str, str]:
    """Read which shard holds each tensor: tensor name → file name.

    Raises:
        WeightsDamaged: the index is malformed, or names anything but plain weight files beside itself.
    """
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsDamaged(f"the index {path} cannot be read: {error}", hint=_AGAIN) from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsDamaged(f"the index {path} has no weight_map", hint=_AGAIN)
    suffix = ".safetensors" if path.name.startswith("model.safetensors") else ".bin"
    for file in weight_map.values():
        if not _is_plain_name(file) or not file.endswith(suffix):
            raise WeightsDamaged(f"the index {path} names {file!r}, which is no {suffix} file of its folder")
    return dict(weight_map)


def shards_holding(weight_map: Mapping[str, str], names: Collection[str]) -> tuple[str, ...]:
    """The files, sorted, that hold at least one of the named tensors."""
    return tuple(sorted({file for name, file in weight_map.items() if name in names}))


def image_token_len_of(shapes: Mapping[str, tuple[int, ...]], config: ModelConfig) -> int:
    """How many queries per frame the weights were trained with, which config.json may state wrongly.

    A query that attends to k keys of each tower's grid has k position embeddings; with one key it has none.

    Args:
        shapes: the shapes of the connector's tensors; only :data:`KEY_POSITIONS` is looked at.
        config: says how many tokens a tower hands on.

    Raises:
        WeightsDamaged: the number of keys does not divide the towers' grid into squares.
    """
    grid = config.tower_token_lens[0]
    shape = shapes.get(KEY_POSITIONS)
    if shape is None:
        return grid
    keys = shape[0] if len(shape) == 2 else 0
    key_side = math.isqrt(keys)
    if keys < 1 or key_side**2 != keys or math.isqrt(grid) % key_side:
        raise WeightsDamaged(f"{KEY_POSITIONS} has shape {list(shape)}, which does not fit a grid of {grid} tokens")
    return grid // keys


class Checkpoint:
    """The weight files of one folder: which tensors they hold, and the tensors themselves.

    Attributes:
        folder: where the files are.
        names: every tensor; those of the index when there are shards, so also tensors of shards that are not here.
    """

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        """Use :meth:`open`. ``files``: tensor name → name of the file that holds it."""
        self.folder = folder
        self.names = frozenset(files)
        self._files = dict(files)
        self._shapes: dict[str, dict[str, tuple[int, ...]]] = {}

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Find the weight files of a folder; of shards only the index is read.

        Raises:
            NotACheckpoint: the folder has no config.json.
            WeightsNotFound: there is no such folder, or no weight file in it.
            WeightsDamaged: the file or index is malformed, or is a link that leads out of the folder.
        """
        file = find_weight_file(folder)
        if is_index(file):
            return cls(folder, read_index(_own_file(folder, file)))
        shapes = _read_shapes(_own_file(folder, file))
        checkpoint = cls(folder, dict.fromkeys(shapes, file))
        checkpoint._shapes[file] = shapes
        return checkpoint

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, from the header of its file.

        Raises:
            WeightsNotFound: the file that holds it is not here.
            WeightsDamaged: there is no such tensor, or the file is malformed.
        """
        file = self._file_of(name)
        shapes = self._shapes_in(file)
        if name not in shapes:
            raise _not_in_shard(name, file)
        return shapes[name]

    def check(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Compare with the tensors that the model has: the names, and the shapes of those whose file is here.

        Raises:
            WeightsDamaged: tensors are missing, unexpected or of the wrong shape, or a file is malformed.
        """
        shared = sorted(self.names & expected.keys())
        here = [name for name in shared if os.path.isfile(self.folder / self._files[name])]
        wrong = [name for name in here if self.shape(name) != tuple(expected[name])]
        wrong = [f"{name} {list(self.shape(name))} instead of {list(expected[name])}" for name in wrong]
        problems = [
            _few("missing", sorted(expected.keys() - self.names)),
            _few("unexpected", sorted(self.names - expected.keys())),
            _few("of the wrong shape", wrong),
        ]
        if any(problems):
            raise WeightsDamaged(
                f"the weights in {self.folder} are not those of the model: {'; '.join(filter(None, problems))}",
                hint="check that config.json and the weights are of the same checkpoint",
            )

    def read(
        self, names: Iterable[str], *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> dict[str, torch.Tensor]:
        """Load these tensors and no others. On the CPU, in the file's own data type, they are mapped, not copied.

        Args:
            device: where the tensors go, straight from the file.
            dtype: None keeps the file's.

        Raises:
            WeightsNotFound: a file that holds one of them is not here.
            WeightsDamaged: there is no such tensor, one holds no fractions, or a file is malformed.
        """
        by_file: dict[str, list[str]] = {}
        for name in names:
            by_file.setdefault(self._file_of(name), []).append(name)
        paths = {file: _own_file(self.folder, file) for file in sorted(by_file)}
        tensors: dict[str, torch.Tensor] = {}
        for file, path in paths.items():
            for name, tensor in _read_tensors(path, by_file[file], str(device)):
                if not tensor.is_floating_point():
                    raise WeightsDamaged(f"{name} in {path} holds {tensor.dtype} in place of weights", hint=_AGAIN)
                tensors[name] = tensor.to(device=device, dtype=dtype)
        return tensors

    def files_of(self, names: Iterable[str]) -> list[Path]:
        """The files that hold these tensors, sorted.

        Raises:
            WeightsDamaged: there is no such tensor.
        """
        return [self.folder / file for file in sorted({self._file_of(name) for name in names})]

    def _file_of(self, name: str) -> str:
        try:
            return self._files[name]
        except KeyError:
            raise WeightsDamaged(f"the weights in {self.folder} have no tensor {name}", hint=_AGAIN) from None

    def _shapes_in(self, file: str) -> dict[str, tuple[int, ...]]:
        if file not in self._shapes:
            self._shapes[file] = _read_shapes(_own_file(self.folder, file))
        return self._shapes[file]


def find_weight_file(folder: Path) -> str:
    """The weight file, or index, that a folder is loaded from.

    Raises:
        WeightsNotFound: there is no such folder, or no weight file in it.
        NotACheckpoint: the folder has no config.json.
    """
    if not os.path.isdir(folder):
        raise WeightsNotFound(f"there is no folder {folder}", hint="check the path")
    if not os.path.isfile(folder / CONFIG_FILE):
        raise NotACheckpoint(f"there is no {CONFIG_FILE} in {folder}", hint="name the folder that holds the model")
    file = preferred_weight_file([name for name in WEIGHT_FILES if os.path.lexists(folder / name)])
    if file is None:
        raise WeightsNotFound(
            f"there are no weights in {folder} (none of {', '.join(WEIGHT_FILES)})",
            hint="put the weight files beside config.json, or name another folder",
        )
    return file


def _is_plain_name(file: object) -> bool:
    return (
        isinstance(file, str) and file not in ("", ".", "..") and not any(character in file for character in "/\\:\0")
    )


def _own_file(folder: Path, file: str) -> Path:
    """The path of a regular file of the folder, refused when it is a link to somewhere else."""
    path = folder / file
    if not os.path.lexists(path):
        raise WeightsNotFound(
            f"{file} is missing from {folder}", hint="download the checkpoint again: it is not complete"
        )
    try:
        target = path.resolve(strict=True)
    except FileNotFoundError:
        raise WeightsNotFound(f"{path} is a link to nothing", hint=_AGAIN) from None
    except (OSError, RuntimeError) as error:
        raise WeightsDamaged(f"{path} cannot be followed: {error}", hint=_AGAIN) from error
    if not any(target.is_relative_to(home) for home in _homes(folder.resolve())):
        raise WeightsDamaged(
            f"{path} is a link that leads out of its folder, to {target}; it was not opened",
            hint="put the file itself into the folder",
        )
    if not target.is_file():
        raise WeightsDamaged(f"{path} is no regular file", hint=_AGAIN)
    return path


def _homes(folder: Path) -> Iterator[Path]:
    """Where the files of a folder may lie: in it, and, for a snapshot of the Hugging Face cache, in the blob stores.

    A snapshot holds links into the repository's own ``blobs``, and newer releases keep large ones in the ``blobs`` of
    the whole cache: ``CACHE/models--ORG--NAME/snapshots/COMMIT/FILE`` → ``…/blobs/HASH`` → ``CACHE/blobs/XX/HASH``.
    """
    yield folder
    for repository in folder.parents:
        if repository.name.startswith("models--") and folder.is_relative_to(repository / "snapshots"):
            yield repository / "blobs"
            yield repository.parent / "blobs"


def _few(problem: str, names: list[str]) -> str:
    """``2 missing (a, b)``; nothing for no names."""
    if not names:
        return ""
    rest = len(names) - _NAMED_AT_MOST
    listed = ", ".join(names[:_NAMED_AT_MOST]) + (f" and {rest} more" if rest > 0 else "")
    return f"{len(names)} {problem} ({listed})"


def _not_in_shard(name: str, file: str) -> WeightsDamaged:
    return WeightsDamaged(f"{file} does not hold the tensor {name}, though the index says so", hint=_AGAIN)


def _read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    if path.suffix == ".bin":
        return {name: tuple(tensor.shape) for name, tensor in _unpickle(path).items()}
    with _safetensors(path, "cpu") as file:
        names = file.keys()
        return {name: tuple(file.get_slice(name).get_shape()) for name in names}


def _read_tensors(path: Path, names: list[str], device: str) -> Iterator[tuple[str, torch.Tensor]]:
    if path.suffix == ".bin":
        tensors = _unpickle(path)
        for name in names:
            if name not in tensors:
                raise _not_in_shard(name, path.name)
            yield name, tensors[name]
        return
    with _safetensors(path, device) as file:
        present = frozenset(file.keys())
        for name in names:
            if name not in present:
                raise _not_in_shard(name, path.name)
            yield name, file.get_tensor(name)


@contextmanager
def _safetensors(path: Path, device: str) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt", device=device) as file:
            yield file
    except SafetensorError as error:
        raise WeightsDamaged(f"{path} is no intact safetensors file: {error}", hint=_AGAIN) from error
    except OSError as error:
        raise WeightsDamaged(f"{path} cannot be read: {error}", hint=_AGAIN) from error


def _unpickle(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a ``.bin`` file, mapped into memory; only plain tensors are accepted, nothing is executed."""
    import torch

    try:
        with path.open("rb") as file:
            zipped = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
        # Files written before torch 1.6 are no zip archives and cannot be mapped.
        with warnings.catch_warnings():
            # Torch warns of pickles that are not its own; what it refuses is said below.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise WeightsDamaged(
            f"{path} holds something other than tensors; nothing in it was executed",
            hint="use a checkpoint in the safetensors form, or from a source that you trust",
        ) from error
    # What a malformed pickle or archive raises depends on where it is malformed.
    except (OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise WeightsDamaged(f"{path} is no intact PyTorch file: {_first_line(error)}", hint=_AGAIN) from error
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in content.items()
    ):
        raise WeightsDamaged(f"{path} holds something other than named tensors", hint=_AGAIN)
    return {name: tensor.detach() for name, tensor in content.items()}


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
