"""`biloom neighbours` on the cache of a tiny model."""

import json
import shutil
from pathlib import Path

import pytest

from biloom import VectorCache
from pipeline.cli import main


@pytest.fixture(scope="module")
def run(tiny, trained, tmp_path_factory) -> Path:
    """A run folder with a model and the cache of its corpus."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copytree(trained / "export", folder / "export")
    corpus = tiny.root / "corpus.txt"
    tiny.run("embed", folder, f"embed.input={corpus}", "embed.words=true")
    return folder


def asked(capsys, *words):
    code = main(["neighbours", *map(str, words)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_uses_of_a_text_that_is_not_in_the_cache(run, capsys):
    text = "kana lo [kana] never seen"
    code, out, _ = asked(capsys, run / "embed", text, "neighbours=3")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("kana  ")
    assert "words in the cache" in lines[0]
    assert "uses of kana, the nearest first" in out
    assert out.count("[kana]") == 3
    assert "the nearest words without context (layer 0): " in out
    code, again, _ = asked(capsys, run / "embed", text, "neighbours=3", "--model", run / "export")
    assert again == out


def test_json_holds_what_is_shown(run, capsys):
    code, out, _ = asked(capsys, run / "embed", "a [kana] b", "neighbours=4", "--json")
    found = json.loads(out)
    assert code == 0
    assert [len(found[key]) for key in ("same", "others", "static")] == [4, 4, 4]
    assert {one["word"] for one in found["same"]} == {"kana"}
    assert "kana" not in {one["word"] for one in found["others"]}
    assert found["occurrences"] > 4
    cosines = [one["cosine"] for one in found["others"]]
    assert cosines == sorted(cosines, reverse=True)
    code, out, _ = asked(capsys, run / "embed", "kana loko", "neighbours=4", "--json")
    assert len(json.loads(out)["texts"]) == 4


def test_an_index_gives_the_same_answers(run, capsys, tmp_path):
    pytest.importorskip("usearch")
    words = [run / "embed", "a [kana] b", "neighbours=3", "--json"]
    exact = json.loads(asked(capsys, *words)[1])
    for _ in range(2):
        found = json.loads(asked(capsys, *words, "--index", tmp_path)[1])
        for key in ("same", "others"):
            assert [one["after"] for one in found[key]] == [one["after"] for one in exact[key]]
    (tmp_path / "file").touch()
    code, _, err = asked(capsys, *words, "--index", tmp_path / "file")
    assert code == 2
    assert "file/words-layer-2/vectors.usearch: cannot be written, because a folder of its" in err
    _, out, _ = asked(capsys, run / "embed", "a [zzz] b", "--index", tmp_path)
    assert "the index has no use of zzz; in text without spaces" in out
    _, out, _ = asked(capsys, run / "embed", "a [zzz] b")
    assert "the cache has no other use of zzz" in out


def test_texts_are_found_without_brackets(run, capsys):
    with VectorCache.open(run / "embed") as cache:
        text = " ".join(next(text for text in cache if len(text) > 6))
    code, out, _ = asked(capsys, run / "embed", text, "neighbours=2")
    assert code == 0
    assert out.startswith("  the nearest texts\n")
    assert text not in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a [b"], "must mark one word"),
        ([""], "the text to search for is empty"),
        (["a [b] c", "layer=9"], "no layer 9; the cache has 3 layers"),
        (["a [b] c", "neighbors=3"], "unknown key 'neighbors'; did you mean 'neighbours'?"),
        (["a [b] c", "neighbours=0"], "neighbours: must be a whole number of at least 1"),
    ],
)
def test_mistakes_are_told(run, capsys, words, told):
    code, _, err = asked(capsys, run / "embed", *words)
    assert code == 2
    assert told in err


def test_a_cache_without_its_model_tells_where_it_was_looked_for(run, capsys, tmp_path):
    shutil.copytree(run / "embed", tmp_path / "embed")
    code, _, err = asked(capsys, tmp_path / "embed", "never [seen] before")
    assert code == 2
    assert f"is not in {tmp_path}/export; name its folder with --model" in err
    # A text of the cache needs no model.
    with VectorCache.open(run / "embed") as cache:
        words = list(next(text for text in cache if len(text) > 3))
    text = " ".join(["[" + words[0] + "]", *words[1:]])
    assert asked(capsys, tmp_path / "embed", text)[0] == 0


def test_another_model_is_refused(run, tiny, capsys, tmp_path):
    tiny.run("train", tmp_path, "train.seed=5", "train.steps=10")
    tiny.run("export", tmp_path)
    code, _, err = asked(capsys, run / "embed", "a [b] c", "--model", tmp_path / "export")
    assert code == 2
    assert "this is not the model that made" in err


def test_a_config_names_the_model_of_a_cache(tiny, trained, capsys, tmp_path):
    corpus = tiny.root / "corpus.txt"
    tiny.run("embed", tmp_path, f"embed.input={corpus}", f"embed.model={trained}/export",
             "embed.unit=sentence", "embed.layers=mean")  # fmt: skip
    code, out, _ = asked(capsys, tmp_path / "embed", "never seen before", "neighbours=1")
    assert (code, len(out.splitlines())) == (0, 2)
    code, _, err = asked(capsys, tmp_path / "embed", "never [seen] before")
    assert code == 2
    assert "one vector for each text" in err
