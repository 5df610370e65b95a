"""The evaluate stage."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from biloom import BiLM
from lightning_modules.evaluation.scoring import score_texts
from lightning_modules.models.model_folder import network_of_checkpoint
from pipeline.cli import main
from pipeline.console import Console
from pipeline.lifecycle.lock import lock
from pipeline.reports import assessment
from pipeline.reports.perplexity_tables import evaluations
from preprocess.errors import UserError
from preprocess.files.manifest import read_manifest
from preprocess.shards.format import Corpus
from preprocess.work.folder import lock_file

Tiny = Any  # of conftest.py


def test_the_manifest_holds_the_figures_that_are_printed(tiny: Tiny, trained: Path) -> None:
    output = trained.parent / "evaluated"
    manifest, printed = tiny.run("evaluate", output, f"evaluate.checkpoint={trained}/train")
    figures = manifest.details

    lines = [line.strip() for line in printed.splitlines()]
    ways = ("forward", "backward", "average")
    assert f"{figures['tokens']:,} tokens of the valid split, full vocabulary" in lines
    assert "perplexity:  | forward | backward | average" in lines
    of_states = figures["by_state"]
    labels = {"carried": "carried state", "text_by_text": "text by text"}
    assert of_states.keys() == labels.keys()
    for unit, key in (("token", "perplexity"), ("word", "word_perplexity")):
        for state, label in labels.items():
            shown = " | ".join(f"{of_states[state][f'{way}_{key}']:,.1f}" for way in ways)
            assert f"per {unit}, {label} | {shown}" in lines
    assert (
        "carried state: from text to text; text by text: each text from the zero state, as embed and "
        "score read it" in lines
    )
    first, last = figures["bands"]
    assert (first["last_rank"], last["first_rank"], last["last_rank"]) == (100, 101, 103)
    assert first["forward_tokens"] + last["forward_tokens"] == figures["tokens"]
    carried, zero = (of_states[state]["bits_per_byte"] for state in labels)
    assert (
        f"{carried:.3f} (carried state), {zero:.3f} (text by text) bits per byte of text" in lines
    )
    assert figures["state"] == "text_by_text"
    assert of_states["text_by_text"].items() <= figures.items()
    assert not any(line.startswith(("Directions:", "Text by text:")) for line in lines)
    assert figures["split"] == "valid"
    assert figures["not_defined"] == {}
    assert 1 < figures["average_perplexity"] < 103
    stats = json.loads((output / "evaluate" / "stats.json").read_text())
    assert figures.items() <= stats.items()


def test_perplexity_by_rank_uses_the_training_corpus(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    """The counts of another corpus play no part if the training corpus is available."""
    text = tmp_path / "other.txt"
    text.write_text("\n".join(["lona lona mina", "kana", "רא", "mina kana kana"] * 20))
    other = (
        f"prepare.input={text}",
        "prepare.deduplicate=off",
        "prepare.valid_fraction=0.5",
        f"evaluate.corpus={tmp_path}/prepare",
        f"evaluate.checkpoint={trained}/train",
    )
    tiny.run("prepare", tmp_path, *other)
    manifest, printed = tiny.run("evaluate", tmp_path, *other)
    assert len(manifest.details["bands"]) == 2

    alone = (*other, "train.corpus=null")
    manifest, printed = tiny.run("evaluate", tmp_path / "alone", *alone)
    assert manifest.details["bands"] == []
    assert (
        "perplexity by rank: not defined (the training corpus is not available; name it in "
        "train.corpus)" in printed
    )


def test_the_text_that_was_trained_on_is_refused(tiny: Tiny, trained: Path, tmp_path: Path) -> None:
    given = ("evaluate.split=train", f"evaluate.checkpoint={trained}/train")

    with pytest.raises(UserError) as error:
        tiny.run("evaluate", tmp_path, *given)

    assert str(error.value) == (
        f"{tiny.root}/prepare: the model was trained on this train split; set evaluate.split to valid "
        "or test, or evaluate.corpus to another corpus"
    )


@pytest.fixture(scope="module")
def two_splits(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A training on a corpus with valid and test text, and the overrides for its stages."""
    root = tmp_path_factory.mktemp("two-splits")
    given = [
        "prepare.test_fraction=0.1",
        f"train.corpus={root}/prepare",
        f"evaluate.corpus={root}/prepare",
        f"evaluate.checkpoint={root}/train",
        f"export.checkpoint={root}/train",
        "train.steps=2",
    ]
    for stage in ("prepare", "train"):
        tiny.run(stage, root, *given)
    return root, given


def test_a_second_split_keeps_the_first(
    tiny: Tiny, two_splits: tuple[Path, list[str]], tmp_path: Path, capsys: Any
) -> None:
    _, given = two_splits
    first, _ = tiny.run("evaluate", tmp_path, *given)
    second, printed = tiny.run("evaluate", tmp_path, *given, "evaluate.split=test")

    assert "tokens of the test split" in printed
    assert "tokens of the valid split" not in printed
    found = {one["split"]: one for one in evaluations(second.details)}
    assert found["valid"] == first.details
    assert found["test"]["tokens"] != found["valid"]["tokens"] > 0
    for split in ("valid", "test"):
        again, printed = tiny.run("evaluate", tmp_path, *given, f"evaluate.split={split}")
        assert "already done" in printed
        assert again == second
    stats = json.loads((tmp_path / "evaluate" / "stats.json").read_text())
    assert evaluations(stats) == [first.details, stats]
    assert main(["status", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for split, figures in found.items():
        perplexity = f"{figures['average_perplexity']:,.1f}"
        assert f"evaluate: {split} split: average perplexity per token {perplexity}" in shown
    assert main(["inspect", f"{tmp_path}/evaluate"]) == 0
    shown = capsys.readouterr().out
    assert shown.index("tokens of the valid split") < shown.index("tokens of the test split")


def test_the_card_of_an_earlier_export_shows_an_evaluation(
    tiny: Tiny, two_splits: tuple[Path, list[str]], tmp_path: Path
) -> None:
    _, given = two_splits
    exported, _ = tiny.run("export", tmp_path, *given)
    card = tmp_path / "export" / "README.md"
    assert "Not measured" in card.read_text()

    for split in ("valid", "test"):
        manifest, printed = tiny.run("evaluate", tmp_path, *given, f"evaluate.split={split}")
        assert f"updated the model card {card}" in printed
    for one in evaluations(manifest.details):
        shown = f"On the {one['split']} split, {one['tokens']:,} tokens, over the full vocabulary:"
        assert shown in card.read_text()
    now = read_manifest(f"{tmp_path}/export", "export")
    assert (now.content, now.asked, now.details) == (
        exported.content,
        exported.asked,
        exported.details,
    )
    assert main(["check", f"{tmp_path}/export"]) == 0
    assert "already done" in tiny.run("export", tmp_path, *given)[1]
    tiny.run("export", tmp_path / "later", *given, f"run.output={tmp_path}/later")
    assert "Not measured" in (tmp_path / "later" / "export" / "README.md").read_text()
    shutil.copytree(tmp_path / "evaluate", tmp_path / "again" / "evaluate")
    tiny.run("export", tmp_path / "again", *given)
    assert (tmp_path / "again" / "export" / "README.md").read_text() == card.read_text()


def test_a_card_of_another_checkpoint_or_of_a_running_export_is_left(
    tiny: Tiny, two_splits: tuple[Path, list[str]], trained: Path, tmp_path: Path
) -> None:
    _, given = two_splits
    card = tmp_path / "export" / "README.md"
    tiny.run("export", tmp_path, *given, f"export.checkpoint={trained}/train")
    before = card.read_text()
    assert "model card" not in tiny.run("evaluate", tmp_path, *given)[1]
    assert card.read_text() == before

    tiny.run("export", tmp_path / "b", *given)
    folder = f"{tmp_path}/b/export"
    with lock(folder, lock_file(folder), Console()):
        printed = tiny.run("evaluate", tmp_path / "b", *given)[1]
    assert f"the model card does not show this evaluation: {folder} is being written by" in printed
    assert "Not measured" in (tmp_path / "b" / "export" / "README.md").read_text()


def test_splits_are_kept_in_any_order(
    tiny: Tiny, two_splits: tuple[Path, list[str]], tmp_path: Path
) -> None:
    _, given = two_splits
    for split in ("test", "valid"):
        tiny.run("evaluate", tmp_path / "a", *given, f"evaluate.split={split}")
    for split in ("valid", "test"):
        last, _ = tiny.run("evaluate", tmp_path / "b", *given, f"evaluate.split={split}")
    other = read_manifest(f"{tmp_path}/a/evaluate")
    own = {one["split"]: one["bits_per_byte"] for one in evaluations(last.details)}
    assert own == {one["split"]: one["bits_per_byte"] for one in evaluations(other.details)}
    assert [one["split"] for one in evaluations(other.details)] == ["valid", "test"]


def test_results_of_an_earlier_checkpoint_are_dropped(
    tiny: Tiny, two_splits: tuple[Path, list[str]], tmp_path: Path
) -> None:
    root, given = two_splits
    shutil.copytree(root / "train", tmp_path / "train")
    given = [*given, f"evaluate.checkpoint={tmp_path}/train"]
    for split in ("valid", "test"):
        tiny.run("evaluate", tmp_path, *given, f"evaluate.split={split}")
    tiny.run("train", tmp_path, *given, "train.steps=4")
    later, printed = tiny.run("evaluate", tmp_path, *given, "train.steps=4")

    assert [one["split"] for one in evaluations(later.details)] == ["valid"]
    assert (
        "the result of the test split was that of an earlier checkpoint and is dropped; evaluate it "
        "again with evaluate.split=test" in printed
    )
    tiny.run("train", tmp_path / "other", *given, "train.seed=9")
    with pytest.raises(UserError, match=r"made with other settings or inputs:\n    checkpoint"):
        tiny.run("evaluate", tmp_path, *given, f"evaluate.checkpoint={tmp_path}/other/train")


def test_a_loss_that_is_not_finite_is_reported(
    tiny: Tiny, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_modules.nn.bilm import BiLMNetwork
    from pipeline.stages import evaluate

    def damaged(folder: str, details: dict[str, Any], name: str) -> BiLMNetwork:
        network = network_of_checkpoint(folder, details, name)
        with torch.no_grad():
            network.get_parameter("recurrent.layers.0.bias")[0] = float("nan")
        return network

    monkeypatch.setattr(evaluate, "network_of_checkpoint", damaged)
    given = (f"evaluate.checkpoint={trained}/train", f"export.checkpoint={trained}/train")
    with pytest.raises(
        UserError,
        match=r"the loss of the valid split is not a finite number, because the weights "
        r"'recurrent\.layers\.0\.bias' hold NaN or infinity; train again",
    ):
        tiny.run("evaluate", tmp_path, *given)
    assert not (tmp_path / "evaluate" / "manifest.json").exists()


def test_the_last_evaluation_of_training_and_the_stage_agree(trained: Path) -> None:
    rows = (trained / "train" / "metrics.jsonl").read_text().splitlines()
    look = json.loads(rows[-1])["valid_average_perplexity"]
    figures = json.loads((trained / "evaluate" / "manifest.json").read_text())["details"]

    assert look == pytest.approx(figures["average_perplexity"], rel=1e-5)


def test_an_empty_split_is_reported_and_is_no_error(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    manifest, printed = tiny.run(
        "evaluate", tmp_path, "evaluate.split=test", f"evaluate.checkpoint={trained}/train"
    )

    assert manifest.details == {"split": "test", "tokens": 0}
    assert (
        f"nothing to evaluate: the test split of {tiny.root}/prepare is empty; prepare a corpus with a "
        "source of split: test, a larger prepare.test_fraction or more text" in printed
    )


def test_a_corpus_of_another_tokenizer_is_refused(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    other = (
        f"prepare.tokenizer={tmp_path}/tokenizer",
        "tokenizer.min_count=20",
        f"evaluate.corpus={tmp_path}/prepare",
        f"evaluate.checkpoint={trained}/train",
    )
    for stage in ("tokenizer", "prepare"):
        tiny.run(stage, tmp_path, *other)

    with pytest.raises(UserError, match=r"another tokenizer than the model's; prepare it with"):
        tiny.run("evaluate", tmp_path, *other)


def test_a_folder_without_a_model_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no finished 'train'"):
        tiny.run("evaluate", tmp_path)


def test_a_missing_checkpoint_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    tiny.run("train", tmp_path, "train.steps=1")
    (tmp_path / "train" / "best.ckpt").unlink()

    with pytest.raises(UserError, match=r"best\.ckpt is (missing|damaged)"):
        tiny.run("evaluate", tmp_path)


def test_a_character_cnn_needs_the_tokenizer(tiny: Tiny, trained: Path, tmp_path: Path) -> None:
    given = ("model.input={kind: char_cnn, dim: 2, filters: [[1, 4], [3, 4]]}", "train.steps=1")
    tiny.run("train", tmp_path, *given)
    other = (*given, f"prepare.tokenizer={tmp_path}/tokenizer", "tokenizer.min_count=20")
    tiny.run("tokenizer", tmp_path, *other)

    with pytest.raises(UserError, match=r"this is not the tokenizer .* set prepare\.tokenizer to"):
        tiny.run("evaluate", tmp_path, *other)
    manifest, _ = tiny.run("evaluate", tmp_path, *given)

    assert 1 < manifest.details["average_perplexity"] < 1000


def test_the_state_is_reset_at_documents_as_in_training(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    """With train.reset_state, the last evaluation of training resets the state too."""
    tiny.run("train", tmp_path, "train.reset_state=true", "model.directions=forward")
    manifest, _ = tiny.run("evaluate", tmp_path)

    rows = (tmp_path / "train" / "metrics.jsonl").read_text().splitlines()
    look = json.loads(rows[-1])["valid_forward_perplexity"]
    assert look == pytest.approx(manifest.details["forward_perplexity"], rel=1e-5)
    assert manifest.details["backward_perplexity"] is None
    of_states = manifest.details["by_state"]
    assert manifest.details["state"] == "text_by_text"
    assert of_states["text_by_text"].items() <= manifest.details.items()
    assert of_states["carried"]["forward_perplexity"] != look
    assert of_states["carried"]["average_perplexity"] is None


def test_text_by_text_is_the_sum_of_the_scores_of_the_texts(tiny: Tiny, trained: Path) -> None:
    model = BiLM.from_pretrained(trained / "export")
    words = {model.tokenizer.encode([word])[0].item(): word for word in words_of(tiny)}
    texts = [
        [words[int(one)] for one in ids]
        for shard in Corpus.open(f"{tiny.root}/prepare").shards("valid")
        for ids in np.split(shard.ids, np.cumsum(shard.lengths)[:-1])
    ]
    scores = score_texts(model, texts)

    found = read_manifest(str(trained / "evaluate")).details["by_state"]["text_by_text"]
    assert found["forward"] == pytest.approx(-sum(one.forward for one in scores), rel=1e-6)
    assert found["backward"] == pytest.approx(-sum(one.backward or 0 for one in scores), rel=1e-6)


def words_of(tiny: Tiny) -> set[str]:
    return set((tiny.root / "corpus.txt").read_text(encoding="utf-8").split())


@pytest.mark.parametrize(
    ("valid", "tokens"),
    [("kana lona\n", 3), ("kana\n\nkana lona mina\n", 7), ("\n", 1)],
    ids=["one text", "three texts, one without tokens", "a text without tokens"],
)
def test_a_split_of_few_texts_is_evaluated(
    tiny: Tiny, trained: Path, tmp_path: Path, valid: str, tokens: int
) -> None:
    """Rows are fewer than evaluate.rows, or than texts."""
    text = tmp_path / "valid.txt"
    text.write_text(valid)
    given = (
        f"prepare.input=[{{name: valid, path: {text}, split: valid}}]",
        "prepare.drop_empty=false",
        "prepare.deduplicate=off",
        f"evaluate.corpus={tmp_path}/prepare",
        f"evaluate.checkpoint={trained}/train",
    )
    tiny.run("prepare", tmp_path, *given)
    manifest, _ = tiny.run("evaluate", tmp_path, *given)

    assert manifest.details["tokens"] == tokens
    for one in manifest.details["by_state"].values():
        assert 1 < one["average_perplexity"] < 1e4
    if len(valid.split("\n")) == 2:  # one text, which both read from the zero state
        carried, zero = manifest.details["by_state"].values()
        assert carried["forward"] == pytest.approx(zero["forward"], rel=0.2)


def test_what_is_far_worse_is_told_on_the_terminal_and_in_the_card(
    tiny: Tiny, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    given = (f"evaluate.checkpoint={trained}/train", f"export.checkpoint={trained}/train")
    tiny.run("export", tmp_path, *given)
    monkeypatch.setattr(assessment, "UNEVEN", 1.0)
    monkeypatch.setattr(assessment, "COLD_START", 0.5)
    monkeypatch.setattr(assessment, "CHANCE", -float("inf"))

    _, printed = tiny.run("evaluate", tmp_path, *given)

    card = (tmp_path / "export" / "README.md").read_text()
    assert main(["inspect", f"{tmp_path}/evaluate"]) == 0
    inspected = capsys.readouterr()
    for begin in (
        "Directions: Perplexity of the forward direction is 1.",
        "Text by text: Perplexity text by text is ",
    ):
        assert f"\n  {begin}" in printed
        assert f"\n  {begin}" in inspected.out
        assert f"\n**{begin.replace(':', '**:', 1)}" in card
