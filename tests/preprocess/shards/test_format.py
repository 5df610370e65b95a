"""Shard files: their dtypes, local copies of remote ones, and the messages for damaged ones."""

import io
import json
import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xxhash

from preprocess.files.manifest import FileRecord, Manifest, ManifestError, write_manifest
from preprocess.files.storage import read_bytes, remove, write_bytes
from preprocess.shards import shard_order
from preprocess.shards.format import DOCUMENT, Corpus, Shard, ShardError, shard_counts, token_dtype
from preprocess.shards.stream import TokenStream
from preprocess.shards.windows import TrainingWindows


def make_shard(folder: str, dtype: str = "<u2", name: str = "train-000000-000") -> Shard:
    write_bytes(f"{folder}/{name}.bin", np.array([5, 6, 60_000], dtype).tobytes())
    write_bytes(f"{folder}/{name}.len", np.array([2, 0, 1], "<u4").tobytes())
    return Shard(folder, name, "train", "corpus", dtype, 3, 3, 3, 9, 9)


def test_up_to_65536_ids_take_two_bytes_each() -> None:
    assert [token_dtype(n).str for n in (3, 65_536, 65_537)] == ["<u2", "<u2", "<u4"]


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_a_shard_reads_back(tmp_path: Path, dtype: str) -> None:
    shard = make_shard(str(tmp_path), dtype)
    assert shard.ids.tolist() == [5, 6, 60_000]
    assert isinstance(shard.ids, np.memmap)
    assert shard.lengths.tolist() == [2, 0, 1]


def test_a_shard_of_empty_documents_has_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"")
    shard = Shard(str(tmp_path), "a", "train", "corpus", "<u2", 2, 0, 0, 0, 0)
    assert shard.ids.tolist() == []


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Corpus]:
    """A remote corpus of three shards with a cache for one shard and its lengths."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder, records = "memory://shards/a", []
    for number in range(3):
        name = f"train-{number}"
        for ending, numbers in (("bin", [5, 6, 60_000 + number]), ("len", [2, 0, 1])):
            data = np.array(numbers, "<u2" if ending == "bin" else "<u4").tobytes()
            write_bytes(f"{folder}/{name}.{ending}", data)
            documents = np.zeros(3, DOCUMENT)
            documents["tokens"] = [2, 0, 1]
            counts = shard_counts(documents, "train", "corpus", np.dtype("<u2"))
            columns = counts if ending == "bin" else {}
            digest = xxhash.xxh3_128_hexdigest(data)
            records.append(FileRecord(f"{name}.{ending}", len(data), digest, columns))
    write_manifest(
        folder, Manifest("prepare", 1, "0", "f", "c", {}, tuple(records), {"vocabulary": 1 << 16})
    )
    corpus = Corpus.open(folder, cache_bytes=20)
    yield corpus
    copies = corpus.shards("train")[0].copies
    assert copies
    copies.close()


def test_remote_shards_are_fetched_whole_into_a_bounded_cache(
    remote: Corpus, tmp_path: Path
) -> None:
    shards = remote.shards("train")
    for _ in range(2):
        for number, shard in enumerate(shards):
            assert shard.ids.tolist() == [5, 6, 60_000 + number]
            assert isinstance(shard.ids, np.memmap)
            assert shard.lengths.tolist() == [2, 0, 1]
            copies = list(tmp_path.glob("biloom-shards-*/files/*"))
            assert sum(path.stat().st_size for path in copies) <= 20
    assert pickle.loads(pickle.dumps(shards[0])).ids.tolist() == [5, 6, 60_000]


def test_a_mapped_shard_outlives_its_copy(remote: Corpus, tmp_path: Path) -> None:
    one, two, _ = remote.shards("train")
    mapped = one.ids
    assert two.ids[2] == 60_001
    assert two.lengths[0] == 2
    assert len(list(tmp_path.glob("biloom-shards-*/files/*"))) == 2
    assert mapped.tolist() == [5, 6, 60_000]


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"123456", "hash [0-9a-f]{32}, not [0-9a-f]{32}"), (b"1", "1 bytes, not 6")],
)
def test_a_damaged_remote_shard_is_refused(remote: Corpus, data: bytes, reason: str) -> None:
    write_bytes("memory://shards/a/train-1.bin", data)
    message = f"memory://shards/a/train-1.bin is damaged \\({reason}\\); run `biloom check "
    with pytest.raises(ShardError, match=f"^{message}memory://shards/a`, and copy "):
        _ = remote.shards("train")[1].ids


def test_a_missing_remote_shard_is_refused(remote: Corpus) -> None:
    remove("memory://shards/a/train-1.len")
    message = "memory://shards/a/train-1.len is missing; run `biloom check memory://shards/a`"
    with pytest.raises(ShardError, match=re.escape(message)):
        _ = remote.shards("train")[1].lengths


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to count open files")
def test_few_of_many_shards_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = [make_shard(str(tmp_path), name=f"train-{number}") for number in range(50)]
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    monkeypatch.setattr(shard_order, "OPEN_SHARDS", 5)
    stream = TokenStream(shards, "eos", "shuffled", 1)
    TrainingWindows(stream, 50, 2).batch(0)
    assert len(os.listdir("/proc/self/fd")) <= before + 5  # noqa: PTH208


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc to list memory maps")
def test_a_stream_closes_deleted_copies_and_reads_on(remote: Corpus, tmp_path: Path) -> None:
    stream = TokenStream(remote.shards("train"), "eos")
    for _ in range(2):
        assert stream.read(0, 0, 18)[1].tolist() == [
            token for n in range(3) for token in (5, 6, 2, 2, 60_000 + n, 2)
        ]
        maps = Path("/proc/self/maps").read_text().splitlines()
        ours = [line for line in maps if f"{tmp_path}/biloom-shards-" in line]
        assert ours
        assert not any(line.endswith("(deleted)") for line in ours)


def test_reading_an_open_shard_marks_its_copy_as_recently_used(
    remote: Corpus, tmp_path: Path
) -> None:
    first, second, third = remote.shards("train")
    assert first.copies
    first.copies.limit = 12
    stream = TokenStream([first], "eos")
    stream.read(0, 0, 6)
    assert second.ids[2] == 60_001
    stream.read(0, 0, 6)
    assert third.ids[2] == 60_002
    held = {path.name for path in tmp_path.glob("biloom-shards-*/files/*")}
    assert first.files["bin"].xxh128 in held
    assert second.files["bin"].xxh128 not in held


@pytest.mark.parametrize("size", [0, 4, 5, 8])
def test_a_damaged_shard_is_refused(tmp_path: Path, size: int) -> None:
    shard = make_shard(str(tmp_path))
    (tmp_path / "train-000000-000.bin").write_bytes(bytes(size))
    with pytest.raises(ShardError) as error:
        _ = shard.ids
    assert str(error.value) == (
        f"{tmp_path}/train-000000-000.bin is damaged ({size} bytes, not 6); "
        f"run `biloom check {tmp_path}`, and copy the folder again or make it again with "
        "`biloom prepare --overwrite`"
    )


@pytest.mark.parametrize("lengths", [[2, 1], [2, 0, 2], []])
def test_lengths_that_do_not_match_the_manifest_are_refused(
    tmp_path: Path, lengths: list[int]
) -> None:
    shard = make_shard(str(tmp_path))
    (tmp_path / "train-000000-000.len").write_bytes(np.array(lengths, "<u4").tobytes())
    with pytest.raises(
        ShardError, match=r"000\.len is damaged \(its lengths do not match the manifest\)"
    ):
        _ = shard.lengths


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    shard = make_shard(str(tmp_path))
    (tmp_path / "train-000000-000.bin").unlink()
    message = f"{tmp_path}/train-000000-000.bin is missing; run `biloom check {tmp_path}`"
    with pytest.raises(ShardError, match=re.escape(message)):
        _ = shard.ids


def _stranger(folder: Path, counts: dict[str, int | str], **details: object) -> Corpus:
    """A corpus of one shard with three tokens, described by somebody else."""
    records = []
    for ending, data in (("bin", b"\x05\0\x06\0\x09\0"), ("len", b"\3\0\0\0")):
        (folder / f"train-0.{ending}").write_bytes(data)
        digest = xxhash.xxh3_128_hexdigest(data)
        columns = counts if ending == "bin" else {}
        records.append(FileRecord(f"train-0.{ending}", len(data), digest, columns))
    made = {"vocabulary": 10, **details}
    write_manifest(str(folder), Manifest("prepare", 1, "0", "f", "c", {}, tuple(records), made))
    return Corpus.open(str(folder))


def _counts(**columns: int | str) -> dict[str, int | str]:
    documents = np.array([(0, 3, 1, 4, 5)], DOCUMENT)
    return {**shard_counts(documents, "train", "corpus", np.dtype("<u2")), **columns}


def test_a_hash_that_is_a_path_deletes_no_file(remote: Corpus, tmp_path: Path) -> None:
    """A local copy is named by the hash of its file, and a copy of another size is deleted."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    raw = json.loads(read_bytes(f"{remote.folder}/manifest.json"))
    raw["format"] = 1
    del raw["checksum"], raw["beside"]
    raw["files"][0]["xxh128"] = str(victim)
    write_bytes(f"{remote.folder}/manifest.json", json.dumps(raw).encode())
    with pytest.raises(ManifestError, match=r"the hash of 'train-0\.bin' is "):
        _ = Corpus.open(remote.folder).shards("train")[0].ids
    assert victim.read_bytes() == b"precious"


def test_an_id_beyond_the_vocabulary_is_refused(tmp_path: Path) -> None:
    [shard] = _stranger(tmp_path, _counts()).shards("train")
    assert shard.ids.tolist() == [5, 6, 9]
    [shard] = _stranger(tmp_path, _counts(), vocabulary=9).shards("train")
    with pytest.raises(ShardError, match=r"bin is damaged \(id 9 in a vocabulary of 9\)"):
        _ = shard.ids


@pytest.mark.parametrize(
    "columns",
    [
        {"split": "dev"},
        {"dtype": "object"},
        {"dtype": "<u8"},
        {"tokens": 4},
        {"documents": 2},
        {"words": "1"},
        {"odd": 1},
    ],
)
def test_a_shard_that_its_manifest_does_not_describe_is_refused(
    tmp_path: Path, columns: dict[str, int | str]
) -> None:
    corpus = _stranger(tmp_path, _counts(**columns))
    with pytest.raises(ManifestError, match="it does not describe shard 'train-0'"):
        corpus.shards("train")


@pytest.mark.parametrize("vocabulary", [0, -1, 1 << 31, "10", None, 1.5])
def test_a_corpus_with_a_wrong_vocabulary_is_refused(tmp_path: Path, vocabulary: object) -> None:
    with pytest.raises(ManifestError, match=r"\('vocabulary'(: Input should| is )"):
        _stranger(tmp_path, _counts(), vocabulary=vocabulary)


def _npy(array: object, **options: bool) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"counts\.npy is damaged \(not an npy file"),
        (b"\x93NUMPY\x01\0\x08\0(((((((\n", "not an npy file of uint64"),
        (_npy(np.zeros(9, np.uint64)), "of length 10"),
        (_npy(np.zeros(10, np.int64)), "not an npy file of uint64"),
        (_npy(np.zeros((10, 1), np.uint64)), r"shape \(10, 1\)"),
        (_npy(np.array([object()] * 10), allow_pickle=True), "not an npy file of uint64"),
        (_npy(np.zeros(10, np.uint64))[:-1], "207 bytes, too many or too few"),
        (_npy(np.zeros(10, np.uint64)) + b"0", "209 bytes, too many or too few"),
        (_npy(np.zeros(10, np.uint64)).replace(b"(10,)", b"(1<9)"), "not an npy file"),
        (None, r"counts\.npy is missing; run `biloom check"),
    ],
)
def test_wrong_counts_are_refused(tmp_path: Path, data: bytes | None, message: str) -> None:
    corpus = _stranger(tmp_path, _counts())
    if data is not None:
        (tmp_path / "counts.npy").write_bytes(data)
    with pytest.raises(ShardError, match=message):
        corpus.counts()


def test_a_changed_local_shard_is_refused(tmp_path: Path) -> None:
    [shard] = _stranger(tmp_path, _counts()).shards("train")
    for ending in ("bin", "len"):
        path = tmp_path / f"train-0.{ending}"
        path.write_bytes(path.read_bytes()[:-1] + b"\1")
    for read in (lambda: shard.ids, lambda: shard.lengths):
        with pytest.raises(ShardError, match=r"is damaged \(hash .*biloom prepare --overwrite`"):
            read()


def test_a_corpus_lists_the_shards_and_totals_of_a_split(tmp_path: Path) -> None:
    documents = np.array([(0, 2, 1, 4, 5), (3, 1, 1, 2, 2)], DOCUMENT)
    records = []
    for name in ("train-000000-000", "train-000001-000", "valid-000000-000"):
        counts = shard_counts(documents, name[:5], "corpus", token_dtype(10))
        records += [
            FileRecord(f"{name}.bin", 6, "0" * 32, counts),
            FileRecord(f"{name}.len", 8, "0" * 32),
        ]
    with pytest.raises(ManifestError, match="holds no finished 'prepare'"):
        Corpus.open(str(tmp_path))
    np.save(tmp_path / "counts.npy", np.arange(10, dtype=np.uint64))
    details = {"vocabulary": 10}
    write_manifest(
        str(tmp_path), Manifest("prepare", 1, "0", "f", "c", {}, tuple(records), details)
    )
    corpus = Corpus.open(str(tmp_path))
    assert [shard.name for shard in corpus.shards("train")] == [
        "train-000000-000",
        "train-000001-000",
    ]
    sums = {"documents": 4, "tokens": 6, "words": 4, "characters": 12, "text_bytes": 14}
    assert corpus.totals("train") == sums
    assert corpus.totals("test") == dict.fromkeys(sums, 0)
    assert corpus.vocabulary == 10
    assert corpus.counts().tolist() == list(range(10))
