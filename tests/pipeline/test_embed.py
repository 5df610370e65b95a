"""The embed stage: texts and a model become a vector cache."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from biloom import BiLM, VectorCache
from pipeline.cli import main
from preprocess.errors import UserError
from preprocess.manifest import check_files, read_manifest

Tiny = Any  # of conftest.py


@pytest.fixture(scope="module")
def text(tiny: Tiny) -> Path:
    lines = (tiny.root / "corpus.txt").read_text(encoding="utf-8").splitlines()[:60]
    path = tiny.root / "to-embed.txt"
    path.write_text("".join(f"{line}\n" for line in [*lines, "", lines[0]]), encoding="utf-8")
    return path  # type: ignore[no-any-return]


def embed(tiny: Tiny, trained: Path, output: Path, *overrides: str) -> tuple[Any, str]:
    found: tuple[Any, str] = tiny.run("embed", output, f"embed.model={trained}/export", *overrides)
    return found


def files(folder: Path) -> dict[str, bytes]:
    """What the cache holds; the config names the output folder, the stats a time."""
    left_out = {"config.yaml", "stats.json"}
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in left_out}


@pytest.mark.parametrize(("dtype", "error"), [("float16", 2e-3), ("float32", 1e-6)])
def test_the_cache_gives_what_the_model_gives(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path, dtype: str, error: float
) -> None:
    manifest, _ = embed(tiny, trained, tmp_path, f"embed.input={text}", f"embed.dtype={dtype}")
    cache = VectorCache.open(tmp_path / "embed")
    lines = list(dict.fromkeys(text.read_text(encoding="utf-8").splitlines()))
    model = BiLM.from_pretrained(str(trained / "export"))

    assert list(cache) == lines
    assert cache.model == model.content
    assert manifest.details["texts"] == len(lines)
    for line, found in zip(lines, model.embed(lines), strict=True):
        assert cache[line].dtype == np.dtype(dtype)
        np.testing.assert_allclose(cache[line], found.vectors, atol=error)
        assert cache.tokens(line) == [token.spelling for token in found.tokens]
    assert check_files(str(tmp_path / "embed"), manifest) == []


def test_a_repeated_text_is_stored_once_and_told(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path
) -> None:
    _, printed = embed(tiny, trained, tmp_path, f"embed.input={text}")
    lines = text.read_text(encoding="utf-8").splitlines()
    repeated = len(lines) - len(set(lines))

    assert f"; {repeated} repeated texts are stored once" in printed
    stats = json.loads((tmp_path / "embed" / "stats.json").read_text())
    assert (stats["read"], stats["texts"], stats["repeated"]) == (
        len(lines),
        len(set(lines)),
        repeated,
    )


def test_the_same_bytes_come_out_in_another_folder(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path
) -> None:
    for name in ("one", "other"):
        embed(tiny, trained, tmp_path / name, f"embed.input={text}")

    assert files(tmp_path / "one" / "embed") == files(tmp_path / "other" / "embed")


@pytest.mark.parametrize("allowed", [2, 9, 13, 17])
def test_a_stage_killed_at_a_write_goes_on_to_the_same_bytes(
    tiny: Tiny,
    trained: Path,
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    allowed: int,
) -> None:
    embed(tiny, trained, tmp_path / "reference", f"embed.input={text}")
    left, real = allowed, os.fsync

    def fsync(handle: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError("the disk is gone")
        real(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(Exception, match="the disk is gone"):
            embed(tiny, trained, tmp_path, f"embed.input={text}")
    assert not (tmp_path / "embed" / "manifest.json").exists()

    _, printed = embed(tiny, trained, tmp_path, f"embed.input={text}")

    assert "goes on with unfinished work" in printed
    assert files(tmp_path / "embed") == files(tmp_path / "reference" / "embed")


def test_without_an_input_a_sample_of_the_corpus_is_embedded(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    folders = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        _, printed = embed(tiny, trained, tmp_path / name, "embed.sample=20", f"embed.seed={seed}")
        assert "a sample of 20 of the corpus's documents" in printed
        folders.append(tmp_path / name / "embed")
    caches = [VectorCache.open(folder) for folder in folders]
    lines = set((tiny.root / "corpus.txt").read_text(encoding="utf-8").splitlines())

    assert all(len(cache) == 20 and set(cache) <= lines for cache in caches)
    assert files(folders[0]) == files(folders[1])
    assert set(caches[0]) != set(caches[2])


def test_records_without_text_are_told_and_left_out(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text('{"text": "kana lori"}\n{"text": 3}\nno json\n')
    manifest, printed = embed(tiny, trained, tmp_path, f"embed.input={path}")

    assert "without vectors, since they hold no text that can be read: " in printed
    assert manifest.details["texts"] == 1
    stats = json.loads((tmp_path / "embed" / "stats.json").read_text())
    assert sum(stats["dropped"].values()) == 2
    kept = (tmp_path / "embed" / "dropped-000000-000.jsonl").read_text().splitlines()
    assert [json.loads(line)["excerpt"] for line in kept] == ['{"text": 3}', "no json"]
    assert check_files(str(tmp_path / "embed"), manifest) == []


def test_nothing_to_embed_is_a_mistake(tiny: Tiny, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")

    with pytest.raises(UserError, match=r"there is no text to embed; look at embed\.input"):
        embed(tiny, trained, tmp_path, f"embed.input={tmp_path}/empty.txt")


def test_vectors_beyond_half_precision_are_a_users_message(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = BiLM.forward
    monkeypatch.setattr(BiLM, "forward", lambda *arguments: real(*arguments) + 1e6)

    with pytest.raises(UserError, match=r"beyond float16; set embed\.dtype=float32"):
        embed(tiny, trained, tmp_path, f"embed.input={text}")


def test_a_missing_model_is_told(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["embed", *tiny.arguments(tmp_path, f"embed.model={tmp_path}/none")]) == 2
    assert "none holds no finished 'export'" in capsys.readouterr().err


def test_the_second_run_has_nothing_to_do(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path
) -> None:
    first, _ = embed(tiny, trained, tmp_path, f"embed.input={text}")
    second, printed = embed(tiny, trained, tmp_path, f"embed.input={text}")

    assert "already done" in printed
    assert second.content == first.content == read_manifest(str(tmp_path / "embed")).content


def test_a_text_file_that_changed_at_equal_size_is_refused_by_name(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    path = tmp_path / "some.txt"
    path.write_text("kana lori\n")
    embed(tiny, trained, tmp_path, f"embed.input={path}")
    path.write_text("kana lory\n")

    with pytest.raises(UserError, match=r"some\.txt: the file changed since, at the same size"):
        embed(tiny, trained, tmp_path, f"embed.input={path}")
