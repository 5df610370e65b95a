"""Readers: formats, line ends, limits, and an account of every byte and record."""

import gzip
import json
import os
import random
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from preprocess.config import PrepareConfig, Source
from preprocess.files.errors import StorageError
from preprocess.reading.block import Block, join_small
from preprocess.reading.byte_range import DamagedFile
from preprocess.reading.changed_inputs import ranges_read, warnings_of
from preprocess.reading.listing import list_source
from preprocess.reading.reader import Limits, read_unit
from preprocess.reading.units import plan_units
from preprocess.text.cleaning import Cleaner
from preprocess.text.config import CleaningConfig

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
Read = Callable[..., Any]  # fixture of conftest.py


def write(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_lines_end_at_lf_and_crlf_and_a_lone_cr_stays(tmp_path: Path, read_file: Read) -> None:
    path = write(tmp_path, "a.txt", "one\r\ntwo\n\n a\rb \r\r\nlast")
    block, places = read_file(path)
    assert block.documents == ["one", "two", "", " a\rb \r", "last"]
    assert places == ["a.txt:0", "a.txt:5", "a.txt:9", "a.txt:10", "a.txt:18"]


def test_a_file_with_old_mac_line_ends_is_one_line(tmp_path: Path, read_file: Read) -> None:
    path = write(tmp_path, "a.txt", "one\rtwo\r\rthree\r")
    for document in ("line", "paragraph", "file"):
        assert read_file(path, document=document)[0].documents == ["one\rtwo\r\rthree\r"]


def test_a_paragraph_ends_at_a_blank_line(tmp_path: Path, read_file: Read) -> None:
    text = "\n \n a\r\nb\r\n \t\u3000\r\nc\n\u2029\n\nd\n\x1c\n\ne\n  "
    path = write(tmp_path, "a.txt", text)
    for sizes in ((1, 1), (7, 3), (100, 100)):
        block, places = read_file(path, *sizes, document="paragraph")
        assert block.documents == [" a\nb", "c", "d", "e"]
        assert places == ["a.txt:3", "a.txt:17", "a.txt:24", "a.txt:29"]


@pytest.mark.parametrize("data", ["", "\n", "\ufeff", " \n\n\t\n", "\n  "])
def test_blank_lines_are_not_a_paragraph(tmp_path: Path, read_file: Read, data: str) -> None:
    block, _ = read_file(write(tmp_path, "a.txt", data), document="paragraph")
    assert (block.documents, block.rejected) == ([], [])


def test_a_document_can_be_a_file(tmp_path: Path, read_file: Read) -> None:
    path = write(tmp_path, "a.txt", "\ufeffone\r\n\n two\n\n")
    block, places = read_file(path, 4, 3, document="file")
    assert (block.documents, places) == (["one\n\n two\n"], ["a.txt:3"])


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("document", ["line", "paragraph", "file"])
def test_an_empty_file_yields_nothing(
    tmp_path: Path, read_file: Read, data: bytes, document: str
) -> None:
    block, _ = read_file(write(tmp_path, "a.txt", data), document=document)
    assert (block.documents, block.rejected) == ([], [])


def test_an_excerpt_is_bounded(tmp_path: Path, read_file: Read) -> None:
    (rejected,) = read_file(write(tmp_path, "a.jsonl", "\u200b" * 5000))[0].rejected
    assert rejected.excerpt == r"\u200b" * 166 + r"\u20"


def test_each_line_of_jsonl_is_an_object(tmp_path: Path, read_file: Read) -> None:
    records = [
        '{"text": "a\\nb"}',
        "",
        "  ",
        '{"text": "\\ud800x \\ud83d\\ude00"}\r',
        '{"text": ""}',
    ]
    block, places = read_file(write(tmp_path, "a.jsonl", "\n".join(records)))
    assert block.documents == ["a\nb", "\ufffdx 😀", ""]
    assert (block.replaced, block.rejected) == (1, [])
    assert places == ["a.jsonl:0", "a.jsonl:21", "a.jsonl:55"]


def test_keys_of_text_and_id_are_configurable(tmp_path: Path, read_file: Read) -> None:
    records = [{"body": "here", "n": 7}, {"n": "x\ny"}, {"body": "there"}]
    path = write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, records)))
    block, places = read_file(path, text_field="body", id_field="n")
    assert block.documents == ["here", "there"]
    assert places == ["a.jsonl:0 id=7", "a.jsonl:39"]
    assert [one.where for one in block.rejected] == [r"a.jsonl:25 id=x\ny"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"{broken", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"n": ' + b"1" * 5000 + b"}", "invalid_json"),
        (b'{"other": "x"}', "missing_text_field"),
        (b'"text"', "missing_text_field"),
        (b'{"text": null}', "text_not_a_string"),
        (b'{"text": "\xff"}', "invalid_bytes"),
    ],
)
def test_an_invalid_record_is_rejected_with_its_location(
    tmp_path: Path, read_file: Read, record: bytes, reason: str
) -> None:
    path = write(tmp_path, "a.jsonl", b'{"text": "a"}\n' + record + b'\n{"text": "b"}\n')
    block, _ = read_file(path, drop=True)
    assert block.documents == ["a", "b"]
    assert [(r.reason, r.where) for r in block.rejected] == [(reason, "a.jsonl:14")]


def test_docstrings_are_read_in_the_declared_encoding_of_their_source(
    tmp_path: Path, read_file: Read
) -> None:
    text = '# coding: latin-1\n"""Every café in the town was closed that day."""\n'
    path = write(tmp_path, "a.py", text.encode("latin-1"))
    block, places = read_file(path, 4, format="docstrings")
    assert block.documents == ["Every café in the town was closed that day."]
    assert places == ["a.py:0"]
    (rejected,) = read_file(write(tmp_path, "b.py", b"# \xff\n"), format="docstrings")[0].rejected
    assert rejected.reason == "invalid_bytes"
    assert read_file(write(tmp_path, "c.py", b"def"), format="docstrings")[0].documents == []


def test_small_files_are_joined_in_one_block_and_keep_their_locations(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path, f"{number}.jsonl", f'{{"text": "a{number}"}}\nx\n{{"text": "b{number}"}}')
    source = Source(path=f"{tmp_path}/*.jsonl")
    (unit,) = plan_units([source], [list_source(source)], None)
    (block,) = read_unit(unit, source, CleaningConfig())
    assert block.documents == [f"{one}{number}" for number in range(5) for one in "ab"]
    assert [block.where(i) for i in (1, 2, 9)] == ["0.jsonl:17", "1.jsonl:0", "4.jsonl:17"]
    assert [one.where for one in block.rejected] == [f"{number}.jsonl:15" for number in range(5)]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_long_document_is_told_piece_by_piece(
    pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    text = random.Random(1).randbytes(1_000_000).hex().encode()
    source = Source(path=str(write(tmp_path, "a.txt", pack(text))))
    (unit,) = plan_units([source], [list_source(source)], None)
    for limits in (Limits(), Limits(max_document_bytes=1000)):
        pieces: list[int] = []
        alive = partial(pieces.append, 1)
        blocks = list(read_unit(unit, source, CleaningConfig(), limits, 65536, alive))
        assert len(blocks) <= 2
        assert len(pieces) > 10


def test_blocks_of_many_or_long_documents_are_not_joined() -> None:
    many, long, short = ([""] * 5000, ["x" * 90], ["y"])
    blocks = [Block(one, [], 0, 1) for one in (many, short, short, long, short, many)]
    joined = list(join_small(blocks, 91))
    assert [len(one.documents) for one in joined] == [5000, 2, 2, 5000]
    assert [one.raw_bytes for one in joined] == [1, 2, 2, 1]


def test_limits_follow_from_the_config() -> None:
    assert Limits.of(PrepareConfig(input="x")) == Limits() == Limits(16_000_000, 1000, False)
    config = PrepareConfig(
        input="x", damaged_files="skip", max_expansion=7, max_document_bytes=2000
    )
    assert Limits.of(config) == Limits(2000, 7, True)


def test_a_file_found_twice_is_listed_once(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt"):
        write(tmp_path, name, "x")
    paths = (f"{tmp_path}/b.*", f"{tmp_path}/../{tmp_path.name}/a.txt", f"{tmp_path}/*.txt")
    files = list_source(Source(path=paths))
    assert [file.name for file in files] == ["a.txt", "b.txt"]


def test_files_of_equal_name_get_their_folders_in_the_name(tmp_path: Path) -> None:
    for folder in ("x/1", "y/1", "z"):
        (tmp_path / folder).mkdir(parents=True)
        write(tmp_path / folder, "a.txt", folder)
    paths = tuple(f"{tmp_path}/{folder}/*.txt" for folder in ("y/1", "x/1", "z"))
    assert [file.name for file in list_source(Source(path=paths))] == [
        "x/1/a.txt",
        "y/1/a.txt",
        "z/a.txt",
    ]


def test_a_pattern_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no file matches; check the path"):
        list_source(Source(path=f"{tmp_path}/*.txt"))


DAMAGED = {"corrupt-middle.txt.gz", "truncated.txt.gz", "zero-length.txt.gz"}
IN_ANOTHER_ENCODING = {"latin1.txt", "half-utf8-half-gb18030.txt"}
ENCODINGS = {"gb18030": "gb18030", "shift_jis": "shift_jis", "utf16le-nobom.txt": "utf-16"}


@pytest.mark.parametrize("document", ["line", "paragraph", "file"])
def test_every_nasty_file_is_read_or_refused_and_every_byte_accounted_for(
    read_file: Read, document: str
) -> None:
    root = os.environ.get("BILOOM_TEST_DATA")
    if not root:
        pytest.skip("BILOOM_TEST_DATA names no folder with nasty/")
    texts: dict[str, str] = {}
    damaged = set()
    for path in sorted(Path(root, "nasty").rglob("*")):
        if not path.is_file():
            continue
        known = ENCODINGS.get(path.parent.name, ENCODINGS.get(path.name, "utf-8"))
        given = {"document": document, "encoding": known}
        try:
            answers = [read_file(path, size, 1 << 16, **given) for size in (1 << 14, 1 << 30)]
        except DamagedFile:
            damaged.add(path.name)
            skipped, _ = read_file(path, limits=Limits(skip_damaged=True), **given)
            assert [one.reason for one in skipped.rejected] == ["damaged_file"]
            is_read = document != "file" and path.name in DAMAGED and path.stat().st_size > 0
            assert bool(skipped.documents) == is_read
            continue
        assert answers[0] == answers[1]
        block, _ = answers[0]
        only_blank = path.name.startswith("only-") and document == "paragraph"
        empty = not path.stat().st_size or "empty" in path.name or only_blank
        assert bool(block.documents or block.rejected) != empty, path
        if path.parent.name in ENCODINGS or path.name in ENCODINGS:
            assert block.replaced == 0
        texts[path.name] = "".join(Cleaner(CleaningConfig()).clean_batch(block.documents))
        texts[path.name].encode()
    assert damaged == DAMAGED | IN_ANOTHER_ENCODING
    plain = texts["plain.txt"]
    for name in ("a.txt.zst", "multi-frame.txt.zst", "a.txt.bz2", "multi-member.txt.gz"):
        assert texts[name] == plain
    assert texts["utf16le-bom.txt"] == texts["utf16be-bom.txt"] == texts["utf16le-nobom.txt"]


def test_no_text_of_the_test_data_is_taken_for_something_else(read_file: Read) -> None:
    root = os.environ.get("BILOOM_TEST_DATA")
    if not root:
        pytest.skip("BILOOM_TEST_DATA names no folder with raw/, lm/ and nasty/")
    files = [path for top in ("raw", "lm", "nasty") for path in Path(root, top).rglob("*")]
    # The format "text" switches the detection off. The largest file takes too long to read twice.
    for path in files:
        plain = path.is_file() and path.suffix != ".jsonl" and path.stat().st_size < 20_000_000
        known = path.name not in {*DAMAGED, *IN_ANOTHER_ENCODING, *ENCODINGS}
        if plain and known and path.parent.name not in ENCODINGS:
            assert read_file(path) == read_file(path, format="text"), path


@pytest.mark.parametrize("document", ["line", "paragraph", "file"])
def test_byte_order_marks_inside_a_joined_file_do_not_become_text(
    tmp_path: Path, read_file: Read, document: str
) -> None:
    text = "\ufeffone\n\ufeff\ufefftwo\n\nthree\ufeff!\n\ufefffour"
    for encoding in ("utf-8", "utf-16"):
        path = write(tmp_path, "a.txt", text.encode(encoding))
        block, _ = read_file(path, 5, 3, document=document, encoding=encoding)
        joined = "|".join(block.documents).replace("\n", "|").replace("||", "|")
        assert joined == "one|two|three\ufeff!|four"


def test_byte_order_marks_inside_joined_json_lines_cost_no_record(
    tmp_path: Path, read_file: Read
) -> None:
    one, other = '{"text": "a"}', '{"text": "}\ufeff{"}'
    data = f"\ufeff{one}\n\ufeff{other}\n\n\ufeff\ufeff{one}\ufeff{one}\nx\n"
    for name in ("a.jsonl", "a.txt"):
        block, _ = read_file(write(tmp_path, name, data), 7)
        assert block.documents == ["a", "}\ufeff{", "a", "a"]
        assert [one.reason for one in block.rejected] == ["invalid_json"]
    path = write(tmp_path, "a.jsonl", f"{one}\ufeff{one}".encode("gb18030"))
    (rejected,) = read_file(path, encoding="gb18030")[0].rejected
    assert rejected.reason == "invalid_json"


@pytest.mark.parametrize(
    ("text", "is_old"),
    [
        ("one\rtwo\rthree", True),
        ("\rone\rtwo\r\rthree\r\n", True),
        ("one\rtwo", False),
        ("one\rtwo\rthree\nfour", False),
        ("one\r\ntwo\r\nthree\r\n", False),
        ("one line", False),
        ("", False),
    ],
)
def test_a_file_with_old_line_ends_is_noted_once(tmp_path: Path, text: str, is_old: bool) -> None:
    text = "word\r" * 90 + text if is_old else text
    for encoding in ("utf-8", "utf-16"):
        for pack in (bytes, gzip.compress):
            path = write(tmp_path, "a", pack(text.encode(encoding)))
            source = Source(path=str(path), encoding=encoding)
            rows = []
            for unit in plan_units([source], [list_source(source)], 100):
                reader = read_unit(unit, source, CleaningConfig())
                list(reader)
                rows += ranges_read(unit, reader.read_so_far())
            rows = [row for row in rows if row.get("note") != "no text"]
            assert [row["start"] for row in rows if "note" in row] == [0] * is_old
            warnings = warnings_of(rows)
            assert [one[:40] for one in warnings] == [
                "a: the lines end with a carriage return alone"[:40]
            ] * is_old


def test_a_warning_names_a_few_files() -> None:
    rows = [{"name": f"{n}.txt", "note": "old line ends"} for n in range(25)]
    (warning,) = warnings_of(rows)
    assert warning.startswith("0.txt, 1.txt, ")
    assert (
        "19.txt and 5 more: the lines end with a carriage return alone, which ends no " in warning
    )


def test_an_intact_file_without_any_text_is_noted(tmp_path: Path) -> None:
    write(tmp_path, "a.gz", gzip.compress(b""))
    write(tmp_path, "b.txt", b"x")
    empty = pyarrow.table({"text": pyarrow.array([], pyarrow.string())})
    parquet.write_table(empty, tmp_path / "c.parquet")
    source = Source(path=f"{tmp_path}/*")
    (unit,) = plan_units([source], [list_source(source)], None)
    reader = read_unit(unit, source, CleaningConfig())
    assert [text for block in reader for text in block.documents] == ["x"]
    assert reader.notes == ["no text", "", "no text"]
    rows = ranges_read(unit, reader.read_so_far())
    assert warnings_of(rows) == ["a.gz, c.parquet: the file is intact, but contains nothing"]


def test_a_reader_tells_what_the_files_are(tmp_path: Path) -> None:
    """Also before it has read them to the end, and if it refuses one."""
    write(tmp_path, "a.txt", "text\n" * 9)
    write(tmp_path, "b.jsonl.gz", gzip.compress(b'{"text": "x"}\n'))
    write(tmp_path, "c.txt", "text\n".encode("utf-16"))
    with tarfile.open(tmp_path / "d.tar", "w") as archive:
        archive.add(tmp_path / "a.txt", "a.txt")
    config = PrepareConfig(input=str(tmp_path / "*"))
    [source] = config.sources
    [unit] = plan_units([source], [list_source(source)], None)
    reader = read_unit(unit, source, CleaningConfig())
    assert reader.findings == []
    assert len(list(reader)) == 1
    found = [(one.format, one.compression, one.stored_encoding) for one in reader.findings]
    assert found == [
        ("text", "", "utf-8"),
        ("jsonl", "gzip", "utf-8"),
        ("text", "", "utf-16-le"),
        ("tar", "", ""),
    ]
    write(tmp_path, "a.txt", b"\xff" * 99)
    reader = read_unit(unit, source, CleaningConfig())
    with pytest.raises(DamagedFile):
        list(reader)
    assert [one.format for one in reader.findings] == [""]
