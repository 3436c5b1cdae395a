"""Pictures that a video shows again and again are looked at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class OfPictures:
    """What was computed of some pictures, and which frame shows which.

    Attributes:
        results: [m, …], one of each picture.
        which: [n] int64, on the device of the results: the row of each frame's picture.
    """

    results: torch.Tensor
    which: torch.Tensor

    def __len__(self) -> int:
        return len(self.which)

    def of_frames(self, rows: slice | torch.Tensor) -> torch.Tensor:
        """[k, …] for k of the n frames, a copy."""
        return self.results[self.which[rows]]


class OncePerPicture:
    """Computes something of each picture, and of one that repeats only once. Holds the last picture's result alone."""

    def __init__(self) -> None:
        self._picture: int | None = None
        self._result: torch.Tensor | None = None

    def of(self, pictures: Sequence[int], compute: Callable[[list[int]], torch.Tensor]) -> OfPictures:
        """The result for each of some frames.

        Args:
            pictures: [n] numbers, n ≥ 1, one per frame; two neighbours, here or from one call to the next, show the
                same picture where they have the same number.
            compute: takes m positions in ``pictures`` and returns [m, …].
        """
        is_new = [picture != before for before, picture in zip([self._picture, *pictures], pictures, strict=False)]
        wanted = [position for position, new in enumerate(is_new) if new]
        results = compute(wanted) if wanted else None
        if self._result is not None and not is_new[0]:
            results = self._result if results is None else torch.cat((self._result, results))
        if results is None:
            raise ValueError("there are no pictures")
        # A copy: a part of the results would keep all of them.
        self._picture, self._result = pictures[-1], results[-1:].clone()
        which = torch.tensor(is_new).cumsum(0) - int(is_new[0])
        return OfPictures(results, which.to(results.device))
