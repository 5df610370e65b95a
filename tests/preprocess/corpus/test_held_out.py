"""The share of documents that are held out follows from an estimate of their number."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from preprocess.config import PrepareConfig, Source
from preprocess.corpus.held_out import with_limited_shares
from preprocess.reading.listing import list_source

DOCUMENTS = 20_000
TEXT = "".join(f"{number} {'some words ' * 8}\n" for number in range(DOCUMENTS)).encode()
MOST = 500


def shares(folder: Path, *sources: Source, **settings: Any) -> PrepareConfig:
    config = PrepareConfig(
        input=[*sources],
        valid_fraction=0.5,
        test_fraction=0.01,
        held_out_documents=MOST,
        **settings,
    )
    return with_limited_shares(config, str(folder / "work"), [list_source(s) for s in sources])


def source(path: Path, data: bytes, **settings: Any) -> Source:
    path.write_bytes(data)
    return Source(name=path.stem, path=str(path), **settings)


def test_packed_text_has_the_share_of_the_same_text(tmp_path: Path) -> None:
    packed = gzip.compress(TEXT)
    assert len(TEXT) > 5 * len(packed)
    for name, data in (("plain.txt", TEXT), ("packed.txt.gz", packed)):
        found = shares(tmp_path / f"work-{name}", source(tmp_path / name, data))
        # Rounded to three binary digits.
        assert MOST / DOCUMENTS * 0.8 <= found.valid_fraction <= MOST / DOCUMENTS
        assert found.test_fraction == 0.01


def test_sources_with_a_split_of_their_own_do_not_count(tmp_path: Path) -> None:
    both = (
        source(tmp_path / "a.txt", TEXT),
        source(tmp_path / "b.txt", TEXT * 9, split="train"),
    )
    alone = shares(tmp_path / "alone", both[0])
    assert shares(tmp_path / "both", *both).valid_fraction == alone.valid_fraction


def test_a_file_that_cannot_be_read_counts_by_its_bytes(tmp_path: Path) -> None:
    broken = source(tmp_path / "broken.txt.gz", b"\x1f\x8b\x08\x00" + bytes(2_000_000))
    found = shares(tmp_path, broken, damaged_files="skip")
    assert 0.2 < found.valid_fraction < 0.3


def test_the_share_is_kept_while_work_is_unfinished(tmp_path: Path) -> None:
    first = shares(tmp_path, source(tmp_path / "a.txt", TEXT))
    assert shares(tmp_path, source(tmp_path / "a.txt", TEXT * 2)) == first.model_copy(
        update={"input": first.input}
    )


@pytest.mark.parametrize("most", [10**7, 10**6])
def test_a_small_corpus_is_not_sampled(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preprocess.corpus.held_out.read_sample", None)
    config = PrepareConfig(
        input=[source(tmp_path / "a.txt", TEXT)], valid_fraction=0.5, held_out_documents=most
    )
    files = [list_source(one) for one in config.sources]
    assert with_limited_shares(config, str(tmp_path / "work"), files).valid_fraction == 0.5
