"""A student from its teacher's folder to its own."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from lightning_modules.vectors.pretrained import BiLM
from pipeline.cli import main
from pipeline.commands.distillation.student import distill_student
from pipeline.config.load import ConfigError
from preprocess.errors import UserError
from preprocess.files.manifest import read_manifest

Tiny = Any  # of conftest.py
FEW = ("train.steps=4", "model.recurrent.hidden=6", "model.recurrent.projection=3")


def words(tiny: Tiny, *settings: str) -> list[str]:
    given: list[str] = tiny.arguments(Path("unused"), *settings)
    return [word for word in given if not word.startswith("run.output=")]


def test_a_student_is_trained_evaluated_and_exported_and_then_found_finished(
    tiny: Tiny, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, teacher = str(tmp_path / "small 1"), str(trained / "export")
    assert distill_student(teacher, out, words(tiny, *FEW)) == 0
    assert BiLM.from_pretrained(f"{out}/export").dim == 6
    asked = read_manifest(f"{out}/train", "train").asked
    assert asked["train.teacher.model"] == read_manifest(teacher, "export").content
    capsys.readouterr()

    assert distill_student(teacher, out, words(tiny, *FEW)) == 0
    assert capsys.readouterr().out.count("already done") == 3


def test_a_shell_that_split_a_setting_is_reported(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="if it belongs to the value before it, quote both"):
        distill_student(str(trained), str(tmp_path), [*words(tiny), "train.order=", "x"])


@pytest.mark.parametrize(
    ("setting", "option"), [("run.output=x", "--out"), ("train.teacher.model=x", "--model")]
)
def test_a_setting_that_an_option_gives_is_refused(
    tiny: Tiny, tmp_path: Path, setting: str, option: str
) -> None:
    key = setting.partition("=")[0]
    with pytest.raises(UserError, match=rf"^--to student sets {key} from {option}; leave {key}="):
        distill_student("none", str(tmp_path), [*words(tiny), setting])


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_a_later_stage_would_refuse_is_refused_before_the_training(
    overwrite: bool, tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    teacher = tmp_path / "run" / "export"
    shutil.copytree(trained / "export", teacher)
    with pytest.raises(UserError, match=r"the student would replace it; set another run\.output"):
        distill_student(str(teacher), str(tmp_path / "run"), words(tiny, *FEW), overwrite)
    layers = words(tiny, *FEW, "export.layers=1")
    with pytest.raises(UserError, match=r"^export\.layers: the output layer"):
        distill_student(str(teacher), str(tmp_path / "other"), layers, overwrite)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["export"]


def test_a_model_in_the_folder_of_the_export_is_refused_before_the_training(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained / "export", tmp_path / "export")
    with pytest.raises(UserError, match="export: it holds a result of another training"):
        distill_student(str(trained / "export"), str(tmp_path), words(tiny, *FEW))
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_the_folder_of_a_run_is_no_teacher(tiny: Tiny, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^train\.teacher\.model: .* holds no finished 'export'"):
        distill_student(str(trained), str(tmp_path), words(tiny, *FEW))
    assert not list(tmp_path.iterdir())


def test_the_command_trains_a_student(
    tiny: Tiny, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, out = str(trained / "export"), str(tmp_path / "student")
    command = ["distill", "--model", teacher, "--to", "student", "--out", out]
    assert main([*command, *words(tiny, *FEW)]) == 0
    assert BiLM.from_pretrained(f"{out}/export").dim == 6

    others = words(tiny, *FEW, "model.recurrent.layers=1")
    assert main([*command, *others]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite", *others]) == 0


@pytest.mark.parametrize(
    ("to", "given", "message"),
    [
        ("student", ["--dim", "0", "--cache", "c"], "--to student does not take --cache, --dim; leave it out, and use settings of the training, such as model.recurrent.hidden=64"),
        ("static", ["quickstart", "train.steps=1", "--overwrite"], "--to static does not take quickstart, train.steps=1, --overwrite; leave it out, and use its options"),
    ],
)  # fmt: skip
def test_options_of_the_other_form_are_refused(
    to: str, given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["distill", "--model", "none", "--to", to, "--out", "unused", *given]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
