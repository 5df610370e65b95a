"""The store that counts requests, and the figures at 2 TB."""

from pathlib import Path

import counting_store
import fsspec
import pytest
import scale
from counting_store import Counts, in_phase, register


@pytest.fixture
def counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counts:
    found = Counts()
    monkeypatch.setattr(counting_store, "COUNTS", found)
    register(tmp_path)
    return found


def test_requests_are_those_that_s3fs_makes(counts: Counts) -> None:
    fs = fsspec.filesystem("count")
    for number in range(2001):
        fs.pipe_file(f"a/b/{number}", b"12345")
    assert fs.cat_file("a/b/7", start=1, end=3) == b"23"
    with pytest.raises(FileNotFoundError):
        fs.cat_file("a/none")
    assert not fs.exists("a/none")
    assert len(fs.ls("a/b")) == len(fs.find("a")) == 2001
    fs.copy(["a/b/1", "a/b/2"], ["c/1", "c/2"])
    fs.rm("a", recursive=True)
    kinds = {kind: number for (_, kind), number in counts.requests.items()}
    assert kinds == {
        "PUT": 2001,
        "GET": 2,
        "HEAD": 3,
        "LIST": 1 + 3 + 3 + 3,
        "COPY": 2,
        "DELETE": 3,
    }
    assert dict(counts.bytes) == {("driver", "written"): 5 * 2001, ("driver", "read"): 2}


def test_requests_are_counted_by_phase(counts: Counts) -> None:
    fs = fsspec.filesystem("count")
    with in_phase("merge"):
        fs.pipe_file("a/b", b"1")
    fs.cat_file("a/b")
    assert dict(counts.requests) == {("merge", "PUT"): 1, ("driver", "GET"): 1}


def test_the_comparison_grows_with_lists_and_pieces_and_all_else_with_units() -> None:
    assert scale._growth("tokenize_unit", 1000, 5000) == 100
    # 256 lists and 391 runs, the offsets and the rows of each.
    for name in ("collect_drops:hashes", "compare_keys:hashes", "collect_drops:bands"):
        assert scale._growth(name, 1000, 1000) == 2 * 256 * 391 / 1000
    # Four pieces a run: 256 units of 10,000 documents with 10 bands of 40 bytes.
    assert scale._gets("compare_keys", "bands") == 2 * 256 * 391 * 4
