"""`biloom probe` on a tiny model."""

import json

import pytest

from pipeline.cli import main


@pytest.fixture
def tagged(tiny, tmp_path):
    """A CoNLL file in which the second column says whether a word begins with k."""
    lines = (tiny.root / "corpus.txt").read_text(encoding="utf-8").splitlines()
    path = tmp_path / "train.conll"
    blocks = [
        "".join(f"{word} {'K' if word[0] == 'k' else 'X'} O\n" for word in line.split())
        for line in lines[:150]
    ]
    path.write_text("\n".join(blocks), encoding="utf-8")
    return path


def probed(capsys, file, model, *words):
    code = main(["probe", str(file), "--model", str(model), *words])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_layers_are_compared_with_baselines(tagged, trained, capsys):
    code, out, _ = probed(capsys, tagged, trained / "export", "column=2")
    assert code == 0
    for words in (
        "150 read = 150 used + 0 dropped",
        "drawn by the seed (dev_share=0.1)",
        "only 15 sentences are tested on, so the intervals are too narrow",
        "most frequent tag of the word | 100.0 (100.0 to 100.0)",
        "layer 0 (no context) | ",
        "layer 2 | ",
        "selectivity",
        "CPU seconds",
    ):
        assert words in out, out
    assert (
        probed(capsys, tagged, trained / "export", "column=2")[1].splitlines()[:-1]
        == (out.splitlines()[:-1])
    )


def test_json_holds_the_scores(tagged, trained, capsys):
    arguments = [f"dev={tagged}", "column=2", "control=false", "--json"]
    code, out, _ = probed(capsys, tagged, trained / "export", *arguments)
    found = json.loads(out)
    assert code == 0
    assert found["tags"] == 2
    assert found["repeated_sentences"] == 150
    assert found["word_tag"] == [1.0, 1.0, 1.0]
    assert [one["layer"] for one in found["layers"]] == [0, 1, 2]
    assert 0.5 < found["layers"][0]["accuracy"][0] <= 1
    assert found["layers"][0]["control"] is None
    code, out, _ = probed(capsys, tagged, trained / "export", *arguments[:-1])
    assert "150 dev sentences are also training sentences" in out


def test_other_tasks(trained, capsys, tmp_path):
    path = tmp_path / "senses.tsv"
    path.write_text("".join(f"kana\ts{n % 2}\t1\tlo kana {n}\n" for n in range(120)))
    code, out, _ = probed(capsys, path, trained / "export", "task=senses")
    assert code == 0
    assert "accuracy on 20 examples" in out
    code, out, _ = probed(capsys, path, trained / "export", "task=senses", "--json", "lower=true")
    assert set(json.loads(out)["scores"]) >= {"layer 1", "static", "the most frequent sense"}
    side = {"sentence1": "a kana", "start1": "2", "end1": "6"}
    side |= {name.replace("1", "2"): value for name, value in side.items()}
    (tmp_path / "a.data").write_text(json.dumps([{"id": "1", **side}, {"id": "2", **side}]))
    (tmp_path / "b").write_text('[{"id": "1", "tag": "T"}, {"id": "2", "tag": "F"}]')
    words = ["task=wic", f"gold={tmp_path}/b"]
    code, out, _ = probed(capsys, tmp_path / "a.data", trained / "export", *words)
    assert (code, "accuracy on 2 examples" in out) == (0, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["column=3"], "all training tokens have the tag 'O'; name another column"),
        (["column=9"], "there is no column '9'"),
        (["tags=9"], "set tags to a number from 1 to 3"),
        (["tags=2", "column=2"], "column and tags name the same column"),
        (["colum=2"], "unknown key 'colum'; did you mean 'column'?"),
        (["dev=none.conll"], "none.conll"),
        (["task=wic"], "not JSON"),
        (["task=senses"], "line 1 is not word, sense"),
    ],
)
def test_mistakes_are_told(tagged, trained, capsys, words, told):
    code, _, err = probed(capsys, tagged, trained / "export", *words)
    assert code == 2
    assert told in err


def test_a_column_of_numbers_is_no_column_of_tags(trained, capsys, tmp_path):
    path = tmp_path / "numbers.conll"
    path.write_text("\n".join(f"a{n} {n}.5\nb {n}.75\n" for n in range(40)))
    code, _, err = probed(capsys, path, trained / "export")
    assert code == 2
    assert "72 different tags in 72 training tokens ('0.5', '0.75', ...)" in err


def test_a_file_of_one_sentence_cannot_be_divided(trained, capsys, tmp_path):
    path = tmp_path / "one.conll"
    path.write_text("a X\nb Y\n\na X\nb Y\n")
    code, _, err = probed(capsys, path, trained / "export")
    assert code == 2
    assert "1 different sentences cannot be divided" in err
