"""Raw files that change, vanish or cannot be read."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from preprocess.config import Source
from preprocess.files import storage
from preprocess.files.remote import ranges
from preprocess.reading.byte_range import DamagedFile, read_errors_as_damaged
from preprocess.reading.listing import list_source
from preprocess.reading.reader import Limits, UnitReader, read_unit
from preprocess.reading.stream import Tape
from preprocess.reading.units import Unit, plan_units
from preprocess.text.config import CleaningConfig

SKIP = Limits(skip_damaged=True)


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[Path, Source, Unit]:
    for name in ("a.txt", "b.txt", "c.txt"):
        (tmp_path / name).write_text(f"one {name}\ntwo {name}\n")
    source = Source(path=f"{tmp_path}/*.txt")
    (unit,) = plan_units([source], [list_source(source)], None)
    return tmp_path / "b.txt", source, unit


def documents(reader: UnitReader) -> list[str]:
    return [text for block in reader for text in block.documents]


def shrink(path: Path) -> None:
    path.write_text("one b.txt\n")


def vanish(path: Path) -> None:
    path.unlink()


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[Callable[[Path], None], str] = {
    shrink: "ends after 10 bytes, but had 20 when the work was planned; replace it with an intact copy",
    vanish: r"cannot be read \(No such file or directory\); replace it with an intact copy",
    become_a_folder: r"cannot be read \(Is a directory\)",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_unreadable_file_stops_the_work_or_is_counted(
    corpus: tuple[Path, Source, Unit], damage: Callable[[Path], None]
) -> None:
    path, source, unit = corpus
    damage(path)
    with pytest.raises(DamagedFile, match=f"b.txt: {DAMAGE[damage]}"):
        documents(read_unit(unit, source, CleaningConfig()))
    reader = read_unit(unit, source, CleaningConfig(), SKIP)
    blocks = list(reader)
    rejected = [one for block in blocks for one in block.rejected]
    assert [(one.reason, one.where) for one in rejected] == [("damaged_file", "b.txt")]
    found = [text for block in blocks for text in block.documents]
    read_before = ["one b.txt"] if damage is shrink else []
    assert found == ["one a.txt", "two a.txt", *read_before, "one c.txt", "two c.txt"]
    assert sum(block.raw_bytes for block in blocks) == 60
    assert len(reader.digests) == 3


def test_the_bytes_read_so_far_contain_all_documents(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("".join(f"{name} line {n}\n" for n in range(300)))
    source = Source(path=f"{tmp_path}/*.txt")
    (unit,) = plan_units([source], [list_source(source)], None)
    reader = read_unit(unit, source, CleaningConfig(), block_bytes=512)
    assert reader.read_so_far() == []
    before = 0
    for block in reader:
        read = reader.read_so_far()
        data = b""
        for piece, (end, digest, *_) in zip(unit.ranges, read, strict=False):
            data += Path(piece.path).read_bytes()[:end]
            assert digest == xxhash.xxh128_hexdigest(Path(piece.path).read_bytes()[:end])
        assert block.documents[-1].encode() in data
        assert len(data) >= before
        before = len(data)
    whole = [(piece.end, digest) for piece, digest in zip(unit.ranges, reader.digests, strict=True)]
    assert [(one.end, one.xxh128) for one in reader.read_so_far()] == whole


def test_missing_permission_is_a_damaged_file_and_a_network_error_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def raise_in(path: str, error: OSError) -> None:
        with read_errors_as_damaged(path):
            raise error

    with pytest.raises(DamagedFile, match=r"a: cannot be read \(not yours\)"):
        raise_in("a", PermissionError(13, "not yours"))
    with pytest.raises(DamagedFile, match="s3://b/a: cannot be read"):
        raise_in("s3://b/a", FileNotFoundError("s3://b/a"))
    with pytest.raises(DamagedFile, match="a: cannot be read"):
        raise_in("a", OSError(5, "Input/output error"))
    with pytest.raises(TimeoutError):
        raise_in("s3://b/a", TimeoutError("slow"))


def test_a_file_that_grew_is_read_as_planned(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntw")
    source = Source(path=str(path))
    plans = [plan_units([source], [list_source(source)], size) for size in (5, 100)]
    path.write_text("one\ntwo three\n")
    for units in plans:
        read = [read_unit(unit, source, CleaningConfig()) for unit in units]
        assert [text for reader in read for text in documents(reader)] == ["one", "tw"]


def test_a_unit_of_a_remote_file_takes_two_requests_and_little_more_than_its_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = [f'{{"text": "{number} {"x" * 5000}"}}\n' for number in range(1000)]
    storage.write_bytes("memory://raw/a.jsonl", "".join(lines).encode())
    source = Source(path="memory://raw/a.jsonl")
    units = plan_units([source], [list_source(source)], 2_000_000)
    requests: list[int] = []
    real = ranges.read_range

    def counting(fs: Any, inner: str, start: int, end: int) -> bytes:
        requests.append(end - start)
        return real(fs, inner, start, end)

    monkeypatch.setattr(storage, "read_range", counting)
    texts = [documents(read_unit(unit, source, CleaningConfig())) for unit in units]
    found = [text for unit_texts in texts for text in unit_texts]
    assert found == [json.loads(line)["text"] for line in lines]
    assert len(units) == 3
    assert len(requests) == 6
    assert sum(requests) < sum(map(len, lines)) + 6 * 65_536


@given(sizes=st.lists(st.integers(0, 9), max_size=12), asked=st.lists(st.integers(0, 60)))
def test_a_tape_returns_bytes_by_offset_and_yields_every_chunk_once(
    sizes: list[int], asked: list[int]
) -> None:
    data = bytes(range(sum(sizes)))
    starts = [sum(sizes[:n]) for n in range(len(sizes))]
    tape = Tape((data[s : s + n] for s, n in zip(starts, sizes, strict=True)), limit=20)
    position = 0
    wanted = iter(asked)
    for chunk in tape:
        assert chunk == data[position : position + len(chunk)]
        start = next(wanted, 0)
        # The present chunk and 20 bytes before it are kept, and any bytes after it are read.
        if start >= position - 20:
            assert tape.read(start, start + 15) == data[start : start + 15]
        position += len(chunk)
    assert position == len(data)


def test_a_tape_forgets_bytes_before_its_limit() -> None:
    tape = Tape((bytes(10) for _ in range(1000)), limit=25)
    assert sum(map(len, tape)) == 10_000
    assert len(tape.read(0, 10_000)) == 40


def test_a_tape_raises_an_error_after_the_chunks_before_it() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"ab"
        raise DamagedFile("broken")

    tape = Tape(chunks(), limit=10)
    assert tape.read(0, 10) == b"ab"
    read = iter(tape)
    assert next(read) == b"ab"
    with pytest.raises(DamagedFile, match="broken"):
        next(read)
