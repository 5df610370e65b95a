"""What the first pass writes of a unit: tokens in order, parts, hashes, what was dropped."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess import first_pass
from preprocess.config import CleaningConfig, PrepareConfig, WordConfig
from preprocess.dedup import HASH, content_hash
from preprocess.first_pass import Job, done_record, read_done, tokenize_unit
from preprocess.progress import progress_sums
from preprocess.sources import list_source
from preprocess.token_shard import DOCUMENT
from preprocess.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from preprocess.units import Unit, plan_units


def make_job(folder: Path, text: str | bytes, **settings: Any) -> tuple[Job, list[Unit], Tokenizer]:
    """A job over one file with a word tokenizer of it; nothing is held out unless asked."""
    data = text.encode() if isinstance(text, str) else text
    raw = folder / settings.pop("name", "raw.txt")
    raw.write_bytes(data)
    config = PrepareConfig(**{"input": str(raw), "valid_fraction": 0.0, **settings})
    known = data.decode(errors="replace").split("\n")
    tokenizer = train_tokenizer(WordConfig(), known)
    tokenizer.save(str(folder / "tokenizer"))
    size = tokenizer.vocabulary
    work, output = str(folder / "out" / "_work"), str(folder / "out")
    job = Job(work, output, config, str(folder / "tokenizer"), str(folder), size, 3)
    files = [list_source(source) for source in config.sources]
    return job, plan_units(config.sources, files, config.unit_bytes), tokenizer


def part(job: Job, name: str) -> tuple[list[list[int]], Any]:
    """The documents of a part, as lists of ids, and its table."""
    table = np.load(f"{job.work}/parts/{name}.npy")
    assert table.dtype == DOCUMENT
    ids = np.fromfile(f"{job.work}/parts/{name}.bin", "<u2")
    assert len(ids) == table["tokens"].sum()
    return [piece.tolist() for piece in np.split(ids, np.cumsum(table["tokens"])[:-1])], table


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
    done = read_done(job.work, 0)
    assert (done["read"], done["dropped"], done["replaced"]) == (5, {"empty": 1}, 0)
    assert done["parts"] == {"train": ["train-000000-000"], "valid": [], "test": []}
    hashes = np.fromfile(f"{job.work}/hashes/000000.bin", HASH)
    expected = {(content_hash(t.encode()), n) for n, t in enumerate(texts)}
    assert {((int(h) << 64) | int(low), int(n)) for h, low, n in hashes} == expected
    for bucket, (first, end) in enumerate(zip(done["bounds"], done["bounds"][1:], strict=False)):
        assert all(int(low) % 3 == bucket for low in hashes["low"][first:end])
    assert done["bounds"][-1] == 4
    assert progress_sums(job.work) == {"bytes": len(text.encode()), "documents": 4, "tokens": 7}


@pytest.mark.parametrize("collapse", ["collapse", "keep"])
def test_words_are_counted_between_any_whitespace(tmp_path: Path, collapse: str) -> None:
    text = "a b\u2003c\u0085d \n   \n x\u3000\ty "
    cleaning = CleaningConfig(whitespace=collapse)  # type: ignore[arg-type]
    job, [unit], _ = make_job(tmp_path, text, cleaning=cleaning, drop_empty=False)
    tokenize_unit(job, unit)
    assert part(job, "train-000000-000")[1]["words"].tolist() == [4, 0, 2]


def test_a_part_is_closed_at_the_end_of_the_document_that_fills_it(tmp_path: Path) -> None:
    lines = ["a b c", "a", "b c", "c c c c c c c", "a", "b"]
    job, [unit], tokenizer = make_job(tmp_path, "\n".join(lines), part_tokens=4)
    tokenize_unit(job, unit)
    names = [f"train-000000-{n:03d}" for n in range(3)]
    assert read_done(job.work, 0)["parts"]["train"] == names
    found = [part(job, name) for name in names]
    assert [len(documents) for documents, _ in found] == [2, 2, 2]
    assert [one for documents, _ in found for one in documents] == encoded(tokenizer, lines)
    assert [n for _, table in found for n in table["number"]] == [0, 1, 2, 3, 4, 5]


def test_parts_do_not_depend_on_batches_of_the_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(f"w{n % 7} w{n % 3}\n" * (n % 4) for n in range(50))
    found = []
    for batch in (1, 7, 256):
        folder = tmp_path / str(batch)
        folder.mkdir()
        monkeypatch.setattr(first_pass, "ENCODE_BATCH", batch)
        job, [unit], _ = make_job(folder, text, part_tokens=20, valid_fraction=0.4)
        tokenize_unit(job, unit)
        parts = (folder / "out" / "_work" / "parts").iterdir()
        found.append({path.name: path.read_bytes() for path in parts})
    assert found[0] == found[1] == found[2]
    assert len(found[0]) > 6


def test_documents_fall_on_sides_by_content_or_all_on_the_side_given(tmp_path: Path) -> None:
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
    assert read_done(job.work, 0)["parts"] == {
        "train": [],
        "valid": [],
        "test": ["test-000000-000"],
    }
    assert len(part(job, "test-000000-000")[1]) == 60


def test_empty_documents_are_kept_where_asked(tmp_path: Path) -> None:
    job, [unit], _ = make_job(tmp_path, "\n \na\n\n", drop_empty=False)
    tokenize_unit(job, unit)
    documents, _ = part(job, "train-000000-000")
    assert documents == [[], [], [3], []]
    assert read_done(job.work, 0)["dropped"] == {}
    (tmp_path / "none").mkdir()
    job, [unit], _ = make_job(tmp_path / "none", "x\n\n", drop_empty=False)
    (tmp_path / "none" / "raw.txt").write_text("\n\n\n")
    tokenize_unit(job, unit)
    assert part(job, "train-000000-000")[0] == [[], [], []]


def test_rejected_records_are_kept_aside_and_counted(tmp_path: Path) -> None:
    lines = ['{"text": "a b"}', "{broken", '{"title": "a"}', '{"text": 3}', '{"text": "a"}']
    job, [unit], _ = make_job(tmp_path, "\n".join(lines), name="raw.jsonl")
    tokenize_unit(job, unit)
    done = read_done(job.work, 0)
    reasons = ["invalid_json", "missing_text_field", "text_not_a_string"]
    assert done["dropped"] == dict.fromkeys(reasons, 1)
    assert done["read"] == 5
    kept = (tmp_path / "out" / "dropped-000000.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in kept]
    assert [row["reason"] for row in rows] == reasons
    assert [row["excerpt"] for row in rows] == lines[1:4]
    assert [row["where"] for row in rows] == ["raw.jsonl:16", "raw.jsonl:24", "raw.jsonl:39"]
    assert not (tmp_path / "out" / "dropped-000001.jsonl").exists()


def test_invalid_bytes_are_counted_or_dropped(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_bytes(b"c \xff\n")
    paths = [str(tmp_path / "raw.txt"), str(tmp_path / "other.txt")]
    job, [unit], _ = make_job(tmp_path, b"a \xff\xfe b\nc\n", input=paths)
    tokenize_unit(job, unit)
    assert read_done(job.work, 0)["replaced"] == 3
    assert not (tmp_path / "out" / "dropped-000000.jsonl").exists()
    (tmp_path / "drop").mkdir()
    cleaning = CleaningConfig(invalid_utf8="drop")
    job, [unit], _ = make_job(tmp_path / "drop", b"a \xff\xfe b\nc\n", cleaning=cleaning)
    tokenize_unit(job, unit)
    done = read_done(job.work, 0)
    assert (done["read"], done["dropped"], done["replaced"]) == (2, {"invalid_utf8": 1}, 0)


def test_a_unit_that_is_done_is_not_read_again(tmp_path: Path) -> None:
    job, [unit], _ = make_job(tmp_path, "a\nb\n")
    tokenize_unit(job, unit)
    before = Path(done_record(job.work, 0)).stat().st_mtime_ns
    (tmp_path / "raw.txt").unlink()
    assert tokenize_unit(job, unit) == 0
    assert Path(done_record(job.work, 0)).stat().st_mtime_ns == before


def test_a_unit_without_a_document_is_done_too(tmp_path: Path) -> None:
    job, [unit], _ = make_job(tmp_path, "x\n")
    (tmp_path / "raw.txt").write_text("\n\n")
    tokenize_unit(job, unit)
    done = read_done(job.work, 0)
    assert (done["read"], done["dropped"], done["bounds"]) == (2, {"empty": 2}, [0, 0, 0, 0])


def test_ids_above_two_bytes_are_kept_whole(tmp_path: Path) -> None:
    job, [unit], _ = make_job(tmp_path, " ".join(f"w{n}" for n in range(70_000)))
    tokenize_unit(job, unit)
    ids = np.fromfile(f"{job.work}/parts/train-000000-000.bin", "<u4")
    assert sorted(ids.tolist()) == list(range(3, 70_003))
    assert load_tokenizer(job.tokenizer).vocabulary == 70_003


def test_progress_moves_while_every_document_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    monkeypatch.setattr(first_pass.Progress, "tell", lambda self, final=False: told.append(final))
    job, [unit], _ = make_job(tmp_path, "x\n")
    (tmp_path / "raw.txt").write_text("\n\n")
    tokenize_unit(job, unit)
    assert told.count(False) >= 1
