"""Pictures that a video shows again and again are looked at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch


class OncePerPicture:
    """Computes something of each picture, and of one that repeats only once. Holds the last picture's result alone."""

    def __init__(self) -> None:
        self._picture: int | None = None
        self._result: torch.Tensor | None = None

    def of(self, pictures: Sequence[int], compute: Callable[[list[int]], torch.Tensor]) -> torch.Tensor:
        """The result for each of some pictures.

        Args:
            pictures: [n] numbers, n ≥ 1; two neighbours, here or from one call to the next, are the same picture where
                they have the same number.
            compute: takes m positions in ``pictures`` and returns [m, …].

        Returns:
            [n, …].
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
        if len(wanted) == len(pictures):
            return results
        which = torch.tensor(is_new, device=results.device).cumsum(0) - int(is_new[0])
        return results[which]
