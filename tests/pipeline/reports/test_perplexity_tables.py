"""Held-out figures as they are shown."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console as RichConsole

from lightning_modules.evaluation.held_out import Evaluation, HeldOut, LossSums
from pipeline.console import Console
from pipeline.reports.perplexity_tables import figure, show_evaluation


def evaluation(
    unspaced: dict[str, float], unknown: int, *nats: float, bands: bool = True
) -> dict[str, Any]:
    text = HeldOut(tokens=4000, words=2000, characters=12_000, text_bytes=13_000, unspaced=unspaced)
    size = tuple(4000 for _ in nats)
    held = {
        (1, 100): LossSums(size, nats),
        (101, 1200): LossSums(tuple(0 for _ in nats), (0.0,) * len(nats)),
    }
    found = Evaluation(text, LossSums(size, nats), unknown, held if bands else {}).figures()
    return {"split": "valid", **found}


def shown(figures: dict[str, Any]) -> list[str]:
    printed = StringIO()
    show_evaluation(Console(RichConsole(file=printed, width=1000, highlight=False)), figures)
    return [line.strip() for line in printed.getvalue().splitlines()]


def test_all_figures_are_shown() -> None:
    assert shown(evaluation({}, 0, 20_000.0, 16_000.0)) == [
        "4,000 tokens of the valid split, full vocabulary",
        "perplexity:  | forward | backward | average",
        "per token | 148.4 | 54.6 | 90.0",
        "per word | 22,026.5 | 2,981.0 | 8,103.1",
        "perplexity per token, by the predicted token's frequency rank in the training text: rank of the predicted token | tokens | forward | backward | average",
        "1 to 100 | 4,000 | 148.4 | 54.6 | 90.0",
        "101 to 1,200 | 0 | - | - | -",
        "1.998 bits per byte of text",
    ]


def test_both_states_are_shown() -> None:
    figures = evaluation({}, 0, 20_000.0, 16_000.0, bands=False)
    zero = evaluation({}, 0, 24_000.0, 20_000.0)
    figures["by_state"] = {"text_by_text": zero, "carried": dict(figures)}

    assert shown(figures)[1:8] == [
        "perplexity:  | forward | backward | average",
        "per token, carried state | 148.4 | 54.6 | 90.0",
        "per token, text by text | 403.4 | 148.4 | 244.7",
        "per word, carried state | 22,026.5 | 2,981.0 | 8,103.1",
        "per word, text by text | 162,754.8 | 22,026.5 | 59,874.1",
        "carried state: from text to text; text by text: each text from the zero state, as embed and "
        "score read it",
        "1.998 (carried state), 2.441 (text by text) bits per byte of text",
    ]


def test_what_is_not_defined_says_why() -> None:
    lines = shown(evaluation({"zh": 41.0}, 12, 20_000.0, 16_000.0, bands=False))

    assert lines == [
        "4,000 tokens of the valid split, full vocabulary",
        "perplexity:  | forward | backward | average",
        "per token | 148.4 | 54.6 | 90.0",
        "per word | not defined | not defined | not defined",
        "per character | 5.3 | 3.8 | 4.5",
        "perplexity per word: not defined (text without spaces between words; characters from space "
        "to space: zh 41)",
        "bits per byte of text: not defined (12 tokens are unknown words, whose spelling has no "
        "probability)",
        "perplexity by rank: not defined (the training corpus is not available; name it in "
        "train.corpus)",
    ]


def test_a_forward_model_has_one_column() -> None:
    lines = shown(evaluation({}, 0, 20_000.0))

    assert lines[:4] == [
        "4,000 tokens of the valid split, full vocabulary",
        "perplexity:  | forward",
        "per token | 148.4",
        "per word | 22,026.5",
    ]
    assert lines[5] == "1 to 100 | 4,000 | 148.4"
    assert lines[-1] == (
        "backward and average perplexity: not defined (the model reads forward only)"
    )


def test_an_empty_split_is_one_line() -> None:
    assert shown({"split": "test", "tokens": 0}) == ["no perplexity: the test split is empty"]


def test_a_run_of_an_earlier_version_is_shown_without_bands() -> None:
    ways = ("forward", "backward", "average")
    old = {f"{way}_{unit}perplexity": 9.0 for way in ways for unit in ("", "word_")}

    assert shown({"split": "valid", "tokens": 7, "bits_per_byte": 1.5, **old}) == [
        "7 tokens of the valid split, full vocabulary",
        "perplexity:  | forward | backward | average",
        "per token | 9.0 | 9.0 | 9.0",
        "per word | 9.0 | 9.0 | 9.0",
        "1.500 bits per byte of text",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(90.06, "90.1"), (5e5, "500,000.0"), (6e75, "6e+75"), (None, "not defined")],
)
def test_perplexity_is_readable_at_any_size(value: float | None, text: str) -> None:
    assert figure(value) == text
