"""The first pass: tokens, parts, hashes and rejects of a unit, and resuming a killed pass."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess.config import PrepareConfig, WordConfig
from preprocess.corpus import batch, first_pass, rejects, segment
from preprocess.corpus.dedup import KEYS
from preprocess.corpus.first_pass import tokenize_unit
from preprocess.corpus.job import Job
from preprocess.corpus.near.blocks import Blocks
from preprocess.files import storage
from preprocess.files.storage import exists
from preprocess.reading.listing import list_source
from preprocess.reading.reader import read_unit
from preprocess.reading.units import Unit, plan_units
from preprocess.shards.format import DOCUMENT
from preprocess.shards.origins import Origins
from preprocess.text.config import CleaningConfig, FilterConfig, NearDuplicateConfig
from preprocess.text.splits import text_hash
from preprocess.tokenizers.load import Tokenizer, load_tokenizer, train_tokenizer
from preprocess.tokenizers.words import WordTokenizer
from preprocess.work import groups, records
from preprocess.work.folder import read_unit_record, unit_record
from preprocess.work.groups import read_group
from preprocess.work.progress import ProgressSums


def make_job(folder: Path, text: str | bytes, **settings: Any) -> tuple[Job, list[Unit], Tokenizer]:
    """Make a job for one file with a word tokenizer; by default, all documents are in train."""
    data = text.encode() if isinstance(text, str) else text
    raw = folder / settings.pop("name", "raw.txt")
    raw.write_bytes(data)
    config = PrepareConfig(**{"input": str(raw), "valid_fraction": 0.0, **settings})
    known = data.decode(errors="replace").split("\n")
    tokenizer = train_tokenizer(WordConfig(), known)
    tokenizer.save(str(folder / "tokenizer"))
    size = tokenizer.vocabulary
    work, output = str(folder / "out" / "_work"), str(folder / "out")
    files = [list_source(source) for source in config.sources]
    units = plan_units(config.sources, files, config.unit_bytes)
    saved = str(folder / "tokenizer")
    blocks = Blocks(len(units), 1)
    job = Job(work, output, config, saved, str(folder), size, 3, 5, len(units), 1, blocks)
    return job, units, tokenizer


def part(job: Job, name: str) -> tuple[list[list[int]], Any]:
    """Return the documents of a part as lists of ids, and its rows."""
    table = np.load(f"{job.work}/parts/{name}.npy")
    assert table.dtype == DOCUMENT
    ids = np.fromfile(f"{job.work}/parts/{name}.bin", "<u2")
    assert len(ids) == table["tokens"].sum()
    return [piece.tolist() for piece in np.split(ids, np.cumsum(table["tokens"])[:-1])], table


def read_origins(job: Job) -> Origins:
    path = f"{job.work}/parts/origins-000000-000.zst"
    return Origins.decode(Path(path).read_bytes(), path)


def encoded(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [ids.tolist() for ids in tokenizer.encode(texts)]


def test_a_unit_is_tokenised_in_order_with_its_sizes_and_hashes(tmp_path: Path) -> None:
    text = "a  b\n\nc à\u3000d\n a\nlast"
    job, [unit], tokenizer = make_job(tmp_path, text)
    assert tokenize_unit(job, unit) == 0
    texts = ["a b", "c à d", "a", "last"]
    documents, table = part(job, "train-000000-000")
    assert documents == encoded(tokenizer, texts)
    assert table.tolist() == [(0, 2, 2, 3, 3), (1, 3, 3, 5, 6), (2, 1, 1, 1, 1), (3, 1, 1, 4, 4)]
    done = read_unit_record(job.work, 0)
    assert (done["read"], done["dropped"], done["replaced"]) == (5, {"empty": 1}, 0)
    assert done["parts"] == [
        {"train": "train-000000-000", "origins": "origins-000000-000", "keys": "keys-000000-000"}
    ]
    origins = read_origins(job)
    assert origins.files == (("raw.txt", "byte", 4),)
    # The second line is empty.
    assert origins.places.tolist() == [0, 6, 15, 18]
    assert (origins.source, origins.fates.tolist()) == ("corpus", [0, 0, 0, 0])
    found = set()
    for bucket in range(3):
        data = read_group(f"{job.work}/hashes/000000/000000-0000.bin", bucket)
        for number, low, high in np.frombuffer(data, KEYS["hashes"]).tolist():
            assert low % 3 == bucket
            found.add((high << 64 | low, number))
    assert found == {(text_hash(t.encode()), n) for n, t in enumerate(texts)}
    sums = {"bytes": len(text.encode()), "documents": 4, "tokens": 7, "dropped.empty": 1}
    found_sums = ProgressSums(job.work).read()
    assert found_sums.pop("writes") > 0
    assert found_sums == sums


@pytest.mark.parametrize("collapse", ["collapse", "keep"])
def test_words_are_separated_by_any_whitespace(tmp_path: Path, collapse: str) -> None:
    text = "a b\u2003c\u0085d \n   \n x\u3000\ty "
    cleaning = CleaningConfig(whitespace=collapse)  # type: ignore[arg-type]
    job, [unit], _ = make_job(tmp_path, text, cleaning=cleaning, drop_empty=False)
    tokenize_unit(job, unit)
    assert part(job, "train-000000-000")[1]["words"].tolist() == [4, 0, 2]


def test_a_segment_is_closed_after_the_batch_that_fills_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "BATCH_DOCUMENTS", 2)
    lines = ["a b c", "a", "b c", "c", "c c c c", "a", "b"]
    job, [unit], tokenizer = make_job(tmp_path, "\n".join(lines), part_tokens=4)
    tokenize_unit(job, unit)
    names = [f"train-000000-{n:03d}" for n in range(3)]
    assert read_unit_record(job.work, 0)["parts"] == [
        {kind: name.replace("train", kind) for kind in ("train", "origins", "keys")}
        for name in names
    ]
    found = [part(job, name) for name in names]
    assert [len(documents) for documents, _ in found] == [2, 4, 1]
    assert [one for documents, _ in found for one in documents] == encoded(tokenizer, lines)
    assert [n for _, table in found for n in table["number"]] == [*range(7)]


def test_a_batch_is_limited_in_characters_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "BATCH_CHARACTERS", 6)
    sizes = counted_calls(monkeypatch)
    lines = ["abc", "de", "f", "ghijklm", "n", "op", "q"]
    job, [unit], tokenizer = make_job(tmp_path, "\n".join(lines))
    tokenize_unit(job, unit)
    assert sizes == [3, 1, 3]
    assert part(job, "train-000000-000")[0] == encoded(tokenizer, lines)


TEXT = b"".join(
    f"w{n % 7} w{n % 3} \x01\n".encode() * (n % 4) + "é".encode() * 12 + b"\xff\n" * (n % 3)
    for n in range(80)
)


def files_below(job: Job) -> dict[str, bytes]:
    """Return all files of the pass except its progress records."""
    folder = Path(job.output)
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: data for name, data in found.items() if "/progress/" not in name}


def test_the_output_does_not_depend_on_the_blocks_of_the_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "BATCH_DOCUMENTS", 16)
    found = []
    for size in (100, 777, 1 << 20):
        monkeypatch.setattr(first_pass, "read_unit", partial(read_unit, block_bytes=size))
        folder = tmp_path / str(size)
        folder.mkdir()
        job, [unit], _ = make_job(
            folder,
            TEXT,
            part_tokens=20,
            valid_fraction=0.4,
            keep_dropped=True,
            filters=FilterConfig(min_characters=2),
            cleaning=CleaningConfig(invalid_bytes="drop"),
        )
        tokenize_unit(job, unit)
        found.append(files_below(job))
        # Blocks decide only in which of the files of rejects a record is.
        aside = [n for n in found[-1] if n.startswith("dropped-")]
        lines = sorted(b"".join(found[-1].pop(n) for n in aside).splitlines())
        found[-1]["aside"] = b"\n".join(lines)
        for name in ("units", "segments"):
            record = json.loads(found[-1].pop(f"_work/{name}/000000.json"))
            record.pop("checksum")
            for changing in ("inputs", "files_aside", "rejected_aside", "versions", "read"):
                record.pop(changing, None)
            found[-1][name] = json.dumps(record).encode()
    assert found[0] == found[1] == found[2]
    assert len(found[0]) > 20


@contextmanager
def dying_after(writes: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kill the process at the write after this many; progress records do not count."""
    write, left = storage.write_bytes, [writes]

    def dying(path: str, data: bytes) -> None:
        if "/progress/" not in path:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        write(path, data)

    with monkeypatch.context() as patch:
        for module in (segment, rejects, records, groups):
            patch.setattr(module, "write_bytes", dying)
        yield


def counted_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which each call of the tokenizer appends its number of documents."""
    calls: list[int] = []
    encode = WordTokenizer.encode

    def counted(self: Any, texts: Sequence[str]) -> Any:
        calls.append(len(texts))
        return encode(self, texts)

    monkeypatch.setattr(WordTokenizer, "encode", counted)
    return calls


@pytest.mark.parametrize("remote", [False, True])
def test_a_kill_at_any_write_changes_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: bool
) -> None:
    monkeypatch.setattr(batch, "BATCH_DOCUMENTS", 16)
    settings: dict[str, Any] = {
        "part_tokens": 40,
        "valid_fraction": 0.4,
        "keep_dropped": True,
        "filters": FilterConfig(min_characters=2),
        "cleaning": CleaningConfig(invalid_bytes="drop"),
        "near_duplicates": NearDuplicateConfig(similarity=0.8),
    }
    job, [unit], _ = make_job(tmp_path, TEXT, **settings)
    if remote:
        job = replace(job, work="memory://first/out/_work", output="memory://first/out")

    def everything() -> dict[str, bytes]:
        if not remote:
            return files_below(job)
        names = [
            f"_work/{kind}/{n}"
            for kind in ("parts", "hashes/000000", "bands/000000", "units", "segments")
            for n in storage.list_names(f"{job.work}/{kind}")
        ]
        names += storage.list_names(job.output)
        return {name: storage.read_bytes(f"{job.output}/{name}") for name in names}

    tokenize_unit(job, unit)
    whole = everything()
    assert len(read_unit_record(job.work, 0)["parts"]) > 3
    calls = counted_calls(monkeypatch)
    # Every write is tried in memory, every seventh on the disk, which is slower.
    for last in range(0, len(whole) + 9, 1 if remote else 7):
        storage.remove_tree(job.output)
        with dying_after(last, monkeypatch), suppress(KeyboardInterrupt):
            tokenize_unit(job, unit)
        began = exists(f"{job.work}/segments/000000.json")
        calls.clear()
        tokenize_unit(job, unit)
        assert everything() == whole, f"killed at write {last}"
        if began:
            assert sum(calls) < read_unit_record(job.work, 0)["read"] - 100, (
                "closed segments were read again"
            )
    assert not calls, "the last run was not killed"


def test_the_split_follows_from_the_content_or_from_the_source(tmp_path: Path) -> None:
    text = "\n".join(f"line {n}" for n in range(60))
    job, [unit], _ = make_job(tmp_path, text, valid_fraction=0.3, test_fraction=0.3)
    tokenize_unit(job, unit)
    sizes = {s: len(part(job, f"{s}-000000-000")[1]) for s in ("train", "valid", "test")}
    assert sum(sizes.values()) == 60
    assert all(size > 5 for size in sizes.values())
    (tmp_path / "given").mkdir()
    given = [{"name": "held", "path": str(tmp_path / "raw.txt"), "split": "test"}]
    job, [unit], _ = make_job(tmp_path / "given", text, input=given, valid_fraction=0.3)
    tokenize_unit(job, unit)
    parts = [
        {"test": "test-000000-000", "origins": "origins-000000-000", "keys": "keys-000000-000"}
    ]
    assert read_unit_record(job.work, 0)["parts"] == parts
    assert len(part(job, "test-000000-000")[1]) == 60


def test_empty_documents_are_kept_if_drop_empty_is_false(tmp_path: Path) -> None:
    job, [unit], _ = make_job(tmp_path, "\n \na\n\n", drop_empty=False)
    tokenize_unit(job, unit)
    documents, _ = part(job, "train-000000-000")
    assert documents == [[], [], [3], []]
    assert read_unit_record(job.work, 0)["dropped"] == {}
    (tmp_path / "none").mkdir()
    job, [unit], _ = make_job(tmp_path / "none", "x\n\n", drop_empty=False)
    (tmp_path / "none" / "raw.txt").write_text("\n\n\n")
    tokenize_unit(job, unit)
    assert part(job, "train-000000-000")[0] == [[], [], []]


def test_rejected_records_are_written_for_inspection_and_counted(tmp_path: Path) -> None:
    lines = ['{"text": "a b"}', "{broken", '{"title": "a"}', '{"text": 3}', '{"text": "a"}']
    job, [unit], _ = make_job(tmp_path, "\n".join(lines), name="raw.jsonl")
    tokenize_unit(job, unit)
    done = read_unit_record(job.work, 0)
    reasons = ["invalid_json", "missing_text_field", "text_not_a_string"]
    assert done["dropped"] == dict.fromkeys(reasons, 1)
    assert done["read"] == 5
    kept = (tmp_path / "out" / "dropped-000000-000.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in kept]
    assert [row["reason"] for row in rows] == reasons
    assert [row["excerpt"] for row in rows] == lines[1:4]
    assert [row["where"] for row in rows] == ["raw.jsonl:16", "raw.jsonl:24", "raw.jsonl:39"]
    assert not (tmp_path / "out" / "dropped-000001-000.jsonl").exists()


def test_rejected_records_are_saved_without_personal_data(tmp_path: Path) -> None:
    job, [unit], _ = make_job(
        tmp_path, "ask ann@mail.org\n", name="raw.jsonl", mask={"email": "<email>"}
    )
    tokenize_unit(job, unit)
    saved = (tmp_path / "out" / "dropped-000000-000.jsonl").read_text()
    assert json.loads(saved)["excerpt"] == "ask <email>"


def test_invalid_bytes_are_counted_or_dropped(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_bytes(b"c \xff\n")
    paths = [str(tmp_path / "raw.txt"), str(tmp_path / "other.txt")]
    job, [unit], _ = make_job(tmp_path, b"a \xff\xfe b\nc\n", input=paths)
    tokenize_unit(job, unit)
    assert read_unit_record(job.work, 0)["replaced"] == 3
    assert not (tmp_path / "out" / "dropped-000000-000.jsonl").exists()
    (tmp_path / "drop").mkdir()
    cleaning = CleaningConfig(invalid_bytes="drop")
    job, [unit], _ = make_job(tmp_path / "drop", b"a \xff\xfe b\nc\n", cleaning=cleaning)
    tokenize_unit(job, unit)
    done = read_unit_record(job.work, 0)
    assert (done["read"], done["dropped"], done["replaced"]) == (2, {"invalid_bytes": 1}, 0)


def test_a_finished_unit_is_not_read_again(tmp_path: Path) -> None:
    job, [unit], _ = make_job(tmp_path, "a\nb\n")
    tokenize_unit(job, unit)
    before = Path(unit_record(job.work, 0)).stat().st_mtime_ns
    (tmp_path / "raw.txt").unlink()
    assert tokenize_unit(job, unit) == 0
    assert Path(unit_record(job.work, 0)).stat().st_mtime_ns == before


def test_a_unit_without_documents_is_finished(tmp_path: Path) -> None:
    job, [unit], _ = make_job(tmp_path, "x\n")
    (tmp_path / "raw.txt").write_text("\n\n")
    tokenize_unit(job, unit)
    done = read_unit_record(job.work, 0)
    assert (done["read"], done["dropped"], done["parts"]) == (2, {"empty": 2}, [])


def test_ids_above_16_bits_are_stored(tmp_path: Path) -> None:
    job, [unit], _ = make_job(tmp_path, " ".join(f"w{n}" for n in range(70_000)))
    tokenize_unit(job, unit)
    ids = np.fromfile(f"{job.work}/parts/train-000000-000.bin", "<u4")
    assert sorted(ids.tolist()) == list(range(3, 70_003))
    assert load_tokenizer(job.tokenizer).vocabulary == 70_003


def test_progress_moves_while_every_document_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    monkeypatch.setattr(
        first_pass.Progress, "write", lambda self, final=False: written.append(final)
    )
    job, [unit], _ = make_job(tmp_path, "x\n")
    (tmp_path / "raw.txt").write_text("\n\n")
    tokenize_unit(job, unit)
    assert written.count(False) >= 1
