"""What a person is told who made a mistake: one message, exit code 2, no traceback."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main

Tiny = Any  # of conftest.py
Command = Any

SHIPPED = "the shipped configs are base, chinese, elmo-original, gru, ptb, quickstart, seed-small, simple-english, sru, wikitext-2"
TEXT = "prepare.input={root}/corpus.txt"
OUTPUT = "run.output={tmp}/out"

MISTAKES = [
    ("run nothing.yaml", "no config 'nothing.yaml': " + SHIPPED),
    ("run quickstrat", f"no config 'quickstrat': {SHIPPED}; did you mean 'quickstart'?"),
    ("run {tmp}/no.yaml", "no such file: '{tmp}/no.yaml'"),
    ("run {tmp}", "config '{tmp}' is a folder, not a file"),
    (
        "run quickstart trian.steps=1 train.rows=0",
        "override 'trian.steps=1': unknown key 'trian'; did you mean 'train'?\n"
        "override 'train.rows=0': train.rows: must be a whole number of at least 1 and at most 1000000, not 0",
    ),
    (
        "tokenizer run.output={tmp}/out",
        "prepare.input is missing: set it in a file or as prepare.input=... (path, folder, glob or fsspec "
        "URL of the raw text, or a list of these and of sources)",
    ),
    (
        f"tokenizer prepare.input={{tmp}}/*.txt {OUTPUT}",
        "{tmp}/*.txt: no file matches; check the path (a glob must be quoted in a shell)",
    ),
    (
        f"tokenizer prepare.input={{tmp}}/a.txt {OUTPUT}",
        "{tmp}/a.txt: no such file; check the path (a glob must be quoted in a shell)",
    ),
    (
        f"tokenizer prepare.input={{tmp}} {OUTPUT}",
        "{tmp}: no file in this folder may be text (it is empty); name a folder with text",
    ),
    (
        f"tokenizer prepare.input=nofs://bucket/a.txt {OUTPUT}",
        "nofs://bucket/a.txt: cannot open a 'nofs' URL (Protocol not known: nofs)",
    ),
    (
        f"tokenizer {TEXT} run.output={{root}}/corpus.txt",
        "{root}/corpus.txt/tokenizer: cannot write here (Not a directory); name another "
        "output folder",
    ),
    (
        f"prepare {TEXT} {OUTPUT}",
        "{tmp}/out/tokenizer holds no finished 'tokenizer' (no manifest.json); run `biloom "
        "tokenizer` first, or check the path",
    ),
    (
        f"prepare {TEXT} {OUTPUT} prepare.tokenizer={{root}}/prepare",
        "{root}/prepare holds a finished 'prepare', not 'tokenizer'; name the folder that `biloom "
        "tokenizer` wrote",
    ),
    (
        f"train {TEXT} {OUTPUT}",
        "{tmp}/out/prepare holds no finished 'prepare' (no manifest.json); run `biloom prepare` "
        "first, or check the path",
    ),
    (
        f"embed {TEXT} {OUTPUT}",
        "{tmp}/out/export holds no finished 'export' (no manifest.json); run `biloom export` "
        "first, or check the path",
    ),
    (
        f"tokenizer {TEXT} run.output={{root}} tokenizer.kind=word tokenizer.min_count=9 "
        "prepare.valid_fraction=0.1",
        "{root}/tokenizer holds a result made with other settings or inputs:\n"
        "    tokenizer.min_count: 1 -> 9\n"
        "  add --overwrite to move it aside, or set another run.output",
    ),
    ("inspect {tmp}", "{tmp} holds no finished stage (no manifest.json); check the path"),
    ("check {tmp}", "{tmp} holds no finished stage (no manifest.json); check the path"),
    (
        "status {tmp}",
        "{tmp} holds no stage of a run (tokenizer, prepare, train, evaluate, export, embed); name "
        "the folder that was given as run.output",
    ),
    (
        "report {root}",
        "{root}/embed holds no finished 'embed' (no manifest.json); run `biloom embed` first, or "
        "check the path",
    ),
    (
        "report {root}/tokenizer",
        "{root}/tokenizer is the folder of one stage (tokenizer); name the run folder above it, or "
        "look at the stage with `biloom inspect`",
    ),
    (
        "report s3://key:password@bucket/run",
        "s3://***@bucket/run holds a user, a password, a token or a signature, which would be copied to "
        "the page; set it in an environment variable or a credentials file instead",
    ),
    (
        "compare {root} s3://bucket/run?sig=1 --page {tmp}/a.html",
        "s3://bucket/run?sig=*** holds a user, a password, a token or a signature, which would be copied "
        "to the page; set it in an environment variable or a credentials file instead",
    ),
    ("compare {root}", "`biloom compare` needs two or more run folders"),
]


@pytest.mark.parametrize(("command", "message"), MISTAKES, ids=[c for c, _ in MISTAKES])
def test_a_mistake_is_reported_in_one_message(
    command: str, message: str, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"root": tiny.root, "tmp": tmp_path}
    before = sorted(tmp_path.rglob("*"))
    assert main(command.format(**places).split()) == 2
    assert capsys.readouterr().err == f"biloom: {message.format(**places)}\n"
    assert sorted(tmp_path.rglob("*")) == before


def test_the_installed_command_tells_a_mistake_on_standard_error(
    tmp_path: Path, biloom: Command
) -> None:
    answer = biloom.run("train", "prepare.input=x", cwd=tmp_path)
    assert answer.returncode == 2
    assert answer.stdout == f"train  {tmp_path}/biloom-run/train\n"
    assert answer.stderr == (
        f"biloom: {tmp_path}/biloom-run/prepare holds no finished 'prepare' (no manifest.json); "
        "run `biloom prepare` first, or check the path\n"
    )
    assert list(tmp_path.iterdir()) == []
