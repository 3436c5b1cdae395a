import pytest
import typer

from longvu_cli.cli.quantities import parse_size, parse_span, shown_memory, shown_size, shown_span


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1500", 1500),
        ("1500b", 1500),
        ("5GB", 5 * 10**9),
        ("5 g", 5 * 10**9),
        ("1.5MB", 1_500_000),
        ("1GiB", 2**30),
        ("2ki", 2048),
        (7, 7),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("30d", 2_592_000), ("12 h", 43_200), ("1.5m", 90), ("2w", 1_209_600)])
def test_spans(text: str, seconds: float) -> None:
    assert parse_span(text) == seconds


@pytest.mark.parametrize("text", ["", "GB", "five", "-1", "1ib", "1xb", "nan"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_size(text)


@pytest.mark.parametrize("text", ["", "d", "30", "-1d", "1y"])
def test_no_spans(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_span(text)


def test_what_is_shown() -> None:
    sizes = [shown_size(count) for count in (0, 999, 1000, 1_250_000, 15_343_331_328, 2 * 10**15)]
    assert sizes == ["0 B", "999 B", "1.0 kB", "1.2 MB", "15.3 GB", "2,000.0 TB"]
    assert shown_memory(3 * 2**29) == "1.5 GiB"
    spans = [shown_span(seconds) for seconds in (-1, 0, 59.9, 60, 3599, 7200, 86_400 * 2.9)]
    assert spans == ["0 s", "0 s", "59 s", "1 min", "59 min", "2 h", "2 d"]
