"""options.json of an ELMo archive: what is read, what is refused."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.config import ModelConfig
from lightning_modules.models.elmo_errors import ElmoError
from lightning_modules.models.elmo_options import read_options, write_options
from lightning_modules.models.json_options import MOST_BYTES

LSTM = {
    "dim": 8,
    "projection_dim": 6,
    "n_layers": 2,
    "cell_clip": 3,
    "proj_clip": 3,
    "use_skip_connections": True,
}
CNN = {
    "activation": "relu",
    "embedding": {"dim": 4},
    "filters": [[1, 3], [3, 5]],
    "max_characters_per_token": 20,
    "n_characters": 262,
    "n_highway": 1,
}


def read(tmp_path: Path, text: str) -> ModelConfig:
    (tmp_path / "options.json").write_text(text)
    return read_options(f"{tmp_path}/options.json")


def options(**sections: dict[str, Any]) -> str:
    """Return the options as JSON, with changes by section; "top" is the top level."""
    lstm, cnn = {**LSTM, **sections.get("lstm", {})}, {**CNN, **sections.get("char_cnn", {})}
    return json.dumps({"lstm": lstm, "char_cnn": cnn, **sections.get("top", {})})


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"top": {"bidirectional": False}}, "'bidirectional' is false, which is not supported"),
        ({"top": {"bidirectional": 1}}, "'bidirectional' is 1, which is not supported"),
        ({"lstm": {"layer_norm": True}}, r"'lstm\.layer_norm' is true, .* only models with false"),
        ({"lstm": {"use_layer_norm": True}}, r"'lstm\.use_layer_norm' is true"),
        ({"lstm": {"forget_bias": 0.5}}, r"'lstm\.forget_bias' is 0\.5, .* only models with 1"),
        ({"lstm": {"dilation": 2}}, r"'lstm\.dilation' is 2"),
        ({"char_cnn": {"dilation": [1, 2]}}, r"'char_cnn\.dilation' is \[1, 2\]"),
        ({"top": {"share_embedding_softmax": True}}, "'share_embedding_softmax' is true"),
        ({"lstm": {"cell": "gru"}}, r"the option 'lstm\.cell' is not known"),
        ({"char_cnn": {"embedding": {"dim": 4, "norm": 1}}}, r"option 'char_cnn\.embedding\.norm'"),
        ({"top": {"ro\nws\x1b": 1}}, r"the option 'ro\\nws\\x1b' is not known"),
        ({"char_cnn": {"activation": "gelu"}}, "activation: Input should be 'relu' or 'tanh'"),
        ({"lstm": {"use_skip_connections": "false"}}, "residual: Input should be a valid boolean"),
        ({"lstm": {"dim": 8.0}}, "hidden: Input should be a valid integer"),
        (
            {"lstm": {"dim": True, "projection_dim": True}},
            "hidden: Input should be a valid integer",
        ),
        ({"lstm": {"dim": "8"}}, "hidden: Input should be a valid integer"),
        ({"lstm": {"n_layers": 0}}, "layers: Input should be greater than or equal to 1"),
        ({"lstm": {"n_layers": 1001}}, "layers: Input should be less than or equal to 256"),
        ({"char_cnn": {"n_highway": 10**6}}, "highway: Input should be less than or equal to 256"),
        ({"char_cnn": {"filters": [[1, 1]] * 1001}}, r"the number of char_cnn\.filters is 1,001"),
        (
            {"char_cnn": {"max_characters_per_token": 10**8}},
            "max_characters: Input should be less than or equal to 10000",
        ),
        ({"lstm": {"dim": 10**400}}, r"lstm\.dim is too large; it must be a number below 2\^31"),
        ({"lstm": {"cell_clip": 0}}, r"cell_clip: Input should be greater than 0"),
        ({"lstm": {"cell_clip": -3}}, r"cell_clip: Input should be greater than 0"),
        ({"lstm": {"cell_clip": float("inf")}}, r"lstm\.cell_clip is inf; it must be a number"),
        ({"lstm": {"proj_clip": float("nan")}}, r"lstm\.proj_clip is nan"),
        ({"char_cnn": {"filters": 3}}, r"filters: Input should be a valid array"),
        ({"char_cnn": {"embedding": 3}}, r"'char_cnn\.embedding' is not an object"),
        ({"top": {"lstm": []}}, "'lstm' is not an object"),
    ],
)
def test_an_option_that_cannot_be_kept_is_refused(
    tmp_path: Path, sections: dict[str, Any], told: str
) -> None:
    with pytest.raises(ElmoError, match=told):
        read(tmp_path, options(**sections))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 100_000, r"is not the options\.json of an ELMo archive \("),
        ('{"a":' * 100_000, r"is not the options\.json of an ELMo archive \("),
        ("3", "it is not a JSON object"),
        ('{"lstm": {}, "lstm": {}}', "'lstm' is given twice"),
        (options().replace('"cell_clip": 3', '"cell_clip": 1e999'), r"lstm\.cell_clip is inf"),
        (" " * MOST_BYTES + "{}", "it is larger than 1,048,576 bytes"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ElmoError, match=told):
        read(tmp_path, text)


def test_options_of_training_do_not_change_the_network(tmp_path: Path) -> None:
    training = {
        "bidirectional": True,
        "dropout": 0.1,
        "all_clip_norm_val": 10.0,
        "n_epochs": 10,
        "n_train_tokens": 768648884,
        "batch_size": 128,
        "n_tokens_vocab": 793471,
        "unroll_steps": 20,
        "n_negative_samples_batch": 8192,
    }
    neutral = {"forget_bias": 1.0, "layer_norm": False, "dilation": 1}

    plain = read(tmp_path, options())
    assert read(tmp_path, options(top=training, lstm=neutral)) == plain
    assert read(tmp_path, write_options(plain).decode()) == plain


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
VALUES = st.recursive(
    LEAVES, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4), v, max_size=3)
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["top", "lstm", "char_cnn"]), st.data())
def test_any_value_of_any_option_gives_a_network_or_a_message(
    tmp_path_factory: pytest.TempPathFactory, section: str, data: st.DataObject
) -> None:
    names = {"top": ("lstm", "char_cnn"), "lstm": tuple(LSTM), "char_cnn": tuple(CNN)}[section]
    name = data.draw(st.sampled_from(names) | st.text(max_size=5))
    folder = tmp_path_factory.getbasetemp()
    with suppress(ElmoError):
        read(folder, options(**{section: {name: data.draw(VALUES)}}))


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=60) | st.text(alphabet='{}[]":,0123eE+-.\\u', max_size=60).map(str.encode)
)
def test_any_bytes_give_a_message(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.json"
    path.write_bytes(content)
    with pytest.raises(ElmoError):
        read_options(str(path))
