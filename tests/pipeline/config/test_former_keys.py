"""Older requests are restated with the settings of today."""

from typing import Any

import pytest

from pipeline.config import former_keys
from pipeline.config.former_keys import in_former_terms, in_present_terms
from pipeline.config.load import ConfigError, load_config


def test_a_setting_that_an_older_result_does_not_name_had_todays_default() -> None:
    request = {"train.rows": 4, "train.unroll": 20, "model.recurrent.kind": "gru"}
    assert in_present_terms({"train.rows": 4}, {**request, "train.unroll": 99}) == {
        "train.rows": 4,
        "train.unroll": load_config([], ["prepare.input=x"]).train.unroll,
        "model.recurrent.kind": "lstm",
    }


def test_a_missing_setting_has_the_default_of_the_kind_in_use() -> None:
    request: dict[str, Any] = {"tokenizer.kind": "char", "tokenizer.character_coverage": 0.5}
    old = in_present_terms({"tokenizer.kind": "char"}, request)
    assert old["tokenizer.character_coverage"] == 0.9999
    request["tokenizer.kind"] = "sentencepiece"
    assert in_present_terms({}, request)["tokenizer.character_coverage"] == 0.9995


def test_an_added_setting_has_the_value_that_older_versions_acted_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(former_keys.ADDED, "train.rows", 1)
    assert in_present_terms({}, {"train.rows": 4}) == {"train.rows": 1}


def test_a_missing_input_has_no_default() -> None:
    assert in_present_terms({}, {"corpus.content": "abc"}) == {}


def test_a_source_is_completed_with_the_defaults_of_its_settings() -> None:
    old = {"prepare.input.0": {"name": "text", "files": 1}}
    request = {"prepare.input.0": {"name": "text", "files": 1, "format": "text", "weight": 1.0}}
    assert in_present_terms(old, request) == {
        "prepare.input.0": {"name": "text", "files": 1, "format": "auto", "weight": 1.0}
    }


def test_settings_that_embedding_ignored_do_not_count() -> None:
    request = {"embed.input.0": {"name": "x", "weight": 1.0, "split": None}}
    for key, kept in {"embed.input.0": 1.0, "prepare.input.0": 2.0}.items():
        old = {key: {"name": "x", "weight": 2.0, "split": None}}
        present = in_present_terms(old, {key: request["embed.input.0"]})[key]
        assert present["weight"] == kept


def test_a_removed_setting_is_ignored_at_its_default_only() -> None:
    assert in_present_terms({"embed.int8": False}, {}) == {}
    assert in_present_terms({"embed.int8": True}, {}) == {"embed.int8": True}


def test_a_request_is_restated_as_an_older_version_wrote_it() -> None:
    request = {"stage": "embed", "embed.unit": "token"}
    assert in_former_terms(request) == {**request, "embed.int8": False}
    assert in_former_terms({"stage": "train"}) == {"stage": "train"}


def test_a_config_may_still_name_a_removed_setting_at_its_default() -> None:
    config = load_config([], ["prepare.input=x", "embed.int8=false"])
    assert config == load_config([], ["prepare.input=x"])
    with pytest.raises(ConfigError, match=r"unknown key 'embed\.int8'"):
        load_config([], ["prepare.input=x", "embed.int8=true"])
