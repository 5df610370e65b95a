"""Real texts of many languages in legacy encodings, and in UTF-8."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from preprocess.reading.byte_range import DamagedFile
from preprocess.reading.reader import Limits

Read = Callable[..., Any]  # fixture of conftest.py
ENCODINGS = {
    "ar-tatoeba.txt": ("cp1256", "iso8859-6"),
    "de-tatoeba.0.5MB.txt": ("cp1252", "iso8859-1", "iso8859-15", "cp850", "cp437", "mac-roman"),
    "en-wiki.8MB.txt": ("cp1252", "utf-16-le", "utf-16-be", "utf-32-le", "cp500"),
    "he-tatoeba.1MB.txt": ("cp1255", "iso8859-8", "cp862", "utf-16-be"),
    "ja-aozora.1.5MB.txt": ("cp932", "euc_jp", "iso2022_jp", "utf-16-le"),
    "ko-wiki.1MB.txt": ("cp949", "euc_kr", "johab", "iso2022_kr", "utf-16-be"),
    "ru-novels.1.5MB.txt": ("cp1251", "koi8-r", "iso8859-5", "cp866", "cp855", "mac-cyrillic"),
    "th-wisesight.0.5MB.txt": ("cp874", "tis-620", "utf-16-le"),
    "vi-wiki.0.5MB.txt": ("cp1258", "utf-16-le"),
    "zh-law.1MB.txt": ("gb18030", "gbk", "hz", "utf-16-le"),
    "zh-wiki.5MB.txt": ("big5", "gb18030", "utf-16-be"),
}
LEGACY = {"gb18030": "gb18030", "shift_jis": "cp932"}
TEXT_BYTES = 200_000
FOUND = 0.95
"""Smallest share of the files that are read in the right encoding with ``encoding: auto``."""


@pytest.fixture(scope="module")
def data() -> Path:
    root = os.environ.get("BILOOM_TEST_DATA")
    if not root:
        pytest.skip("BILOOM_TEST_DATA names no folder of test data")
    return Path(root)


@pytest.fixture(scope="module")
def legacy(data: Path) -> list[tuple[str, bytes, str]]:
    """The name, the content and the encoding of each file."""
    files = [
        (str(path.relative_to(data)), path.read_bytes(), LEGACY[path.parent.name])
        for path in sorted((data / "nasty" / "legacy").rglob("*.txt"))
    ]
    for name, encodings in ENCODINGS.items():
        text = (data / "raw" / name).read_bytes()[:TEXT_BYTES].decode("utf-8", "ignore")
        files += [(f"{name} in {e}", text.encode(e, "ignore"), e) for e in encodings]
    return files


def test_no_text_in_another_encoding_is_read(
    legacy: list[tuple[str, bytes, str]], tmp_path: Path, read_file: Read
) -> None:
    path = tmp_path / "a.txt"
    read = []
    for name, content, _ in legacy:
        path.write_bytes(content)
        with suppress(DamagedFile):
            read_file(path)
            read.append(name)
        assert read_file(path, limits=Limits(skip_damaged=True))[0].documents == []
    assert read == []


def test_auto_reads_almost_all_of_them(
    legacy: list[tuple[str, bytes, str]], tmp_path: Path, read_file: Read
) -> None:
    path = tmp_path / "a.txt"
    right = []
    for name, content, encoding in legacy:
        path.write_bytes(content)
        expected, _ = read_file(path, encoding=encoding)
        found, _ = read_file(path, 70_000, limits=Limits(skip_damaged=True), encoding="auto")
        if found.documents == expected.documents:
            right.append(name)
    assert len(right) >= FOUND * len(legacy), {name for name, _, _ in legacy}.difference(right)


def test_text_in_utf8_is_not_refused(data: Path, read_file: Read) -> None:
    texts = [*(data / "raw").glob("*.txt"), *(data / "lm").rglob("*.txt")]
    texts += [*(data / "nasty").glob("*.txt"), *(data / "raw" / "ud").iterdir()]
    assert len(texts) > 15
    for path in texts:
        for encoding in ("utf-8", "auto"):
            block, _ = read_file(path, block_bytes=1 << 18, encoding=encoding)
            assert block.documents
            assert block.rejected == []
            if path.name != "UTF-8-test.txt":
                assert block.replaced == 0
