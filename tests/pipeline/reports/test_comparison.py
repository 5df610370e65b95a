"""Two or more runs side by side."""

import json
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as RichConsole

from pipeline.console import Console
from pipeline.reports.comparison import (
    cautions,
    compare,
    curve_chart,
    figure_rows,
    setting_rows,
    short_names,
)
from pipeline.reports.run_folder import Run, read_run
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.manifest import ManifestError

FORMER = Path(__file__).parents[2] / "fixtures" / "version-0.1" / "finished"

Change = Callable[[dict[str, Any]], Any]


def edit(run: Path, stage: str, change: Change) -> None:
    """Change the manifest of a stage in place."""
    path = run / stage / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two copies of a run of version 0.1."""
    one, two = (Path(shutil.copytree(FORMER, tmp_path / name)) for name in ("one", "two"))
    return one, two


def read(runs: tuple[Path, ...]) -> list[Run]:
    return [read_run(str(run)) for run in runs]


def shown(runs: tuple[Path | str, ...], page: Path | str | None = None) -> list[str]:
    printed = StringIO()
    console = Console(RichConsole(file=printed, width=1000, highlight=False))
    compare([str(run) for run in runs], console, page and str(page))
    return [line.strip() for line in printed.getvalue().splitlines()]


def figures(runs: tuple[Path, ...]) -> dict[str, list[str]]:
    return {name: cells for name, *cells in figure_rows(read(runs))}


# Figures


def test_figures_of_a_former_version(runs: tuple[Path, Path]) -> None:
    found = figures((runs[0],))
    assert {name: cells[0] for name, cells in found.items()} == {
        "missing stages": "none",
        "corpus": "fc6c6a74",
        "documents": "341",
        "vocabulary": "320",
        "parameters": "3,840",
        "training steps": "30",
        "tokens read in training": "960",
        "passes over the corpus": "0.29",
        "training time": "0:02",
        "time of all stages": "0:03",
        "training perplexity per token, at the end": "47.9",
        "step of the lowest held-out perplexity": "30",
        "perplexity per token, forward": "54.6",
        "perplexity per token, backward": "49.0",
        "perplexity per token, average": "51.7",
        "perplexity per word, forward": "340.2",
        "perplexity per word, backward": "291.1",
        "perplexity per word, average": "314.7",
        "bits per byte of text": "1.471",
    }


def test_stages_that_are_not_finished_are_missing(runs: tuple[Path, Path]) -> None:
    for stage in ("train", "evaluate"):
        (runs[1] / stage / "manifest.json").unlink()
    found = figures(runs)
    assert found["missing stages"] == ["none", "train, evaluate"]
    assert found["training steps"] == ["30", "missing"]
    assert found["bits per byte of text"] == ["1.471", "missing"]
    assert found["documents"] == ["341", "341"]
    assert shown(runs)


def test_text_without_words_is_compared_by_characters(runs: tuple[Path, Path]) -> None:
    def without_words(manifest: dict[str, Any]) -> None:
        manifest["details"]["not_defined"] = {"word": "no spaces", "bits_per_byte": "unknown words"}
        manifest["details"]["forward_word_perplexity"] = None
        manifest["details"]["bits_per_byte"] = None

    edit(runs[1], "evaluate", without_words)
    found = figures(runs)
    assert found["perplexity per word, forward"] == ["340.2", "not defined"]
    assert found["perplexity per character, forward"] == ["3.7", "3.7"]
    assert found["bits per byte of text"] == ["1.471", "not defined"]


def test_forward_models_have_no_rows_of_the_other_direction(runs: tuple[Path, Path]) -> None:
    def forward(manifest: dict[str, Any]) -> None:
        for way in ("backward", "average"):
            manifest["details"][f"{way}_perplexity"] = None

    edit(runs[0], "evaluate", forward)
    found = figures((runs[0],))
    assert "perplexity per token, forward" in found
    assert "perplexity per token, backward" not in found


def test_an_empty_held_out_split_is_reported(runs: tuple[Path, Path], as_stranger: Any) -> None:
    edit(runs[1], "evaluate", lambda m: m.update(details={"split": "valid", "tokens": 0}))
    (runs[1] / "train" / "metrics.jsonl").write_text("")
    as_stranger(runs[1] / "train")
    found = figures(runs)
    assert found["perplexity per token, forward"] == ["54.6", "no held-out text"]
    assert found["step of the lowest held-out perplexity"] == ["30", "not evaluated"]
    assert found["training perplexity per token, at the end"] == ["47.9", "not defined"]


def with_test_split(manifest: dict[str, Any]) -> None:
    former = dict(manifest["details"])
    manifest["details"].update(split="test", forward_perplexity=9.0, others=[former])


def test_each_split_has_its_rows(runs: tuple[Path, Path]) -> None:
    edit(runs[1], "evaluate", with_test_split)
    found = figures(runs)
    assert found["valid split: perplexity per token, forward"] == ["54.6", "54.6"]
    assert found["test split: perplexity per token, forward"] == ["not evaluated", "9.0"]
    assert found["test split: bits per byte of text"] == ["not evaluated", "1.471"]
    assert "perplexity per token, forward" not in found
    assert cautions(read(runs)) == []


@pytest.mark.parametrize(
    ("reset", "carried", "zero"),
    [(False, "54.6", "not evaluated"), (True, "not evaluated", "54.6")],
)
def test_states_are_compared_apart(
    runs: tuple[Path, Path], reset: bool, carried: str, zero: str
) -> None:
    """The first run is of an earlier version, which evaluated in the state of training only."""

    def with_states(manifest: dict[str, Any]) -> None:
        own = dict(manifest["details"])
        of_text = {**own, "forward_perplexity": 60.0, "bits_per_byte": 1.6}
        manifest["details"]["by_state"] = {"carried": own, "text_by_text": of_text}

    edit(runs[0], "train", lambda manifest: manifest["details"].update(reset_state=reset))
    edit(runs[1], "evaluate", with_states)
    found = figures(runs)
    assert found["perplexity per token, carried state, forward"] == [carried, "54.6"]
    assert found["perplexity per token, text by text, forward"] == [zero, "60.0"]
    assert found["bits per byte of text, text by text"][1] == "1.600"
    assert "perplexity per token, forward" not in found


def test_the_corpus_of_another_run_is_found(runs: tuple[Path, Path]) -> None:
    shutil.rmtree(runs[1] / "prepare")
    path = runs[1] / "train" / "config.yaml"
    path.write_text(path.read_text().replace("corpus: null", f"corpus: {runs[0]}/prepare", 1))
    found = figures(runs)
    assert found["missing stages"] == ["none", "none"]
    assert found["documents"] == ["341", "341"]


# Settings


def asked(**changed: Any) -> Change:
    def change(manifest: dict[str, Any]) -> None:
        for name, value in changed.items():
            manifest["asked"][name.replace("__", ".")] = value

    return change


def test_only_settings_that_differ_are_shown(runs: tuple[Path, Path]) -> None:
    assert setting_rows(read(runs)) == []
    assert "the settings that affect results are the same" in shown(runs)
    edit(runs[1], "train", asked(train__steps=60, corpus__content="0"))
    edit(runs[1], "evaluate", asked(evaluate__split="test"))
    assert setting_rows(read(runs)) == [
        ["train.steps", "30", "60"],
        ["evaluate.split", "valid", "test"],
    ]


def test_settings_of_another_kind_are_shown(runs: tuple[Path, Path]) -> None:
    def gru(manifest: dict[str, Any]) -> None:
        manifest["asked"]["model.recurrent.kind"] = "gru"
        del manifest["asked"]["model.recurrent.projection"]

    edit(runs[1], "train", gru)
    assert setting_rows(read(runs)) == [
        ["model.recurrent.kind", "lstm", "gru"],
        ["model.recurrent.projection", "4", "-"],
    ]


def test_a_setting_that_a_version_lacks_does_not_differ(runs: tuple[Path, Path]) -> None:
    edit(runs[1], "train", asked(train__new_setting=1))
    assert setting_rows(read(runs)) == []


def test_other_text_differs_by_name_and_size(runs: tuple[Path, Path]) -> None:
    for stage in ("tokenizer", "prepare"):
        edit(runs[1], stage, lambda m: m["asked"].pop("prepare.input.1"))
        edit(runs[1], stage, lambda m: m["asked"]["prepare.input.0"].update(weight=2.0, bytes=3000))
    assert setting_rows(read(runs)) == [
        ["prepare.input", "text (1 file, 12.5kB), rows (1 file, 3,098B)", "text (1 file, 3,000B)"],
        ["prepare.input.0.weight", "1.0", "2.0"],
    ]


# Cautions and curves


def test_equal_tokenizers_and_texts_need_no_caution(runs: tuple[Path, Path]) -> None:
    assert cautions(read(runs)) == []


def test_other_tokenizers_are_compared_by_bits(runs: tuple[Path, Path]) -> None:
    edit(runs[1], "train", lambda m: m["details"].update(tokenizer="another"))
    (caution,) = cautions(read(runs))
    assert caution.startswith("The tokenizers differ: compare perplexities per word")
    title, chart, _ = curve_chart(read(runs), ["one", "two"])
    assert title == "Bits per byte of held-out text"
    assert len(chart.lines) == 2
    assert [dot.title for dot in chart.dots][:2] == [
        "one, tokens 480: 1.667",
        "one, tokens 960: 1.471",
    ]


def test_other_held_out_text_is_reported(runs: tuple[Path, Path]) -> None:
    edit(runs[1], "evaluate", lambda m: m["details"].update(split="test"))
    assert cautions(read(runs)) == [
        "The held-out texts differ: a lower perplexity may only mean that a text is easier."
    ]


def test_other_text_of_one_split_of_two_is_reported(runs: tuple[Path, Path]) -> None:
    for run in runs:
        edit(run, "evaluate", with_test_split)
    assert cautions(read(runs)) == []
    edit(runs[0], "evaluate", lambda m: m["details"]["others"][0].update(words=3))
    assert cautions(read(runs)) == [
        "The held-out texts differ: a lower perplexity may only mean that a text is easier."
    ]


def test_curves_are_of_held_out_text_and_training_by_tokens(runs: tuple[Path, Path]) -> None:
    title, chart, _ = curve_chart(read(runs), ["one", "two"])
    assert title == "Perplexity per token"
    assert [style for style, _ in chart.lines] == ["c0 faint", "c0 line", "c1 faint", "c1 line"]
    assert chart.dots[1].title == "one, tokens 960: 51.73"


def test_a_run_without_training_has_no_curve(runs: tuple[Path, Path]) -> None:
    shutil.rmtree(runs[1] / "train")
    _, chart, _ = curve_chart(read(runs), ["one", "two"])
    assert {style for style, _ in chart.lines} == {"c0 faint", "c0 line"}


# Names, terminal and page


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["/a/one", "/a/two"], ["one", "two"]),
        (["/a/run", "/b/run", "/b/other/"], ["a/run", "b/run", "b/other"]),
        (["s3://a/run", "/a/run"], ["s3://a/run", "/a/run"]),
        (["/run", "/run"], ["/run", "/run"]),
    ],
)
def test_names_are_as_short_as_tells_them_apart(folders: list[str], names: list[str]) -> None:
    assert short_names(folders) == names


def test_the_terminal_shows_tables_and_cautions(runs: tuple[Path, Path]) -> None:
    edit(runs[1], "train", asked(train__steps=60))
    edit(runs[1], "evaluate", lambda m: m["details"].update(split="test"))
    lines = shown(runs)
    assert lines[:2] == ["figures:  | one | two", "missing stages | none | none"]
    assert lines[-3:-1] == ["settings that differ: setting | one | two", "train.steps | 30 | 60"]
    assert lines[-1].startswith("The held-out texts differ")


def test_the_page_holds_the_same(runs: tuple[Path, Path], tmp_path: Path, markup: Any) -> None:
    edit(runs[1], "train", asked(train__steps=60))
    edit(runs[1], "evaluate", lambda m: m["details"].update(split="test"))
    target = tmp_path / "pages" / "comparison.html"
    assert shown(runs, target)[-1] == f"page: {target}"
    page = markup(target.read_text())
    assert list(page.facts) == ["one", "two"]
    assert page.facts["one"].startswith(f"{runs[0]}, 20")
    assert page.rows("Figures")[0] == ["", "one", "two"]
    assert page.rows("Figures")[6] == ["training steps", "30", "30"]
    assert page.rows("Settings that differ")[1] == ["train.steps", "30", "60"]
    assert page.texts("div", "keys") == ["one two"]
    assert "The held-out texts differ" in page.text_of("li")
    assert not page.all("a")


def test_the_page_escapes_names(runs: tuple[Path, Path], tmp_path: Path, markup: Any) -> None:
    evil = tmp_path / "<script>alert(1)<"
    runs[1].rename(evil)
    shown((runs[0], evil), tmp_path / "page.html")
    page = markup((tmp_path / "page.html").read_text())
    assert "script" not in page.tags
    assert evil.name in page.facts


def test_runs_and_pages_may_lie_in_a_store(runs: tuple[Path, Path]) -> None:
    root = "memory://test-comparison"
    try:
        for path in runs[1].rglob("*"):
            if path.suffix in (".json", ".jsonl", ".yaml"):
                name = path.relative_to(runs[1])
                storage.write_bytes(f"{root}/run/{name}", path.read_bytes())
        lines = shown((runs[0], f"{root}/run"), f"{root}/page.html")
        assert "figures:  | one | run" in lines
        assert storage.read_bytes(f"{root}/page.html").startswith(b"<!doctype html>")
    finally:
        storage.remove_tree(root)


# Mistakes


def test_a_folder_without_a_finished_stage_is_reported(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        shown((runs[0], tmp_path / "empty"))
    assert str(caught.value) == (
        f"{tmp_path}/empty holds no finished stage; name another run folder, or see "
        f"`biloom status {tmp_path}/empty`"
    )


def test_a_damaged_manifest_is_reported(runs: tuple[Path, Path]) -> None:
    (runs[1] / "export" / "manifest.json").write_text("{")
    with pytest.raises(ManifestError, match=r"export: manifest\.json is damaged"):
        shown(runs)


def test_one_run_is_nothing_to_compare(runs: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match="compare needs at least two run folders"):
        shown(runs[:1])
