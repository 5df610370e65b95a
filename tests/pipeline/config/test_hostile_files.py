"""Any bytes are a config or a list of mistakes, soon and without a traceback."""

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.cli import main
from pipeline.config.load import ConfigError, dump_config, load_config

HEAD = "prepare: {input: a.txt}\n"
NOT_FINITE = "must be a finite number, not"


def problems(tmp_path: Path, data: bytes) -> list[str]:
    """Return the mistakes in a config file, without the file's name."""
    file = tmp_path / "a.yaml"
    file.write_bytes(data)
    with pytest.raises(ConfigError) as error:
        load_config([str(file)], [])
    return [problem.removeprefix(str(file)).lstrip(":") for problem in error.value.problems]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [1]\nb: [*a, *a]\n", "1: not valid YAML: put quotes around text that begins with &"),
        ("a: !!python/object/apply:os.system [x]", "1: not valid YAML: put quotes around text that begins with !"),
        ("a: " + "[" * 5000, "1: not a config: nested too deeply"),
        ("train:\n\tsteps: 1", "2: not valid YAML: indent with spaces, not tabs"),
        (HEAD + HEAD, "2: 'prepare' is set twice, first in line 1"),
        ('a: "\\UFFFFFFFF"', "1: not valid YAML: an escape sequence is not a character (Python int too large to convert to C int)"),
        (HEAD + "train: {learning_rate: 1e400}", f"2: train.learning_rate: {NOT_FINITE} 1e400"),
        (HEAD + "train: {learning_rate: .inf}", f"2: train.learning_rate: {NOT_FINITE} .inf"),
        (HEAD + "train: {learning_rate: -0.0}", "2: train.learning_rate: must be a number above 0, not -0.0"),
        (HEAD + "train: {clip_norm: .nan}", "2: train.clip_norm: must be a number above 0 or null, not .nan"),
        (
            HEAD + "train: {steps: 9223372036854775808}",
            "2: train.steps: must be at most 9,223,372,036,854,775,807, not 9223372036854775808",
        ),
        (
            HEAD + "tokenizer: {kind: char, seed: -9223372036854775809}",
            "2: tokenizer.seed: must be at least -9,223,372,036,854,775,807, not -9223372036854775809",
        ),
        (
            HEAD + f"train: {{steps: {'9' * 10_000}}}",
            f"2: train.steps: must be a whole number of at least 1, not '{'9' * 56}...",
        ),
        (
            HEAD + f"train: {{steps: 0x{'f' * 6000}}}",
            f"2: train.steps: must be a whole number of at least 1, not '0x{'f' * 54}...",
        ),
        (HEAD + "train: {steps: 1:30}", "2: train.steps: must be a whole number of at least 1, not '1:30'"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    assert problems(tmp_path, text.encode())[:1] == [message]


def test_a_file_that_is_no_config_is_refused_soon(tmp_path: Path) -> None:
    many = problems(tmp_path, HEAD.encode() + b"".join(b"k%d: 1\n" % i for i in range(500)))
    assert len(many) == 51
    assert many[-1] == "450 more mistakes are not shown"
    huge = problems(tmp_path, b"#" * (1 << 20) + b"\n")
    assert huge == [" not a config: it has more than 1,048,576 bytes"]


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + HEAD.encode(),
        HEAD.replace("\n", "\r").encode() + b"train: {steps: 5}\r",
        b"prepare: {input: 2020-01-01}",
        HEAD.encode() + b"train: {steps: 0o17}",
    ],
)
def test_harmless_peculiarities_are_read(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(data)
    config = load_config([str(file)], [])
    copy = tmp_path / "b.yaml"
    copy.write_text(dump_config(config), encoding="utf-8")
    assert load_config([str(copy)], []) == config


def test_a_config_that_is_no_file_is_refused_without_waiting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, why in (
        (f"{tmp_path}/pipe", "is not a file, but a pipe or a device; write its content to a file"),
        ("/dev/zero", "is not a file, but a pipe or a device; write its content to a file"),
        (f"{tmp_path}/loop", "cannot be read: Too many levels of symbolic links"),
        ("x" * 5000, "cannot be read: File name too long"),
    ):
        assert main(["run", name]) == 2
        assert capsys.readouterr().err == f"biloom: config '{name}' {why}\n"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ('prepare.input="a\\0b"', r"a\x00b: a path cannot hold the character NUL; remove it"),
        ('run.output="a\\0b"', r"a\x00b: a path cannot hold the character NUL; remove it"),
        (
            'prepare.input="\\ud800"',
            r"\ud800: a path cannot hold the character U+D800 (surrogates not allowed); remove it",
        ),
        (f"run.output={'x' * 300}", f"{'x' * 300}/tokenizer/manifest.json: File name too long"),
        (f"run.output={'x' * 5000}", f"{'x' * 5000}/tokenizer/manifest.json: File name too long"),
    ],
)
def test_a_path_that_no_file_can_have_is_told(
    setting: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("some words\n")
    settings = {"prepare.input": "prepare.input=a.txt", setting.partition("=")[0]: setting}
    assert main(["tokenizer", *settings.values()]) == 2
    assert capsys.readouterr().err.replace(f"{tmp_path}/", "") == f"biloom: {message}\n"


scalars = st.one_of(
    st.text(max_size=6),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["&a", "*a", "!t x", "0x1f", "1e999", "~", "- a", "? b", "|", '"\\ud800"', "s3://u:p@h"]),
)  # fmt: skip
keys = st.sampled_from(
    ["prepare", "input", "train", "steps", "model", "kind", "runner", "<<", "a.b"]
)
trees: Any = st.recursive(
    scalars,
    lambda below: st.one_of(
        st.lists(below, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(keys, below, max_size=3).map(
            lambda items: "{" + ", ".join(f"{k}: {v}" for k, v in items.items()) + "}"
        ),
    ),
    max_leaves=8,
)
fuzz = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@fuzz
@given(st.one_of(st.binary(max_size=80), trees.map(lambda tree: tree.encode("utf-8", "replace"))))
@example(b"\xff\xfep")
@example(b"a: \x85")
def test_any_bytes_are_a_config_or_mistakes(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "fuzz.yaml"
    file.write_bytes(data)
    with contextlib.suppress(ConfigError):
        dump_config(load_config([str(file)], []))


@fuzz
@given(st.one_of(st.text(max_size=40), trees), keys)
def test_any_override_is_a_setting_or_a_mistake(text: str, key: str) -> None:
    for override in (text, f"{key}={text}", f"prepare.{key}={text}"):
        with contextlib.suppress(ConfigError):
            dump_config(load_config([], ["prepare.input=a.txt", override]))
