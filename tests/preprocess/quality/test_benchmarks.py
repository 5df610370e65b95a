"""Decontamination: which documents match a benchmark, and what is told about its items."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.errors import UserError
from preprocess.quality.benchmarks import Benchmarks, content_of_benchmarks
from preprocess.text.quality.benchmark_config import Benchmark, DecontaminationConfig

WORDS = [f"word{number}" for number in range(400)]
QUESTION = "Which of the two old rivers that cross the town is longer, and why is it so?"


def write(path: Path, items: list[str]) -> str:
    path.write_text("\n".join(items) + "\n", encoding="utf-8")
    return str(path)


def test_a_shared_ngram_matches_whatever_case_punctuation_and_place(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.txt",
        ["Something else entirely that nobody would ever look at twice here.", QUESTION],
    )
    benchmarks = Benchmarks(DecontaminationConfig(benchmarks={"rivers": path}))
    thirteen = "the TWO old -- rivers, that cross the (town) is longer and why is it"
    documents = [
        f"Intro. {thirteen}. More.",
        "of the two old rivers that cross the town is longer",
        "",
        QUESTION,
    ]
    found = benchmarks.matches(documents)
    assert sorted(found) == [0, 3]
    assert found[0].benchmark == "rivers"
    assert found[0].item == 2
    assert found[0].ngram == "the two old rivers that cross the town is longer and why is"
    assert found[3].items == {"rivers": {2}}


def test_short_items_are_searched_as_a_whole_and_shorter_ones_told(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.txt", ["one two three four five six seven eight", "too short", QUESTION]
    )
    benchmarks = Benchmarks(DecontaminationConfig(benchmarks={"some": path}))
    read = benchmarks.items["some"]
    assert (read.items, read.short, read.without_text) == (3, 1, 0)
    found = benchmarks.matches(["zero one two three four five six seven eight nine", "too short"])
    assert {index: match.item for index, match in found.items()} == {0: 1}


def test_ngrams_do_not_reach_from_one_text_into_the_next(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", [QUESTION])
    benchmarks = Benchmarks(DecontaminationConfig(benchmarks={"some": path}))
    half = len(QUESTION) // 2
    assert benchmarks.matches([QUESTION[:half], QUESTION[half:]]) == {}


def test_files_of_several_formats_columns_and_benchmarks(tmp_path: Path) -> None:
    lines = [
        {"q": "Short?", "context": QUESTION},
        {"q": QUESTION.upper(), "context": None},
        {"q": "x"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    second = write(tmp_path / "b.txt", [" ".join(WORDS[:20])])
    third = write(tmp_path / "c.txt", [" ".join(WORDS[10:30])])
    config = DecontaminationConfig(
        benchmarks={
            "qa": Benchmark(path=str(tmp_path / "a.jsonl"), text="q", pair="context"),
            "words": (second, third),
        }
    )
    benchmarks = Benchmarks(config)
    assert benchmarks.items["qa"].items == 3
    assert any(": q" in note for note in benchmarks.items["qa"].notes)
    found = benchmarks.matches([QUESTION, " ".join(WORDS[:30]), " ".join(WORDS[30:60])])
    assert {index: (match.benchmark, match.item) for index, match in found.items()} == {
        0: ("qa", 1),
        1: ("words", 1),
    }
    assert found[1].items == {"words": {1, 2}}


def test_text_without_spaces_is_compared_by_letters(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", ["两条古老的河流穿过这座城市，哪一条更长？"])
    benchmarks = Benchmarks(DecontaminationConfig(benchmarks={"zh": path}))
    assert list(benchmarks.matches(["问：河流穿过这座城市哪一条更长！", "河流穿过城市"])) == [0]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6))
def test_matches_are_those_of_a_plain_search(seed: int, size: int) -> None:
    rng = random.Random(seed)
    items = [rng.choices(WORDS[:12], k=rng.randint(1, 9)) for _ in range(5)]
    documents = [rng.choices(WORDS[:12], k=rng.randint(0, 30)) for _ in range(20)]
    benchmarks = _benchmarks([" ".join(item) for item in items], size)
    if benchmarks is None:
        return

    def grams(words: list[str]) -> set[tuple[str, ...]]:
        return {tuple(words[at : at + size]) for at in range(len(words) - size + 1)}

    expected = {}
    for number, document in enumerate(documents):
        hits = {n for n, item in enumerate(items, start=1) if grams(item) & grams(document)}
        if hits:
            expected[number] = {"some": hits}
    found = benchmarks.matches([" ".join(document) for document in documents])
    assert {number: match.items for number, match in found.items()} == expected


def _benchmarks(items: list[str], size: int) -> Benchmarks | None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder, "items.txt"), items)
        try:
            return Benchmarks(DecontaminationConfig(benchmarks={"some": path}, ngram=size))
        except UserError:
            return None


def test_a_benchmark_without_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n{"text": null}\n')
    short = write(tmp_path / "b.txt", ["a b", "c d e"])
    for path, message in (
        (
            str(tmp_path / "a.jsonl"),
            r"benchmarks\.x: .*has no text; name its column with text: COLUMN",
        ),
        (short, r"none of the 2 items of .*has 8 words \(decontamination\.min_words\)"),
        (str(tmp_path / "none"), "cannot be read"),
    ):
        with pytest.raises(UserError, match=message):
            Benchmarks(DecontaminationConfig(benchmarks={"x": path}))


def test_the_contents_and_columns_count_and_not_the_path(tmp_path: Path) -> None:
    first, same, other = (
        DecontaminationConfig(benchmarks={"x": write(tmp_path / name, [text])})
        for name, text in (("a", "one"), ("b", "one"), ("c", "two"))
    )
    column = DecontaminationConfig(benchmarks={"x": Benchmark(path=str(tmp_path / "a"), text="t")})
    assert content_of_benchmarks(first) == content_of_benchmarks(same)
    assert len({content_of_benchmarks(one) for one in (first, other, column)}) == 3


def test_a_name_of_a_benchmark_is_simple() -> None:
    with pytest.raises(ValueError, match="'a b' is no name of a benchmark"):
        DecontaminationConfig(benchmarks={"a b": "x"})
