"""Encodings of the formats with records: JSON documents, tables and CoNLL-U."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preprocess.reading.byte_range import DamagedFile
from preprocess.reading.options import Limits

Read = Callable[..., Any]  # fixture of conftest.py
TEXTS = ["größer, schöner", "日本語の表\\ソ", "plain"]


def content(name: str, texts: list[str]) -> str:
    if name.endswith(".json"):
        return json.dumps([{"text": text} for text in texts], ensure_ascii=False, indent=1)
    if name.endswith(".csv"):
        return "n,text\n" + "".join(f'{i},"{text}"\n' for i, text in enumerate(texts))
    return "".join(f"# text = {text}\n1\tx\n\n" for text in texts)


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.conllu"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp932", "latin-1", "gb18030"])
@pytest.mark.parametrize("packed", [False, True])
def test_records_are_read_in_the_encoding_of_the_source(
    tmp_path: Path, read_file: Read, name: str, encoding: str, packed: bool
) -> None:
    texts = [text for text in TEXTS if text.encode(encoding, "ignore").decode(encoding) == text]
    data = content(name, texts).encode(encoding)
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(data) if packed else data)
    configured = "utf-8" if encoding.startswith("utf") else encoding
    for sizes in ((1 << 30, 1 << 20), (20, 5)):
        block, places = read_file(path, *sizes, encoding=configured)
        assert (block.documents, block.rejected) == (texts, [])
        assert len(set(places)) == len(texts)


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.conllu"])
def test_a_later_stretch_in_another_encoding_is_damage(
    tmp_path: Path, read_file: Read, name: str
) -> None:
    texts = [*["plain words " * 50] * 2500, *["ëéè ñ ü" * 30] * 2000]
    path = tmp_path / name
    path.write_bytes(content(name, texts).encode("latin-1"))
    with pytest.raises(DamagedFile, match=r"from byte [\d,]+ on, 100% of the characters outside"):
        read_file(path, block_bytes=1 << 18)
    block, _ = read_file(path, block_bytes=1 << 18, limits=Limits(skip_damaged=True))
    assert 1000 < len(block.documents) <= 2500
    assert [one.reason for one in block.rejected] == ["damaged_file"]


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.conllu"])
def test_few_invalid_bytes_are_replaced_or_rejected(
    tmp_path: Path, read_file: Read, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content(name, ["é" * 99, "aXb", "c"]).encode().replace(b"X", b"\xff"))
    block, _ = read_file(path)
    assert (block.documents[1:], block.replaced) == (["a\ufffdb", "c"], 1)
    block, _ = read_file(path, drop=True)
    assert (block.documents[1:], block.rejected[0].reason) == (["c"], "invalid_bytes")


def test_lone_surrogates_of_json_are_replaced(tmp_path: Path, read_file: Read) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"text": "a\\ud800b"},\n{"text": "\\ud83d\\ude00"}]')
    block, _ = read_file(path)
    assert (block.documents, block.replaced) == (["a\ufffdb", "\U0001f600"], 1)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", b"text\n"),
        ("a.json", b"[]"),
        ("a.conllu", b"\n# text = x\n"),
        ("a.json", b" [ ]\n"),
    ],
)
def test_files_without_records_are_empty(
    tmp_path: Path, read_file: Read, name: str, data: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    block, _ = read_file(path)
    assert block.documents == (["x"] if name == "a.conllu" else [])
    assert not block.rejected
