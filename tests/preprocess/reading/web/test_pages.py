"""Pages in HTML: main text, encodings, and pages that are damaged or empty."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.config import Source
from preprocess.reading.block import Rejected
from preprocess.reading.options import Limits
from preprocess.reading.web.page_encoding import decode_page
from preprocess.reading.web.pages import import_extractor

pytest.importorskip("resiliparse")
Read = Callable[..., Any]  # fixture of conftest.py
TEXTS = {
    "zh": ("河流穿过老城，人们晚上沿着它散步。", ("gb18030", "big5")),
    "ar": ("النهر يجري عبر المدينة القديمة والناس يمشون على طوله. ", ("windows-1256", "utf-8")),
    "ru": ("Река течёт через старый город, и люди гуляют вдоль неё. ", ("windows-1251", "koi8-r")),
    "ja": ("川は古い町を流れ、人々は夕方に歩きます。", ("shift_jis", "euc-jp")),
}
PAGE = (
    "<!DOCTYPE html><html lang='{lang}'><head><meta charset='{charset}'><title>T</title>"
    "<style>p {{ color: red }}</style></head><body><nav><a href='/'>Menu</a></nav>"
    "<script>var hidden = '<p>no</p>';</script><main><h1>Head</h1><article><p>{text}</p>"
    "<table><tr><td>cell</td></tr></table></article></main><footer>Foot</footer></body></html>"
)


def page(text: str, charset: str, lang: str = "en") -> str:
    return PAGE.format(text=text, charset=charset, lang=lang)


@pytest.mark.parametrize(
    ("lang", "charset"), [(lang, name) for lang, (_, names) in TEXTS.items() for name in names]
)
def test_pages_are_read_in_their_declared_encoding(
    tmp_path: Path, read_file: Read, lang: str, charset: str
) -> None:
    text = (TEXTS[lang][0] * 20).strip()
    if charset == "big5":
        text = text.translate(str.maketrans("穿过们沿着", "穿過們沿著"))
    path = tmp_path / "a.html"
    path.write_bytes(page(text, charset, lang).encode(charset))
    block, places = read_file(path)
    (found,) = block.documents
    assert text in found
    assert "cell" in found
    assert not any(word in found for word in ("Menu", "Foot", "hidden", "color", "<"))
    assert (places, block.rejected) == (["a.html:0"], [])


def test_xhtml_is_a_page_too(tmp_path: Path, read_file: Read) -> None:
    path = tmp_path / "a"
    html = page("Words", "utf-8").removeprefix("<!DOCTYPE html>")
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?>\n<!-- c -->{html}')
    assert "Words" in read_file(path)[0].documents[0]


@pytest.mark.parametrize("lang", ["zh", "ru"])
def test_a_page_in_another_encoding_than_declared_is_counted_or_detected(
    tmp_path: Path, read_file: Read, lang: str
) -> None:
    text, (name, _) = TEXTS[lang]
    path = tmp_path / "a.html"
    path.write_bytes(page(text * 20, "utf-8", lang).encode(name))
    block, _ = read_file(path)
    assert (block.documents, [one.reason for one in block.rejected]) == ([], ["wrong_encoding"])
    pytest.importorskip("chardet")
    block, _ = read_file(path, encoding="auto")
    assert (text * 20).strip() in block.documents[0]


def test_utf_8_is_recognised_whatever_is_declared(tmp_path: Path, read_file: Read) -> None:
    for lang, (text, _) in TEXTS.items():
        for charset in ("iso-8859-1", "windows-1251", "gb2312", "utf-16", "x-unknown"):
            path = tmp_path / "a.html"
            path.write_bytes(page(text * 20, charset, lang).encode())
            block, _ = read_file(path)
            assert (text * 20).strip() in block.documents[0], (lang, charset)


def test_few_invalid_bytes_are_replaced_and_counted(tmp_path: Path, read_file: Read) -> None:
    path = tmp_path / "a.html"
    path.write_bytes(page("é word " * 50 + "X", "utf-8").encode().replace(b"X", b"\xff end"))
    block, _ = read_file(path)
    assert block.documents[0].count("\ufffd") == block.replaced == 1
    block, _ = read_file(path, drop=True)
    assert [one.reason for one in block.rejected] == ["invalid_bytes"]


@pytest.mark.parametrize(
    "html", ["<!DOCTYPE html>", "<html></html>", "<html><head></head></html>", "<html><script>a"]
)
def test_a_page_without_main_text_is_counted_and_shown(
    tmp_path: Path, read_file: Read, html: str
) -> None:
    path = tmp_path / "a.html"
    path.write_text(html)
    block, _ = read_file(path)
    assert block.documents == []
    assert block.rejected == [Rejected("no_main_text", html, "a.html:0")]


def test_a_long_page_is_oversized_and_a_cut_one_is_read(tmp_path: Path, read_file: Read) -> None:
    html = page("word " * 1000, "utf-8")
    path = tmp_path / "a.html"
    path.write_text(html)
    block, _ = read_file(path, limits=Limits(1024))
    assert (block.documents, [one.reason for one in block.rejected]) == ([], ["oversized"])
    path.write_text(html[:3000])
    assert "word word" in read_file(path)[0].documents[0]


def test_the_encoding_of_the_source_is_that_of_pages_that_declare_none() -> None:
    text, _ = TEXTS["ru"]
    html = f"<html><body><p>{text * 20}</p></body></html>"
    for configured, reason in (("utf-8", "wrong_encoding"), ("koi8-r", ""), ("cp1251", "")):
        data = html.encode("koi8-r" if configured == "utf-8" else configured)
        decoded, found, _ = decode_page(data, "", configured)
        assert found == reason
        assert reason or decoded == html


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet="<>/=\"'pdivscript &;!-\n\0é", max_size=120), st.binary(max_size=40))
def test_any_page_is_read(text: str, data: bytes) -> None:
    extract = import_extractor("a")
    for page_ in (text.encode(), data, b"<html><p>" + data):
        decoded, reason, _ = decode_page(page_, "text/html; charset=x", Source(path="a").encoding)
        assert isinstance(extract(decoded), str) or reason
