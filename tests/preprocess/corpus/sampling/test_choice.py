"""Which places of which files a sample reads."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.config import Source
from preprocess.corpus.sampling.choice import SampleSize, choose_places, ending
from preprocess.files.search.found import FileInfo

SOURCE = Source(path="x")
SMALL = SampleSize(raw_bytes=1000, places=10, files=20)


def files(*sizes: int, start: str = "/") -> list[FileInfo]:
    return [
        FileInfo(f"{n:05d}.txt", f"{start}{n:05d}.txt", size, "") for n, size in enumerate(sizes)
    ]


def test_an_input_that_is_small_enough_is_read_completely() -> None:
    places = choose_places([SOURCE], [files(400, 0, 600)], 1, SMALL)
    assert [(one.file.bytes, one.starts, one.hits, one.is_whole) for one in places] == [
        (400, (0,), 400, True),
        (0, (0,), 0, True),
        (600, (0,), 600, True),
    ]


@given(
    st.lists(st.integers(0, 5000), min_size=1, max_size=60), st.integers(0, 2**32), st.booleans()
)
def test_a_sample_stays_within_its_limits_and_repeats(
    sizes: list[int], seed: int, remote: bool
) -> None:
    found = files(*sizes, start="s3://bucket/" if remote else "/")
    places = choose_places([SOURCE], [found], seed, SMALL)
    assert places == choose_places([SOURCE], [found], seed, SMALL)
    assert sorted(places, key=lambda one: one.file) == places
    read = sum(min(one.bytes * len(one.starts), one.file.bytes) for one in places)
    # The start of the first file, and one file of each ending, are added.
    assert read <= 1.2 * SMALL.raw_bytes
    assert len(places) <= (SMALL.places if remote else SMALL.files) + 2
    for one in places:
        assert all(start % one.bytes == 0 and start <= one.file.bytes for start in one.starts)
        assert list(one.starts) == sorted({*one.starts})


def test_a_file_is_read_in_proportion_to_its_size() -> None:
    [places] = [choose_places([SOURCE], [files(100_000, 300_000)], 7, SampleSize(10_000, 100))]
    assert [one.hits for one in places] == [25, 75]
    assert [one.bytes for one in places] == [100, 100]
    assert 0 in places[0].starts


def test_another_seed_gives_other_places_but_the_first_file_is_always_read() -> None:
    found = files(*[10_000] * 500)
    chosen = [choose_places([SOURCE], [found], seed, SMALL) for seed in range(3)]
    assert len({tuple(one.file.name for one in places) for places in chosen}) == 3
    assert {places[0].file.name for places in chosen} == {"00000.txt"}
    assert sum(one.hits for one in chosen[0]) == 10


def test_a_file_of_each_ending_is_read_and_does_not_count() -> None:
    rare = [FileInfo("a.pdf", "/a.pdf", 10, ""), FileInfo("b.jsonl.gz", "/b.jsonl.gz", 20, "")]
    places = choose_places([SOURCE], [[*rare, *files(*[100_000] * 50)]], 1, SMALL)
    added = {ending(one.file.name): one.hits for one in places}
    assert {".pdf", ".jsonl.gz", ".txt"} == set(added)
    assert added[".jsonl.gz"] == added[".pdf"] == 0


def test_every_source_has_places_and_many_sources_are_read_in_small_pieces() -> None:
    sources = [SOURCE] * 40
    places = choose_places(sources, [files(10**6) for _ in sources], 1, SMALL)
    assert Counter(one.source for one in places) == dict.fromkeys(range(40), 1)
    assert sum(one.bytes * len(one.starts) for one in places) <= 3 * SMALL.raw_bytes


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.txt", ".txt"),
        ("folder.d/a.TXT", ".txt"),
        ("a.jsonl.GZ", ".jsonl.gz"),
        ("a.gz", ".gz"),
        ("a.2024-01-01.gz", ".gz"),
        ("part-00001", ""),
        ("v1.5", ""),
        (".hidden", ""),
        ("a.", ""),
        ("an.abnormallylongpart", ""),
    ],
)
def test_the_ending_of_a_name(name: str, expected: str) -> None:
    assert ending(name) == expected
