"""Samples follow from the seed and the documents, never from the order of reading."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from preprocess.config import PrepareConfig
from preprocess.corpus_sample import (
    draw_documents,
    draw_units,
    mixed,
    read_train,
    thin,
    unit_bytes,
)
from preprocess.dedup import content_hash, split_of
from preprocess.sources import list_source
from preprocess.units import Range, Unit, plan_units


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
    return split_of(content_hash(text.encode()), config.valid_fraction, config.test_fraction)


def test_units_are_drawn_until_there_is_enough_and_stay_in_order() -> None:
    units = sized(*[10] * 50)
    assert unit_bytes(units[0]) == 10
    drawn = draw_units(units, 95, 1)
    assert len(drawn) == 10
    assert drawn == sorted(drawn, key=lambda unit: unit.index)
    assert drawn == draw_units(units, 95, 1)
    assert drawn != draw_units(units, 95, 2)
    assert draw_units(units, 500, 1) == draw_units(units, 10**12, 1) == units
    assert draw_units(units, 0, 1) == draw_units([], 5, 1) == []
    # A larger sample holds the smaller one.
    assert {unit.index for unit in drawn} <= {unit.index for unit in draw_units(units, 200, 1)}


def test_the_train_split_is_read_as_prepare_draws_it(tmp_path: Path) -> None:
    texts = [f"line\u00a0 {n} " for n in range(100)] + ["", " "]
    config, units = planned(tmp_path, texts, valid_fraction=0.3, test_fraction=0.2)
    assert len(units) > 1
    found = list(read_train(units, config))
    clean = [" ".join(text.split()) for text in texts]
    expected = [n for n, text in enumerate(clean) if text and side(text, config) == "train"]
    assert [raw for _, raw, _, _ in found] == [texts[n] for n in expected]
    assert [text for _, _, text, _ in found] == [clean[n] for n in expected]
    assert all(content == content_hash(text.encode()) for _, _, text, content in found)
    assert sorted({unit.index for unit, *_ in found}) == [unit.index for unit in units]


@pytest.mark.parametrize(("split", "number"), [("train", 30), ("valid", 0), ("test", 0)])
def test_a_given_split_is_read_whole_or_not_at_all(tmp_path: Path, split: str, number: int) -> None:
    texts = [f"line {n}" for n in range(30)]
    (tmp_path / "raw.jsonl").touch()
    source = {"name": "n", "path": str(tmp_path / "raw.jsonl"), "split": split}
    config, units = planned(tmp_path, texts, input=[source], valid_fraction=0.5)
    assert len(list(read_train(units, config))) == number


def test_drawn_documents_are_different_and_do_not_depend_on_the_order_of_reading(
    tmp_path: Path,
) -> None:
    texts = [f"line  {n % 80}" for n in range(200)]
    config, units = planned(tmp_path, texts, valid_fraction=0.0)
    drawn = draw_documents(units, config, 20, 1)
    assert len(drawn) == len(set(drawn)) == 20
    assert set(drawn) <= set(texts), "as given, not as cleaned"
    assert drawn == draw_documents(units[::-1], config, 20, 1)
    assert drawn != draw_documents(units, config, 20, 2)
    # A smaller sample begins a larger one, and a sample of everything is in the same order.
    assert draw_documents(units, config, 7, 1) == drawn[:7]
    everything = draw_documents(units, config, 1000, 1)
    assert sorted(everything) == sorted(set(texts))
    assert everything[:20] == drawn


def test_a_document_is_in_a_sample_by_its_content_and_in_every_larger_one() -> None:
    contents = [content_hash(str(n).encode()) for n in range(20_000)]
    for share in (0.0, 0.1, 0.5, 1.0):
        number = sum(thin(content, share, 1) for content in contents)
        assert abs(number / 20_000 - share) < 0.01
    assert all(thin(c, 0.4, 1) for c in contents if thin(c, 0.3, 1))
    both = sum(thin(c, 0.5, 1) and thin(c, 0.5, 2) for c in contents)
    assert abs(both / 20_000 - 0.25) < 0.02, "two seeds draw apart"
    # Nor does the draw follow the side, or the train split would not be sampled evenly.
    train = [c for c in contents if split_of(c, 0.5, 0.0) == "train"]
    assert abs(sum(thin(c, 0.5, 1) for c in train) / len(train) - 0.5) < 0.02
    assert all(0 <= mixed(c, seed) < 2**53 for c in contents[:100] for seed in (0, -1, 2**70))
