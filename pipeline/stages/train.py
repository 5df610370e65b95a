"""The train stage: token shards -> checkpoint."""

import os
from dataclasses import replace
from functools import partial

from rich.console import Console as RichConsole

from lightning_modules.models.checkpoint_file import BEST, CHECKPOINT, read_checkpoint
from lightning_modules.models.model_folder import tensors_hash
from lightning_modules.training.metrics_file import METRICS, rows_up_to
from pipeline.config.recipe import recipe_lines
from pipeline.config.schema import Config
from pipeline.console import Console, count
from pipeline.exit_codes import ExitCode
from pipeline.lifecycle.inputs import one_pass
from pipeline.lifecycle.registry import STAGES
from pipeline.lifecycle.stage import Made, StageFolder
from pipeline.lifecycle.state import config_of_stage, has_begun_elsewhere, stage_place
from pipeline.stages.best_step import (
    OverfittingWatch,
    ending,
    last_figures,
    publish_best,
    stop_reason,
)
from pipeline.stopping import Stopped
from pipeline.training.device import device_name
from pipeline.training.forecast import (
    TimedBar,
    cpu_tokens_per_second,
    duration,
    training_warnings,
)
from pipeline.training.inputs import TrainingInputs
from pipeline.training.processes import Processes
from pipeline.training.tracking import log_checkpoint_artifact, make_loggers
from pipeline.training.trainer import fit
from preprocess.files import storage
from preprocess.files.manifest import read_manifest
from preprocess.files.verified import read_verified
from preprocess.work.folder import best_file, checkpoint_file

WAIT_SECONDS = 600.0
"""How long the other processes wait for the first one to start training."""


def make(config: Config, place: StageFolder, console: Console) -> Made:
    """Train as rank 0, the only process that writes results and prints.

    Raises:
        UserError: corpus, model folder, devices or settings cannot be used.
        KeyboardInterrupt: a signal stopped the training; its last step was saved.
    """
    train = config.train
    inputs = TrainingInputs.of(config, place, console)
    module = inputs.module(console)
    inputs.show(console)
    for line in recipe_lines(config, one_pass(inputs.corpus.manifest)):
        console.line(line)
    size = sum(weight.numel() for weight in module.network.parameters())
    console.line(f"{count(size)} parameters on {_where(inputs)}; {_how_much(inputs)}")
    if teacher := inputs.teacher:
        size_of_teacher = count(teacher.parameters)
        console.line(f"with the teacher {teacher.path}, which has {size_of_teacher} parameters")
        if warning := teacher.size_warning(size):
            console.warn(warning)
    console.line(module.compile_cell(inputs.share.of_pass))
    ids = inputs.corpus.vocabulary
    for warning in training_warnings(config, inputs.passes, inputs.split_tokens, ids):
        console.warn(warning)
    history = rows_up_to(place.new_file(METRICS), inputs.step)
    loggers = make_loggers(config, place, console, history)
    watch = OverfittingWatch(history, train.patience, console.warn)
    with console.bar("train", train.steps) as bar:
        timed = TimedBar(bar, train.steps, _where(inputs), console)
        fit(inputs, module, loggers, timed, watch.add, console.warn)

    storage.copy(checkpoint_file(place.work, module.step), place.new_file(CHECKPOINT))
    best = publish_best(place, module.step)
    # The metrics are published already if a process was killed while it published the result.
    metrics = place.new_file(METRICS)
    rows = rows_up_to(metrics if storage.exists(metrics) else place.file(METRICS), module.step)
    passes = inputs.passes * module.step / train.steps
    for line in ending(train, module.step, module.held_out_losses, best, rows, passes):
        console.line(line)
    corpus = inputs.corpus.manifest
    details = {
        "model": config.model.model_dump(),
        "vocabulary": inputs.corpus.vocabulary,
        "cutoffs": inputs.cutoffs,
        "boundary": train.boundary,
        "reset_state": train.reset_state,
        "steps": module.step,
        "planned_steps": train.steps,
        "stopped": stop_reason(train, module.step, module.held_out_losses),
        "best_step": best.step if best else None,
        "best": best.figures if best else None,
        "last": last_figures(rows, module.step),
        "tokens": module.step * train.tokens_a_step,
        "passes": round(passes, 4),
        "parameters": size,
        "precision": inputs.precision,
        "skipped_steps": module.figures.skipped,
        "averaged": module.is_averaging,
        "tokenizer": corpus.details["tokenizer"],
        "cleaning": corpus.details["cleaning"],
        "corpus": corpus.content,
        # Absent without a teacher, as in the results of former versions.
        **({"teacher": inputs.teacher.content} if inputs.teacher else {}),
    }
    names = (CHECKPOINT, METRICS, *([BEST] if best else []))
    files = tuple(place.record(name) for name in names)
    module.swap_average()
    weights = {name: tensor.cpu() for name, tensor in module.network.state_dict().items()}
    weights |= {f"best.{name}": tensor for name, tensor in (best.weights if best else {}).items()}
    made = Made(files, details, stats=details, content=tensors_hash(weights, details))
    # wandb reads the checkpoint at its final path, offline even much later.
    return replace(made, after=partial(log_checkpoint_artifact, loggers, place, made))


def join(config: Config, is_run: bool = False, overwrite: bool = False) -> int:
    """Take part in a training as another rank than 0, which writes and prints nothing.

    torchrun, srun or the user has started this process.

    Args:
        config: the config.
        is_run: whether rank 0 runs other stages before.
        overwrite: whether rank 0 moves a result of other settings aside.

    Returns:
        The exit code of the process.

    Raises:
        StageError: the first process refuses the settings, or did not start training in time.
    """
    stage = STAGES["train"]
    if not has_begun_elsewhere(stage, config, WAIT_SECONDS, waits=is_run or overwrite):
        return ExitCode.DONE
    config = config_of_stage(stage, stage.settled(config))
    place = stage_place(stage, config)
    return join_as(None, config, place.folder, place.work)


def join_as(processes: Processes | None, config: Config, folder: str, work: str) -> int:
    """Take part in a training.

    Args:
        processes: the processes of the training; None to read them from the environment.
        config: the config.
        folder: folder of the train stage.
        work: folder of its unfinished work.
    """
    place = StageFolder(folder, work)
    with open(os.devnull, "w") as nowhere:
        console = Console(RichConsole(file=nowhere))
        inputs = TrainingInputs.of(config, place, processes=processes)
        module = inputs.module(console)
        with console.bar("train", config.train.steps) as bar:
            try:
                fit(inputs, module, (), bar)
            except Stopped as stop:
                return stop.code  # rank 0 reports the stop
    return ExitCode.DONE


def reopen(config: Config, place: StageFolder) -> None:
    """Copy a finished training into the work folder, to train further from its last step.

    Raises:
        UserError: it cannot be trained with these settings.
    """
    TrainingInputs.of(config, place)
    checkpoint = place.file(CHECKPOINT)
    step = read_checkpoint(checkpoint, mapped=True)["step"]
    manifest = read_manifest(place.folder, "train")
    # A copy of its own, because the training appends to it.
    metrics = read_verified(place.folder, manifest, METRICS)
    storage.write_bytes(place.new_file(METRICS), metrics)
    if BEST in manifest.records:
        best = read_checkpoint(place.file(BEST), mapped=True)["step"]
        storage.copy(place.file(BEST), best_file(place.work, best))
    storage.copy(checkpoint, checkpoint_file(place.work, step))


def _where(inputs: TrainingInputs) -> str:
    world = inputs.share.world
    name = device_name(inputs.device)
    return f"{f'{world} x ' if world > 1 else ''}{name}{_precision(inputs)}"


def _precision(inputs: TrainingInputs) -> str:
    return "" if inputs.precision == "float32" else f", {inputs.precision}"


def _how_much(inputs: TrainingInputs) -> str:
    train = inputs.config.train
    accumulated = f" x {train.accumulate_steps}" if train.accumulate_steps > 1 else ""
    return (
        f"{train.steps:,} steps of {train.rows} x {train.unroll}{accumulated} tokens, "
        f"{inputs.passes:.2f} passes{_how_long(inputs)}"
    )


def _how_long(inputs: TrainingInputs) -> str:
    """Return an estimate of the time that is left; the bar shows it later, from the real speed."""
    left = (inputs.config.train.steps - inputs.step) * inputs.config.train.tokens_a_step
    if inputs.device.type != "cpu" or inputs.share.world > 1 or not left or inputs.teacher:
        return ""
    speed = cpu_tokens_per_second(inputs.config, inputs.counts)
    return f"; about {duration(left / speed)}{' more' if inputs.step else ''}"
