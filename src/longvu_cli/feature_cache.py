"""The features of videos on disk, so that the next question about a video decodes nothing and runs no tower.

One safetensors file per video and settings, named by a digest of everything that its content depends on. Files are
written aside and renamed, so that processes can share the folder; the least recently used leave when it grows too big.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from longvu_cli.config import Decoder, DecodingOptions, Recipe, SamplingOptions
from longvu_cli.encoded_video import EncodedVideo
from longvu_cli.feature_folder import FACTS, SUFFIX, FeatureFolder
from longvu_cli.video import VideoInfo
from longvu_cli.video_file import printable
from longvu_cli.whole_file import whole_file

DEFAULT_MAX_BYTES = 10 * 10**9

# Raised when the features of the same video and settings, or what is kept beside them, change between versions of this
# package.
_FORMAT = 3
# Pieces of a video that its digest reads; with its size and time of change they tell one file from another.
_PIECES, _PIECE_BYTES = 64, 2**16


class FeatureCache:
    """A bounded folder of encoded videos.

    Args:
        folder: made when the first entry is written.
        max_bytes: how large it may grow.

    Attributes:
        trouble: a sentence on why the last entry was not kept; None: it was, or there was none yet.
    """

    def __init__(self, folder: Path, *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.trouble: str | None = None

    @classmethod
    def default(cls) -> FeatureCache:
        """The user's own."""
        return cls(FeatureFolder.default().folder)

    def get(self, key: str) -> tuple[EncodedVideo, VideoInfo] | None:
        """The entry of a key; None where there is none, or none that can be read."""
        path = self._path(key)
        try:
            with safe_open(path, framework="pt") as file:
                facts = json.loads(file.metadata()[FACTS])
                encoded = EncodedVideo(
                    times=tuple(facts["times"]),
                    similarity=file.get_tensor("similarity"),
                    indices=file.get_tensor("indices"),
                    fused=file.get_tensor("fused"),
                    size=(facts["size"][0], facts["size"][1]),
                    image=facts["image"],
                )
            if facts["checksum"] != _checksum(encoded):
                raise ValueError("a bit of it has changed")
            info = VideoInfo(**{**facts["video"], "warnings": tuple(facts["video"]["warnings"])})
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, IndexError):
            # A damaged entry is worth no error: it is made again.
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        with suppress(OSError):  # a cache that may only be read knows no least recently used entry
            os.utime(path)
        return encoded, info

    def put(self, key: str, encoded: EncodedVideo, info: VideoInfo) -> None:
        """Keep an entry.

        A cache that cannot be written is not an error, since the answer does not need it: ``trouble`` says why.
        """
        facts = {
            "times": encoded.times,
            "size": encoded.size,
            "image": encoded.image,
            "video": asdict(info),
            "checksum": _checksum(encoded),
        }
        tensors = {
            "similarity": encoded.similarity.contiguous(),
            "indices": encoded.indices.contiguous(),
            "fused": encoded.fused.contiguous(),
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with whole_file(self._path(key), private=True) as aside:
                save_file(tensors, aside, metadata={FACTS: json.dumps(facts)})
            FeatureFolder(self.folder).prune(max_bytes=self.max_bytes)
        except (OSError, SafetensorError) as error:
            self.trouble = (
                f"the features of videos cannot be kept in {printable(str(self.folder))} ({_reason(error)}): "
                "the next question about a video decodes it again"
            )
        else:
            self.trouble = None

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"


def cache_key(
    path: Path,
    sampling: SamplingOptions,
    recipe: Recipe,
    *,
    decoding: DecodingOptions,
    model: str,
    dtype: str,
    device: str,
    compiled: bool = False,
) -> str | None:
    """A digest of everything that a video's features depend on; None when it is no file that can be read.

    Args:
        decoding: only whether the GPU decodes matters, whose frames were compared for some codecs only.
        model: identifies the weights of the towers and the connector.
        device: kind of device, since kinds round differently.
        compiled: whether the towers are compiled, which rounds differently, too.
    """
    facts = {
        "format": _FORMAT,
        # An option that came later leaves the keys alone where it changes nothing.
        "sampling": {key: value for key, value in asdict(sampling).items() if key != "thin_above" or value},
        "nvdec": decoding.decoder is Decoder.NVDEC,
        "recipe": [recipe.name, recipe.orientation, recipe.temporal_reduction, recipe.dino_threshold, recipe.still],
        "grids": [recipe.high_side, recipe.low_side],
        "model": model,
        "dtype": dtype,
        "device": device,
        **({"compiled": True} if compiled else {}),
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    try:
        for piece in _pieces(path):
            digest.update(piece)
    except (OSError, ValueError):  # opening the video says what is wrong with it
        return None
    return digest.hexdigest()


def files_identity(files: Iterable[Path]) -> str:
    """Tells one set of weight files from another: names, sizes and times of change."""
    facts = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _reason(error: OSError | SafetensorError) -> str:
    """What the system says, without the name of the file, which differs each time."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    # The library that writes the file tells the system's errors in words of its own.
    number = re.search(r"(?:code: |os error )(\d+)", str(error))
    return os.strerror(int(number[1])) if number else "it cannot be written"


def _checksum(encoded: EncodedVideo) -> int:
    """Of all tensors: a disk or a crash may damage an entry where its form does not tell."""
    checksum = 0
    for tensor in (encoded.similarity, encoded.indices, encoded.fused):
        checksum = zlib.crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data, checksum)
    return checksum


def _pieces(path: Path) -> Iterator[bytes]:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise FileNotFoundError(f"{path} is no regular file")
    yield f"{status.st_size} {status.st_mtime_ns}".encode()
    step = max(_PIECE_BYTES, status.st_size // _PIECES)
    with path.open("rb") as file:
        for start in range(0, status.st_size, step):
            file.seek(start)
            yield file.read(_PIECE_BYTES)
