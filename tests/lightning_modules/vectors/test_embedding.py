"""Embedding a unit of text, also when the job is killed and resumed."""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from biloom import BiLM
from lightning_modules.nn.recurrent.stack import Recurrent
from lightning_modules.vectors import embedding
from lightning_modules.vectors.embedding import EmbedJob, embed_unit, hash_texts, one_ahead
from lightning_modules.vectors.selection import Selection
from preprocess.config import Source
from preprocess.files.manifest import read_manifest
from preprocess.reading.listing import list_source
from preprocess.reading.units import Unit, plan_units
from preprocess.text.config import CleaningConfig
from preprocess.vectors.files import shards_of
from preprocess.vectors.index import write_index
from preprocess.work.folder import finished_record, read_finished_record, read_unit_record
from tests.preprocess.comparing import compare_all

Tiny = Any  # of conftest.py
BUCKETS = 2


@pytest.fixture
def units(tiny: Tiny) -> list[Unit]:
    source = Source(path=str(tiny.root / "corpus.txt"))
    return plan_units([source], [list_source(source)], 6000)


def job(tiny: Tiny, trained: Path, folder: Path) -> EmbedJob:
    return EmbedJob(
        work=str(folder / "_work"),
        output=str(folder),
        sources=(Source(path=str(tiny.root / "corpus.txt")),),
        cleaning=CleaningConfig(),
        model=str(trained / "export"),
        model_content=read_manifest(str(trained / "export")).content,
        selection=Selection(),
        words=False,
        warm_up=False,
        dtype="float16",
        texts=True,
        batch_tokens=1024,
        buckets=BUCKETS,
        units=1,
        device="cpu",
    )


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make two windows per part and several parts per unit."""
    monkeypatch.setattr(embedding, "window_characters", lambda *_: 1000)
    monkeypatch.setattr(embedding, "PART_CHARACTERS", 2000)


def embed(job: EmbedJob, units: list[Unit]) -> None:
    job = replace(job, units=len(units))
    for unit in units:
        hash_texts(job, unit)
    compare_all(job.work, "hashes", job.layout)
    for unit in units:
        embed_unit(job, unit)
    names = {path.name: None for path in Path(job.output).iterdir()}
    write_index(job.output, shards_of(names))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_each_text_is_stored_once_in_its_first_place(
    tiny: Tiny, trained: Path, tmp_path: Path, units: list[Unit]
) -> None:
    embed(job(tiny, trained, tmp_path), units)
    lines = (tiny.root / "corpus.txt").read_text(encoding="utf-8").splitlines()
    done = [read_unit_record(str(tmp_path / "_work"), unit.index) for unit in units]
    finished = [read_finished_record(str(tmp_path / "_work"), unit.index) for unit in units]

    assert len(units) > 1
    assert sum(one["read"] for one in done) == len(lines)
    repeated = len(lines) - len(set(lines))
    assert repeated
    assert sum(one["duplicates"] for one in finished) == repeated
    entries = sum(len(np.load(path)) for path in tmp_path.glob("entries-*.npy"))
    assert entries == len(set(lines))


def failing_fsync(allowed: int) -> Callable[[int], None]:
    """Fail after some calls. Each write calls it twice: for the file, then for the folder."""
    left = allowed

    def fsync(handle: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError("the disk is gone")

    return fsync


@pytest.mark.slow
def test_a_job_killed_between_any_two_writes_resumes_to_the_same_bytes(
    tiny: Tiny,
    trained: Path,
    tmp_path: Path,
    units: list[Unit],
    monkeypatch: pytest.MonkeyPatch,
    small_parts: None,
) -> None:
    embed(job(tiny, trained, tmp_path / "reference"), units)
    assert {len(list((tmp_path / "reference").glob(f"vectors-00000{n}-*"))) for n in (0, 1)} >= {3}
    reference = files(tmp_path / "reference")
    for allowed in range(0, 1000, 3):
        folder = tmp_path / str(allowed)
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", failing_fsync(allowed))
            try:
                embed(job(tiny, trained, folder), units)
                break
            except OSError:
                pass
        embed(job(tiny, trained, folder), units[::-1])
        assert files(folder) == reference, f"killed at write {allowed}"
    assert allowed > 20


def test_the_size_of_a_window_changes_only_the_batches(
    tiny: Tiny,
    trained: Path,
    tmp_path: Path,
    units: list[Unit],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    embed(job(tiny, trained, tmp_path / "one"), units)
    monkeypatch.setattr(embedding, "window_characters", lambda *_: 50)
    embed(job(tiny, trained, tmp_path / "other"), units)

    one, other = files(tmp_path / "one"), files(tmp_path / "other")
    assert one.keys() == other.keys()
    assert one["texts-000000-000.bin"] == other["texts-000000-000.bin"]
    name = "vectors-000000-000.bin"
    np.testing.assert_allclose(
        np.frombuffer(one[name], np.float16), np.frombuffer(other[name], np.float16), atol=2e-3
    )


def test_closed_parts_of_a_killed_unit_are_kept(
    tiny: Tiny,
    trained: Path,
    tmp_path: Path,
    units: list[Unit],
    monkeypatch: pytest.MonkeyPatch,
    small_parts: None,
) -> None:
    asked = job(tiny, trained, tmp_path)
    embed(asked, units[:1])
    texts: list[int] = []
    real = BiLM.embed_selection
    monkeypatch.setattr(
        BiLM, "embed_selection", lambda *a, **b: texts.append(len(a[1])) or real(*a, **b)
    )
    parts = sorted((tmp_path / "_work" / "parts").iterdir())
    parts[-1].unlink()
    Path(finished_record(asked.work, 0)).unlink()

    embed_unit(asked, units[0])

    last = np.load(sorted(tmp_path.glob("entries-000000-*.npy"))[-1])
    assert sum(texts) == len(last) > 0


def test_a_unit_whose_texts_are_all_in_the_cache_writes_no_shard(
    tiny: Tiny, trained: Path, tmp_path: Path, units: list[Unit], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Former:
        def has(self, keys: bytes) -> Any:
            return np.ones(len(keys) // 16, bool)

    monkeypatch.setattr(embedding, "_finished_cache", lambda *_: Former())
    asked = replace(job(tiny, trained, tmp_path), first_unit=7, known="cache")
    hash_texts(asked, units[0])
    compare_all(asked.work, "hashes", asked.layout)
    embed_unit(asked, units[0])

    finished = read_finished_record(asked.work, 0)
    assert finished["files"] == []
    assert finished["known"] + finished["duplicates"] == read_unit_record(asked.work, 0)["read"]
    assert not list(tmp_path.glob("vectors-*"))


def test_records_without_text_are_counted_by_reason(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text('{"text": "kana lori"}\n{"text": 3}\nno json\n{"text": ""}\n')
    source = Source(path=str(path))
    (unit,) = plan_units([source], [list_source(source)], None)
    hash_texts(replace(job(tiny, trained, tmp_path / "out"), sources=(source,)), unit)

    done = read_unit_record(str(tmp_path / "out" / "_work"), 0)
    assert done["read"] == 4
    assert sum(done["dropped"].values()) == 2


def test_on_a_gpu_a_thread_computes_the_next_window_and_shards_are_alike(
    tiny: Tiny,
    trained: Path,
    tmp_path: Path,
    units: list[Unit],
    monkeypatch: pytest.MonkeyPatch,
    small_parts: None,
) -> None:
    embed(job(tiny, trained, tmp_path / "cpu"), units)
    names: set[str] = set()
    real = BiLM.embed_selection

    def on_thread(*arguments: Any, **named: Any) -> Any:
        names.add(threading.current_thread().name)
        return real(*arguments, **named)

    embedding._model.cache_clear()
    monkeypatch.setattr(BiLM, "embed_selection", on_thread)
    monkeypatch.setattr(BiLM, "to", lambda self, device: self)
    monkeypatch.setattr(embedding, "worker_device", lambda _: "cuda:1")
    embed(job(tiny, trained, tmp_path / "gpu"), units)

    assert names == {"ahead_0"}
    found, expected = files(tmp_path / "gpu"), files(tmp_path / "cpu")
    assert found.keys() == expected.keys()
    for name in found:
        if name.startswith("vectors-"):  # the last bits depend on the number of threads
            one, other = (np.frombuffer(all_[name], np.float16) for all_ in (found, expected))
            np.testing.assert_allclose(one, other, atol=2e-3)
        else:
            assert found[name] == expected[name]
    done = read_finished_record(str(tmp_path / "gpu" / "_work"), 0)
    assert (done["device"], done["precision"]) == ("cuda", "float32")
    embedding._model.cache_clear()


def test_windows_and_batches_depend_on_the_kind_of_device(
    tiny: Tiny, trained: Path, tmp_path: Path, units: list[Unit], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = BiLM.embed_selection
    monkeypatch.setattr(
        BiLM, "embed_selection", lambda *a, **b: asked.append(a[3]) or real(*a, **b)
    )
    monkeypatch.setattr(BiLM, "to", lambda self, device: self)
    for device in ("cpu", "cuda:0"):
        embedding._model.cache_clear()
        monkeypatch.setattr(embedding, "worker_device", lambda _, device=device: device)
        embed(replace(job(tiny, trained, tmp_path / device), batch_tokens=None), units[:1])
    embedding._model.cache_clear()

    assert set(asked) == {8192, 32_768}


def test_one_ahead_raises_where_the_item_is_used() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("second")

    found = one_ahead(items())
    assert next(found) == 1
    with pytest.raises(ValueError, match="second"):
        next(found)


@pytest.mark.parametrize(
    "change", [{"precision": "bf16"}, {"compiled": True}], ids=["bf16", "compiled"]
)
def test_precision_and_compilation_change_the_last_digits_only(
    tiny: Tiny,
    trained: Path,
    tmp_path: Path,
    units: list[Unit],
    change: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    modes: list[str] = []
    real = Recurrent.compile_cell
    monkeypatch.setattr(
        Recurrent, "compile_cell", lambda self, mode: modes.append(mode) or real(self, mode)
    )
    exact = replace(job(tiny, trained, tmp_path / "exact"), dtype="float32")
    embed(exact, units[:1])
    folders = {"work": f"{tmp_path}/other/_work", "output": f"{tmp_path}/other"}
    embed(replace(exact, **folders, **change), units[:1])

    one, other = (
        np.frombuffer((tmp_path / name / "vectors-000000-000.bin").read_bytes(), np.float32)
        for name in ("exact", "other")
    )
    done = read_finished_record(f"{tmp_path}/other/_work", 0)
    if "compiled" in change:
        assert modes == ["on"]
        assert np.abs(one - other).max() < 1e-4
        assert done["precision"] == "float32"
    else:
        assert 0 < np.abs(one - other).max() < 0.02
        assert done["precision"] == "bf16"


def test_a_model_is_loaded_once_for_all_units(
    tiny: Tiny, trained: Path, tmp_path: Path, units: list[Unit], monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding._model.cache_clear()
    loads: list[str] = []
    real = BiLM.from_pretrained

    def counted(path: str) -> BiLM:
        loads.append(path)
        return real(path)

    monkeypatch.setattr(BiLM, "from_pretrained", counted)
    embed(job(tiny, trained, tmp_path), units)

    assert len(loads) == 1
