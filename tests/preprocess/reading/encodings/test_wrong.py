"""Text in another encoding than its source names: refused, left out, or found by ``auto``."""

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.config import Source
from preprocess.errors import UserError
from preprocess.reading import documents, reader
from preprocess.reading.byte_range import HEAD_BYTES, DamagedFile
from preprocess.reading.changed_inputs import ranges_read
from preprocess.reading.encodings import wrong
from preprocess.reading.encodings.likely import likely_encoding
from preprocess.reading.encodings.wrong import STRETCH_BYTES
from preprocess.reading.listing import list_source
from preprocess.reading.reader import Limits
from preprocess.reading.units import plan_units
from preprocess.text.config import CleaningConfig

Read = Callable[..., Any]  # fixture of conftest.py
SKIP = Limits(skip_damaged=True)
RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая несчастлива.\n"
GERMAN = "Über den Wolken muß die Freiheit wohl grenzenlos sein, sagte das schöne Mädchen.\n"
ENGLISH = "It is a truth universally acknowledged, that a single man must be in want of a wife.\n"
SPARSE = ENGLISH * 10 + "And a café, of course.\n"
"""A text with an accent in every 900 characters."""
LEAVE_OUT = r", or leave it out with prepare\.damaged_files=skip$"


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def encodings_of(path: Path, unit_bytes: int, **source: Any) -> tuple[list[str], list[str]]:
    """Read a file; return its documents and the encoding recorded for each range."""
    settings = Source(path=str(path), **source)
    documents: list[str] = []
    encodings: list[str] = []
    for unit in plan_units([settings], [list_source(settings)], unit_bytes):
        read = reader.read_unit(unit, settings, CleaningConfig())
        documents += [text for block in read for text in block.documents]
        rows = ranges_read(unit, read.read_so_far())
        encodings += [row.get("encoding", "") for row in rows]
    return documents, encodings


def lines(text: str) -> list[str]:
    return text.splitlines()


@pytest.mark.parametrize(
    ("data", "configured", "message"),
    [
        (
            (RUSSIAN * 9).encode("koi8-r"),
            "utf-8",
            r"a.txt: \d+% of the characters outside ASCII are invalid in utf-8; set "
            r"'encoding: koi8-r' or 'encoding: auto' in its source" + LEAVE_OUT,
        ),
        (
            (SPARSE * 20).encode("latin-1"),
            "utf-8",
            r"a.txt: 100% of the characters outside ASCII are invalid in utf-8; set "
            r"'encoding: cp1252'",
        ),
        (
            ENGLISH.encode("utf-16-le"),
            "utf-8",
            r"a.txt: 50% of its bytes are NUL, as in text in utf-16-le; set 'encoding: utf-16-le'",
        ),
        (
            RUSSIAN.encode("utf-16-be"),
            "cp1251",
            r"\d+% of its bytes are NUL, as in text in utf-16-be",
        ),
        (
            ENGLISH.encode("utf-32-be"),
            "utf-8",
            r"75% of its bytes are NUL, as in text in utf-32-be",
        ),
        (
            ("ひらがなです\n" * 9).encode("iso2022_jp"),
            "utf-8",
            r"a.txt: it has escape sequences, as in text in iso2022_jp; set 'encoding: iso2022_jp'",
        ),
        (
            ENGLISH.encode(),
            "utf-16-le",
            "a.txt: it is UTF-8, not utf-16-le; set 'encoding: utf-8' or",
        ),
        (RUSSIAN.encode(), "cp037", "a.txt: it is UTF-8, not cp037"),
        (RUSSIAN.encode(), "ascii", "100% of the characters outside ASCII are invalid in ascii"),
        ((RUSSIAN * 9).encode(), "euc_jp", "a.txt: it is UTF-8, not euc_jp; set 'encoding: utf-8'"),
        (
            ("吾輩は猫である。\n" * 99).encode("cp932"),
            "euc_kr",
            r"\d% of .* invalid in euc_kr; set",
        ),
        (
            ENGLISH.encode("utf-16-be"),
            "utf-16",
            r"50% of its bytes are NUL, as in text in utf-16-be",
        ),
        (
            (GERMAN * 40).encode("cp1252"),
            "utf-16",
            r"a.txt: its first bytes contain no NUL, as text in utf-16-le does; set 'encoding: cp1252",
        ),
        ((GERMAN * 9).encode("cp1252"), "cp037", "its characters in cp037 are control characters"),
        (
            bytes(range(128, 256)) * 30,
            "utf-8",
            r"in utf-8; name its encoding in its source, such as 'encoding: cp1252', because none "
            "fits clearly" + LEAVE_OUT,
        ),
        (
            b"\xef\xbb\xbf" + (RUSSIAN * 9).encode("cp1251"),
            "utf-8",
            r"of the characters outside ASCII are invalid in utf-8",
        ),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_in_another_encoding_is_refused_with_the_likely_one(
    tmp_path: Path,
    read_file: Read,
    data: bytes,
    configured: str,
    message: str,
    pack: Callable[[bytes], bytes],
) -> None:
    path = write(tmp_path / "a.txt", pack(data))
    for document in ("line", "paragraph", "file"):
        for unit_bytes in (1 << 30, 100):
            given = {"encoding": configured, "document": document}
            with pytest.raises(DamagedFile, match=message):
                read_file(path, unit_bytes, **given)
            # No range of the file gives a document, and the file is counted once.
            block, _ = read_file(path, unit_bytes, limits=SKIP, **given)
            (rejected,) = block.rejected
            assert (block.documents, rejected.reason) == ([], "damaged_file")
            assert rejected.where == "a.txt"


def test_jsonl_is_examined_like_text(tmp_path: Path, read_file: Read) -> None:
    row = json.dumps({"text": RUSSIAN}, ensure_ascii=False) + "\n"
    path = write(tmp_path / "a.jsonl", row.encode("cp1251") * 9)
    with pytest.raises(DamagedFile, match="invalid in utf-8; set 'encoding: cp1251'"):
        read_file(path)
    assert read_file(path, encoding="auto")[0].documents == [RUSSIAN] * 9


def test_without_the_detector_the_message_says_how_to_install_it(
    tmp_path: Path, read_file: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "chardet", None)
    likely_encoding.cache_clear()
    path = write(tmp_path / "a.txt", RUSSIAN.encode("cp1251"))
    hint = r"'encoding: cp1252' \(to learn the likely one: pip install 'biloom\[encodings\]'\)"
    with pytest.raises(DamagedFile, match=hint + LEAVE_OUT):
        read_file(path)
    with pytest.raises(UserError, match="needs the package chardet: pip install") as found:
        read_file(path, encoding="auto", limits=SKIP)
    assert not isinstance(found.value, DamagedFile)
    write(path, ENGLISH.encode("utf-16-le"))
    assert read_file(path, encoding="auto")[0].documents == lines(ENGLISH)


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b"\xff\xfd\xfe", "utf-8"),
        (b"a \xff\xfe b\n\xe9\n", "utf-8"),
        ((ENGLISH * 100).encode() + b"\xff\xfe\xfd caf\xe9\n" * 2, "utf-8"),
        ((RUSSIAN + GERMAN).encode() * 30 + b"\xff\xfe\xfd\xe9\n" * 10, "utf-8"),
        (("人人生而自由" * 90).encode() + b"\xe4\xba\n", "utf-8"),
        (("人人生而自由" * 90).encode("gb18030") + b"\xff\xff\xff\xff\xff\n", "gb18030"),
        (ENGLISH.encode() * 800 + b"caf\xe9\n" * 30, "utf-8"),
        (ENGLISH.encode() + b"\0" * 4, "utf-8"),
        ((RUSSIAN * 9).encode("koi8-r"), "latin-1"),
        ((ENGLISH * 9).encode("utf-16-le") + b"\0\xd8\n\0", "utf-16"),
        ("中文".encode("utf-16-le"), "utf-16"),
    ],
)
def test_a_few_invalid_bytes_remain_replaced(
    tmp_path: Path, read_file: Read, data: bytes, encoding: str
) -> None:
    path = write(tmp_path / "a.txt", data)
    text = data.decode(encoding, "replace").removesuffix("\n")
    for sizes in ((100, 50), (1 << 30, 1 << 20)):
        block, _ = read_file(path, *sizes, encoding=encoding)
        assert "\n".join(block.documents) == text
        assert (block.rejected, block.replaced) == ([], text.count("\ufffd"))


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_later_text_in_another_encoding_is_refused_or_left_out(
    tmp_path: Path, read_file: Read, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    good = ENGLISH * (2 * STRETCH_BYTES // len(ENGLISH) + 1)
    if encoding == "utf-16":
        bad, invalid = b"\0\xd8ab\n\0" * 90_000, 90_000
        data = good.encode("utf-16-le") + bad
        message = r"from byte 2,097,152 on, \d+% .* invalid in utf-16-le; name its encoding"
    else:
        bad, invalid = (GERMAN + ENGLISH).encode(encoding) * 9000, 9000
        data = good.encode() + bad
        message = r"from byte 2,097,152 on, 100% .* invalid in utf-8; set 'encoding: cp1252'"
        encoding = "utf-8"
    path = write(tmp_path / "a.txt", pack(data))
    results = []
    for sizes in ((700_000, 300_000), (1 << 30, 1 << 18)):
        with pytest.raises(DamagedFile, match=message):
            read_file(path, *sizes, encoding=encoding)
        results.append(read_file(path, *sizes, limits=SKIP, encoding=encoding))
    assert results[0] == results[1]
    block, _ = results[0]
    assert set(block.documents) == set(lines(ENGLISH))
    assert {one.reason for one in block.rejected} == {"wrong_encoding"}
    assert len(block.rejected) == invalid


def test_a_record_longer_than_a_stretch_is_a_stretch_itself(
    tmp_path: Path, read_file: Read
) -> None:
    long = ENGLISH.replace("\n", " ") * 13_000 + GERMAN.replace("\n", " ") * 13_000
    path = write(tmp_path / "a.txt", f"good\n{long}\ngood\n".encode("latin-1"))
    with pytest.raises(DamagedFile, match=r"a.txt: from byte 5 on, 100% of the characters"):
        read_file(path)
    block, _ = read_file(path, limits=SKIP)
    assert block.documents == ["good", "good"]
    assert [(one.reason, one.where) for one in block.rejected] == [("wrong_encoding", "a.txt:5")]


@settings(deadline=None, max_examples=150)
@given(
    pieces=st.lists(st.sampled_from(["é", "é".encode("latin-1"), "x", "xxxxxx", "\n", "\n\n"])),
    unit_bytes=st.integers(1, 40),
    block_bytes=st.integers(1, 40),
    packed=st.booleans(),
    document=st.sampled_from(["line", "paragraph", "file"]),
)
def test_left_out_records_do_not_depend_on_how_the_file_is_cut(
    tmp_path_factory: pytest.TempPathFactory,
    read_file: Read,
    pieces: list[str | bytes],
    unit_bytes: int,
    block_bytes: int,
    packed: bool,
    document: str,
) -> None:
    data = b"".join(one.encode() if isinstance(one, str) else one for one in pieces)
    path = tmp_path_factory.mktemp("cut") / "a.txt"
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wrong, "STRETCH_BYTES", 8)
        patch.setattr(wrong, "_RULES", ((0.1, 0.5, 2),))
        patch.setattr(documents, "choose_encoding", lambda *_: "utf-8")
        given = {"limits": SKIP, "document": document}
        assert read_file(path, unit_bytes, block_bytes, **given) == read_file(path, **given)


@pytest.mark.parametrize(
    ("data", "encoding", "text"),
    [
        (RUSSIAN.encode(), "utf-8", RUSSIAN),
        (b"", "utf-8", ""),
        (ENGLISH.encode() + b"caf\xe9\n", "utf-8", ENGLISH + "caf\ufffd\n"),
        ((RUSSIAN * 9).encode("koi8-r"), "koi8-r", RUSSIAN * 9),
        ((RUSSIAN * 9).encode("iso8859-5"), "iso8859-5", RUSSIAN * 9),
        ((GERMAN * 9).encode("latin-1"), "cp1252", GERMAN * 9),
        (ENGLISH.encode("utf-16-be"), "utf-16-be", ENGLISH),
        (b"\xff\xfe" + RUSSIAN.encode("utf-16-le"), "utf-16-le", RUSSIAN),
        (("ひらがなです\n" * 9).encode("iso2022_jp"), "iso2022_jp", "ひらがなです\n" * 9),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_auto_finds_the_encoding_of_each_file(
    tmp_path: Path,
    data: bytes,
    encoding: str,
    text: str,
    pack: Callable[[bytes], bytes],
) -> None:
    path = write(tmp_path / "a.txt", pack(data))
    for unit_bytes in (1 << 30, 50):
        documents, encodings = encodings_of(path, unit_bytes, encoding="auto")
        assert documents == lines(text)
        # In a packed file or one in UTF-16, the first range has all documents.
        assert set(encodings) <= {encoding, ""}
        assert encodings[:1] == ([encoding] if data or pack is gzip.compress else [])


def test_auto_looks_for_the_encoding_beyond_ascii_at_the_start(
    tmp_path: Path, read_file: Read
) -> None:
    start = ENGLISH * (HEAD_BYTES // len(ENGLISH) + 1)
    path = write(tmp_path / "a.txt", start.encode() + (RUSSIAN * 3000).encode("cp1251"))
    for unit_bytes in (1 << 30, 100_000):
        documents, encodings = encodings_of(path, unit_bytes, encoding="auto")
        assert documents == lines(start + RUSSIAN * 3000)
        assert set(encodings) == {"cp1251"}
    # In a packed file, only the first bytes are examined; the later text is refused.
    write(path, gzip.compress(path.read_bytes()))
    with pytest.raises(DamagedFile, match="invalid in utf-8; set 'encoding: cp1251'"):
        read_file(path, encoding="auto")


def test_auto_refuses_what_no_encoding_fits(tmp_path: Path, read_file: Read) -> None:
    path = write(tmp_path / "a.txt", bytes(range(128, 256)) * 30)
    with pytest.raises(
        DamagedFile, match=r"a.txt: it is not UTF-8; name its encoding in .* none fits clearly"
    ):
        read_file(path, encoding="auto")
    block, _ = read_file(path, 100, limits=SKIP, encoding="auto")
    assert block.documents == []
    assert [one.reason for one in block.rejected] == ["damaged_file"]
