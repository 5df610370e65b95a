"""HTTP responses as they were sent: status, headers, transfer and content encodings."""

import re
import zlib
from typing import NamedTuple

import zstandard

from preprocess.reading.web.warc_records import parse_headers

_STATUS = re.compile(rb"HTTP/\d(?:\.\d)?[ \t]+(\d{3})\b")
_BLANK = re.compile(rb"\r?\n\r?\n")
_CHUNK = re.compile(rb"\s*([0-9A-Fa-f]{1,15})[^\n]{0,1000}\n")


class InvalidHttpError(ValueError):
    """A response that cannot be decoded; the message says why."""


class OversizedError(ValueError):
    """A body that is longer than the limit when it is decoded."""


class Response(NamedTuple):
    """A response.

    Attributes:
        status: its status, such as 200.
        headers: its headers, by names in lower case.
        body: its body, decoded.
    """

    status: int
    headers: dict[str, str]
    body: bytes


def parse_response(data: bytes, limit: int) -> Response:
    """Return a response with its body decoded.

    Archives often keep the headers of an encoding that they have removed, so a body that is not in its
    encoding is taken as it is.

    Args:
        data: the response.
        limit: largest bytes of the body.

    Raises:
        InvalidHttpError: it is no response, or its body is damaged or needs a package.
        OversizedError: the body is longer than the limit.
    """
    status = _STATUS.match(data)
    if not status:
        raise InvalidHttpError("it has no status")
    blank = _BLANK.search(data)
    end = blank.end() if blank else len(data)
    headers = parse_headers(data[:end])
    body = data[end:]
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = _joined(body)
    for coding in reversed(headers.get("content-encoding", "").lower().split(",")):
        body = _decoded(body, coding.strip(), limit)
    return Response(int(status[1]), headers, body)


def _joined(body: bytes) -> bytes:
    """Return a body without the sizes of its chunks."""
    pieces: list[bytes] = []
    at = 0
    while match := _CHUNK.match(body, at):
        size = int(match[1], 16)
        if not size:
            return b"".join(pieces)
        pieces.append(body[match.end() : match.end() + size])
        at = match.end() + size
        if at > len(body):
            break
    # The last chunk may be cut. Without a valid first one, the body was joined before.
    return b"".join(pieces) if pieces and at >= len(body) else body


def _decoded(body: bytes, coding: str, limit: int) -> bytes:
    try:
        if coding in ("gzip", "x-gzip") and body.startswith(b"\x1f\x8b"):
            return _inflated(body, 31, limit)
        if coding == "deflate" and body[:1] in (b"x", b"\x08", b"h", b"X"):
            return _inflated(body, 15, limit)
        if coding == "zstd" and body.startswith(b"\x28\xb5\x2f\xfd"):
            reader = zstandard.ZstdDecompressor().stream_reader(body)
            return _limited(reader.read(limit + 1), limit)
        if coding == "br" and body and not body.lstrip().startswith(b"<"):
            return _unbrotli(body, limit)
    except (zlib.error, zstandard.ZstdError) as error:
        raise InvalidHttpError(f"its {coding} encoding is damaged ({error})") from error
    return body


def _inflated(body: bytes, window: int, limit: int) -> bytes:
    unpacker = zlib.decompressobj(window)
    data = _limited(unpacker.decompress(body, limit + 1), limit)
    if not unpacker.eof:
        raise zlib.error("it is truncated")
    return data


def _limited(data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        raise OversizedError(f"its body has more than {limit:,} bytes")
    return data


def _unbrotli(body: bytes, limit: int) -> bytes:
    try:
        import brotli
    except ImportError as error:
        raise InvalidHttpError("its br encoding needs pip install 'biloom[web]'") from error
    unpacker = brotli.Decompressor()
    pieces: list[bytes] = []
    held = 0
    try:
        for at in range(0, len(body), 1 << 14):
            pieces.append(unpacker.process(body[at : at + (1 << 14)]))
            held += len(pieces[-1])
            if held > limit:
                raise OversizedError(f"its body has more than {limit:,} bytes")
    except brotli.error as error:
        raise InvalidHttpError("its br encoding is damaged") from error
    if not unpacker.is_finished():
        raise InvalidHttpError("its br encoding is truncated")
    return b"".join(pieces)
