from pathlib import Path

import pytest

from longvu_cli.config import CompressionOptions, GenerationOptions, SamplingOptions
from longvu_cli.errors import UsageError
from longvu_cli.manifest import Settings
from longvu_cli.serving.options import ServingOptions, is_loopback, seconds_shown


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("LocalHost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
        ("127.0.0.1.nip.io", False),
        ("", False),
    ],
)
def test_what_reaches_this_machine_only(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"host": "0.0.0.0"}, "can be reached from other machines, and there is no token"),
        ({"host": "box.example.com"}, "there is no token"),
        ({"token": " "}, "the token is empty"),
        ({"token": "a\nb"}, "no header can hold"),
        ({"token": "é"}, "no header can hold"),
        ({"port": 70000}, "--port 70000 is no port"),
        ({"queue": 0}, "leaves no request a place"),
        ({"max_upload_bytes": 0}, "lets nothing be uploaded"),
        ({"longest_answer": 100}, "less than --max-new-tokens"),
        ({"folders": (Path("/nowhere"),)}, "--allow-path /nowhere is no folder"),
    ],
)
def test_what_cannot_be_served(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ServingOptions(**values)  # type: ignore[arg-type]


def test_with_a_token_every_address_will_do() -> None:
    assert ServingOptions(host="0.0.0.0", token="secret").host == "0.0.0.0"


def test_a_long_default_needs_a_long_limit() -> None:
    long = Settings(SamplingOptions(), CompressionOptions(), GenerationOptions(max_new_tokens=3000))
    with pytest.raises(UsageError, match="less than --max-new-tokens"):
        ServingOptions(defaults=long)
    assert ServingOptions(defaults=long, longest_answer=3000).longest_answer == 3000


def test_there_is_room_for_one_of_the_largest_uploads() -> None:
    assert ServingOptions(max_upload_bytes=5, max_uploads_bytes=3).most_uploaded_bytes == 5


def test_seconds_are_whole_and_at_least_one() -> None:
    assert [seconds_shown(value) for value in (0.0, 0.9, 1.1)] == ["1", "1", "2"]
