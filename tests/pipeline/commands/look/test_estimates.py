"""Estimates of time, memory and disk from the totals of an input and the costs of a trial."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline.commands.look import estimates as module
from pipeline.commands.look.estimates import (
    Amount,
    Estimate,
    Totals,
    prepare_estimate,
    tokenizer_estimate,
    vocabulary_of,
)
from pipeline.config.load import load_config
from pipeline.config.schema import Config
from preprocess.corpus.sampling.trial import Costs
from preprocess.corpus.sampling.vocabulary import Trained
from preprocess.reading.units import Range, Unit

MB = 10**6
TOTALS = Totals(800 * MB, 800 * MB, 4 * MB, 780 * MB, 8.0, 0.0)


class FakeTokenizer:
    vocabulary = 8000


COSTS = Costs(
    text_bytes=8 * MB,
    documents=40_000,
    tokens=2 * MB,
    kept_tokens=1.0,
    first_seconds=0.8,
    rest_seconds=0.1,
    work_bytes=3 * MB,
    result_bytes=400_000,
    has_links=True,
    made=Trained(FakeTokenizer(), seconds=2),  # type: ignore[arg-type]
)


def config(*overrides: str) -> Config:
    output = () if any("run.output" in word for word in overrides) else ("run.output=/tmp/none",)
    return load_config([], ["prepare.input=a.txt", *output, *overrides])


def units(number: int = 100) -> list[Unit]:
    size = TOTALS.raw_bytes // number
    pieces = [
        Range("a", "/a", n * size, (n + 1) * size, TOTALS.raw_bytes, "") for n in range(number)
    ]
    return [Unit(n, 0, (piece,)) for n, piece in enumerate(pieces)]


def estimate(*overrides: str, totals: Totals = TOTALS, costs: Costs = COSTS) -> Estimate:
    return prepare_estimate(config(*overrides), totals, costs, units(), has_streams=False)


ONE = "runner.options.mode=in_memory"
TWO = ("runner.options.mode=multi_processing", "runner.options.workers=2")


def test_time_is_that_of_the_trial_for_all_of_the_text() -> None:
    one = estimate(ONE)
    assert one.seconds
    assert one.cpu_seconds.likely == pytest.approx(module.START_SECONDS + 8 + 90)
    assert one.seconds.likely == one.cpu_seconds.likely
    two = estimate(*TWO)
    assert two.processes == 3
    assert two.cpu_seconds.likely == pytest.approx(3 * module.START_SECONDS + 98)
    assert two.seconds
    assert two.seconds.likely == pytest.approx(2 * module.START_SECONDS + 49)


def test_near_duplicates_take_longer_than_in_the_trial() -> None:
    found = estimate(ONE, "prepare.near_duplicates.similarity=0.8")
    assert found.cpu_seconds.likely == pytest.approx(module.START_SECONDS + 8 + 1.3 * 90)


def test_the_true_value_is_expected_in_a_range_around_it() -> None:
    found = estimate(ONE)
    assert found.seconds
    assert found.seconds.high / found.seconds.likely == pytest.approx(1.3)
    assert found.memory.likely / found.memory.low == pytest.approx(1.25)
    assert found.disk.high / found.disk.likely == pytest.approx(1.15)
    assert Amount.around(10, 2) == (10, 5, 20)


def test_disk_has_the_tokens_twice_if_anything_is_dropped() -> None:
    tokens, others = 400 * MB, 40 * MB
    fixed = 8 * 8000 + module.FILES_BYTES
    kept = estimate(ONE)
    assert kept.result.likely == pytest.approx(tokens + others + fixed)
    assert kept.disk.likely == pytest.approx(tokens + others + fixed + 300 * MB)
    repeated = TOTALS._replace(repeated=0.1)
    dropped = estimate(ONE, totals=repeated)
    result = 0.9 * (tokens + others) + fixed
    assert dropped.result.likely == pytest.approx(result)
    assert dropped.disk.likely == pytest.approx(result + tokens + 300 * MB)
    assert estimate(ONE, "prepare.deduplicate=false", totals=repeated).result == kept.result
    near = replace(COSTS, kept_tokens=0.5)
    found = estimate(ONE, "prepare.near_duplicates.similarity=0.8", costs=near)
    assert found.result.likely == pytest.approx(0.5 * (tokens + others) + fixed)
    # Without links, a shard is always a copy; a store has none.
    copied = estimate(ONE, costs=replace(COSTS, has_links=False))
    assert copied.disk.likely == pytest.approx(kept.disk.likely + tokens)
    remote = estimate(ONE, "run.output=memory://out")
    assert remote.disk.likely == pytest.approx(kept.disk.likely + tokens)


def test_ids_of_a_large_vocabulary_take_four_bytes() -> None:
    growing = replace(COSTS, made=Trained(FakeTokenizer(), growth=0.6))  # type: ignore[arg-type]
    settings = config("tokenizer.kind=word").tokenizer
    assert vocabulary_of(settings, growing, 100) == pytest.approx(8000 * 100**0.6, rel=0.001)
    assert vocabulary_of(settings, COSTS, 100) == 8000
    found = estimate(ONE, "tokenizer.kind=word", costs=growing)
    assert found.result.likely > 800 * MB


def test_memory_grows_with_the_segment_and_the_workers_but_not_with_the_corpus() -> None:
    one = estimate(ONE).memory.likely
    assert one == pytest.approx(
        module.DRIVER_BYTES + module.BATCH_BYTES + 7.5 * 2 * 2 * MB + 150 * 40_000
    )
    two = estimate(*TWO).memory.likely
    assert two == pytest.approx(one + (one - module.DRIVER_BYTES) + 2 * module.WORKER_BYTES)
    assert estimate(ONE, "prepare.near_duplicates.similarity=0.8").memory.likely > one
    assert estimate(ONE, "prepare.part_tokens=1000").memory.likely < one
    larger = TOTALS._replace(raw_bytes=80_000 * MB, text_bytes=80_000 * MB, documents=400 * MB)
    pieces = units()
    assert prepare_estimate(
        config(ONE), larger, COSTS, pieces, has_streams=False
    ).memory.likely == pytest.approx(one, rel=0.01)
    packed = prepare_estimate(config(ONE), TOTALS, COSTS, pieces, has_streams=True)
    assert packed.memory.likely == one + module.STREAM_BYTES


@pytest.mark.parametrize(
    ("options", "workers"),
    [
        (["runner.kind=flink", "runner.options.parallelism=10"], 10),
        (["runner.kind=dask"], None),
    ],
)
def test_workers_elsewhere_have_cpu_time_and_memory_each(
    options: list[str], workers: int | None
) -> None:
    found = estimate(*options)
    assert found.is_elsewhere
    assert found.processes == workers
    assert (found.seconds is None) == (workers is None)
    assert found.cpu_seconds.likely == pytest.approx(98)
    assert found.memory.likely < estimate(ONE).memory.likely


@pytest.mark.parametrize(
    ("settings", "seconds", "memory"),
    [
        ([], 1.05 * 2 * 100, 21 * 100 * MB),
        (["tokenizer.model=bpe"], 2 * 100, 7 * 100 * MB),
        (["tokenizer.kind=char", "tokenizer.sample_bytes=50000000"], 1.5 * 2 * 50, 5 * 50 * MB),
    ],
)
def test_the_cost_of_a_tokenizer_follows_from_its_sample(
    settings: list[str], seconds: float, memory: float
) -> None:
    found = tokenizer_estimate(config(*settings), TOTALS, COSTS)
    read = 400 if "50000000" not in str(settings) else 268.435456
    start = module.START_SECONDS + module.COVERAGE_SECONDS + read * (0.02 + 0.01)
    assert found.seconds
    assert found.seconds.likely == pytest.approx(start + seconds)
    assert found.memory.likely == pytest.approx(module.TOKENIZER_STAGE_BYTES + memory)
    assert found.seconds.high / found.seconds.likely == pytest.approx(1.6)


def test_scripts_of_several_bytes_take_longer_and_words_are_counted_in_all_text() -> None:
    chinese = TOTALS._replace(characters=270 * MB)
    plain, wide = (
        tokenizer_estimate(config(), totals, COSTS).seconds for totals in (TOTALS, chinese)
    )
    assert plain
    assert wide
    assert wide.likely - plain.likely == pytest.approx(2 * 100 * (3.1 - 1.05))
    words: Any = tokenizer_estimate(config("tokenizer.kind=word"), TOTALS, COSTS)
    assert words.seconds.likely > 2 * 792 * 0.02
