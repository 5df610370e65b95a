"""Kinds of files that are not text, by their first bytes.

A file that is not text must never become training text, whatever its name is. The tables below have
the kinds that are common among corpora, each with what a user can do about it. Binary data without
a known signature is recognised by its control characters.
"""

import codecs
import re
import struct
import zlib
from typing import NamedTuple

from preprocess.reading.encodings.decoding import is_cuttable
from preprocess.reading.formats.detection import Format


class Kind(NamedTuple):
    """A kind of file that is not text.

    Attributes:
        what: the kind, for the message.
        remedy: what a user can do.
        readable: True if its lines are text characters, so that ``format: text`` may be meant.
        format: the format that reads it, if there is one.
    """

    what: str
    remedy: str
    readable: bool = False
    format: Format | None = None


_UNPACK = "unpack it"
_REPACK = "unpack it, or compress it with gzip, bzip2, xz or Zstandard instead"
_CONVERT = "convert it to JSON Lines or Parquet"
EXTRACT = "extract its text"
_READ = "set format: auto on its source, or do not set it"

JSON = Kind("a JSON document, not JSON Lines", _READ, True, "json")
CONLL = Kind(
    "a CoNLL file without the comments '# text', which has a line for each token",
    "write a line for each sentence, its words separated by spaces",
    True,
)
PARQUET = Kind("a Parquet file", _READ, format="parquet")
COMPRESSED = Kind("a compressed file", "unpack the outer one")
BINARY = Kind("binary data", EXTRACT)
HTML = Kind("an HTML page", _READ, True, "html")
XML = Kind("an XML document", EXTRACT, True)
WIKI = Kind("a dump of a wiki", _READ, True, "wiki")
TAR = Kind("a tar archive", _UNPACK)
ZIP = Kind("a zip archive", _UNPACK)
_BROTLI = Kind("a Brotli file", _REPACK)
_ZLIB = Kind("a zlib stream", _REPACK)

PARQUET_MAGIC = b"PAR1"
_CONTROLS = bytes({*range(0x20), 0x7F} - {*b"\t\n\v\f\r\x1b"})

_NEAR = 64
# The first bytes must contain a control character too, because prose may begin with the same letters.
_SIGNATURES: dict[bytes, Kind] = {
    b"PK\x03\x04": ZIP,
    b"PK\x05\x06": ZIP,
    b"PK\x07\x08": Kind("a part of a zip archive", "join its parts, and unpack it"),
    b"7z\xbc\xaf\x27\x1c": Kind("a 7z archive", _UNPACK),
    b"Rar!\x1a\x07": Kind("a RAR archive", _UNPACK),
    b"MSCF\0\0\0\0": Kind("a cabinet archive", _UNPACK),
    b"\x04\x22\x4d\x18": Kind("an LZ4 file", _REPACK),
    b"\x02\x21\x4c\x18": Kind("an LZ4 file", _REPACK),
    b"\x1f\x9d": Kind("a file of compress (.Z)", _REPACK),
    b"\x1f\xa0": Kind("a file of compress (.Z)", _REPACK),
    b"\xff\x06\x00\x00sNaPpY": Kind("a Snappy file", _REPACK),
    b"LZIP\x01": Kind("an lzip file", _REPACK),
    b"\x89LZO\x00\r\n\x1a\n": Kind("an lzop file", _REPACK),
    **dict.fromkeys(
        (bytes([n]) + b"\xb5\x2f\xfd" for n in range(0x1E, 0x28)),
        Kind("a file of an early Zstandard format", _REPACK),
    ),
    b"ARROW1\0\0": Kind("an Arrow or Feather file", _READ, format="arrow"),
    b"FEA1": Kind("a Feather file", _READ, format="arrow"),
    b"ORC": Kind("an ORC file", _CONVERT),
    b"Obj\x01": Kind("an Avro file", _CONVERT),
    PARQUET_MAGIC: PARQUET,
    b"PARE": Kind("an encrypted Parquet file", _CONVERT),
    b"\x89HDF\r\n\x1a\n": Kind("an HDF5 file", _CONVERT),
    b"SQLite format 3\0": Kind("an SQLite database", _CONVERT),
    b"\x93NUMPY": Kind("a NumPy array", _CONVERT),
    **dict.fromkeys((b"\x80" + bytes([n]) for n in range(2, 6)), Kind("a Python pickle", _CONVERT)),
    b"GGUF": Kind("a model file (GGUF)", _CONVERT),
    b"RDX3\n": Kind("an R data file", _CONVERT),
    b"RDX2\n": Kind("an R data file", _CONVERT),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": Kind("an old Office document (doc, xls or ppt)", EXTRACT),
    b"AT&TFORM": Kind("a DjVu document", EXTRACT),
    **dict.fromkeys(
        (
            *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"II*\0"),
            *(b"MM\0*", b"8BPS", b"\0\0\1\0"),
        ),
        Kind("an image", EXTRACT),
    ),
    **dict.fromkeys(
        (
            *(b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2", b"OggS", b"fLaC", b"RIFF", b"MThd"),
            *(b"\x1a\x45\xdf\xa3", b"FLV\x01"),
        ),
        Kind("audio or video", EXTRACT),
    ),
    **dict.fromkeys(
        (
            *(b"\x7fELF", b"MZ", b"\xca\xfe\xba\xbe", b"\0asm", b"\xcf\xfa\xed\xfe"),
            *(b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe"),
        ),
        Kind("a program", "leave out programs"),
    ),
}
_TEXTUAL: tuple[tuple[re.Pattern[bytes], Kind], ...] = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (rb"%PDF-\d", Kind("a PDF document", EXTRACT)),
        (rb"!<arch>\n", Kind("an ar archive", _UNPACK)),
        (rb"MATLAB 5\.0 MAT-file", Kind("a MATLAB file", _CONVERT)),
        (rb"%!PS", Kind("a PostScript document", EXTRACT)),
        (rb"\{\\rtf", Kind("an RTF document", EXTRACT)),
        (rb"WARC/\d\.\d+\r?\n", Kind("a WARC web archive", _READ, True, "warc")),
        (rb"filedesc://\S+ \S+ \d+ ", Kind("an ARC web archive", EXTRACT)),
        (rb"0707(?:01|02)[0-9A-Fa-f]{104}|070707[0-7]{70}", Kind("a cpio archive", _UNPACK)),
        (
            rb"version https?://\S+/spec/v\d\r?\n(?s:.*)\boid sha256:",
            Kind("a Git LFS pointer, not the data", "run 'git lfs pull'"),
        ),
        (
            rb"# xet version \d+\r?\nfilesize",
            Kind("a Git Xet pointer, not the data", "run 'git xet checkout'"),
        ),
        (
            rb"(?:(?:\.\./)*\.git)?/annex/objects/\S+\s*\Z",
            Kind("a git-annex pointer, not the data", "run 'git annex get'"),
        ),
    )
)
"""Kinds of files that may have no control character; each pattern must match at the start."""
_FIRST = tuple(_SIGNATURES)

_BEFORE_MARKUP = rb"(?:\s*+<!--.*?-->)*+\s*+"
_PROLOG = rb"(?:\s*+<\?xml\s[^>]{0,200}+>)?+"
_HTML_START = re.compile(_PROLOG + _BEFORE_MARKUP + rb"<(?:!doctype\s+html|html[\s>])", re.I | re.S)
# <doc id=...> and other tags may be lines of a text, so only what no text begins with is XML.
_XML_START = re.compile(
    _BEFORE_MARKUP
    + rb"<(?:\?xml\s|!doctype\s|(?:mediawiki|rss|feed|svg|tei|teicorpus|tmx|xliff)[\s>]"
    rb"|[a-z_][\w:.-]*\s[^<>]*\bxmlns(?::[\w.-]+)?\s*=\s*[\"'])",
    re.I | re.S,
)
_WIKI_START = re.compile(rb"\s*+(?:<\?xml[^>]*>\s*+)?<mediawiki[\s>]")
_OCTAL = re.compile(rb" *[0-7]{1,7}[\0 ]*")


def find_kind(head: bytes, encoding: str, name: str) -> Kind | None:
    """Return the kind of a file that is not text, or None if it may be text.

    JSON (`json_shape`) and tables have no signature, so they are not detected here.

    Args:
        head: the first bytes of the file, uncompressed, at least 512 or all of them.
        encoding: its encoding.
        name: its name, which decides only about Brotli, because that has no signature.
    """
    controls = _count_controls(head)
    if has_signature(head, _FIRST):
        return next(kind for first, kind in _SIGNATURES.items() if head.startswith(first))
    for pattern, kind in _TEXTUAL:
        if pattern.match(head):
            return kind
    if is_tar(head):
        return TAR
    text = head if is_cuttable(encoding) else head.decode(encoding, "ignore").encode()
    text = text.removeprefix(codecs.BOM_UTF8)
    if text.lstrip()[:1] == b"<":
        if _HTML_START.match(text):
            return HTML
        if _WIKI_START.match(text):
            return WIKI
        if _XML_START.match(text):
            return XML
    return _binary_kind(head, controls, name) if controls and is_cuttable(encoding) else None


def has_signature(head: bytes, signatures: tuple[bytes, ...]) -> bool:
    """Return True if a file begins with a signature and is binary: prose may have the same letters."""
    return head.startswith(signatures) and _count_controls(head[:_NEAR]) > 0


def _count_controls(data: bytes) -> int:
    return len(data) - len(data.translate(None, _CONTROLS))


def _binary_kind(head: bytes, controls: int, name: str) -> Kind | None:
    """Return the kind of a file with control characters, or None if it may be text."""
    if head[:4] == b"\xff\xff\xff\xff" and head[4:8] and head[7] < 0x10:
        return Kind("an Arrow stream", _READ, format="arrow")
    if head[4:8] == b"ftyp":
        return Kind("audio or video", EXTRACT)
    if head[8:10] == b'{"' and head[5:8] == b"\0\0\0":
        return Kind("a model file (safetensors)", _CONVERT)
    if head[:3] == b"\x5d\0\0" and (head[5:13] == b"\xff" * 8 or head[10:13] == bytes(3)):
        return Kind("an LZMA file (.lzma)", _REPACK)
    valid = is_utf8(head)
    if name.lower().endswith(".br") and not valid:
        return _BROTLI
    if not valid and _is_zlib(head):
        return _ZLIB
    # Random bytes have 11 % of control characters and invalid UTF-8; a damaged text has a few.
    many = 0.3 if valid else 0.07
    dense = controls >= many * len(head) or (not valid and head.count(0) >= 0.02 * len(head))
    if controls < 8 or not dense or _may_be_utf16(head):
        return None
    return BINARY


def is_tar(head: bytes) -> bool:
    """Return True for the header of a tar archive; the oldest have only a checksum."""
    header = head[:512]
    if len(header) < 512 or not _OCTAL.fullmatch(header[148:156]):
        return False
    stated = int(header[148:156].strip(b"\0 "), 8)
    return stated == sum(header) - sum(header[148:156]) + 8 * 0x20


def is_utf8(head: bytes) -> bool:
    """Return True if the beginning of a file is valid UTF-8, perhaps cut inside a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _is_zlib(head: bytes) -> bool:
    if len(head) < 8 or head[0] & 0x0F != 8 or struct.unpack(">H", head[:2])[0] % 31:
        return False
    try:
        return bool(zlib.decompressobj().decompress(head, 1 << 16))
    except zlib.error:
        return False


def _may_be_utf16(head: bytes) -> bool:
    """Return True if the bytes may be text in UTF-16 or UTF-32 without a byte order mark."""
    for encoding in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        try:
            text = codecs.getincrementaldecoder(encoding)().decode(head)
        except UnicodeDecodeError:
            continue
        printable = sum(c.isprintable() or c.isspace() for c in text)
        if printable >= 0.95 * len(text) > 0:
            return True
    return False
