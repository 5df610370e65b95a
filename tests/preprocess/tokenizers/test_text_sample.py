"""A sample has the bytes of text that were asked for, and depends on the documents and the seed only."""

import bz2
import gzip
import json
import lzma
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from preprocess.config import PrepareConfig
from preprocess.reading.listing import list_source
from preprocess.reading.units import Unit, plan_units
from preprocess.text.splits import text_hash
from preprocess.tokenizers import text_sample
from preprocess.tokenizers.sample import read_train
from preprocess.tokenizers.text_sample import sample_text

WORDS = ["a", "man", "and", "the", "dog", "went", "home", "to", "eat", "some", "more", "of", "what"]


def english(number: int, seed: int = 1) -> list[str]:
    """Return distinct lines, of 60 bytes on average, that compress well."""
    draw = random.Random(seed)
    return [f"{n} {' '.join(draw.choices(WORDS, k=draw.randrange(5, 25)))}" for n in range(number)]


def plan(config: PrepareConfig, unit_bytes: int = 4096) -> list[Unit]:
    return plan_units(config.sources, [list_source(s) for s in config.sources], unit_bytes)


def size(sample: Sequence[tuple[int, str]]) -> int:
    return sum(len(text.encode()) for _, text in sample)


def lines(texts: Sequence[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


def markup(texts: Sequence[str]) -> bytes:
    rows = ({"html": "<div>" * 100, "text": text, "url": "https://x.org"} for text in texts)
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(texts: Sequence[str]) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table({"text": list(texts), "other": ["x" * 500] * len(texts)})
    pq.write_table(table, sink, row_group_size=100)
    data: bytes = sink.getvalue().to_pybytes()
    return data


FORMATS: dict[str, Callable[[Sequence[str]], bytes]] = {
    "a.txt": lines,
    "a.gz": lambda texts: gzip.compress(lines(texts)),
    "a.bz2": lambda texts: bz2.compress(lines(texts)),
    "a.xz": lambda texts: lzma.compress(lines(texts)),
    "a.zst": lambda texts: zstandard.compress(lines(texts)),
    "utf16.txt": lambda texts: lines(texts).decode().encode("utf-16"),
    "a.jsonl": markup,
    "a.jsonl.gz": lambda texts: gzip.compress(markup(texts)),
    "a.parquet": parquet,
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("files", [1, 20])
def test_the_size_is_that_of_the_text_in_every_format(
    tmp_path: Path, name: str, files: int
) -> None:
    texts = english(4000)
    for number in range(files):
        (tmp_path / f"{number}{name}").write_bytes(FORMATS[name](texts[number::files]))
    config = PrepareConfig(input=f"{tmp_path}/*", valid_fraction=0.1)
    units = plan(config)
    for wanted in (2000, 50_000):
        sample = sample_text(units, config, wanted, 1, least_read=0)
        assert size(sample) == wanted
        *whole, (_, cut) = [(content, text) for content, text in sample]
        assert {text for _, text in whole} <= set(texts)
        assert any(text.startswith(cut) for text in texts)
    everything = sample_text(units, config, 10**9, 1, least_read=0)
    assert [text for _, text in everything] == [text for _, _, text, _ in read_train(units, config)]
    assert 0.85 < len(everything) / 4000 < 0.95


def test_a_corpus_that_fits_is_read_in_its_order(tmp_path: Path) -> None:
    texts = ["b", "a", "b", "c c"]
    (tmp_path / "a.txt").write_bytes(lines(texts))
    config = PrepareConfig(input=str(tmp_path / "a.txt"), valid_fraction=0)
    expected = [(text_hash(text.encode()), text) for text in texts]
    assert sample_text(plan(config), config, 6, 1) == expected, "repeats are kept"


@pytest.mark.parametrize("deduplicate", [True, False])
def test_it_does_not_depend_on_the_units_or_their_order(
    tmp_path: Path, deduplicate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = english(500) + english(500)[:100] * 4
    random.Random(1).shuffle(texts)
    (tmp_path / "a.txt").write_bytes(lines(texts))
    config = PrepareConfig(input=str(tmp_path / "a.txt"), deduplicate=deduplicate)
    found = [
        sample_text(plan(config, unit_bytes), config, wanted, 1)
        for wanted in (10_000, 25_000)
        for unit_bytes in (1024, 1500, 10**6)
    ]
    assert found[0] == found[1] == found[2]
    assert found[3] == found[4] == found[5]
    assert size(found[0]) == 10_000
    assert {text for _, text in found[0][:-1]} < {text for _, text in found[3]}
    assert sample_text(plan(config), config, 10_000, 2) != found[0]
    monkeypatch.setattr(text_sample, "in_drawing_order", lambda units, seed: units[::-1])
    assert sample_text(plan(config), config, 10_000, 1) == found[0]


def test_repeated_texts_count_once_if_they_are_dropped_later(tmp_path: Path) -> None:
    texts = english(300) + ["cookies are used by this site"] * 5000
    (tmp_path / "a.txt").write_bytes(lines(texts))
    found: dict[bool, Counter[str]] = {}
    for deduplicate in (True, False):
        config = PrepareConfig(input=str(tmp_path / "a.txt"), deduplicate=deduplicate)
        samples = [sample_text(plan(config), config, 12_000, seed) for seed in range(8)]
        assert {size(sample) for sample in samples} == {12_000}
        found[deduplicate] = Counter(text for sample in samples for _, text in sample)
    assert max(found[True].values()) <= 8
    assert found[False].most_common(1)[0][1] > 100


def test_a_document_larger_than_the_sample_is_cut(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\u00e9" * 100_000)
    config = PrepareConfig(input=str(tmp_path / "a.txt"), valid_fraction=0)
    for wanted, got in ((1000, 1000), (1001, 1000), (1, 0)):
        assert size(sample_text(plan(config, 10**6), config, wanted, 1)) == got


def test_held_out_sources_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes(lines(english(200)))
    (tmp_path / "valid.txt").write_bytes(lines(english(20_000, 2)))
    names = [{"name": s, "path": f"{tmp_path}/{s}.txt", "split": s} for s in ("train", "valid")]
    reports: list[int] = []
    for settings in ({}, {"sampling_alpha": 0.5}):
        config = PrepareConfig.model_validate({"input": names, **settings})
        units = plan(config)
        for seed in range(20):
            sample = sample_text(units, config, 5000, seed, 0, reports.append)
            assert size(sample) == 5000
            assert {text for _, text in sample[:-1]} <= set(english(200))
    assert max(reports) <= (tmp_path / "train.txt").stat().st_size


def test_a_part_of_a_large_corpus_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(lines(english(5000)))
    config = PrepareConfig(input=str(tmp_path / "a.txt"))
    units = plan(config)
    reports: list[int] = []
    sample_text(units, config, 5000, 1, 0, reports.append)
    assert 4 * 5000 <= reports[-1] <= 4 * 5000 + 4096
    assert reports == sorted(reports)
    sample_text(units, config, 5000, 1, 100_000, reports.append)
    assert 100_000 <= reports[-1] <= 104_096


def test_filters_that_leave_little_text_make_it_read_more(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(lines(english(5000)))
    config = PrepareConfig.model_validate(
        {"input": str(tmp_path / "a.txt"), "filters": {"min_characters": 85}}
    )
    sample = sample_text(plan(config), config, 20_000, 1, 0)
    assert size(sample) == 20_000


def two_sources(folder: Path, **settings: Any) -> tuple[PrepareConfig, list[Unit]]:
    """Make a source of 3,000 documents and one of 300, each with 9 bytes of text."""
    sources = []
    for name, number in (("large", 3000), ("small", 300)):
        text = folder / f"{name}.txt"
        text.write_text("".join(f"{name[0]}{n:08d}\n" for n in range(number)))
        own = settings.pop(name, {})
        sources.append({"name": name, "path": str(text), **own})
    config = PrepareConfig(**{"input": sources, "valid_fraction": 0.0, **settings})
    return config, plan(config, 1024)


def of_source(config: PrepareConfig, units: Sequence[Unit], wanted: int) -> list[int]:
    """Count the documents of each source in a sample, without the cut one."""
    sample = sample_text(units, config, wanted, 1)
    assert size(sample) <= wanted + 1
    texts = [text for _, text in sample if len(text) == 9]
    return [sum(text.startswith(name) for text in texts) for name in ("l", "s")]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"sampling_alpha": 0.0}, [100, 100]),
        ({"sampling_alpha": 0.5}, [152, 48]),
        ({"small": {"weight": 10.0}}, [100, 100]),
        ({"small": {"weight": 10.0}, "sampling_alpha": 0.0}, [18, 182]),
        ({"sampling_alpha": 0.0, "small": {"split": "valid"}}, [200, 0]),
    ],
)
def test_the_share_of_a_source_follows_from_its_weight_and_size(
    tmp_path: Path, settings: dict[str, Any], expected: list[int]
) -> None:
    found = of_source(*two_sources(tmp_path, **settings), 1800)
    assert found == pytest.approx(expected, abs=1)
    assert found.count(0) == expected.count(0)


def test_equal_weights_sample_the_whole_corpus_uniformly(tmp_path: Path) -> None:
    config, units = two_sources(tmp_path, large={"weight": 3.0}, small={"weight": 3.0})
    large, small = of_source(config, units, 9000)
    assert large + small == 1000
    assert abs(small - 1000 / 11) < 30


def test_other_sources_make_up_for_a_source_that_is_too_small(tmp_path: Path) -> None:
    config, units = two_sources(tmp_path, sampling_alpha=0.0)
    assert of_source(config, units, 18_000) == pytest.approx([1700, 300], abs=1)
    assert of_source(config, units, 10**9) == [3000, 300]


def test_they_do_so_if_its_size_was_overestimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the small source has no text that the filter keeps."""
    filters = {"filters": {"min_characters": 9}}
    config, units = two_sources(tmp_path, sampling_alpha=0.0, large=filters, small=filters)
    text = tmp_path / "small.txt"
    data = text.read_bytes()
    text.write_bytes(data[:1000] + b"\n" * 2000)
    monkeypatch.setattr(text_sample, "MEASURED_BYTES", 500)
    found = of_source(config, units, 9000)
    assert found[1] < 450
    assert sum(found) >= 999


def test_compressed_and_plain_sources_have_shares_of_their_text(tmp_path: Path) -> None:
    texts = english(4000)
    (tmp_path / "plain.txt").write_bytes(lines(texts))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(lines(english(4000, 2))))
    sources = [{"name": n, "path": f"{tmp_path}/{n}"} for n in ("plain.txt", "packed.gz")]
    config = PrepareConfig.model_validate({"input": sources, "sampling_alpha": 0.5})
    sample = sample_text(plan(config), config, 50_000, 1, 0)
    assert size(sample) == pytest.approx(50_000, abs=1)
    plain = size([pair for pair in sample if pair[1] in set(texts)])
    assert plain == pytest.approx(25_000, rel=0.02)
