import pytest

from longvu_cli.serving.access import is_from_here, shows_token


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Bearer secret", True),
        ("bearer secret", True),
        ("Bearer  secret ", True),
        ("Bearer secre", False),
        ("Bearer secrets", False),
        ("Basic secret", False),
        ("secret", False),
        ("", False),
        ("Bearer é", False),
    ],
)
def test_the_token(header: str, expected: bool) -> None:
    assert shows_token(header, "secret") is expected


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("127.0.0.1:8417", None, True),
        ("localhost", None, True),
        ("[::1]:8417", "http://localhost:3000", True),
        ("127.0.0.1", "null", False),
        ("127.0.0.1", "https://example.com", False),
        ("example.com", None, False),
        ("localhost.example.com", None, False),
        ("localhost@example.com", None, False),
        ("[", None, False),
        ("", None, False),
    ],
)
def test_names_of_this_machine(host: str, origin: str | None, expected: bool) -> None:
    assert is_from_here(host, origin) is expected
