"""Paths as they may be shown, and the end of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from longvu_cli.video_file import ending, without_passwords, without_secrets


@pytest.mark.parametrize(
    "address, shown",
    [
        ("http://user:S3CRET@host:80/v.mp4", "http://host:80/v.mp4"),
        ("HTTPS://user:S3/C@RET@host/v.mp4?token=S3CRET#S3CRET", "HTTPS://host/v.mp4"),
        ("https:/user:S3CRET@host/v.mp4", "https:/host/v.mp4"),
        ("rtsp://:S3CRET@host\n?S3CRET\nS3CRET", "rtsp://host\n"),
        ("s3://bucket/key", "s3://bucket/key"),
    ],
)
def test_addresses_are_shown_without_what_is_secret(address: str, shown: str) -> None:
    assert without_secrets(address) == shown


def test_an_address_within_a_sentence() -> None:
    said = "no http://me:S3/C@RET@host/v here; ask me@home, C:/a@b"
    assert without_passwords(said) == "no http://host/v here; ask me@home, C:/a@b"


@pytest.mark.parametrize(
    "path", ["me@home?.mp4", "/a/b@c#d.mp4", "12:30 talk@x.mp4", "C:/a@b.mp4", "concat:x@y.mp4", ""]
)
def test_paths_are_shown_as_they_are(path: str) -> None:
    assert without_secrets(path) == path


def test_the_end_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    assert ending(tmp_path / "file", 3) == b"789"
    assert ending(tmp_path / "file", 30) == b"0123456789"


@pytest.mark.parametrize("part", ["a", "ab://", "ab:/", "/", "@", "ab://@"])
def test_a_sentence_of_any_length_is_read_once(part: str) -> None:
    # As patterns that try each beginning and end would: 200,000 letters took minutes.
    longest = part * (1_000_000 // len(part))
    assert without_passwords(f"{longest} https://me:secret@host/a") == f"{without_passwords(longest)} https://host/a"
