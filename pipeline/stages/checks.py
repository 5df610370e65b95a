"""What is checked of stages before the first one begins, which may take days. Imports neither Beam nor torch."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

from lightning_modules.config import AdaptiveInputConfig, CharCNNInputConfig, ModelConfig
from lightning_modules.models.smaller.request import (
    OF_EXPORT,
    check_layers,
    check_rank,
    check_vocabulary,
)
from lightning_modules.training.distillation.source import teacher_folder
from pipeline.config.schema import Config, ExportConfig
from pipeline.lifecycle.checkpoints import named_checkpoint
from pipeline.lifecycle.inputs import (
    checkpoint_setting,
    content_of,
    known_folders,
    stage_folder,
    tokenizer_of,
    trained_checkpoint,
    trained_config,
)
from pipeline.lifecycle.plan import Plan, plan_of
from pipeline.lifecycle.stage import Stage, StageError
from pipeline.training.tracking_requirements import check_tracking
from preprocess.files import storage
from preprocess.files.manifest import read_manifest

Check = Callable[[Config], None]


def check_config(config: Config, stages: Iterable[Stage]) -> None:
    """Check what can be checked of all stages before the first one.

    Inputs of this run that an earlier stage makes are not looked at, because they may not be there yet.

    Raises:
        UserError: a stage cannot finish with these settings.
    """
    every = [*stages]
    trains = any(stage.name == "train" for stage in every)
    for stage in every:
        if check := CHECKS.get(stage.name):
            check(config)
        # Without a training in between, the stage itself refuses them at once.
        if trains and (check := AFTER_TRAINING.get(stage.name)):
            check(config)


def check_results(config: Config, stages: Sequence[Stage], overwrite: bool) -> None:
    """Check the folders of the stages that follow a training.

    Args:
        config: the config.
        stages: the training and the stages after it, in order.
        overwrite: whether results made with other settings are moved aside.

    Raises:
        StageError: a later stage would refuse its folder when the training is finished.
    """
    if overwrite:
        return
    plans: dict[str, Plan] = {}
    first, *later = stages
    plans[first.name] = plan_of(first, config)
    if plans[first.name].action in ("refuse", "unknown"):
        return  # the first stage tells it at once
    for stage in later:
        plan = plans[stage.name] = plan_of(stage, config, plans)
        what = {
            "refuse": f"this {stage.name} is {plan.text}",
            "unknown": f"it holds a result of another training than that in {first.folder(config)}",
        }.get(plan.action)
        if what:
            raise StageError(
                f"{stage.folder(config)}: {what}; add --overwrite to move it aside, or set another "
                "run.output (--out of `biloom distill`)"
            )


class _Trained(NamedTuple):
    """A model that evaluate or export reads, as far as it is known before its training.

    Attributes:
        name: words for messages.
        tokenizer: content hash of its tokenizer.
        corpus: content hash of the corpus that it is trained on.
        model: its network.
        vocabulary: number of its ids.
    """

    name: str
    tokenizer: str
    corpus: str
    model: ModelConfig
    vocabulary: int


def _trained(config: Config, stage: str) -> _Trained | None:
    """Return the model that ``stage`` reads; None if this run has yet to make its corpus.

    Raises:
        UserError: the checkpoint or the corpus that the config names is not there.
    """
    named = named_checkpoint(*checkpoint_setting(config, stage))
    own = stage_folder(config, "train")
    if named.folder and not storage.overlap(named.folder, own):
        checkpoint = trained_checkpoint(config, stage)
        details = checkpoint.manifest.details
        model = ModelConfig.model_validate(details["model"])
        found = details["tokenizer"], details["corpus"], model, details["vocabulary"]
        return _Trained(f"{checkpoint.folder} was trained with", *found)
    folder = _other_corpus(config, config.train.corpus)
    if folder is None:
        return None
    corpus = read_manifest(folder, "prepare")
    of_corpus = corpus.details["tokenizer"], corpus.content
    network = trained_config(config).model, corpus.details["vocabulary"]
    return _Trained(f"{folder} was prepared with", *of_corpus, *network)


def _other_corpus(config: Config, named: str | None) -> str | None:
    """Return the folder of a named corpus; None if it is that of this run, which may be made anew."""
    if not named or storage.overlap(named, stage_folder(config, "prepare")):
        return None
    return storage.absolute(named)


def _check_train(config: Config) -> None:
    check_tracking(config)
    if config.train.teacher:
        folder, export = teacher_folder(config.train.teacher), stage_folder(config, "export")
        if storage.overlap(folder, export):
            raise StageError(
                f"train.teacher.model: the teacher {folder} is where the student is exported ({export}), "
                "so the student would replace it; set another run.output (--out of `biloom distill`)"
            )


def _check_known(config: Config) -> None:
    for folder in known_folders(config):
        content_of(folder, "prepare")


def _check_checkpoint(stage: str, config: Config) -> None:
    named_checkpoint(*checkpoint_setting(config, stage))


def _check_evaluate(config: Config) -> None:
    trained = _trained(config, "evaluate")
    corpus = _other_corpus(config, config.evaluate.corpus or config.train.corpus)
    if corpus:
        manifest = read_manifest(corpus, "prepare")
        if trained:
            found = manifest.details["tokenizer"], manifest.content
            check_evaluated(corpus, *found, config.evaluate.split, *trained[1:3])


def check_evaluated(
    folder: str, tokenizer: str, content: str, split: str, of_model: str, trained_on: str
) -> None:
    """Check that a corpus has a model's token ids, and that the model was not trained on the text.

    Args:
        folder: the folder of the corpus, for messages.
        tokenizer: content hash of the corpus's tokenizer.
        content: content hash of the corpus.
        split: the split to evaluate on.
        of_model: content hash of the model's tokenizer.
        trained_on: content hash of the corpus that the model is trained on.

    Raises:
        StageError: it has others, or it was.
    """
    if tokenizer != of_model:
        raise StageError(
            f"{folder}: this corpus was prepared with another tokenizer than the model's; "
            "prepare it with the model's tokenizer (prepare.tokenizer)"
        )
    if split == "train" and content == trained_on:
        raise StageError(
            f"{folder}: the model was trained on this train split; set evaluate.split to valid "
            "or test, or evaluate.corpus to another corpus"
        )


def _check_export(config: Config) -> None:
    export, trained = config.export, _trained(config, "export")
    model = trained.model if trained else config.model
    check_parts(export, model)
    if export.layers is not None:
        check_layers(model, export.head, export.layers, OF_EXPORT)
    if trained is None:
        return
    tokenizer = tokenizer_of(config, trained.tokenizer, trained.name)
    if export.vocabulary is not None:
        kind = read_manifest(tokenizer, "tokenizer").details["kind"]
        ids = trained.vocabulary, kind, export.vocabulary
        check_vocabulary(model, export.head, *ids, OF_EXPORT)
    if export.input_rank is not None:
        check_rank(model, export.head, export.input_rank, OF_EXPORT)


def check_parts(export: ExportConfig, model: ModelConfig) -> None:
    """Check the parts of a model that are to be exported.

    Raises:
        StageError: export.head or export.type_vectors does not suit the model.
    """
    kind = model.input.kind
    if not export.head and model.tied and isinstance(model.input, AdaptiveInputConfig):
        raise StageError(
            "export.head is false, but with model.tied and model.input.kind=adaptive the input "
            "vectors are in the output layer; set export.head to true"
        )
    if export.type_vectors and not isinstance(model.input, CharCNNInputConfig):
        raise StageError(
            f"export.type_vectors is true, but model.input.kind={kind} has a vector for "
            "each id anyway; set export.type_vectors to false"
        )


CHECKS: dict[str, Check] = {
    "prepare": _check_known,
    "train": _check_train,
    **{stage: partial(_check_checkpoint, stage) for stage in ("evaluate", "export")},
}
"""For a stage, a function that raises a `UserError` if the stage cannot finish with the settings."""

AFTER_TRAINING: dict[str, Check] = {"evaluate": _check_evaluate, "export": _check_export}
"""For a stage, the same for a model that a stage before it trains."""
