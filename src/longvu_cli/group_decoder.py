"""Planned groups of pictures → the sampled frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import av
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from longvu_cli.frames import Pixels
from longvu_cli.groups import GroupPlan, Irregular, may_skip_unreferenced
from longvu_cli.pixels import Orientation, rgb
from longvu_cli.side_by_side import Channel


@dataclass(frozen=True)
class Picture:
    """A sampled frame as a worker hands it over.

    Attributes:
        pixels: [H, W, 3], upright.
        orientation: as the group of pictures says; None: it does not, and that of the first frame was assumed.
    """

    pts: int
    pixels: Pixels
    orientation: Orientation | None


class GroupDecoder:
    """Decodes what was planned of groups of pictures, one group after the other.

    Args:
        context: of one thread, so that what is said of a packet holds for its frame.
        orientation: for frames that carry none.
        size: (width, height) upright that all frames have.
        beat: called before each packet is decoded.
    """

    def __init__(
        self,
        context: VideoCodecContext,
        orientation: Orientation,
        size: tuple[int, int],
        beat: Callable[[], None],
    ) -> None:
        self._beat = beat
        self._context = context
        self._orientation = orientation
        self._size = size
        self._skips = may_skip_unreferenced(context)
        self._reformatter = VideoReformatter()

    def __call__(self, plan: GroupPlan, channel: Channel[Picture]) -> None:
        """Hand over the sampled frames.

        Raises:
            Irregular: the frames are not the ones that the packets announced.
        """
        wanted = deque(frame.pts for frame in plan.sampled)
        orientation: Orientation | None = None
        for frame in self._decoded(plan, channel):
            if frame.is_corrupt:
                raise Irregular
            orientation = Orientation.of_frame(frame) or orientation
            if wanted and frame.pts == wanted[0]:
                wanted.popleft()
                channel.put(Picture(frame.pts, self._pixels(frame, orientation), orientation))
        if wanted:
            raise Irregular

    def _decoded(self, plan: GroupPlan, channel: Channel[Picture]) -> Iterator[VideoFrame]:
        """The sampled frames in the order of display, and those that they need."""
        sampled = {frame.pts for frame in plan.sampled}
        self._context.flush_buffers()
        try:
            for number, packet in enumerate(plan.packets):
                channel.refuse_stopped()
                self._beat()
                is_needed = number == 0 or packet.pts in sampled or not self._skips
                self._context.skip_frame = "DEFAULT" if is_needed else "NONREF"
                yield from self._context.decode(packet)
            yield from self._context.decode(None)
        except av.FFmpegError:
            raise Irregular from None

    def _pixels(self, frame: VideoFrame, orientation: Orientation | None) -> Pixels:
        """[H, W, 3], upright."""
        shown_as = orientation or self._orientation
        if shown_as.shown_size(frame.width, frame.height) != self._size:
            raise Irregular
        return shown_as.upright(rgb(frame, frame.width, frame.height, self._reformatter))
