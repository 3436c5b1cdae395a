"""``--coverage``: a long video asked piece by piece, with what each piece said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longvu_cli.cli.answering import Settings, tell, tell_choice, tell_evidence
from longvu_cli.cli.errors import OK, SOME_FAILED
from longvu_cli.cli.options import EvidenceFlags, VideoFlags
from longvu_cli.cli.output import Output

if TYPE_CHECKING:
    from longvu_cli.coverage import Covered, Merge, Segment
    from longvu_cli.longvu import LongVU


def answer_segments(
    loaded: LongVU,
    command: str,
    video: str,
    question: str,
    settings: Settings,
    moments: VideoFlags,
    output: Output,
    wanted: EvidenceFlags,
    *,
    merge_by: str,
) -> int:
    """Ask each segment, say what it answered, and give the merged answer.

    Args:
        merge_by: a value of ``Merge``.

    Returns:
        The exit code: 6 where some of several segments failed.
    """
    from longvu_cli.cli.rendering import summary
    from longvu_cli.coverage import Merge, ask_segments, merged
    from longvu_cli.records import coverage_record

    merge = Merge(merge_by)
    sampling, compression, prompting, generation = settings
    segments: list[Segment] = []
    with output.progress():
        for segment in ask_segments(
            loaded,
            video,
            question,
            sampling=sampling,
            compression=compression,
            prompting=prompting,
            generation=generation,
            on_progress=output.on_progress,
        ):
            segments.append(segment)
            _tell_segment(segment, merge, output)
    covered = merged(segments, merge)
    if merge is Merge.RELEVANCE:
        output.answer_text(covered.text)
    output.answer_end()
    tell(video, covered.answer.compression, output)
    tell_choice(covered.answer.text, covered.answer.choice, output, has_choices=bool(prompting.choices))
    _tell_merge(covered, output)
    found, clips = tell_evidence(video, covered.answer.compression, wanted, moments.decoding(), output)
    output.summary(summary(covered.answer.compression))
    output.record(coverage_record(command, covered, found, clips))
    failed = any(segment.answer is None for segment in segments)
    return SOME_FAILED if failed else OK


def _tell_segment(segment: Segment, merge: Merge, output: Output) -> None:
    """What a segment said: on stdout where it is part of the answer, and else on stderr."""
    from longvu_cli.coverage import Merge
    from longvu_cli.moments import clock

    where = f"{segment.number} of {segment.total}, {segment.span}"
    if segment.error is not None:
        output.error_text(segment.error, path=where)
        return
    assert segment.answer is not None, "a segment has an answer or an error"
    cut = segment.answer.compression.statistics.truncated_tokens
    if cut:
        output.warning(f"{where}: {cut} tokens were cut for lack of room")
    if merge is Merge.ORDER:
        output.stop_progress()
        output.answer_text(f"{'' if segment.total == 1 else f'[{segment.span}] '}{segment.answer.text}\n")
    elif segment.total > 1:
        best = "" if segment.best is None else f" (closest at {clock(segment.best.time_s)})"
        output.note(f"{where}: {segment.answer.text}{best}")


def _tell_merge(covered: Covered, output: Output) -> None:
    from longvu_cli.coverage import Merge

    count = len(covered.segments)
    if count == 1:
        why = ", for nothing of it had to go" if covered.is_complete else ": it cannot be cut into smaller parts"
        output.note(f"coverage: the video was asked as a whole{why}")
    elif covered.merge is Merge.RELEVANCE:
        output.note(f"coverage: of {count} segments, the answer is that of {covered.chosen.span}")
    else:
        output.note(f"coverage: {len(covered.told)} of {count} segments, one after another")
