"""The main text of web pages, without navigation, scripts and other parts that surround it."""

from collections.abc import Callable, Iterator
from typing import Any

from preprocess.errors import UserError, one_line
from preprocess.reading.block import Block
from preprocess.reading.byte_range import WRONG_DECLARED
from preprocess.reading.encodings.decoding import INVALID, is_invalid, replace_invalid
from preprocess.reading.formats.record_blocks import Record, blocks_of
from preprocess.reading.options import ReadOptions
from preprocess.reading.records import Oversized, whole_file
from preprocess.reading.stream import Stream
from preprocess.reading.web.page_encoding import decode_page

NO_MAIN_TEXT = "no_main_text"
"""Reason of pages that have no text, or only what surrounds it, such as menus."""


def read_html(stream: Stream, options: ReadOptions) -> Iterator[Block]:
    """Yield the main text of a page as one document; without one, the page is rejected.

    Raises:
        UserError: resiliparse is not installed.
    """
    limit = options.limits.max_document_bytes
    main_text = import_extractor(stream.path)

    def records() -> Iterator[Record]:
        for page in whole_file(stream.chunks, limit):
            if isinstance(page, Oversized):
                yield Record(0, page.beginning.decode("utf-8", "replace"), "", "oversized")
                continue
            text, reason, wrong = decode_page(page.data, "", options.source.encoding)
            if wrong:
                stream.findings.note = WRONG_DECLARED
            if not reason:
                text, reason = extracted(text, main_text)
            yield Record(0, text, "", reason)

    return blocks_of(records(), stream, options, stream.place)


def extracted(html: str, main_text: Callable[[str], str]) -> tuple[str, str]:
    """Return the main text of a page, or the page and `NO_MAIN_TEXT` if it has none."""
    text = main_text(html)
    return (text, "") if text.strip() else (html, NO_MAIN_TEXT)


def import_extractor(path: str) -> Callable[[str], str]:
    """Return the function from a page to its main text.

    Raises:
        UserError: resiliparse is not installed.
    """
    try:
        from resiliparse.extract.html2text import extract_plain_text
    except ImportError as error:
        raise UserError(
            f"{one_line(path)}: reading web pages needs resiliparse; pip install 'biloom[web]'"
        ) from error
    return lambda html: _main_text(extract_plain_text, html)


def _main_text(extract: Any, html: str) -> str:
    # The parser takes no lone surrogates, which stand for invalid bytes.
    invalid = is_invalid(html)
    text: str = extract(
        replace_invalid(html)[0] if invalid else html,
        main_content=True,
        list_bullets=False,
    )
    return text.replace("\ufffd", INVALID) if invalid else text
