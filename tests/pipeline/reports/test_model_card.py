"""The model folder's README.md."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from lightning_modules.evaluation.held_out import Evaluation, HeldOut, LossSums
from pipeline.reports.model_card import model_card
from preprocess.errors import one_line
from preprocess.files.manifest import Manifest, read_manifest

CORPUS = {
    "sources": [
        {"name": "wiki", "license": "CC-BY-SA-4.0", "documents": 1200, "tokens": 34567},
        {"name": "notes", "license": None, "documents": 3, "tokens": 9},
    ]
}


@pytest.fixture
def manifest(trained: Path) -> Manifest:
    return read_manifest(str(trained / "train"))


SAVED = {"weights": "float32", "head": True, "type_vectors": False, "warm_up": None}


def figures(unknown: int = 0) -> dict[str, Any]:
    text = HeldOut(tokens=1000, words=500, characters=3000, text_bytes=3000, unspaced={})
    total = LossSums((1000, 1000), (4000.0, 2000.0))
    bands = {(1, 100): total}
    return {"split": "valid", **Evaluation(text, total, unknown, bands).figures()}


def test_it_says_what_the_model_is(manifest: Manifest) -> None:
    card = model_card(manifest, SAVED, {}, {})

    assert "Two stacks of 2 LSTM layers (forward and backward, cell size 8, output size 4)" in card
    assert "Each token has 3 layers of 8 values" in card
    assert "40 steps, 600 tokens" in card
    assert "BiLM.from_pretrained" in card


def test_it_names_every_source_with_its_licence(manifest: Manifest) -> None:
    card = model_card(manifest, SAVED, {}, CORPUS)

    assert "| wiki | CC-BY-SA-4.0 | 1,200 | 34,567 |" in card
    assert "| notes | not given | 3 | 9 |" in card
    assert (
        "Cleaning, also applied to texts that are embedded: invalid_bytes replace, unicode NFC"
        in card
    )


def test_it_shows_what_was_measured(manifest: Manifest) -> None:
    lines = model_card(manifest, SAVED, figures(), {}).splitlines()

    assert "On the valid split, 1,000 tokens, over the full vocabulary:" in lines
    assert "|  | forward | backward | average |" in lines
    assert "|---|---|---|---|" in lines
    assert "| perplexity per token | 54.60 | 7.39 | 20.09 |" in lines
    assert "| perplexity per word | 2,980.96 | 54.60 | 403.43 |" in lines
    assert "| 1 to 100 | 1,000 | 54.60 | 7.39 | 20.09 |" in lines
    assert "Bits per byte of text: 1.443." in lines


def test_it_shows_both_states_and_what_is_far_worse(manifest: Manifest) -> None:
    measured = figures()
    far = {f"{way}_perplexity": 200.0 for way in ("forward", "backward", "average")}
    measured["by_state"] = {"carried": dict(measured), "text_by_text": {**measured, **far}}
    lines = model_card(manifest, SAVED, measured, {}).splitlines()

    assert "| perplexity per token, carried state | 54.60 | 7.39 | 20.09 |" in lines
    assert "| perplexity per token, text by text | 200.00 | 200.00 | 200.00 |" in lines
    assert (
        "Carried state: from text to text; text by text: each text from the zero state, as embed and "
        "score read it." in lines
    )
    assert any(
        line.startswith("**Text by text**: Perplexity text by text is 9.96 ") for line in lines
    )
    assert any(line.startswith("**Directions**: Perplexity of the forward ") for line in lines)


def test_it_says_what_is_not_defined(manifest: Manifest) -> None:
    card = model_card(manifest, SAVED, figures(unknown=7), {})

    assert (
        "\n\nBits per byte of text: not defined (7 tokens are unknown words, whose spelling has no "
        "probability).\n" in card
    )


def test_a_gru_and_a_forward_model_are_reported(manifest: Manifest) -> None:
    model = {"directions": "forward", "recurrent": {"kind": "gru", "layers": 3, "hidden": 16}}
    card = model_card(
        replace(manifest, details={**manifest.details, "model": model}), SAVED, {}, {}
    )

    assert card.startswith("# Language model\n")
    assert "One stack of 3 GRU layers (forward, cell size 16, output size 16)" in card
    assert "Each token has 4 layers of 16 values" in card


HOSTILE = "a|b\n---\n# h\r\n<script>alert('x')</script> [l](javascript:x) `c` *e* _u_ $m$ \x1b[31m\u202ez\u2028 &lt; \\|"


def test_names_cannot_add_markup(manifest: Manifest) -> None:
    """The card with a hostile name has the structure of the card with a plain one."""

    def card(name: str) -> str:
        source = {"name": name, "license": name, "documents": 1, "tokens": 2}
        held_out = {**figures(), "not_defined": {"word": f"text of {name}"}}
        return model_card(replace(manifest, biloom=name), SAVED, held_out, {"sources": [source]})

    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    plain, hostile = (parser.parse(card(name)) for name in ("plain", HOSTILE))

    def structure(tokens: list[Token]) -> list[str]:
        inner = [one.type for token in tokens for one in token.children or () if one.type != "text"]
        return [*(token.type for token in tokens), *inner]

    assert structure(hostile) == structure(plain)
    shown = [
        "".join(one.content for one in token.children or ()) for token in hostile if token.children
    ]
    assert one_line(HOSTILE) in shown
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e]", card(HOSTILE))


def test_it_shows_all_splits(manifest: Manifest) -> None:
    both = {**figures(), "split": "test", "others": [figures()]}
    lines = model_card(manifest, SAVED, both, {}).splitlines()

    places = [
        lines.index(f"On the {split} split, 1,000 tokens, over the full vocabulary:")
        for split in ("valid", "test")
    ]
    assert places == sorted(places)
    assert lines[places[1] - 1] == ""


@pytest.mark.parametrize("evaluation", [{}, {"split": "valid", "tokens": 0}])
def test_it_says_where_nothing_was_measured(manifest: Manifest, evaluation: dict[str, Any]) -> None:
    assert "Not measured: no held-out text was evaluated" in model_card(
        manifest, SAVED, evaluation, {}
    )


def test_the_card_tells_how_the_model_is_stored(manifest: Manifest) -> None:
    assert "Weights are stored as float32, with the output layer." in model_card(
        manifest, SAVED, {}, {}
    )
    saved = {"weights": "int8", "head": False, "type_vectors": True, "warm_up": ""}
    expected = (
        "Weights are stored as int8, without the output layer, with the vector of every word "
        "of the vocabulary, with a warm-up text."
    )
    assert expected in model_card(manifest, saved, {}, {})


@pytest.mark.parametrize(
    ("best", "step", "told"),
    [
        (15, 15, "The weights are those of step 15 of 40, at which {lowest}."),
        (40, 40, "The weights are those of the last step, at which {lowest}."),
        (15, 40, "The weights are those of the last step; {lowest} at step 15."),
    ],
)
def test_the_card_tells_which_step_the_weights_are_of(
    manifest: Manifest, best: int, step: int, told: str
) -> None:
    figures = {"loss": 4.0, "forward_perplexity": 50.0, "average_perplexity": 54.6}
    details = {**manifest.details, "best_step": best, "best": figures}

    card = model_card(replace(manifest, details=details), SAVED, {}, {}, step)

    assert told.format(lowest="perplexity of held-out text was lowest (54.6)") in card

    sampled = {**details, "best": {**figures, "tokens": 2000}, "last": {"tokens": 9000}}
    card = model_card(replace(manifest, details=sampled), SAVED, {}, {}, step)
    lowest = "perplexity of held-out text was lowest (54.6 on a sample of 2,000 tokens)"
    assert told.format(lowest=lowest) in card


def test_the_card_of_a_training_without_a_best_step_names_none(manifest: Manifest) -> None:
    former = {k: v for k, v in manifest.details.items() if k not in ("best_step", "best")}
    for details in (former, {**former, "best_step": None, "best": None}):
        card = model_card(replace(manifest, details=details), SAVED, {}, {})
        assert "passes over the corpus).\n" in card
