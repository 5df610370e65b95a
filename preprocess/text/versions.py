"""Versions of the tables that decide how text is cleaned and tokenised."""

import unicodedata
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from preprocess.text.minhash import VERSION


@cache
def table_versions() -> dict[str, str]:
    """Return the version of each table by its name.

    Python's Unicode tables decide which characters are letters and how text is normalised.
    SentencePiece decides the pieces of a text. Another version can give other bytes for the same
    settings and inputs.
    """
    return {"Unicode": unicodedata.unidata_version, "SentencePiece": version("sentencepiece")}


@cache
def detector_version() -> dict[str, str]:
    """Return the version of chardet, which finds the encoding of text for `Source.encoding` "auto".

    It is by name as in `table_versions`; empty if chardet is not installed.
    """
    return _version_of("chardet")


@cache
def extractor_version() -> dict[str, str]:
    """Return the version of resiliparse, which extracts the main text of web pages.

    It is by name as in `table_versions`; empty if resiliparse is not installed.
    """
    return _version_of("resiliparse")


@cache
def tokenizers_version() -> dict[str, str]:
    """Return the version of tokenizers, which decides the tokens of a ``tokenizer.json``.

    It is by name as in `table_versions`; empty if tokenizers is not installed.
    """
    return _version_of("tokenizers")


def optional_versions() -> dict[str, str]:
    """Return the versions of the packages above that are installed."""
    return {**detector_version(), **extractor_version(), **tokenizers_version()}


def _version_of(package: str) -> dict[str, str]:
    try:
        return {package: version(package)}
    except PackageNotFoundError:
        return {}


_NEAR = "near-duplicates"


def near_duplicate_version() -> dict[str, str]:
    """Return the version of the detection of near-duplicates, by name as in `table_versions`."""
    return {_NEAR: str(VERSION)}


def recorded_versions(recorded: dict[str, str], asked: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions that a result was made with, also those that former versions did not record.

    Args:
        recorded: versions that were recorded.
        asked: the request of the result, flat.
    """
    if asked.get("prepare.near_duplicates.similarity") is None:
        return recorded
    return {**dict.fromkeys(near_duplicate_version(), "1"), **recorded}


_RULE = (
    "the rule by which documents count as near-duplicates is another one in this version of biloom"
)


def differing_versions(recorded: dict[str, str]) -> list[str]:
    """Return a line for each table whose version differs, such as ``Unicode: 14.0.0 -> 15.0.0``.

    The version of the detection of near-duplicates is a number that users cannot know, so its line says
    what has changed.

    Args:
        recorded: versions from the functions of this module when a result was made; empty if not known.
            Tables that are not installed now are ignored.
    """
    present = {**table_versions(), **optional_versions(), **near_duplicate_version()}
    return [
        f"{name}: {_RULE if name == _NEAR else f'{old} -> {present[name]}'}"
        for name, old in recorded.items()
        if present.get(name, old) != old
    ]
