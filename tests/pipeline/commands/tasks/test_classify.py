"""`biloom classify`: train, test and predict."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lightning_modules.tasks import folder
from lightning_modules.tasks.tables import read_table
from lightning_modules.vectors.pretrained import BiLM
from pipeline.cli import main
from pipeline.commands.tasks.classification import data
from pipeline.commands.tasks.classification.tables import comparisons
from preprocess.files.manifest import Manifest, check_files, read_manifest, write_manifest
from preprocess.vectors.index import write_index
from preprocess.vectors.shard import VectorShardWriter

WORDS = {"good": ["kana", "lori", "mina"], "bad": ["tepu", "nuko", "voна"]}
"""Words of the texts of each label; both occur in the corpus of the tiny model or are new."""
ODD = ("a\\b", 'quote" ', "новое, 好")


def lines(count: int, seed: int, labels: Sequence[str] = ("good", "bad")) -> list[tuple[str, str]]:
    """Return (label, text) rows whose words tell the label."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        label = labels[number % len(labels)]
        words = draw.choices([*WORDS.values()][number % len(labels) % 2], k=draw.randint(2, 6))
        rows.append((label, " ".join([*words, f"{number}"])))
    return rows


def write_tsv(path: Path, rows: Sequence[tuple[str, str]]) -> str:
    text = "".join(f"{label}\t{text}\n" for label, text in rows)
    path.write_text(f"label\ttext\n{text}", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    write_tsv(folder / "train.tsv", lines(60, 1))
    write_tsv(folder / "dev.tsv", lines(20, 2))
    return folder


@pytest.fixture(scope="module")
def task(files: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained classifier; read only."""
    out = tmp_path_factory.mktemp("task") / "reviews"
    assert train(files / "train.tsv", trained, out, f"dev={files / 'dev.tsv'}") == 0
    return out


def train(file: Path, trained: Path, out: Path, *more: str) -> int:
    model = str(trained / "export")
    return main(["classify", "train", str(file), "--model", model, "--out", str(out), *more])


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


def test_a_training_scores_the_head_and_all_baselines(task: Path) -> None:
    metrics = json.loads((task / "metrics.json").read_text())
    names = [row["name"] for row in metrics["table"]]
    begins = ("majority", "tf-idf of 1-2-grams of words", "layer 0", "layer 1", "layer 2", "mix of")
    for name, begin in zip(names, (*begins, "head=pool"), strict=True):
        assert name.startswith(begin)
    for row in metrics["table"]:
        for score in row["scores"].values():
            assert score["low"] <= score["value"] <= score["high"]
    scores = [row["scores"]["accuracy"]["value"] for row in metrics["table"]]
    assert scores[0] == 0.5
    assert scores[1] == 1.0
    assert scores[-1] > 0.9
    assert [*metrics["above"]] == names[:3]
    assert {one["label"] for one in metrics["by_label"]} == {"good", "bad"}


def test_the_folder_is_whole(task: Path) -> None:
    manifest = read_manifest(str(task), "classify train")
    assert check_files(str(task), manifest) == []
    assert {file.name for file in task.parent.joinpath("reviews").iterdir()} == {
        "manifest.json",
        *(file.name for file in manifest.files),
    }
    card = (task / "README.md").read_text()
    assert "| tf-idf of 1-2-grams of words, logistic regression |" in card


def test_predictions_are_those_of_the_training_to_the_last_digit(
    task: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns, rows = read_table((task / "predictions.tsv").read_bytes())
    assert columns == [
        "place",
        "true",
        "predicted",
        "probability",
        "P(bad)",
        "P(good)",
        "note",
        "text",
    ]
    assert main(["classify", "predict", str(task), str(files / "dev.tsv")]) == 0
    columns, found = read_table(capsys.readouterr().out.encode())
    assert columns == ["predicted", "probability", "P(bad)", "P(good)", "note"]
    assert found == [row[2:7] for row in rows]


def test_a_prediction_depends_on_its_text_alone(
    task: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [text for _, text in lines(8, 5)]
    together, alone = tmp_path / "together.txt", []
    together.write_text("\n".join(texts) + "\n")
    main(["classify", "predict", str(task), str(together)])
    whole = capsys.readouterr().out.splitlines()[1:]
    for text in texts:
        together.write_text(text + "\n")
        main(["classify", "predict", str(task), str(together)])
        alone += capsys.readouterr().out.splitlines()[1:]
    assert alone == whole


def test_another_process_predicts_the_same_from_standard_input(
    task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = "kana lori\n\nvoна new words\n"
    found = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "classify", "predict", str(task), "output=jsonl"],
        input=texts, capture_output=True, text=True, timeout=100, check=True,
        env={**os.environ, "PYTHONUTF8": "1"},
    )  # fmt: skip
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    assert [row["text"] for row in rows] == ["kana lori", "", "voна new words"]
    assert rows[0]["predicted"] == "good"
    assert rows[1]["note"] == "empty text: predicted from the training labels alone"
    assert rows[1]["probabilities"] == {"bad": 0.5, "good": 0.5}
    assert "1 of 3 texts have no token" in found.stderr


def test_a_task_is_tested_on_other_texts(
    task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*lines(20, 9), ("other", "kana")]
    file = write_tsv(tmp_path / "test.tsv", rows)
    assert main(["classify", "test", str(task), file]) == 0
    out = capsys.readouterr().out
    assert "21 read = 21 used + 0 dropped" in out
    assert "so are never predicted and count as wrong: 1 (" in out
    assert re.search(r"most frequent in training \| 47\.6 \[", out)
    assert re.search(r"classifier \| (95\.2|90\.5) \[", out)
    assert "good | " in out


def test_a_finished_training_is_not_run_again(
    task: Path, files: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(task)
    assert train(files / "train.tsv", trained, task, f"dev={files / 'dev.tsv'}") == 0
    assert "already done" in capsys.readouterr().out
    assert content(task) == before
    assert train(files / "train.tsv", trained, task, f"dev={files / 'dev.tsv'}", "seed=2") == 2
    assert "classify.seed: 1 -> 2" in capsys.readouterr().err


def test_the_same_command_makes_the_same_bytes(
    task: Path, files: Path, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(files, tmp_path / "moved")
    moved = tmp_path / "moved"
    assert train(moved / "train.tsv", trained, tmp_path / "again", f"dev={moved / 'dev.tsv'}") == 0
    again = content(tmp_path / "again")
    for name, held in content(task).items():
        if name != "manifest.json" and name != "config.json":  # they name paths
            assert again[name] == held, name


def test_a_share_is_held_out_if_no_dev_file_is_named(
    files: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("dev_share=0.2", "baselines=false", "layers=mix", "pooling=mean_max")
    assert train(files / "train.tsv", trained, tmp_path / "out", *more) == 0
    out = capsys.readouterr().out
    assert "dev: 12 of the 60 texts, held out with seed 1" in out
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert len(metrics["table"]) == 1
    assert sum(metrics["layer_weights"]) == pytest.approx(1)
    assert (metrics["train"], metrics["dev"]) == (48, 12)


@pytest.mark.parametrize("head", ["gru", "cnn"])
def test_a_network_is_trained_and_used(
    head: str, files: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, dev = tmp_path / "out", files / "dev.tsv"
    small = (
        "network.hidden=4",
        "network.filters=4",
        "train.epochs=3",
        "train.learning_rate=0.02",
    )
    more = ("baselines=false", f"head={head}", "seeds=2", *small)
    more = (*more, "finetune=true") if head == "cnn" else more
    assert train(files / "train.tsv", trained, out, f"dev={dev}", *more) == 0
    told = capsys.readouterr().out
    kept = "the folder has the network of seed 1, the first of the seeds 1 to 2"
    assert "seed 2: best of" in told
    assert kept in told
    assert kept in (out / "README.md").read_text()
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["table"][0]["seeds"] == 2
    assert [one["seed"] for one in metrics["trainings"]] == [1, 2]
    assert sum(metrics["layer_weights"]) == pytest.approx(1)
    _, rows = read_table((out / "predictions.tsv").read_bytes())
    main(["classify", "predict", str(out), str(dev)])
    printed = capsys.readouterr()
    assert kept in printed.err
    _, found = read_table(printed.out.encode())
    assert found == [row[2:7] for row in rows]
    assert main(["classify", "test", str(out), str(dev)]) == 0
    assert kept in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert main(["explain", str(out), "--text", "kana lori", "--page", str(page)]) == 0
    assert kept in capsys.readouterr().err
    assert kept in page.read_text()


def test_several_labels_pairs_and_numbers(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, Any]] = [
        {"text": text, "labels": [] if n % 5 == 4 else [label, *ODD[: n % 3]]}
        for n, (label, text) in enumerate(lines(60, 1))
    ]
    several = tmp_path / "several.jsonl"
    several.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert train(several, trained, tmp_path / "several", "dev_share=0.3") == 0
    assert "micro-F1" in capsys.readouterr().out
    main(["classify", "predict", str(tmp_path / "several"), str(several), "output=jsonl"])
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert {*first["probabilities"]} == {"good", "bad", *ODD[:2]}
    assert isinstance(first["predicted"], list)

    pairs = tmp_path / "pairs.tsv"
    texts = lines(60, 1)
    pairs.write_text(
        "label\tone\ttwo\n"
        + "".join(
            f"{label}\t{text}\t{other}\n"
            for (label, text), (_, other) in zip(texts, texts[::-1], strict=True)
        )
    )
    columns = ("text=one", "pair=two", "label=label")
    assert train(pairs, trained, tmp_path / "pairs", *columns) == 0
    assert json.loads((tmp_path / "pairs/config.json").read_text())["pairs"] is True
    assert main(["classify", "predict", str(tmp_path / "pairs"), str(pairs)]) == 0
    capsys.readouterr()
    (tmp_path / "single.txt").write_text("kana\n")
    assert main(["classify", "predict", str(tmp_path / "pairs"), str(tmp_path / "single.txt")]) == 2
    assert "this task classifies pairs of texts" in capsys.readouterr().err

    numbers = tmp_path / "numbers.tsv"
    numbers.write_text(
        "label\ttext\n" + "".join(f"{text.count('a')}.5\t{text}\n" for _, text in lines(60, 1))
    )
    assert train(numbers, trained, tmp_path / "numbers", "target=number") == 0
    assert "ridge regression" in capsys.readouterr().out
    assert main(["classify", "test", str(tmp_path / "numbers"), str(numbers)]) == 0
    assert "Pearson" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["haed=lstm"], "unknown key 'haed'; did you mean 'head'?"),
        (
            ["layers=9"],
            "layers=9: this model has no such layer; set layers to a number from 0 (the input) to 2",
        ),
        (["finetune=true"], "finetune trains a network: set head to lstm, gru or cnn"),
        (["head=gru", "network.kind=cnn"], "network.kind is cnn, but head is gru; set head only"),
        (["dev=none.tsv"], "none.tsv: No such file or directory; name a labelled file"),
        (["dev={train}"], "the dev file has the content of the training file"),
        (["dev={shuffled}"], "all 60 dev texts are also training texts"),
        (["dev={other}"], "is in training ('west', 'east'; training has 'bad', 'good'); name the"),
        (["label=colour"], "colour"),
    ],
)
def test_a_wrong_setting_or_file_is_told(
    more: list[str], message: str, files: Path, trained: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    rows = lines(60, 1)
    shuffled = write_tsv(tmp_path / "shuffled.tsv", rows[::-1])
    other = write_tsv(tmp_path / "other.tsv", lines(20, 3, ("west", "east")))
    names = {"{train}": str(files / "train.tsv"), "{shuffled}": shuffled, "{other}": other}
    words = [re.sub(r"\{\w+\}", lambda found: names[found[0]], word) for word in more]
    assert train(files / "train.tsv", trained, tmp_path / "out", "baselines=false", *words) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    # The corrected command is not refused.
    assert train(files / "train.tsv", trained, tmp_path / "out", "baselines=false") == 0


def test_shared_texts_are_counted_and_scored_apart(
    files: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dev = write_tsv(tmp_path / "dev.tsv", [*lines(60, 1)[:5], *lines(20, 2)])
    assert train(files / "train.tsv", trained, tmp_path / "out", f"dev={dev}") == 0
    assert "of 25 dev texts are also training texts" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["dev_in_train"] >= 5
    assert len(metrics["without_shared_texts"]) == len(metrics["table"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("good", "kana")] * 5, "only the label 'good'"),
        ([("good", ""), ("bad", " ")], "none of its 2 records can be used"),
        ([("good", "a"), ("bad", "b")], "all texts that are left for training have one label"),
    ],
)
def test_a_file_without_a_problem_to_learn_is_told(
    rows: list[tuple[str, str]], message: str, trained: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    file = write_tsv(tmp_path / "train.tsv", rows)
    assert train(Path(file), trained, tmp_path / "out") == 2
    assert message in capsys.readouterr().err


def test_a_moved_model_is_asked_for_and_another_one_refused(
    task: Path, trained: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained / "export", tmp_path / "model")
    command = ["classify", "train", str(files / "train.tsv"), "baselines=false"]
    main([*command, "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")])
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    capsys.readouterr()
    predict = ["classify", "predict", str(tmp_path / "out"), str(files / "dev.tsv")]
    assert main(predict) == 2
    assert "give its folder with --model" in capsys.readouterr().err
    assert main([*predict, "--model", str(tmp_path / "elsewhere")]) == 0
    capsys.readouterr()

    # A task of another language model: the head is there, and not its vectors.
    weights = load_file(tmp_path / "elsewhere/model.safetensors")
    changed = {name: value + np.asarray(0, value.dtype) for name, value in weights.items()}
    name = next(iter(changed))
    changed[name] = changed[name] + np.asarray(0.5, changed[name].dtype)
    save_file(changed, tmp_path / "elsewhere/model.safetensors")
    manifest = read_manifest(str(tmp_path / "elsewhere"))
    write_manifest(str(tmp_path / "elsewhere"), replace(manifest, content="ab" * 32))
    assert main([*predict, "--model", str(tmp_path / "elsewhere")]) == 2
    assert "this is another language model (abababababab)" in capsys.readouterr().err


def test_a_missing_package_is_named_with_its_extra(
    files: Path, trained: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "sklearn" else find(name, *more),
    )
    assert train(files / "train.tsv", trained, tmp_path / "out") == 2
    assert "pip install 'biloom[tasks]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_settings_are_printed_with_their_explanations(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["classify", "train", "FILE", "--model", "M", "--out", "O", "--print-config"]
    assert main([*command, "head=gru"]) == 0
    out = capsys.readouterr().out
    assert "head: gru  # pool: logistic regression" in out
    assert "network:" in out


def test_sides_without_pairs_have_one_text() -> None:
    from preprocess.reading.labelled.examples import LabelledText

    examples = (LabelledText("a", None, ("x",), "line 1"),)
    assert data.Side(examples, np.zeros(1)).sides == (["a"],)


def cache_of(
    folder: Path,
    trained: Path,
    rows: Sequence[tuple[str, str]],
    unit: Any = "token",
    **settings: Any,
) -> Path:
    """Write a vector cache of the texts of rows, as `biloom embed` does."""
    model = BiLM.from_pretrained(trained / "export")
    content = settings.pop("model", model.content)
    with VectorShardWriter(str(folder), (0, 0), model.depth, model.dim, "float32") as writer:
        for _, text in rows:
            vectors = model.embed([text], unit=unit)[0].vectors
            writer.add(text, ["t"] * vectors.shape[1], vectors)
    files = (*writer.close(), *write_index(str(folder), [(0, 0)]))
    made = {"layers": "all", "warm_up": False, "pooling": "direction", **settings}
    details = {
        "layers": model.depth, "dim": model.dim, "dtype": "float32", "unit": unit, "model": content,
        "texts_kept": True, "vectors": made,
    }  # fmt: skip
    write_manifest(str(folder), Manifest("embed", 2, "", "", "", {}, files, details))
    return folder


def test_a_cache_gives_the_vectors_of_a_training(
    task: Path, files: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dev = str(files / "dev.tsv")
    cache = cache_of(tmp_path / "cache", trained, [*lines(60, 1), *lines(20, 2)])
    command = ["classify", "train", str(files / "train.tsv"), "--model", str(cache), f"dev={dev}"]
    assert main([*command, "--out", str(tmp_path / "out"), "baselines=false"]) == 0
    _, rows = read_table((tmp_path / "out/predictions.tsv").read_bytes())
    _, expected = read_table((task / "predictions.tsv").read_bytes())
    assert [row[2] for row in rows] == [row[2] for row in expected]
    capsys.readouterr()
    predict = ["classify", "predict", str(tmp_path / "out"), dev]
    assert main(predict) == 2
    assert "the language model of this task" in capsys.readouterr().err
    assert main([*predict, "--model", str(trained / "export")]) == 0
    _, found = read_table(capsys.readouterr().out.encode())
    assert found == [row[2:7] for row in rows]


def test_a_cache_of_whole_texts_is_pooled_alike_in_prediction(
    files: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = cache_of(tmp_path / "cache", trained, [*lines(60, 1), *lines(20, 2)][:50], "sentence")
    more = (f"dev={files / 'dev.tsv'}", f"cache={cache}", "baselines=false")
    out = tmp_path / "out"
    assert train(files / "train.tsv", trained, out, *more) == 0
    _, rows = read_table((out / "predictions.tsv").read_bytes())
    capsys.readouterr()
    assert main(["classify", "predict", str(out), str(files / "dev.tsv")]) == 0
    assert read_table(capsys.readouterr().out.encode())[1] == [row[2:7] for row in rows]
    assert train(files / "train.tsv", trained, tmp_path / "net", *more, "head=cnn") == 2
    assert "head=cnn reads those of tokens or words" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": "mean"}, "has not all layers (embed.layers=mean)"),
        ({"warm_up": True}, "was made with embed.warm_up=true"),
        ({"model": "ab" * 32}, "was made by another model"),
        ({}, "of 48 texts are not in this vector cache"),
    ],
)
def test_a_cache_that_does_not_fit_is_refused(
    settings: dict[str, Any], message: str, files: Path, trained: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    rows = lines(60, 1)[: None if settings else 5]
    cache = cache_of(tmp_path / "cache", trained, rows, **settings)
    command = ["classify", "train", str(files / "train.tsv"), "--out", str(tmp_path / "out")]
    which = ["--model", str(cache)]
    if "model" in settings:
        which = ["--model", str(trained / "export"), f"cache={cache}"]
    assert main([*command, "baselines=false", "dev_share=0.2", *which]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize("call", [1, 4, 7])
def test_a_training_that_is_stopped_while_it_writes_ends_in_the_same_bytes(
    call: int, files: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, write = iter(range(1, 100)), folder.storage.write_bytes

    def dies(path: str, data: bytes) -> None:
        if Path(path).parent == tmp_path / "out" and next(calls) == call:
            raise KeyboardInterrupt
        write(path, data)

    small = ("baselines=false", f"dev={files / 'dev.tsv'}")
    with monkeypatch.context() as patch:
        patch.setattr(folder.storage, "write_bytes", dies)
        main(["classify", "train", str(files / "train.tsv"), "--model", str(trained / "export"),
              "--out", str(tmp_path / "out"), *small])  # fmt: skip
    assert not (tmp_path / "out/manifest.json").exists()
    assert train(files / "train.tsv", trained, tmp_path / "out", *small) == 0
    assert train(files / "train.tsv", trained, tmp_path / "whole", *small) == 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_no_gain_is_claimed_if_the_most_frequent_label_does_as_well() -> None:
    def told(low: float) -> list[str]:
        found = {"value": low + 0.05, "low": low, "high": low + 0.1}
        return comparisons({"above": {"majority ('a')": found}}, "single")

    (line,) = told(0.2)
    assert line.startswith("the head is 25.0 above majority ('a') (accuracy; difference +25.0")
    for low in (-0.05, -0.2):
        assert told(low)[1] == (
            "the accuracy of the head is not above that of the most frequent label, so that its "
            "differences from other rows do not show that the vectors help"
        )
