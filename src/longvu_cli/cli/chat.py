"""``longvu chat``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longvu_cli.cli.answering import require_video, tell
from longvu_cli.cli.errors import OK, SOME_FAILED, exit_code
from longvu_cli.cli.loading import load_model
from longvu_cli.cli.options import AnswerFlags, CacheFlags, CompressionFlags, ContextFlags, ModelFlags, VideoFlags
from longvu_cli.cli.output import Output
from longvu_cli.cli.text import spoken
from longvu_cli.errors import LongVUError, UsageError

if TYPE_CHECKING:
    from longvu_cli.conversation import Conversation
    from longvu_cli.records import Record
    from longvu_cli.results import Answer, History

_COMMAND = "/"
_PROMPT = "> "


def chat(
    output: Output,
    video: Annotated[str, typer.Argument(help="A video file, or a picture.", metavar="VIDEO")],
    *,
    model: ModelFlags,
    moments: VideoFlags,
    compression: CompressionFlags,
    cache: CacheFlags,
    answer: AnswerFlags,
    context: ContextFlags,
) -> int:
    """Ask one question after another about a video.

    The video is watched once, and earlier questions and answers are understood. At a terminal: /stats shows what was
    kept of the video for the last question, /evidence the moments that matter most for it, /save FILE writes the
    conversation (as JSON lines where the name ends in .jsonl), /reset forgets what was said, /help and /quit do what
    they say; Ctrl-C stops an answer.

    Questions can be piped in, too, one a line: each answer is then one line of stdout. The exit code is 6 if some of
    several could not be answered.
    """
    sampling, prompting, generation = moments.options(), context.options(), answer.options()
    compressing = compression.options()
    require_video(video, sampling, moments.decoding())
    loaded = load_model(model, "ANSWER", output, cache, moments.decoding())
    talk = loaded.conversation(
        video, sampling=sampling, compression=compressing, prompting=prompting, generation=generation
    )
    if sys.stdin.isatty() and output.at_terminal:
        return _Chat(talk, video, output, is_typed=True).hear(_typed_lines(output))
    return _Chat(talk, video, output, is_typed=False).hear(_piped_lines())


class _Chat:
    """A conversation, line by line."""

    def __init__(self, talk: Conversation, video: str, output: Output, *, is_typed: bool) -> None:
        self._talk = talk
        self._video = video
        self._output = output
        self._is_typed = is_typed
        self._records: list[Record] = []
        self._last: Answer | None = None
        self._told_dropped = 0
        self._written: set[Path] = set()
        self._commands: dict[str, Callable[[str], None]] = {
            "stats": self._stats,
            "evidence": self._evidence,
            "save": self._save,
            "reset": self._reset,
            "help": self._help,
        }

    def hear(self, lines: Iterator[str]) -> int:
        """Answer line after line; returns the exit code."""
        asked, failures = 0, []
        for line in lines:
            said = line.strip()
            if said == f"{_COMMAND}quit":
                break
            if not said:
                continue
            is_command = said.startswith(_COMMAND) and not said.startswith(_COMMAND * 2)
            asked += not is_command
            try:
                if is_command:
                    self._obey(said)
                else:
                    self._ask(spoken(said.removeprefix(_COMMAND)))
            except LongVUError as error:
                failures.append(exit_code(error))
                self._tell_failure(error, is_command=is_command)
            except KeyboardInterrupt:
                if not self._is_typed:
                    raise
                self._output.answer_end()
                self._output.note("stopped")
        if self._is_typed:
            return OK
        if not asked:
            raise UsageError("no question was asked", hint="pipe questions in, one a line")
        if failures and asked > 1:
            return SOME_FAILED
        return failures[0] if failures else OK

    def _tell_failure(self, error: LongVUError, *, is_command: bool) -> None:
        """Every question that is piped in has its line of stdout, also one without an answer; commands have none."""
        if is_command:
            self._output.error_text(error)
            return
        self._output.error(error)
        if not self._is_typed:
            self._output.answer_text("\n")

    def _ask(self, question: str) -> None:
        """Give an answer: as it comes to who typed the question, and as one line where questions are lines."""
        from longvu_cli.records import chat_record

        answer: Answer | None = None
        stream = self._talk.stream(question, on_progress=self._output.on_progress)
        with self._output.progress(), closing(stream) as chunks:
            for chunk in chunks:
                self._output.stop_progress()
                if self._is_typed:
                    self._output.answer_text(chunk.text)
                answer = chunk.answer
        assert answer is not None, "the last chunk carries the answer"
        if not self._is_typed:
            self._output.answer_text(" ".join(answer.text.split("\n")))
        self._output.answer_end()
        if self._last is None:
            tell(self._video, answer.compression, self._output)
        self._tell_dropped(answer.history)
        self._last = answer
        record = chat_record(len(self._talk.turns), answer)
        self._records.append(record)
        self._output.record(record)

    def _tell_dropped(self, history: History) -> None:
        if history.dropped > self._told_dropped:
            turns = f"the oldest {history.dropped} of {history.turns + history.dropped} turns"
            self._output.note(f"{turns} no longer fit beside the video, and were left out")
        self._told_dropped = history.dropped

    # --- commands

    def _obey(self, said: str) -> None:
        name, _, rest = said.removeprefix(_COMMAND).partition(" ")
        command = self._commands.get(name)
        if command is None:
            raise UsageError(f"{_COMMAND}{name} is no command", hint="/help lists them; a question may begin with //")
        command(rest.strip())

    def _stats(self, _: str) -> None:
        if self._last is None:
            raise UsageError("nothing was kept of the video yet", hint="ask a question first")
        from longvu_cli.cli.rendering import stats

        self._output.show(stats(self._last.compression))

    def _evidence(self, count: str) -> None:
        if self._last is None:
            raise UsageError("there is no answer yet", hint="ask a question first")
        if count and not (count.isdecimal() and int(count)):
            raise UsageError(f"{count} is no number of moments", hint="/evidence, or /evidence 5")
        from longvu_cli.cli.rendering import evidence_told

        compression = self._last.compression
        found = compression.evidence(int(count)) if count else compression.evidence()
        self._output.show(evidence_told(compression, found))

    def _save(self, name: str) -> None:
        if not name:
            raise UsageError("/save needs the name of a file", hint="/save talk.txt, or /save talk.jsonl")
        path = Path(name).expanduser()
        if path.suffix == ".jsonl":
            content = "".join(f"{json.dumps(record, allow_nan=False)}\n" for record in self._records)
        else:
            content = "\n".join(f"> {record['question']}\n{record['answer']}\n" for record in self._records)
        try:
            # A file of this conversation is brought up to date; another one is left alone.
            with path.open("w" if path in self._written else "x", encoding="utf-8") as file:
                file.write(content)
        except FileExistsError:
            raise UsageError(f"{path} is there already", hint="choose another name") from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise UsageError(f"{path} cannot be written: {reason}", hint="choose another name") from error
        self._written.add(path)
        self._output.note(f"{len(self._records)} answers written to {path}")

    def _reset(self, _: str) -> None:
        self._talk.reset()
        self._told_dropped = 0
        self._output.note("what was said is forgotten; the video is not")

    def _help(self, _: str) -> None:
        self._output.show(_HELP)


_HELP = """\
/stats      what was kept of the video for the last question
/evidence   the moments that matter most for the last question (/evidence 5: five), and what was not seen
/save FILE  write the conversation to a file (as JSON lines where its name ends in .jsonl)
/reset      forget what was said
/quit       end; so does Ctrl-D
Ctrl-C      stop an answer"""


def _piped_lines() -> Iterator[str]:
    """The lines of stdin, as they come; what is no UTF-8 is left to :func:`spoken`."""
    for line in sys.stdin.buffer:
        yield line.decode(errors="surrogateescape")


def _typed_lines(output: Output) -> Iterator[str]:
    """What someone types, with editing and the lines before at the arrow keys; ends with Ctrl-D."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.output import create_output

    words = [f"{_COMMAND}{name}" for name in ("stats", "evidence", "save", "reset", "help", "quit")]
    session: PromptSession[str] = PromptSession(
        output=create_output(sys.stderr),
        completer=WordCompleter(words, sentence=True),
        complete_while_typing=False,
    )
    output.note("ask about the video; /help lists commands, Ctrl-D ends")
    while True:
        try:
            yield session.prompt(_PROMPT)
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
