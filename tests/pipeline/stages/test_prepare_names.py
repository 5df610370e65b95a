"""Files with any name that a disk allows go through every step, and come back by name."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.cli import main
from preprocess.config import Source
from preprocess.files.manifest import check_files, read_manifest
from preprocess.files.search.find import find_files
from preprocess.reading.changed_inputs import changed, ranges_read, write_inputs
from preprocess.reading.listing import list_source
from preprocess.reading.plan_file import read_planned, write_plan
from preprocess.reading.reader import read_unit
from preprocess.reading.units import plan_units
from preprocess.text.config import CleaningConfig

Capture = pytest.CaptureFixture[str]

NASTY = (
    *(b"sp ace", b"-rf", b"~root", b"#1", b"50%", b"%41", b"what?", b"a*b", b"[D] x", b"{a,b}"),
    *(b"zip:", b"a::b", b"s3:", b"=", b"k=v", b"'q\"", b"\\n", b"$HOME", b"`x`", b"!", b"&;|"),
    *(b"li\nne", b"\x1b[31mred", b"\r\t\x07", b"caf\xe9", b"\xff\xfe", b"\xed\xa0\x80"),
    *("caf\u00e9".encode(), "cafe\u0301".encode(), "\u202egnp".encode(), "猫".encode()),
    *(b"x" * 240, "\u2028".encode(), b" lead", b"trail ", b"null", b"1e5", b"- a", b"a: b"),
)
names = st.binary(min_size=1, max_size=40).filter(
    lambda name: not {b"/"[0], 0} & set(name) and name.strip(b".") and name[:1] != b"."
)


def decoded(folder: Path, name: bytes) -> Path:
    return Path(os.fsdecode(os.fsencode(folder) + b"/" + name))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(folder=names, name=names)
@example(folder=b"[D]*?", name=b"li\nne\xff")
@example(folder=b"a::b", name=b"zip:#%")
def test_a_file_of_any_name_is_listed_planned_read_and_checked(
    folder: bytes, name: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("names")
    file = decoded(root, folder) / os.fsdecode(name)
    file.parent.mkdir()
    file.write_bytes(b"one\ntwo\n")
    for pattern in (str(file), f"{root}/*/*", f"{root}/**", f"{file.parent}/*"):
        (found,) = find_files(pattern)
        assert found.path == str(file)
        source = Source(path=pattern)
        (unit,) = plan_units([source], [list_source(source)], None)
        write_plan(str(root), [unit])
        assert read_planned(str(root), 0) == unit
        reader = read_unit(unit, source, CleaningConfig())
        assert [text for block in reader for text in block.documents] == ["one", "two"]
        write_inputs(str(root), ranges_read(unit, reader.read_so_far()))
        assert changed(str(root), [found]) == []
        os.utime(file, ns=(1, 1))
        assert changed(str(root), find_files(pattern)) == []
        file.write_bytes(b"one\nTWO\n")
        assert changed(str(root), find_files(pattern)) == [found.name]
        file.write_bytes(b"one\ntwo\n")
        (root / "inputs.jsonl").unlink()
        (root / "plan.bin").unlink()


def test_a_corpus_of_nasty_names_is_made_resumed_and_checked(
    tmp_path: Path, capsys: Capture
) -> None:
    raw = tmp_path / "raw"
    for number, name in enumerate(NASTY):
        path = decoded(raw, name) / f"{os.fsdecode(name)}.txt"
        path.parent.mkdir(parents=True)
        path.write_text(f"words of {number}\n" * 2 + f"more of {number}\n")
    words = [f"prepare.input={raw}/**/*.txt", f"run.output={tmp_path}/out", "tokenizer.kind=char"]
    words += ["prepare.unit_bytes=1024", "runner.options.mode=in_memory"]
    for _ in range(2):
        for stage in ("tokenizer", "prepare"):
            assert main([stage, *words]) == 0
    folder = str(tmp_path / "out" / "prepare")
    manifest = read_manifest(folder, "prepare")
    assert check_files(folder, manifest) == []
    documents = manifest.details["documents"]
    assert documents["read"] == 3 * len(NASTY)
    assert documents["dropped"] == {"duplicate": len(NASTY)}
    lines = (tmp_path / "out" / "prepare" / "inputs.jsonl").read_bytes().splitlines()
    listed = {os.fsencode(json.loads(line)["name"]) for line in lines}
    assert listed == {name + b"/" + name + b".txt" for name in NASTY}
    out = capsys.readouterr().out
    assert "\x1b" not in out
    # An edit of each is told by name, on a line of its own.
    for path in raw.rglob("*.txt"):
        path.write_text(path.read_text().upper())
        os.utime(path, ns=(1, 1))
    for stage in ("tokenizer", "prepare"):
        assert main([stage, *words]) == 2
        told = capsys.readouterr().err
        assert not set("\x1b\r\x07\u202e\u2028\udcff") & set(told)
        lines = [line for line in told.splitlines() if "its contents changed" in line]
        assert len(lines) == len(NASTY)
