"""`biloom tag train`, `test` and `predict` on a toy task."""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from preprocess.reading.labelled.examples import TaggedSentence
from tests.lightning_modules.tasks.tagging.toys import sentences

Capture = pytest.CaptureFixture[str]
QUICK = (
    "train.epochs=3",
    "train.batch=8",
    "train.learning_rate=0.03",
    "network.hidden=8",
    "device=cpu",
)
SMALL = ("network.word_size=8", "network.filters=4", "network.dropout=0")


def conll(examples: Sequence[TaggedSentence], *, with_tags: bool = True) -> str:
    rows = []
    for one in examples:
        pairs = zip(one.tokens, one.tags, strict=True)
        rows += [f"{token} X {tag}\n" if with_tags else f"{token}\n" for token, tag in pairs]
        rows.append("\n")
    return "".join(rows)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "train.conll").write_text(conll(sentences(40, 1)))
    (folder / "dev.conll").write_text(conll(sentences(12, 2)))
    return folder


def train_words(files: Path, model: Path, out: Path, *more: str) -> list[str]:
    words = [
        "tag",
        "train",
        f"{files}/train.conll",
        "--model",
        f"{model}/export",
        "--out",
        f"{out}",
    ]
    return [*words, f"dev={files}/dev.conll", *QUICK, *SMALL, *more]


@pytest.fixture(scope="module")
def trained_task(
    files: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The folder of a task, and what was printed."""
    out, printed = tmp_path_factory.mktemp("tag") / "task", io.StringIO()
    with redirect_stdout(printed):
        assert main(train_words(files, trained, out)) == 0
    return out, printed.getvalue()


@pytest.fixture
def task(trained_task: tuple[Path, str]) -> Path:
    return trained_task[0]


def test_a_training_prints_the_table_and_writes_the_folder(trained_task: tuple[Path, str]) -> None:
    task, out = trained_task
    for told in (
        "40 read = 40 used + 0 dropped",
        "tag scheme: IOB1",
        "the language model reads tokens joined by spaces",
        "| precision | recall | F1 | strict F1 | accuracy",
        "most frequent tag of each word | ",
        "tagger without the language model | ",
        "tagger with the language model | ",
        "the tagger with the language model is ",
        " the tagger without the language model (F1; difference ",
        "PER | ",
        "learned weights of the layers, from layer 0: 0.",
        "tokens/s",
    ):
        assert told in out, told
    names = {path.name for path in task.iterdir()}
    assert {"manifest.json", "config.json", "head.safetensors", "labels.json"} < names
    assert {"metrics.json", "predictions.tsv", "README.md"} < names
    metrics = json.loads((task / "metrics.json").read_text())
    assert metrics["rows"]["tagger with the language model"]["scores"]["f1"]["value"] > 0.5
    assert len(metrics["layer_weights"]) == 3
    assert [*metrics["above"]] == ["tagger without the language model"]


def test_the_same_command_changes_nothing_and_another_is_refused(
    files: Path, trained: Path, task: Path, capsys: Capture
) -> None:
    before = (task / "manifest.json").read_bytes()
    assert main(train_words(files, trained, task)) == 0
    assert "already done" in capsys.readouterr().out
    assert main(train_words(files, trained, task, "seed=2")) == 2
    assert "made with other settings or inputs:\n    tag.seed" in capsys.readouterr().err
    assert (task / "manifest.json").read_bytes() == before


def test_without_baselines_there_is_one_training(
    files: Path, trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = train_words(files, trained, tmp_path / "task", "baselines=false", "train.epochs=1")
    assert main([word for word in words if word != "train.epochs=3"]) == 0
    out = capsys.readouterr().out
    assert "without the language model" not in out
    assert "most frequent" not in out


def test_scored_sentences_without_spans_are_told(
    task: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "bare.conll").write_text("ka O\nna O\n\nlo O\n")
    assert main(["tag", "test", f"{task}", f"{tmp_path}/bare.conll"]) == 0
    told = " ".join("".join(capsys.readouterr()).split())
    assert (
        "none of the 2 scored sentences has a span, so that F1 is 0 whatever is predicted" in told
    )


def test_a_test_scores_another_file(task: Path, files: Path, capsys: Capture) -> None:
    assert main(["tag", "test", str(task), str(files / "dev.conll"), "device=cpu"]) == 0
    out = capsys.readouterr().out
    expected = json.loads((task / "metrics.json").read_text())
    f1 = expected["rows"]["tagger with the language model"]["scores"]["f1"]["value"]
    assert f" | {100 * f1:.2f} [" in out
    assert "LOC | " in out


def test_a_test_file_in_another_scheme_has_the_same_scores(
    task: Path, files: Path, tmp_path: Path, capsys: Capture
) -> None:
    from lightning_modules.tasks.tagging.spans import convert

    changed = [
        TaggedSentence(one.tokens, convert(one.tags, "BILOU"), "") for one in sentences(12, 2)
    ]
    (tmp_path / "bilou").write_text(conll(changed))
    tables = []
    for path in (files / "dev.conll", tmp_path / "bilou"):
        assert main(["tag", "test", str(task), str(path), "device=cpu"]) == 0
        out = capsys.readouterr().out
        tables.append(out.partition("| F1")[2])
    assert tables[0] == tables[1]
    assert "tags converted from BILOU to IOB1" in out


def predictions(words: Sequence[str], capsys: Capture) -> list[dict[str, Any]]:
    assert main(["tag", "predict", *words, "device=cpu"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_spans_are_aligned_to_tokens_and_characters(
    task: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "texts").write_text("Ann  Bob went far to Rome\n\nEve went to Oslo.\n")
    rows = predictions([str(task), str(tmp_path / "texts")], capsys)
    assert len(rows) == 3
    assert rows[1]["tokens"] == []
    assert rows[1]["problem"]
    assert rows[2]["tokens"] == ["Eve", "went", "to", "Oslo", "."]
    found = [span for row in rows for span in row["spans"]]
    assert found
    for row in rows:
        assert len(row["tags"]) == len(row["tokens"])
        for span in row["spans"]:
            assert row["text"][span["start"] : span["end"]] == span["text"]
            inside = row["tokens"][span["first_token"] : span["last_token"] + 1]
            assert span["text"].split() == inside


def test_a_fresh_process_and_another_batch_give_the_same_predictions(
    task: Path, tmp_path: Path, capsys: Capture
) -> None:
    lines = [" ".join(one.tokens) for one in sentences(9, 5)]
    (tmp_path / "texts").write_text("".join(f"{line}\n" for line in lines))
    together = predictions([str(task), str(tmp_path / "texts")], capsys)
    # Predictions need no library of training, which is slow to load.
    code = (
        "import sys; from pipeline.cli import main; "
        f"main(['tag', 'predict', {str(task)!r}, 'device=cpu']); "
        "assert not {'pytorch_lightning', 'sklearn', 'scipy'} & {*sys.modules}"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, input="\n".join(lines[::-1]), capture_output=True, text=True, check=True
    )
    assert [json.loads(line) for line in done.stdout.splitlines()] == together[::-1]


def test_columns_of_tokens_become_columns_of_tokens_and_tags(
    task: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "tokens").write_text(conll(sentences(2, 5), with_tags=False))
    words = ["tag", "predict", str(task), str(tmp_path / "tokens"), "output=conll"]
    assert main([*words, "format=conll", "device=cpu"]) == 0
    out = capsys.readouterr().out
    tokens = [line.partition("\t")[0] for line in out.splitlines()]
    assert tokens == conll(sentences(2, 5), with_tags=False).splitlines()


def test_tags_of_single_tokens_have_an_accuracy(
    trained: Path, files: Path, tmp_path: Path, capsys: Capture
) -> None:
    tagged = conll(sentences(30, 1)).replace("I-PER", "N").replace("B-PER", "N")
    (tmp_path / "pos").write_text(tagged.replace("I-LOC", "N").replace(" O\n", " V\n"))
    words = ["tag", "train", str(tmp_path / "pos"), "--model", str(trained / "export")]
    words += ["--out", str(tmp_path / "task"), "column=3", *QUICK, *SMALL]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "F1" not in out
    assert "held out" in out or "drawn with seed 1" in out
    [row] = predictions_of(tmp_path, capsys)
    assert "spans" not in row
    assert {*row["tags"]} <= {"N", "V"}


def predictions_of(folder: Path, capsys: Capture) -> list[dict[str, Any]]:
    (folder / "texts").write_text("Ann went to Rome\n")
    return predictions([str(folder / "task"), str(folder / "texts")], capsys)


def test_misaligned_spans_are_told(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    rows = [
        {
            "text": " ".join(one.tokens),
            "spans": [{"start": 0, "end": len(one.tokens[0]), "label": "PER"}],
        }
        for one in sentences(30, 1)
    ]
    rows[3]["spans"] = [{"start": 0, "end": 2, "label": "PER"}]
    (tmp_path / "spans.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    words = ["tag", "train", str(tmp_path / "spans.jsonl"), "--model", str(trained / "export")]
    words += ["--out", str(tmp_path / "task"), "baselines=false", *QUICK, *SMALL]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "not at the bounds of tokens 1: line 4 [0, 2) PER" in out
    assert "the language model reads the text of each sentence" in out


CHINESE = [("我在北京看书", "OOBIOO"), ("他去上海了", "OOBIO"), ("她来自南京", "OOOBI")] * 8


def test_characters_are_read_without_spaces(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    rows = []
    for text, tags in CHINESE:
        rows += [
            f"{one}\t{'O' if tag == 'O' else f'{tag}-地'}\n"
            for one, tag in zip(text, tags, strict=True)
        ]
        rows.append("\n")
    (tmp_path / "zh").write_text("".join(rows), encoding="utf-8")
    words = ["tag", "train", str(tmp_path / "zh"), "--model", str(trained / "export")]
    words += ["--out", str(tmp_path / "task"), *QUICK, *SMALL]
    assert main(words) == 2, "two of three sentences cannot be held out at a share of 0.1"
    assert "too few to hold out" in capsys.readouterr().err
    assert main([*words, f"dev={tmp_path}/zh"]) == 2
    assert "the dev file has the content of the training file" in capsys.readouterr().err
    (tmp_path / "twice").write_text("".join(rows) * 2, encoding="utf-8")
    assert main([*words, f"dev={tmp_path}/twice"]) == 0
    out = capsys.readouterr().out
    assert "the language model reads tokens joined without spaces" in out
    assert "all dev sentences are also training sentences" in out
    (tmp_path / "text").write_text("我在南京看书\n", encoding="utf-8")
    [row] = predictions([str(tmp_path / "task"), str(tmp_path / "text")], capsys)
    assert row["tokens"] == [*"我在南京看书"]


WORDS = (("我", "在", "北京", "看书"), ("他", "去", "上海", "了"), ("她", "来自", "南京", "。"))


def test_words_of_text_without_spaces_need_a_segmenter(
    trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    rows = [
        "".join(f"{w}\t{'B-地' if '京' in w or '海' in w else 'O'}\n" for w in one) for one in WORDS
    ]
    (tmp_path / "zh").write_text("\n".join(rows * 8), encoding="utf-8")
    (tmp_path / "dev").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "text").write_text("我在南京看书\n", encoding="utf-8")
    words = [
        "tag",
        "train",
        f"{tmp_path}/zh",
        "--model",
        f"{trained}/export",
        f"dev={tmp_path}/dev",
    ]
    words += ["baselines=false", *QUICK, *SMALL, "train.epochs=1"]
    words.remove("train.epochs=3")
    assert main([*words, "--out", f"{tmp_path}/bare"]) == 0
    assert "name a segmenter with segmenter=" in capsys.readouterr().out
    assert main(["tag", "predict", f"{tmp_path}/bare", f"{tmp_path}/text"]) == 2
    told = capsys.readouterr()
    assert "line 1: this is a text without tokens" in told.err
    assert not told.out
    expected = ["我", "在", "南京", "看书"]
    given = predictions([f"{tmp_path}/bare", f"{tmp_path}/text", "segmenter=jieba"], capsys)
    assert given[0]["tokens"] == expected
    assert main([*words, "--out", f"{tmp_path}/task", "segmenter=jieba"]) == 0
    assert "jieba finds 100.0% of the words of the training file" in capsys.readouterr().out
    assert predictions([f"{tmp_path}/task", f"{tmp_path}/text"], capsys)[0]["tokens"] == expected


def test_a_finetuned_language_model_is_in_the_folder(
    files: Path, trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    more = ("finetune=true", "train.finetune.learning_rate=0.05", "baselines=false", "seeds=2")
    assert main(train_words(files, trained, tmp_path / "task", *more)) == 0
    out = capsys.readouterr().out
    assert "tagger with the language model, seed 2: " in out
    kept = "the folder has the network of seed 1, the first of the seeds 1 to 2"
    assert kept in out
    assert kept in (tmp_path / "task/README.md").read_text()
    scores = out.partition("tagger with the fine-tuned language model | ")[2]
    assert scores
    task = tmp_path / "task"
    dev = f"{files}/dev.conll"
    # The folder has the first seed only, as its predictions of the dev sentences.
    stored = (task / "predictions.tsv").read_text().splitlines()[1:]
    assert main(["tag", "predict", str(task), dev, "output=conll", "device=cpu"]) == 0
    predicted = capsys.readouterr()
    assert kept in predicted.err
    printed = [line.split("\t") for line in predicted.out.splitlines() if line]
    assert printed == [[row.split("\t")[1], row.split("\t")[3]] for row in stored]
    assert main(["tag", "test", str(task), dev, "device=cpu"]) == 0
    tested = capsys.readouterr().out
    assert "tagger with the fine-tuned language model | " in tested
    assert kept in tested
    assert main(["explain", str(task), "--text", "Ann went to Rome", "device=cpu"]) == 0
    assert kept in capsys.readouterr().err
    assert main(["tag", "test", str(task), dev, "cache=some"]) == 2
    assert "has a language model of its own (finetune=true)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "more", "problem"),
    [
        ("a O\nb O\n\nc O\n\n" * 9, (), "all tokens have the tag 'O'"),
        ("", (), "train.conll"),
        ("a B-X\nb O\n\n", (), "too few to hold out"),
        ("a B-X\n\n", ("column=2", "tags=2"), "column and tags name the same column"),
        ("a B-X\n\n", ("colunm=2",), "did you mean 'column'?"),
        ("a B-X\n\n", ("column=9",), "9"),
        (
            "".join(f"a{n} B-{n}\nb O\n\n" for n in range(300)),
            (),
            "a CRF compares each tag with each other, and takes at most 500",
        ),
    ],
)
def test_files_that_cannot_train_a_tagger(
    trained: Path,
    tmp_path: Path,
    capsys: Capture,
    content: str,
    more: tuple[str, ...],
    problem: str,
) -> None:
    (tmp_path / "train.conll").write_text(content)
    words = ["tag", "train", str(tmp_path / "train.conll"), "--model", str(trained / "export")]
    assert main([*words, "--out", str(tmp_path / "task"), *more]) == 2
    told = capsys.readouterr().err
    assert problem in told
    assert "Traceback" not in told
    assert not (tmp_path / "task" / "manifest.json").exists()


def test_a_model_that_moved_or_is_another_is_told(
    task: Path, trained: Path, files: Path, tmp_path: Path, capsys: Capture
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(trained / "export", moved)
    shutil.copytree(task, tmp_path / "alone")
    words = ["tag", "test", str(tmp_path / "alone"), str(files / "dev.conll"), "device=cpu"]
    assert main([*words, "--model", str(moved)]) == 0
    manifest = json.loads((moved / "manifest.json").read_text())
    assert manifest["stage"] == "export"
    assert main([*words, "--model", str(tmp_path / "alone")]) == 2
    assert "'tag train'" in capsys.readouterr().err


def test_standard_input_is_read(
    task: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(b"Ann went to Rome\n"))
    monkeypatch.setattr("sys.stdin", stream)
    [row] = predictions([str(task)], capsys)
    assert row["tokens"] == ["Ann", "went", "to", "Rome"]


def test_print_config_explains_every_setting(capsys: Capture) -> None:
    words = ["tag", "train", "file", "--model", "m", "--out", "o", "seeds=3", "--print-config"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "seeds: 3  # trainings with consecutive seeds" in out
    assert "  hidden: 128  # size of the LSTM" in out
