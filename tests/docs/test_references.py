"""The references hold every key and every command, and the site builds without a warning."""

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli
from pipeline.commands.command import Command
from pipeline.config.annotated import setting_names
from pipeline.config.load import load_config
from preprocess.section import Section, result_fields

ROOT = Path(__file__).parents[2]
STAGE_SECTIONS = ("tokenizer", "prepare", "model", "train", "evaluate", "export", "embed")


@pytest.fixture(autouse=True)
def extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))


def made(name: str) -> Any:
    return importlib.import_module(name)


def leaves(section: Section, prefix: str) -> list[str]:
    found = []
    for name in type(section).model_fields:
        value, key = getattr(section, name), f"{prefix}{name}"
        found += leaves(value, f"{key}.") if isinstance(value, Section) else [key]
    return found


def entry(name: str) -> str:
    found = re.findall(rf"```{{confval}} {re.escape(name)}\n(.*?)```", text(), re.DOTALL)
    assert len(found) == 1, f"{name} is there {len(found)} times"
    return str(found[0])


def text() -> str:
    return str(made("config_reference").markdown())


@pytest.mark.parametrize(
    "kinds",
    [
        (),
        ("tokenizer.kind=char", "model.recurrent.kind=gru", "train.optimizer.kind=sgd"),
        ("tokenizer.kind=word", "model.input.kind=char_cnn", "model.head.kind=sampled_softmax"),
        ("runner.kind=dask", "train.schedule.kind=plateau", "train.optimizer.kind=adagrad"),
    ],
)
def test_every_key_of_a_config_has_one_entry(kinds: tuple[str, ...]) -> None:
    keys = leaves(load_config(["quickstart"], kinds), "")
    assert len(keys) > 100
    for key in keys:
        entry(key)


def test_an_entry_has_values_limits_default_and_kinds() -> None:
    assert ":type: `int >= 1, <= 1000000`\n:default: `32`\n" in entry("train.rows")
    assert ":type: `eos | bos_eos`\n" in entry("train.boundary")
    assert ":type: `number > 0 | null`\n" in entry("train.clip_norm")
    assert ":default: must be given\n" in entry("prepare.input[].path")
    assert ":default: `512` (lstm); `256` (gru); `256` (hgrn2); `256` (sru)\n" in entry(
        "model.recurrent.hidden"
    )
    assert "\nKinds: `lstm`.\n" in entry("model.recurrent.cell_clip")
    assert ":type: `lstm | gru | hgrn2 | sru`\n" in entry("model.recurrent.kind")
    assert ":type: `text`\n" in entry("prepare.input[].encoding")


def test_every_setting_of_every_kind_has_an_entry() -> None:
    names = {key.name for key in made("config_reference").config_keys()}
    assert {*setting_names()} <= names


def test_an_entry_says_whether_the_setting_changes_the_result() -> None:
    config = load_config(["quickstart"], [])
    changing = {k for s in STAGE_SECTIONS for k in result_fields(getattr(config, s), s)}
    by_content, by_files = made("config_reference").BY_CONTENT, made("config_reference").BY_FILES
    assert by_files <= {key.name for key in made("config_reference").config_keys()}
    for key in leaves(config, ""):
        said = entry(key).strip().splitlines()[-1]
        if key in by_content:
            assert said == "Changes the result: by the content of that folder, not by its path."
        elif key in by_files:
            assert said == "Changes the result: by the content of the files, not by their paths."
        else:
            assert said == f"Changes the result: {'yes' if key in changing else 'no'}."


def test_every_command_has_a_heading_and_what_its_help_shows(capsys: Any) -> None:
    reference = made("cli_reference")
    found = reference.markdown()
    names = [name for name, one in reference.commands().items() if isinstance(one, Command)]
    assert {"biloom run", "biloom cache get", "biloom status"} <= {*names}
    for name in names:
        [part] = re.findall(rf"^## {name}$(.*?)(?=^## |\Z)", found, re.DOTALL | re.MULTILINE)
        with pytest.raises(SystemExit):
            cli.main([*name.split()[1:], "--help"])
        shown = " ".join(capsys.readouterr().out.split())
        usage = re.sub(r"usage: | \[-h\]", "", shown)
        [written] = re.findall(r"```text\n(.*)\n```\n", part.split("Examples:")[0])
        assert usage.startswith(written), name
    assert "%(" not in found, "argparse's own marks are filled in"


def test_an_indented_example_of_a_docstring_is_code_and_a_section_is_not() -> None:
    pytest.importorskip("sphinx")
    lines = ["A text.", "", "    run(this)", "", "Args:", "    a, b: numbers.", "    c: another."]
    made("biloom_docs").mark_examples(None, "class", "name", None, None, lines)
    code = ["A text.", "", ".. code-block:: python", "", "    run(this)", "", "Args:"]
    assert lines == [*code, "    a,\u200bb: numbers.", "    c: another."]


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_links_settings(tmp_path: Path) -> None:
    for package in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(package)
    strict = ["--fail-on-warning", "--keep-going", "--quiet", "--builder", "html"]
    folders = ROOT / "docs", tmp_path / "site"
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *strict, "-d", tmp_path / "trees", *folders],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (built.returncode, built.stderr) == (0, "")
    page = (tmp_path / "site" / "training.html").read_text(encoding="utf-8")
    assert 'href="reference/configuration.html#confval-train.rows"' in page
    python = (tmp_path / "site" / "reference" / "python.html").read_text(encoding="utf-8")
    assert 'id="biloom.BiLM.embed"' in python


def test_tokens_in_angle_brackets_are_escaped() -> None:
    assert r"become \<unk>" in entry("tokenizer.min_count")
    assert not re.search(r"(?<!\\)<\w+>", text())
