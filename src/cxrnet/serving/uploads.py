"""Files out of the body of a request, in memory, within limits that hold while it is read."""

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from cxrnet.serving.reader import Upload

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_HEADERS = 8192  # bytes of those of one part
_AGAIN = "2"  # seconds after which to try again
_NAME = 100  # characters of a file's name that are kept


@dataclass(frozen=True)
class Limits:
    """What one request may send.

    Attributes:
        size: bytes of the whole body.
        files: number of files.
        seconds: until the whole body must be there.
    """

    size: int
    files: int
    seconds: float


@dataclass
class Receiving:
    """The bytes of all bodies that are being received, which may be no more than some."""

    room: int
    used: int = 0


class RefusedError(Exception):
    """A request that is not answered with readings: the HTTP status, and why in one line."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason

    def answer(self) -> JSONResponse:
        """Say it, and when to try again where that helps."""
        headers = {"Retry-After": _AGAIN} if self.status in (429, 503) else {}
        return JSONResponse({"error": self.reason}, self.status, headers)


async def read_uploads(request: Request, limits: Limits, receiving: Receiving) -> list[Upload]:
    """Read the files of a request of type ``multipart/form-data``; nothing goes to the disk.

    Raises:
        RefusedError: it is of another type, too large, too slow, damaged or without a file, or too much is being
            received at once.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not (boundary := options.get(b"boundary")):
        raise RefusedError(415, "send multipart/form-data with one or several files")
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > limits.size:
        raise _too_large(limits)
    parts, received = _Parts(limits), 0
    try:
        parser = MultipartParser(boundary, parts.callbacks)
        async with asyncio.timeout(limits.seconds):
            async for chunk in request.stream():
                received += len(chunk)
                receiving.used += len(chunk)
                if receiving.used > receiving.room:
                    raise RefusedError(429, "too much is being sent at once; try again in a moment")
                if received > limits.size:
                    raise _too_large(limits)
                parser.write(chunk)
        parser.finalize()
    except TimeoutError:
        raise RefusedError(408, f"the body wasn't there after {limits.seconds:g} seconds") from None
    except (FormParserError, ClientDisconnect, UnicodeDecodeError, ValueError):
        raise RefusedError(400, "the body is no multipart/form-data, or was cut off") from None
    finally:
        receiving.used -= received
    if not parts.ended:
        raise RefusedError(400, "the body is no multipart/form-data, or was cut off")
    if not parts.files:
        raise RefusedError(400, "no file was sent; give each the form field 'files'")
    return parts.files


def _too_large(limits: Limits) -> RefusedError:
    return RefusedError(413, f"more than {limits.size // 1_000_000} MB; send fewer or smaller files")


class _Parts:
    """Collects the parts of a body that are files."""

    def __init__(self, limits: Limits) -> None:
        self.files: list[Upload] = []
        self.ended = False  # else a file may be missing
        self._limits = limits
        self._header, self._value, self._length = bytearray(), bytearray(), 0
        self._name: str | None = None
        self._data = bytearray()

    @property
    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._note(self._header, data[start:end]),
            "on_header_value": lambda data, start, end: self._note(self._value, data[start:end]),
            "on_header_end": self._end_header,
            "on_part_data": self._add,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._name, self._data, self._length = None, bytearray(), 0

    def _note(self, buffer: bytearray, data: bytes) -> None:
        self._length += len(data)
        if self._length > _HEADERS:
            raise RefusedError(400, "the headers of a part are too long")
        buffer += data

    def _end_header(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            if b"filename" in options:
                if len(self.files) == self._limits.files:
                    raise RefusedError(413, f"more than {self._limits.files} files; send fewer at a time")
                self._name = clean_name(options[b"filename"].decode("utf-8", "replace"))
        self._header.clear()
        self._value.clear()

    def _add(self, data: bytes, start: int, end: int) -> None:
        if self._name is not None:
            self._data += data[start:end]

    def _finish(self) -> None:
        self.ended = True

    def _end(self) -> None:
        if self._name is not None:
            self.files.append(Upload(self._name, bytes(self._data)))


def clean_name(name: str) -> str:
    """Keep the last part of a path, and of it what can be shown: it goes into answers."""
    last = re.split(r"[/\\]", name)[-1]
    return "".join(char for char in last if char.isprintable())[:_NAME] or "file"
