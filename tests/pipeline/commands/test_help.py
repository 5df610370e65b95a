"""What the help of each command says is true: its examples work, and its settings exist."""

import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.commands.command import Command, Group
from pipeline.commands.registry import COMMANDS
from pipeline.commands.stage_commands import STAGE_COMMANDS
from pipeline.config.annotated import setting_names

Tiny = Any  # of conftest.py
FINISHED = Path(__file__).parents[2] / "fixtures" / "version-0.1" / "finished"


def all_commands(commands: Mapping[str, Command | Group], before: str = "") -> Iterator[Any]:
    for name, command in commands.items():
        if isinstance(command, Group):
            yield from all_commands(command.commands, f"{before}{name} ")
        else:
            yield before + name, command


EVERY = dict(all_commands(COMMANDS))


@pytest.mark.parametrize("name", EVERY)
def test_a_commands_help_has_two_examples_of_it(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*name.split(), "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    examples = shown.partition("\nexamples:\n")[2].replace("\\\n", "").splitlines()
    assert len(examples) == len(EVERY[name].examples) == 2
    for example in examples:
        assert f"biloom {name} " in example
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("name", STAGE_COMMANDS)
def test_the_main_settings_of_a_stage_exist(name: str) -> None:
    settings = STAGE_COMMANDS[name].settings
    assert len(settings) >= 3
    known = setting_names()
    sections = {key.rpartition(".")[0] for key in known}
    assert [key for key in settings if key not in known and key not in sections] == []


@pytest.fixture(scope="module")
def finished(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small configs under the names of shipped ones, and a finished run of one."""
    folder = tmp_path_factory.mktemp("examples")
    config = (tiny.root / "tiny.yaml").read_text().replace("kind: word", "kind: char")
    config = re.sub(r', tokenizer: "[^"]*"|  corpus: ".*"\n|evaluate: .*\n', "", config)
    for name in ("quickstart", "base"):
        (folder / name).write_text(f"run: {{output: runs/{name}}}\n{config}")
    (folder / "text").mkdir()
    (folder / "text" / "new.txt").write_text("ka lo mi\nnu ka lo\n" * 30)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["run", "quickstart"]) == 0
    return folder


SMALL = {
    "train.passes=4": "train.passes=0.3",
    "model.recurrent.hidden=512": "model.recurrent.hidden=16",
}
"""Smaller values of settings, with which an example takes less time."""


@pytest.mark.parametrize("name", STAGE_COMMANDS)
def test_the_examples_of_the_stages_work(
    name: str,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same words, on a small corpus and with small configs."""
    folder = tmp_path / "examples"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    for example in STAGE_COMMANDS[name].examples:
        words = [SMALL.get(word, word) for word in shlex.split(example)[1:]]
        arguments = [word.replace("=4000", "=50") for word in words]
        assert main(arguments) == 0, (example, capsys.readouterr().err)


NOT_RUN = {
    "import-elmo": "needs an archive; test_elmo.py",
    "look": "needs raw text; look/test_look.py",
    "trace": "needs a corpus with origins; test_trace.py",
    "explain": "needs a task; tasks/test_explain.py",
    "export-onnx": "takes some 20 s; portable/test_export_onnx.py",
    "export-elmo": "needs a model with a character CNN; test_elmo.py",
    **dict.fromkeys(
        ("classify train", "classify test", "classify predict"),
        "needs labelled texts; tasks/test_classify.py, and docs/classification.md is run",
    ),
    "serve": "serves until a signal; serving/test_serve.py",
    "tag train": "needs tagged sentences; tasks/test_tag.py",
    "tag test": "needs tagged sentences; tasks/test_tag.py",
    "tag predict": "needs a tagger; tasks/test_tag.py",
}
"""Commands whose examples are parsed only, and why."""


@pytest.mark.parametrize(
    "name", [name for name in EVERY if name not in {*STAGE_COMMANDS, *NOT_RUN}]
)
def test_the_examples_of_the_other_commands_work(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for run in ("quickstart", "gru"):
        shutil.copytree(FINISHED, f"runs/{run}")
    Path("sentences.txt").write_text("ein Satz\n")
    for file in ("train.conll", "dev.conll"):
        Path(file).write_text("ein D\nSatz N\n\n")
    rows = (f"Satz\t{n % 2}\t1\tein Satz {n}\n" for n in range(101))
    Path("senses.tsv").write_text("".join(rows))
    for example in EVERY[name].examples:
        words = shlex.split(example.partition("|")[2] or example)
        words = [word.replace("s3://bucket/run", "runs/quickstart") for word in words]
        end = next((n for n, word in enumerate(words) if word in "<>"), len(words))
        with open("sentences.txt") as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            code = main(words[1:end])
        # The texts of the example are not in this cache.
        assert code == (name == "cache get"), (example, capsys.readouterr().err)
