"""A form with one file (``multipart/form-data``), read as it comes: nothing of the file is held in memory."""

from __future__ import annotations

from collections.abc import Callable

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from longvu_cli.serving.failures import Refused, refused

# Of a field that is no file: `purpose` is a word.
_MOST_FIELD_BYTES = 1000
_FILE = "file"


class FileForm:
    """The parser of one form.

    Args:
        content_type: of the request.
        write: takes the pieces of the file.

    Attributes:
        filename: what the client calls the file.
        purpose: what the client says it is for.

    Raises:
        Refused: it is no such form.
    """

    def __init__(self, content_type: str, write: Callable[[bytes], None]) -> None:
        kind, parameters = parse_options_header(content_type)
        boundary = parameters.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise _bad("an upload has to be multipart/form-data")
        self.filename = ""
        self.purpose = ""
        self._write = write
        self._has_file = False
        self._name = ""
        self._field = bytearray()
        self._header = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._header_name,
                    "on_header_value": self._header_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._data,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _bad(f"the upload is no form: {error}") from None
        self._ended = False

    def feed(self, data: bytes) -> None:
        """Read a piece.

        Raises:
            Refused: it is malformed.
        """
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _bad(f"the upload is no form: {error}") from None

    def finish(self) -> None:
        """The body has ended.

        Raises:
            Refused: the form has not, or there is no file in it.
        """
        if not self._ended:
            raise _bad("the upload ends in the middle of the form")
        if not self._has_file:
            raise _bad(f"the form has no file in a field named {_FILE!r}")

    def _begin_part(self) -> None:
        self._headers = {}
        self._field = bytearray()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _end_header(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _end_headers(self) -> None:
        _, parameters = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = parameters.get(b"name", b"").decode(errors="replace")
        if self._name == _FILE:
            if self._has_file:
                raise _bad("the form has several files")
            self._has_file = True
            self.filename = parameters.get(b"filename", b"").decode(errors="replace")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._name == _FILE:
            self._write(data[start:end])
            return
        if len(self._field) + end - start > _MOST_FIELD_BYTES:
            raise _bad(f"the field {self._name!r} is too long")
        self._field += data[start:end]

    def _end_part(self) -> None:
        if self._name == "purpose":
            self.purpose = self._field.decode(errors="replace")

    def _end(self) -> None:
        self._ended = True


def _bad(problem: str) -> Refused:
    return refused(400, "BadUpload", problem, param=_FILE)
