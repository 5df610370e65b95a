"""The stages in order, and the request of each: the settings and inputs that decide its result.

Imports neither Beam nor torch, so that a finished stage is recognised at once.
"""

import math
from typing import Any

import xxhash

from lightning_modules.training.config import TrainConfig
from lightning_modules.training.distillation.source import teacher_request
from lightning_modules.training.weights.initial_source import initial_source
from pipeline.config.former_keys import IGNORED, IGNORED_OF_SOURCES, LIMITS, in_present_terms
from pipeline.config.schema import Config
from pipeline.lifecycle.inputs import (
    content_of,
    evaluation_corpus,
    given_tokenizer,
    known_folders,
    stage_folder,
    survey_all,
    trained_checkpoint,
    trained_config,
)
from pipeline.lifecycle.order import STAGE_ORDER, TO_BE_CONTINUED
from pipeline.lifecycle.stage import REPLACES, Request, Stage
from preprocess.config import Source, WordConfig
from preprocess.files.manifest import read_manifest
from preprocess.quality.contents import contents_of_prepare, filters_as_asked
from preprocess.reading import changed_inputs
from preprocess.section import result_fields
from preprocess.tokenizers.segmentation.segmenters import segmenter_version
from preprocess.tokenizers.subwords import read_model


def _raw(sources: tuple[Source, ...], key: str) -> dict[str, Any]:
    """Return the raw input as part of a request: names and sizes of files, never paths."""
    request: dict[str, Any] = {}
    listed, _ = survey_all(sources)
    for number, (source, files) in enumerate(zip(sources, listed, strict=True)):
        fields = source.model_dump(exclude={"path", *IGNORED_OF_SOURCES})
        if source.filters:
            fields["filters"] = filters_as_asked(source.filters)
        request[f"{key}.{number}"] = {**fields, **changed_inputs.digest(files)}
    return request


def _tokenizer_request(config: Config) -> dict[str, Any]:
    fields = result_fields(config.tokenizer, "tokenizer")
    if file := given_tokenizer(config):
        # Nothing is learnt, so only the content of the model file counts, not its path.
        model = xxhash.xxh3_128_hexdigest(read_model(file))
        fields = {"tokenizer.kind": config.tokenizer.kind, "tokenizer.file": model}
    return {
        **fields,
        **_train_split_fields(config),
        **_raw(config.prepare.sources, "prepare.input"),
    }


def _train_split_fields(config: Config) -> dict[str, Any]:
    """Return the settings that decide which texts are in the train split, from which samples are drawn."""
    names = (
        *("cleaning", "filters", "mask", "decontamination"),
        *("valid_fraction", "test_fraction", "unit_bytes"),
        *("damaged_files", "max_document_bytes", "max_expansion"),
    )
    prefixes = tuple(f"prepare.{name}" for name in names)
    return {k: v for k, v in _prepare_fields(config).items() if k.startswith(prefixes)}


def _prepare_fields(config: Config) -> dict[str, Any]:
    fields = result_fields(config.prepare, "prepare") | contents_of_prepare(config.prepare)
    return {k: v for k, v in fields.items() if k != "prepare.input" and k not in IGNORED}


def _mixture(config: Config) -> dict[str, Any]:
    """Return the settings that decide how much of each source is sampled, and the licences."""
    settings: dict[str, Any] = {"prepare.sampling_alpha": config.prepare.sampling_alpha}
    for number, source in enumerate(config.prepare.sources):
        for name in IGNORED_OF_SOURCES:
            settings[f"prepare.input.{number}.{name}"] = getattr(source, name)
    return settings


def _kept(config: Config) -> dict[str, bool]:
    names = ("keep_dropped", "keep_keys")
    return {f"prepare.{name}": getattr(config.prepare, name) for name in names}


def _sampling(config: Config) -> dict[str, Any]:
    """Return the settings that decide a tokenizer's sample. If they change, it is not trained again."""
    if isinstance(config.tokenizer, WordConfig) or given_tokenizer(config):
        return {}
    return {key: value for key, value in _mixture(config).items() if not key.endswith(".license")}


def _prepare_request(config: Config) -> dict[str, Any]:
    folder = stage_folder(config, "tokenizer", config.prepare.tokenizer)
    request = {
        **_prepare_fields(config),
        **_raw(config.prepare.sources, "prepare.input"),
        "tokenizer.content": content_of(folder, "tokenizer"),
    }
    # Absent without known corpora, as in the results of former versions.
    if folders := known_folders(config):
        request[KNOWN] = [content_of(one, "prepare") for one in folders]
    return request


KNOWN = "known.content"
"""Key of the contents of the corpora in ``prepare.known``."""


def _train_request(config: Config) -> dict[str, Any]:
    train = config.train
    request = {
        **result_fields(config.model, "model"),
        **result_fields(train, "train"),
        **teacher_request(train.teacher),
        "corpus.content": content_of(stage_folder(config, "prepare", train.corpus), "prepare"),
    }
    if train.depends_on_held_out_loss:
        for name in ("evaluate_steps", "evaluate_share", "evaluate_rows"):
            value, default = getattr(train, name), TrainConfig.model_fields[name].default
            # Only the steps were part of the request in former versions.
            if name == "evaluate_steps" or value != default:
                request[f"train.{name}"] = value
    if train.init_from:
        request["train.init_from"] = initial_source(train.init_from).content
    return request


STEPS, PATIENCE, EVALUATE_STEPS = "train.steps", "train.patience", "train.evaluate_steps"
HELD_OUT = (EVALUATE_STEPS, "train.evaluate_share", "train.evaluate_rows")
"""Keys that are part of the request if the training depends on held-out losses; the first one always is."""


def _trains_further(old: Request, new: Request) -> bool:
    """Return True if the new request differs at most by more steps and more patience."""
    # Without patience, a training may no longer depend on held-out losses.
    former = {k: v for k, v in old.items() if EVALUATE_STEPS in new or k not in HELD_OUT}
    return (
        {**former, STEPS: None, PATIENCE: None} == {**new, STEPS: None, PATIENCE: None}
        and old[STEPS] <= new[STEPS]
        and (old[PATIENCE] or math.inf) <= (new[PATIENCE] or math.inf)
    )


def _longer_training(_: Config, old: Request, new: Request, details: Request) -> bool:
    return _trains_further(old, new)


def _new_training(config: Config, differing: list[str]) -> list[str]:
    """Return how to continue from trained weights, if the corpus is another one."""
    if not any(line.startswith("corpus.content:") for line in differing):
        return []
    return [
        "to continue from these weights and the state of the optimiser on the other corpus: set "
        f"train.init_from to {stage_folder(config, 'train')} and another run.output (the tokenizer must "
        "be the same)"
    ]


def _evaluate_request(config: Config) -> dict[str, Any]:
    return {
        **result_fields(config.evaluate, "evaluate"),
        "corpus.content": content_of(evaluation_corpus(config), "prepare"),
        **_checkpoint(config, "evaluate"),
    }


def _export_request(config: Config) -> dict[str, Any]:
    return {**result_fields(config.export, "export"), **_checkpoint(config, "export")}


def _checkpoint(config: Config, stage: str) -> dict[str, Any]:
    """Return the training that evaluate or export reads, and which of its checkpoints, "best" or "last"."""
    checkpoint = trained_checkpoint(config, stage)
    return {CHECKPOINT: checkpoint.manifest.content, f"{stage}.checkpoint": checkpoint.kind}


def _follows(key: str, folder: str, stage: str, old: Request, new: Request) -> bool:
    """Return True if the input named ``key`` differs and continues the one in the old request.

    For example, the checkpoint of a training whose steps were raised continues the earlier one.
    """
    if old[key] == new[key]:
        return False
    manifest = read_manifest(folder, stage)
    continued = manifest.details.get(REPLACES, ())
    return (
        old[key] in (*continued, manifest.content)
        if new[key] == TO_BE_CONTINUED
        else (old[key] in continued)
    )


def _same_but(old: Request, new: Request, *keys: str) -> bool:
    """Return True if two requests differ in nothing but keys with one of these prefixes."""
    return {k: v for k, v in old.items() if not k.startswith(keys)} == {
        k: v for k, v in new.items() if not k.startswith(keys)
    }


CHECKPOINT, MODEL, SPLIT = "checkpoint.content", "model.content", "evaluate.split"


def _later_checkpoint(config: Config, old: Request, new: Request, details: Request) -> bool:
    """Return True if an evaluation or export differs only in a checkpoint that was trained further.

    The best checkpoint of the longer training may be its last one, and the reverse.
    """
    stage = new["stage"]
    folder = trained_checkpoint(config, stage).folder
    return _same_but(old, new, CHECKPOINT, f"{stage}.checkpoint") and _follows(
        CHECKPOINT, folder, "train", old, new
    )


def _other_split(config: Config, old: Request, new: Request, details: Request) -> bool:
    """Return True if only the split differs, whose result is then added, or the checkpoint is a later one."""
    return _same_but(old, new, SPLIT) or _later_checkpoint(
        config, {**old, SPLIT: new[SPLIT]}, new, details
    )


def _embed_request(config: Config) -> dict[str, Any]:
    fields = result_fields(config.embed, "embed")
    del fields["embed.input"]
    if config.embed.layers != "mix":
        fields = {k: v for k, v in fields.items() if not k.startswith("embed.mix")}
    fields["embed.pooling"] = config.embed.chosen_pooling
    if config.embed.unit == "token":
        del fields["embed.pooling"]
    # Absent without a segmenter, as in the results of former versions.
    if segmenter := fields.pop("embed.segmenter"):
        fields["embed.segmenter"] = segmenter_version(segmenter)
    sources = config.embed.sources
    if sources is None:
        raw = _raw(config.prepare.sources, "embed.sample_of") | _train_split_fields(config)
    else:
        raw = _raw(sources, "embed.input") | _limits(config)
        fields = {k: v for k, v in fields.items() if k not in ("embed.sample", "embed.seed")}
    model = stage_folder(config, "export", config.embed.model)
    return {**fields, **raw, "model.content": content_of(model, "export")}


def _limits(config: Config) -> dict[str, Any]:
    """Return the settings of prepare that also hold when texts are read to be embedded."""
    return {f"embed.{name}": getattr(config.prepare, name) for name in LIMITS}


TEXTS = ("embed.input", "embed.sample", "embed.seed", "prepare.", *(f"embed.{n}" for n in LIMITS))
"""Prefixes of the keys that decide which texts are embedded, not what their vectors are."""


def _other_texts(config: Config) -> tuple[str, ...]:
    """Return the prefixes of keys that may differ if texts are to be appended."""
    return TEXTS if config.embed.append else ()


def _grown_cache(config: Config, old: Request, new: Request, details: Request) -> bool:
    """Return True if texts are to be appended, or the model was trained further, and no more differs."""
    model = stage_folder(config, "export", config.embed.model)
    follows = _follows(MODEL, model, "export", old, new)
    if not follows and old[MODEL] != new[MODEL]:
        return False
    if _same_but(old, new, MODEL) and not (follows and details.get("held")):
        return follows
    # Texts of earlier commands are read from the cache, because only the latest input is at hand.
    if follows and not details.get("texts_kept"):
        return False
    earlier = details.get("held", ())
    requests = [in_present_terms(e, new) for e in (*earlier, old) if isinstance(e, dict)]
    held = any(_same_but(request, new, MODEL) for request in requests)
    return (held and follows) or (config.embed.append and _same_but(old, new, MODEL, *TEXTS))


def _lost_texts(config: Config, differing: list[str]) -> list[str]:
    """Return what to do if a cache cannot follow its model."""
    if not any(line.startswith(f"{MODEL}:") for line in differing):
        return []
    return [
        "a cache follows a model that was trained further only if its texts are at hand: if texts "
        "were appended to a cache that does not keep them (embed.texts=false), name all of them in "
        "embed.input"
    ]


def _corpus_sources(config: Config) -> tuple[Source, ...]:
    return config.prepare.sources


def _embedded_sources(config: Config) -> tuple[Source, ...]:
    return config.embed.sources or config.prepare.sources


BEAM = {"apache_beam": "beam"}
TRAIN = {"pytorch_lightning": "train"}
"""Modules that stages import, each with the pip extra that installs it."""

_ALL = (
    Stage(
        "tokenizer",
        2,
        _tokenizer_request,
        text_sources=_corpus_sources,
        settings=_sampling,
    ),
    Stage(
        "prepare",
        2,
        _prepare_request,
        BEAM,
        text_sources=_corpus_sources,
        settings=lambda config: {**_mixture(config), **_kept(config)},
        switches=_kept,
        restated=("prepare.sampling_alpha", "prepare.input."),
        descriptive=("corpus.html", "dropped-", "inputs.jsonl"),
    ),
    Stage(
        "train",
        2,
        _train_request,
        TRAIN,
        grows=_longer_training,
        may_rise=(STEPS, PATIENCE, *HELD_OUT),
        rises=_trains_further,
        beside=("wandb.json",),
        advice=_new_training,
        settled=trained_config,
    ),
    Stage("evaluate", 2, _evaluate_request, grows=_other_split),
    Stage("export", 1, _export_request, grows=_later_checkpoint, descriptive=("README.md",)),
    Stage(
        "embed",
        2,
        _embed_request,
        BEAM,
        grows=_grown_cache,
        may_differ=_other_texts,
        sweep=("entries-", "index-", "texts-", "vectors-"),
        text_sources=_embedded_sources,
        descriptive=("dropped-", "inputs.jsonl"),
        advice=_lost_texts,
    ),
)
STAGES = {stage.name: stage for stage in sorted(_ALL, key=lambda s: STAGE_ORDER.index(s.name))}
