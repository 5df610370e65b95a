"""Details of manifests from somebody else: shown, or refused with a message."""

import copy
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.reports.details import check_details
from pipeline.reports.perplexity_tables import band_rows, evaluations, perplexity_rows, reasons
from pipeline.reports.run_page import architecture
from preprocess.files.manifest import ManifestError, read_manifest

VALUES: tuple[Any, ...] = (None, "x", -1, 1.5, [], {}, [1], {"a": 1}, True, 10**18, 1e300)


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of each value inside nested dictionaries and lists."""
    inner: Sequence[Any] = ()
    if isinstance(value, dict):
        inner = list(value)
    elif isinstance(value, list):
        inner = range(len(value))
    for key in inner:
        yield (*place, key)
        yield from places(value[key], (*place, key))


def changed(details: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """Return details with one value removed or replaced."""
    details = copy.deepcopy(details)
    place = draw.choice(list(places(details)))
    parent: Any = details
    for key in place[:-1]:
        parent = parent[key]
    if draw.random() < 0.5:
        del parent[place[-1]]
    else:
        parent[place[-1]] = draw.choice(VALUES)
    return details


def test_details_that_a_stage_wrote_are_sound(trained: Path) -> None:
    for stage in ("train", "evaluate", "export"):
        check_details(stage, read_manifest(f"{trained}/{stage}").details)


def test_any_change_of_an_evaluation_is_shown_or_refused(trained: Path) -> None:
    details = read_manifest(f"{trained}/evaluate").details
    details = {**details, "others": [{**details, "split": "test"}]}
    draw = random.Random(5)
    refused = 0
    for _ in range(1000):
        try:
            for figures in evaluations(changed(details, draw)):
                perplexity_rows(figures)
                band_rows(figures)
                reasons(figures)
        except ManifestError:
            refused += 1
    assert 200 < refused < 900


def test_any_change_of_a_training_is_shown_or_refused(trained: Path) -> None:
    details = read_manifest(f"{trained}/train").details
    draw = random.Random(6)
    for _ in range(300):
        other = changed(details, draw)
        try:
            check_details("train", other)
        except ManifestError:
            continue
        architecture(other)


def test_the_message_names_the_folder_and_the_value() -> None:
    with pytest.raises(
        ManifestError,
        match=r"^/runs/a: the details of its manifest are damaged \(tokens: Input should be a valid "
        r"integer\); copy .* `biloom evaluate --overwrite`$",
    ):
        check_details("evaluate", {"split": "valid", "tokens": "7"}, "/runs/a")
