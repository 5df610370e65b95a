"""Files and overrides become a config, and each mistake in them becomes a line."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from pydantic.fields import FieldInfo

from lightning_modules.config import AdaptiveSoftmaxConfig, SoftmaxConfig
from pipeline.config import diagnostics
from pipeline.config import load as load_module
from pipeline.config.load import ConfigError, find_config, load_config
from pipeline.config.schema import Config
from preprocess.config import SentencePieceConfig, Source, WordConfig
from preprocess.section import Section

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """A function that writes a file into the working directory and returns its name."""
    monkeypatch.chdir(tmp_path)

    def write_file(text: str | bytes, name: str = "a.yaml") -> str:
        Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return name

    return write_file


def load(*overrides: str) -> Config:
    return load_config([], complete(*overrides))


def complete(*overrides: str) -> list[str]:
    """Return the overrides, with an input if they have none."""
    has_input = any(override.startswith(("prepare.input=", "prepare=")) for override in overrides)
    return [*overrides] if has_input else ["prepare.input=x", *overrides]


def problems(files: list[str], *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(files, overrides)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def problem_of(*overrides: str) -> str:
    """Return the only problem of the overrides, without its position."""
    (line,) = problems([], *complete(*overrides))
    return line.removeprefix(f"override '{overrides[-1]}': ")


# Values and precedence


def test_later_files_win_over_earlier_and_overrides_over_both(write: Write) -> None:
    first = write("prepare: {input: x}\ntrain: {steps: 5, rows: 5, unroll: 5}\n", "first.yaml")
    second = write("train:\n  rows: 6\n  unroll: 6\n", "second.yaml")
    train = load_config([first, second], ["train.unroll=7"]).train
    assert (train.steps, train.rows, train.unroll, train.seed) == (5, 6, 7, 1)


def test_a_list_is_replaced_and_not_extended(write: Write) -> None:
    first = write("prepare: {input: [a, b]}", "first.yaml")
    assert load_config([first], ["prepare.input=[c]"]).prepare.input == ("c",)


def test_a_section_without_keys_changes_nothing(write: Write) -> None:
    first = write("prepare: {input: x}\ntrain: {steps: 5}\n", "first.yaml")
    second = write("train:\n  # steps: 6\nembed:\n", "second.yaml")
    assert load_config([first, second], []) == load("train.steps=5")


@pytest.mark.parametrize(
    "text", ["1e5", "100000", "1.e5", "+1e+5", "0x186A0", "10_0000", '"100000"']
)
def test_whole_numbers_are_read_in_any_spelling(text: str) -> None:
    assert load(f"train.steps={text}").train.steps == 100_000


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("1.e-3", 1e-3), (".5", 0.5), ("2", 2)]
)
def test_numbers_are_read_in_any_spelling(text: str, value: float, write: Write) -> None:
    file = write(f"prepare: {{input: x}}\ntrain:\n  learning_rate: {text}\n")
    for config in (load_config([file], []), load(f"train.learning_rate={text}")):
        assert config.train.learning_rate == value


def test_on_off_yes_and_no_are_text(write: Write) -> None:
    file = write("prepare: {input: x}\nreport: {words: [on, off, yes, no]}\ntrain: {compile: on}")
    config = load_config([file], [])
    assert config.report.words == ("on", "off", "yes", "no")
    assert config.train.compile == "on"


def test_a_text_setting_takes_a_number_as_written() -> None:
    config = load("tracking.name=1.10", "report.words=[007, true, 1e3, 猫]", "run.output=2024")
    assert config.tracking.name == "1.10"
    assert config.report.words == ("007", "true", "1e3", "猫")
    assert config.run.output == "2024"


@pytest.mark.parametrize(
    "text",
    [
        "installed-docs:",
        "*.txt",
        "a: b",
        "x #1",
        "#x",
        "&a b",
        "!a",
        "[ab].txt",
        "{a,b}.txt",
        "@x",
        "%x",
        "- a",
        "'a' 'b'",
        "C:\\data",
        "s3://b/*.gz",
        "# a\nb",
    ],
)
def test_an_override_that_is_not_valid_yaml_is_text(text: str) -> None:
    assert load_config([], [f"prepare.input={text}"]).prepare.input == text


def test_an_override_that_is_valid_yaml_is_parsed() -> None:
    config = load(
        "prepare.input=[a, {name: b, path: [b, c], license: '=x'}]",
        "tokenizer={kind: word, min_count: 2}",
        "model.recurrent.projection=null",
        'tracking.name=" x"',
    )
    assert config.prepare.input == ("a", Source(name="b", path=("b", "c"), license="=x"))
    assert config.tokenizer == WordConfig(min_count=2)
    assert config.model.recurrent.projection is None
    assert config.tracking.name == " x"


# Kinds


def test_another_kind_in_a_later_file_drops_settings_that_it_does_not_have(write: Write) -> None:
    first = write("prepare: {input: x}\ntokenizer: {vocabulary: 900}\n", "first.yaml")
    second = write("tokenizer: {kind: word}", "second.yaml")
    third = write("tokenizer: {kind: sentencepiece}", "third.yaml")
    assert load_config([first, second], []).tokenizer == WordConfig()
    assert load_config([first, second, third], []).tokenizer == SentencePieceConfig()
    assert load_config([first, third], []).tokenizer == SentencePieceConfig(vocabulary=900)


def test_another_kind_in_an_override_drops_settings_that_it_does_not_have(write: Write) -> None:
    file = write("prepare: {input: x}\nmodel: {head: {div: 2}, recurrent: {hidden: 8}}\n")
    model = load_config([file], ["model.head.kind=softmax"]).model
    assert model.head == SoftmaxConfig()
    assert model.recurrent.hidden == 8
    assert load_config([file], []).model.head == AdaptiveSoftmaxConfig(div=2)


def test_a_setting_without_a_kind_keeps_the_kind(write: Write) -> None:
    file = write("prepare: {input: x}\ntokenizer: {kind: word}\n")
    assert load_config([file], ["tokenizer.min_count=3"]).tokenizer == WordConfig(min_count=3)


def test_an_override_may_set_the_kind_after_its_settings() -> None:
    assert load("tokenizer.min_count=3", "tokenizer.kind=word").tokenizer == WordConfig(min_count=3)


# Mistakes


def test_all_mistakes_are_reported_together_in_the_order_of_the_sources(write: Write) -> None:
    first = write("prepare:\n  valid_fraction: 2\nmodel:\n  recurrent:\n    hiden: 3\n", "b.yaml")
    second = write("train:\n\n  steps: abc\n  steps: 5.5\ntokenizer: {kind: wrod}\n")
    assert problems([first, second], "train.rows=0", "x") == [
        "b.yaml:2: prepare.valid_fraction: must be a number of at least 0 and below 1, not 2",
        "b.yaml:5: unknown key 'model.recurrent.hiden'; did you mean 'hidden'?",
        "a.yaml:4: 'train.steps' is set twice, first in line 3",
        "a.yaml:4: train.steps: must be a whole number of at least 1, not 5.5",
        "a.yaml:5: tokenizer.kind: must be one of 'sentencepiece', 'char', 'huggingface', 'word', not 'wrod'; "
        "did you mean 'word'?",
        "override 'train.rows=0': train.rows: must be a whole number of at least 1 and at most 1000000, not 0",
        "override 'x': must be key.path=value, such as train.steps=1000",
    ]


def test_a_key_that_two_overrides_set_is_a_mistake() -> None:
    list_hint = "; a shell makes two arguments of an unquoted {a,b}: write a list in quotes, as in "
    for first, second, name, hint in (
        ("prepare.input=x", "prepare.input=y", "prepare.input", "'prepare.input=[x, y]'"),
        ("prepare.input=x", "prepare={input: y}", "prepare.input", "'prepare.input=[x, y]'"),
        ("prepare={input: [x]}", "prepare.input=[y]", "prepare.input", ""),
        ("train.steps=5", "train.steps=5", "train.steps", ""),
        ("train.steps=5", "train=7", "train", ""),
        ("run={output: x}", "run.output=y", "run.output", "'run.output=[x, y]'"),
    ):
        assert problems([], first, second)[0] == (
            f"override '{second}': '{name}' is set twice on the command line, first by the override "
            f"'{first}'{list_hint + hint if hint else ''}"
        )


def test_a_path_that_is_not_utf8_is_text_and_an_escape_in_a_list() -> None:
    assert load("prepare.input=a\udce9\x1b").prepare.input == "a\udce9\x1b"
    assert load(r'prepare.input=["a\udce9\u001b"]').prepare.input == ("a\udce9\x1b",)


def test_overrides_may_set_different_keys_of_a_section() -> None:
    train = load("train={rows: 5}", "train={unroll: 6}", "train.steps=7", "train={}").train
    assert (train.rows, train.unroll, train.steps) == (5, 6, 7)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("train.steps=abc", "train.steps: must be a whole number of at least 1, not 'abc'"),
        ("train.steps=true", "train.steps: must be a whole number of at least 1, not true"),
        ("train.steps=.inf", "train.steps: must be a whole number of at least 1, not .inf"),
        ("train.steps=[1]", "train.steps: must be a whole number of at least 1, not a list"),
        ("train.seed=null", "train.seed: must be a whole number of at least 0 and below 4294967296, not null"),
        ("train.clip_norm=.nan", "train.clip_norm: must be a number above 0 or null, not .nan"),
        ("train.clip_norm=x", "train.clip_norm: must be a number above 0 or null, not 'x'"),
        ("train.schedule.final_rate=2", "train.schedule.final_rate: must be a number of at least 0 and at most 1, not 2"),
        ("prepare.drop_empty=maybe", "prepare.drop_empty: must be true or false, not 'maybe'"),
        ("prepare.drop_empty=2", "prepare.drop_empty: must be true or false, not 2"),
        ("prepare.drop_empty={}", "prepare.drop_empty: must be true or false, not a mapping"),
        ("run.output=null", "run.output: must be text, not null"),
        ("prepare.input={a: 1}", "prepare.input: must be text or a list of texts and mappings or null, not a mapping"),
        ("prepare.input=[a, null]", "prepare.input[1]: must be text or a mapping with the key 'path', not null"),
        ("prepare.input=[{path: x, name: ''}]", "prepare.input[0].name: must be text that is not empty, not ''"),
        ("prepare.input=[{path: [null]}]", "prepare.input[0].path[0]: must be text, not null"),
        ("prepare.input=[{path: x, nmae: y}]", "unknown key 'prepare.input[0].nmae'; did you mean 'name'?"),
        (
            "prepare.input=[{name: y}]",
            "prepare.input[0].path is missing (path, folder, glob or fsspec URL of the files, or a list of these; 'installed-docs:' is the documentation of the installed Python packages)",
        ),
        ("report.words=the", "report.words: must be a list of texts or null, not 'the'"),
        ("model.recurrent.projection=0", "model.recurrent.projection: must be a whole number of at least 1 and at most 1000000 or null, not 0"),
        ("model.head.cutoffs=atuo", "model.head.cutoffs: must be 'auto' or a list of whole numbers, not 'atuo'; did you mean 'auto'?"),
        ("model.head.cutoffs=[x]", "model.head.cutoffs[0]: must be a whole number, not 'x'"),
        ("model.head.cutoffs=[3, 2]", "model.head: cutoffs must be positive and strictly increasing, not [3, 2]"),
        ("model.head.kind=null", "model.head.kind: must be one of 'adaptive_softmax', 'softmax', 'sampled_softmax', not null"),
        ("model.head.kind=[a]", "model.head.kind: must be one of 'adaptive_softmax', 'softmax', 'sampled_softmax', not a list"),
        ("model.recurrent.kind=rnn", "model.recurrent.kind: must be one of 'lstm', 'gru', 'hgrn2', 'sru', not 'rnn'"),
        ("train.boundary=bos", "train.boundary: must be one of 'eos', 'bos_eos', not 'bos'; did you mean 'bos_eos'?"),
        ("prepare.cleaning.unicode=nfc", "prepare.cleaning.unicode: must be one of 'NFC', 'NFKC', 'none', not 'nfc'; did you mean 'NFC'?"),
        ("train.device=gpu", "train.device: must be one of 'auto', 'cpu', 'cuda', not 'gpu'"),
        ("evaluate.split=no", "evaluate.split: must be one of 'train', 'valid', 'test', not 'no'"),
        ("tokenizer=word", "tokenizer: must be a section with keys, not 'word'; did you mean 'tokenizer.kind'?"),
        ("train=null", "train: must be a section with keys, not null"),
        ("prepare=x", "prepare: must be a section with keys, not 'x'"),
        ("trian.steps=1", "unknown key 'trian'; did you mean 'train'?"),
        ("train.Learning-Rate=1", "unknown key 'train.Learning-Rate'; did you mean 'learning_rate'?"),
        ("learning_rate=1", "unknown key 'learning_rate'; did you mean 'train.learning_rate'?"),
        ("train.hiden=1", "unknown key 'train.hiden'; did you mean 'model.recurrent.hidden'?"),
        ("model.dropout=0", "unknown key 'model.dropout'; did you mean 'model.input.dropout' or 'model.recurrent.dropout'?"),
        ("model.kind=x", "unknown key 'model.kind'; did you mean 'model.input.kind' or 'model.recurrent.kind' or 'model.head.kind'?"),
        ("tracking.foo=1", "unknown key 'tracking.foo'; the keys here are wandb, project, name, tensorboard, tensorboard_folder"),
        ("tokenizer.min_count=1", "unknown key 'tokenizer.min_count': kind 'word' has it, but the kind is 'sentencepiece'"),
        ("train.seed=", "no value: write train.seed=null for null, train.seed='\"\"' for empty text"),
        ("train..seed=1", "must be key.path=value, such as train.steps=1000"),
        ("report.words=[*.txt, b]", "not valid YAML: put quotes around text that begins with *"),
        ("report={words: [a], words: [b]}", "'report.words' is set twice"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(override: str, problem: str) -> None:
    assert problem_of(override) == problem


def test_a_long_value_is_cut(write: Write) -> None:
    assert problem_of(f"train.steps={'9' * 5000}").endswith(f"not '{'9' * 56}...")


def test_a_rule_between_keys_names_the_positions_of_both(write: Write) -> None:
    file = write("prepare:\n  input: x\n  valid_fraction: 0.5\n")
    assert problems([file], "prepare.test_fraction=.6") == [
        "override 'prepare.test_fraction=.6': prepare: valid_fraction and test_fraction must sum "
        "to less than 1 (see also a.yaml:3)"
    ]


def test_a_dotted_key_in_a_file_is_explained(write: Write) -> None:
    file = write("prepare: {input: x}\ntrain.steps: 5\n")
    assert problems([file]) == [
        "a.yaml:2: unknown key 'train.steps'; in a file, indent 'steps' under 'train:'"
    ]


def test_a_key_without_a_value_is_called_empty(write: Write) -> None:
    file = write("prepare: {input: x}\ntrain:\n  steps:\n")
    assert problems([file]) == [
        "a.yaml:3: train.steps: must be a whole number of at least 1, but is empty"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "a.yaml:1: the file is empty: it must hold sections such as 'prepare:'"),
        ("\n# only\n", "a.yaml:1: the file is empty: it must hold sections such as 'prepare:'"),
        (
            "\n- a\n",
            "a.yaml:2: must hold sections such as 'prepare:', not a list or a single value",
        ),
        (b"a: 1\nb: \xff", "a.yaml:2: byte 0xff is not UTF-8: save it as UTF-8"),
        ("a: 1\nb: \x01", "a.yaml:2: not valid YAML: the character U+0001 is not allowed"),
        ("a:\n\tb: 1", "a.yaml:2: not valid YAML: indent with spaces, not tabs"),
        ("a: *.txt", "a.yaml:1: not valid YAML: put quotes around text that begins with *"),
        ("a: 1\nb: *a", "a.yaml:2: not valid YAML: put quotes around text that begins with *"),
        ("a: &a 1", "a.yaml:1: not valid YAML: put quotes around text that begins with &"),
        (
            "a: !!python/object/apply:os.getcwd []",
            "a.yaml:1: not valid YAML: put quotes around text that begins with !",
        ),
        (
            "a: b: c",
            "a.yaml:1: not valid YAML: put quotes around text that contains a colon, or correct "
            "the indentation",
        ),
        (
            "a: [b\nc: d\n",
            "a.yaml:2: not valid YAML: while parsing a flow sequence from line 1, expected ',' "
            "or ']', but got ':'",
        ),
        ("[" * 3000, "a.yaml:1: not a config: nested too deeply"),
    ],
)
def test_a_file_that_is_not_a_config_is_reported_with_its_line(
    text: str | bytes, problem: str, write: Write
) -> None:
    assert problems([write(text)]) == [problem]


def test_a_key_that_is_not_a_word_is_a_mistake(write: Write) -> None:
    file = write("prepare: {input: x}\nrun:\n  output: {{name}}\n")
    assert problems([file])[0] == (
        "a.yaml:3: a key must be a word; put quotes around text that begins with {"
    )


def test_a_byte_order_mark_is_accepted(write: Write) -> None:
    assert load_config([write(b"\xef\xbb\xbfprepare: {input: x}")], []) == load()


def test_a_file_that_cannot_be_read_is_reported_with_the_mistakes_in_others(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    write("")
    monkeypatch.setattr(Path, "open", refuse)
    assert problems(["a.yaml", "no/b.yaml"], "x") == [
        "a.yaml: cannot be read: Permission denied",
        "no such file: 'no/b.yaml'",
        "override 'x': must be key.path=value, such as train.steps=1000",
    ]


# Shipped configs


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with two configs, and an empty working directory."""
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "configs").mkdir()
    (tmp_path / "work").mkdir()
    for name in ("base", "quickstart"):
        (tmp_path / "configs" / f"{name}.yaml").write_text("prepare: {input: x}")
    monkeypatch.setattr(load_module.resources, "files", lambda _: tmp_path / "pipeline")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def test_a_bare_name_finds_the_config_beside_the_package(shipped: Path) -> None:
    assert find_config("quickstart") == shipped / "configs" / "quickstart.yaml"


def test_a_bare_name_finds_the_config_in_an_installed_package_first(shipped: Path) -> None:
    (shipped / "pipeline" / "configs").mkdir()
    inside = shipped / "pipeline" / "configs" / "quickstart.yaml"
    inside.touch()
    assert find_config("quickstart") == inside


def test_an_existing_file_wins_over_a_shipped_name_and_a_folder_does_not(shipped: Path) -> None:
    Path("base").mkdir()
    Path("quickstart").touch()
    assert find_config("base") == shipped / "configs" / "base.yaml"
    assert find_config("quickstart") == Path("quickstart")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (
            "quikstart",
            "no config 'quikstart': the shipped configs are base, quickstart; did you mean 'quickstart'?",
        ),
        (
            "quickstart.yaml",
            "no config 'quickstart.yaml': the shipped configs are base, quickstart; did you mean 'quickstart'?",
        ),
        ("mine.yaml", "no config 'mine.yaml': the shipped configs are base, quickstart"),
        ("configs/x.yaml", "no such file: 'configs/x.yaml'"),
        ("folder", "config 'folder' is a folder, not a file"),
    ],
)
def test_a_config_that_is_not_found_is_reported(name: str, problem: str, shipped: Path) -> None:
    Path("folder").mkdir()
    with pytest.raises(ConfigError) as caught:
        find_config(name)
    assert caught.value.problems == [problem]


# The models


def fields_of(section: type[Section]) -> Iterator[FieldInfo]:
    for field in section.model_fields.values():
        yield field
        elements = [m for m in diagnostics.choices(field.annotation) if get_origin(m) is tuple]
        for inner in [field, *(FieldInfo(annotation=m.__args__[0]) for m in elements)]:
            for below in diagnostics.sections(inner):
                yield from fields_of(below)


def test_every_field_of_the_config_can_be_described_in_words() -> None:
    for field in fields_of(Config):
        assert diagnostics.expected(field)


def test_every_field_but_a_kind_has_a_description_of_one_line() -> None:
    for field in fields_of(Config):
        if get_origin(field.annotation) is not Literal or len(get_args(field.annotation)) > 1:
            assert field.description
            assert "\n" not in field.description


def test_configs_are_read_without_torch_beam_lightning_or_numpy() -> None:
    heavy = {"torch", "apache_beam", "pytorch_lightning", "numpy"}
    code = f"import sys, pipeline.config.load; print({heavy} & set(sys.modules))"
    root = Path(load_module.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert done.stdout.strip() == b"set()", done.stderr.decode()
