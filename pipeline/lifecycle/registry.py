"""The stages in order, and what decides the result of each: light, for "already done" in seconds."""

from typing import Any

import xxhash

from pipeline.config.schema import Config
from pipeline.lifecycle.order import STAGE_ORDER
from pipeline.lifecycle.stage import Stage, StageError
from preprocess.config import PrepareConfig, SentencePieceConfig, Source
from preprocess.files import storage
from preprocess.files.manifest import read_manifest
from preprocess.reading import changed_inputs as raw_inputs
from preprocess.reading.listing import list_source
from preprocess.section import result_fields
from preprocess.tokenizers.subwords import read_model


def stage_folder(config: Config, stage: str, other: str | None = None) -> str:
    """The folder of a stage: ``other`` where the config names one, else this run's own."""
    return storage.absolute(other) if other else STAGES[stage].folder(config)


def tokenizer_of(config: Config, content: str, whose: str) -> str:
    """The folder of the tokenizer that the config names, which must be the one of this content.

    Args:
        whose: what was made with it, and what it is needed for, as the message goes on.

    Raises:
        StageError: it is another one.
    """
    folder = stage_folder(config, "tokenizer", config.prepare.tokenizer)
    if _content(folder, "tokenizer") != content:
        raise StageError(
            f"{folder}: this is not the tokenizer that {whose}; name that one in prepare.tokenizer"
        )
    return folder


def evaluation_corpus(config: Config) -> str:
    """The corpus folder to evaluate on: by default the one that was trained on."""
    return stage_folder(config, "prepare", config.evaluate.corpus or config.train.corpus)


def input_sources(config: Config) -> tuple[tuple[Source, ...], list[list[storage.FileInfo]]]:
    """The sources of the corpus and the files of each."""
    sources = config.prepare.sources
    return sources, [list_source(source) for source in sources]


def embed_sources(config: Config) -> tuple[Source, ...] | None:
    """The sources to embed; none: a sample of the corpus."""
    if config.embed.input is None:
        return None
    return PrepareConfig(input=config.embed.input).sources


def _raw(sources: tuple[Source, ...], key: str) -> dict[str, Any]:
    """Raw input in a fingerprint: names and sizes, never paths."""
    asked: dict[str, Any] = {}
    for number, source in enumerate(sources):
        fields = source.model_dump(exclude={"path"})
        asked[f"{key}.{number}"] = {**fields, **raw_inputs.digest(list_source(source))}
    return asked


def _content(folder: str, stage: str) -> str:
    return read_manifest(folder, stage).content


def _asked_tokenizer(config: Config) -> dict[str, Any]:
    fields = result_fields(config.tokenizer, "tokenizer")
    if isinstance(config.tokenizer, SentencePieceConfig) and config.tokenizer.file:
        # Nothing is learnt: what decides is the model, wherever it lies.
        model = xxhash.xxh3_128_hexdigest(read_model(config.tokenizer.file))
        fields = {"tokenizer.kind": config.tokenizer.kind, "tokenizer.file": model}
    return {
        **fields,
        **_train_split_fields(config),
        "prepare.sampling_alpha": config.prepare.sampling_alpha,
        **_raw(config.prepare.sources, "prepare.input"),
    }


def _train_split_fields(config: Config) -> dict[str, Any]:
    """The settings that decide which texts a sample of the train split draws from."""
    drawn_by = (
        *("cleaning", "filters", "valid_fraction", "test_fraction", "unit_bytes"),
        *("damaged_files", "max_document_bytes", "max_expansion"),
    )
    prefixes = tuple(f"prepare.{name}" for name in drawn_by)
    return {k: v for k, v in _prepare_fields(config).items() if k.startswith(prefixes)}


def _prepare_fields(config: Config) -> dict[str, Any]:
    fields = result_fields(config.prepare, "prepare")
    del fields["prepare.input"]
    return fields


def _asked_prepare(config: Config) -> dict[str, Any]:
    folder = stage_folder(config, "tokenizer", config.prepare.tokenizer)
    return {
        **_prepare_fields(config),
        **_raw(config.prepare.sources, "prepare.input"),
        "tokenizer.content": _content(folder, "tokenizer"),
    }


def _asked_train(config: Config) -> dict[str, Any]:
    train = config.train
    asked = {
        **result_fields(config.model, "model"),
        **result_fields(train, "train"),
        "corpus.content": _content(stage_folder(config, "prepare", train.corpus), "prepare"),
    }
    if train.looks_decide:
        asked["train.evaluate_steps"] = train.evaluate_steps
    if train.init_from:
        asked["train.init_from"] = _content(storage.absolute(train.init_from), "export")
    return asked


def _more_steps(_: Config, old: dict[str, Any], asked: dict[str, Any]) -> bool:
    """Whether a training is asked to go on for more steps, and nothing else."""
    key = "train.steps"
    others = [{k: v for k, v in one.items() if k != key} for one in (old, asked)]
    return others[0] == others[1] and old[key] < asked[key]


def _asked_evaluate(config: Config) -> dict[str, Any]:
    corpus = evaluation_corpus(config)
    checkpoint = stage_folder(config, "train", config.evaluate.checkpoint)
    return {
        **result_fields(config.evaluate, "evaluate"),
        "corpus.content": _content(corpus, "prepare"),
        "checkpoint.content": _content(checkpoint, "train"),
    }


def _asked_export(config: Config) -> dict[str, Any]:
    checkpoint = stage_folder(config, "train", config.export.checkpoint)
    return {
        **result_fields(config.export, "export"),
        "checkpoint.content": _content(checkpoint, "train"),
    }


def _asked_embed(config: Config) -> dict[str, Any]:
    fields = result_fields(config.embed, "embed")
    del fields["embed.input"]
    if config.embed.layers != "mix":
        fields = {k: v for k, v in fields.items() if not k.startswith("embed.mix")}
    if config.embed.unit == "token":
        del fields["embed.pooling"]
    sources = embed_sources(config)
    if sources is None:
        raw = _raw(config.prepare.sources, "embed.sample_of") | _train_split_fields(config)
    else:
        raw = _raw(sources, "embed.input")
        fields = {k: v for k, v in fields.items() if k not in ("embed.sample", "embed.seed")}
    model = stage_folder(config, "export", config.embed.model)
    return {**fields, **raw, "model.content": _content(model, "export")}


TEXTS = ("embed.input", "embed.sample", "embed.seed", "prepare.")
"""What tells of the texts, not of the vectors."""


def _more_texts(config: Config, old: dict[str, Any], asked: dict[str, Any]) -> bool:
    """Whether texts are to be added to a cache of the same vectors."""
    kinds = [{k: v for k, v in one.items() if not k.startswith(TEXTS)} for one in (old, asked)]
    return config.embed.append and kinds[0] == kinds[1]


def _changed_inputs(config: Config, folder: str) -> list[str]:
    return _changed(config.prepare.sources, folder)


def _changed_texts(config: Config, folder: str) -> list[str]:
    return _changed(embed_sources(config) or (), folder)


def _changed(sources: tuple[Source, ...], folder: str) -> list[str]:
    return raw_inputs.changed(folder, [file for s in sources for file in list_source(s)])


BEAM = {"apache_beam": "beam"}
TRAIN = {"pytorch_lightning": "train"}

_ALL = (
    Stage("tokenizer", 2, _asked_tokenizer),
    Stage("prepare", 2, _asked_prepare, BEAM, _changed_inputs),
    Stage("train", 2, _asked_train, TRAIN, grows=_more_steps),
    Stage("evaluate", 2, _asked_evaluate),
    Stage("export", 1, _asked_export),
    Stage(
        "embed",
        2,
        _asked_embed,
        BEAM,
        _changed_texts,
        grows=_more_texts,
        adds=True,
        sweep=("entries-", "index-", "texts-", "vectors-"),
    ),
)
STAGES = {stage.name: stage for stage in sorted(_ALL, key=lambda one: STAGE_ORDER.index(one.name))}
