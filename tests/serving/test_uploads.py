import asyncio
import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from longvu_cli.serving.failures import Refused
from longvu_cli.serving.uploads import Upload, Uploads, shown_name

TYPE = 'multipart/form-data; boundary="XX"'


def form(content: bytes, *, name: str = "file", filename: str = "film.mp4", purpose: str = "user_data") -> bytes:
    return (
        f'--XX\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n'
        f'--XX\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
        "Content-Type: video/mp4\r\n\r\n"
    ).encode() + (content + b"\r\n--XX--\r\n")


def receive(uploads: Uploads, body: bytes, *, kind: str = TYPE, piece: int = 7) -> Upload:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), piece):
            yield body[start : start + piece]

    return asyncio.run(uploads.receive(kind, pieces()))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def files(place: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in place.rglob("file-*"))


def test_a_file_is_kept_and_goes(place: Path) -> None:
    with Uploads(max_file_bytes=100, max_bytes=100) as uploads:
        content = b"first\r\n--XX-\r\nsecond\r\n"
        kept = receive(uploads, form(content, filename="../a\x1b/film.mp4"))
        assert (kept.size, kept.filename, kept.purpose) == (len(content), "film.mp4", "user_data")
        assert kept.path.read_bytes() == content
        assert uploads.get(kept.id) is kept and uploads.size == len(content)
        uploads.remove(kept.id)
        assert files(place) == [] and uploads.size == 0
        receive(uploads, form(b"left"))
    assert list(place.iterdir()) == []


def test_the_same_content_has_the_same_time_of_change(place: Path) -> None:
    with Uploads(max_file_bytes=100, max_bytes=100) as uploads:
        one, same, other = (receive(uploads, form(content)) for content in (b"abc", b"abc", b"abd"))
        assert one.path.stat().st_mtime_ns == same.path.stat().st_mtime_ns != other.path.stat().st_mtime_ns


def test_what_is_in_use_stays_until_it_is_not(place: Path) -> None:
    with Uploads(max_file_bytes=100, max_bytes=100) as uploads:
        kept = receive(uploads, form(b"abc"))
        uploads.hold(kept.id)
        uploads.hold(kept.id)
        uploads.remove(kept.id)
        with pytest.raises(Refused, match="no upload of this id"):
            uploads.hold(kept.id)
        uploads.release(kept)
        assert files(place) == [b"abc"]
        uploads.release(kept)
        assert files(place) == []


def test_those_not_used_for_longest_make_room(place: Path) -> None:
    with Uploads(max_file_bytes=4, max_bytes=10) as uploads:
        first, second, third = (receive(uploads, form(content)) for content in (b"1111", b"22", b"3333"))
        uploads.release(uploads.hold(first.id))
        held = uploads.hold(third.id)
        receive(uploads, form(b"444"))
        # The second was used before the first, but alone does not make room enough.
        assert files(place) == [b"3333", b"444"]
        with pytest.raises(Refused, match="no upload"):
            uploads.get(second.id)
        uploads.hold(receive(uploads, form(b"555")).id)
        with pytest.raises(Refused, match="no room for more") as refusal:
            receive(uploads, form(b"6666"))
        assert refusal.value.failure.status == 507
        uploads.release(held)
        assert uploads.size == 7 and b"6666" not in files(place)


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"", TYPE, "ends in the middle"),
        (form(b"abc")[:-12], TYPE, "ends in the middle"),
        (b"no form at all, whatever it says", TYPE, "is no form"),
        (form(b"abc", name="film"), TYPE, "no file in a field named 'file'"),
        (form(b"abc", name="film" + "m" * 10).replace(b"abc", b"a" * 1001), TYPE, "too long"),
        (form(b"abc")[:-8] + b"\r\n" + form(b"abc"), TYPE, "several files"),
        (form(b"abc"), "application/json", "has to be multipart"),
        (form(b"abc"), "multipart/form-data", "has to be multipart"),
        (form(b"abc"), "", "has to be multipart"),
        (form(b"a" * 101), TYPE, "too large"),
    ],
)
def test_bad_uploads_leave_nothing(place: Path, body: bytes, kind: str, message: str) -> None:
    with Uploads(max_file_bytes=100, max_bytes=1000) as uploads:
        with pytest.raises(Refused, match=message):
            receive(uploads, body, kind=kind)
        assert files(place) == [] and uploads.size == 0


def test_a_client_that_goes_away_leaves_nothing(place: Path) -> None:
    class Gone(Exception):
        pass

    async def cut() -> AsyncIterator[bytes]:
        yield form(b"abc")[:-12]
        raise Gone

    with Uploads(max_file_bytes=100, max_bytes=100) as uploads:
        with pytest.raises(Gone):
            asyncio.run(uploads.receive(TYPE, cut()))
        assert files(place) == [] and uploads.size == 0


def test_a_folder_that_cannot_be_written(place: Path) -> None:
    with Uploads(max_file_bytes=100, max_bytes=100) as uploads:
        (folder,) = place.iterdir()
        os.rmdir(folder)
        with pytest.raises(Refused, match="cannot be kept: No such file"):
            receive(uploads, form(b"abc"))


def test_a_video_in_the_request_goes_with_it(place: Path) -> None:
    with Uploads(max_file_bytes=100, max_bytes=100) as uploads:
        upload = uploads.hold_sent_along(base64.b64encode(b"abc").decode())
        assert files(place) == [b"abc"]
        with pytest.raises(Refused, match="no upload"):
            uploads.get(upload.id)
        uploads.release(upload)
        assert files(place) == []
        with pytest.raises(Refused, match="no base64"):
            uploads.hold_sent_along("a b")


def test_names_are_shown_without_folders_and_controls() -> None:
    assert [shown_name(name) for name in ("a/b.mp4", "a\\b.mp4", "b\x1b.mp4", "")] == [
        "b.mp4",
        "b.mp4",
        "b\\x1b.mp4",
        "upload",
    ]
