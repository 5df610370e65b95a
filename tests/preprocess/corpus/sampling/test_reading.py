"""Reading the places of a sample: the documents, what the files are, and what cannot be read."""

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from preprocess.config import PrepareConfig
from preprocess.corpus.sampling.choice import SampleSize, choose_places
from preprocess.corpus.sampling.reading import FileSample, read_sample
from preprocess.corpus.sampling.summary import summarise
from preprocess.files import storage
from preprocess.files.errors import StoreError
from preprocess.reading.listing import list_source

LINES = [f"document {n} with {'words ' * (n % 7)}" for n in range(5000)]
TEXT = "".join(f"{line}\n" for line in LINES)
SMALL = SampleSize(raw_bytes=20_000, places=10, files=10)


def sample_of(
    path: Path, size: SampleSize = SMALL, seed: int = 1, **settings: Any
) -> tuple[list[FileSample], PrepareConfig]:
    config = PrepareConfig(input=({"path": str(path), **settings},))
    files = [list_source(source) for source in config.sources]
    places = choose_places(config.sources, files, seed, size)
    return read_sample(places, config, config.sources), config


def write(folder: Path, name: str) -> Path:
    path = folder / name
    jsonl = "".join(json.dumps({"text": line}) + "\n" for line in LINES)
    content = {
        ".txt": TEXT.encode(),
        ".gz": gzip.compress(TEXT.encode()),
        ".xz": lzma.compress(TEXT.encode()),
        ".jsonl": jsonl.encode(),
        ".utf16": TEXT.encode("utf-16"),
    }
    if path.suffix == ".parquet":
        table = pyarrow.table({"text": LINES})
        parquet.write_table(table, path, row_group_size=500, compression="none")
    else:
        path.write_bytes(content[path.suffix])
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.txt", ("text", "", "utf-8")),
        ("a.gz", ("text", "gzip", "utf-8")),
        ("a.xz", ("text", "xz", "utf-8")),
        ("a.jsonl", ("jsonl", "", "utf-8")),
        ("a.utf16", ("text", "", "utf-16-le")),
        ("a.parquet", ("parquet", "", "")),
    ],
)
def test_a_part_of_a_file_tells_what_it_is_and_how_many_documents_it_has(
    name: str, kind: tuple[str, str, str], tmp_path: Path
) -> None:
    path = write(tmp_path, name)
    [sample], config = sample_of(path)
    found = sample.kind
    assert (found.format, found.compression, found.stored_encoding) == kind
    assert sample.problem is None
    documents = [text for block in sample.blocks for text in block.documents]
    assert set(documents) <= set(LINES)
    assert documents[0] == LINES[0]
    # A file that is read from its start is read in chunks of this size.
    read_from_start = path.suffix in (".gz", ".xz", ".utf16")
    assert len(documents) < 0.6 * len(LINES) or (read_from_start and sample.raw_bytes <= 1 << 18)
    summary = summarise([sample], config.sources[0], config, path.stat().st_size, 1)
    assert summary.documents == pytest.approx(len(LINES), rel=0.1)
    assert summary.text_bytes == pytest.approx(len(TEXT) - len(LINES), rel=0.1)


def test_the_documents_of_a_place_are_those_that_start_in_it(tmp_path: Path) -> None:
    [sample], _ = sample_of(write(tmp_path, "a.txt"))
    starts = {TEXT.index(line + "\n") for block in sample.blocks for line in block.documents}
    for start in sorted(starts):
        assert any(place <= start < place + sample.places.bytes for place in sample.places.starts)


def test_a_file_that_cannot_be_read_has_the_message_of_the_reader(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("good\n")
    (tmp_path / "b.txt").write_bytes(b"%PDF-1.7\n" + bytes(range(256)) * 9)
    (tmp_path / "c.txt").write_bytes(b"")
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress(TEXT.encode())[:-9])
    (tmp_path / "e.gz").write_bytes(b"")
    samples, _ = sample_of(tmp_path / "*", SampleSize())
    problems = [str(sample.problem) for sample in samples]
    assert problems[0] == problems[2] == "None"
    assert "b.txt: this is a PDF document; extract its text" in problems[1]
    assert "d.txt.gz: this compressed file is truncated; replace it" in problems[3]
    assert "e.gz: this file is empty (0 bytes)" in problems[4]
    assert [sample.kind.format for sample in samples] == ["text", "", "", "text", ""]
    assert any(block.documents for block in samples[0].blocks)


def test_an_error_of_the_store_ends_the_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise StoreError("s3://bucket: no answer")

    monkeypatch.setattr(storage, "open_read", fail)
    with pytest.raises(StoreError, match="no answer"):
        sample_of(write(tmp_path, "a.txt"))


def test_files_of_a_store_are_read_in_threads_in_the_same_order(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for number in range(30):
        memory.pipe(f"/look/{number:02d}.txt", f"text {number}\n".encode() * 50)
        (tmp_path / f"{number:02d}.txt").write_text(f"text {number}\n" * 50)
    remote, _ = sample_of("memory://look/*.txt")  # type: ignore[arg-type]
    local, _ = sample_of(tmp_path / "*.txt")
    assert [one.places.file.name for one in remote] == [one.places.file.name for one in local]
    assert [one.blocks for one in remote] == [one.blocks for one in local]


def test_small_files_count_by_their_number(tmp_path: Path) -> None:
    """Places fall into large files more often, which must not change the number of documents."""
    for number in range(300):
        (tmp_path / f"{number:03d}.txt").write_text("x" * (50 if number % 10 else 2000))
    samples, config = sample_of(tmp_path / "*.txt", SampleSize(20_000, 50, 100), document="file")
    total = sum(file.stat().st_size for file in tmp_path.iterdir())
    summary = summarise(samples, config.sources[0], config, total, 1)
    assert summary.documents == pytest.approx(300, rel=0.25)
    assert summary.length_at(0.5) == 50
    assert summary.length_at(0.95) == 2000
