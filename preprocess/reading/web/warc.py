"""Reading web archives: pages and texts of WARC and WET files, each with its URL as id."""

from collections.abc import Callable, Iterable, Iterator

from preprocess.reading.block import Block
from preprocess.reading.byte_range import HEAD_BYTES, NOT_TEXT, WRONG_DECLARED, damaged_file
from preprocess.reading.compression import find_compression
from preprocess.reading.encodings.decoding import find_encoding
from preprocess.reading.formats.record_blocks import Record, blocks_of
from preprocess.reading.kinds.signatures import COMPRESSED, HTML, Kind, find_kind
from preprocess.reading.options import ReadOptions
from preprocess.reading.stream import Stream
from preprocess.reading.web.http_message import (
    InvalidHttpError,
    OversizedError,
    parse_response,
)
from preprocess.reading.web.page_encoding import decode_page
from preprocess.reading.web.pages import extracted, import_extractor
from preprocess.reading.web.warc_records import CutWarcError, WarcRecord, split_warc

_KNOWN = ("warcinfo", "request", "metadata", "revisit", "continuation")
"""Types of records that are no documents, and are counted by type."""
_HTML = ("text/html", "application/xhtml+xml")


def read_warc(stream: Stream, options: ReadOptions) -> Iterator[Block]:
    """Yield the documents of a web archive; see `warc_records`."""
    extract: list[Callable[[str], str]] = []

    def main_text(html: str) -> str:
        if not extract:
            extract.append(import_extractor(stream.path))
        return extract[0](html)

    def note_wrong() -> None:
        stream.findings.note = WRONG_DECLARED

    records = warc_records(
        stream.chunks,
        stream.path,
        options.limits.max_document_bytes,
        options.source.encoding,
        main_text,
        note_wrong,
    )
    return blocks_of(records, stream, options, stream.place)


def warc_records(
    chunks: Iterable[bytes],
    path: str,
    limit: int,
    encoding: str,
    main_text: Callable[[str], str],
    note_wrong: Callable[[], None],
) -> Iterator[Record]:
    """Yield the records of a web archive, numbered by their byte offsets, with their URLs as ids.

    Documents are pages of HTML and plain texts: responses with status 200, resources, and
    conversions, which are the texts of WET files. All other records are rejected: those of other types
    as "warc_TYPE", responses with another status as "http_status", pages without main text as
    "no_main_text", and damaged ones as "invalid_warc" or "invalid_http". Other content is rejected as
    "not_text", also if it was sent as a page: many servers send images or PDF documents as text/html.

    Args:
        chunks: the file, uncompressed.
        path: the file, for error messages.
        limit: largest bytes of a record, before and after it is decoded.
        encoding: see `decode_page`.
        main_text: extracts the main text of a page.
        note_wrong: called if a page is not in the encoding that it declares.

    Raises:
        DamagedFile: the file ends inside a record.
    """
    try:
        for record in split_warc(chunks, limit):
            url = record.headers.get("warc-target-uri", "").strip("<>")
            text, reason, wrong = _text(record, limit, encoding, main_text)
            if wrong:
                note_wrong()
            shown = text or url or record.body.decode("utf-8", "replace") if reason else text
            yield Record(record.offset, shown, url, reason)
    except CutWarcError as error:
        raise damaged_file(
            path, f"ends inside a WARC record that begins at byte {error.args[0]:,}"
        ) from error


def _text(
    record: WarcRecord, limit: int, encoding: str, main_text: Callable[[str], str]
) -> tuple[str, str, bool]:
    """Return the text of a record, the reason to reject it, and whether its encoding is wrong."""
    if record.reason:
        return "", record.reason, False
    record_type = record.headers.get("warc-type", "").lower()
    body, content_type = record.body, record.headers.get("content-type", "")
    if record_type == "response":
        if not content_type.lower().startswith("application/http"):
            return "", NOT_TEXT, False
        try:
            response = parse_response(body, limit)
        except InvalidHttpError as error:
            return str(error), "invalid_http", False
        except OversizedError:
            return "", "oversized", False
        if response.status != 200:
            return f"status {response.status}", "http_status", False
        body, content_type = response.body, response.headers.get("content-type", "")
    elif record_type not in ("resource", "conversion"):
        reason = record_type if record_type in _KNOWN else "other_type"
        return "", f"warc_{reason}", False
    media = content_type.partition(";")[0].strip().lower()
    if not media and body[:512].lstrip()[:1] == b"<":
        media = _HTML[0]
    if media not in (*_HTML, "text/plain"):
        return media, NOT_TEXT, False
    kind = _kind(body)
    # A conversion is a text, whatever it begins with.
    if kind is HTML and record_type != "conversion":
        media = _HTML[0]
    elif kind and not (kind.readable and (media in _HTML or record_type == "conversion")):
        return f"{kind.what}, sent as {media}", NOT_TEXT, False
    text, reason, wrong = decode_page(body, content_type, encoding)
    if media in _HTML and not reason:
        text, reason = extracted(text, main_text)
    return text, reason, wrong


def _kind(body: bytes) -> Kind | None:
    """Return what a body is by its first bytes, or None if it may be text."""
    head = body[:HEAD_BYTES]
    if find_compression(head):
        return COMPRESSED
    return find_kind(head, find_encoding(head, "") or "utf-8", "")
