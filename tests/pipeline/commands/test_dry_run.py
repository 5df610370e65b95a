"""A dry run tells the plan, before, between and after the stages, and touches nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lightning_modules.sizes import parameter_count
from pipeline.cli import main
from pipeline.commands import training_plan
from pipeline.console import count
from pipeline.training.forecast import passes_warning

Tiny = Any  # of conftest.py
Capture = pytest.CaptureFixture[str]
STAGES = ("tokenizer", "prepare", "train", "evaluate", "export", "embed")


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below ``root`` with its time and bytes."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in root.rglob("*")
    }


def states(printed: str) -> dict[str, str]:
    rows = printed.rpartition("stages: stage | state\n")[2].splitlines()
    return {row.split(" | ")[0].strip(): row.split(" | ")[1] for row in rows}


@pytest.fixture
def arguments(tiny: Tiny, tmp_path: Path) -> list[str]:
    """One run of all stages, on the tiny corpus."""
    joined = ("prepare.tokenizer", "train.corpus", "evaluate.corpus")
    text: list[str] = tiny.arguments(tmp_path / "out", *(f"{key}=null" for key in joined))
    return text


def test_it_tells_the_plan_and_touches_nothing_at_any_time(
    arguments: list[str], tmp_path: Path, capsys: Capture
) -> None:
    def plan() -> dict[str, str]:
        before = tree(tmp_path)
        assert main(["run", *arguments, "--dry-run"]) == 0
        assert tree(tmp_path) == before
        out = capsys.readouterr().out
        assert out.startswith(
            f"plan of run  {tmp_path}/out\n  inputs: source | files | size | units\n    corpus | 1 | "
        )
        assert len(out.splitlines()) <= 24
        return states(out)

    after = "to be made, after the stage before it"
    assert plan() == dict.fromkeys(STAGES, after) | {"tokenizer": "to be made"}
    main(["tokenizer", *arguments])
    capsys.readouterr()
    assert plan() == dict.fromkeys(STAGES, after) | {
        "tokenizer": "already done",
        "prepare": "to be made",
    }
    main(["prepare", *arguments])
    capsys.readouterr()
    arguments.append("prepare.deduplicate=false")
    assert plan()["prepare"] == (
        "refused: made with other settings (prepare.deduplicate: true -> false)"
    )
    assert plan()["tokenizer"] == "already done"


def test_stages_that_are_to_be_made_have_estimates(arguments: list[str], capsys: Capture) -> None:
    def estimates(command: str, *words: str) -> list[str]:
        assert main([command, *arguments, *words, "--dry-run"]) == 0
        lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
        return [line for line in lines if " of memory" in line or "no estimate" in line]

    def stages(found: list[str]) -> list[str]:
        return [line.partition(": about ")[0] for line in found]

    assert stages(estimates("run")) == ["tokenizer", "prepare"]
    assert stages(estimates("tokenizer")) == ["tokenizer"]
    assert estimates("train") == []
    main(["tokenizer", *arguments])
    capsys.readouterr()
    assert stages(estimates("run")) == stages(estimates("prepare")) == ["prepare"]
    main(["prepare", *arguments])
    capsys.readouterr()
    assert estimates("run") == []
    assert stages(estimates("prepare", "prepare.deduplicate=false", "--overwrite")) == ["prepare"]


def test_a_file_that_cannot_be_read_is_named_and_does_not_hide_the_plan(
    tiny: Tiny, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "a.txt").write_bytes(b"%PDF-1.7\n" + bytes(range(256)) * 9)
    settings = (f"prepare.input={tmp_path}/a.txt", "prepare.tokenizer=null", "train.corpus=null")
    assert main(["prepare", *tiny.arguments(tmp_path / "out", *settings), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "this file cannot be read: " in out
    assert "a.txt: this is a PDF document; extract its text" in out
    assert " of memory" not in out
    assert "stages: stage | state" in out


def test_all_is_already_done_after_a_run(tiny: Tiny, trained: Path, capsys: Capture) -> None:
    main(["run", *tiny.arguments(trained), "--dry-run"])
    told = states(capsys.readouterr().out)
    done = dict.fromkeys(("train", "evaluate", "export"), "already done")
    # The tokenizer and the corpus stand in another folder, so no run makes them.
    assert told == {**done, "embed": "to be made"}


def line(start: str, arguments: list[str], capsys: Capture) -> str:
    """The line of a training's plan that begins so; the last override of a key counts."""
    words = {word.partition("=")[0]: word for word in arguments}
    assert main(["train", *words.values(), "--dry-run"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    return next((line for line in lines if line.startswith(start)), "")


def test_the_parameters_are_those_of_the_network_that_is_trained(
    tiny: Tiny, arguments: list[str], capsys: Capture
) -> None:
    config = tiny.config(tiny.root)
    vocabulary = int(tiny.run("tokenizer", tiny.root)[0].details["vocabulary"])
    number = parameter_count(config.model, vocabulary, (20, 50))
    known = f"prepare.tokenizer={tiny.root / 'tokenizer'}"
    assert line("model", [*arguments, known], capsys) == (
        f"model: {number:,} parameters, for a vocabulary of {vocabulary}"
    )
    automatic = [*arguments, known, "model.head.cutoffs=auto"]
    assert line("model", automatic, capsys).startswith("model: at most ")
    assert line("model", arguments, capsys) == (
        "model: its size depends on the number of words in the corpus"
    )
    assert line("model", [*arguments, "tokenizer.kind=char"], capsys) == (
        "model: its size depends on the number of characters in the corpus"
    )
    pieces = [*arguments, "tokenizer.kind=sentencepiece"]
    assert line("model", pieces, capsys).endswith(" parameters, for a vocabulary of 8,000")


def test_the_passes_are_those_of_the_corpus_once_it_is_prepared(
    tiny: Tiny, arguments: list[str], capsys: Capture
) -> None:
    details = tiny.run("prepare", tiny.root)[0].details
    train = details["splits"]["train"]
    tokens = train["tokens"] + train["documents"]
    prepared = [*arguments, f"train.corpus={tiny.root / 'prepare'}"]
    assert line("training", prepared, capsys) == (
        f"training: 40 steps of 15 tokens; {600 / tokens:.2g} passes over {tokens:,} tokens"
    )
    many = [*prepared, "train.steps=40000"]
    assert line("training", many, capsys).startswith(
        f"training: 40,000 steps of 15 tokens; {600_000 / tokens:,.0f} passes over "
    )
    once = [*prepared, f"train.steps={round(tokens / 15)}"]
    assert f"; 1 pass over {tokens:,} tokens" in line("training", once, capsys)
    warning = passes_warning(600_000 / tokens, 40_000, 0.1)
    assert warning
    assert line("40,000 steps are ", many, capsys) == warning


def test_the_passes_are_estimated_until_then(
    tiny: Tiny, arguments: list[str], tmp_path: Path, capsys: Capture
) -> None:
    size = (tiny.root / "corpus.txt").stat().st_size
    for kind, bytes_ in (("word", 6.0), ("char", 2.0), ("sentencepiece", 4.5)):
        tokens = size * 0.9 / bytes_
        assert line("training", [*arguments, f"tokenizer.kind={kind}"], capsys) == (
            f"training: 40 steps of 15 tokens; about {600 / tokens:.2g} passes over "
            f"{count(tokens)} tokens ({bytes_} bytes each, a guess, because there is no tokenizer yet)"
        )
    known = f"prepare.tokenizer={tiny.root / 'tokenizer'}"
    told = line("training", [*arguments, known], capsys)
    measured = tiny.run("tokenizer", tiny.root)[0].details["coverage"]["bytes_per_token"]
    assert told.endswith(f" tokens ({measured:.1f} bytes each, as the tokenizer measured)")
    held_out = f"prepare.input=[{{path: {tiny.root}/corpus.txt, split: valid}}]"
    assert line("training", [*arguments, held_out], capsys) == "training: 40 steps of 15 tokens"
    assert line("no text to train on: the train split is empty", [*arguments, held_out], capsys)
    for unknown in ("prepare.input=/nowhere.txt", f"train.corpus={tmp_path}/none"):
        assert line("training", [*arguments, unknown], capsys) == (
            "training: 40 steps of 15 tokens; the number of passes is not known before the corpus is prepared"
        )


def test_a_short_training_and_its_held_out_text_are_warned_of_before_and_after_prepare(
    tiny: Tiny, arguments: list[str], capsys: Capture
) -> None:
    for corpus in ((), (f"train.corpus={tiny.root / 'prepare'}",)):
        told = [*arguments, *corpus]
        short = line("train.steps=1 reads 0.0", [*told, "train.steps=1"], capsys)
        assert " of a pass over the corpus; train.passes=1 " in short
        assert line("1 evaluation of ", [*told, "train.steps=10"], capsys)
        assert not line("no held-out text", told, capsys)
    nothing = [*arguments, "prepare.valid_fraction=0"]
    assert line("no held-out text: no perplexity will be reported", nothing, capsys)
    assert line("60% of the corpus's", [*arguments, "prepare.valid_fraction=0.6"], capsys)
    path = f"path: {tiny.root}/corpus.txt"
    given = f"prepare.input=[{{name: a, {path}, split: train}}, {{name: b, {path}, split: valid}}]"
    assert line("50% of the corpus's", [*arguments, given], capsys)


def test_cutoffs_beyond_the_vocabulary_are_warned_of(
    tiny: Tiny, arguments: list[str], capsys: Capture
) -> None:
    size = int(tiny.run("tokenizer", tiny.root)[0].details["vocabulary"])
    far = "model.head.cutoffs=[2000,10000]"
    start = "training will refuse this: "
    for known in ("prepare.tokenizer=tokenizer", "train.corpus=prepare"):
        key, _, name = known.partition("=")
        assert line(start, [*arguments, f"{key}={tiny.root / name}", far], capsys) == (
            f"{start}model.head.cutoffs: [2000, 10000] must increase and lie between 0 and {size}, the "
            "number of ids that can be predicted; choose other cutoffs, or auto"
        )
    known = f"prepare.tokenizer={tiny.root / 'tokenizer'}"
    assert line(start, [*arguments, known, "model.output_vocabulary=50"], capsys)
    assert not line(start, [*arguments, known], capsys)
    pieces = [*arguments, "tokenizer.kind=sentencepiece"]
    assert " and lie between 0 and 8,000, " in line(start, [*pieces, far], capsys)
    assert not line(start, [*arguments, "tokenizer.kind=char", far], capsys), (
        "its size is not known"
    )


def test_what_will_be_made_again_is_estimated(arguments: list[str], capsys: Capture) -> None:
    main(["tokenizer", *arguments])
    main(["prepare", *arguments])
    capsys.readouterr()
    other = [*arguments, "tokenizer.kind=sentencepiece", "model.head.cutoffs=[2000]"]
    for overwrite, vocabulary in (((), ""), (("--overwrite",), "8,000")):
        assert main(["run", *other, *overwrite, "--dry-run"]) == 0
        out = capsys.readouterr().out
        assert ("training will refuse this" in out) == (not overwrite)
        assert f" parameters, for a vocabulary of {vocabulary}" in out
        assert ("bytes each" in out) == bool(overwrite)


def test_only_the_docstrings_of_python_sources_count(
    arguments: list[str], tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "a.py").write_text("x" * 60_000)
    source = f"prepare.input=[{{path: {tmp_path}/a.py, format: docstrings}}]"
    assert " passes over 900 tokens (" in line("training", [*arguments, source], capsys)


def test_the_time_is_estimated_from_this_cpus_speed(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(training_plan, "cpu_tokens_per_second", lambda config, counts: 5.0)
    assert line("time", arguments, capsys) == (
        "time: about 2 minutes (at 5 tokens/s, estimated from the present speed of this CPU)"
    )
    assert line("40 steps take", arguments, capsys) == ""
    slow = [*arguments, "train.steps=40000"]
    assert line("40,000 steps take", slow, capsys) == (
        "40,000 steps take 33 hours on this machine; train.steps=1200 takes about 1 hour, and steps "
        "can be added later"
    )
    assert line("time", [*arguments, "train.device=cuda"], capsys) == (
        "time: not known before the first steps, because training runs on a GPU"
    )
    monkeypatch.setattr("pipeline.stages.checks.teacher_folder", lambda teacher: "/nowhere")
    monkeypatch.setattr("pipeline.lifecycle.registry.teacher_request", lambda teacher: {})
    assert line("time", [*arguments, "train.teacher.model=/nowhere"], capsys) == (
        "time: not known before the first steps, because a teacher reads the text too"
    )


def test_the_time_of_an_interrupted_training_is_that_of_its_own_speed(
    arguments: list[str], tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "out" / "train"
    folder.mkdir(parents=True)
    speeds = {1: 1.0, 2: 50.0, 3: 60.0, 4: 70.0}
    rows = [{"step": step, "tokens_per_second": speed} for step, speed in speeds.items()]
    lines = [json.dumps(row) for row in [*rows, {"step": 5, "valid_bits_per_byte": 1.0}]]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    assert line("time", arguments, capsys) == (
        "time: about 10 seconds after step 4 (at 55 tokens/s, as in the last steps)"
    )
    (folder / "metrics.jsonl").write_text('{"step": 1')
    assert "present speed of this CPU" in line("time", arguments, capsys)


def test_the_speed_of_a_training_with_other_settings_says_nothing(
    tiny: Tiny, trained: Path, capsys: Capture
) -> None:
    wider = tiny.arguments(trained, "model.recurrent.hidden=16")
    assert "present speed of this CPU" in line("time", wider, capsys)
    longer = tiny.arguments(trained, "train.steps=60")
    assert " after step 40 (at " in line("time", longer, capsys)


def test_a_finished_training_takes_no_time(tiny: Tiny, trained: Path, capsys: Capture) -> None:
    arguments = tiny.arguments(trained)
    assert line("training", arguments, capsys).startswith("training: 40 steps of 15 tokens; ")
    assert line("time", arguments, capsys) == ""


def test_a_plan_of_many_sources_and_differences_fits_a_screen(
    tiny: Tiny, arguments: list[str], tmp_path: Path, capsys: Capture
) -> None:
    for number in range(30):
        shutil.copy(tiny.root / "corpus.txt", tmp_path / f"{number}.txt")
    many = ", ".join(f"{{name: s{n}, path: {tmp_path}/{n}.txt}}" for n in range(30))
    main(["tokenizer", *arguments])
    capsys.readouterr()
    assert main(["run", *arguments, f"prepare.input=[{many}]", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) <= 24
    size = (tiny.root / "corpus.txt").stat().st_size
    assert f"    23 more | 23 |  | \n    all | 30 | {count(30 * size)}B | 30\n" in out
    refused = states(out)["tokenizer"]
    assert refused.startswith("refused: made with other settings (")
    assert refused.endswith(" ...)")
    assert len(refused) <= 300


def test_a_stage_is_planned_from_the_inputs_that_it_reads(
    arguments: list[str], tmp_path: Path, capsys: Capture
) -> None:
    gone = "prepare.input=/nowhere/*.txt"
    assert main(["train", *arguments, gone, "--dry-run"]) == 0
    assert main(["prepare", *arguments, gone, "--dry-run"]) == 2
    text = tmp_path / "new.txt"
    text.write_text("ein Satz\n" * 3)
    capsys.readouterr()
    assert main(["embed", *arguments, gone, f"embed.input={text}", "--dry-run"]) == 0
    assert "inputs of embed: source | files | size | units\n    corpus | 1 | 27B | 1\n" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("command", ["run", "train"])
def test_only_the_first_process_of_torchrun_prints_the_plan(
    command: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert main([command, *arguments, "--dry-run"]) == 0
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("RANK", "0")
    assert main([command, *arguments, "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith(f"plan of {command}")
