"""Settings of a command that is not a stage."""

import re

import pytest
from pydantic import Field

from pipeline.config.load import ConfigError
from pipeline.config.sections import load_section
from preprocess.section import Section


class Inner(Section):
    width: int = Field(3, ge=1, description="width")


class Outer(Section):
    head: str = Field("pool", description="the head")
    dropout: float = Field(0.5, ge=0, lt=1, description="dropout")
    inner: Inner = Field(Inner(), description="more")


def test_overrides_set_keys_of_a_section() -> None:
    found = load_section(Outer, ["inner.width=5", "head=lstm"])
    assert found == Outer(head="lstm", inner=Inner(width=5))
    assert load_section(Outer, []) == Outer()


def test_overrides_change_stored_settings() -> None:
    stored = Outer(head="lstm", dropout=0.1)
    assert load_section(Outer, ["dropout=0.2"], stored) == Outer(head="lstm", dropout=0.2)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("haed=x", "unknown key 'haed'; did you mean 'head'?"),
        ("width=2", "unknown key 'width'; did you mean 'inner.width'?"),
        ("inner.widht=2", "unknown key 'inner.widht'; did you mean 'width'?"),
        ("steps=2", "unknown key 'steps'; the keys here are head, dropout, inner"),
        ("dropout=2", "dropout: must be a number of at least 0 and below 1, not 2"),
        ("lstm", "'lstm' is not a setting; write key=value, such as head=..."),
    ],
)
def test_a_mistake_is_explained_in_terms_of_the_section(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_section(Outer, [override])


def test_a_key_that_is_set_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="'head' is set twice"):
        load_section(Outer, ["head=a", "head=b"])
