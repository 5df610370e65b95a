"""Read and write options.json, which describes the network of an ELMo archive.

Every key is read, known to have no effect on the network, or refused, because an ignored option could
describe another network than the one that is built.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from lightning_modules.config import ModelConfig
from lightning_modules.models.elmo_errors import ElmoError
from lightning_modules.models.elmo_layout import archived_parts
from lightning_modules.models.json_options import check_keys, load_json, section_of
from preprocess.tokenizers.spellings import CHARACTERS

WITH_MASK = CHARACTERS + 1
"""`n_characters` in an options.json for inference, where id 0 is padding; one less in training."""

MOST_FILTERS = 1000
"""Largest number of convolutions."""


READ: Mapping[str, frozenset[str]] = {
    "": frozenset({"lstm", "char_cnn"}),
    "lstm": frozenset(
        {
            *("dim", "projection_dim", "n_layers"),
            *("cell_clip", "proj_clip", "use_skip_connections"),
        }
    ),
    "char_cnn": frozenset(
        {
            *("activation", "embedding", "filters"),
            *("max_characters_per_token", "n_characters", "n_highway"),
        }
    ),
    "char_cnn.embedding": frozenset({"dim"}),
}
"""The options that are read, by section; "" is the top level."""

HARMLESS = frozenset(
    {
        *("all_clip_norm_val", "batch_size", "dropout", "learning_rate", "n_epochs", "n_gpus"),
        *("n_negative_samples_batch", "n_tokens_vocab", "n_train_tokens", "sample_softmax"),
        *("save_summary_every", "unroll_steps"),
        # What people write about a model.
        *("_comment", "comment", "description", "license", "name", "version"),
    }
)
"""Options of training (bilm-tf, `train_elmo.py`) and remarks, which do not change the network."""

NEUTRAL: Mapping[str, tuple[str, ...]] = {
    "bidirectional": ("true",),
    "dilation": ("1", "null"),
    "forget_bias": ("1", "1.0"),
    "layer_norm": ("false", "null"),
    "share_embedding_softmax": ("false", "null"),
    "use_layer_norm": ("false", "null"),
}
"""Values, in JSON, with which an option that is not supported has no effect."""


def read_options(path: str) -> ModelConfig:
    """Return the network that an options.json describes.

    Raises:
        ElmoError: the file is missing, is not JSON, or does not describe an ELMo with a character CNN.
    """
    try:
        options = load_json(path, "give the path of an archive's options.json")
        if "lstm" in options and options.get("char_cnn") is None:
            raise ElmoError(
                f"{path}: 'char_cnn' is missing; only models with a character CNN can be imported"
            )
        for name, read in READ.items():
            check_keys(path, name, section_of(options, name), read | HARMLESS, NEUTRAL)
        return _config(path, options)
    except ElmoError:
        raise
    except KeyError as error:
        raise ElmoError(
            f"{path}: {error} is missing; give the options.json of an ELMo archive"
        ) from error
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ElmoError(f"{path}: {reasons}") from error
    # json raises RecursionError for deeply nested brackets.
    except (ValueError, TypeError, RecursionError) as error:
        raise ElmoError(
            f"{path} is not the options.json of an ELMo archive ({error}); name another file"
        ) from error


def _config(path: str, options: dict[str, Any]) -> ModelConfig:
    lstm, cnn = options["lstm"], options["char_cnn"]
    characters = cnn.get("n_characters", WITH_MASK)
    if characters not in (CHARACTERS, WITH_MASK):
        raise ElmoError(
            f"{path}: char_cnn.n_characters is {json.dumps(characters)[:40]}, but must be {WITH_MASK} (or "
            f"{CHARACTERS}, as in training), because characters must be UTF-8 bytes"
        )
    highway, skip = cnn.get("n_highway"), lstm.get("use_skip_connections")
    projected = lstm["projection_dim"] != lstm["dim"]
    ours = {
        "input": {
            "kind": "char_cnn",
            "dim": cnn["embedding"]["dim"],
            "max_characters": cnn["max_characters_per_token"],
            "filters": cnn["filters"],
            "activation": cnn["activation"],
            "highway": 0 if highway is None else highway,
        },
        "recurrent": {
            "kind": "lstm",
            "layers": lstm.get("n_layers", 1),
            "hidden": lstm["dim"],
            "projection": lstm["projection_dim"] if projected else None,
            "residual": False if skip is None else skip,
            "cell_clip": lstm.get("cell_clip"),
            # TensorFlow's cell clips only a projected output.
            "projection_clip": lstm.get("proj_clip") if projected else None,
            "forget_bias": 1.0,
        },
        "head": {"kind": "softmax"},
    }
    # Strict, so that the text "false" does not count as true, nor 2.0 as an integer.
    config = ModelConfig.model_validate_json(json.dumps(ours), strict=True)
    number = len(archived_parts(config)[0].filters)
    if number > MOST_FILTERS:
        raise ElmoError(
            f"{path}: the number of char_cnn.filters is {number:,}, but may be {MOST_FILTERS:,} at most"
        )
    return config


def write_options(config: ModelConfig) -> bytes:
    """Return the bytes of an options.json for a network, in the form for inference.

    Raises:
        ElmoError: an ELMo archive cannot represent the network.
    """
    cnn, lstm = archived_parts(config)
    return json.dumps(
        {
            "lstm": {
                "dim": lstm.hidden,
                "projection_dim": lstm.direction_width,
                "n_layers": lstm.layers,
                "cell_clip": lstm.cell_clip,
                "proj_clip": lstm.projection_clip,
                "use_skip_connections": lstm.residual,
            },
            "char_cnn": {
                "activation": cnn.activation,
                "embedding": {"dim": cnn.dim},
                "filters": [list(pair) for pair in cnn.filters],
                "max_characters_per_token": cnn.max_characters,
                "n_characters": WITH_MASK,
                "n_highway": cnn.highway,
            },
        },
        indent=2,
    ).encode()
