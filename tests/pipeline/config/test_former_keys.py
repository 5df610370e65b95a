"""What older results were asked, restated with today's settings."""

from typing import Any

import pytest

from pipeline.config import former_keys
from pipeline.config.former_keys import in_former_terms, in_present_terms
from pipeline.config.load import ConfigError, load_config


def test_a_setting_that_an_older_result_does_not_name_had_todays_default() -> None:
    asked = {"train.rows": 4, "train.unroll": 20, "model.recurrent.kind": "gru"}
    assert in_present_terms({"train.rows": 4}, {**asked, "train.unroll": 99}) == {
        "train.rows": 4,
        "train.unroll": load_config([], ["prepare.input=x"]).train.unroll,
        "model.recurrent.kind": "lstm",
    }


def test_the_default_of_a_choice_is_that_of_the_kind_in_use() -> None:
    asked: dict[str, Any] = {"tokenizer.kind": "char", "tokenizer.character_coverage": 0.5}
    old = in_present_terms({"tokenizer.kind": "char"}, asked)
    assert old["tokenizer.character_coverage"] == 0.9999
    asked["tokenizer.kind"] = "sentencepiece"
    assert in_present_terms({}, asked)["tokenizer.character_coverage"] == 0.9995


def test_a_setting_that_did_something_else_before_it_was_added(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(former_keys.ADDED, "train.rows", 1)
    assert in_present_terms({}, {"train.rows": 4}) == {"train.rows": 1}


def test_an_input_that_an_older_result_does_not_have_is_no_setting() -> None:
    assert in_present_terms({}, {"corpus.content": "abc"}) == {}


def test_a_source_is_completed_with_the_defaults_of_its_settings() -> None:
    old = {"prepare.input.0": {"name": "text", "files": 1}}
    asked = {"prepare.input.0": {"name": "text", "files": 1, "format": "text", "weight": 1.0}}
    assert in_present_terms(old, asked) == {
        "prepare.input.0": {"name": "text", "files": 1, "format": "auto", "weight": 1.0}
    }


def test_a_removed_setting_is_ignored_at_its_default_only() -> None:
    assert in_present_terms({"embed.int8": False}, {}) == {}
    assert in_present_terms({"embed.int8": True}, {}) == {"embed.int8": True}


def test_the_present_command_as_an_older_version_wrote_it() -> None:
    asked = {"stage": "embed", "embed.unit": "token"}
    assert in_former_terms(asked) == {**asked, "embed.int8": False}
    assert in_former_terms({"stage": "train"}) == {"stage": "train"}


def test_a_config_may_still_name_a_removed_setting_at_its_default() -> None:
    config = load_config([], ["prepare.input=x", "embed.int8=false"])
    assert config == load_config([], ["prepare.input=x"])
    with pytest.raises(ConfigError, match=r"unknown key 'embed\.int8'"):
        load_config([], ["prepare.input=x", "embed.int8=true"])
