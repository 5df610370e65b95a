"""`biloom cache`: info, get, verify and export, from the command line."""

import io
import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.cli import main
from preprocess.files import storage
from preprocess.files.manifest import Manifest, write_manifest
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.index import write_index
from preprocess.vectors.shard import Text, VectorShardWriter, text_key

DIM = 3
TEXTS: list[tuple[Text, list[str]]] = [
    ("kana lori", ["kana", "lori"]),
    (["kana", "lori"], ["kana", "lori"]),
    ("字/x", ["字/x"]),
    ("", []),
    ("\ud800", ["\ud800"]),
]


def make(folder: Path, layers: int = 2, dtype: str = "float16", texts: bool = True) -> VectorCache:
    draw = np.random.default_rng(1)
    records: list[Any] = []
    for number, part in enumerate((TEXTS[:3], TEXTS[3:])):
        with VectorShardWriter(str(folder), (number, 0), layers, DIM, dtype, texts) as writer:
            for text, labels in part:
                writer.add(text, labels, draw.normal(size=(layers, len(labels), DIM)).astype("f4"))
        records += writer.close()
    index = write_index(str(folder), [(0, 0), (1, 0)])
    details = {
        "layers": layers,
        "dim": DIM,
        "dtype": dtype,
        "unit": "token",
        "model": "m" * 64,
        "texts_kept": texts,
        "vectors": {"layers": "all"},
    }
    manifest = Manifest("embed", 2, "0.1", "f", "c", {}, (*records, *index), details)
    write_manifest(str(folder), manifest)
    return VectorCache.open(folder)


def run(*words: str | Path) -> int:
    return main(["cache", *map(str, words)])


def test_info_tells_what_a_cache_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path)

    assert run("info", tmp_path) == 0
    told = capsys.readouterr().out
    for words in ("texts        5", "6 tokens, 2 x 3 each", "float16", "2 shards", '"all"', "mmmm"):
        assert words in told
    make(tmp_path / "b", texts=False)
    assert run("info", tmp_path / "b") == 0
    assert "texts        5 (not kept)" in capsys.readouterr().out


def test_get_prints_an_object_a_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = make(tmp_path)

    assert run("get", tmp_path, "字/x", "kana lori") == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["text"], first["tokens"]) == ("字/x", ["字/x"])
    np.testing.assert_array_equal(np.array(second["vectors"], "f2"), cache["kana lori"])
    assert run("get", tmp_path, "--words", "kana lori") == 0
    words = json.loads(capsys.readouterr().out)
    assert words["text"] == ["kana", "lori"]
    np.testing.assert_array_equal(np.array(words["vectors"], "f2"), cache[["kana", "lori"]])


def test_get_reads_texts_from_a_pipe_and_tells_what_is_absent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, texts=False)
    lines = io.TextIOWrapper(io.BytesIO("kana lori\r\nzuzu\n\n\xff".encode("latin-1")))
    monkeypatch.setattr(sys, "stdin", lines)

    assert run("get", tmp_path) == 1
    told = capsys.readouterr()
    assert [json.loads(line)["text"] for line in told.out.splitlines()] == ["kana lori", ""]
    assert "tokens" not in told.out
    assert told.err.count("is not in the vector cache") == 2
    assert "'zuzu' is not" in told.err


def test_verify_finds_a_whole_cache_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path)
    assert run("verify", tmp_path) == 0
    assert "5 texts in 7 files: all are intact and can be found" in capsys.readouterr().out


def test_an_export_to_a_store_is_whole(tmp_path: Path) -> None:
    make(tmp_path / "cache")
    folder = "memory://test-cache-export"
    try:
        for name in ("a.hdf5", "a.npy", "a.parquet"):
            assert run("export", tmp_path / "cache", f"{folder}/{name}") == 0
            assert run("export", tmp_path / "cache", tmp_path / name) == 0
        assert storage.list_names(folder) == [
            "a.hdf5", "a.npy", "a.offsets.npy", "a.parquet", "a.texts.jsonl"
        ]  # fmt: skip
        assert storage.read_bytes(f"{folder}/a.npy") == (tmp_path / "a.npy").read_bytes()
        with h5py.File(io.BytesIO(storage.read_bytes(f"{folder}/a.hdf5"))) as file:
            assert set(file) == {"0", "1", "2", "3", "4", "sentence_to_index"}
    finally:
        storage.remove_tree(folder)


def test_a_file_beside_the_cache_is_no_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path)
    (tmp_path / "vectors-000007-000.bin").write_bytes(b"of a job that was killed")

    assert run("verify", tmp_path) == 0
    printed = capsys.readouterr().out
    assert "vectors-000007-000.bin is not part of the cache, and not read" in printed
    assert "all are intact" in printed


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


COMMANDS = ("info", "get", "npy", "parquet", "hdf5", "verify")


def result_of(folder: Path, out: Path, command: str) -> tuple[int, object]:
    """Return the exit code of a command on a cache, and what it wrote."""
    out.mkdir()
    try:
        if command in ("info", "verify"):
            return run(command, folder), None
        if command == "get":
            return run("get", folder, "字/x", "kana lori", ""), None
        code = run("export", folder, out / f"a.{command}")
        if command == "hdf5":
            # HDF5 writes times.
            with h5py.File(out / "a.hdf5") as file:
                return code, [file[name][...].tobytes() for name in sorted(file)[:-1]]
        return code, [path.read_bytes() for path in sorted(out.iterdir())]
    except OSError:
        assert sorted(out.iterdir()) == []
        return code, None
    finally:
        shutil.rmtree(out)


@pytest.mark.parametrize("flips", [12, pytest.param(400, marks=pytest.mark.slow)])
def test_a_flipped_byte_is_an_error_of_every_command_or_has_no_effect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flips: int
) -> None:
    make(tmp_path / "cache")
    expected = {}
    for command in COMMANDS:
        found = result_of(tmp_path / "cache", tmp_path / "out", command)
        expected[command] = (*found, capsys.readouterr().out)
        assert found[0] == 0
    draw = random.Random(1)
    files = sorted((tmp_path / "cache").iterdir())
    for turn in range(flips):
        path = files[turn % len(files)]
        at = draw.randrange(path.stat().st_size)
        _flip(path, at)
        for command in COMMANDS:
            found = result_of(tmp_path / "cache", tmp_path / "out", command)
            told = capsys.readouterr()
            if found[0] == 0:
                assert (*found, told.out) == expected[command], (path.name, at, command)
                # White space of the manifest, or a part that this command does not read.
                assert command != "verify" or path.name == "manifest.json"
            else:
                # The format of the manifest may become that of a newer version.
                newer = "newer biloom" in told.err
                assert found[0] == (1 if command == "verify" and not newer else 2)
                assert newer or "damaged" in told.err + told.out
        _flip(path, at)


def test_a_damaged_manifest_is_damage_and_a_missing_one_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"token"', b'"tokem"'))

    assert run("verify", tmp_path) == main(["check", str(tmp_path)]) == 1
    assert capsys.readouterr().out.count("manifest.json is damaged (its checksum") == 2
    path.unlink()
    assert run("verify", tmp_path) == 2
    assert "holds no finished 'embed'" in capsys.readouterr().err


def test_a_damaged_index_does_not_keep_verify_from_the_shards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path)
    _flip(tmp_path / "index-0000-0000.npy", 200)
    _flip(tmp_path / "vectors-000000-000.bin", 3)

    assert run("verify", tmp_path) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "index-0000-0000.npy: its hash is" in printed
    assert "its entries 0 to 4 do not match their hash" in printed
    assert "vectors-000000-000.bin: its hash is" in printed
    assert "damaged: entries 0 the cache is damaged: 2 of 7 files, and entries" in printed


def _other_texts(folder: Path) -> None:
    path = folder / "texts-000000-000.bin"
    path.write_bytes(path.read_bytes().replace(b"kana lori", b"kana lory"))


def _missing(folder: Path) -> None:
    (folder / "vectors-000001-000.bin").unlink()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_other_texts, "texts-000000-000.bin: its hash is"),
        (_other_texts, "; damaged: entries 0 the cache is damaged: 1 of 7 files, and entries"),
        (_missing, "vectors-000001-000.bin: it is missing; damaged: entries 0-1 the"),
    ],
)
def test_verify_names_what_is_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Any, told: str
) -> None:
    make(tmp_path)
    damage(tmp_path)

    assert run("verify", tmp_path) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert told in printed
    assert "all are intact" not in printed


def test_verify_finds_what_the_index_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = make(tmp_path)
    index = write_index(str(tmp_path), [(1, 0)])
    files = [one for one in cache.manifest.files if not one.name.startswith("index")]
    manifest = Manifest("embed", 2, "", "", "", {}, (*files, *index), cache.manifest.details)
    write_manifest(str(tmp_path), manifest)

    assert run("verify", tmp_path) == 1
    assert "it does not point to entries 0-2 of entries-000000-000.npy" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize("layers", [1, 2])
def test_hdf5_is_as_allennlp_lays_it_out(
    tmp_path: Path, layers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = make(tmp_path / "cache", layers)

    assert run("export", tmp_path / "cache", tmp_path / "out.hdf5") == 0
    assert "the numbers of data sets are not line numbers" in capsys.readouterr().out
    with h5py.File(tmp_path / "out.hdf5") as file:
        places = json.loads(file["sentence_to_index"][0])
        assert places == {"kana lori": "0", "字/x": "2", "": "3", "\ud800": "4"}
        assert set(file) == {"0", "1", "2", "3", "4", "sentence_to_index"}
        for number, (text, _) in enumerate(TEXTS):
            values = file[str(number)][...]
            assert values.dtype == np.float32
            expected = cache[text].astype("f4")
            np.testing.assert_array_equal(values, expected[0] if layers == 1 else expected)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_npy_holds_all_vectors_one_after_the_other(tmp_path: Path, dtype: str) -> None:
    cache = make(tmp_path / "cache", dtype=dtype)

    assert run("export", tmp_path / "cache", tmp_path / "out.npy") == 0
    values, offsets = np.load(tmp_path / "out.npy"), np.load(tmp_path / "out.offsets.npy")
    assert values.shape == (6, 2, DIM)
    lines = (tmp_path / "out.texts.jsonl").read_bytes().decode("utf-8", "surrogatepass")
    texts = [json.loads(line) for line in lines.splitlines()]
    assert [one[0] for one in texts] == [text for text, _ in TEXTS]
    for number, (text, labels) in enumerate(TEXTS):
        part = values[offsets[number] : offsets[number + 1]]
        np.testing.assert_array_equal(part.transpose(1, 0, 2), cache[text])
        assert texts[number][1:] == labels


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_parquet_has_a_row_a_text(
    tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make(tmp_path / "cache", dtype=dtype)
    monkeypatch.setattr("pipeline.commands.cache_export.ROWS", 2)

    assert run("export", tmp_path / "cache", tmp_path / "out.parquet") == 0
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.metadata[b"layers"] == b"2"
    assert table.schema.metadata[b"dim"] == b"3"
    for row, (text, labels) in zip(table.to_pylist(), TEXTS, strict=True):
        assert row["key"] == text_key(text)
        assert row["words"] == (None if isinstance(text, str) else list(text))
        assert len(row["labels"]) == len(labels)
        values = np.array(row["vectors"], dtype).reshape(2, len(labels), DIM)
        np.testing.assert_array_equal(values, cache[text])
    assert table["text"].to_pylist()[4] == "?"


def test_what_cannot_be_exported_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "cache")
    make(tmp_path / "bare", texts=False)

    def told(*words: str | Path) -> str:
        assert run("export", *words) == 2
        return capsys.readouterr().err

    assert "no format has this suffix; use one of .hdf5, .h5, .npy, .parquet" in told(
        tmp_path / "cache", tmp_path / "out.txt"
    )
    (tmp_path / "out.npy").write_bytes(b"mine")
    assert "exists already" in told(tmp_path / "cache", tmp_path / "out.npy")
    (tmp_path / "out.npy").rename(tmp_path / "out.offsets.npy")
    assert "out.offsets.npy exists already" in told(tmp_path / "cache", tmp_path / "out.npy")
    (tmp_path / "out.offsets.npy").rename(tmp_path / "out.npy")
    assert (tmp_path / "out.npy").read_bytes() == b"mine"
    assert "made without its texts" in told(tmp_path / "bare", tmp_path / "bare.npy")
    assert not (tmp_path / "bare.npy").exists()
    assert "holds no finished 'embed'" in told(tmp_path, tmp_path / "out.h5")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'biloom[hdf5]'" in told(tmp_path / "cache", tmp_path / "a.h5")
    assert "pip install 'biloom[beam]'" in told(tmp_path / "cache", tmp_path / "a.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare", "cache", "out.npy"]
