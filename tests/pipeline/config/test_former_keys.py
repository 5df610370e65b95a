"""Older requests are restated with the settings of today."""

from typing import Any

import pytest

from pipeline.config import former_keys
from pipeline.config.former_keys import (
    former_defaults,
    former_settings,
    in_former_terms,
    in_present_terms,
    with_former_defaults,
)
from pipeline.config.load import ConfigError, load_config
from preprocess.files.fingerprint import differing_keys


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


def test_a_former_switch_equals_its_probability() -> None:
    for switch, probability in ((False, 0.0), (True, 1.0)):
        old = in_present_terms({"train.reset_state": switch}, {"train.reset_state": probability})
        assert not differing_keys(old, {"train.reset_state": probability})


def test_former_defaults_are_those_of_settings_that_no_config_names() -> None:
    config = load_config([], ["prepare.input=x", "train.order=mixed", "train.rows=3"])
    former = with_former_defaults(config, "train").train
    assert (former.order, former.reset_state, former.rows) == ("mixed", 0, 3)


@pytest.mark.parametrize(
    ("settings", "former"),
    [
        ([], {}),
        (["embed.unit=word"], {}),
        (["embed.unit=sentence"], {"embed.pooling": "direction"}),
        (["embed.unit=sentence", "embed.pooling=mean"], {}),
    ],
)
def test_the_former_pooling_is_that_of_sentences(settings: list[str], former: Any) -> None:
    config = load_config([], ["prepare.input=x", *settings])
    assert former_defaults(config, "embed") == former
    assert (with_former_defaults(config, "embed") is config) == (not former)


def test_a_missing_input_has_no_default() -> None:
    assert in_present_terms({}, {"corpus.content": "abc"}) == {}


def test_a_source_is_completed_with_the_defaults_of_its_settings() -> None:
    old = {"prepare.input.0": {"name": "text", "files": 1}}
    request = {"prepare.input.0": {"name": "text", "files": 1, "format": "text", "weight": 1.0}}
    assert in_present_terms(old, request) == {
        "prepare.input.0": {"name": "text", "files": 1, "format": "auto", "weight": 1.0}
    }


def test_settings_that_embedding_ignored_do_not_count() -> None:
    for key, kept in {"embed.input.0": None, "prepare.input.0": "valid"}.items():
        old = {key: {"name": "x", "split": "valid"}}
        present = in_present_terms(old, {key: {"name": "x", "split": None}})[key]
        assert present["split"] == kept


def test_a_removed_setting_is_ignored_at_its_default_only() -> None:
    assert in_present_terms({"embed.int8": False}, {}) == {}
    assert in_present_terms({"embed.int8": True}, {}) == {"embed.int8": True}


def test_a_request_is_restated_as_an_older_version_wrote_it() -> None:
    source = "{path: y, license: MIT}"
    config = load_config(
        [], ["prepare.input=x", f"embed.input=[{source}]", "embed.batch_tokens=77"]
    )
    request = {"stage": "embed", "embed.unit": "token", "embed.input.0": {"files": 1}}
    new = {"embed.kind": "vector", "embed.path": "upward"}
    assert in_former_terms(request | new, config) == {
        "embed.path": "upward",
        **request,
        "embed.int8": False,
        "embed.batch_tokens": 77,
        "embed.input.0": {"files": 1, "weight": 1.0, "license": "MIT"},
    }


def test_settings_that_no_longer_decide_a_result_are_ignored() -> None:
    request = {"stage": "prepare", "prepare.input.0": {"files": 1}}
    old = {
        **request,
        "prepare.sampling_alpha": 0.5,
        "prepare.keep_dropped": True,
        "prepare.input.0": {"files": 1, "weight": 2.0, "license": "MIT"},
    }
    assert in_present_terms(old, request) == request
    # A finished result of that version still tells them.
    settings = {"prepare.sampling_alpha": 1.0, "prepare.input.0.weight": 1.0, "prepare.x": 3}
    assert former_settings(old, settings) == {
        "prepare.sampling_alpha": 0.5,
        "prepare.input.0.weight": 2.0,
        "prepare.x": 3,
    }


def test_a_config_may_still_name_a_removed_setting_at_its_default() -> None:
    config = load_config([], ["prepare.input=x", "embed.int8=false"])
    assert config == load_config([], ["prepare.input=x"])
    with pytest.raises(ConfigError, match=r"unknown key 'embed\.int8'"):
        load_config([], ["prepare.input=x", "embed.int8=true"])


def test_a_section_that_is_off_by_default_had_no_settings() -> None:
    """A corpus made before a filter existed is not the same as one made with it."""
    key = "prepare.filters.c4.min_words"
    assert in_present_terms({}, {"prepare.filters.c4": None}) == {"prepare.filters.c4": None}
    assert key not in in_present_terms({}, {key: 5})
    old = in_present_terms(
        {"prepare.filters.c4.policy": True}, {key: 5, "prepare.filters.c4.policy": True}
    )
    assert old[key] == 5


def test_the_filters_of_a_source_have_the_defaults_of_later_settings() -> None:
    source = {"name": "a", "filters": {"min_characters": 3}, "cleaning": None}
    new = {"name": "a", "filters": {"min_characters": 3, "c4": None}, "cleaning": None}
    old = in_present_terms({"prepare.input.0": source}, {"prepare.input.0": new})
    assert old["prepare.input.0"]["filters"]["c4"] is None
    assert old["prepare.input.0"]["filters"]["min_characters"] == 3
