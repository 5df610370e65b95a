"""`biloom distill --to static`, from the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from biloom import BiLM, VectorCache
from pipeline.cli import main
from preprocess.files import storage
from preprocess.files.manifest import check_files, read_manifest

Caches = Callable[..., Path]


@pytest.fixture(scope="module")
def cache_of(tiny: Any, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Caches:
    """A function that embeds the corpus, or some of it, with settings; each cache is made once."""
    made: dict[tuple[str, ...], Path] = {}

    def make(*settings: str) -> Path:
        if settings not in made:
            output = tmp_path_factory.mktemp("cache")
            tiny.run(
                "embed",
                output,
                f"embed.model={trained / 'export'}",
                "embed.dtype=float32",
                f"embed.input={tiny.root / 'corpus.txt'}",
                *settings,
            )
            made[settings] = output / "embed"
        return made[settings]

    return make


def distill(model: Path, out: Path, *words: object) -> int:
    return main(
        ["distill", "--model", str(model), "--to", "static", "--out", str(out), *map(str, words)]
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_type_has_the_mean_of_its_vectors_in_a_cache(
    trained: Path, cache_of: Caches, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, out = cache_of(), tmp_path / "static"
    assert distill(trained / "export", out, "--cache", cache, "--layers", "average") == 0
    printed = capsys.readouterr().out
    manifest = read_manifest(str(out), "export")
    assert check_files(str(out), manifest) == []
    figures = manifest.details["distilled"]
    assert f"types: {figures['occurring']:,} of {figures['types']:,} occur" in printed

    uses: dict[str, list[Any]] = {}
    with VectorCache.open(cache) as opened:
        for _, spellings, vectors in opened.entries():
            for spelling, vector in zip(spellings, vectors.mean(0).astype("f8"), strict=True):
                uses.setdefault(spelling, []).append(vector)
        assert figures["tokens"] == opened.units
        assert figures["texts"] == len(opened)
    model = BiLM.from_pretrained(out)
    assert (model.depth, model.dim) == (1, 8)
    for word, vectors in uses.items():
        [found] = model.embed([word])
        assert found.vectors.shape == (1, 1, 8)
        np.testing.assert_allclose(found.vectors[0, 0], np.mean(vectors, 0), atol=1e-6)
    # The text around a word does not change it.
    first, second = list(uses)[:2]
    [both] = model.embed([f"{first} {second}"])
    [alone] = model.embed([second])
    np.testing.assert_array_equal(both.vectors[0, 1], alone.vectors[0, 0])
    card = (out / "README.md").read_text()
    assert "the average of all layers" in card
    assert f"{figures['occurring']:,} of {figures['types']:,} types" in card


def test_text_gives_the_vectors_of_a_cache_of_it(
    tiny: Any, trained: Path, cache_of: Caches, tmp_path: Path
) -> None:
    lines = (tiny.root / "corpus.txt").read_text(encoding="utf-8").splitlines()
    text = tmp_path / "once.txt"  # a cache has each text once
    text.write_text("".join(f"{line}\n" for line in dict.fromkeys(lines)), encoding="utf-8")
    assert distill(trained / "export", tmp_path / "one", "--cache", cache_of()) == 0
    assert distill(trained / "export", tmp_path / "two", "--input", text) == 0
    one, two = (BiLM.from_pretrained(tmp_path / name) for name in ("one", "two"))
    for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), atol=1e-6)
    figures = [read_manifest(str(tmp_path / name)).details["distilled"] for name in ("one", "two")]
    assert figures[1].pop("read") == len(dict.fromkeys(lines))
    assert figures[1].pop("dropped") == {}
    assert figures[0] == figures[1]


def test_the_order_of_caches_does_not_matter(
    tiny: Any, trained: Path, cache_of: Caches, tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("kana loko\nstrange words mina\n", encoding="utf-8")
    one, two = cache_of(), cache_of(f"embed.input={other}")
    model = trained / "export"
    assert distill(model, tmp_path / "a", "--cache", one, "--cache", two) == 0
    assert distill(model, tmp_path / "b", "--cache", two, "--cache", one) == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert read_manifest(str(tmp_path / "a")).details["distilled"]["unknown"] == 2


def test_a_cache_of_one_layer_is_enough(trained: Path, cache_of: Caches, tmp_path: Path) -> None:
    top = cache_of("embed.layers=top")
    model = trained / "export"
    assert distill(model, tmp_path / "one", "--cache", top, "--layers", "top") == 0
    assert distill(model, tmp_path / "two", "--cache", cache_of(), "--layers", "2") == 0
    one, two = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("one", "two"))
    assert one == two


def test_vectors_are_reduced_and_stored_in_fewer_bits(
    trained: Path, cache_of: Caches, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small"
    words = ("--cache", cache_of(), "--dim", 3, "--weights", "int8")
    assert distill(trained / "export", out, *words) == 0
    assert "the principal components have" in capsys.readouterr().out
    model = BiLM.from_pretrained(out)
    assert (model.dim, model.depth) == (3, 1)
    assert "first 3 principal components" in (out / "README.md").read_text()
    config = json.loads((out / "config.json").read_text())
    assert (config["weights"], config["model"]["recurrent"]) == (
        "int8", {"kind": "none", "hidden": 3},
    )  # fmt: skip


def test_a_finished_model_is_left_as_it_is(
    trained: Path, cache_of: Caches, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, words = tmp_path / "static", ("--cache", cache_of())
    assert distill(trained / "export", out, *words) == 0
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert distill(trained / "export", out, *words) == 0
    assert "already done" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert distill(trained / "export", out, *words, "--layers", "0") == 2
    assert "holds another finished result; name another folder" in capsys.readouterr().err


class Killed(BaseException):
    """Stands for SIGKILL: no handler of the command may catch it."""


def test_a_killed_command_gives_the_same_files(
    tiny: Any, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes((tiny.root / "corpus.txt").read_bytes() + b"\n\xff" * 3)
    words = ("--input", text)
    assert distill(trained / "export", tmp_path / "whole", *words) == 0
    whole = contents(tmp_path / "whole")
    write = storage.write_bytes
    for number in range(1, 9):
        writes = 0

        def counted(path: str, data: bytes, *more: Any, _last: int = number) -> None:
            nonlocal writes
            writes += 1
            write(path, data, *more)
            if writes == _last:
                raise Killed

        out = tmp_path / f"killed-{number}"
        with monkeypatch.context() as patch:
            patch.setattr(storage, "write_bytes", counted)
            try:
                distill(trained / "export", out, *words)
            except Killed:
                killed = True
            else:
                killed = False
        assert distill(trained / "export", out, *words) == 0
        assert contents(out) == whole
        if not killed:
            break
    assert number > 3


def test_records_that_cannot_be_read_are_counted_and_kept(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text('{"text": "kana loko"}\n{"other": 1}\nnot json\n', encoding="utf-8")
    out = tmp_path / "static"
    assert distill(trained / "export", out, "--input", text) == 0
    assert "records without vectors, see dropped-*.jsonl" in capsys.readouterr().out
    figures = read_manifest(str(out)).details["distilled"]
    assert figures["read"] == 3 == figures["texts"] + sum(figures["dropped"].values())
    [aside] = out.glob("dropped-*.jsonl")
    rows = [json.loads(line) for line in aside.read_text().splitlines()]
    assert len(rows) == 2
    # Excerpts of the text do not go to a hub with the model.
    assert aside.name not in {file.name for file in read_manifest(str(out)).all_files}


def test_the_model_is_used_as_any_other(trained: Path, cache_of: Caches, tmp_path: Path) -> None:
    out = tmp_path / "static"
    assert distill(trained / "export", out, "--cache", cache_of()) == 0
    labelled = tmp_path / "labelled.tsv"
    rows = [f"kana loko{n % 3}\ta\nteko mina{n % 3}\tb\n" for n in range(20)]
    labelled.write_text("".join(rows), encoding="utf-8")
    folder = tmp_path / "classifier"
    assert (
        main(["classify", "train", str(labelled), "--model", str(out), "--out", str(folder)]) == 0
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "neither of --cache and --input given"),
        (("--cache", "x", "--input", "y"), "both of --cache and --input given"),
        (("--input", "{text}", "--layers", "7"), "--layers: '7' is no layer of this model"),
        (("--input", "{text}", "--dim", "8"), "--dim: 8 is not possible"),
        (("--input", "{empty}"), "no text to embed; check --input"),
        (("--input", "{blank}"), "the texts have no tokens"),
        (
            ("--input", "{other}"),
            "other.jsonl:0 has no 'text', its keys are 'body'; --input reads the field 'text' only; make a "
            "vector cache with `biloom embed`, which takes text_field in embed.input, and name it with --cache",
        ),
        (("--cache", "{missing}"), "missing"),
    ],
)
def test_requests_that_are_not_possible_are_refused(
    words: tuple[str, ...],
    message: str,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = {name: tmp_path / f"{name}.txt" for name in ("text", "empty", "blank", "missing")}
    paths["other"] = tmp_path / "other.jsonl"
    paths["other"].write_text('{"body": "kana"}\n')
    paths["text"].write_text("kana\n")
    paths["empty"].write_text("")
    paths["blank"].write_text(" \n\n")
    out = tmp_path / "static"
    assert distill(trained / "export", out, *(word.format(**paths) for word in words)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (out / "manifest.json").exists()


def test_caches_that_do_not_fit_are_refused(
    tiny: Any,
    trained: Path,
    cache_of: Caches,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused(*words: object) -> str:
        assert distill(trained / "export", tmp_path / "static", *words) == 2
        return capsys.readouterr().err

    assert "embed.unit=token" in refused(
        "--cache", cache_of(), "--cache", cache_of("embed.unit=word")
    )
    assert "made without its texts" in refused("--cache", cache_of("embed.texts=false"))
    gradients = cache_of("embed.kind=gradient")
    assert "make a cache with embed.kind=vector" in refused("--cache", gradients)
    top = refused("--cache", cache_of("embed.layers=top"), "--layers", "0")
    assert "has embed.layers=top, which does not contain layer 0" in top
    assert "is named twice" in refused("--cache", cache_of(), "--cache", cache_of())

    other = tmp_path / "static-first"
    assert distill(trained / "export", other, "--cache", cache_of()) == 0
    capsys.readouterr()
    assert distill(other, tmp_path / "static", "--cache", cache_of()) == 2
    assert "its vectors are static already" in capsys.readouterr().err
    tiny.run("embed", tmp_path, f"embed.model={other}", f"embed.input={tiny.root / 'corpus.txt'}")
    assert "was made by another model" in refused("--cache", tmp_path / "embed")


def test_a_text_that_two_caches_have_counts_once(
    tiny: Any,
    trained: Path,
    cache_of: Caches,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def embedded(name: str, lines: list[str]) -> Path:
        text = tmp_path / f"{name}.txt"
        text.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return cache_of(f"embed.input={text}")

    lines = [*dict.fromkeys((tiny.root / "corpus.txt").read_text(encoding="utf-8").splitlines())]
    first, second = embedded("first", lines[:50]), embedded("second", lines[30:60])
    both = [tmp_path / name for name in ("one", "other")]
    for out, caches in zip(both, ((first, second), (second, first)), strict=True):
        words = [word for cache in caches for word in ("--cache", cache)]
        assert distill(trained / "export", out, *words) == 0
        assert (
            "texts that several caches have: 20 of 80 are left out, so that each counts once"
            in capsys.readouterr().out
        )
    assert contents(both[0]) == contents(both[1])
    whole = tmp_path / "whole"
    assert distill(trained / "export", whole, "--cache", embedded("all", lines[:60])) == 0
    assert "several caches" not in capsys.readouterr().out

    figures, of_whole = (read_manifest(str(out)).details["distilled"] for out in (both[0], whole))
    assert (figures.pop("read"), figures.pop("dropped")) == (80, {"in_several_caches": 20})
    assert figures == of_whole
    models = [BiLM.from_pretrained(out) for out in (both[0], whole)]
    one, other = (model.embed([" ".join(lines[:60])])[0].vectors for model in models)
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_folder_of_something_else_is_left_alone(
    trained: Path, cache_of: Caches, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    assert distill(trained / "export", folder, "--cache", cache_of()) == 2
    assert "notes.txt, which is not a file of a static model" in capsys.readouterr().err
    assert contents(folder) == {"notes.txt": b"mine"}
    assert distill(trained / "export", trained / "export", "--cache", cache_of()) == 2
    assert "holds another finished result" in capsys.readouterr().err


def test_tokens_that_are_not_those_of_the_tokenizer_are_refused(
    trained: Path,
    cache_of: Caches,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries = VectorCache.entries

    def other(cache: VectorCache, without: Any) -> Any:
        for text, spellings, vectors in entries(cache, without):
            yield text, [f"{spelling}x" for spelling in spellings], vectors

    monkeypatch.setattr(VectorCache, "entries", other)
    assert distill(trained / "export", tmp_path / "static", "--cache", cache_of()) == 2
    assert "are not those of the model's tokenizer" in capsys.readouterr().err


def test_text_that_changes_while_it_is_read_is_refused(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lightning_modules.distillation.type_sums import TypeSums

    text = tmp_path / "text.txt"
    text.write_text("kana loko\n")
    add = TypeSums.add

    def changing(sums: TypeSums, uses: Any) -> None:
        text.write_text("kana mina\n")
        add(sums, uses)

    monkeypatch.setattr(TypeSums, "add", changing)
    assert distill(trained / "export", tmp_path / "static", "--input", text) == 2
    assert "a file of --input changed while it was read" in capsys.readouterr().err
