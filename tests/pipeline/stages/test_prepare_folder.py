"""A folder with archives in it goes through every step, is counted, traced, resumed and copied."""

import gzip
import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from pipeline.cli import main
from preprocess.corpus import segment
from preprocess.files.manifest import Manifest, check_files, read_manifest

Capture = pytest.CaptureFixture[str]


def text(name: str, lines: int) -> bytes:
    return "".join(f"line {number} of {name}, in words\n" for number in range(lines)).encode()


def tar(names: list[str], lines: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(data := text(name, lines))
            made.addfile(entry, io.BytesIO(data))
        link = tarfile.TarInfo("link")
        link.type = tarfile.SYMTYPE
        made.addfile(link)
    return buffer.getvalue()


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    (folder / "sub" / ".git").mkdir(parents=True)
    (folder / "a.txt").write_bytes(text("a", 50))
    (folder / "sub" / "up").symlink_to("..")
    (folder / "sub" / "b.tar.gz").write_bytes(gzip.compress(tar(["x.txt", "y/z.txt"], 300)))
    with zipfile.ZipFile(folder / "c.zip", "w", zipfile.ZIP_DEFLATED) as made:
        for number in range(60):
            made.writestr(f"{number}.txt", text(f"member {number}", 20))
        made.writestr("image.png", b"\x89PNG\r\n\x1a\n" + bytes(99))
    (folder / "d.bin").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(99))
    (folder / "e.png").write_bytes(b"")
    return folder


def words(raw: Path, output: Path, *more: str) -> list[str]:
    return [
        *(f"prepare.input={raw}", f"run.output={output}", "tokenizer.kind=char"),
        *("prepare.unit_bytes=4096", "prepare.part_tokens=1000", "prepare.deduplicate=false"),
        *("runner.options.mode=in_memory", *more),
    ]


def prepared(output: Path) -> Manifest:
    manifest = read_manifest(f"{output}/prepare", "prepare")
    assert check_files(f"{output}/prepare", manifest) == []
    return manifest


def test_a_folder_with_archives_is_prepared_told_and_traced(
    raw: Path, tmp_path: Path, capsys: Capture
) -> None:
    left_out = "left out of folders: 1 hidden folder, 1 image (.png)"
    arguments = words(raw, tmp_path / "out")
    assert main(["prepare", *arguments, "--dry-run"]) == 0
    assert left_out in capsys.readouterr().out
    for stage in ("tokenizer", "prepare"):
        assert main([stage, *arguments]) == 0
        assert left_out in capsys.readouterr().out
    details = prepared(tmp_path / "out").details
    documents = details["documents"]
    written = 50 + 2 * 300 + 60 * 20
    assert (documents["read"], documents["written"]) == (written + 3, written)
    assert documents["dropped"] == {"not_a_file": 1, "not_text": 2}
    assert details["left_out"] == {"hidden folders": 1, "images (.png)": 1}
    places = [
        json.loads(line)["where"]
        for file in sorted((tmp_path / "out" / "prepare").glob("dropped-*.jsonl"))
        for line in file.read_text().splitlines()
    ]
    assert sorted(places) == ["c.zip/image.png", "d.bin", "sub/b.tar.gz/link"]
    for name, number in (("sub/b.tar.gz/y/z.txt", 300), ("c.zip/7.txt", 20), ("a.txt", 50)):
        assert main(["trace", f"{tmp_path}/out/prepare", "--file", name]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == number
        assert lines[0].endswith(f"corpus\t{name}:0")
    # A copy elsewhere is the same input; a larger file is another.
    shutil.copytree(raw, tmp_path / "copy", symlinks=True)
    assert main(["prepare", *words(tmp_path / "copy", tmp_path / "out")]) == 0
    assert "already done" in capsys.readouterr().out
    (tmp_path / "copy" / "f.txt").write_text("more")
    assert main(["prepare", *words(tmp_path / "copy", tmp_path / "out")]) == 2
    assert "prepare.input.0.files: 4 -> 5" in capsys.readouterr().err


def test_a_corpus_of_archives_that_was_interrupted_ends_the_same(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["tokenizer", *words(raw, tmp_path / "whole")]) == 0
    assert main(["prepare", *words(raw, tmp_path / "whole")]) == 0
    tokenizer = f"prepare.tokenizer={tmp_path}/whole/tokenizer"
    arguments = ["prepare", *words(raw, tmp_path / "out", tokenizer)]
    write_keys = segment.write_keys
    for calls in (2, 2, 2):
        left = [calls]

        def fail(*given: object, left: list[int] = left, **named: object) -> object:
            left[0] -= 1
            if not left[0]:
                raise RuntimeError("the process ends")
            return write_keys(*given, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(segment, "write_keys", fail)
        assert main(arguments) == 70
    monkeypatch.setattr(segment, "write_keys", write_keys)
    assert main(arguments) == 0
    assert prepared(tmp_path / "out").content == prepared(tmp_path / "whole").content


def test_a_changed_archive_is_refused_by_its_name(
    raw: Path, tmp_path: Path, capsys: Capture
) -> None:
    arguments = words(raw, tmp_path / "out")
    assert main(["tokenizer", *arguments]) == 0
    data = bytearray((raw / "c.zip").read_bytes())
    data[-30] ^= 1
    (raw / "c.zip").write_bytes(bytes(data))
    assert main(["tokenizer", *arguments]) == 2
    assert "c.zip: its contents changed, but not its size" in capsys.readouterr().err


def test_a_folder_in_which_nothing_is_text_is_told(tmp_path: Path, capsys: Capture) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99))
    assert main(["tokenizer", *words(raw, tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "the train split has no text; a.txt: this is an image; extract its text" in told


def test_the_output_of_a_run_inside_the_folder_is_no_input(raw: Path) -> None:
    for _ in range(2):
        for stage in ("tokenizer", "prepare"):
            assert main([stage, *words(raw, raw / "runs" / "out")]) == 0
