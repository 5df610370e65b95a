"""The configs of ELMoForManyLangs: each is read exactly, or refused with a message."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lightning_modules.config import ModelConfig, TrainableModelConfig, WordCharCNNInputConfig
from lightning_modules.models.elmo_errors import ElmoError
from lightning_modules.models.manylangs.options import PUBLISHED, PUBLISHED_NAME, read_options
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.sizes import parameter_count
from preprocess.errors import UserError


def written(folder: Path, network: Any, name: str = "small.json", text: str | None = None) -> str:
    (folder / "config.json").write_text(json.dumps({"config_path": f"C:\\models\\{name}"}))
    (folder / name).write_text(json.dumps(network) if text is None else text)
    return str(folder)


def changed(section: str, **options: Any) -> dict[str, Any]:
    network: dict[str, Any] = json.loads(json.dumps(PUBLISHED))
    network[section].update(options)
    return network


def test_the_published_network_is_known_without_its_file(tmp_path: Path) -> None:
    folder = written(tmp_path, PUBLISHED, PUBLISHED_NAME)
    given = read_options(folder)
    (tmp_path / PUBLISHED_NAME).unlink()
    taken = read_options(folder)

    assert (given.is_published, taken.is_published) == (False, True)
    assert given.config(6000) == taken.config(6000)
    assert isinstance(taken.config(6000).input, WordCharCNNInputConfig)
    # The encoder.pkl of a published model has 302,255,470 bytes; some of them are no weights.
    recurrent = parameter_count(taken.config(7), 3, head=False) - _input_parameters()
    assert 0 < 302_255_470 - 4 * recurrent < 20_000


def _input_parameters() -> int:
    filters, dim = PUBLISHED["token_embedder"]["filters"], 50
    convolutions = sum(number * (1 + size * dim) for size, number in filters)
    return 7 * dim + 3 * 100 + convolutions + 2 * 4096 * 2049 + 512 * 2149


WRONG: list[tuple[dict[str, Any] | list[int], str]] = [
    ([], r"small\.json is not a config of ELMoForManyLangs \(it is not a JSON object\); copy"),
    ({}, r"small\.json: 'token_embedder' is missing; give the config with which the model was"),
    (changed("token_embedder", name="lstm"), r'token_embedder\.name is "lstm", which is not supp'),
    (changed("encoder", name="LSTM"), r'encoder\.name is "LSTM", .* only models with elmo can be'),
    (changed("encoder", name=None), r"encoder\.name is null, which is not supported"),
    (changed("token_embedder", char_dim=0), r"char_dim is 0, but must be at least 1; only models"),
    (changed("token_embedder", word_dim=True), r"word_dim is true, but must be at least 0"),
    (changed("token_embedder", filters=[[99, 3]]), r"must have a width of 1 to max_characters"),
    (changed("token_embedder", filters=[[1, 1]] * 1001), r"filters is 1,001, but may be 1,000"),
    (changed("token_embedder", activation="gelu"), r"activation: Input should be 'relu' or 'tanh'"),
    (changed("token_embedder", wordpiece=True), r"'token_embedder\.wordpiece' is not known"),
    (changed("encoder", cell_clip=-3), r"cell_clip: Input should be greater than 0"),
    (changed("encoder", proj_clip=[]), r"projection_clip: Input should be a valid number"),
    (changed("encoder", n_layers=2.5), r"layers: Input should be a valid integer"),
    (changed("encoder", dim=1 << 40), r"encoder\.dim is too large|must be a number below 2\^31"),
    ({**PUBLISHED, "encoder": 3}, r"\('encoder' is not an object\); copy the model again"),
]


@pytest.mark.parametrize(("network", "told"), WRONG)
def test_another_network_is_refused(tmp_path: Path, network: Any, told: str) -> None:
    folder = written(tmp_path, network)
    with pytest.raises(ElmoError, match=told):
        read_options(folder).config(6000)


def test_options_that_are_missing_or_damaged_are_reported(tmp_path: Path) -> None:
    for name in PUBLISHED["encoder"]:
        network = changed("encoder")
        del network["encoder"][name]
        folder = written(tmp_path, network)
        with pytest.raises(ElmoError, match=f"small.json: '{name}' is missing"):
            read_options(folder).config(6000)
    (tmp_path / "small.json").write_text("{")
    with pytest.raises(ElmoError, match=r"small\.json is not a config of ELMoForManyLangs \("):
        read_options(folder)
    (tmp_path / "small.json").unlink()
    with pytest.raises(ElmoError, match=r"small\.json is missing, which config\.json names as"):
        read_options(folder)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ElmoError, match="'config_path' is missing; give the folder of an ELMoFor"):
        read_options(folder)


def test_such_a_network_is_not_trained(tmp_path: Path) -> None:
    config = read_options(written(tmp_path, PUBLISHED)).config(6000)
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ValidationError, match="does not match any of the expected tags"):
        TrainableModelConfig.model_validate_json(config.model_dump_json())
    with pytest.raises(UserError, match="word_char_cnn is the input of imported ELMoForManyLangs"):
        BiLMNetwork(config, 10)
