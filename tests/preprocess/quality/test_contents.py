"""Contents of lists in requests, and filters without paths in manifests."""

from pathlib import Path

from preprocess.config import PrepareConfig
from preprocess.quality.contents import (
    contents_of_prepare,
    filters_as_asked,
    filters_without_paths,
)
from preprocess.text.config import FilterConfig


def filters(folder: Path, name: str, text: str) -> FilterConfig:
    path = folder / name
    path.write_text(text)
    return FilterConfig.model_validate(
        {"urls": {"domains": str(path)}, "c4": {"bad_words": str(path), "min_words": 4}}
    )


def test_lists_enter_a_request_by_content_and_not_by_path(tmp_path: Path) -> None:
    first, same, other = (
        filters(tmp_path, name, text) for name, text in (("a", "x.org"), ("b", "x.org"), ("c", "y"))
    )
    assert filters_as_asked(first) == filters_as_asked(same)
    asked = [
        contents_of_prepare(PrepareConfig(input="unused", filters=one))
        for one in (first, same, other)
    ]
    assert asked[0] == asked[1] != asked[2]
    assert sorted(asked[0]) == ["prepare.filters.c4.bad_words", "prepare.filters.urls.content"]
    assert str(tmp_path) not in str(filters_as_asked(first))
    assert filters_as_asked(FilterConfig()) == FilterConfig().model_dump()
    assert contents_of_prepare(PrepareConfig(input="unused")) == {}


def test_benchmarks_enter_a_request_by_content(tmp_path: Path) -> None:
    found = []
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / name).write_text(text)
        config = {"input": "unused", "decontamination": {"benchmarks": {"x": str(tmp_path / name)}}}
        found.append(contents_of_prepare(PrepareConfig.model_validate(config)))
    assert list(found[0]) == ["prepare.decontamination.content"]
    assert found[0] == found[1] != found[2]


def test_manifests_name_the_filters_without_paths(tmp_path: Path) -> None:
    shown = filters_without_paths(filters(tmp_path, "a", "x"))
    assert shown == {"urls": {}, "c4": {"min_words": 4}}
