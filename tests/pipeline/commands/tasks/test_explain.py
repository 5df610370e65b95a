"""`biloom explain` on a language model: what it prints, its page and its messages.

Explanations of classifiers are tested in tests/lightning_modules/tasks/explanation.
"""

import json
from pathlib import Path

import pytest

from biloom import BiLM
from lightning_modules.evaluation.scoring import score_texts
from pipeline.cli import main

TEXT = "kana <b>lori</b> & רא שי\n\nlori kana kana\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_each_text_is_an_object(
    trained: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(trained / "export")
    assert main(["explain", model, str(file), "--json", "scale=nats"]) == 0
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.splitlines()]

    assert [row["place"] for row in rows] == ["line 1", "line 2", "line 3"]
    assert rows[1]["title"] == "not explained: empty text"
    assert "1 of 3 texts are not explained" in printed.err
    text = TEXT.splitlines()[0]
    assert [unit["text"] for unit in rows[0]["units"]] == text.split()
    for unit in rows[0]["units"]:
        assert rows[0]["text"][unit["start"] : unit["end"]] == unit["text"]
    [score] = score_texts(BiLM.from_pretrained(model), [text])
    total = sum(unit["forward_nats"] for unit in rows[0]["units"])
    assert 0 < total < -score.forward  # without the end of the text


def test_texts_of_the_command_line_are_explained(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(trained / "export"), "--text", "kana lori", "--text", "lori"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("  text 1: bits per token: forward ")
    assert [line.split(":")[0].strip() for line in lines[1:4]] == [
        "forward bits",
        "backward bits",
        "saliency",
    ]
    assert "kana " in lines[1]
    assert lines[4].startswith("  text 2: ")


def test_the_page_is_escaped_and_loads_nothing(trained: Path, file: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["explain", str(trained / "export"), str(file), "--page", str(page)]) == 0
    html = page.read_text(encoding="utf-8")
    assert "<b>" not in html.partition("<main>")[2].replace("<bdi>", "")
    assert "&lt;b&gt;lori&lt;/b&gt;" in html
    assert 'class="coloured" dir="auto"' in html
    assert "רא" in html
    assert "<script" not in html
    assert "src=" not in html
    assert "not explained: empty text" in html


def test_wrong_folders_and_settings_are_told(
    trained: Path, tiny: object, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        ([str(trained / "train"), "--text", "x"], "holds a finished 'train'; name a model folder"),
        ([str(trained / "export"), "--text", "x", "--model", "y"], "leave out --model"),
        ([str(trained / "export"), "--text", "x", "methot=occlusion"], "method"),
        ([str(trained / "export"), "missing.txt"], "missing.txt"),
        ([str(trained / "export"), "a.txt", "--text", "x"], "a.txt: --text is given, too"),
        (
            [str(trained / "export"), "--text", "x", "--page", str(trained)],
            f"{trained}: cannot be written, because it is a folder; name a file",
        ),
    ):
        assert main(["explain", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_a_long_text_is_bounded_on_the_page(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.reports import explanation_page

    monkeypatch.setattr(explanation_page, "PAGE_UNITS", 10)
    file, page = tmp_path / "texts.txt", tmp_path / "page.html"
    file.write_text("kana " * 9 + "\nlori\nlori\n")
    assert main(["explain", str(trained / "export"), str(file), "--page", str(page)]) == 0
    assert "2 more texts are not on this page" in page.read_text()
