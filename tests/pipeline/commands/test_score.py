"""`biloom score` prints one line per text."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from biloom import BiLM
from lightning_modules.evaluation.scoring import score_texts
from pipeline.cli import main

TEXTS = ["kana lori", "", "lori kana kana"]


def columns(out: str) -> list[list[str]]:
    return [line.split("\t") for line in out.splitlines()]


def test_every_line_has_its_columns(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(b"kana lori\r\n\nlori kana kana")
    model = BiLM.from_pretrained(trained / "export")

    assert main(["score", str(path), "--model", str(trained / "export")]) == 0

    rows = columns(capsys.readouterr().out)
    for row, one in zip(rows, score_texts(model, TEXTS), strict=True):
        assert len(row) == 8
        assert int(row[0]) == one.tokens
        assert one.backward is not None
        assert [float(cell) for cell in row[1:4]] == pytest.approx(
            [one.forward, one.backward, one.log_probability], abs=1e-3
        )
        assert float(row[6]) == pytest.approx(one.perplexity(one.log_probability), rel=1e-4)
        assert int(row[7]) == one.unknown


def test_invalid_bytes_are_read_and_told(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(b"kana \xff\nlori\n")

    assert main(["score", str(path), "--model", str(trained / "export")]) == 0
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 2
    assert "bytes of 1 texts are not UTF-8; they were read as U+FFFD\n" in told.err


NO_LINES = "not lines of text; name a file with one text per line"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (gzip.compress(b"kana lori\n", mtime=0), f"this is a compressed file, {NO_LINES}"),
        (b"%PDF-1.7\n\x00\x01", f"this is a PDF document, {NO_LINES}"),
        (b"PAR1" + bytes(60), f"this is a Parquet file, {NO_LINES}"),
        (
            "kana lori\nlori\n".encode("utf-16-le"),
            "this is text in utf-16-le, not UTF-8; convert it (iconv -f utf-16-le -t utf-8)",
        ),
    ],
)
def test_files_that_are_not_text_are_not_scored(
    data: bytes, problem: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(data)
    assert main(["score", str(path), "--model", str(trained / "export")]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", f"biloom: {path}: {problem}\n")


def test_lines_of_a_pipe_are_scored_as_they_arrive(trained: Path) -> None:
    command = [sys.executable, "-m", "pipeline.cli", "score", "--model", str(trained / "export")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ}, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        for text in TEXTS:
            process.stdin.write(f"{text}\n")
            process.stdin.flush()
            assert len(process.stdout.readline().split("\t")) == 8
        process.stdin.close()
        assert process.stdout.read() == ""
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("name", "told"), [("none.txt", "No such file or directory"), ("", "Is a directory")]
)
def test_a_file_that_cannot_be_read_is_reported(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, told: str
) -> None:
    path = tmp_path / name

    assert main(["score", str(path), "--model", str(trained / "export")]) == 2
    assert f"{told}; name a text file, or - for standard input" in capsys.readouterr().err


def test_a_missing_model_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "-", "--model", str(tmp_path)]) == 2
    assert "holds no finished 'export'" in capsys.readouterr().err
