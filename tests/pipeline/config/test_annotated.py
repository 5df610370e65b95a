"""The printed config explains every setting, and is a config."""

from pathlib import Path

import pytest
import yaml
from pydantic.fields import FieldInfo

from lightning_modules.training.config import TrainConfig
from pipeline.config.annotated import allowed, annotated_config, setting_names
from pipeline.config.load import load_config, shipped_configs
from preprocess.config import PrepareConfig, Section


def printed(*overrides: str) -> list[str]:
    return annotated_config(load_config([], ["prepare.input=x", *overrides])).splitlines()


def line_of(key: str, lines: list[str]) -> str:
    return next(line.strip() for line in lines if line.strip("# ").startswith(f"{key}:"))


@pytest.mark.parametrize("name", shipped_configs())
def test_what_is_printed_is_read_back_as_the_same_config(name: str, tmp_path: Path) -> None:
    config = load_config([name], [])
    file = tmp_path / "printed.yaml"
    file.write_text(annotated_config(config), encoding="utf-8")
    assert load_config([str(file)], []) == config


def test_a_list_of_sources_is_read_back(tmp_path: Path) -> None:
    config = load_config([], ["prepare.input=[{name: a, path: a.txt}, {name: '#', path: 'b: c'}]"])
    file = tmp_path / "printed.yaml"
    file.write_text(annotated_config(config))
    assert load_config([str(file)], []) == config


def test_a_setting_has_its_description_and_its_allowed_values() -> None:
    lines = printed()
    steps = TrainConfig.model_fields["steps"].description
    assert line_of("steps", lines) == f"steps: 10000  # {steps} [int >= 1]"
    assert line_of("clip_norm", lines).endswith("[number > 0 | null]")
    assert line_of("compile", lines).endswith("[auto | on | off]")
    assert line_of("valid_fraction", lines).endswith("[number >= 0, < 1]")
    assert line_of("deduplicate", lines).endswith("[true | false]")
    assert line_of("layers", [line for line in lines if "mix" in line]).endswith(
        "[all | top | mean | mix | concat | list of int]"
    )
    assert line_of("output", lines).endswith("[text]")


def test_a_choice_of_kinds_shows_the_keys_of_the_others_as_comments() -> None:
    lines = printed("tokenizer.kind=char")
    start = lines.index("tokenizer:  # the tokenizer stage: text to token ids")
    section = lines[start : lines.index("", start)]
    assert section[1].startswith("  kind: char  # Single characters;")
    assert section[1].endswith("[sentencepiece | char | huggingface | word]")
    kinds = [line for line in section if line.startswith("  # kind: ")]
    assert [line.split()[2] for line in kinds] == ["sentencepiece", "huggingface", "word"]
    assert any(line.startswith("  # vocabulary: 8000  # ") for line in section)
    assert any(line.startswith("  # min_count: 1  # ") for line in section)
    assert any(line.startswith("  character_coverage: 0.9999  # ") for line in section)


def test_a_kind_that_is_uncommented_in_place_of_the_other_is_taken(tmp_path: Path) -> None:
    lines = printed()
    start = next(n for n, line in enumerate(lines) if line.startswith("  # kind: word "))
    own, end = (
        lines.index("tokenizer:  # the tokenizer stage: text to token ids"),
        lines.index("", start),
    )
    block = [line.replace("  # ", "  ", 1) for line in lines[start:end]]
    file = tmp_path / "edited.yaml"
    file.write_text("\n".join([*lines[: own + 1], *block, *lines[end:]]))
    assert load_config([str(file)], []) == load_config(
        [], ["prepare.input=x", "tokenizer.kind=word"]
    )


def test_the_keys_of_a_source_are_shown() -> None:
    lines = printed()
    start = lines.index(next(line for line in lines if "Keys of a source" in line))
    keys = [line.split()[1].rstrip(":") for line in lines[start + 1 :] if line.startswith("    # ")]
    assert keys[:3] == ["name", "path", "format"]
    assert "license" in keys


def test_every_setting_of_every_kind_has_a_name() -> None:
    names = setting_names()
    assert len(names) == len(set(names))
    assert {"train.steps", "tokenizer.min_count", "runner.options.master"} <= set(names)
    assert "tokenizer" not in names
    text = "\n".join(printed())
    for name in names:
        assert f"{name.rpartition('.')[2]}:" in text, name
    assert yaml.safe_load(text)["train"]["steps"] == 10000


def test_the_values_that_a_field_takes_are_reported_in_short() -> None:
    class Example(Section):
        pairs: tuple[tuple[int, int], ...] = ()
        part: PrepareConfig | None = None

    fields: dict[str, FieldInfo] = Example.model_fields
    assert allowed(fields["pairs"]) == "list of list of int"
    assert allowed(fields["part"]) == "mapping | null"
