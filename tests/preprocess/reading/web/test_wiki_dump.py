"""Dumps of wikis: articles, other pages, markup, and dumps that are damaged."""

import bz2
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.reading.byte_range import DamagedFile
from preprocess.reading.web.wiki_dump import wiki_records
from preprocess.reading.web.wikitext import plain_text

Read = Callable[..., Any]  # fixture of conftest.py
START = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="de">\n'
    '<siteinfo><namespaces><namespace key="0" /><namespace key="6">Datei</namespace>'
    '<namespace key="14">Kategorie</namespace></namespaces></siteinfo>\n'
)


def page(title: str, text: str, ns: int = 0, more: str = "", model: str = "wikitext") -> str:
    return (
        f"<page><title>{escape(title)}</title><ns>{ns}</ns><id>7</id>{more}<revision><id>9</id>"
        f"<model>{model}</model><text bytes='1'>{escape(text)}</text></revision></page>\n"
    )


def test_articles_are_documents_and_other_pages_are_counted(
    tmp_path: Path, read_file: Read
) -> None:
    pages = [
        page("Fluß", "Der '''Fluß''' ist ein [[Strom|breiter Strom]] & mehr.\n\n[[Kategorie:X]]"),
        page("Diskussion:Fluß", "Text", 1),
        page("Strom", "#WEITERLEITUNG [[Fluß]]", more='<redirect title="Fluß" />'),
        page("Daten", "{}", model="json"),
        page("Stummel", "{{stub}}"),
        page("Bach", "[[Datei:a.jpg|mini|Ein [[Bach]]]]Ein Bach."),
    ]
    data = (START + "".join(pages) + "</mediawiki>\n").encode()
    for name, packed in (("a.xml", data), ("a.xml.bz2", bz2.compress(data))):
        (tmp_path / name).write_bytes(packed)
        block, places = read_file(tmp_path / name)
        assert block.documents == ["Der Fluß ist ein breiter Strom & mehr.", "Ein Bach."]
        assert places[0] == f"{name}:{len(START.encode())} id=Fluß"
        assert [(one.reason, one.excerpt) for one in block.rejected] == [
            ("wiki_namespace", "Diskussion:Fluß"),
            ("wiki_redirect", "Strom"),
            ("not_text", "Daten"),
            ("no_main_text", "{{stub}}"),
        ]


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("'''Bold''' and ''italic''.", "Bold and italic."),
        ("[[A]], [[A|b]], [[A#c|]], [[:Category:D]], [[a]]s", "A, b, A#c, Category:D, as"),
        ("[http://x y z] and [//x] and http://x", "y z and and http://x"),
        ("a {{t|b {{u}} [[c]]}} d", "a d"),
        ("a}} b {{ c", "a b c"),
        ("x\n{| class=a\n|-\n| 1 || {{t}}\n{|\n| 2\n|}\n|}\ny", "x\n\ny"),
        ("a<ref name=x>b {{cite}}</ref> c<ref name=x /> d<br>e", "a c d\ne"),
        ("a<ref>not closed\nb", "a\nb"),
        ("<div style='x'>a<!-- b\nc --> d</div>", "a d"),
        ("== H ==\na\n=== I===\n* b\n## c\n: d\n----", "H\na\nI\nb\nc\nd"),
        ("[[File:a.jpg|thumb|x [[y|z]] w]]\na\n[[Category:B]]\n[[de:C]]", "a"),
        ("[[Star Wars: Two|it]] and [[2001: A]]", "it and 2001: A"),
        ("a&nbsp;b &amp;lt; 5 &ndash; c", "a\u00a0b &lt; 5 – c"),
        ("A (; {{pron}}) b ( ) c", "A b c"),
        ("__TOC__ a\n\n\n\n \nb", "a\n\nb"),
        ("-{zh-hans:计算机;zh-hant:電腦}-和-{A}-", "计算机和A"),
        ("<math>x^2 < 3</math>a <gallery>\nb.jpg|c\n</gallery>", "a"),
    ],
)
def test_running_text_is_kept(markup: str, text: str) -> None:
    assert plain_text(markup) == text


@given(st.text(alphabet="[]{}|'=<>/!-& ab\n:*ref", max_size=80))
def test_any_markup_is_read(markup: str) -> None:
    text = plain_text(markup)
    assert "[[" not in text
    assert "{{" not in text or "&" in markup


@pytest.mark.parametrize("unit", ["{{", "<ref>", "[[a|", "{|\n", "''", "[http://x ", "-{", "== a"])
def test_markup_that_is_never_closed_takes_little_time(unit: str) -> None:
    assert isinstance(plain_text(unit * 5000), str)


def test_a_long_page_is_oversized_and_memory_is_bounded() -> None:
    def chunks() -> Iterator[bytes]:
        yield START.encode()
        for i in range(300):
            yield page(f"P{i}", f"text {i} " + "word " * 200).encode()
        yield page("Long", "x" * 500_000).encode()
        yield page("Last", "end").encode() + b"</mediawiki>"

    tracemalloc.start()
    found = list(wiki_records(chunks(), "a", 100_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [one.reason for one in found] == [*[""] * 300, "oversized", ""]
    assert (found[-2].id, found[-1].text) == ("Long", "end")
    assert peak < 3_000_000


@pytest.mark.parametrize("size", [1, 50, 1 << 20])
@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("<page><title>", "no element found"),
        ("</page>", "mismatched tag"),
        ("\x01", "not well-form"),
    ],
)
def test_a_damaged_dump_is_told_after_its_pages(size: int, end: str, reason: str) -> None:
    data = (START + page("A", "a") + end).encode()
    chunks = [data[i : i + size] for i in range(0, len(data), size)]
    found = wiki_records(chunks, "a.xml", 1000)
    assert next(found).text == "a"
    with pytest.raises(DamagedFile, match=f"a.xml: cannot be read as a dump of a wiki .{reason}"):
        next(found)


def test_entities_are_refused() -> None:
    bomb = '<!DOCTYPE a [<!ENTITY a "aaaa">]><mediawiki><page><title>&a;</title></page></mediawiki>'
    with pytest.raises(DamagedFile, match="it declares entities of its own"):
        list(wiki_records([bomb.encode()], "a", 1000))
