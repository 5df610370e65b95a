"""A change of a kind keeps the settings that both kinds have, and tells what it drops."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lightning_modules.config import CharCNNInputConfig
from lightning_modules.recurrent_config import GRUConfig
from lightning_modules.training.config import AdamConfig, AdamWConfig, LinearConfig
from pipeline.cli import main
from pipeline.config.diagnostics import sections
from pipeline.config.kinds import CHOSEN_FOR_KIND, OTHER_MEANING
from pipeline.config.load import ConfigError, load_config
from pipeline.config.runners import DirectRunner, FlinkOptions, FlinkRunner
from pipeline.config.schema import Config
from preprocess.config import CharConfig, WordConfig
from preprocess.section import Section

Write = Callable[..., str]

FILE = """\
prepare: {input: x}
tokenizer: {kind: sentencepiece, vocabulary: 900, sample_bytes: 5, seed: 3}
model:
  input: {dim: 64, dropout: 0}
  recurrent: {kind: lstm, layers: 1, hidden: 2048, projection: 128, dropout: 0, cell_clip: null}
runner: {stall_seconds: 5, options: {mode: in_memory, workers: 3}}
train: {learning_rate: 0.2, optimizer: {kind: adagrad, weight_decay: 0.1, epsilon: 1e-8}}
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "first.yaml") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def load(files: Sequence[str], *overrides: str) -> tuple[Config, list[str]]:
    notes: list[str] = []
    return load_config(files, overrides, notes), notes


LSTM_TO_GRU = (
    "model.recurrent.kind=gru: keeps layers=1, hidden=2048, dropout=0 of kind lstm; drops "
    "projection=128, cell_clip=null (gru has no such setting)"
)


def test_common_settings_are_kept_and_dropped_ones_reported(write: Write) -> None:
    first, second = write(FILE), write("model: {recurrent: {kind: gru}}", "second.yaml")
    for files, overrides in (([first], ["model.recurrent.kind=gru"]), ([first, second], [])):
        config, notes = load(files, *overrides)
        assert config.model.recurrent == GRUConfig(layers=1, hidden=2048, dropout=0)
        assert notes == [LSTM_TO_GRU]


@pytest.mark.parametrize("order", [1, -1])
def test_a_setting_that_is_set_with_the_kind_overrides_the_kept_one(
    write: Write, order: int
) -> None:
    overrides = ["model.recurrent.kind=gru", "model.recurrent.hidden=7"][::order]
    config, [note] = load([write(FILE)], *overrides)
    assert config.model.recurrent == GRUConfig(layers=1, hidden=7, dropout=0)
    assert "hidden" not in note


def test_keys_with_another_meaning_are_dropped(write: Write) -> None:
    config, [note] = load([write(FILE)], "model.input.kind=char_cnn")
    assert config.model.input == CharCNNInputConfig(dropout=0)
    assert note == (
        "model.input.kind=char_cnn: keeps dropout=0 of kind embedding; drops dim=64 (another quantity "
        "in char_cnn)"
    )


def test_the_learning_rate_of_another_optimizer_is_reported(write: Write) -> None:
    stays = "train.learning_rate stays 0.2, but the right value depends on train.optimizer.kind"
    config, notes = load([write(FILE)], "train.optimizer.kind=adamw")
    assert config.train.optimizer == AdamWConfig(epsilon=1e-8)
    assert notes == [
        "train.optimizer.kind=adamw: keeps epsilon=1e-8 of kind adagrad; drops weight_decay=0.1 "
        "(another quantity in adamw)",
        stays,
    ]
    config, notes = load([write(FILE)], "train.optimizer.kind=adam", "train.learning_rate=1e-3")
    assert config.train.optimizer == AdamConfig(epsilon=1e-8, weight_decay=0.1)
    assert stays not in notes
    plain = write("prepare: {input: x}\ntrain: {learning_rate: 0.2, optimizer: {kind: sgd}}")
    assert load([plain], "train.optimizer.kind=adam")[1] == [stays]


def test_the_options_of_another_engine_are_kept_one_by_one(write: Write) -> None:
    config, notes = load([write(FILE)], "runner.kind=flink", "runner.options.parallelism=2")
    assert config.runner == FlinkRunner(stall_seconds=5, options=FlinkOptions(parallelism=2))
    assert notes == [
        "runner.kind=flink: keeps stall_seconds=5 of kind direct; drops options.mode='in_memory', "
        "options.workers=3 (flink has no such setting)"
    ]
    flink = write(
        "prepare: {input: x}\nrunner:\n  kind: flink\n  options: {master: 'h:1', parallelism: 4,"
        " environment_type: EXTERNAL, environment_config: 'h:2'}\n"
    )
    config, [note] = load([flink], "runner.kind=portable")
    options = config.runner.model_dump()["options"]
    assert options["parallelism"] == 4
    assert options["environment_config"] == "h:2"
    assert "drops options.master='h:1' (portable has no such setting)" in note
    config, [note] = load([flink], "runner.kind=spark")
    assert config.runner.model_dump()["options"]["master"] == "local[*]"
    assert "drops options.master='h:1' (another quantity in spark)" in note
    assert load([flink], "runner.kind=direct")[0].runner == DirectRunner()


def test_defaults_that_differ_are_reported(write: Write) -> None:
    plain = write("prepare: {input: x}")
    assert load([plain], "model.recurrent.kind=gru")[1] == [
        "model.recurrent.kind=gru: by default, hidden is 256, not 512"
    ]
    assert load([plain], "tokenizer.kind=char")[1] == [
        "tokenizer.kind=char: by default, character_coverage is 0.9999, not 0.9995"
    ]
    assert load([plain], "train.schedule.kind=linear")[1] == [
        "train.schedule.kind=linear: by default, final_rate is 0.0, not 0.1"
    ]


def test_a_kind_that_changes_nothing_else_is_no_news(write: Write) -> None:
    first = write(FILE)
    assert load([first], "model.recurrent.kind=lstm", "model.recurrent.hidden=7")[1] == []
    assert load([write("prepare: {input: x}")], "model.head.kind=softmax")[1] == []
    assert load([write("prepare: {input: x}\ntokenizer: {kind: char}")])[1] == [], "one file"
    assert load([], "prepare.input=x", "tokenizer.kind=char")[1] == [], "no file"


def test_each_change_of_kind_counts(write: Write) -> None:
    files = [write(FILE)]
    files += [write(f"tokenizer: {{kind: {kind}}}", kind) for kind in ("char", "word")]
    config, notes = load(files[:2])
    assert config.tokenizer == CharConfig(sample_bytes=5, seed=3)
    config, notes = load(files)
    assert config.tokenizer == WordConfig()
    assert notes == [
        "tokenizer.kind=char: keeps sample_bytes=5, seed=3 of kind sentencepiece; drops vocabulary=900 "
        "(char has no such setting); by default, character_coverage is 0.9999, not 0.9995",
        "tokenizer.kind=word: drops sample_bytes=5, seed=3 (word has no such setting)",
    ]
    file = write("prepare: {input: x}\ntrain: {schedule: {kind: cosine, final_rate: 0.5}}")
    config, _ = load([file], "train.schedule.kind=linear")
    assert config.train.schedule == LinearConfig(final_rate=0.5)


def test_a_mistake_in_a_section_whose_kind_changes_is_reported(write: Write) -> None:
    file = write("prepare: {input: x}\nmodel: {recurrent: {hiden: 3}}")
    with pytest.raises(ConfigError, match=r"unknown key 'model\.recurrent\.hiden'; did you mean"):
        load([file], "model.recurrent.kind=gru")
    with pytest.raises(ConfigError, match="did you mean 'gru'"):
        load([write(FILE)], "model.recurrent.kind=gruu")


def test_every_command_tells(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a b c\n" * 20)
    arguments = [write(FILE), f"prepare.input={text}", f"run.output={tmp_path}/out"]
    arguments += ["model.recurrent.kind=gru"]
    assert main(["run", *arguments, "--dry-run"]) == 0
    assert f"  {LSTM_TO_GRU}\n" in capsys.readouterr().out
    assert main(["run", *arguments, "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert f"# Note: {LSTM_TO_GRU}\n" in printed
    again = load_config([write(printed, "again.yaml")], [])
    assert again == load_config(arguments[:1], arguments[1:])
    assert main(["prepare", *arguments]) == 2, "there is no tokenizer"
    assert f"  {LSTM_TO_GRU}\n" in capsys.readouterr().out


def test_the_tables_name_keys_of_the_schema() -> None:
    def names(section: type[Section], prefix: str = "") -> set[str]:
        found = set()
        for name, field in section.model_fields.items():
            found.add(prefix + name)
            for below in sections(field):
                found |= names(below, f"{prefix}{name}.")
        return found

    known = names(Config)
    assert known.issuperset(OTHER_MEANING)
    assert known.issuperset(f"{s.rpartition('.')[0]}.{k}" for s, k in CHOSEN_FOR_KIND.items())
