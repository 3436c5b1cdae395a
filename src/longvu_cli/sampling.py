"""Sampled moments: which of the frames that go by are looked at, and how often each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from longvu_cli.config import SamplingOptions

# Ten hours at one frame per second fit; after that the distance between samples doubles again and again.
MAX_FRAMES = 40_000
# One frame that stays on display is sampled this often at most (an hour at one frame per second).
MAX_REPEATS = 3_600
# Time bases are rounded (to whole milliseconds in Matroska): a frame this much late still counts as on display.
TOLERANCE_S = 0.002


def thinned(sampling: SamplingOptions, frames: int | None) -> SamplingOptions:
    """The sampling of a video of which so many frames would be looked at: with ``thin_above``, at a lower rate.

    Thinning what is thinned changes nothing.

    Args:
        frames: None: unknown, and then none are left out.
    """
    if frames is None or not 0 < sampling.thin_above < frames:
        return sampling
    return replace(sampling, fps=sampling.fps / (frames // sampling.thin_above))


@dataclass
class Sampler:
    """Counts off the sampled moments as frames go by in the order of their display.

    After ``MAX_FRAMES`` samples the distance between them doubles, after half as many again, and so on: even a video of
    a week has little more than twice as many.

    Attributes:
        sampling: which moments are looked at.
        finished: whether no later frame will be sampled.
        capped: whether moments were left out because there were too many.
    """

    sampling: SamplingOptions
    finished: bool = False
    capped: bool = False
    _position: int = 0
    _stride: int = 1
    _allotment: int = field(default_factory=lambda: MAX_FRAMES)
    _left: int = field(default_factory=lambda: MAX_FRAMES)

    def take(self, end_s: float) -> int:
        """How many sampled moments are left before ``end_s``, when the frame at hand goes off display.

        Args:
            end_s: seconds after the first frame of the file.
        """
        sampling = self.sampling
        # Samples may be so close together that the usual tolerance would blur them.
        end_s -= min(TOLERANCE_S, 0.25 / sampling.fps)
        taken = 0
        while not self.finished and (moment := sampling.start_s + self._position / sampling.fps) < end_s:
            if sampling.end_s is not None and moment >= sampling.end_s:
                self.finished = True
            elif taken == MAX_REPEATS:
                self.capped = True
                self._position = math.ceil((end_s - sampling.start_s) * sampling.fps)
                break
            else:
                taken += 1
                self._advance()
        return taken

    def take_last(self, end_s: float) -> int:
        """The same for the last frame of the video: one at least where the video reaches the range."""
        taken = self.take(end_s)
        if self._position == 0 and self.sampling.start_s < end_s:
            self._advance()
            return 1
        return taken

    def copy(self) -> Sampler:
        """Another one that stands at the same moment."""
        return replace(self)

    def _advance(self) -> None:
        self.capped |= self._stride > 1
        self._position += self._stride
        self._left -= 1
        if self._left == 0:
            self._allotment = max(self._allotment // 2, 1)
            self._stride, self._left = self._stride * 2, self._allotment
