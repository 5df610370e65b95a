"""`biloom generate` prints a line per text."""

from pathlib import Path

import pytest

from biloom import BiLM
from lightning_modules.evaluation.generation import Generated, Sampling, generate
from pipeline.cli import main


def test_each_text_is_a_line(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["generate", "--model", f"{trained}/export", "--prompt", "kana lori", "--number", "3"]
    options = ["--tokens", "7", "--seed", "5", "--temperature", "0.9", "--top-k", "20"]
    assert main([*command, *options, "--top-p", "0.9", "--direction", "backward"]) == 0

    sampling = Sampling(7, 0.9, 20, 0.9, 5, "backward")
    model = BiLM.from_pretrained(trained / "export")
    expected = [one.text for one in generate(model, "kana lori", sampling, 3)]
    assert capsys.readouterr().out.splitlines() == expected
    assert all(text.endswith("kana lori") for text in expected)


def test_a_setting_out_of_range_is_told(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--model", f"{trained}/export", "--top-p", "2"]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err) == (
        "",
        "biloom: top_p: 2 is not a probability above 0 and at most 1; 1 keeps all tokens\n",
    )


def test_a_text_with_line_breaks_is_one_line(
    monkeypatch: pytest.MonkeyPatch, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Generated("a\nb\r\x1b[31mc", (), 0.0, True)
    monkeypatch.setattr("pipeline.commands.tasks.generate.generate", lambda *_: [one])
    assert main(["generate", "--model", f"{trained}/export"]) == 0
    assert capsys.readouterr().out == "a\\nb\\r\\x1b[31mc\n"
