"""The encoding of a web page: as it is declared, if the page is in it.

A byte order mark comes before the HTTP header, which comes before the page's own declaration, as in
browsers (https://html.spec.whatwg.org/multipage/parsing.html#determining-the-character-encoding).
Unlike there, a page that is not in its declared encoding is not read in it.
"""

import codecs
import re
from collections.abc import Iterator

from preprocess.reading.encodings.decoding import (
    AUTO,
    decode,
    find_encoding,
    is_multibyte,
)
from preprocess.reading.encodings.wrong import encoding_problem, find_likely

WRONG_ENCODING = "wrong_encoding"
_SEARCHED = 4096
"""First bytes of a page in which its declaration is looked for."""
_META = re.compile(rb"""<meta[^>]{0,300}?charset\s*=\s*["']?\s*([\w:.+-]{1,40})""", re.IGNORECASE)
_XML = re.compile(rb"""<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w:.+-]{1,40})""", re.IGNORECASE)
_CHARSET = re.compile(r"""charset\s*=\s*["']?\s*([\w:.+-]{1,40})""", re.IGNORECASE)
# Pages mean the wider encoding (https://encoding.spec.whatwg.org/#names-and-labels).
_WIDER = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
}
_OTHER_NAMES = {"x-sjis": "cp932", "x-gbk": "gb18030", "unicode": "utf-16-le", "utf8": "utf-8"}
_SAMPLE = 1 << 16
_FEWEST = 2
"""Characters outside ASCII that prove UTF-8 against a declared encoding of one byte a character."""


def decode_page(data: bytes, content_type: str, configured: str) -> tuple[str, str, bool]:
    """Decode a page.

    Args:
        data: the page.
        content_type: the HTTP header ``Content-Type``; empty if there is none.
        configured: `Source.encoding`, the encoding of pages that are not UTF-8 and declare none. "auto":
            the likely encoding, also of pages that are not in their declared encoding.

    Returns:
        The text, with invalid bytes as `decoding.decode` leaves them; `WRONG_ENCODING`, if the page is
        in no encoding that is declared, otherwise an empty string; and whether the encoding that is
        declared first is wrong.
    """
    marked = find_encoding(data[:4], "")
    if marked:
        return decode(data, marked)[0].removeprefix("\ufeff"), "", False
    declared = list(dict.fromkeys(_declared(data, content_type)))
    if data.isascii() and not any(name.startswith("utf-16") for name in declared[:1]):
        return data.decode("ascii"), "", False
    text, invalid = decode(data, "utf-8")
    first = declared[0] if declared else "utf-8"
    if not invalid and first == "utf-8":
        return text, "", False
    if not (invalid and encoding_problem(data, "utf-8")) and _is_utf8(data, text, first):
        return text, "", first != "utf-8"
    candidates = declared or ([configured] if configured not in (AUTO, "utf-8") else [])
    for name in candidates:
        if name != "utf-8" and not encoding_problem(data, name):
            return decode(data, name)[0], "", name != candidates[0]
    if configured == AUTO:
        likely = find_likely(data)
        if likely and not encoding_problem(data, likely):
            return decode(data, likely)[0], "", bool(declared)
    return text, WRONG_ENCODING, True


def _is_utf8(data: bytes, text: str, declared: str) -> bool:
    """Return True if a page that may be UTF-8 is not in its declared encoding instead."""
    if declared == "utf-8":
        return True
    foreign = sum(c > "\x7f" and not "\ud800" <= c <= "\udfff" for c in text[:_SAMPLE])
    # Two bytes of East Asian encodings are rarely UTF-8, but a short text may be.
    enough = 8 * _FEWEST if is_multibyte(declared) else _FEWEST
    return foreign >= enough or bool(encoding_problem(data, declared))


def _declared(data: bytes, content_type: str) -> Iterator[str]:
    """Yield the encodings that are declared, those before others that browsers prefer."""
    names = [match[1] for match in [_CHARSET.search(content_type)] if match]
    head = data[:_SEARCHED]
    names += [m[1].decode("ascii", "replace") for m in (_META.search(head), _XML.search(head)) if m]
    for number, name in enumerate(names):
        try:
            found = codecs.lookup(_OTHER_NAMES.get(name.lower(), name)).name
            "".encode(found)
        except (LookupError, ValueError):
            continue
        if found.startswith(("utf-16", "utf-32")) and (number or b"\0" not in data[:_SEARCHED]):
            # A declaration in ASCII cannot be in UTF-16.
            found = "utf-8"
        yield _WIDER.get(found, found)
