"""`biloom trace`: the raw file at the place that is shown has the document's text."""

import gzip
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import zstandard
from pyarrow import parquet

from pipeline.cli import main
from pipeline.commands.command import Command
from pipeline.commands.registry import COMMANDS
from preprocess.files.manifest import content_hash, read_manifest, write_manifest

Capture = pytest.CaptureFixture[str]
FORMER = Path(__file__).parents[2] / "fixtures" / "version-0.1" / "finished" / "prepare"
IN_MEMORY = ("runner.options.mode=in_memory", "tokenizer.kind=char")
MODULE = '''"""A module of nothing but its documentation, which is this sentence."""

def function():
    """Return nothing, because the body of this function is its documentation.

    A second paragraph of the documentation stands behind a blank line here.
    """
'''


def lines(name: str, number: int = 6) -> list[str]:
    return [f"{name} {n} café 猫 " + "x" * (n * 7 % 5) for n in range(number)]


def write_raw(folder: Path) -> None:
    """Write a file of each kind, as `SOURCES` names them."""
    (folder / "crlf.txt").write_bytes("\r\n".join(lines("crlf")).encode())
    (folder / "marked.txt").write_bytes(b"\xef\xbb\xbf" + "\n".join(lines("marked")).encode())
    (folder / "wide.txt").write_bytes("\n".join(lines("wide")).encode("utf-16"))
    (folder / "cp.txt").write_bytes("\n".join(lines("cp")).replace("猫", "").encode("cp1252"))
    (folder / "shift.txt").write_bytes(
        "\n".join(lines("shift")).replace("é", "").encode("iso2022_jp")
    )
    (folder / "packed.txt.gz").write_bytes(gzip.compress("\n".join(lines("packed")).encode()))
    packed = zstandard.ZstdCompressor().compress("\r\n".join(lines("both")).encode("utf-16"))
    (folder / "both.txt.zst").write_bytes(packed)
    paragraphs = "\n\n  \n".join(
        f"{a}\n{b}" for a, b in zip(lines("up"), lines("down"), strict=True)
    )
    (folder / "paragraphs.txt").write_text(paragraphs)
    for name in ("one", "two"):
        Path(os.fsdecode(os.fsencode(folder) + b"/whole\n\xff-" + name.encode())).write_text(
            "\n".join(lines(name))
        )
    rows = [{"text": line, "key": f"k\n{n}"} for n, line in enumerate(lines("object"))]
    (folder / "rows.jsonl").write_text("{broken\n" + "\n\n".join(map(json.dumps, rows)))
    table = {"text": [*lines("row"), None], "key": [*map(str, range(7))]}
    parquet.write_table(pyarrow.table(table), folder / "rows.parquet", row_group_size=2)
    (folder / "module.py").write_text(MODULE)


SOURCES: list[dict[str, Any]] = [
    {"name": "lines", "path": ["crlf.txt", "marked.txt", "wide.txt"]},
    {"name": "old", "path": "cp.txt", "encoding": "cp1252"},
    {"name": "shifts", "path": "shift.txt", "encoding": "iso2022_jp"},
    {"name": "packed", "path": "*.txt.*"},
    {"name": "paragraphs", "path": "paragraphs.txt", "document": "paragraph"},
    {"name": "files", "path": "whole*", "document": "file"},
    {"name": "objects", "path": "rows.jsonl", "id_field": "key", "split": "valid"},
    {"name": "rows", "path": "rows.parquet", "id_field": "key"},
    {"name": "prose", "path": "module.py", "format": "docstrings"},
]


def prepare(folder: Path, sources: Sequence[dict[str, Any]], *overrides: str) -> Path:
    """Prepare the raw files below ``folder/raw``, and return the folder of the corpus."""
    given = []
    for source in sources:
        paths = [source["path"]] if isinstance(source["path"], str) else source["path"]
        given.append({**source, "path": [f"{folder}/raw/{path}" for path in paths]})
    config = folder / "config.yaml"
    config.write_text(json.dumps({"prepare": {"input": given}}))
    words = [str(config), f"run.output={folder}/out", *IN_MEMORY, *overrides]
    last = {word.partition("=")[0]: word for word in words}
    for stage in ("tokenizer", "prepare"):
        assert main([stage, *last.values()]) == 0
    return folder / "out" / "prepare"


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nasty")
    (folder / "raw").mkdir()
    write_raw(folder / "raw")
    return prepare(folder, SOURCES, "prepare.valid_fraction=0.3")


@pytest.fixture
def run(capsys: Capture) -> Callable[..., list[list[str]]]:
    """Return a function that runs the command and returns the columns of its lines."""

    def run(corpus: Path, *words: object, code: int = 0) -> list[list[str]]:
        capsys.readouterr()
        assert main(["trace", str(corpus), *map(str, words)]) == code
        return [line.split("\t") for line in capsys.readouterr().out.splitlines()]

    return run


def message(capsys: Capture, corpus: Path, *words: object) -> str:
    """Run the command, which must refuse, and return what it says."""
    capsys.readouterr()
    assert main(["trace", str(corpus), *map(str, words)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


def shards(corpus: Path) -> list[tuple[str, int]]:
    """Return the name of each shard and its number of documents."""
    files = read_manifest(str(corpus), "prepare").files
    return [(f.name[:-4], int(f.counts["documents"])) for f in files if f.name.endswith(".bin")]


def raw_text(raw: Path, where: str) -> str:
    """Return the text of the raw document at a place."""
    match = re.fullmatch(r"(.*):(row )?(\d+)(?: id=(\S+))?(?: \((.*)\))?", where)
    assert match, where
    name, number = match[1], int(match[3])
    if name.startswith("whole"):
        name = name.replace("\\n", "\n").replace("\\udcff", "\udcff")
    data = (raw / name).read_bytes()
    if match[2]:
        row = parquet.read_table(raw / name).to_pylist()[number]
        assert row["key"] == match[4]
        return str(row["text"])
    assert match[5] == {
        "packed.txt.gz": "unpacked byte",
        "both.txt.zst": "UTF-8 byte",
        "wide.txt": "UTF-8 byte",
        "shift.txt": "UTF-8 byte",
    }.get(name)
    encoding = "cp1252" if name == "cp.txt" else "utf-8"
    if name.endswith(".gz"):
        data = gzip.decompress(data)
    elif name.endswith(".zst"):
        data = zstandard.ZstdDecompressor().decompress(data)
    if match[5] == "UTF-8 byte":
        wide = "iso2022_jp" if name == "shift.txt" else "utf-16-le"
        data = data.decode(wide).encode()
    rest = data[number:].decode(encoding)
    if name.startswith("whole"):
        return rest
    if name == "paragraphs.txt":
        return rest.split("\n\n")[0]
    line = rest.splitlines()[0]
    if name == "rows.jsonl":
        row = json.loads(line)
        assert row["key"].replace("\n", "\\n") == match[4]
        return str(row["text"])
    return rest if name == "module.py" else line


def test_the_raw_file_at_the_place_of_each_document_has_its_text(
    nasty: Path, run: Callable[..., list[list[str]]]
) -> None:
    raw = nasty.parents[1] / "raw"
    traced = 0
    for shard, documents in shards(nasty):
        for number in range(documents):
            [(name, split, _, where, text)] = run(nasty, shard, number)
            assert (name, split) == (f"{shard} {number}", shard.split("-")[0])
            found = " ".join(raw_text(raw, where).split())
            assert text in found if "module.py" in where else text == found
            traced += 1
    assert traced == 9 * 6 + 2 + 6 + 3
    assert {shard.split("-")[0] for shard, _ in shards(nasty)} == {"train", "valid"}


def test_each_source_and_file_is_named(nasty: Path, run: Callable[..., list[list[str]]]) -> None:
    for source, file, documents in (
        ("lines", "wide.txt", 6),
        ("files", "whole\\n\\udcff-two", 1),
        ("rows", "rows.parquet", 6),
        ("prose", "module.py", 3),
    ):
        rows = run(nasty, "--file", file)
        kept = [row for row in rows if row[0] != "-"]
        assert len(kept) == documents
        assert {row[2] for row in rows} == {source}
        assert all(row[3].startswith(f"{file}:") for row in rows)
    assert run(nasty, "--file", "whole\n\udcff-two") == run(nasty, "--file", "whole\\n\\udcff-two")
    assert run(nasty, "--file", "wide.txt", "--source", "rows", code=1) == []


def test_records_that_were_rejected_are_found_in_their_file(
    nasty: Path, run: Callable[..., list[list[str]]]
) -> None:
    rejected = [
        ["-", "invalid_json", "objects", "rows.jsonl:0"],
        ["-", "missing_text_field", "rows", "rows.parquet:row 6 id=6"],
    ]
    assert [row for row in run(nasty, "--file", "rows.jsonl") if row[0] == "-"] == rejected[:1]
    assert run(nasty, "--file", "rows.parquet", "--id", "6") == rejected[1:]
    assert run(nasty, "--file", "rows.jsonl", "--place", 0) == rejected[:1]


def test_an_id_is_found_in_every_source(nasty: Path, run: Callable[..., list[list[str]]]) -> None:
    [(_, split, source, where)] = run(nasty, "--id", "k\n3")
    assert (split, source) == ("valid", "objects")
    assert where.endswith(" id=k\\n3")
    [(_, _, source, where)] = run(nasty, "--id", "3")
    assert (source, where) == ("rows", "rows.parquet:row 3 id=3")


def test_the_document_at_a_place_is_the_last_one_that_starts_before(
    nasty: Path, run: Callable[..., list[list[str]]], capsys: Capture
) -> None:
    starts = [int(row[3].rpartition(":")[2]) for row in run(nasty, "--file", "crlf.txt")]
    for start, end in zip(starts, [*starts[1:], 10**6], strict=True):
        [row] = run(nasty, "--file", "crlf.txt", "--place", start)
        for place in (start + 1, end - 1):
            assert main(["trace", str(nasty), "--file", "crlf.txt", "--place", str(place)]) == 0
            printed = capsys.readouterr()
            assert printed.out.splitlines() == ["\t".join(row)]
            assert printed.err == (
                f"biloom: no document starts at {place:,}; the last one before starts at {start:,}\n"
            )


def test_a_text_is_found_as_it_was_cleaned(
    nasty: Path, run: Callable[..., list[list[str]]], capsys: Capture
) -> None:
    # As one would copy it from elsewhere, with another normal form and other spaces.
    rows = run(nasty, "--text", "wide 3  cafe\u0301 \n 猫")
    assert [row[2:] for row in rows] == [["lines", rows[0][3], "wide 3 café 猫 x"]]
    assert len(run(nasty, "--text", "café")) == 9 * 6 + 2
    assert {row[2] for row in run(nasty, "--text", "café", "--source", "old")} == {"old"}
    assert run(nasty, "--text", "wide 9", code=1) == []
    assert main(["trace", str(nasty), "--text", "wide 9"]) == 1
    assert capsys.readouterr().err == f"biloom: {nasty}: found no such document\n"


# Duplicates

LONG = [
    "the river runs below the old mill and the miller counts the boats that pass each morning {}",
    "nobody in the valley remembers who planted the first of the walnut trees beside the road {}",
]
COPIES = {
    "a": [LONG[0].format("one"), LONG[1].format("one")],
    # A near-duplicate and an exact duplicate; later, an exact duplicate of the near-duplicate.
    "b": [LONG[0].format("two"), "another line", LONG[1].format("one")],
    "c": ["one more line", LONG[0].format("two"), "another line"],
}


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of three units with duplicates and near-duplicates, in which filters drop a line."""
    folder = tmp_path_factory.mktemp("copies")
    (folder / "raw").mkdir()
    for name, texts in COPIES.items():
        (folder / "raw" / f"{name}.txt").write_text("".join(f"{text}\n" for text in ["!", *texts]))
    sources = [{"name": name, "path": f"{name}.txt"} for name in COPIES]
    return prepare(
        folder,
        sources,
        "prepare.near_duplicates.similarity=0.6",
        "prepare.filters.min_characters=5",
        "prepare.keep_dropped=true",
        "prepare.valid_fraction=0",
    )


FIRST, SECOND = "train-000000-000 0 (a a.txt:2)", "train-000000-000 1 (a a.txt:95)"
NEAR = f"near_duplicate of {FIRST}"
DROPPED = [
    ["000001 0", NEAR, "b", "b.txt:2"],
    ["000001 2", f"duplicate of {SECOND}", "b", "b.txt:108"],
    ["000002 1", f"duplicate of 000001 0 (b b.txt:2), a {NEAR}", "c", "c.txt:16"],
    ["000002 2", "duplicate of train-000000-001 0 (b b.txt:95)", "c", "c.txt:109"],
]


def test_each_duplicate_names_its_earlier_document(
    copies: Path, run: Callable[..., list[list[str]]]
) -> None:
    assert run(copies, "--duplicates") == DROPPED
    assert run(copies, "--duplicates", "--source", "c") == DROPPED[2:]
    for row in DROPPED:
        assert run(copies, *row[0].split()) == [row]


def test_the_duplicates_of_a_document_are_found_with_it(
    copies: Path, run: Callable[..., list[list[str]]]
) -> None:
    kept = ["train-000000-000 0", "train", "a", "a.txt:2"]
    assert run(copies, "--file", "a.txt", "--place", 2) == [kept, DROPPED[0], DROPPED[2]]
    assert run(copies, "--text", "miller counts") == [
        [*kept, LONG[0].format("one")],
        DROPPED[0],
        DROPPED[2],
    ]
    assert run(copies, "--file", "c.txt") == [
        ["train-000000-002 0", "train", "c", "c.txt:2"],
        *DROPPED[2:],
        ["-", "too_short", "c", "c.txt:0"],
    ]
    assert run(copies, "--file", "c.txt", "--place", 1) == [["-", "too_short", "c", "c.txt:0"]]


def test_a_duplicate_that_is_kept_for_inspection_names_its_earlier_document(copies: Path) -> None:
    rows = [
        json.loads(line)
        for name in sorted(copies.glob("dropped-*-duplicates-*"))
        for line in name.read_text().splitlines()
    ]
    found = sorted((row["where"], row["of"], row["reason"]) for row in rows)
    assert found == [
        ("b.txt:108", "000000 1", "duplicate"),
        ("b.txt:2", "000000 0", "near_duplicate"),
        ("c.txt:109", "000001 1", "duplicate"),
        ("c.txt:16", "000001 0", "duplicate"),
    ]
    texts = [text for texts in COPIES.values() for text in texts]
    assert all(row["text"] in texts for row in rows)


def test_no_result_contains_a_path(nasty: Path, copies: Path) -> None:
    for corpus in (nasty, copies):
        root = str(corpus.parents[1]).encode()
        for file in corpus.iterdir():
            if file.name != "config.yaml":  # the settings as they were given
                data = file.read_bytes()
                if file.suffix == ".zst":
                    data = zstandard.ZstdDecompressor().decompress(data)
                assert root not in data, file.name


def test_origins_are_listed_outside_of_content(copies: Path) -> None:
    manifest = read_manifest(str(copies), "prepare")
    origins = [file for file in manifest.files if file.name.startswith("origins-")]
    assert [file.name for file in origins] == [f"origins-{n:06d}-000.zst" for n in range(3)]
    assert main(["check", str(copies)]) == 0
    inside = [f for f in manifest.files if f.name.endswith((".bin", ".len", ".npy"))]
    assert content_hash(inside) == manifest.content


# What is refused


def test_a_corpus_without_origins_is_reported_to_be_prepared_again(capsys: Capture) -> None:
    expected = (
        f"biloom: {FORMER}: the version of biloom that prepared it recorded no origins of documents; "
        "prepare it again to trace them\n"
    )
    for words in (["train-000000-000", 0], ["--file", "corpus.txt"], ["--text", "x"]):
        assert message(capsys, FORMER, *words) == expected


def _by_unit(fate: str) -> str:
    """Return a fate with documents named by unit in place of shard."""
    for shard, unit in (("train-000000-000", "000000"), ("train-000000-001", "000001")):
        fate = fate.replace(shard, unit)
    return fate


def test_shards_without_origins_are_reported_and_the_others_are_searched(
    copies: Path, tmp_path: Path, run: Callable[..., list[list[str]]], capsys: Capture
) -> None:
    mixed = tmp_path / "prepare"
    shutil.copytree(copies, mixed)
    manifest = read_manifest(str(mixed), "prepare")
    files = tuple(file for file in manifest.files if file.name != "origins-000002-000.zst")
    write_manifest(str(mixed), replace(manifest, files=files))
    capsys.readouterr()
    assert main(["trace", str(mixed), "--duplicates"]) == 0
    printed = capsys.readouterr()
    # The shards of the units that are joined with this one cannot be named.
    rows = [[row[0], _by_unit(row[1]), *row[2:]] for row in DROPPED[:2]]
    assert printed.out == "".join("\t".join(row) + "\n" for row in rows)
    assert printed.err == (
        "biloom: 3 shards are not searched, because an earlier version of biloom read their documents; "
        "prepare the corpus again to search them\n"
    )
    told = message(capsys, mixed, "train-000000-002", 0)
    assert "an earlier version of biloom read the documents of train-000000-002, and" in told
    assert "unit 2 has no document 0" in message(capsys, mixed, "000002", 0)
    # Of the first unit, only the number is known.
    files = tuple(file for file in manifest.files if file.name != "origins-000000-000.zst")
    write_manifest(str(mixed), replace(manifest, files=files))
    unknown = [row[1].replace(FIRST, "000000 0 (origin unknown)") for row in DROPPED]
    unknown = [fate.replace("train-000000-001 0", "000001 1") for fate in unknown]
    unknown = [fate.replace(SECOND, "000000 1 (origin unknown)") for fate in unknown]
    assert [row[1] for row in run(mixed, "--duplicates")] == unknown


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "name one of these: a shard and the number of a document, --file or --id, --text, "),
        (["--file", "a", "--text", "b"], "name one of these"),
        (["train-000000-000", "0", "--duplicates"], "name one of these"),
        (["train-000000-000"], "also name the number of the document, as in `train-000000-000 17`"),
        (["--id", "a", "--place", "3"], "--place needs --file"),
        (
            ["train-000000-000", "99"],
            "train-000000-000 has no document 99; it has 2, and the first",
        ),
        (["train-000000-000", "-1"], "has no document -1"),
        (
            ["train-000009-000", "0"],
            "has no shard 'train-000009-000'; name one as `biloom inspect`",
        ),
        (["tests", "0"], "has no shard 'tests'"),
        (["000000", "99"], "unit 0 has no document 99"),
        (["9", "0"], "unit 9 has no document 0"),
        (["--duplicates", "--source", "d"], "has no source 'd'; it has a, b, c"),
        (["--text", " \n"], "the text to search for is empty after cleaning"),
    ],
)
def test_a_wrong_question_is_refused_with_advice(
    words: list[str], told: str, copies: Path, capsys: Capture
) -> None:
    assert told in message(capsys, copies, *words)


def test_damaged_and_missing_origins_are_named(
    copies: Path, tmp_path: Path, capsys: Capture
) -> None:
    damaged = tmp_path / "prepare"
    shutil.copytree(copies, damaged)
    (damaged / "origins-000001-000.zst").write_bytes(b"no zstd")
    assert "origins-000001-000.zst is damaged (" in message(capsys, damaged, "--file", "b.txt")
    (damaged / "origins-000001-000.zst").unlink()
    told = message(capsys, damaged, "train-000000-001", 0)
    assert f"origins-000001-000.zst is missing; run `biloom check {damaged}`" in told


# The tokenizer


def test_the_tokenizer_is_found_beside_the_corpus_by_its_config_or_by_name(
    copies: Path,
    tmp_path: Path,
    run: Callable[..., list[list[str]]],
    capsys: Capture,
    as_stranger: Callable[[Path], None],
) -> None:
    expected = run(copies, "--text", "more line")
    assert len(expected) == 1
    alone = tmp_path / "alone"
    shutil.copytree(copies, alone)
    # The run of the config is where it was.
    assert run(alone / "manifest.json", "--text", "more line") == expected
    config = (alone / "config.yaml").read_text()
    moved = config.replace(str(copies.parent), str(tmp_path / "gone"))
    assert moved != config
    (alone / "config.yaml").write_text(moved)
    as_stranger(alone)
    told = message(capsys, alone, "--text", "more line")
    assert told.endswith("its tokenizer was not found; name its folder with --tokenizer\n")
    # A place is known without a tokenizer; only the text is not.
    assert run(alone, "train-000000-002", 0) == [expected[0][:4]]
    named = ("--tokenizer", copies.parent / "tokenizer")
    assert run(alone, "--text", "more line", *named) == expected
    assert run(alone, "train-000000-002", 0, *named) == expected
    other = FORMER.parent / "tokenizer"
    told = message(capsys, alone, "--text", "more line", "--tokenizer", other)
    assert told == f"biloom: {other}: the corpus was prepared with another tokenizer\n"
    told = message(capsys, alone, "--text", "more line", "--tokenizer", tmp_path)
    assert "holds no finished 'tokenizer'" in told


def test_a_text_with_unknown_words_is_found_by_those_that_are_known(
    tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "raw").mkdir()
    texts = ["often often rare", "often often scarce", "seldom often"]
    (tmp_path / "raw" / "a.txt").write_text("".join(f"{text}\n" for text in texts))
    words = ("tokenizer.kind=word", "tokenizer.min_count=2", "prepare.valid_fraction=0")
    corpus = prepare(tmp_path, [{"name": "a", "path": "a.txt"}], *words)
    capsys.readouterr()
    assert main(["trace", str(corpus), "--text", "often rare"]) == 0
    printed = capsys.readouterr()
    assert [line.split("\t")[3] for line in printed.out.splitlines()] == ["a.txt:0", "a.txt:17"]
    assert printed.err == (
        "biloom: 1 tokens of the text are not in the vocabulary; documents with other unknown "
        "tokens in their place are also found\n"
    )
    assert "no token of the text to search for is in" in message(capsys, corpus, "--text", "rare")


def test_the_examples_of_the_help_work(
    copies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    shutil.copytree(copies.parent, tmp_path / "runs" / "quickstart")
    monkeypatch.chdir(tmp_path)
    trace = COMMANDS["trace"]
    assert isinstance(trace, Command)
    # A shard of three documents, none of them strange.
    codes = {"train-000000-000 17": 2, "a strange sentence": 1}
    for example in trace.examples:
        code = next(code for words, code in codes.items() if words in example)
        assert main(shlex.split(example)[1:]) == code
