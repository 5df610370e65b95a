"""Nasty files among good ones: a run ends, and every document is counted."""

import gzip
import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zstandard

from pipeline.cli import main
from pipeline.stages import prepare as prepare_stage
from preprocess.files.manifest import check_files, read_manifest
from preprocess.reading.units import Unit, plan_units

Command = Any  # of conftest.py
Capture = pytest.CaptureFixture[str]
MEBIBYTE = 1 << 20
MOST_BYTES = 700 * MEBIBYTE
"""Memory limit of the largest process: 250 MB are Beam's, and the unpacked text is gigabytes."""
IN_MEMORY = ("runner.options.mode=in_memory", "tokenizer.kind=char")


def good(folder: Path, number: int, name: str = "good") -> int:
    """Write files of ten distinct documents each, and return the number of documents."""
    draw = random.Random(name)
    for file in range(number):
        lines = [f"{name} {file} {line} {draw.random()}" for line in range(10)]
        (folder / f"{name}-{file:04d}.txt").write_text("".join(f"{line}\n" for line in lines))
    return 10 * number


def documents_of(output: Path) -> dict[str, Any]:
    """Return the document counts of a finished corpus, after checking its files."""
    manifest = read_manifest(str(output / "prepare"), "prepare")
    assert check_files(str(output / "prepare"), manifest) == []
    left = [str(path) for path in output.rglob("*") if ".biloom-tmp-" in path.name]
    assert left == []
    assert not (output / "prepare" / "_work").exists()
    documents: dict[str, Any] = manifest.details["documents"]
    assert documents["read"] == documents["written"] + sum(documents["dropped"].values())
    return documents


def both_stages(output: Path, *overrides: str) -> dict[str, Any]:
    """Run tokenizer and prepare on some raw text, and return the document counts."""
    for stage in ("tokenizer", "prepare"):
        assert main([stage, f"run.output={output}", *IN_MEMORY, *overrides]) == 0
    return documents_of(output)


def most_bytes(biloom: Command, *arguments: str) -> int:
    """Run a command that must succeed silently, and return the peak memory of its largest process."""
    most = 0
    # Its output is short, so it cannot fill the pipe.
    with biloom.start(*arguments) as process:
        while process.poll() is None:
            with suppress(OSError):  # the process may end meanwhile
                for one in (process.pid, *process.children()):
                    most = max(most, held_at_most(one))
            time.sleep(0.02)
        assert (process.returncode, process.stderr.read()) == (0, "")
    return most


def held_at_most(process: int) -> int:
    """The bytes a process held at its largest so far.

    Not the kernel's figure at its end, in which the size of the process that started it counts too.
    """
    status = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0]) if "VmHWM:" in status else 0


# Cases: each writes one kind of nasty file


def write(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)


def long_line(folder: Path) -> None:
    write(folder, "a.txt", b"word " * 2_000_000 + b"\nshort\n" + b"x" * 17_000_000 + b"\nlast\n")


def empty_lines(folder: Path) -> None:
    write(folder, "a.txt", b"\n" * 1_000_000)


def zeros(folder: Path) -> None:
    write(folder, "a.txt", b"\0" * 3_000_000)
    write(folder, "b.txt", b"words " * 1000 + b"\n" + b"\0\n" * 1000)


def any_bytes(folder: Path) -> None:
    data = b"\xfe" + random.Random(1).randbytes(1_000_000) + b"\n"
    write(folder, "a.txt", data)
    write(folder, "b.jsonl", b"[" + data.replace(b"\n", b"\n["))


def other_kinds(folder: Path) -> None:
    write(folder, "a.txt", b"<!DOCTYPE html>\n<p>\n" + b"words\n" * 9999)
    write(folder, "b.json", b'[\n{"text": "a"}\n]\n')
    write(folder, "c.csv.gz", gzip.compress(b"id,text\n1,a\n"))
    write(folder, "d", b"PK\x03\x04\x14\0\0\0" * 99)
    write(folder, "e.jsonl.gz", b"")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 5\n"
    write(folder, "f.parquet", pointer)


def deep_json(folder: Path) -> None:
    deep = b"[" * 100_000
    rows = [
        b'{"text": "good"}',
        b'{"text":' + deep + b"]" * 100_000 + b"}",
        deep,
        b'{"a":' * 100_000,
    ]
    write(folder, "a.jsonl", b"\n".join(rows))
    write(folder, "b.txt", deep + b"]" * 100_000)


def odd_json(folder: Path) -> None:
    rows = [
        *(b'{"text": "a\\ud800b"}', b'{"text": "\\udc00\\ud83d\\ude00"}', b'{"te\\ud800": 1}'),
        *(
            b'{"text": "x", "n": ' + b"9" * 5000 + b"}",
            b'{"text": NaN}',
            b'{"text": "a", "text": "b"}',
        ),
        *(
            b"null",
            b"5",
            b'"a"',
            b"[]",
            b"{}",
            b'{"text": null}',
            b'{"text": ""}',
            b'{"text": " "}',
        ),
    ]
    write(folder, "a.jsonl", b"\n".join(rows))


def bombs(folder: Path) -> None:
    write(folder, "a.txt.gz", gzip.compress(b"b" * 300_000_000, 9))
    write(folder, "b.txt.zst", zstandard.ZstdCompressor().compress(b"a" * 300_000_000))
    lines = b"".join(gzip.compress(b"\n" * 200_000, 9) for _ in range(2))
    write(folder, "c.txt.gz", lines)


def odd_names(folder: Path) -> None:
    for number, name in enumerate(
        (b"sp ace", b"li\nne", b"\"q'", b"caf\xe9", b"[a]*?", b"-", b"%s{}")
    ):
        text = f"{number} {name!r}\n".encode()
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name + b".txt")).write_bytes(text + b"\xff\n")
    (folder / "sub.txt").mkdir()
    os.mkfifo(folder / "pipe.txt")
    (folder / "link.txt").symlink_to(folder / "-.txt")


Case = tuple[Callable[[Path], None], int, dict[str, int], tuple[str, ...]]
"""Function that writes the files, number of documents, expected drops, and options."""
SKIP = ("prepare.damaged_files=skip",)
CASES: list[Case] = [
    (long_line, 4, {"oversized": 1}, ()),
    (empty_lines, 1_000_000, {"empty": 1_000_000}, ()),
    (zeros, 1002, {"empty": 1000, "not_text": 1}, SKIP),
    (any_bytes, 2, {"not_text": 2}, SKIP),
    (other_kinds, 7, {"not_text": 1, "damaged_file": 3, "duplicate": 1}, SKIP),
    (deep_json, 5, {"invalid_json": 3}, ()),
    (odd_json, 14, {"invalid_json": 1, "missing_text_field": 6, "text_not_a_string": 2}, ()),
    (bombs, 400_002, {"damaged_file": 2, "empty": 400_000}, SKIP),
    (odd_names, 16, {"duplicate": 8}, ()),
]


@pytest.mark.parametrize(("write_files", "read", "dropped", "options"), CASES)
def test_every_document_of_nasty_text_is_counted(
    write_files: Callable[[Path], None],
    read: int,
    dropped: dict[str, int],
    options: tuple[str, ...],
    tmp_path: Path,
) -> None:
    (tmp_path / "raw").mkdir()
    read += good(tmp_path / "raw", 3)
    write_files(tmp_path / "raw")
    documents = both_stages(tmp_path / "out", f"prepare.input={tmp_path}/raw/*", *options)
    assert documents["read"] == read
    assert dropped.items() <= documents["dropped"].items()


EVERYTHING = """\
tokenizer: {kind: char}
runner: {options: {workers: 2}}
prepare:
  input:
    - {name: lines, path: "RAW/*"}
    - {name: paragraphs, path: "RAW/*", document: paragraph, filters: {max_repeated_lines: 0.3},
       cleaning: {unicode: NFKC, whitespace: keep, control_characters: keep}}
    - {name: files, path: "RAW/*", document: file, encoding: latin-1, cleaning: {invalid_bytes: drop}}
    - {name: wide, path: "SOME/*", encoding: utf-16, split: valid}
    - {name: east, path: "SOME/*", encoding: gb18030, weight: 2}
  damaged_files: skip
  keep_dropped: true
  near_duplicates: {similarity: 0.8}
  filters: {min_characters: 1, max_characters: 100000, max_symbols: 0.9, scripts: [Latin, Han]}
  unit_bytes: 4000000
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["in_memory", "multi_processing"])
def test_all_nasty_files_with_every_option_need_bounded_memory(
    mode: str, biloom: Command, tmp_path: Path
) -> None:
    folder, output = tmp_path / "raw", tmp_path / "out"
    folder.mkdir()
    good(folder, 30)
    for number, (write_files, *_) in enumerate(CASES):
        (folder / f"{number}").mkdir()
        write_files(folder / f"{number}")
    text = EVERYTHING.replace("RAW/*", f"{folder}/**/*").replace("SOME/*", f"{folder}/[1-5]/*")
    (tmp_path / "all.yaml").write_text(text)
    arguments = (str(tmp_path / "all.yaml"), f"run.output={output}", f"runner.options.mode={mode}")
    for stage in ("tokenizer", "prepare"):
        assert most_bytes(biloom, stage, *arguments) < MOST_BYTES
    documents_of(output)


def test_every_document_of_nasty_text_with_every_option_is_counted(tmp_path: Path) -> None:
    data = os.environ.get("BILOOM_TEST_DATA")
    if not data:
        pytest.skip("BILOOM_TEST_DATA names no folder of test data")
    text = EVERYTHING.replace("RAW/*", f"{data}/nasty/**/*").replace("SOME/*", f"{data}/nasty/**/*")
    (tmp_path / "all.yaml").write_text(text)
    for stage in ("tokenizer", "prepare"):
        arguments = [str(tmp_path / "all.yaml"), f"run.output={tmp_path}", IN_MEMORY[0]]
        assert main([stage, *arguments]) == 0
    documents = documents_of(tmp_path)
    reasons = {"damaged_file", "duplicate", "empty", "near_duplicate", "script", "symbols"}
    assert reasons <= documents["dropped"].keys()
    kept = sum(
        len(path.read_text().split("\n")) - 1 for path in (tmp_path / "prepare").glob("dropped-*")
    )
    assert kept == sum(documents["dropped"].values()) - documents["dropped"]["empty"]


# Files that change while they are read


def vanish(file: Path) -> None:
    file.unlink()


def shrink(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def grow(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"more\n")


def become_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def after_planning(monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]) -> None:
    """Let the raw files change between the plan and the first reader."""

    def plan_then_change(*arguments: Any) -> list[Unit]:
        units = plan_units(*arguments)
        change()
        return units

    monkeypatch.setattr(prepare_stage, "plan_units", plan_then_change)


CHANGES = [
    (vanish, "cannot be read (No such file or directory)", 20),
    (shrink, "ends after 100 bytes, but had ", 23),
    (become_a_folder, "cannot be read (Is a directory)", 20),
]


@pytest.mark.parametrize(("change", "problem", "read"), CHANGES)
def test_a_file_that_changes_while_it_is_read_is_reported_or_counted(
    change: Callable[[Path], None],
    problem: str,
    read: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    good(folder, 3)
    file = folder / "good-0001.txt"
    arguments = (f"run.output={tmp_path}", f"prepare.input={folder}/*", *IN_MEMORY)
    assert main(["tokenizer", *arguments]) == 0
    sound = file.read_bytes()
    with monkeypatch.context() as patched:
        after_planning(patched, lambda: change(file))
        assert main(["prepare", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"biloom: {file}: {problem}")
    assert err.endswith("prepare.damaged_files=skip\n")
    if file.is_dir():
        file.rmdir()
    file.write_bytes(sound)
    with monkeypatch.context() as patched:
        after_planning(patched, lambda: change(file))
        other = (f"run.output={tmp_path}/skip", f"prepare.tokenizer={tmp_path}/tokenizer", *SKIP)
        assert main(["prepare", *arguments[1:], *other]) == 0
    documents = documents_of(tmp_path / "skip")
    assert documents["dropped"]["damaged_file"] == 1
    assert documents["read"] - 1 == read


def test_a_file_that_grows_is_read_up_to_its_planned_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    good(folder, 3)
    after_planning(monkeypatch, lambda: grow(folder / "good-0001.txt"))
    assert both_stages(tmp_path, f"prepare.input={folder}/*")["read"] == 30


def test_a_broken_link_is_reported_and_not_skipped(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "raw").mkdir()
    good(tmp_path / "raw", 1)
    link = tmp_path / "raw" / "link.txt"
    link.symlink_to(tmp_path / "nowhere.txt")
    arguments = (f"run.output={tmp_path}", f"prepare.input={tmp_path}/raw/*", *IN_MEMORY)
    assert main(["tokenizer", *arguments]) == 2
    assert capsys.readouterr().err == (
        f"biloom: {link}: cannot be read (No such file or directory); repair or remove it\n"
    )
    link.unlink()
    assert main(["tokenizer", *arguments]) == 0


def test_a_damaged_file_whose_name_is_not_utf8_is_named(tmp_path: Path, biloom: Command) -> None:
    (tmp_path / "raw").mkdir()
    assert main(["tokenizer", *_of_good(tmp_path)]) == 0
    name = os.fsdecode(os.fsencode(tmp_path / "raw") + b"/caf\xe9.txt.gz")
    Path(name).write_bytes(gzip.compress(b"text\n" * 1000)[:-9])
    answer = biloom.run("prepare", *_of_good(tmp_path))
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"biloom: {tmp_path}/raw/caf\\udce9.txt.gz: this compressed ")
    assert answer.stderr.count("\n") == 1


def _of_good(root: Path) -> tuple[str, ...]:
    good(root / "raw", 1)
    return (f"run.output={root}", f"prepare.input={root}/raw/*", *IN_MEMORY)
