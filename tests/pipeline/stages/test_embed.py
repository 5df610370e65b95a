"""The embed stage: texts and a model become a vector cache."""

import json
import os
import random
import signal
import threading
import time
from contextlib import suppress
from dataclasses import replace
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console as RichConsole

from biloom import BiLM, VectorCache
from lightning_modules.nn.recurrent.stack import Recurrent
from lightning_modules.vectors import embedding, encoder, pretrained
from pipeline import phases
from pipeline.cli import main
from pipeline.console import Console
from pipeline.lifecycle.stage import StageError
from pipeline.reports.run_report import report
from pipeline.stages.embed import SHARDS
from preprocess.errors import UserError
from preprocess.files.manifest import check_files, read_manifest
from preprocess.vectors import index
from preprocess.work import progress
from preprocess.work.folder import is_begun

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


def files(folder: Path) -> dict[str, Any]:
    """Return the contents of the cache, without what holds the output folder or a time."""
    left_out = {"config.yaml", "stats.json", "manifest.json"}
    found = {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in left_out}
    return {**found, "manifest": replace(read_manifest(str(folder)), beside=())}


def test_a_model_and_texts_need_no_raw_text_of_a_corpus(
    trained: Path, text: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = f"embed.model={trained}/export"
    assert main(["embed", model, f"run.output={tmp_path}/run"]) == 2
    assert "biloom: prepare.input is missing: set it" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()
    mode = "runner.options.mode=in_memory"
    assert main(["embed", model, f"embed.input={text}", mode, f"run.output={tmp_path}/run"]) == 0
    assert len(VectorCache.open(tmp_path / "run/embed"))


@pytest.mark.parametrize(("dtype", "error"), [("float16", 2e-3), ("float32", 1e-6)])
def test_the_cache_holds_the_vectors_of_the_model(
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


def test_a_segmenter_finds_words_and_sentences_that_are_words_are_counted(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    text = tmp_path / "zh.txt"
    text.write_text("我在银行存钱\n我 在 银行\nkana lori\n", encoding="utf-8")
    common = (f"embed.input={text}", "embed.unit=word")
    manifest, printed = embed(tiny, trained, tmp_path / "spaces", *common)

    assert (
        "1 of 3 texts have no spaces between words, so embed.unit=word took whole sentences as words; "
        "set embed.segmenter (jieba, fugashi, pythainlp)" in printed
    )
    stats = json.loads((tmp_path / "spaces/embed/stats.json").read_text())
    assert stats["texts_without_spaces"] == 1
    assert "embed.segmenter" not in manifest.asked

    manifest, printed = embed(tiny, trained, tmp_path / "jieba", *common, "embed.segmenter=jieba")
    cache = VectorCache.open(tmp_path / "jieba/embed")
    assert "spaces" not in printed
    assert cache.tokens("我在银行存钱") == ["我", "在", "银行", "存钱"]
    assert manifest.asked["embed.segmenter"].startswith("jieba 0.")
    assert manifest.details["vectors"]["segmenter"] == "jieba"


def test_a_repeated_text_is_stored_once_and_counted(
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


def test_another_folder_gets_the_same_bytes(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path
) -> None:
    for name in ("one", "other"):
        embed(tiny, trained, tmp_path / name, f"embed.input={text}")

    assert files(tmp_path / "one" / "embed") == files(tmp_path / "other" / "embed")


@pytest.mark.parametrize("allowed", [2, 9, 13, 17])
def test_a_stage_killed_at_a_write_resumes_to_the_same_bytes(
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

    assert "resuming unfinished work" in printed
    assert files(tmp_path / "embed") == files(tmp_path / "reference" / "embed")


@pytest.mark.slow
def test_processes_killed_at_random_moments_end_with_the_same_vectors(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path, biloom: Any
) -> None:
    embed(tiny, trained, tmp_path / "reference", f"embed.input={text}")
    arguments = tiny.arguments(
        tmp_path / "killed",
        f"embed.model={trained / 'export'}",
        f"embed.input={text}",
        "runner.options.mode=multi_processing",
        "runner.options.workers=2",
    )
    seed = random.randrange(1 << 32)
    draw = random.Random(seed)
    for _ in range(10):
        with biloom.start("embed", *arguments) as driver:
            time.sleep(draw.uniform(1, 8))
            with suppress(ProcessLookupError):
                os.kill(draw.choice([driver.pid, *driver.descendants()]), signal.SIGKILL)
            driver.communicate(timeout=60)
        assert driver.returncode in (0, 3, -signal.SIGKILL), f"seed {seed}"
        if driver.returncode == 0:
            break
    assert biloom.run("embed", *arguments).returncode == 0
    assert files(tmp_path / "killed" / "embed") == files(tmp_path / "reference" / "embed")
    assert not (tmp_path / "killed" / "embed" / "_work").exists()


def test_without_an_input_a_sample_of_the_corpus_is_embedded(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    folders = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        _, printed = embed(tiny, trained, tmp_path / name, "embed.sample=20", f"embed.seed={seed}")
        assert "sampled 20 documents of the corpus" in printed
        folders.append(tmp_path / name / "embed")
    caches = [VectorCache.open(folder) for folder in folders]
    lines = set((tiny.root / "corpus.txt").read_text(encoding="utf-8").splitlines())

    assert all(len(cache) == 20 and set(cache) <= lines for cache in caches)
    assert files(folders[0]) == files(folders[1])
    assert set(caches[0]) != set(caches[2])


def test_a_sample_of_a_corpus_that_changed_at_equal_size_is_refused(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    path = tmp_path / "corpus.txt"
    text = (tiny.root / "corpus.txt").read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    overrides = (f"prepare.input={path}", "embed.sample=20")
    manifest, _ = embed(tiny, trained, tmp_path, *overrides)
    assert check_files(str(tmp_path / "embed"), manifest) == []
    os.utime(path, ns=(1, 1))
    assert "already done" in embed(tiny, trained, tmp_path, *overrides)[1]
    path.write_text(text[::-1], encoding="utf-8")
    with pytest.raises(UserError, match=r"corpus\.txt: its contents changed, but not its size"):
        embed(tiny, trained, tmp_path, *overrides)


def test_a_corpus_of_held_out_text_alone_has_no_sample(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    held_out = f"prepare.input=[{{path: {tiny.root}/corpus.txt, split: valid}}]"
    with pytest.raises(UserError, match=r"has no training text to sample; set embed\.input"):
        embed(tiny, trained, tmp_path, held_out)


def test_records_without_text_are_counted_and_left_out(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text('{"text": "kana lori"}\n{"text": 3}\nno json\n')
    manifest, printed = embed(tiny, trained, tmp_path, f"embed.input={path}")

    assert "texts without vectors: " in printed
    assert manifest.details["texts"] == 1
    stats = json.loads((tmp_path / "embed" / "stats.json").read_text())
    assert sum(stats["dropped"].values()) == 2
    kept = (tmp_path / "embed" / "dropped-000000-000.jsonl").read_text().splitlines()
    assert [json.loads(line)["excerpt"] for line in kept] == ['{"text": 3}', "no json"]
    assert check_files(str(tmp_path / "embed"), manifest) == []


def test_files_that_are_left_out_of_a_folder_are_counted_by_kind(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    (raw / ".git").mkdir(parents=True)
    (raw / "a.txt").write_text("kana lori\n")
    (raw / "b.png").write_bytes(b"")
    manifest, printed = embed(tiny, trained, tmp_path, f"embed.input={raw}")
    assert "left out of folders: 1 hidden folder, 1 image (.png)" in printed
    expected = {"hidden folders": 1, "images (.png)": 1}
    stats = json.loads((tmp_path / "embed" / "stats.json").read_text())
    assert stats["left_out"] == manifest.details["left_out"] == expected
    # Of the latest command, as the other figures.
    manifest, _ = append(tiny, trained, tmp_path, text)
    assert "left_out" not in manifest.details


def test_the_long_steps_beside_the_job_are_phases(
    tiny: Tiny, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: dict[str, list[tuple[int, int]]] = {}

    def watch(
        console: Console, name: str, total: int, present: Any, ended: threading.Event
    ) -> None:
        ended.wait()
        ran.setdefault(name, []).append((present._done, total))

    monkeypatch.setattr(phases, "shown_on", lambda: Console())
    monkeypatch.setattr(phases, "_watch", watch)
    manifest, _ = embed(tiny, trained, tmp_path, "embed.sample=20")
    shards = sum(file.name.startswith(SHARDS) for file in manifest.files)
    assert len(ran["sampling documents"]) == 1
    assert ran["collecting records"] == [(1, 1)]
    assert ran["checking files"] == [(shards, shards)]
    assert ran["moving files"][0] == (shards, shards)
    assert len(ran["writing the index"]) == 1


def test_input_without_text_is_refused(tiny: Tiny, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")

    with pytest.raises(UserError, match=r"no text to embed; check embed\.input"):
        embed(tiny, trained, tmp_path, f"embed.input={tmp_path}/empty.txt")


def test_vectors_beyond_half_precision_are_refused_with_a_message(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pretrained.put
    monkeypatch.setattr(
        pretrained,
        "put",
        lambda array, layer, values, start: real(array, layer, values + 1e6, start),
    )

    with pytest.raises(UserError, match=r"too large for float16; set embed\.dtype=float32"):
        embed(tiny, trained, tmp_path, f"embed.input={text}")


def test_a_text_that_takes_longer_than_the_stall_limit_is_embedded(
    tiny: Tiny, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (tiny.root / "corpus.txt").read_text(encoding="utf-8").split()[:800]
    (tmp_path / "long.txt").write_text(" ".join(words) + "\n", encoding="utf-8")
    monkeypatch.setattr(encoder, "POSITIONS", 8)
    monkeypatch.setattr(encoder, "LEAST", 8)
    monkeypatch.setattr(progress, "WRITE_SECONDS", 0.1)
    real = Recurrent.forward

    def slow(*arguments: Any, **named: Any) -> Any:
        time.sleep(0.05)
        return real(*arguments, **named)

    monkeypatch.setattr(Recurrent, "forward", slow)
    begin = time.monotonic()
    manifest, _ = embed(
        tiny, trained, tmp_path, f"embed.input={tmp_path}/long.txt", "runner.stall_seconds=2"
    )

    assert time.monotonic() - begin > 4
    assert manifest.details["tokens"] == len(words)


def test_a_missing_model_is_refused(
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

    with pytest.raises(UserError, match=r"some\.txt: its contents changed, but not its size"):
        embed(tiny, trained, tmp_path, f"embed.input={path}")


def split(text: Path, folder: Path) -> tuple[Path, Path, list[str]]:
    """Return two files that share some texts, and all distinct texts."""
    lines = list(dict.fromkeys(text.read_text(encoding="utf-8").splitlines()))
    first, second = folder / "first.txt", folder / "second.txt"
    for path, some in ((first, lines[:40]), (second, [*lines[30:], lines[-1]])):
        path.write_text("".join(f"{line}\n" for line in some), encoding="utf-8")
    return first, second, lines


def append(tiny: Tiny, trained: Path, output: Path, path: Path, *overrides: str) -> tuple[Any, str]:
    return embed(tiny, trained, output, f"embed.input={path}", "embed.append=true", *overrides)


def test_a_refused_addition_lists_only_what_an_addition_may_not_change(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path
) -> None:
    first, second, _ = split(text, tmp_path)
    embed(tiny, trained, tmp_path, f"embed.input={first}", "embed.dtype=float32")
    with pytest.raises(StageError) as refused:
        append(tiny, trained, tmp_path, second, "embed.dtype=int8")
    [line] = [line.strip() for line in str(refused.value).splitlines()[1:-1]]
    assert line == 'embed.dtype: "float32" -> "int8"'


def test_texts_are_added_to_a_finished_cache_once(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "FILE_ENTRIES", 10)
    first, second, lines = split(text, tmp_path)
    embed(tiny, trained, tmp_path, f"embed.input={first}")
    before = VectorCache.open(tmp_path / "embed")
    kept = {line: np.array(before[line]) for line in lines[:40]}

    manifest, printed = append(tiny, trained, tmp_path, second)

    cache = VectorCache.open(tmp_path / "embed")
    assert "extending the finished result" in printed
    assert "; 10 were already in the cache" in printed
    assert list(cache) == lines
    assert (len(before), len(cache), cache.generation) == (40, len(lines), 1)
    assert manifest.details["texts"] == len(lines)
    assert check_files(str(tmp_path / "embed"), manifest) == []

    def indexes() -> list[str]:
        return sorted(path.name for path in (tmp_path / "embed").glob("index-*"))

    # The former index stays until the next command, because a program may have the cache open.
    former = [f"index-0000-000{number}.npy" for number in range(4)]
    assert indexes() == [*former, *(f"index-0001-000{number}.npy" for number in range(8))]
    assert "already done" in append(tiny, trained, tmp_path, second)[1]
    assert indexes() == [f"index-0001-000{number}.npy" for number in range(8)]
    for line, vectors in kept.items():
        np.testing.assert_array_equal(cache[line], vectors)
    embed(tiny, trained, tmp_path / "at-once", f"embed.input={text}")
    at_once = VectorCache.open(tmp_path / "at-once" / "embed")
    for line in lines:
        np.testing.assert_allclose(cache[line], at_once[line], atol=2e-3)


def test_all_earlier_requests_of_an_extended_cache_are_already_done(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path
) -> None:
    first, second, _ = split(text, tmp_path)
    embed(tiny, trained, tmp_path, f"embed.input={first}")
    append(tiny, trained, tmp_path, second)
    assert "already done" in append(tiny, trained, tmp_path, second)[1]  # removes the former index
    before = files(tmp_path / "embed")

    for path in (first, second, first):
        assert "already done" in append(tiny, trained, tmp_path, path)[1]
        assert "already done" in embed(tiny, trained, tmp_path, f"embed.input={path}")[1]
    assert files(tmp_path / "embed") == before
    first.write_text(first.read_text(encoding="utf-8")[::-1], encoding="utf-8")
    with pytest.raises(UserError, match=r"first\.txt: its contents changed"):
        append(tiny, trained, tmp_path, first)


@pytest.mark.parametrize("changed", ["embed.layers=top", "embed.dtype=float32", "embed.unit=word"])
def test_adding_other_vectors_is_refused(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path, changed: str
) -> None:
    first, second, _ = split(text, tmp_path)
    embed(tiny, trained, tmp_path, f"embed.input={first}")

    with pytest.raises(UserError, match="holds a result made with other settings") as told:
        append(tiny, trained, tmp_path, second, changed)
    assert changed.split("=")[0] in str(told.value)
    with pytest.raises(UserError, match="holds a result made with other settings"):
        embed(tiny, trained, tmp_path, f"embed.input={second}")


@pytest.mark.parametrize("allowed", [1, 5, 8, 11, 14, 17, 20, 23])
def test_an_addition_killed_at_a_write_leaves_the_cache_complete_and_can_be_resumed(
    tiny: Tiny,
    trained: Path,
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    allowed: int,
) -> None:
    first, second, lines = split(text, tmp_path)
    for name in ("reference", "killed"):
        embed(tiny, trained, tmp_path / name, f"embed.input={first}")
    append(tiny, trained, tmp_path / "reference", second)
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
            append(tiny, trained, tmp_path / "killed", second)
    assert list(VectorCache.open(tmp_path / "killed" / "embed")) == lines[:40]
    done = embed(tiny, trained, tmp_path / "killed", f"embed.input={first}")[1]
    assert "already done; unfinished work for other settings is kept" in done
    other = tmp_path / "third.txt"
    other.write_text("kana\n")
    (work,) = (tmp_path / "killed" / "embed" / "_work").iterdir()
    if is_begun(str(work)):  # other work would be discarded
        with pytest.raises(UserError, match="holds unfinished work made with other settings"):
            append(tiny, trained, tmp_path / "killed", other)

    append(tiny, trained, tmp_path / "killed", second)

    assert files(tmp_path / "killed" / "embed") == files(tmp_path / "reference" / "embed")


def test_known_texts_add_nothing(tiny: Tiny, trained: Path, text: Path, tmp_path: Path) -> None:
    first, _, _ = split(text, tmp_path)
    embed(tiny, trained, tmp_path, f"embed.input={first}")
    again = tmp_path / "again.txt"
    again.write_text("".join(first.read_text(encoding="utf-8").splitlines(True)[5:9]), "utf-8")

    manifest, printed = append(tiny, trained, tmp_path, again)

    assert "0 texts, 0 vectors per layer, 0B; 4 were already in the cache" in printed
    assert manifest.details["texts"] == 40


def test_lists_of_words_are_keys_of_the_cache(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path
) -> None:
    embed(tiny, trained, tmp_path, f"embed.input={text}", "embed.words=true", "embed.unit=word")
    cache = VectorCache.open(tmp_path / "embed")
    line = text.read_text(encoding="utf-8").splitlines()[0]

    assert line not in cache
    assert cache.tokens(line.split()) == line.split()
    assert cache.unit == "word"
    assert cache[line.split()].shape[1] == len(line.split())


@pytest.mark.parametrize(
    ("overrides", "shape"),
    [
        (["embed.layers=top"], (1, 8)),
        (["embed.layers=concat"], (1, 24)),
        (["embed.layers=[0,-1]"], (2, 8)),
        (["embed.layers=mix", "embed.mix.weights=[1,0,2]", "embed.mix.layer_norm=true"], (1, 8)),
        (["embed.unit=sentence", "embed.pooling=mean", "embed.dtype=int8"], (3, 8)),
    ],
)
def test_the_cache_holds_the_chosen_layers_and_units(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path, overrides: list[str], shape: Any
) -> None:
    embed(tiny, trained, tmp_path, f"embed.input={text}", *overrides)
    cache = VectorCache.open(tmp_path / "embed")
    line = text.read_text(encoding="utf-8").splitlines()[0]

    assert (cache.layers, cache.dim) == shape
    assert cache[line].shape == (shape[0], cache[line].shape[1], shape[1])
    assert read_manifest(str(tmp_path / "embed")).details["vectors"]["warm_up"] is False


@pytest.mark.parametrize(("unit", "pooling"), [("sentence", "mean"), ("word", "direction")])
def test_the_default_pooling_depends_on_the_unit(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path, unit: str, pooling: str
) -> None:
    settings = [f"embed.input={text}", f"embed.unit={unit}"]
    embed(tiny, trained, tmp_path, *settings)
    _, printed = embed(tiny, trained, tmp_path, *settings, f"embed.pooling={pooling}")

    assert "already done" in printed
    assert read_manifest(str(tmp_path / "embed")).details["vectors"]["pooling"] == pooling


def test_a_cache_with_the_former_default_pooling_stays_valid(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path
) -> None:
    more = tmp_path / "more.txt"
    more.write_text("kana loko\nmina\n", encoding="utf-8")
    unit = "embed.unit=sentence"
    embed(tiny, trained, tmp_path, f"embed.input={text}", unit, "embed.pooling=direction")
    _, printed = embed(tiny, trained, tmp_path, f"embed.input={text}", unit)
    assert "already done" in printed

    _, printed = embed(tiny, trained, tmp_path, f"embed.input={more}", unit, "embed.append=true")
    assert (
        "continuing with the defaults of the version that began it: embed.pooling=direction"
        in printed
    )
    cache = VectorCache.open(tmp_path / "embed")
    model = BiLM.from_pretrained(trained / "export")
    [expected] = model.embed(["kana loko"], unit="sentence", pooling="direction")
    np.testing.assert_allclose(cache["kana loko"], expected.vectors, atol=2e-3)
    with pytest.raises(UserError, match=r"embed\.pooling"):
        embed(tiny, trained, tmp_path, f"embed.input={text}", unit, "embed.pooling=mean")


def test_layers_that_the_model_lacks_are_refused_before_anything_is_read(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="this model has no layer 9"):
        embed(tiny, trained, tmp_path, f"embed.input={text}", "embed.layers=[9]")


def test_the_cache_holds_the_gradients_of_the_model(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path
) -> None:
    gradients = [f"embed.input={text}", "embed.kind=gradient", "embed.dtype=float32"]
    manifest, _ = embed(tiny, trained, tmp_path, *gradients)
    cache = VectorCache.open(tmp_path / "embed")
    model = BiLM.from_pretrained(trained / "export")
    lines = text.read_text(encoding="utf-8").splitlines()[:5]

    for line, found in zip(lines, model.embed(lines, kind="gradient"), strict=True):
        np.testing.assert_allclose(cache[line], found.vectors, atol=1e-5)
    assert manifest.details["vectors"]["kind"] == "gradient"
    with pytest.raises(StageError, match=r"embed\.path"):
        embed(tiny, trained, tmp_path, *gradients, "embed.path=upward")
    with pytest.raises(StageError, match=r"embed\.kind"):
        embed(tiny, trained, tmp_path, gradients[0], gradients[2])


def test_the_precision_of_products_is_part_of_the_request(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = (f"embed.input={text}", "runner.options.mode=in_memory")
    plain, _ = embed(tiny, trained, tmp_path / "float32", *asked)
    assert "precision" not in plain.details
    for change in ("embed.precision=bf16", "embed.compile=on"):
        with pytest.raises(StageError, match=change.replace(".", r"\.").partition("=")[0]):
            embed(tiny, trained, tmp_path / "float32", *asked, change)

    auto = (*asked, "embed.precision=auto")
    manifest, printed = embed(tiny, trained, tmp_path / "auto", *auto)
    assert manifest.details["precision"] == ["float32"]
    assert "bf16" not in printed
    more = tmp_path / "more.txt"
    more.write_text("kana lori kana\n", encoding="utf-8")
    monkeypatch.setattr(embedding, "matmul_dtype", lambda *_: torch.bfloat16)
    appended = (f"embed.input={more}", *auto[1:], "embed.append=true")
    manifest, printed = embed(tiny, trained, tmp_path / "auto", *appended)
    assert manifest.details["precision"] == ["bf16", "float32"]
    assert (
        "some vectors of the cache were computed with matrix products in bf16 and some" in printed
    )


def test_gradients_need_a_model_with_an_output_layer(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path
) -> None:
    tiny.run("export", tmp_path, f"export.checkpoint={trained}/train", "export.head=false")
    with pytest.raises(UserError, match=r"^embed\.kind: .* needs the output layer"):
        embed(tiny, tmp_path, tmp_path, f"embed.input={text}", "embed.kind=gradient")
    static = tmp_path / "static"
    words = ("--to", "static", "--model", trained / "export", "--out", static, "--input", text)
    assert main(["distill", *map(str, words)]) == 0
    settings = (f"embed.model={static}", f"embed.input={text}", "embed.kind=gradient")
    with pytest.raises(
        UserError, match=r"^embed\.kind: .* this model is static .*; name the model"
    ):
        tiny.run("embed", tmp_path, *settings)


@pytest.mark.parametrize(
    "setting", ["embed.layers=top", "embed.unit=word", "embed.texts=false", "embed.kind=gradient"]
)
def test_a_report_of_other_vectors_says_why_it_shows_no_words(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path, setting: str
) -> None:
    embed(tiny, trained, tmp_path, f"embed.input={text}", setting)
    for stage in ("train", "evaluate", "export"):
        (tmp_path / stage).symlink_to(trained / stage)
    config = tiny.config(tmp_path, setting)
    printed = StringIO()

    report(config, Console(RichConsole(file=printed, width=200)))

    assert "uses of words are not shown: they need embed to keep texts" in printed.getvalue()


@pytest.mark.slow
def test_an_addition_killed_repeatedly_ends_in_the_same_bytes(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path, biloom: Any
) -> None:
    first, second, lines = split(text, tmp_path)
    for name in ("reference", "killed"):
        embed(tiny, trained, tmp_path / name, f"embed.input={first}")
    addition = (f"embed.model={trained}/export", f"embed.input={second}", "embed.append=true")
    reference, command = (
        ["embed", *tiny.arguments(tmp_path / name, *addition)] for name in ("reference", "killed")
    )
    assert biloom.run(*reference).returncode == 0
    kills = 0
    for writes in count(10):  # a killed command goes on where it was, so that each has fewer left
        answer = biloom.run_until_killed(command, writes)
        assert set(lines[:40]) <= set(VectorCache.open(tmp_path / "killed" / "embed"))
        if answer[0] == 0:
            break
        assert answer == (-signal.SIGKILL, "")
        kills += 1

    assert kills > 1
    for again in (reference, command):  # removes the former index, which readers may have open
        assert biloom.run(*again).returncode == 0
    assert files(tmp_path / "killed" / "embed") == files(tmp_path / "reference" / "embed")


def test_a_damaged_file_of_the_input_is_skipped_as_prepare_skips_it(
    tiny: Tiny, trained: Path, text: Path, tmp_path: Path
) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.txt").write_bytes(text.read_bytes())
    (tmp_path / "raw" / "b.txt.gz").write_bytes(b"\x1f\x8b\x08\x00 no stream")
    both = f"embed.input={tmp_path}/raw/*"
    with pytest.raises(UserError, match=r"b\.txt\.gz: .*prepare\.damaged_files=skip"):
        embed(tiny, trained, tmp_path, both)
    skip = "prepare.damaged_files=skip"
    manifest, printed = embed(tiny, trained, tmp_path / "skipped", both, skip)
    assert "texts without vectors: 1 damaged_file" in printed
    assert manifest.asked["embed.damaged_files"] == "skip"
    with pytest.raises(UserError, match=r'embed\.damaged_files: "skip" -> "stop"'):
        embed(tiny, trained, tmp_path / "skipped", both)
