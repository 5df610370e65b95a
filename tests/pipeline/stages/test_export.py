"""The export stage: a model folder that needs no other file."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from biloom import BiLM
from lightning_modules.evaluation.scoring import score_texts
from lightning_modules.nn.inputs.char_cnn import CharCNN
from preprocess.errors import UserError
from preprocess.files.fingerprint import fingerprint
from preprocess.files.manifest import check_files, read_manifest, write_manifest
from preprocess.shards.format import Corpus
from preprocess.tokenizers.load import load_tokenizer

Tiny = Any  # of conftest.py


def test_a_model_folder_holds_weights_config_tokenizer_and_card(tiny: Tiny, trained: Path) -> None:
    folder = trained / "export"
    manifest = read_manifest(str(folder), "export")

    tokenizer = {"tokenizer.json", "vocabulary.txt", "vocabulary.index"}
    names = {"model.safetensors", "config.json", "README.md", *tokenizer}
    assert {file.name for file in manifest.files} == names
    assert check_files(str(folder), manifest) == []
    saved = json.loads((folder / "config.json").read_text())
    details = read_manifest(str(trained / "train")).details
    kept = ("model", "vocabulary", "cutoffs", "boundary", "cleaning", "tokenizer")
    stored = {"head": True, "weights": "float32", "type_vectors": False, "warm_up": None}
    assert saved == {key: details[key] for key in kept} | stored
    texts = ["kana lori 維典"]
    ours, theirs = (load_tokenizer(str(one)) for one in (folder, tiny.root / "tokenizer"))
    assert [x.tolist() for x in ours.encode(texts)] == [x.tolist() for x in theirs.encode(texts)]


def test_the_card_shows_the_measured_figures(trained: Path) -> None:
    card = (trained / "export" / "README.md").read_text()
    figures = read_manifest(str(trained / "evaluate")).details

    for state, label in (("carried", "carried state"), ("text_by_text", "text by text")):
        shown = figures["by_state"][state]["forward_perplexity"]
        assert f"| perplexity per token, {label} | {shown:,.2f} |" in card
    assert "| corpus | not given | " in card


def test_a_training_without_its_details_is_refused(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained / "train", tmp_path / "train")
    manifest = read_manifest(f"{tmp_path}/train")
    details = {key: value for key, value in manifest.details.items() if key != "boundary"}
    write_manifest(f"{tmp_path}/train", replace(manifest, details=details))
    for stage in ("evaluate", "export"):
        with pytest.raises(UserError, match=r"train: manifest\.json is damaged \(no 'boundary'\)"):
            tiny.run(stage, tmp_path)


def test_the_content_hash_covers_the_model_but_not_the_card(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    manifest, _ = tiny.run("export", tmp_path, f"export.checkpoint={trained}/train")
    card = (tmp_path / "export" / "README.md").read_text()

    assert manifest.content == read_manifest(str(trained / "export")).content
    assert "Not measured: no held-out text was evaluated." in card


def test_the_tokenizer_of_another_training_is_refused(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    other = (f"prepare.tokenizer={tmp_path}/tokenizer", "tokenizer.min_count=20")
    tiny.run("tokenizer", tmp_path, *other)

    with pytest.raises(UserError, match=r"this is not the tokenizer that .* was trained with; set"):
        tiny.run("export", tmp_path, *other, f"export.checkpoint={trained}/train")


def test_a_missing_corpus_does_not_stop_an_export(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    tiny.run(
        "export", tmp_path, f"export.checkpoint={trained}/train", f"train.corpus={tmp_path}/gone"
    )

    assert "## Corpus" not in (tmp_path / "export" / "README.md").read_text()


def test_an_evaluation_of_an_older_checkpoint_is_not_on_the_card(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained / "evaluate", tmp_path / "evaluate")
    tiny.run("train", tmp_path, "train.steps=2")
    tiny.run("export", tmp_path)

    assert "Not measured" in (tmp_path / "export" / "README.md").read_text()


def test_another_corpus_than_the_training_corpus_is_not_on_the_card(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    other = (f"train.corpus={tmp_path}/prepare", "prepare.valid_fraction=0.3")
    tiny.run("prepare", tmp_path, *other)
    tiny.run("export", tmp_path, f"export.checkpoint={trained}/train", *other)

    assert "## Corpus" not in (tmp_path / "export" / "README.md").read_text()


def export(tiny: Tiny, trained: Path, output: Path, *overrides: str) -> BiLM:
    tiny.run("export", output, f"export.checkpoint={trained}/train", *overrides)
    return BiLM.from_pretrained(output / "export")


TEXTS = ["kana lori mele", "維典 kana"]


@pytest.mark.parametrize(("kind", "error"), [("float16", 1e-3), ("int8", 2e-2)])
def test_smaller_weights_give_almost_the_same_vectors(
    tiny: Tiny, trained: Path, tmp_path: Path, kind: str, error: float
) -> None:
    exact = BiLM.from_pretrained(trained / "export")
    model = export(tiny, trained, tmp_path, f"export.weights={kind}")
    sizes = [
        (folder / "export" / "model.safetensors").stat().st_size for folder in (trained, tmp_path)
    ]

    assert sizes[1] < 0.8 * sizes[0]
    assert model.content != exact.content
    for one, other in zip(model.embed(TEXTS), exact.embed(TEXTS), strict=True):
        apart = np.square(one.vectors - other.vectors).mean() / np.square(other.vectors).mean()
        assert 0 < np.sqrt(apart) < error
    for name, weight in exact.network.state_dict().items():
        found = model.network.state_dict()[name]
        assert found.dtype == weight.dtype
        if not weight.is_floating_point():
            assert torch.equal(found, weight)


def test_without_an_output_layer_vectors_are_the_same_and_scores_are_refused(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    exact = BiLM.from_pretrained(trained / "export")
    model = export(tiny, trained, tmp_path, "export.head=false")

    for one, other in zip(model.embed(TEXTS), exact.embed(TEXTS), strict=True):
        np.testing.assert_array_equal(one.vectors, other.vectors)
    with pytest.raises(UserError, match="this model has no output layer"):
        score_texts(model, TEXTS)
    card = (tmp_path / "export" / "README.md").read_text()
    assert "without the output layer" in card


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_training_can_start_from_a_model_without_an_output_layer(
    tiny: Tiny, trained: Path, tmp_path: Path, weights: str
) -> None:
    export(tiny, trained, tmp_path, "export.head=false", f"export.weights={weights}")
    _, printed = tiny.run("train", tmp_path, f"train.init_from={tmp_path}/export", "train.steps=2")

    assert "the output layer starts from random weights" in printed


def test_the_warm_up_text_is_stored_with_the_model(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    model = export(tiny, trained, tmp_path, "export.warm_up=kana lori mele")
    [cold], [warm] = (model.embed(TEXTS[:1], warm_up=one) for one in (False, True))

    assert model.warm_up == "kana lori mele"
    assert not np.allclose(cold.vectors[1:], warm.vectors[1:])


SPELLING = (
    "model.input.kind=char_cnn", "model.input.filters=[[1,4],[2,4]]", "model.input.dim=4",
    "model.input.max_characters=8", "train.steps=2",
)  # fmt: skip


def test_stored_word_vectors_equal_those_computed_from_characters(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_modules.vectors.type_vectors.IDS_AT_ONCE", 7)
    tiny.run("train", tmp_path, *SPELLING)
    models = []
    for name, given in (("plain", "false"), ("finished", "true")):
        output = tmp_path / name
        models.append(export(tiny, tmp_path, output, f"export.type_vectors={given}", *SPELLING))
    texts = [*TEXTS, "kana zuzu wordbeyondthevocabulary"]

    for one, other in zip(models[0].embed(texts), models[1].embed(texts), strict=True):
        np.testing.assert_allclose(one.vectors, other.vectors, atol=1e-6)
    computed: list[int] = []
    real = CharCNN.vectors
    monkeypatch.setattr(CharCNN, "vectors", lambda *a: computed.append(1) or real(*a))
    known = models[1].tokenizer.spelling(5)
    BiLM.from_pretrained(tmp_path / "finished" / "export").embed([known])
    assert not computed


def test_stored_word_vectors_are_refused_for_an_embedding_input(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match=r"export\.type_vectors is true, but model\.input\.kind=embedding"
    ):
        export(tiny, trained, tmp_path, "export.type_vectors=true")


def test_a_tied_adaptive_input_needs_its_output_layer(tiny: Tiny, tmp_path: Path) -> None:
    tied = ("model.input.kind=adaptive", "model.tied=true", "train.steps=2")
    tiny.run("train", tmp_path, *tied)
    with pytest.raises(UserError, match=r"the input vectors are in the output layer"):
        export(tiny, tmp_path, tmp_path / "bare", "export.head=false", *tied)


def test_a_smaller_model_keeps_its_lowest_layers_and_most_frequent_words(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    options = ("export.head=false", "export.layers=1", "export.vocabulary=40")
    output = (tmp_path / "one", tmp_path / "two")
    manifest, printed = tiny.run(
        "export", output[0], f"export.checkpoint={trained}/train", *options
    )
    exact = BiLM.from_pretrained(trained / "export")
    model = BiLM.from_pretrained(output[0] / "export")
    counts = Corpus.open(str(tiny.root / "prepare")).counts()
    words = [exact.tokenizer.spelling(n) for n in (3, 20, 39, 40, 90)]
    full, small = (one.embed([" ".join(words[:3])])[0] for one in (exact, model))

    assert model.tokenizer.encode([" ".join(words)])[0].tolist() == [3, 20, 39, 0, 0]
    np.testing.assert_array_equal(small.vectors, full.vectors[:2])
    share = 100 * counts[40:].sum() / counts.sum()
    lines = [
        "Recurrent layers: the lowest 1 of 2, so each token has 2 layers of vectors, equal to those of the "
        "full model.",
        f"Vocabulary: the first 40 of {len(counts)} ids; share of the training corpus's tokens whose words are "
        f"dropped: {share:.3g} %.",
    ]
    card = (output[0] / "export" / "README.md").read_text()
    for line in lines:
        assert line in printed
        assert f"- {line}" in card
    assert "Any perplexities on this card are those of the full model." in card
    smaller = manifest.details["smaller"]
    assert smaller["layers"] == [2, 1]
    assert smaller["parameters"] == [exact_parameters(exact), manifest.details["parameters"]]
    assert manifest.details["parameters"] == sum(p.numel() for p in model.network.parameters())
    # The corpus decides no byte of the model.
    without = (*options, f"train.corpus={tmp_path}/gone")
    again, printed = tiny.run("export", output[1], f"export.checkpoint={trained}/train", *without)
    assert again.content == manifest.content != read_manifest(str(trained / "export")).content
    assert "not known, because the training corpus is not at hand" in printed


def exact_parameters(model: BiLM) -> int:
    return sum(parameter.numel() for parameter in model.network.parameters())


def test_a_low_rank_input_can_score_and_its_error_is_told(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    options = (f"export.checkpoint={trained}/train", "export.input_rank=2", "export.weights=int8")
    manifest, printed = tiny.run("export", tmp_path, *options)
    model = BiLM.from_pretrained(tmp_path / "export")

    assert model.network.state_dict()["input.embedding.weight"].shape[1] == 2
    error = manifest.details["smaller"]["input_error"]
    assert f"Input matrix: rank 2 of 4; relative error {error:.3g}, weighted by" in printed
    assert score_texts(model, TEXTS)[0].log_probability < 0


def test_a_later_evaluation_keeps_what_the_card_says_of_a_smaller_model(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained / "train", tmp_path / "train")
    tiny.run("export", tmp_path, "export.input_rank=2")
    _, printed = tiny.run("evaluate", tmp_path)

    assert "updated the model card" in printed
    card = (tmp_path / "export" / "README.md").read_text()
    assert "## Made smaller" in card
    assert "Not measured" not in card


def test_a_finished_export_without_the_settings_of_smaller_models_stays_valid(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    folder = str(tmp_path / "run" / "export")
    manifest = read_manifest(folder)
    new = ("export.layers", "export.input_rank", "export.vocabulary")
    asked = {key: value for key, value in manifest.asked.items() if key not in new}
    write_manifest(folder, replace(manifest, asked=asked, fingerprint=fingerprint(asked)))
    _, printed = tiny.run("export", tmp_path / "run")

    assert "already done" in printed


def test_a_smaller_export_that_cannot_be_is_refused(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"^export\.layers: the output layer reads the top layer"):
        tiny.run("export", tmp_path, f"export.checkpoint={trained}/train", "export.layers=1")
    for name, least in (("layers", 1), ("input_rank", 1), ("vocabulary", 4)):
        with pytest.raises(UserError, match=rf"export\.{name}: must be .* of at least {least} or"):
            tiny.config(tmp_path, f"export.{name}={least - 1}")


def test_a_damaged_corpus_does_not_stop_a_smaller_export(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny.root / "prepare", tmp_path / "prepare")
    (tmp_path / "prepare" / "counts.npy").write_bytes(b"damaged")
    options = ("export.head=false", "export.vocabulary=40", f"train.corpus={tmp_path}/prepare")
    _, printed = tiny.run("export", tmp_path, f"export.checkpoint={trained}/train", *options)

    assert "the share of unknown tokens is not known: " in printed
    assert "counts.npy" in printed
