"""Samples depend on the seed and the documents, not on the order of reading."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess.config import PrepareConfig
from preprocess.reading.listing import list_source
from preprocess.reading.units import Range, Unit, plan_units
from preprocess.text.config import SPLITS
from preprocess.text.splits import splits_of, text_hash
from preprocess.tokenizers.sample import (
    draw_documents,
    in_drawing_order,
    mixed,
    read_train,
    thin,
    unit_bytes,
)


def split_of(content: int, valid_fraction: float, test_fraction: float) -> str:
    """Return the split of a content hash."""
    high = np.array([content >> 64], np.uint64)
    return SPLITS[int(splits_of(high, valid_fraction, test_fraction)[0])]


def sized(*sizes: int) -> list[Unit]:
    return [
        Unit(index, 0, (Range("a", "/a", 0, size - 1, size, "v"), Range("b", "/b", 7, 8, 9, "v")))
        for index, size in enumerate(sizes)
    ]


def planned(
    folder: Path, texts: Sequence[str], **settings: Any
) -> tuple[PrepareConfig, list[Unit]]:
    raw = folder / "raw.jsonl"
    raw.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    config = PrepareConfig(**{"input": str(raw), "unit_bytes": 1024, **settings})
    return config, plan_units(config.sources, [list_source(s) for s in config.sources], 1024)


def side(text: str, config: PrepareConfig) -> str:
    return split_of(text_hash(text.encode()), config.valid_fraction, config.test_fraction)


def test_units_are_read_in_an_order_of_the_seed() -> None:
    units = sized(*[10] * 50)
    assert unit_bytes(units[0]) == 10
    order = in_drawing_order(units, 1)
    assert order == in_drawing_order(units, 1)
    assert order not in (units, in_drawing_order(units, 2))
    assert sorted(order, key=lambda unit: unit.index) == units


def test_read_train_yields_the_train_split_of_prepare(tmp_path: Path) -> None:
    texts = [f"line\u00a0 {n} " for n in range(100)] + ["", " "]
    config, units = planned(tmp_path, texts, valid_fraction=0.3, test_fraction=0.2)
    assert len(units) > 1
    found = list(read_train(units, config))
    clean = [" ".join(text.split()) for text in texts]
    expected = [n for n, text in enumerate(clean) if text and side(text, config) == "train"]
    assert [raw for _, raw, _, _ in found] == [texts[n] for n in expected]
    assert [text for _, _, text, _ in found] == [clean[n] for n in expected]
    assert all(content == text_hash(text.encode()) for _, _, text, content in found)
    assert sorted({unit.index for unit, *_ in found}) == [unit.index for unit in units]


@pytest.mark.parametrize(("split", "number"), [("train", 30), ("valid", 0), ("test", 0)])
def test_a_source_with_a_split_is_read_if_it_is_train(
    tmp_path: Path, split: str, number: int
) -> None:
    texts = [f"line {n}" for n in range(30)]
    (tmp_path / "raw.jsonl").touch()
    source = {"name": "n", "path": str(tmp_path / "raw.jsonl"), "split": split}
    config, units = planned(tmp_path, texts, input=[source], valid_fraction=0.5)
    assert len(list(read_train(units, config))) == number


def test_drawn_documents_are_distinct_and_independent_of_the_order_of_reading(
    tmp_path: Path,
) -> None:
    texts = [f"line  {n % 80}" for n in range(200)]
    config, units = planned(tmp_path, texts, valid_fraction=0.0)
    drawn = draw_documents(units, config, 20, 1)
    assert len(drawn) == len(set(drawn)) == 20
    assert set(drawn) <= set(texts), "raw texts, not cleaned ones"
    assert drawn == draw_documents(units[::-1], config, 20, 1)
    assert drawn != draw_documents(units, config, 20, 2)
    # A smaller sample is a prefix of a larger one.
    assert draw_documents(units, config, 7, 1) == drawn[:7]
    everything = draw_documents(units, config, 1000, 1)
    assert sorted(everything) == sorted(set(texts))
    assert everything[:20] == drawn


def test_documents_are_drawn_from_training_sources_of_which_as_much_is_read_as_is_needed(
    tmp_path: Path,
) -> None:
    sources = []
    for name, number in (("train", 3000), ("valid", 30_000)):
        text = tmp_path / f"{name}.txt"
        text.write_text("".join(f"{name}{n:05d}\n" for n in range(number)))
        sources.append({"name": name, "path": str(text), "split": name})
    config = PrepareConfig(input=sources)
    units = plan_units(config.sources, [list_source(s) for s in config.sources], 1024)
    for seed in range(5):
        drawn = draw_documents(units, config, 10, seed, least_read=1)
        assert len(drawn) == 10
        assert all(text.startswith("train") for text in drawn)
        # One unit of 1,024 bytes has as many documents.
        numbers = [int(text.removeprefix("train")) for text in drawn]
        assert max(numbers) - min(numbers) < 100
        assert len(draw_documents(units, config, 500, seed, least_read=1)) == 500
    assert len(draw_documents(units, config, 5000, 1)) == 3000


def test_a_larger_sample_contains_the_smaller_one() -> None:
    contents = [text_hash(str(n).encode()) for n in range(20_000)]
    for share in (0.0, 0.1, 0.5, 1.0):
        number = sum(thin(content, share, 1) for content in contents)
        assert abs(number / 20_000 - share) < 0.01
    assert all(thin(c, 0.4, 1) for c in contents if thin(c, 0.3, 1))
    both = sum(thin(c, 0.5, 1) and thin(c, 0.5, 2) for c in contents)
    assert abs(both / 20_000 - 0.25) < 0.02, "two seeds draw independently"
    # The draw is independent of the split, so the train split is sampled evenly.
    train = [c for c in contents if split_of(c, 0.5, 0.0) == "train"]
    assert abs(sum(thin(c, 0.5, 1) for c in train) / len(train) - 0.5) < 0.02
    assert all(0 <= mixed(c, seed) < 2**53 for c in contents[:100] for seed in (0, -1, 2**70))


def test_cleaning_and_filters_of_a_source_apply_to_its_sample(tmp_path: Path) -> None:
    given = {"cleaning": {"whitespace": "keep"}, "filters": {"min_characters": 3}}
    text = tmp_path / "a.txt"
    text.write_text("a  b\nc\n")
    sources = [{"name": "own", "path": str(text), **given}, {"name": "plain", "path": str(text)}]
    config = PrepareConfig(input=sources, valid_fraction=0.0)
    units = plan_units(config.sources, [list_source(s) for s in config.sources], None)
    found = [(unit.source, raw, clean) for unit, raw, clean, _ in read_train(units, config)]
    assert found == [(0, "a  b", "a  b"), (1, "a  b", "a b"), (1, "c", "c")]
