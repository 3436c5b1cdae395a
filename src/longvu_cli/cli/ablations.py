"""``--ablate``: the option, and the tables of the paper with what came out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from longvu_cli.cli.options import option
from longvu_cli.cli.tables import plain_table, words
from longvu_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from longvu_cli.config import CompressionOptions
    from longvu_cli.evaluation.ablation import AblationRow, AblationTable, RowScores, Score, TableName
    from longvu_cli.evaluation.proportions import PairedDifference
    from longvu_cli.evaluation.published_ablations import PublishedRow

# The name of a row may be broken into so many characters, and a number has so many, with the space after it.
_NAME_WIDTH, _NUMBER_WIDTH = 19, 6
# What stands for 144 and 64 tokens per frame in other models.
_TOKENS = {"full": "144", "low": "64", "low/full": "64/144", "dynamic": "dynamic"}


def ablate_option(panel: str) -> Any:
    """``--ablate``, for a command's own panel."""
    return option(
        "--ablate",
        panel=panel,
        metavar="LIST",
        help="Run the rows of these tables of the paper: table3, table4, table5, table8, table9.",
    )


def tables_named(text: str | None, compression: CompressionOptions) -> tuple[TableName, ...]:
    """The tables that the option names, each once.

    Raises:
        UsageError: one is none, or the rows would overrule a setting.
    """
    from longvu_cli.evaluation.ablation import require_free

    if text is None:
        return ()
    require_free(compression)
    return tuple(dict.fromkeys(_table_name(word) for word in words(text)))


def _table_name(word: str) -> TableName:
    from longvu_cli.evaluation.ablation import TableName

    try:
        return TableName(word)
    except ValueError:
        raise UsageError(f"--ablate has {word!r}, which is none", hint=f"known are {', '.join(TableName)}") from None


def ablation_tables(
    told: AblationTable,
    rows: Sequence[RowScores],
    *,
    width: int,
    whole: str = "all",
    paper: Sequence[PublishedRow] = (),
) -> list[Table]:
    """The right answers in percent, as the paper has them, and the rates of reduction.

    Args:
        width: characters of a line; a table with more columns goes on in another one.
        whole: the name of the column for all questions.
        paper: what the paper has in the same rows, if anything.
    """
    from longvu_cli.evaluation.ablation import Columns

    # There is no room for more beside a column for each kind of question.
    if told.columns is Columns.KIND:
        right = list(_by_kind(rows, width, whole, paper))
    else:
        right = [_by_length(rows, whole, paper)]
    right[0].title, right[0].title_justify, right[0].title_style = told.title, "left", "bold"
    return [*right, _rates(rows, paper)]


def _by_kind(rows: Sequence[RowScores], width: int, whole: str, paper: Sequence[PublishedRow]) -> Iterator[Table]:
    decimals = _decimals(paper)
    for names in _blocks([*_parts(rows, paper), whole], width):
        table = plain_table("", *map(_broken, names))
        _tighten(table, padding=1)
        for one, own in _beside(rows, paper):
            table.add_row(one.row.name, *(_measured(one, name, whole) for name in names))
            if own is not None:
                table.add_row(_paper_name(), *(_published(own, name, whole, decimals) for name in names))
        yield table


def _tighten(table: Table, *, padding: int) -> None:
    """Where there is not enough room, the names of the rows are broken, and no number is."""
    table.padding = (0, padding, 0, 0)
    for column in table.columns[1:]:
        column.min_width, column.no_wrap = _NUMBER_WIDTH - 1, True


def _blocks(names: Sequence[str], width: int) -> Iterator[list[str]]:
    """Columns that fit beside the names of the rows."""
    block: list[str] = []
    left = width - _NAME_WIDTH
    for name in names:
        needed = max(_NUMBER_WIDTH, *(len(line) + 1 for line in _broken(name).split("\n")))
        if block and needed > left:
            yield block
            block, left = [], width - _NAME_WIDTH
        block.append(name)
        left -= needed
    yield block


def _broken(name: str) -> str:
    """The name of a column on several lines."""
    return name.replace("_", "_\n").replace(" ", "\n")


def _by_length(rows: Sequence[RowScores], whole: str, paper: Sequence[PublishedRow]) -> Table:
    parts, decimals = _parts(rows, paper), _decimals(paper)
    table = plain_table("", "context", "tokens", *parts, whole, "95 %")
    _tighten(table, padding=2)
    for one, own in _beside(rows, paper):
        low, high = (f"{100 * share:.1f}" for share in (one.whole.interval.low, one.whole.interval.high))
        numbers = (_measured(one, name, whole) for name in (*parts, whole))
        context = f"{one.compression.context_length:,}"
        table.add_row(one.row.name, context, one.row.tokens, *numbers, f"{low} … {high}")
        if own is not None:
            of_paper = (_published(own, name, whole, decimals) for name in (*parts, whole))
            table.add_row(_paper_name(), *_papers_context(one.row), *of_paper, "")
    return table


def _papers_context(row: AblationRow) -> tuple[str, str]:
    return f"{8 * row.contexts}k", _TOKENS[row.tokens]


def _parts(rows: Sequence[RowScores], paper: Sequence[PublishedRow]) -> list[str]:
    """The columns: in the order of the paper, then in that of the questions."""
    measured = dict.fromkeys(name for one in rows for name in one.parts)
    first = [name for name in (paper[0].columns if paper else ()) if name in measured]
    return [*first, *(name for name in measured if name not in first)]


def _beside(
    rows: Sequence[RowScores], paper: Sequence[PublishedRow]
) -> Iterable[tuple[RowScores, PublishedRow | None]]:
    return zip(rows, paper or (None,) * len(rows), strict=True)


def _measured(one: RowScores, name: str, whole: str) -> str:
    own = one.whole if name == whole else one.parts.get(name)
    return "" if own is None else _percent(own)


def _published(own: PublishedRow, name: str, whole: str, decimals: int) -> str:
    percent = own.percent if name == whole else own.columns.get(name)
    return "" if percent is None else f"{percent:.{decimals}f}"


def _decimals(paper: Sequence[PublishedRow]) -> int:
    """As many as the paper has in the table."""
    numbers = (number for own in paper for number in (own.percent, *own.columns.values()))
    return 1 if all(number == round(number, 1) for number in numbers) else 2


def _paper_name() -> str:
    from longvu_cli.evaluation.published_ablations import MODEL

    return f"  paper, {MODEL}"


def _rates(rows: Sequence[RowScores], paper: Sequence[PublishedRow]) -> Table:
    table = plain_table(
        "", "frames\nkept", "tokens\nbefore", "read", "reduction", "cut for\nlack of\nroom", "default\nahead"
    )
    _tighten(table, padding=2)
    for one, own in _beside(rows, paper):
        whole = one.whole
        table.add_row(
            one.row.name,
            f"{whole.kept:.1%}",
            f"{whole.before:,.0f}",
            f"{whole.read:,.0f}",
            f"{whole.reduced:.1%}",
            f"{whole.cut:,.0f}",
            "" if one.row.default else _ahead(one.behind),
        )
        if own is not None and own.reduction is not None:
            table.add_row(_paper_name(), "", "", "", f"{own.reduction:g}%", "", "")
    return table


def _ahead(paired: PairedDifference) -> str:
    """In points, with the standard error."""
    error = "" if paired.standard_error is None else f" ± {100 * paired.standard_error:.1f}"
    return f"{100 * paired.difference:+.1f}{error}".replace("-", "−")


def _percent(own: Score) -> str:
    return f"{100 * own.accuracy:.1f}"
