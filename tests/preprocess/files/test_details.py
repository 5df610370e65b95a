"""Details of manifests from somebody else: shown, or refused with a message."""

import copy
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lightning_modules.config import ModelConfig
from pipeline.reports.corpus_page import corpus_page
from pipeline.reports.perplexity_tables import (
    band_rows,
    bits_per_byte,
    evaluations,
    perplexity_rows,
    reasons,
)
from pipeline.reports.run_folder import read_result
from pipeline.reports.run_page import architecture
from preprocess.errors import UserError
from preprocess.files.details import check_types
from preprocess.files.manifest import Manifest, ManifestError, read_manifest, recorded
from preprocess.reading.changed_inputs import read_inputs

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


def show_evaluation(manifest: Manifest) -> None:
    for figures in evaluations(manifest.details):
        perplexity_rows(figures)
        band_rows(figures)
        bits_per_byte(figures)
        reasons(figures)


def show_model(manifest: Manifest) -> None:
    architecture(manifest.details)


@pytest.mark.parametrize(
    ("stage", "show"),
    [("evaluate", show_evaluation), ("train", show_model), ("export", show_model)],
)
def test_any_change_of_the_details_is_shown_or_refused(
    trained: Path, tmp_path: Path, stage: str, show: Any
) -> None:
    raw = json.loads((trained / stage / "manifest.json").read_text(encoding="utf-8"))
    # Format 1 has no checksum.
    del raw["checksum"], raw["beside"]
    raw["format"] = 1
    if stage == "evaluate":
        raw["details"]["others"] = [{**raw["details"], "split": "test"}]
    draw = random.Random(5)
    refused = 0
    for _ in range(600):
        other = {**raw, "details": changed(raw["details"], draw)}
        (tmp_path / "manifest.json").write_text(json.dumps(other), encoding="utf-8")
        try:
            show(read_manifest(str(tmp_path), stage))
        except ManifestError:
            refused += 1
    assert 100 < refused < 550


def test_any_change_of_a_corpus_or_its_figures_is_shown_or_refused(
    tiny: Any, tmp_path: Path
) -> None:
    folder = tiny.root / "prepare"
    inputs = read_inputs(str(folder), read_manifest(str(folder)))
    raw = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    stats = json.loads((folder / "stats.json").read_text(encoding="utf-8"))
    del raw["checksum"], raw["beside"]
    raw["format"] = 1
    draw = random.Random(7)
    refused = 0
    for number in range(600):
        details, figures = raw["details"], stats
        if number % 2:
            details = changed(details, draw)
            figures = {key: value for key, value in stats.items() if key not in details}
        else:
            figures = changed(figures, draw)
        (tmp_path / "manifest.json").write_text(json.dumps({**raw, "details": details}))
        (tmp_path / "stats.json").write_text(json.dumps(figures))
        try:
            corpus_page(read_result(str(tmp_path), "prepare").stats, inputs, "word")
        except UserError:
            refused += 1
    assert 100 < refused < 550


def test_the_message_names_the_value() -> None:
    with pytest.raises(ValueError, match=r"^'tokens': Input should be a valid integer$"):
        check_types("evaluate", {"split": "valid", "tokens": "7"})


def test_recorded_settings_that_are_damaged_are_told(trained: Path) -> None:
    details = read_manifest(str(trained / "train")).details
    assert recorded(ModelConfig, details, "model").recurrent.layers == 2
    details["model"]["recurrent"]["layers"] = -1

    with pytest.raises(
        ManifestError,
        match=r"train: manifest\.json is damaged \('model\.recurrent\..*layers': Input should be "
        r".*\); copy or make the folder again$",
    ):
        recorded(ModelConfig, details, "model")
