"""Both passes: shards hold every document once, and have the same bytes after any kill."""

import json
import os
import random
import re
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from preprocess.config import PrepareConfig, SentencePieceConfig, WordConfig
from preprocess.corpus import batch
from preprocess.corpus.first_pass import tokenize_unit
from preprocess.corpus.job import Job
from preprocess.corpus.known import KnownCorpus
from preprocess.corpus.last_pass import COUNT, finish_group, read_counts
from preprocess.corpus.near.blocks import Blocks
from preprocess.files import storage
from preprocess.files.manifest import hash_file
from preprocess.reading.listing import list_source
from preprocess.reading.units import Unit, plan_units
from preprocess.shards.document_keys import DocumentKeys
from preprocess.shards.format import Shard
from preprocess.shards.origins import FATES, DocumentKey, Origins
from preprocess.shards.stream import TokenStream
from preprocess.text.config import SPLITS, CleaningConfig, NearDuplicateConfig
from preprocess.text.splits import splits_of, text_hash
from preprocess.tokenizers.load import Tokenizer, load_tokenizer, train_tokenizer
from preprocess.work.damage import DamagedWork
from preprocess.work.done import read_group_records
from preprocess.work.folder import (
    read_unit_record,
    unit_record,
    write_record,
)
from tests.preprocess.comparing import compare_job
from tests.preprocess.corpus.test_known import write_corpus

BUCKETS = 3
SETTINGS: dict[str, Any] = {
    "valid_fraction": 0.2,
    "test_fraction": 0.1,
    "shard_tokens": 100,
    "part_tokens": 150,
    "unit_bytes": 1024,
}


def split_of(content: int, valid_fraction: float, test_fraction: float) -> str:
    """Return the split of a content hash."""
    high = np.array([content >> 64], np.uint64)
    return SPLITS[int(splits_of(high, valid_fraction, test_fraction)[0])]


@pytest.fixture(autouse=True)
def _fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    # Small batches, so that a unit of a few dozen documents has several segments.
    monkeypatch.setattr(batch, "BATCH_DOCUMENTS", 16)


def lines() -> list[str]:
    """Return about 4 kB of text with repeated, empty and one-word lines."""
    draw = random.Random(1)
    words = ["ab", "cd", "é", "猫", "gh", "xyz", "0"]
    distinct = [" ".join(draw.choices(words, k=draw.randrange(12))) for _ in range(120)]
    return [draw.choice(distinct) for _ in range(200)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with raw text and a tokenizer trained on it."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "a.txt").write_text("\n".join(lines()[:150]) + "\n")
    (folder / "b.jsonl").write_text(
        "".join(json.dumps({"text": line}) + "\n" for line in lines()[150:]) + "{broken\n"
    )
    config = SentencePieceConfig(vocabulary=300)
    train_tokenizer(config, lines()).save(str(folder / "tokenizer"))
    return folder


def plan(corpus: Path, output: str, **settings: Any) -> tuple[Job, list[Unit], Tokenizer]:
    config = PrepareConfig(
        **{"input": (f"{corpus}/a.txt", f"{corpus}/b.jsonl"), **SETTINGS, **settings}
    )
    tokenizer = load_tokenizer(str(corpus / "tokenizer"))
    work, size = f"{output}/_work", tokenizer.vocabulary
    files = [list_source(source) for source in config.sources]
    units = plan_units(config.sources, files, config.unit_bytes)
    folder = f"{corpus}/tokenizer"
    blocks = Blocks(len(units), 1)
    job = Job(
        work, output, config, folder, str(corpus), size, BUCKETS, BUCKETS, len(units), 2, blocks
    )
    return job, units, tokenizer


def prepare(job: Job, units: Sequence[Unit]) -> None:
    """Run both passes on units in this order."""
    for unit in units:
        tokenize_unit(job, unit)
    compare_job(job)
    for group in range(job.groups):
        finish_group(job, group)


def finished(job: Job) -> list[dict[str, Any]]:
    """Return the records of all groups."""
    return list(read_group_records(job.work, map(job.units_of, range(job.groups))))


def made(output: str) -> dict[str, bytes]:
    """Return name and bytes of all result files, and of the records that the manifest is made from."""
    names = [*storage.list_names(output)]
    names += [f"_work/groups/{name}" for name in storage.list_names(f"{output}/_work/groups")]
    names += [f"_work/counts/{name}" for name in storage.list_names(f"{output}/_work/counts")]
    return {name: storage.read_bytes(f"{output}/{name}") for name in names}


def shards(job: Job, units: Sequence[Unit]) -> list[Shard]:
    rows = [row for record in finished(job) for row in record["files"]]
    found = []
    for row in rows:
        assert (row["bytes"], row["xxh128"]) == hash_file(f"{job.output}/{row['name']}")
        if row["name"].endswith(".bin"):
            found.append(Shard(job.output, row["name"].removesuffix(".bin"), **row["counts"]))
    return found


def documents(job: Job, units: Sequence[Unit], split: str) -> list[list[int]]:
    found = []
    for shard in shards(job, units):
        if shard.split == split:
            cuts = np.cumsum(shard.lengths)[:-1]
            found += [piece.tolist() for piece in np.split(shard.ids, cuts)]
    return found


def expected(tokenizer: Tokenizer, job: Job, deduplicate: bool) -> dict[str, list[list[int]]]:
    sides: dict[str, list[list[int]]] = {split: [] for split in SPLITS}
    seen: set[str] = set()
    for text in lines():
        if text and not (deduplicate and text in seen):
            seen.add(text)
            content = text_hash(text.encode())
            side = split_of(content, job.config.valid_fraction, job.config.test_fraction)
            sides[side].append(tokenizer.encode([text])[0].tolist())
    return sides


@pytest.mark.parametrize("deduplicate", [True, False])
def test_shards_hold_the_documents_in_order_and_the_totals_balance(
    tmp_path: Path, corpus: Path, deduplicate: bool
) -> None:
    job, units, tokenizer = plan(corpus, str(tmp_path / "out"), deduplicate=deduplicate)
    assert len(units) > 2
    prepare(job, units)
    sides = expected(tokenizer, job, deduplicate)
    assert all(len(side) > 3 for side in sides.values())
    for split in SPLITS:
        assert documents(job, units, split) == sides[split]
    read = sum(record["read"] for record in finished(job))
    assert read == sum(read_unit_record(job.work, unit.index)["read"] for unit in units)
    dropped: Counter[str] = Counter()
    for record in finished(job):
        dropped.update(record["dropped"])
    duplicates = dropped.pop("duplicate", 0)
    assert dropped == {"empty": lines().count(""), "invalid_json": 1}
    assert (duplicates > 50) == deduplicate
    written = sum(shard.documents for shard in shards(job, units))
    assert read == written + duplicates + sum(dropped.values()) == 201


def test_shard_sizes_are_sums_over_the_documents_kept(tmp_path: Path, corpus: Path) -> None:
    job, units, _ = plan(corpus, str(tmp_path / "out"))
    prepare(job, units)
    texts = {text for text in lines() if text}
    found = shards(job, units)
    assert sum(shard.words for shard in found) == sum(len(text.split()) for text in texts)
    assert sum(shard.characters for shard in found) == sum(map(len, texts))
    assert sum(shard.text_bytes for shard in found) == sum(len(t.encode()) for t in texts)
    assert sum(shard.tokens for shard in found) == sum(len(shard.ids) for shard in found)
    assert {shard.source for shard in found} == {"corpus"}
    assert len([shard for shard in found if shard.split == "train"]) > job.groups


def test_counts_are_those_of_the_train_split(tmp_path: Path, corpus: Path) -> None:
    job, units, _ = plan(corpus, str(tmp_path / "out"))
    prepare(job, units)
    counts: Counter[int] = Counter()
    for record in finished(job):
        table = read_counts(job.work, record)
        assert table.dtype == COUNT
        counts.update(dict(table.tolist()))
    train = documents(job, units, "train")
    assert counts == Counter(token for document in train for token in document)


def test_the_memory_of_the_counts_does_not_depend_on_the_vocabulary(
    tmp_path: Path, corpus: Path
) -> None:
    vocabulary = 50_000_000
    job, units, _ = plan(corpus, str(tmp_path / "out"), deduplicate=False)
    job = replace(job, vocabulary=vocabulary)
    for unit in units:
        tokenize_unit(job, unit)
    for part in Path(job.work, "parts").glob("*.bin"):
        ids = np.fromfile(part, "<u4")
        (vocabulary - 1 - ids).astype("<u4").tofile(part)
    for unit in units:
        record = read_unit_record(job.work, unit.index)
        del record["hashes"]
        write_record(unit_record(job.work, unit.index), record)
    tracemalloc.start()
    finish_group(job, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
    for group in range(1, job.groups):
        finish_group(job, group)
    counts: Counter[int] = Counter()
    for record in finished(job):
        table = read_counts(job.work, record)
        assert (np.diff(table["id"]) > 0).all()
        counts.update(dict(table.tolist()))
    trained = [np.asarray(s.ids) for s in shards(job, units) if s.split == "train"]
    assert counts == Counter(np.concatenate(trained).tolist())


def test_the_bytes_do_not_depend_on_the_order_of_work_or_the_storage(
    tmp_path: Path, corpus: Path
) -> None:
    job, units, _ = plan(corpus, str(tmp_path / "one"))
    prepare(job, units)
    undisturbed = made(job.output)
    assert {"dropped-000004-000.jsonl", "origins-000004-000.zst"} <= undisturbed.keys()
    job, units, _ = plan(corpus, str(tmp_path / "two"))
    prepare(job, units[::-1])
    assert made(job.output) == undisturbed
    storage.remove_tree("memory://last-pass")
    job, units, _ = plan(corpus, "memory://last-pass/out")
    prepare(job, units)
    assert made(job.output) == undisturbed


class Killed(BaseException):
    """Raised in place of kill -9; no code may catch it."""


def test_a_kill_between_any_two_writes_changes_no_byte(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, units, _ = plan(corpus, str(tmp_path / "whole"))
    prepare(job, units)
    undisturbed = made(job.output)
    atomic_writer, copy = storage.atomic_writer, storage.copy
    left = 0

    def die_at_the_last(target: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            # A killed writer leaves a temporary file.
            path = Path(target)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f"{storage.TEMPORARY}host-1-{path.name}").write_bytes(b"\0")
            raise Killed

    def dying_writer(path: str) -> AbstractContextManager[IO[bytes]]:
        die_at_the_last(path)
        return atomic_writer(path)

    def dying_copy(source: str, target: str) -> None:
        die_at_the_last(target)
        copy(source, target)

    monkeypatch.setattr(storage, "atomic_writer", dying_writer)
    monkeypatch.setattr(storage, "copy", dying_copy)
    kills = 0
    for life in range(0, 1000, 3):
        left = life
        job, units, _ = plan(corpus, str(tmp_path / str(life)))
        try:
            prepare(job, units)
            break
        except Killed:
            kills += 1
        left = 10**6
        prepare(job, units)
        found = made(job.output)
        assert {k: v for k, v in found.items() if storage.TEMPORARY not in k} == undisturbed
    assert kills > 20


@pytest.mark.parametrize("similarity", [None, 0.8])
def test_many_kills_in_a_row_change_no_byte(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, similarity: float | None
) -> None:
    near = NearDuplicateConfig(similarity=similarity)
    job, known_units, _ = plan(corpus, str(tmp_path / "known"), input=f"{corpus}/a.txt")
    prepare(job, known_units)
    keys = {
        name: DocumentKeys.decode(storage.read_bytes(f"{job.output}/{name}"), name)
        for name in storage.list_names(job.output)
        if name.startswith("keys-")
    }
    folder = str(tmp_path / "finished")
    manifest = write_corpus(folder, keys)
    known = (KnownCorpus(folder, manifest.content, len(known_units), False),)
    _, units, _ = plan(corpus, str(tmp_path / "whole"))

    def job_in(name: str) -> Job:
        job, units, _ = plan(corpus, str(tmp_path / name), near_duplicates=near)
        return replace(job, known=known, blocks=Blocks(len(units), 2))

    job = job_in("whole")
    prepare(job, units)
    undisturbed = made(job.output)
    dropped = sum((Counter(record["dropped"]) for record in finished(job)), Counter())
    assert dropped["known"] > 20
    job = job_in("killed")
    atomic_writer = storage.atomic_writer
    lives: Iterator[int] = iter(range(10**6))
    budget = 0

    def dying_writer(path: str) -> AbstractContextManager[IO[bytes]]:
        if next(lives) >= budget:
            raise Killed
        return atomic_writer(path)

    monkeypatch.setattr(storage, "atomic_writer", dying_writer)
    # Each run must be long enough for a group of units, or there would be no progress.
    for _ in range(100):
        lives, budget = iter(range(10**6)), 45
        try:
            prepare(job, units)
            break
        except Killed:
            pass
    assert made(job.output) == undisturbed


def test_a_part_with_duplicates_only_gives_no_shard(tmp_path: Path, corpus: Path) -> None:
    (corpus / "c.txt").write_text("ab cd\nab\n")
    (corpus / "d.txt").write_text("ab\nab cd\nab\n")
    given = [
        {"name": name, "path": f"{corpus}/{name}.txt", "split": split}
        for name, split in (("c", "train"), ("d", "valid"))
    ]
    job, units, _ = plan(corpus, str(tmp_path / "out"), input=given)
    prepare(job, units)
    assert [record["dropped"] for record in finished(job)] == [{"duplicate": 3}]
    assert [shard.source for shard in shards(job, units)] == ["c"]


def test_near_duplicates_are_dropped_besides_exact_ones(tmp_path: Path, corpus: Path) -> None:
    draw = random.Random(3)
    texts = ["".join(draw.choices("abcdefgh ", k=400)).strip() for _ in range(6)]
    near = [text[:200] + "Z" + text[201:] for text in texts[:3]]
    every = [*texts, texts[5], *near, near[0]]
    (corpus / "near.txt").write_text("\n".join(every))
    settings: dict[str, Any] = {
        "input": f"{corpus}/near.txt",
        "valid_fraction": 0.0,
        "test_fraction": 0.0,
    }
    settings["unit_bytes"] = 1 << 20
    job, units, tokenizer = plan(
        corpus, str(tmp_path / "out"), near_duplicates=NearDuplicateConfig(similarity=0.8),
        keep_dropped=True, **settings,
    )  # fmt: skip
    prepare(job, units)
    [record] = finished(job)
    assert record["dropped"] == {"duplicate": 2, "near_duplicate": 3}
    cleaned = [" ".join(text.split()) for text in texts]
    assert documents(job, units, "train") == [ids.tolist() for ids in tokenizer.encode(cleaned)]
    aside = [n for n in storage.list_names(job.output) if n.startswith("dropped-")]
    rows = [
        json.loads(line)
        for name in aside
        for line in storage.read_bytes(f"{job.output}/{name}").decode().splitlines()
    ]
    kept = sorted((row["reason"], row["text"], row["of"]) for row in rows)
    reasons = ["duplicate", *["near_duplicate"] * 3, "duplicate"]
    numbers = [5, 0, 1, 2, 7]
    assert kept == sorted(
        (reason, " ".join(text.split()), f"000000 {number}")
        for reason, text, number in zip(reasons, every[6:], numbers, strict=True)
    )


@pytest.mark.parametrize("deduplicate", [True, False])
def test_origins_tell_where_each_document_is_and_what_became_of_it(
    tmp_path: Path, corpus: Path, deduplicate: bool
) -> None:
    job, units, tokenizer = plan(corpus, str(tmp_path / "out"), deduplicate=deduplicate)
    prepare(job, units)
    texts = {name: (corpus / name).read_bytes() for name in ("a.txt", "b.jsonl")}
    found: dict[str, list[list[int]]] = {split: [] for split in SPLITS}
    first: dict[str, DocumentKey] = {}
    duplicates = 0
    for record in finished(job):
        for row in record["origins"]:
            path = f"{job.output}/{row['name']}"
            origins = Origins.decode(storage.read_bytes(path), path)
            assert (row["bytes"], row["xxh128"]) == hash_file(path)
            for index in range(len(origins)):
                run, place = origins.file(index), int(origins.places[index])
                line = texts[run.name][place:].partition(b"\n")[0]
                text = json.loads(line)["text"] if run.name == "b.jsonl" else line.decode()
                key = DocumentKey(int(row["name"].split("-")[1]), origins.first + index)
                fate = FATES[origins.fates[index]]
                if fate == "duplicate":
                    assert origins.original_of(index) == first[text]
                    duplicates += 1
                    continue
                assert text not in first or not deduplicate
                first[text] = key
                found[fate].append(tokenizer.encode([text])[0].tolist())
    assert found == expected(tokenizer, job, deduplicate)
    assert (duplicates > 50) == deduplicate


def test_parts_of_version_0_1_are_finished_without_origins(tmp_path: Path, corpus: Path) -> None:
    job, units, _ = plan(corpus, str(tmp_path / "whole"), keep_dropped=True)
    prepare(job, units)
    whole = made(job.output)
    job, units, _ = plan(corpus, str(tmp_path / "former"), keep_dropped=True)
    for unit in units[:2]:
        tokenize_unit(job, unit)
        record = read_unit_record(job.work, unit.index)
        for part in record["parts"]:
            storage.remove(f"{job.work}/parts/{part.pop('origins')}.zst")
        write_record(unit_record(job.work, unit.index), record)
    prepare(job, units)
    found = made(job.output)
    former = {name for name in whole if name.startswith(("origins-000000", "origins-000001"))}
    assert former
    assert whole.keys() - found.keys() == former
    same = [name for name in found if not name.startswith(("_work/groups", "dropped-"))]
    assert {name: found[name] for name in same} == {name: whole[name] for name in same}


@pytest.mark.parametrize("name", ["train-*.bin", "train-*.npy", "origins-*.zst"])
def test_a_damaged_part_is_told(tmp_path: Path, corpus: Path, name: str) -> None:
    job, units, _ = plan(corpus, str(tmp_path / "out"), deduplicate=False)
    tokenize_unit(job, units[0])
    part = min(Path(job.work, "parts").glob(name))
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)
    message = f"{part} is damaged (its checksum does not match); delete {job.work}, which holds"
    with pytest.raises(DamagedWork, match=re.escape(message)):
        finish_group(job, 0)
    part.unlink()
    with pytest.raises(DamagedWork, match=re.escape(f"{part} is damaged (it is missing)")):
        finish_group(job, 0)


def test_damaged_counts_are_told(tmp_path: Path, corpus: Path) -> None:
    job, units, _ = plan(corpus, str(tmp_path / "out"), deduplicate=False)
    prepare(job, units)
    path = Path(job.work, "counts", "000000.bin")
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises(DamagedWork, match=r"000000\.bin is damaged"):
        read_counts(job.work, finished(job)[0])


def test_a_group_with_a_damaged_shard_is_finished_again(tmp_path: Path, corpus: Path) -> None:
    job, units, _ = plan(corpus, str(tmp_path / "out"), deduplicate=False)
    prepare(job, units)
    whole = made(job.output)
    shard = min(Path(job.output).glob("train-*.len"))
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + b"\x07")
    for group in range(job.groups):
        finish_group(job, group)
    assert made(job.output) == whole
    shard.unlink()  # as if it were published
    for group in range(job.groups):
        finish_group(job, group)
    assert not shard.exists()


def test_histograms_count_the_documents_kept(tmp_path: Path, corpus: Path) -> None:
    job, units, _ = plan(corpus, str(tmp_path / "out"))
    prepare(job, units)
    for name in ("tokens", "tokens_per_word"):
        bins: Counter[str] = Counter()
        for record in finished(job):
            bins.update(record["histograms"][name])
        assert bins.total() == sum(shard.documents for shard in shards(job, units))


def test_a_finished_group_is_not_changed(tmp_path: Path, corpus: Path) -> None:
    job, units, _ = plan(corpus, str(tmp_path / "out"))
    prepare(job, units)
    undisturbed = made(job.output)
    storage.remove_tree(f"{job.work}/parts")
    storage.remove_tree(f"{job.work}/hashes")
    prepare(job, units)
    assert made(job.output) == undisturbed


def test_a_source_with_a_split_keeps_every_line_if_nothing_is_dropped(
    tmp_path: Path, corpus: Path
) -> None:
    given = [
        {"name": f"{split}-text", "path": f"{corpus}/{name}", "split": split}
        for split, name in (("train", "a.txt"), ("test", "b.jsonl"))
    ]
    job, units, tokenizer = plan(
        corpus, str(tmp_path / "out"), input=given, deduplicate=False, drop_empty=False
    )
    prepare(job, units)
    encoded = [ids.tolist() for ids in tokenizer.encode(lines())]
    assert documents(job, units, "train") == encoded[:150]
    assert documents(job, units, "test") == encoded[150:]
    assert documents(job, units, "valid") == []
    train = [shard for shard in shards(job, units) if shard.split == "train"]
    assert {shard.source for shard in train} == {"train-text"}


@pytest.mark.parametrize(
    ("name", "types", "train", "valid"),
    [
        ("ptb/ptb.{}.txt", 9_999, 929_589, 73_760),
        # Blank lines are documents, too.
        ("wikitext-2/wiki.{}.tokens", 33_277, 2_088_628, 217_646),
    ],
)
def test_a_benchmark_corpus_is_reproduced_token_for_token(
    tmp_path: Path,
    name: str,
    types: int,
    train: int,
    valid: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = os.environ.get("BILOOM_TEST_DATA")
    if not data:
        pytest.skip("BILOOM_TEST_DATA is unset: no Penn Treebank and no WikiText-2")
    paths = {split: f"{data}/lm/{name.format(split)}" for split in ("train", "valid")}
    if not Path(paths["train"]).exists():
        pytest.skip(f"{paths['train']} does not exist")
    monkeypatch.undo()
    lines = Path(paths["train"]).read_text().split("\n")[:-1]
    tokenizer = train_tokenizer(WordConfig(), lines)
    tokenizer.save(str(tmp_path / "tokenizer"))
    assert tokenizer.vocabulary == 3 + types
    given = [{"name": s, "path": path, "split": s} for s, path in paths.items()]
    # WikiText-2 has the word U+FEFF, which cleaning would remove.
    cleaning = CleaningConfig(unicode="none", control_characters="keep")
    job, units, _ = plan(
        tmp_path, str(tmp_path / "out"), input=given, deduplicate=False, drop_empty=False,
        cleaning=cleaning, unit_bytes=None, shard_tokens=200_000, part_tokens=200_000,
    )  # fmt: skip
    prepare(job, units)
    streams = {
        split: TokenStream([s for s in shards(job, units) if s.split == split], "eos")
        for split in paths
    }
    assert (len(streams["train"]), len(streams["valid"])) == (train, valid)
    left, right = streams["train"].read(0, 0, train)
    words = [word for line in lines for word in [*line.split(), "</s>"]]
    assert [tokenizer.spelling(int(token)) for token in right] == words
    assert left[1:].tolist() == right[:-1].tolist()
