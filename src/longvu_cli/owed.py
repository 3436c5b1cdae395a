"""The rows that have no result yet, handed out one by one to whoever answers them.

Each is claimed before it is handed out, so that no other process answers it, too. The rows of a video go to one lane
(a model that answers one question at a time), because that has the features of the video at hand.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from longvu_cli.identity import video_digest
from longvu_cli.manifest import Row
from longvu_cli.result_stream import Results
from longvu_cli.row_keys import row_key


class _State(Enum):
    """What there is to do about a row."""

    SETTLED = auto()  # nothing: it has a result
    CLAIMED = auto()
    ELSEWHERE = auto()  # another process is at it, or another lane at one that is the same


@dataclass
class _Video:
    """Rows of one video.

    Attributes:
        insistent: rows at which others work are passed over one by one. At first they are left to those others with
            all that come after: it is they who are computing the features.
        content: digest of the video, once it was looked at; None: it cannot be read.
    """

    rows: deque[Row]
    insistent: bool = False
    content: str | None = None
    looked_at: bool = False

    def digest(self) -> str | None:
        """Of the content."""
        if not self.looked_at:
            self.content, self.looked_at = video_digest(self.rows[0].video), True
        return self.content


@dataclass(frozen=True)
class _Waiting:
    """A row that others were working on when it was looked at last."""

    row: Row
    key: str


@dataclass
class Owed:
    """Rows without a result.

    Args:
        rows: in the order in which their videos are begun.
        identity: of the model.
        on_settled: hears the key of a row that turns out to have a result.
        largest_first: begin with the largest file. With several lanes the last ones then end at about the same time:
            lengths of videos differ by a thousand.
    """

    rows: Sequence[Row]
    results: Results
    identity: str
    on_settled: Callable[[str], None]
    largest_first: bool = False
    _videos: deque[_Video] = field(init=False)
    _of_lane: dict[int, _Video] = field(init=False, default_factory=dict)
    _waiting: list[_Waiting] = field(init=False, default_factory=list)
    _claims: dict[int, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._videos = deque(_by_video(self.rows))
        if self.largest_first:
            self._videos = deque(sorted(self._videos, key=_bytes, reverse=True))

    @property
    def left(self) -> int:
        """How many more lanes would find something to do, perhaps."""
        return len(self._videos) + bool(self._waiting)

    @property
    def waiting(self) -> bool:
        """Whether others are at rows that may come back."""
        return bool(self._waiting)

    def take(self, lane: int = 0, *, wait: bool) -> Row | None:
        """Claim a row and hand it out; None: there is none for now.

        Args:
            lane: who asks; rows of a video go to the same.
            wait: for rows that other processes are at, until they have a result or those processes are gone. Only who
                has no claim may wait: two processes could wait for each other. None then says that all is done.
        """
        while (video := self._of_lane.get(lane) or self._begun(lane)) is not None:
            if (row := self._next(video)) is not None:
                return row
            del self._of_lane[lane]
        while self._waiting:
            if (row := self._released()) is not None:
                return row
            if not wait or not self._waiting:
                return None
            first = self._waiting.pop(0)
            if self._claim(first.row, first.key, wait=True) is _State.CLAIMED:
                return first.row
        return None

    def key(self, row: Row) -> str:
        """Of a row that was handed out."""
        return self._claims[row.number]

    def leave(self, lane: int, row: Row | None = None) -> None:
        """Take back what a lane has: anybody may go on with its video, and is the next to do so.

        Args:
            row: was handed out, and not answered; it comes first.
        """
        video = self._of_lane.pop(lane, None)
        rows = deque(() if video is None else video.rows)
        if row is not None:
            self.done(row)
            rows.appendleft(row)
        if rows:
            self._videos.appendleft(_Video(rows, insistent=True))

    def done(self, row: Row) -> None:
        """Let go of the claim of a row that was handed out."""
        self.results.release(self._claims.pop(row.number))

    def let_go(self) -> None:
        """Let go of all claims."""
        while self._claims:
            self.results.release(self._claims.popitem()[1])

    def _begun(self, lane: int) -> _Video | None:
        if not self._videos:
            return None
        self._of_lane[lane] = self._videos.popleft()
        return self._of_lane[lane]

    def _next(self, video: _Video) -> Row | None:
        """The next row of a video that is to be answered; None: no more are left here."""
        while video.rows:
            row = video.rows[0]
            key = row_key(row, video.digest(), self.identity)
            state = self._claim(row, key)
            if state is _State.ELSEWHERE and not video.insistent:
                self._videos.append(_Video(video.rows, insistent=True))
                return None
            video.rows.popleft()
            if state is _State.CLAIMED:
                return row
            if state is _State.ELSEWHERE:
                self._waiting.append(_Waiting(row, key))
        return None

    def _released(self) -> Row | None:
        """A row that others have let go of without a result."""
        waiting, self._waiting = self._waiting, []
        while waiting:
            one = waiting.pop(0)
            state = self._claim(one.row, one.key)
            if state is _State.CLAIMED:
                self._waiting += waiting
                return one.row
            if state is _State.ELSEWHERE:
                self._waiting.append(one)
        return None

    def _claim(self, row: Row, key: str, *, wait: bool = False) -> _State:
        if key in self.results.entries:
            self.on_settled(key)
            return _State.SETTLED
        # The same process gets the same claim twice.
        if key in self._claims.values() or not self.results.claim(key, wait=wait):
            return _State.ELSEWHERE
        self._claims[row.number] = key
        if key in self.results.entries:  # since the claim, nobody else can add it
            self.done(row)
            self.on_settled(key)
            return _State.SETTLED
        return _State.CLAIMED


def _by_video(rows: Iterable[Row]) -> list[_Video]:
    """The rows of each video, in the order in which the videos come first."""
    groups: dict[str, deque[Row]] = {}
    for row in rows:
        groups.setdefault(os.path.abspath(row.video), deque()).append(row)
    return list(map(_Video, groups.values()))


def _bytes(video: _Video) -> int:
    try:
        return os.stat(video.rows[0].video).st_size
    except (OSError, ValueError):  # its rows are errors, which takes no time
        return 0
