"""The network of an ELMoForManyLangs model.

A model folder has config.json, the arguments of its training. Its ``config_path`` names another JSON
file, which describes the network. The published archives lack that file, and name a place on the
machine of the training; it comes with the program.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from lightning_modules.config import ModelConfig
from lightning_modules.models.elmo_errors import ElmoError
from lightning_modules.models.json_options import check_keys, load_json, section_of
from preprocess.errors import one_line
from preprocess.files import storage

CONFIG = "config.json"

PUBLISHED_NAME = "cnn_50_100_512_4096_sample.json"
PUBLISHED: Mapping[str, Any] = {
    "encoder": {
        "name": "elmo",
        "projection_dim": 512,
        "cell_clip": 3,
        "proj_clip": 3,
        "dim": 4096,
        "n_layers": 2,
    },
    "token_embedder": {
        "name": "cnn",
        "activation": "relu",
        "filters": [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]],
        "n_highway": 2,
        "word_dim": 100,
        "char_dim": 50,
        "max_characters_per_token": 50,
    },
}
"""The network of the published models, in the file `PUBLISHED_NAME` of the program."""

READ: Mapping[str, frozenset[str]] = {
    "": frozenset({"encoder", "token_embedder", "classifier", "dropout"}),
    "encoder": frozenset({"name", "projection_dim", "cell_clip", "proj_clip", "dim", "n_layers"}),
    "token_embedder": frozenset(
        {
            *("name", "activation", "filters", "n_highway"),
            *("word_dim", "char_dim", "max_characters_per_token"),
        }
    ),
}
"""The options that are read, or have no effect on the vectors, by section; "" is the top level."""

KINDS = {"token_embedder": "cnn", "encoder": "elmo"}
"""The kinds of the two parts that are read. The program also has LSTMs for both."""

MOST_FILTERS = 1000
"""Largest number of convolutions."""


class Options(NamedTuple):
    """The description of a network.

    Attributes:
        path: the file, for messages.
        network: its contents.
        is_published: whether the file is missing, and `PUBLISHED` is taken for it.
    """

    path: str
    network: Mapping[str, Any]
    is_published: bool

    @property
    def has_words(self) -> bool:
        """Whether the network has a vector for each word of a vocabulary."""
        return bool(self.network["token_embedder"]["word_dim"])

    def config(self, characters: int) -> ModelConfig:
        """Return the network for a dictionary of ``characters`` entries.

        Raises:
            ElmoError: the options do not describe a network that biloom has.
        """
        encoder, embedder = self.network["encoder"], self.network["token_embedder"]
        try:
            ours = {
                "input": {
                    "kind": "word_char_cnn",
                    "dim": embedder["char_dim"],
                    "max_characters": embedder["max_characters_per_token"],
                    "filters": embedder["filters"],
                    "activation": embedder["activation"],
                    "highway": embedder["n_highway"],
                    "characters": characters,
                    "word_dim": embedder["word_dim"],
                },
                "recurrent": {
                    "kind": "lstm",
                    "layers": encoder["n_layers"],
                    "hidden": encoder["dim"],
                    "projection": encoder["projection_dim"],
                    "residual": True,
                    "cell_clip": _clip(encoder["cell_clip"]),
                    "projection_clip": _clip(encoder["proj_clip"]),
                    "forget_bias": 0.0,
                },
                "head": {"kind": "softmax"},
            }
            # Strict, so that the text "false" does not count as true, nor 2.0 as an integer.
            config = ModelConfig.model_validate_json(json.dumps(ours), strict=True)
        except KeyError as error:
            raise _not_complete(self.path, error) from error
        except ValidationError as error:
            reasons = "; ".join(
                f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()
            )
            raise ElmoError(f"{self.path}: {reasons}") from error
        if len(embedder["filters"]) > MOST_FILTERS:
            raise ElmoError(
                f"{self.path}: the number of token_embedder.filters is {len(embedder['filters']):,}, but "
                f"may be {MOST_FILTERS:,} at most"
            )
        return config


def read_options(folder: str) -> Options:
    """Read the description of the network of a model folder.

    Raises:
        ElmoError: a file is missing or is not JSON, or the network is of a kind that is not supported.
    """
    path = storage.join(folder, CONFIG)
    named = _json(path, "give the folder of an ELMoForManyLangs model").get("config_path")
    if not isinstance(named, str) or not (name := re.split(r"[/\\]", named)[-1]):
        raise ElmoError(
            f"{path}: 'config_path' is missing; give the folder of an ELMoForManyLangs model"
        )
    path = storage.join(folder, name)
    if storage.exists(path):
        options = _json(path, "")
    elif name == PUBLISHED_NAME:
        return Options(path, PUBLISHED, True)
    else:
        raise ElmoError(
            f"{one_line(path)} is missing, which {CONFIG} names as config_path; copy it from the configs of "
            "ELMoForManyLangs into the folder"
        )
    try:
        for part, kind in KINDS.items():
            _check_kind(path, part, section_of(options, part)["name"], kind)
        _check_dims(path, options["token_embedder"])
        for section, read in READ.items():
            check_keys(path, section, section_of(options, section), read, {})
    except KeyError as error:
        raise _not_complete(path, error) from error
    except TypeError as error:
        raise _not_one(path, error) from error
    return Options(path, options, False)


def _clip(bound: Any) -> Any:
    """Return a bound of clipping; to the program, 0 means that nothing is clipped."""
    return None if bound in (0, None) else bound


def _json(path: str, hint: str) -> dict[str, Any]:
    try:
        return load_json(path, hint)
    # json raises RecursionError for deeply nested brackets.
    except (ValueError, TypeError, RecursionError) as error:
        if isinstance(error, ElmoError):
            raise
        raise _not_one(path, error) from error


def _not_one(path: str, error: Exception) -> ElmoError:
    return ElmoError(
        f"{one_line(path)} is not a config of ELMoForManyLangs ({error}); copy the model again"
    )


def _not_complete(path: str, error: KeyError) -> ElmoError:
    return ElmoError(
        f"{path}: {error} is missing; give the config with which the model was trained"
    )


def _check_kind(path: str, part: str, kind: Any, needed: str) -> None:
    if not isinstance(kind, str) or kind.lower() != needed:
        raise ElmoError(
            f"{path}: {part}.name is {json.dumps(kind)[:40]}, which is not supported; only models with "
            f"{needed} can be imported"
        )


def _check_dims(path: str, embedder: Mapping[str, Any]) -> None:
    for name, least in (("char_dim", 1), ("word_dim", 0)):
        value = embedder[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ElmoError(
                f"{path}: token_embedder.{name} is {json.dumps(value)[:40]}, but must be at least {least}; "
                "only models with a character CNN can be imported"
            )
