"""``report.html``: which run it is of, its judgements, curves, figures and words."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.reports.assessment import Verdict
from pipeline.reports.run_folder import Result
from pipeline.reports.run_page import CURVES, Findings, page
from preprocess.files.manifest import Manifest
from preprocess.shards.format import SUMS
from preprocess.vectors.neighbours import Neighbour, Use, WordUses
from preprocess.vectors.word_sample import Snippet

WAYS = ("forward", "backward", "average")
MODEL = {"recurrent": {"kind": "lstm", "layers": 2, "hidden": 256, "projection": 96}}
TRAINED = {
    "model": MODEL, "vocabulary": 8000, "parameters": 1_950_000, "steps": 20, "tokens": 12_800,
    "passes": 1.3,
}  # fmt: skip


def result(stage: str, details: dict[str, Any], **stats: Any) -> Result:
    manifest = Manifest(stage, 2, "0.1.0", "", "", {}, (), details)
    return Result(f"/runs/one/{stage}", manifest, {**details, **stats})


def sums(documents: int) -> dict[str, int]:
    return {key: documents * (n + 1) for n, key in enumerate(SUMS)}


def corpus(name: str) -> Result:
    details = {
        "splits": {"train": sums(36_033), "valid": sums(771), "test": sums(0)},
        "sources": [{"name": name, "license": "CC0", "share": 0.5, "filters": {}, **sums(18_402)}] * 2,
    }  # fmt: skip
    return result("prepare", details, scripts={"Hebrew": 999, "Latin": 1})


def held_out(**others: Any) -> dict[str, Any]:
    found = {"split": "valid", "tokens": 1234, "bits_per_byte": 1.5}
    for n, way in enumerate(WAYS):
        found |= {f"{way}_perplexity": 90.0 + n, f"{way}_word_perplexity": 470.0 + n}
    return {**found, **others}


def metrics() -> list[dict[str, Any]]:
    batch = {"learning_rate": 0.1, "tokens_per_second": 9.0, "gradient_norm": 1.0}
    batch |= {"skipped_steps": 0, "mfu": 0.1, "data_wait": 0.02}
    return [
        {"step": 10, "loss_forward": 8.0, "loss_backward": float("nan"), **batch},
        {"step": 20, "loss_forward": 7.0, "loss_backward": 7.5, **batch},
        {"step": 20, "valid_forward_perplexity": 99.0, "valid_backward_perplexity": 98.0},
    ]


def findings(word: str = "bank") -> Findings:
    snippet = Snippet(f"…{word} ", word, f" {word}…")
    use = Use(snippet, snippet, (Neighbour(0.875, snippet),))
    return Findings(
        folder=f"/runs/{word.replace('/', '')}",
        tokenizer="sentencepiece",
        corpus_page="prepare/corpus.html",
        config=f"run: # {word}\n",
        corpus=corpus(word),
        training=result("train", TRAINED, seconds=125.0),
        held_out=[held_out()],
        metrics=metrics(),
        verdicts=[Verdict("attention", "Best step", f"Worse. {word}"), Verdict("good", "B", "Ok.")],
        words=[WordUses(word, 60, (use, use), (word,)), WordUses(f"{word}s", 1)],
    )


@pytest.fixture(autouse=True)
def finished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Result, "finished", "2026-01-02 03:04 UTC")


@pytest.fixture
def shown(markup: Any) -> Any:
    return lambda found: markup(page(found))


def test_the_head_says_which_run_it_is(shown: Any) -> None:
    found = shown(findings())
    assert found.text_of("h1") == "bank"
    assert found.facts == {
        "Folder": "/runs/bank",
        "Trained": "2026-01-02 03:04 UTC, biloom 0.1.0",
        "Corpus": "36,804 documents, 73.6k tokens",
        "Scripts": "Hebrew 99.9%, Latin 0.1%",
        "Tokenizer": "sentencepiece, vocabulary 8,000",
        "Model": "bidirectional LSTM, 2 layers of 256, projection 96; 1,950,000 parameters",
        "Training": "20 steps, 12.8k tokens in 2:05",
    }


def test_what_a_store_does_not_say_is_left_out(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Result, "finished", "")
    bare = replace(findings(), training=result("train", TRAINED), folder="s3://bucket/run/")
    found = shown(bare)
    assert found.text_of("h1") == "run"
    assert found.facts["Trained"] == "biloom 0.1.0"
    assert found.facts["Training"] == "20 steps, 12.8k tokens"
    assert "Precision" not in found.facts, "former versions did not record it"
    named = result("train", TRAINED | {"precision": "float16"})
    assert shown(replace(bare, training=named)).facts["Precision"] == "float16"


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"directions": "forward"}, "forward LSTM, 2 layers of 256, projection 96; "),
        (
            {"recurrent": {"kind": "gru", "layers": 1, "hidden": 64}},
            "bidirectional GRU, 1 layer of 64; ",
        ),
    ],
)
def test_the_model_is_described(model: dict[str, Any], told: str, shown: Any) -> None:
    trained = result("train", {**TRAINED, "model": {**MODEL, **model}})
    assert shown(replace(findings(), training=trained)).facts["Model"].startswith(told)


def test_judgements_and_training_come_before_the_words(shown: Any) -> None:
    assert shown(findings()).texts("h2") == [
        "Assessment", "Perplexity of held-out text", "Training", "Words in use", "Corpus", "Settings",
    ]  # fmt: skip


def test_verdicts_are_reported_apart_by_a_sign_and_not_by_colour_alone(shown: Any) -> None:
    found = shown(findings())
    assert found.texts("li", "attention") == ["! Best stepWorse. bank"]
    assert found.texts("li", "good") == ["✓ BOk."]


def test_every_curve_of_the_metrics_is_drawn_but_zeros(shown: Any) -> None:
    labels = [one["aria-label"] for one in shown(findings()).all("svg")]
    titles = [title for _, title, _ in CURVES if title != "Skipped steps"]
    assert labels == ["Perplexity per token by training step", *titles]
    rows = metrics()
    rows[1]["skipped_steps"] = 2
    labels = [one["aria-label"] for one in shown(replace(findings(), metrics=rows)).all("svg")]
    assert "Skipped steps" in labels


def test_the_best_step_is_marked(shown: Any) -> None:
    assert not [one for one in shown(findings()).all("line") if one.get("class") == "marked"]
    details = {**TRAINED, "steps": 20, "planned_steps": 50, "best_step": 15, "stopped": "it rained"}
    found = shown(replace(findings(), training=result("train", details)))
    [line] = [one for one in found.all("line") if one.get("class") == "marked"]
    assert line["x1"] == line["x2"] == "500.0"  # halfway between the rows of steps 10 and 20
    assert "step 15, the best on held-out text" in found.texts("title")
    assert "Dashed line: step 15, the best on held-out text. Logarithmic" in found.section(
        "Training"
    )
    told = "20 of 50 steps, 12.8k tokens; stopped because it rained; best step 15"
    assert found.facts["Training"] == told


def test_held_out_points_tell_their_value(shown: Any) -> None:
    assert "forward, held out, step 20: 99" in shown(findings()).texts("title")


def test_held_out_figures_stand_in_one_table(shown: Any) -> None:
    found = shown(findings())
    assert found.rows("Perplexity") == [
        ["perplexity", *WAYS],
        ["per token", "90.0", "91.0", "92.0"],
        ["per word", "470.0", "471.0", "472.0"],
    ]
    assert "1.500 bits per byte of text" in found.section("Perplexity of held-out text")
    assert found.source.count("472.0") == 1


def test_both_states_stand_in_the_table(shown: Any) -> None:
    figures = held_out()
    of_text = {**figures, "forward_perplexity": 95.0, "bits_per_byte": 1.6}
    figures["by_state"] = {"carried": dict(figures), "text_by_text": of_text}
    found = shown(replace(findings(), held_out=[figures]))
    assert found.rows("Perplexity")[1:3] == [
        ["per token, carried state", "90.0", "91.0", "92.0"],
        ["per token, text by text", "95.0", "91.0", "92.0"],
    ]
    section = found.section("Perplexity of held-out text")
    assert "1.500 (carried state), 1.600 (text by text) bits per byte of text" in section
    assert "text by text: each text from the zero state, as embed and score read it." in section


def test_each_split_has_its_table(shown: Any) -> None:
    both = [held_out(), held_out(split="test", forward_perplexity=7.0)]
    found = shown(replace(findings(), held_out=both))
    assert found.rows("Perplexity of the valid split")[1] == ["per token", "90.0", "91.0", "92.0"]
    assert found.rows("Perplexity of the test split")[1] == ["per token", "7.0", "91.0", "92.0"]


def test_perplexity_by_rank_and_what_is_not_defined(shown: Any) -> None:
    band = {"first_rank": 1, "last_rank": 100, "forward_tokens": 1000}
    band |= {f"{way}_perplexity": 31.5 for way in WAYS}
    reason = "text without spaces between words; characters from space to space: <zh> 41"
    figures = held_out(
        **{f"{way}_word_perplexity": None for way in WAYS},
        **{f"{way}_character_perplexity": 4.25 for way in WAYS},
        bits_per_byte=None,
        bands=[band],
        not_defined={"word": reason},
    )
    found = shown(replace(findings(), held_out=[figures]))
    label = "perplexity per token, by the predicted token's frequency rank in the training text"
    assert found.rows(label)[1] == ["1 to 100", "1,000", "31.5", "31.5", "31.5"]
    assert ["per character", "4.2", "4.2", "4.2"] in found.rows("Perplexity")
    section = found.section("Perplexity of held-out text")
    assert f"Perplexity per word: not defined ({reason})." in section
    assert "bits per byte" not in section


def test_a_forward_model_has_one_column(shown: Any) -> None:
    figures = held_out(
        **{f"{way}_perplexity": None for way in ("backward", "average")},
        not_defined={"backward": "the model reads forward only"},
    )
    rows = [{"step": 10, "loss_forward": 8.0, "gradient_norm": None}]
    found = shown(replace(findings(), held_out=[figures], metrics=rows))
    assert found.rows("Perplexity")[0] == ["perplexity", "forward"]
    assert "the model reads forward only" in found.source
    assert found.texts("div", "keys") == ["forward"]


def test_a_run_without_held_out_text_words_or_metrics_says_so(shown: Any) -> None:
    figures = {"split": "valid", "tokens": 0}
    found = shown(replace(findings(), held_out=[figures], words=[], metrics=[]))
    assert "The valid split is empty" in found.section("Perplexity of held-out text")
    assert "No words are shown" in found.section("Words in use")


def test_sentences_are_aligned_by_their_own_direction(shown: Any) -> None:
    found = shown(findings("שלום"))
    sentences = [
        one for one in [*found.all("p"), *found.all("td")] if one.get("class") == "sentence"
    ]
    assert len(sentences) == 6
    assert all(one["dir"] == "auto" for one in sentences)
    style = found.text_of("style")
    assert ".sentence { text-align: start;" in style


def test_words_are_shown_with_their_neighbours(shown: Any) -> None:
    found = shown(findings())
    assert "60 occurrences" in found.source.replace("\n", " ")
    assert "1 occurrence<" in found.source.replace("\n", " ")
    assert found.rows("Nearest occurrences")[1] == ["0.88", "…bank bank bank…"]
    assert "Nearest words in layer 0: bank." in found.section("Words in use")
    assert "Too few occurrences to show its uses." in found.section("Words in use")


def test_a_word_without_frequent_neighbours_says_so(shown: Any) -> None:
    snippet = Snippet("", "a", "")
    words = [WordUses("a", 2, (Use(snippet, None, ()),))]
    found = shown(replace(findings(), words=words))
    assert "Nearest words in layer 0: no frequent word." in found.section("Words in use")
    assert "Nearest occurrences" not in found.source


def test_text_names_and_settings_are_escaped(shown: Any, evil: str) -> None:
    harmless, found = shown(findings()), shown(findings(evil))
    assert found.tags == harmless.tags
    assert found.text_of("pre").startswith("run: # <script>")
    assert found.texts("mark")[0] == evil
    assert found.all("pre")[0]["dir"] == "ltr"


@pytest.mark.parametrize(
    ("link", "links"), [("../corpus%20a/corpus.html", ["../corpus%20a/corpus.html"]), (None, [])]
)
def test_the_corpus_is_linked_where_it_can_be(
    link: str | None, links: list[str], shown: Any
) -> None:
    found = shown(replace(findings(), corpus_page=link))
    assert [one["href"] for one in found.all("a")] == links


def test_the_run_of_version_0_1_has_a_page(shown: Any) -> None:
    run = Path(__file__).parents[2] / "fixtures" / "version-0.1" / "finished"
    details = json.loads((run / "train" / "manifest.json").read_text())["details"]
    rows = [json.loads(row) for row in (run / "train" / "metrics.jsonl").read_text().splitlines()]
    found = shown(replace(findings(), training=result("train", details), metrics=rows))
    assert found.facts["Model"].endswith("2 layers of 8, projection 4; 3,840 parameters")
