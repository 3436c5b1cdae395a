import os
from pathlib import Path

import pytest

from longvu_cli.serving.failures import Refused
from longvu_cli.serving.paths import AllowedPaths, NamedPath, NamedUpload, SentAlong, reference_of

UPLOAD = "file-" + "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/films/a b.mp4", NamedPath("/films/a b.mp4")),
        ("file:///films/a%20b.mp4", NamedPath("/films/a b.mp4")),
        ("file:/films/a.mp4", NamedPath("/films/a.mp4")),
        ("file://localhost/films/a.mp4", NamedPath("/films/a.mp4")),
        ("file:///films/%FF.mp4", NamedPath("/films/\udcff.mp4")),
        (UPLOAD, NamedUpload(UPLOAD)),
        ("data:video/mp4;base64,QUJD", SentAlong("QUJD")),
    ],
)
def test_what_an_address_means(address: str, expected: object) -> None:
    assert reference_of(address) == expected


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://example.com/a.mp4", "not fetched"),
        ("rtsp://example.com/a", "not fetched"),
        ("concat:/a", "not fetched"),
        ("films/a.mp4", "has to be a whole one"),
        ("file-123", "has to be a whole one"),
        ("", "has to be a whole one"),
        ("file://example.com/a.mp4", "another machine"),
        ("file://[/a.mp4", "is none"),
        ("data:video/mp4,abc", "has to be base64"),
    ],
)
def test_addresses_that_are_not_served(address: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        reference_of(address)


def test_folders_and_links(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "in-too"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "film.mp4").write_bytes(b"abc")
    (inside / "out.mp4").symlink_to(outside / "film.mp4")
    (inside / "folder").symlink_to(outside)
    (inside / "again.mp4").symlink_to("film.mp4")
    (outside / "back.mp4").symlink_to(inside / "film.mp4")
    (tmp_path / "alias").symlink_to(inside)
    allowed = AllowedPaths([tmp_path / "alias"])
    film = inside / "film.mp4"
    for path in (film, inside / "again.mp4", outside / "back.mp4", tmp_path / "alias" / "film.mp4"):
        assert allowed.resolve(NamedPath(str(path))) == film
    # What is not there is told as such, where it would be allowed.
    assert allowed.resolve(NamedPath(str(inside / "none.mp4"))) == inside / "none.mp4"
    for name in ("out.mp4", "folder/film.mp4", "../in-too/film.mp4"):
        with pytest.raises(Refused, match="none of the folders"):
            allowed.resolve(NamedPath(f"{inside}/{name}"))
    for path in (str(outside / "film.mp4"), "/", "/etc/passwd", f"{inside}/a\0b"):
        with pytest.raises(Refused, match="none of the folders"):
            allowed.resolve(NamedPath(path))
    with pytest.raises(Refused, match="none of the folders"):
        AllowedPaths([]).resolve(NamedPath(str(film)))


def test_another_file_than_the_client_means(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(b"abc")
    changed = film.stat().st_mtime_ns
    allowed = AllowedPaths([tmp_path])
    assert allowed.resolve(NamedPath(str(film), 3, changed)) == Path(os.path.realpath(film))
    for named in (NamedPath(str(film), 4, changed), NamedPath(str(film), 3, 1), NamedPath(f"{tmp_path}/no", 3)):
        with pytest.raises(Refused, match="another file") as refusal:
            allowed.resolve(named)
        assert refusal.value.failure.status == 412
