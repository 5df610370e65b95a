"""Transforms call their work once per item, wait for all items, and keep user errors."""

from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from pipeline.beam.engines import make_pipeline
from pipeline.beam.transforms import ForEach, Numbers, WhenAllAreDone
from pipeline.beam.worker_call import user_errors
from pipeline.config.runners import DirectOptions, DirectRunner
from preprocess.errors import UserError

IN_MEMORY = DirectRunner(options=DirectOptions(mode="in_memory"))


def add(first: int, second: int) -> int:
    return first + second


def refuse(item: int) -> int:
    if item == 2:
        raise UserError(f"item {item} is nothing to work on")
    return item


def break_down(item: int) -> int:
    raise ZeroDivisionError("ours")


def test_for_each_calls_its_work_once_per_item(tmp_path: Path) -> None:
    with make_pipeline(IN_MEMORY, 0) as pipeline:
        made = pipeline | beam.Create([1, 2, 3]) | ForEach(str(tmp_path), add, 10)
        assert_that(made, equal_to([11, 12, 13]))


@pytest.mark.parametrize("came", [[7], [1, 2, 3, 1]])
def test_the_following_items_come_once_for_any_input(came: list[int]) -> None:
    with make_pipeline(IN_MEMORY, 0) as pipeline:
        after = pipeline | beam.Create(came) | WhenAllAreDone(["a", "b"])
        assert_that(after, equal_to(["a", "b"]))


def test_a_user_error_is_raised_with_its_message(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError) as caught,
        user_errors(str(tmp_path)),
        make_pipeline(IN_MEMORY, 0) as pipeline,
    ):
        _ = pipeline | beam.Create([1, 2, 3]) | ForEach(str(tmp_path), refuse)
    assert str(caught.value) == "item 2 is nothing to work on"


def test_a_bug_is_not_raised_as_a_user_error_even_after_one(tmp_path: Path) -> None:
    (tmp_path / "failures").mkdir()
    (tmp_path / "failures" / "1.txt").write_text("an old one")
    with (
        pytest.raises(ZeroDivisionError, match="ours"),
        user_errors(str(tmp_path)),
        make_pipeline(IN_MEMORY, 0) as pipeline,
    ):
        _ = pipeline | beam.Create([1]) | ForEach(str(tmp_path), break_down)


def test_the_size_of_a_pipeline_does_not_depend_on_the_number_of_units() -> None:
    sizes = []
    for units in (1_000, 100_000):
        pipeline = beam.Pipeline()
        _ = pipeline | Numbers(units) | WhenAllAreDone(range(units))
        sizes.append(len(pipeline.to_runner_api().SerializeToString()))
    assert abs(sizes[0] - sizes[1]) < 100
