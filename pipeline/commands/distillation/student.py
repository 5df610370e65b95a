"""`biloom distill --to student`: a smaller model that is trained with a trained one."""

import json
from collections.abc import Sequence

from pipeline.commands.stage_commands import files_and_overrides
from pipeline.config.load import load_config
from pipeline.console import Console
from pipeline.lifecycle.default_recipe import continued
from pipeline.lifecycle.registry import STAGES
from pipeline.stages.checks import check_config, check_results
from pipeline.stages.run import run_stages
from pipeline.training.processes import is_further_process
from preprocess.errors import UserError

OF_STUDENT = ("train", "evaluate", "export")
"""The stages of a student, in order. Its corpus is prepared."""
OPTIONS = {"train.teacher.model": "--model", "run.output": "--out"}
"""Settings that options of the command give, each with its option."""


def distill_student(model: str, out: str, words: Sequence[str], overwrite: bool = False) -> int:
    """Train, evaluate and export a student, as the commands of these stages do.

    A finished stage is skipped, and an interrupted one resumed. What evaluate and export would refuse is
    refused before the training begins.

    Args:
        model: model folder of the teacher, a path or URL, or a repository of the Hugging Face hub.
        out: folder or URL of the results, as ``run.output``.
        words: config files, names of shipped configs, and settings as ``key.path=value``, as
            `biloom train` takes them.
        overwrite: whether to move results of other settings aside.

    Returns:
        The exit code of the process.

    Raises:
        UserError: the settings, the corpus, the teacher or the folders of the results cannot be used.
    """
    files, settings = files_and_overrides(words)
    for key, option in OPTIONS.items():
        if any(word.partition("=")[0].strip() == key for word in settings):
            raise UserError(f"--to student sets {key} from {option}; leave {key}=... out")
    notes: list[str] = []
    # In quotes, because an unquoted path could be read as another type.
    given = [
        f"train.teacher.model={json.dumps(model, ensure_ascii=False)}",
        f"run.output={json.dumps(out, ensure_ascii=False)}",
    ]
    config = continued(load_config(files, [*settings, *given], notes, default_recipe=True))
    if is_further_process(config.train):
        from pipeline.stages.train import join

        return join(config, overwrite=overwrite)
    console = Console()
    for note in notes:
        console.warn(note)
    stages = [STAGES[name] for name in OF_STUDENT]
    check_config(config, stages)
    check_results(config, stages, overwrite)
    run_stages(config, stages, "distill", console, overwrite)
    return 0
