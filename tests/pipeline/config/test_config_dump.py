"""A dumped config loads back equal and describes each key."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config.load import dump_config, load_config
from pipeline.config.schema import Config
from preprocess.config import SentencePieceConfig, Source, WordConfig

# pydantic accepts all text but lone surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    [
        "1e-3",
        "1e5",
        ".5",
        "0x1F",
        "0o7",
        "007",
        "1_000",
        ".inf",
        "null",
        "~",
        "no",
        "true",
        "2024-01-01",
        "1:30",
        "*.txt",
        "installed-docs:",
        "a:\tb",
        "<<\n",
        "=",
        "-\na",
        "[a]",
    ]
)


def source_name(entry: str | Source) -> str:
    return entry if isinstance(entry, str) else entry.name


PATHS = TEXT | st.lists(TEXT, max_size=3).map(tuple)
SOURCES = st.builds(
    Source, name=TEXT.filter(len).map(lambda n: f"{n}!"), path=PATHS, license=st.none() | TEXT
)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    input_=TEXT | st.lists(TEXT | SOURCES, max_size=3, unique_by=source_name).map(tuple),
    name=st.none() | TEXT,
    words=st.none() | st.lists(TEXT, max_size=3).map(tuple),
    rate=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    cutoffs=st.just("auto") | st.sets(st.integers(1, 99), max_size=3).map(lambda s: tuple(sorted(s))),
    tokenizer=st.sampled_from([WordConfig(min_count=3), SentencePieceConfig(vocabulary=400)]),
)  # fmt: skip
def test_a_dumped_config_loads_back_equal(
    input_: Any, name: Any, words: Any, rate: float, cutoffs: Any, tokenizer: Any, tmp_path: Path
) -> None:
    config = Config.model_validate(
        {
            "prepare": {"input": input_},
            "tracking": {"name": name},
            "report": {"words": words},
            "train": {"learning_rate": rate},
            "model": {"head": {"kind": "adaptive_softmax", "cutoffs": cutoffs}},
            "tokenizer": tokenizer,
        }
    )
    file = tmp_path / "config.yaml"
    text = dump_config(config)
    file.write_text(text, encoding="utf-8", newline="")
    assert load_config([str(file)], []) == config
    # A YAML 1.1 reader must load the same text.
    assert yaml.safe_load(text)["tracking"]["name"] == name


def test_a_dump_has_every_key_in_the_order_of_the_schema_with_its_description() -> None:
    lines = dump_config(load_config([], ["prepare.input=x"])).splitlines()
    assert lines[:2] == [
        "run:  # the run folder",
        "  output: biloom-run  # run folder, as a path or fsspec URL; each stage has a folder in it",
    ]
    sections = [line.partition(":")[0] for line in lines if line and line[0] != " "]
    assert sections == list(Config.model_fields)
    assert "    hidden: 512  # width of the cell state" in lines


def test_a_dump_has_one_line_per_source() -> None:
    lines = dump_config(
        load_config([], ["prepare.input=[a, {name: b, path: [b, c]}]"])
    ).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("  input:  #"))
    assert lines[at + 1 : at + 3] == [
        "    - a",
        "    - {name: b, path: [b, c], format: auto, document: line, text_field: text, template: null, "
        "id_field: null, encoding: utf-8, split: null, weight: 1.0, license: null, cleaning: null, filters: null}",
    ]


@pytest.mark.parametrize("text", ["a\nb", "word " * 40, "\u2028"])
def test_a_dump_writes_any_text_in_one_line(text: str) -> None:
    ours, plain = (Config.model_validate({"prepare": {"input": one}}) for one in (text, "x"))
    assert len(dump_config(ours).splitlines()) == len(dump_config(plain).splitlines())


@pytest.mark.parametrize("text", ["1e5", "0o7", "no", "1_0"])
def test_a_dump_quotes_text_that_any_yaml_version_misreads(text: str) -> None:
    config = Config.model_validate({"prepare": {"input": text}})
    assert f"  input: '{text}'  #" in dump_config(config)
