"""Types of the details in manifests that the reports show.

A manifest from an untrusted source may have any value in place of a number. So the reports check what they
show, and end with a message.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from lightning_modules.config import ModelConfig
from lightning_modules.evaluation.held_out import WAYS
from preprocess.errors import one_line
from preprocess.files.manifest import ManifestError


class _Details(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Band(_Details):
    first_rank: int
    last_rank: int
    forward_tokens: int
    forward_perplexity: float | None
    backward_perplexity: float | None
    average_perplexity: float | None


_PERPLEXITIES: Any = {
    f"{way}_{unit}perplexity": (float | None, None)
    for way in WAYS
    for unit in ("", "word_", "character_")
}
_Perplexities: type[BaseModel] = create_model("_Perplexities", __base__=_Details, **_PERPLEXITIES)


class _Evaluation(_Perplexities):
    split: str
    tokens: int = Field(ge=0)
    bits_per_byte: float | None = None
    bands: list[_Band] = Field(default_factory=list)
    not_defined: dict[str, str] = Field(default_factory=dict)
    others: list["_Evaluation"] = Field(default_factory=list)


class _Training(_Details):
    steps: int = Field(ge=0)
    tokens: int
    passes: float
    parameters: int
    vocabulary: int
    skipped_steps: int | None = None
    model: dict[str, Any]


class _Checkpoint(_Training):
    cutoffs: list[int]
    boundary: str
    cleaning: dict[str, Any]
    tokenizer: str
    corpus: str


_TYPES: Mapping[str, type[BaseModel]] = {"evaluate": _Evaluation, "train": _Training}


def check_details(stage: str, details: Mapping[str, Any], where: str = "") -> None:
    """Check the types of the details of a stage that the reports use.

    Args:
        stage: name of the stage; others than evaluate and train are not checked.
        details: details of its manifest.
        where: folder of the stage, for the message.

    Raises:
        ManifestError: a detail is missing or has another type.
    """
    if stage in _TYPES:
        _check(_TYPES[stage], stage, details, where)


def check_checkpoint(details: Mapping[str, Any], where: str) -> None:
    """Check the types of the details of a train stage that its checkpoint is used with.

    Args:
        details: details of its manifest.
        where: folder of the stage, for the message.

    Raises:
        ManifestError: a detail is missing or has another type.
    """
    _check(_Checkpoint, "train", details, where)


def _check(types: type[BaseModel], stage: str, details: Mapping[str, Any], where: str) -> None:
    try:
        types.model_validate(details)
        if stage == "train":
            ModelConfig.model_validate(details["model"])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ManifestError(
            f"{one_line(where or stage)}: the details of its manifest are damaged ({one_line(place)}: {first['msg']}); copy "
            f"the folder again, or make it again with `biloom {stage} --overwrite`"
        ) from error
