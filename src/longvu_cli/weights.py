"""Names of models → folders that hold their weights; only the files that the request needs are fetched (``hub.py``)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from huggingface_hub import is_offline_mode

from longvu_cli.checkpoint import (
    CONFIG_FILE,
    find_weight_file,
    is_index,
    preferred_weight_file,
    read_index,
    shards_holding,
)
from longvu_cli.config import ModelConfig, ModelOptions
from longvu_cli.errors import NotACheckpoint, UsageError, WeightsNotFound
from longvu_cli.hub import DownloadPlan, Hub, Listing, Selection
from longvu_cli.verified import Verified

TINY = "tiny"
DINOV2_REPO = "facebook/dinov2-giant"
SIGLIP_REPO = "google/siglip-so400m-patch14-384"

_TINY_FOLDER = Path(__file__).parent / TINY
_DINOV2_FOLDER = "dinov2"
_SIGLIP_FOLDER = "siglip"
_CONNECTOR_PREFIXES = ("model.mm_projector", "model.vision_query", "model.vision_sampler", "model.image_newline")
EMBEDDINGS = "model.embed_tokens.weight"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
# A fast tokenizer is built from these only where there is no tokenizer.json.
_VOCABULARY_FILES = ("vocab.json", "merges.txt", "tokenizer.model")
# ORG/NAME by the hub's rules: no "--" or "..", no "-" or "." at either end.
_REPO_ID = re.compile(r"(?!.*(--|\.\.))(?!.{97})\w(?:[\w.-]*\w)?/\w(?:[\w.-]*\w)?", re.ASCII)


@dataclass(frozen=True)
class Variant:
    """A released model.

    Attributes:
        name: what ``--model`` calls it.
        repo: its hub repository.
        parameters: of the decoder and the connector, without the towers.
        embedding_parameters: of these, the ones of the input embeddings and ``lm_head``.
    """

    name: str
    repo: str
    parameters: int
    embedding_parameters: int

    @property
    def bytes(self) -> int:
        """Size of the weights, two bytes per parameter."""
        return 2 * self.parameters


def _released() -> Iterator[Variant]:
    sizes = (
        ("7b", "Vision-CAIR/LongVU_Qwen2_7B", 7_671_665_664, 2 * 152_064 * 3584),
        ("3b", "Vision-CAIR/LongVU_Llama3_2_3B", 3_658_867_712, 2 * 128_256 * 3072),
        ("1b", "Vision-CAIR/LongVU_Llama3_2_1B", 1_544_303_616, 2 * 128_256 * 2048),
    )
    for name, repo, parameters, embeddings in sizes:
        yield Variant(name, repo, parameters, embeddings)
        # The image models have no position embeddings: 3 layers, 2 towers, 4 keys, 1024 channels.
        yield Variant(f"{name}-image", f"{repo}_img", parameters - 3 * 2 * 4 * 1024, embeddings)


VARIANTS: Mapping[str, Variant] = MappingProxyType({variant.name: variant for variant in _released()})


@dataclass(frozen=True)
class TowerRepo:
    """A vision tower on the hub, shared by all released models.

    Attributes:
        bytes: about the size of its weight file, four bytes per parameter; SigLIP's holds its text half, too.
    """

    name: str
    repo: str
    bytes: int


TOWERS: Mapping[str, TowerRepo] = MappingProxyType(
    {
        "dinov2": TowerRepo("dinov2", DINOV2_REPO, 4 * 1_136_480_768),
        "siglip": TowerRepo("siglip", SIGLIP_REPO, 4 * 877_960_274),
    }
)


def repo_named(name: str) -> str:
    """The hub repository of a released model, of a tower (``dinov2``, ``siglip``), or of that very name.

    Raises:
        UsageError: it is none, or the model comes from no hub.
    """
    named = {variant.name: variant.repo for variant in VARIANTS.values()}
    named |= {tower.name: tower.repo for tower in TOWERS.values()}
    repo = named.get(name, name)
    if not is_repo_id(repo):
        what = "comes with the package" if name == TINY else "is neither a released model nor a hub repository"
        raise UsageError(f"{name!r} {what}", hint=f"name one of {', '.join(named)}, or ORG/NAME")
    return repo


class Part(Enum):
    """How much of a model a command needs; the config, the tokenizer and the towers always belong to it."""

    VISION = "vision"
    """The connector; no tensor of the language model."""
    QUESTION = "question"
    """The connector and the language model's input embeddings."""
    ANSWER = "answer"
    """Everything."""

    def needs(self, tensor: str) -> bool:
        """Whether the tensor of this name belongs to the part."""
        if self is Part.ANSWER:
            return True
        return tensor.startswith(_CONNECTOR_PREFIXES) or (self is Part.QUESTION and tensor == EMBEDDINGS)


@dataclass(frozen=True)
class Weights:
    """Where the weights of one model are on this machine.

    Attributes:
        name: the short name, repository id or folder name.
        source: the repository id, or the path of the folder.
        revision: the commit; None for a folder.
        checkpoint: folder of the language model and the connector.
        dinov2, siglip: folders of the towers.
    """

    name: str
    source: str
    revision: str | None
    checkpoint: Path
    dinov2: Path
    siglip: Path


def locate(
    options: ModelOptions,
    part: Part,
    *,
    on_download: Callable[[DownloadPlan], None],
    on_check: Callable[[str, int], None] = lambda repo, size: None,
    tqdm_class: type[Any] | None = None,
) -> Weights:
    """Find the weights, and download into the Hugging Face cache what is missing.

    Args:
        part: how much of the model is needed; of a sharded checkpoint only the shards with that part are fetched.
        on_download: hears of each repository's download before it starts.
        on_check: hears how many bytes of a repository are about to be read, to be compared with what the hub lists.
        tqdm_class: draws the progress, as :func:`huggingface_hub.hf_hub_download` takes it; None draws nothing.

    Raises:
        UsageError: the model's name is none, or ``revision`` is given for a folder.
        WeightsNotFound: there is no such folder, repository, revision or file.
        NotACheckpoint: the folder or repository holds no LongVU model.
        WeightsGated: the hub wants a login or an accepted licence.
        HubUnreachable: the hub does not answer, or is not to be asked, and the cache is not complete.
        DownloadFailed: the transfer broke off, or there is no room for it.
        WeightsDamaged: what arrived, or what the cache has while the hub is out of reach, is not what the hub lists.
    """
    hub = Hub(options.offline or is_offline_mode(), on_download, on_check, tqdm_class, Verified.default())
    source = _model_source(options)
    if isinstance(source, Path):
        return _locate_folder(options, source, hub)
    return _locate_repo(options, source, part, hub)


def _locate_folder(options: ModelOptions, folder: Path, hub: Hub) -> Weights:
    find_weight_file(folder)
    ModelConfig.from_file(folder / CONFIG_FILE)
    towers = _Towers.of(options, {name for name in (_DINOV2_FOLDER, _SIGLIP_FOLDER) if (folder / name).is_dir()})
    selections = towers.selections(hub)
    hub.fetch(selections)
    return Weights(
        name=folder.resolve().name if options.model != TINY else TINY,
        source=str(folder),
        revision=None,
        checkpoint=folder,
        dinov2=towers.folder(towers.dinov2, folder, selections),
        siglip=towers.folder(towers.siglip, folder, selections),
    )


def _locate_repo(options: ModelOptions, repo: str, part: Part, hub: Hub) -> Weights:
    listing = hub.listing(repo, options.revision)
    towers, selection = _checkpoint_files(options, listing, part, hub)
    selections = towers.selections(hub)
    hub.fetch([selection, *selections])
    return Weights(
        name=options.model,
        source=repo,
        revision=listing.commit,
        checkpoint=listing.snapshot,
        dinov2=towers.folder(towers.dinov2, listing.snapshot, selections),
        siglip=towers.folder(towers.siglip, listing.snapshot, selections),
    )


def _checkpoint_files(options: ModelOptions, listing: Listing, part: Part, hub: Hub) -> tuple[_Towers, Selection]:
    """Where the towers come from, and the files that are needed of the model's own repository."""
    _require_longvu(listing, hub)
    towers = _Towers.of(options, {name for name in (_DINOV2_FOLDER, _SIGLIP_FOLDER) if _has_model(listing, name)})
    files = [*_tokenizer_files(listing), CONFIG_FILE, *_weight_files(listing, "", part.needs, hub)]
    for tower in (towers.dinov2, towers.siglip):
        if isinstance(tower, _Subfolder):
            files += _tower_files(listing, f"{tower.name}/", hub)
    return towers, Selection(listing, tuple(files))


def needed_files(repo: str, hub: Hub) -> Selection:
    """The files that are needed to answer with a model, or of a tower; small ones are fetched to know them.

    Raises:
        WeightsError: they cannot be told: see :func:`locate`.
    """
    listing = hub.listing(repo, None)
    if repo in (DINOV2_REPO, SIGLIP_REPO):
        return Selection(listing, tuple(_tower_files(listing, "", hub)))
    return _checkpoint_files(ModelOptions(model=repo), listing, Part.ANSWER, hub)[1]


def _model_source(options: ModelOptions) -> Path | str:
    """A folder, or the id of a repository."""
    if options.model in VARIANTS:
        return VARIANTS[options.model].repo
    source = _installed_tiny_folder() if options.model == TINY else _folder_or_repo(options.model)
    if source is None:
        raise UsageError(
            f"there is no model named {options.model!r}",
            hint=f"choose one of {', '.join([*VARIANTS, TINY])}, a hub repository (ORG/NAME) or a folder",
        )
    if isinstance(source, Path) and options.revision is not None:
        raise UsageError(
            f"--revision {options.revision} has no meaning for the folder {source}",
            hint="leave --revision out, or name a hub repository",
        )
    return source


def tiny_folder() -> Path:
    """Where an installation has the tiny model and the clip of its world, if it has them."""
    return _TINY_FOLDER


def _installed_tiny_folder() -> Path:
    folder = tiny_folder()
    if not (folder / CONFIG_FILE).is_file():
        raise WeightsNotFound(
            "the tiny model is not part of this installation", hint=f"choose one of {', '.join(VARIANTS)}"
        )
    return folder


def _folder_or_repo(text: str) -> Path | str | None:
    """What a user means by the text; None: neither a path nor a repository id."""
    if os.path.isdir(text) or text.startswith((".", "~")) or os.path.isabs(text) or "\\" in text:
        return _existing_folder(text)
    if text.count("/") > 1 or text.endswith("/") or os.path.isfile(text):
        return _existing_folder(text)
    return text if is_repo_id(text) else None


def is_repo_id(text: str) -> bool:
    """Whether it is the form of a hub repository's id, ORG/NAME."""
    return _REPO_ID.fullmatch(text) is not None


def _existing_folder(text: str) -> Path:
    folder = Path(os.path.expanduser(text))
    if os.path.isfile(folder):
        raise NotACheckpoint(f"{text} is a file, not a folder", hint=f"name its folder: {folder.parent}")
    if not os.path.isdir(folder):
        raise WeightsNotFound(f"there is no folder {text}", hint="check the path")
    return folder


@dataclass(frozen=True)
class _Subfolder:
    """A tower that lies in the checkpoint's own folder."""

    name: str


@dataclass(frozen=True)
class _Towers:
    """Where each tower comes from: a folder, a hub repository (its id), or a subfolder of the checkpoint."""

    dinov2: Path | str | _Subfolder
    siglip: Path | str | _Subfolder

    @classmethod
    def of(cls, options: ModelOptions, subfolders: set[str]) -> _Towers:
        return cls(
            dinov2=_tower_source("--dinov2", options.dinov2, _DINOV2_FOLDER, subfolders, DINOV2_REPO),
            siglip=_tower_source("--siglip", options.siglip, _SIGLIP_FOLDER, subfolders, SIGLIP_REPO),
        )

    def selections(self, hub: Hub) -> list[Selection]:
        """What is needed of the towers' own repositories."""
        listings = [hub.listing(tower, None) for tower in (self.dinov2, self.siglip) if isinstance(tower, str)]
        return [Selection(listing, tuple(_tower_files(listing, "", hub))) for listing in listings]

    @staticmethod
    def folder(tower: Path | str | _Subfolder, checkpoint: Path, selections: Sequence[Selection]) -> Path:
        """The folder of a tower, once everything is fetched.

        Raises:
            NotACheckpoint, WeightsNotFound: it holds no model.
        """
        if isinstance(tower, str):
            return next(item.listing.snapshot for item in selections if item.listing.repo == tower)
        folder = checkpoint / tower.name if isinstance(tower, _Subfolder) else tower
        find_weight_file(folder)
        return folder


def _tower_source(
    flag: str, option: str | None, subfolder: str, subfolders: set[str], default: str
) -> Path | str | _Subfolder:
    if option is None:
        return _Subfolder(subfolder) if subfolder in subfolders else default
    source = _folder_or_repo(option)
    if source is None:
        raise UsageError(f"{flag} {option!r} is neither a folder nor a hub repository (ORG/NAME)")
    return source


def _has_model(listing: Listing, folder: str) -> bool:
    return f"{folder}/{CONFIG_FILE}" in listing.files


def _require_longvu(listing: Listing, hub: Hub) -> None:
    """Look at config.json first: nobody wants to learn after 15 GB that the model is another one."""
    _require_config(listing, "")
    hub.fetch([Selection(listing, (CONFIG_FILE,))])
    ModelConfig.from_file(listing.snapshot / CONFIG_FILE)


def _require_config(listing: Listing, prefix: str) -> None:
    if prefix + CONFIG_FILE not in listing.files:
        raise NotACheckpoint(
            f"the repository {listing.repo} has no {prefix}{CONFIG_FILE}", hint="check the repository's name"
        )


def _tokenizer_files(listing: Listing) -> list[str]:
    names = _TOKENIZER_FILES if _TOKENIZER_FILES[0] in listing.files else _TOKENIZER_FILES + _VOCABULARY_FILES
    return [name for name in names if name in listing.files]


def _tower_files(listing: Listing, prefix: str, hub: Hub) -> list[str]:
    _require_config(listing, prefix)
    settings = (prefix + CONFIG_FILE, f"{prefix}preprocessor_config.json")
    weights = _weight_files(listing, prefix, lambda tensor: True, hub)
    return [*(file for file in settings if file in listing.files), *weights]


def _weight_files(listing: Listing, prefix: str, needs: Callable[[str], bool], hub: Hub) -> list[str]:
    """The weight files under the prefix that hold the needed tensors; an index is fetched to know them."""
    names = [file.removeprefix(prefix) for file in listing.files if file.startswith(prefix)]
    main = preferred_weight_file(names)
    if main is None:
        raise WeightsNotFound(
            f"the repository {listing.repo} has no weights in a known form", hint="check the repository's name"
        )
    if not is_index(main):
        return [prefix + main]
    hub.fetch([Selection(listing, (prefix + main,))])
    weight_map = read_index(listing.snapshot / (prefix + main))
    shards = [prefix + file for file in shards_holding(weight_map, {name for name in weight_map if needs(name)})]
    for shard in shards:
        if shard not in listing.files:
            raise WeightsNotFound(
                f"the repository {listing.repo} lacks {shard}, which its index names", hint="choose another revision"
            )
    return [prefix + main, *shards]
