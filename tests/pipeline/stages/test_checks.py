"""What a later stage would refuse is refused before the first one begins."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.lifecycle.registry import STAGES
from pipeline.stages.checks import check_config, check_results
from preprocess.errors import UserError

Tiny = Any  # of conftest.py
OF_STUDENT = [STAGES[name] for name in ("train", "evaluate", "export")]


@pytest.fixture
def teacher(trained: Path, tmp_path: Path) -> Path:
    """A model in the export folder of a run that has no training."""
    folder = tmp_path / "teacher" / "export"
    shutil.copytree(trained / "export", folder)
    return folder


@pytest.mark.parametrize(
    ("named", "out"),
    [
        ("teacher/export", "teacher"),
        ("teacher/export", "link"),
        ("link/export", "teacher"),
        ("teacher/export", "teacher/export/student"),
    ],
)
def test_a_teacher_that_the_student_would_replace_is_refused(
    named: str, out: str, tiny: Tiny, teacher: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "teacher")
    config = tiny.config(tmp_path / out, f"train.teacher.model={tmp_path / named}")
    message = (
        f"train.teacher.model: the teacher {tmp_path / named} is where the student is exported "
        f"({tmp_path / out}/export), so the student would replace it; set another run.output "
        "(--out of `biloom distill`)"
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        check_config(config, OF_STUDENT)


def test_a_teacher_in_another_folder_is_accepted(tiny: Tiny, teacher: Path, tmp_path: Path) -> None:
    for out in ("exp", "teacher/student"):
        check_config(tiny.config(tmp_path / out, f"train.teacher.model={teacher}"), OF_STUDENT)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["export.layers=1"], "export.layers: the output layer reads the top layer, which is dropped; set"),
        (["export.layers=2", "export.head=false"], "export.layers: 2 layers are to be kept, but the model has 2"),
        (["export.input_rank=4"], "export.input_rank: 4 is not a lower rank than that of the input matrix (4)"),
        (["export.input_rank=1", "model.input={kind: char_cnn}"], "export.input_rank: the input vectors are computed from characters"),
        (["export.vocabulary=100000"], "export.vocabulary: 100,000 ids are to be kept, but the model has 10"),
        (["export.vocabulary=50"], "export.vocabulary: an adaptive softmax without some of its"),
        (["export.type_vectors=true"], "export.type_vectors is true, but model.input.kind=embedding has"),
        (["export.head=false", "model.tied=true", "model.input={kind: adaptive}"], "export.head is false, but with model.tied"),
        (["evaluate.split=train"], "the model was trained on this train split; set evaluate.split to"),
        (["evaluate.corpus=nowhere"], "nowhere holds no finished 'prepare'"),
        (["prepare.tokenizer=nowhere"], "nowhere holds no finished 'tokenizer'"),
        (["export.checkpoint=nowhere/train"], "nowhere/train holds no finished 'train'"),
    ],
)  # fmt: skip
def test_settings_that_a_later_stage_refuses_are_refused_before_the_training(
    settings: list[str], message: str, tiny: Tiny, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        check_config(tiny.config(tmp_path, *settings), OF_STUDENT)


def test_a_model_of_another_training_is_checked_as_it_was_trained(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    named = f"export.checkpoint={trained / 'train'}"
    settings = ("export.layers=1", "export.head=false", "model.recurrent.layers=1")
    check_config(tiny.config(tmp_path, named, *settings), OF_STUDENT)
    with pytest.raises(UserError, match=r"export\.layers: 1 layers are to be kept, but the model"):
        check_config(tiny.config(tmp_path, *settings), OF_STUDENT)


def test_a_corpus_that_this_run_makes_is_not_looked_at(tiny: Tiny, tmp_path: Path) -> None:
    own = ("train.corpus=null", f"evaluate.corpus={tmp_path}/prepare", "prepare.tokenizer=null")
    check_config(tiny.config(tmp_path, *own, "export.vocabulary=50"), STAGES.values())


def test_an_export_without_a_training_is_left_to_the_stage(tiny: Tiny, tmp_path: Path) -> None:
    # The config may say nothing of the model that was trained.
    config = tiny.config(tmp_path, "export.layers=2", "export.head=false")
    check_config(config, [STAGES["export"]])


def test_a_later_folder_with_another_result_is_refused_before_the_training(
    tiny: Tiny, trained: Path, teacher: Path, tmp_path: Path
) -> None:
    config = tiny.config(teacher.parent)
    message = (
        f"{teacher}: it holds a result of another training than that in {teacher.parent}/train; add "
        "--overwrite to move it aside, or set another run.output (--out of `biloom distill`)"
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        check_results(config, OF_STUDENT, overwrite=False)
    check_results(config, OF_STUDENT, overwrite=True)
    check_results(tiny.config(tmp_path / "new"), OF_STUDENT, overwrite=False)


def test_a_later_folder_with_other_settings_is_refused_before_the_training_goes_on(
    tiny: Tiny, trained: Path
) -> None:
    check_results(tiny.config(trained), OF_STUDENT, overwrite=False)
    further = tiny.config(trained, "train.steps=50")
    check_results(further, OF_STUDENT, overwrite=False)
    other = tiny.config(trained, "train.steps=50", "export.weights=int8")
    message = (
        r'/export: this export is refused: .*export\.weights: "float32" -> "int8"\); add --over'
    )
    with pytest.raises(UserError, match=message):
        check_results(other, OF_STUDENT, overwrite=False)
    # The training itself tells what it refuses.
    check_results(tiny.config(trained, "train.rows=2"), OF_STUDENT, overwrite=False)
