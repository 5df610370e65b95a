"""Versions of the tables that decide how text is read, cleaned and tokenised."""

import sys
import unicodedata

import pytest

from preprocess.text import versions


def test_tables_have_a_version() -> None:
    assert versions.table_versions()["Unicode"] == unicodedata.unidata_version
    assert versions.table_versions().keys() == {"Unicode", "SentencePiece"}
    assert versions.detector_version()["chardet"].startswith("7.")
    assert versions.extractor_version()["resiliparse"].startswith("2.")
    assert versions.tokenizers_version().keys() == {"tokenizers"}


def test_a_detector_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    assert versions.detector_version.__wrapped__() == {}
    assert versions.extractor_version.__wrapped__() == {}
    assert versions.tokenizers_version.__wrapped__() == {}


def test_results_of_former_versions_have_the_first_version_of_near_duplicates() -> None:
    asked = {"prepare.near_duplicates.similarity": 0.8}
    assert versions.recorded_versions({"Unicode": "1"}, asked) == {
        "Unicode": "1",
        "near-duplicates": "1",
    }
    present = versions.near_duplicate_version()
    assert versions.recorded_versions(present, asked) == present
    for other in ({}, {"prepare.near_duplicates.similarity": None}):
        assert versions.recorded_versions({"Unicode": "1"}, other) == {"Unicode": "1"}


def test_versions_that_differ_are_listed() -> None:
    present = {**versions.table_versions(), **versions.detector_version()}
    assert versions.differing_versions(present) == []
    assert versions.differing_versions({}) == []
    assert versions.differing_versions({"tokenizers": "0.1"}) == [
        f"tokenizers: 0.1 -> {versions.tokenizers_version()['tokenizers']}"
    ]
    assert versions.differing_versions({**present, "chardet": "5.0", "other": "1"}) == [
        f"chardet: 5.0 -> {present['chardet']}"
    ]
    [line] = versions.differing_versions({"near-duplicates": "1"})
    assert line.startswith(
        "near-duplicates: the rule by which documents count as near-duplicates is"
    )
    assert versions.differing_versions(versions.near_duplicate_version()) == []
