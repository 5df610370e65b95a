"""The details in manifests and the figures in ``stats.json``: their types, and what is missing.

A folder may come from somebody else, whose manifest can have anything in the place of a number. All that
biloom reads is checked here, so that its readers need no checks of types. A detail may be missing, as
in the manifests of former versions.
"""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from preprocess.errors import UserError, one_line


class ManifestError(UserError):
    """A folder that is not a readable finished stage."""


_Size = Annotated[int, Field(ge=0, lt=1 << 63)]
_Sizes = dict[str, _Size]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Details(BaseModel):
    # Deferred, because every process imports this module, and few check details of all stages.
    model_config = ConfigDict(extra="allow", strict=True, defer_build=True)

    seconds: _Positive = 0.0
    versions: dict[str, str] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    replaces: list[str] = Field(default_factory=list)
    held: list[str | dict[str, Any]] = Field(default_factory=list)


class _Text(_Details):
    documents: _Size = 0
    tokens: _Size = 0
    words: _Size = 0
    characters: _Size = 0
    text_bytes: _Size = 0


class _Filters(_Details):
    languages: list[str] | None = None


class _Source(_Text):
    name: str = ""
    license: str | None = None
    share: _Number = 0.0
    cleaning: dict[str, str] = Field(default_factory=dict)
    filters: _Filters = Field(default_factory=_Filters)


class _Documents(_Details):
    read: _Size = 0
    written: _Size = 0
    replaced: _Size = 0
    dropped: _Sizes = Field(default_factory=dict)
    changed: _Sizes = Field(default_factory=dict)


class _Histograms(_Details):
    tokens: dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], _Size] = Field(default_factory=dict)
    tokens_per_word: dict[Annotated[str, Field(pattern=r"^\d{1,9}(\.\d{1,9})?$")], _Size] = Field(
        default_factory=dict
    )


class _Benchmark(_Details):
    items: _Size = 0
    matched: _Size = 0
    short: _Size = 0
    without_text: _Size = 0


class _Screening(_Details):
    removed_lines: _Sizes = Field(default_factory=dict)
    removed_characters: _Sizes = Field(default_factory=dict)
    masked: _Sizes = Field(default_factory=dict)
    without_url: _Size = 0
    benchmarks: dict[str, _Benchmark] = Field(default_factory=dict)
    examples: dict[str, list[str]] = Field(default_factory=dict)


class _NearDuplicates(_Details):
    similarity: _Number = 0.0
    seed: int = 0
    version: _Size = 0


class _Keys(_Details):
    near_duplicates: _NearDuplicates | None = None


class _Known(_Details):
    content: str = ""
    units: _Size = 0
    dropped: _Sizes = Field(default_factory=dict)


class _Prepare(_Details):
    tokenizer: str = ""
    vocabulary: _Size = 0
    group_units: _Size = 0
    cleaning: dict[str, str] = Field(default_factory=dict)
    sources: list[_Source] = Field(default_factory=list)
    splits: dict[str, _Text] = Field(default_factory=dict)
    documents: _Documents = Field(default_factory=_Documents)
    screening: _Screening = Field(default_factory=_Screening)
    scripts: _Sizes = Field(default_factory=dict)
    histograms: _Histograms = Field(default_factory=_Histograms)
    known: list[_Known] = Field(default_factory=list)
    keys: _Keys = Field(default_factory=_Keys)
    copies: dict[Annotated[str, Field(pattern=r"^\d{1,18}$")], _Size] | None = None


class _Sample(_Details):
    documents: _Size = 0
    bytes: _Size = 0


class _Coverage(_Details):
    unknown: _Number = 0.0
    byte_tokens: _Number = 0.0
    bytes_per_token: _Number = 0.0
    tokens_per_character: _Number = 0.0
    tokens_per_word: _Number | None = None
    restored: _Number | None = None
    spaced: _Number | None = None
    used: _Size = 0
    once: _Size = 0
    vocabulary: _Size = 0
    longest: list[str] = Field(default_factory=list)


class _Tokenizer(_Details):
    kind: str = ""
    vocabulary: _Size = 0
    sample: _Sample = Field(default_factory=_Sample)
    coverage: _Coverage = Field(default_factory=_Coverage)


class _Model(_Details):
    model: dict[str, Any] = Field(default_factory=dict)
    vocabulary: _Size = 0
    cutoffs: list[_Size] = Field(default_factory=list)
    boundary: str = ""
    cleaning: dict[str, str] = Field(default_factory=dict)
    tokenizer: str = ""
    parameters: _Size = 0


class _HeldOut(_Details):
    loss: _Number = 0.0
    tokens: _Size = 0
    forward_perplexity: _Number | None = None
    backward_perplexity: _Number | None = None
    average_perplexity: _Number | None = None


class _Train(_Model):
    steps: _Size = 0
    planned_steps: _Size = 0
    stopped: str | None = None
    best_step: _Size | None = None
    best: _HeldOut | None = None
    last: _HeldOut | None = None
    tokens: _Size = 0
    passes: _Positive = 0.0
    skipped_steps: _Size | None = None
    corpus: str = ""


class _Export(_Model):
    weights: str = ""
    head: bool = True
    type_vectors: bool = False
    warm_up: str | None = None


class _Task(_Details):
    kind: str = ""
    labels: _Size = 0
    model: str = ""
    model_path: str = ""
    model_from_here: str = ""
    bundled: bool = False


class _Band(_Details):
    first_rank: _Size = 0
    last_rank: _Size = 0
    forward_tokens: _Size = 0
    forward_perplexity: _Number | None = None
    backward_perplexity: _Number | None = None
    average_perplexity: _Number | None = None


_PERPLEXITIES: Any = {
    f"{way}_{unit}perplexity": (_Number | None, None)
    for way in ("forward", "backward", "average")
    for unit in ("", "word_", "character_")
}
_Perplexities: type[BaseModel] = create_model("_Perplexities", __base__=_Details, **_PERPLEXITIES)


class _OfState(_Perplexities):
    bits_per_byte: _Number | None = None


class _Evaluate(_OfState):
    split: str = ""
    state: str = ""
    by_state: dict[str, _OfState] = Field(default_factory=dict)
    tokens: _Size = 0
    words: _Size = 0
    characters: _Size = 0
    text_bytes: _Size = 0
    bands: list[_Band] = Field(default_factory=list)
    not_defined: dict[str, str] = Field(default_factory=dict)
    others: list["_Evaluate"] = Field(default_factory=list)


class _Embed(_Details):
    vectors: dict[str, Any] = Field(default_factory=dict)


_TYPES: Mapping[str, type[BaseModel]] = {
    "tokenizer": _Tokenizer,
    "prepare": _Prepare,
    "train": _Train,
    "evaluate": _Evaluate,
    "export": _Export,
    "embed": _Embed,
    "classify train": _Task,
    "tag train": _Task,
}


def check_types(stage: str, details: Mapping[str, Any]) -> None:
    """Check the types of the details of a stage, or of the figures in its ``stats.json``.

    Args:
        stage: name of the stage.
        details: details of its manifest, or figures.

    Raises:
        ValueError: a value has another type; the message is one line.
    """
    if stage not in _TYPES:
        return
    try:
        _TYPES[stage].model_validate(details)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from error


def first_problem(error: ValidationError, *key: str) -> str:
    """Return the first problem in one line: the dotted name below ``key``, and what is wrong."""
    first = error.errors(include_url=False)[0]
    name = one_line(".".join(map(str, (*key, *first["loc"]))))
    message = first["msg"].splitlines()[0]
    if first["type"] == "missing":
        return f"no '{name}'"
    if first["type"] == "extra_forbidden":
        return f"unknown key '{name}'"
    return f"'{name}': {message}" if name else message


class MissingEntry(ManifestError, KeyError):  # noqa: N818
    """An entry that a manifest lacks, as only a manifest that biloom did not write.

    Its arguments are the message and the key.
    """

    def __str__(self) -> str:
        return str(self.args[0])


class Entries(dict[str, Any]):
    """Settings or details of a manifest, or figures; a missing entry is an error of their writer.

    Args:
        values: the entries; mappings among them become `Entries`, too.
        where: name of the file, for the message.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        super().__init__((key, _entries(value, where)) for key, value in values.items())
        self.where = where

    def __missing__(self, key: str) -> Any:
        message = f"{self.where} is damaged (no '{key}'); copy or make the folder again"
        raise MissingEntry(message, key)


Settings = TypeVar("Settings", bound=BaseModel)


def recorded(kind: type[Settings], details: Mapping[str, Any], key: str) -> Settings:
    """Return settings among the details of a manifest.

    Args:
        kind: their type.
        details: the details.
        key: their name.

    Raises:
        ManifestError: they are missing, or not of this type.
    """
    try:
        return kind.model_validate(details[key])
    except ValidationError as error:
        where = details.where if isinstance(details, Entries) else "the manifest"
        reason = one_line(first_problem(error, key))
        raise ManifestError(
            f"{where} is damaged ({reason}); copy or make the folder again"
        ) from error


def _entries(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        return Entries(value, where)
    return [_entries(item, where) for item in value] if isinstance(value, list) else value
