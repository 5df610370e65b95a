"""The train stage: a stopped training resumes as if it had not been stopped."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pytest
import torch

from lightning_modules.models.checkpoint_file import read_checkpoint
from lightning_modules.training.checkpoints import newest_checkpoint
from lightning_modules.training.lit_bilm import LitBiLM
from pipeline.lifecycle.registry import STAGES
from pipeline.lifecycle.state import has_begun_elsewhere
from pipeline.stopping import STOP_SIGNALS, exit_code
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.errors import DiskFull
from preprocess.files.manifest import check_files, read_manifest

Tiny = Any  # of conftest.py
STORAGE = "preprocess.files.storage"
SPEED = ("tokens_per_second", "mfu", "data_wait")
LONG = ("train.steps=150", "train.checkpoint_steps=15", "train.evaluate_steps=40")

SERVER = """\
import importlib, json, os, signal, sys
sys.path.insert(0, sys.argv[1])
import pipeline.stages.train
from pipeline.cli import main

def die_at(module, name, word, call):
    owner = importlib.import_module(module)
    *parents, name = name.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    real, calls = getattr(owner, name), []
    def dying(*arguments):
        calls.extend([1] if word in str(arguments) else [])
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)
    setattr(owner, name, dying)

for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if not child:
        for number in (1, 2):
            os.dup2(os.open(asked["printed"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        if asked["dies"]:
            die_at(*asked["dies"])
        os._exit(main(asked["arguments"]))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Commands:
    """Processes of the biloom command, forked from one that has finished the slow imports."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._in, self._out = cast(IO[str], process.stdin), cast(IO[str], process.stdout)

    def start(self, arguments: list[str], printed: Path, dies: tuple[Any, ...] = ()) -> int:
        """Start a command; its process id.

        It kills itself at a call of a function: ``dies`` is its module, its name, a word of its
        arguments, and the number of the call.
        """
        asked = {"arguments": arguments, "printed": str(printed), "dies": dies}
        print(json.dumps(asked), file=self._in, flush=True)
        return int(self._out.readline())

    def wait(self) -> int:
        """The exit code of the command started last; below 0 it is the signal that ended it."""
        return int(self._out.readline())


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Commands(process)
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="module")
def undisturbed(tiny: Tiny) -> Path:
    output = cast(Path, tiny.root / "undisturbed")
    tiny.run("train", output, *LONG)
    return output / "train"


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without the speed."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in SPEED} for line in lines]


def assert_same_training(folder: Path, reference: Path) -> None:
    assert metrics(folder) == metrics(reference)
    ours, theirs = (read_checkpoint(str(one / "checkpoint.ckpt")) for one in (folder, reference))
    assert_equal_bits(ours, theirs)
    assert (folder / "checkpoint.ckpt").read_bytes() == (reference / "checkpoint.ckpt").read_bytes()
    assert read_manifest(str(folder)).content == read_manifest(str(reference)).content


def assert_equal_bits(ours: Any, theirs: Any) -> None:
    if isinstance(ours, torch.Tensor):
        assert ours.dtype == theirs.dtype
        assert ours.numpy().tobytes() == theirs.numpy().tobytes()
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_equal_bits(ours[key], theirs[key])
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_equal_bits(one, other)
    else:
        assert ours == theirs


def wait_for_checkpoint(folder: Path, step: int) -> None:
    deadline = time.monotonic() + 60
    while not list(folder.glob("train/_work/*/step-*.ckpt")) or newest_step(folder) < step:
        assert time.monotonic() < deadline, "no checkpoint appears"
        time.sleep(0.001)


def newest_step(folder: Path) -> int:
    return max(int(path.stem.removeprefix("step-")) for path in folder.glob("train/_work/*/step-*"))


def stop(
    commands: Commands, tiny: Tiny, output: Path, number: int, step: int, delay: float = 0.0
) -> tuple[int, str]:
    """Start a training and send a signal after a checkpoint; return its exit code and output."""
    printed = output.with_suffix(".log")
    process = commands.start(["train", *tiny.arguments(output, *LONG)], printed)
    if step:
        wait_for_checkpoint(output, step)
    else:
        while not (output / "train/_work/lock.json").exists():
            time.sleep(0.001)
    time.sleep(delay)
    os.kill(process, number)
    return commands.wait(), printed.read_text()


def test_training_that_was_killed_twice_resumes_to_the_same_bits(
    commands: Commands, tiny: Tiny, undisturbed: Path, tmp_path: Path
) -> None:
    draw = random.Random()
    for step in sorted(draw.sample(range(1, 80), 2)):
        code, _ = stop(commands, tiny, tmp_path, signal.SIGKILL, step, draw.uniform(0, 0.05))
        assert code == -signal.SIGKILL, f"at step {step}"
        assert not (tmp_path / "train" / "manifest.json").exists()

    _, printed = tiny.run("train", tmp_path, *LONG)

    assert "resuming from step" in printed
    assert_same_training(tmp_path / "train", undisturbed)
    assert not (tmp_path / "train" / "_work").exists()


WRITER = "lightning_modules.models.checkpoint_writer"
PHASES: dict[str, tuple[Any, ...]] = {
    "the snapshot is taken": (WRITER, "Snapshot.wait", "", 2),
    "half of the file is written": (WRITER, "_Archive.close", "", 1),
    "the file is complete under its temporary name": (STORAGE, "sync_data", "step-", 2),
    "the file is renamed": (STORAGE, "sync_name", "step-", 1),
    "the file is complete, and the older ones are not removed": (
        *("lightning_modules.training.checkpoints", "Checkpoints._remove_older", "", 2),
    ),
}


@pytest.mark.slow
def test_training_that_was_killed_in_every_phase_of_a_checkpoint_resumes_to_the_same_bits(
    commands: Commands, tiny: Tiny, undisturbed: Path, tmp_path: Path
) -> None:
    arguments = ["train", *tiny.arguments(tmp_path, *LONG)]
    for phase, dies in PHASES.items():
        commands.start(arguments, tmp_path.with_suffix(".log"), dies)
        assert commands.wait() == -signal.SIGKILL, phase
    assert 30 <= newest_step(tmp_path) < 150

    tiny.run("train", tmp_path, *LONG)

    assert_same_training(tmp_path / "train", undisturbed)
    assert not (tmp_path / "train" / "_work").exists()


def test_a_full_and_a_slow_disk_do_not_change_a_training(
    tiny: Tiny, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint is due at every step, and each takes many."""
    often = (*LONG, "train.checkpoint_steps=null", "train.checkpoint_minutes=1e-6")
    real, written = storage.sync_data, []

    def slow(file: IO[bytes]) -> None:
        if "step-" in file.name:
            written.append(file.name)
            if len(written) == 3:
                raise OSError(28, "No space left on device")
            time.sleep(0.1)
        real(file)

    monkeypatch.setattr(storage, "sync_data", slow)
    monkeypatch.setattr("lightning_modules.training.checkpoints.PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr("lightning_modules.training.checkpoints.SLOW_SECONDS", 0.01)
    with pytest.raises(DiskFull, match="No space left on device"):
        tiny.run("train", tmp_path, *often)
    _, printed = tiny.run("train", tmp_path, *often)

    assert printed.count("writing this checkpoint of 0.0 MB has taken") == 1
    assert "Raise train.checkpoint_minutes, or choose" in printed
    assert len(written) < 75, "training does not wait"
    assert_same_training(tmp_path / "train", undisturbed)


def test_training_that_was_killed_before_its_first_checkpoint_starts_again(
    commands: Commands, tiny: Tiny, undisturbed: Path, tmp_path: Path
) -> None:
    code, _ = stop(commands, tiny, tmp_path, signal.SIGKILL, 0)
    assert code == -signal.SIGKILL
    assert not list(tmp_path.glob("train/_work/*/*.ckpt"))

    tiny.run("train", tmp_path, *LONG)

    assert_same_training(tmp_path / "train", undisturbed)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_stops_training_after_its_step_with_a_message(
    commands: Commands, tiny: Tiny, undisturbed: Path, tmp_path: Path, number: int
) -> None:
    code, printed = stop(commands, tiny, tmp_path, number, 20)

    assert code == exit_code(number)
    assert printed.endswith("\nbiloom: stopped; the same command continues from what is saved\n")
    assert "Traceback" not in printed
    step = newest_step(tmp_path)
    _, printed = tiny.run("train", tmp_path, *LONG)
    assert f"resuming from step {step}" in printed
    assert_same_training(tmp_path / "train", undisturbed)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_lets_the_running_step_finish_and_saves_it(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = LitBiLM.training_step

    def step_with_signal(module: Any, batch: Any, index: int) -> Any:
        if batch.step == 20:
            signal.raise_signal(number)
        return real(module, batch, index)

    monkeypatch.setattr(LitBiLM, "training_step", step_with_signal)
    handlers = [signal.getsignal(one) for one in STOP_SIGNALS]
    with pytest.raises(KeyboardInterrupt):
        tiny.run("train", tmp_path, *LONG)

    assert newest_step(tmp_path) == 21
    (result,) = (tmp_path / "train" / "_work").glob("*/result")
    assert metrics(result)[-1]["step"] == 21
    assert [signal.getsignal(one) for one in STOP_SIGNALS] == handlers


def test_a_second_interrupt_does_not_wait_for_the_step(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LitBiLM.training_step

    def interrupted_twice(module: Any, batch: Any, index: int) -> Any:
        if batch.step == 20:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return real(module, batch, index)

    monkeypatch.setattr(LitBiLM, "training_step", interrupted_twice)
    with pytest.raises(KeyboardInterrupt):
        tiny.run("train", tmp_path, *LONG)

    assert not list(tmp_path.glob("train/_work/*/step-000000021.ckpt"))


def test_training_that_lacks_only_its_manifest_gets_it(
    tiny: Tiny, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.lifecycle.stage.hash_file", killed)
        with pytest.raises(KeyboardInterrupt):
            tiny.run("train", tmp_path, *LONG)

    _, printed = tiny.run("train", tmp_path, *LONG)

    assert "resuming from step 150" in printed
    assert_same_training(tmp_path / "train", undisturbed)


def interrupted(
    tiny: Tiny, output: Path, monkeypatch: pytest.MonkeyPatch, step: int, *overrides: str
) -> Path:
    """Run a training that fails at ``step``, and return its folder of unfinished work."""
    real = LitBiLM.training_step

    def step_or_stop(module: Any, batch: Any, index: int) -> Any:
        if batch.step == step:
            raise OSError("the machine is gone")
        return real(module, batch, index)

    with monkeypatch.context() as patched:
        patched.setattr(LitBiLM, "training_step", step_or_stop)
        # However busy the disk is, no checkpoint is put off.
        patched.setattr("lightning_modules.training.checkpoints.PATIENCE_SECONDS", 60)
        with pytest.raises(OSError, match="gone"):
            tiny.run("train", output, *LONG, *overrides)
    (work,) = (output / "train" / "_work").iterdir()
    return work


def test_damaged_and_temporary_checkpoints_do_not_break_resume(
    tiny: Tiny, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = interrupted(tiny, tmp_path, monkeypatch, 50)
    newest = work / "step-000000045.ckpt"
    newest.write_bytes(newest.read_bytes()[:5000])
    (work / ".biloom-tmp-host-1-step-000000060.ckpt").write_bytes(b"half")
    (work / "step-000000046.ckpt").write_bytes(b"")

    _, printed = tiny.run("train", tmp_path, *LONG)

    assert "resuming from step 30" in printed
    assert_same_training(tmp_path / "train", undisturbed)


def test_only_the_two_newest_checkpoints_are_kept(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = interrupted(tiny, tmp_path, monkeypatch, 50)

    assert sorted(path.name for path in work.glob("*.ckpt")) == [
        "best-000000040.ckpt",
        "step-000000030.ckpt",
        "step-000000045.ckpt",
    ]
    newest = newest_checkpoint(str(work))
    assert newest is not None
    assert newest["step"] == 45


def test_training_with_a_compiled_cell_resumes_to_the_same_bits(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ("train.compile=auto", "train.steps=60")
    _, printed = tiny.run("train", tmp_path / "reference", *LONG, *overrides)
    if "is compiled" not in printed:
        pytest.skip("there is no compiler for the cell")
    interrupted(tiny, tmp_path, monkeypatch, 50, *overrides)

    tiny.run("train", tmp_path, *LONG, *overrides)

    assert_same_training(tmp_path / "train", tmp_path / "reference" / "train")


def test_lightning_prints_nothing(commands: Commands, tiny: Tiny, tmp_path: Path) -> None:
    printed = tmp_path / "printed"
    steps = ("train.steps=200", "train.evaluate_steps=100")
    commands.start(["train", *tiny.arguments(tmp_path, *steps)], printed)
    assert commands.wait() == 0

    expected = [
        rf"train  {tmp_path}/train",
        r"  adaptive softmax: cutoffs 20, 50; predicted to be 0\.\d times as fast as the full softmax; "
        r"model.head.cutoffs=\[\] is faster on this device",
        r"  [\d,]+ parameters on \d+ CPU threads; 200 steps of 3 x 5 tokens, [\d.]+ passes; about \d+ seconds?",
        r"  The LSTM cell is not compiled \(train.compile is off\).",
        r"  wandb: off",
        r"  done in 0:\d\d",
        "",
    ]
    assert re.fullmatch("\n".join(expected), printed.read_text())


def test_a_checkpoint_holds_the_carried_state_in_global_row_order(undisturbed: Path) -> None:
    saved = torch.load(undisturbed / "checkpoint.ckpt", weights_only=True)

    state = saved["carried_state"]
    assert state.shape == (2, 2, 3, 4 + 8), "layers, directions, rows, output and cell"
    assert state.abs().max(dim=3).values.gt(0).all(), "a row at zero"


def test_every_file_of_the_manifest_is_complete_and_there_is_no_other(undisturbed: Path) -> None:
    manifest = read_manifest(str(undisturbed), "train")

    assert check_files(str(undisturbed), manifest) == []
    assert sorted(path.name for path in undisturbed.iterdir()) == [
        "best.ckpt",
        "checkpoint.ckpt",
        "config.yaml",
        "manifest.json",
        "metrics.jsonl",
        "stats.json",
    ]


def test_training_writes_nothing_to_the_current_folder(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    tiny.run("train", tmp_path, "train.steps=20")

    assert not list(here.iterdir())


def test_metrics_hold_each_step_once_and_held_out_text_every_evaluate_steps(
    undisturbed: Path,
) -> None:
    rows = metrics(undisturbed)
    steps = [row["step"] for row in rows if "loss_forward" in row]
    looks = [row["step"] for row in rows if "valid_average_perplexity" in row]

    assert steps == list(range(1, 151))
    assert looks == [40, 80, 120, 150]
    losses = [row["loss_forward"] for row in rows if "loss_forward" in row]
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) - 0.2, "it learns nothing"
    assert rows[0]["learning_rate"] == pytest.approx(0.02 / 6)
    assert rows[-2]["learning_rate"] == pytest.approx(0.002)


def test_another_seed_gives_another_training_and_the_same_seed_the_same(
    tiny: Tiny, tmp_path: Path
) -> None:
    manifests = [
        tiny.run("train", tmp_path / name, "train.steps=10", f"train.seed={seed}")[0]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]

    assert manifests[0].content == manifests[1].content != manifests[2].content


def test_document_marks_are_ranked_by_how_often_both_directions_predict_them(
    tiny: Tiny, tmp_path: Path
) -> None:
    tiny.run("train", tmp_path, "train.steps=1", "train.boundary=bos_eos")
    saved = read_checkpoint(str(tmp_path / "train" / "checkpoint.ckpt"))
    ranks = saved["state_dict"]["network.head.ranks"]

    # 356 documents of some 7 tokens: <s> and </s> are each about a sixteenth of all targets.
    assert ranks[1] < 8
    assert ranks[2] < 8
    assert ranks[0] == len(ranks) - 1, "<unk> is predicted by nobody"


def test_cutoffs_chosen_from_the_corpus_are_printed_and_recorded(
    tiny: Tiny, tmp_path: Path
) -> None:
    manifest, printed = tiny.run("train", tmp_path, "train.steps=1", "model.head.cutoffs=auto")

    assert tuple(manifest.details["cutoffs"]) == ()
    assert (
        "adaptive softmax: cutoffs none; predicted to be 1.0 times as fast as the full softmax"
        in printed
    )


def test_a_full_softmax_has_no_cutoffs(tiny: Tiny, tmp_path: Path) -> None:
    manifest, printed = tiny.run("train", tmp_path, "train.steps=1", "model.head.kind=softmax")

    assert tuple(manifest.details["cutoffs"]) == ()
    assert "adaptive" not in printed


def test_a_corpus_without_held_out_text_is_trained_on_without_evaluation(
    tiny: Tiny, tmp_path: Path
) -> None:
    none = ("prepare.valid_fraction=0", f"train.corpus={tmp_path}/prepare")
    tiny.run("prepare", tmp_path, *none)

    tiny.run("train", tmp_path, *none, "train.steps=20")

    assert all("loss_forward" in row for row in metrics(tmp_path / "train"))


KINDS: dict[str, tuple[str, ...]] = {
    "gru": ("model.recurrent.kind=gru", "model.recurrent.hidden=4"),
    "hgrn2": (
        *("model.recurrent.kind=hgrn2", "model.recurrent.hidden=8"),
        *("model.recurrent.projection=4", "model.recurrent.expansion=4", "train.reset_state=0.5"),
    ),
    "sru": (*("model.recurrent.kind=sru", "model.recurrent.hidden=4", "train.reset_state=0.5"),),
    "forward": ("model.directions=forward",),
    "tied": ("model.head.kind=softmax", "model.tied=true"),
    "adaptive": ("model.input.kind=adaptive", "model.tied=true", "model.head.cutoffs=[20]"),
    "sampled": (
        *("model.head.kind=sampled_softmax", "model.head.samples=16", "train.boundary=bos_eos"),
        *("train.optimizer.kind=adagrad", "train.loss_scale=5"),
    ),
    "char_cnn": (
        *("model.input.kind=char_cnn", "model.input.filters=[[1,4],[3,6]]"),
        *("model.input.max_characters=9", "model.output_vocabulary=60"),
    ),
    "awd": (
        *("model.recurrent.variational=true", "model.recurrent.weight_drop=0.5"),
        *("model.input.type_dropout=0.1", "train.activation_penalty=2", "train.change_penalty=1"),
        *("train.optimizer={kind: sgd, average_after: 1}", "train.learning_rate=3"),
        "train.evaluate_steps=3",
    ),
    "plateau": ("train.schedule={kind: plateau, factor: 0.5}", "train.evaluate_steps=3"),
    "shuffled": ("train.order=shuffled", "train.reset_state=0"),
    "reset": ("train.reset_state=true", "train.accumulate_steps=2", "train.row_passes=3"),
    "bf16": ("train.precision=bf16",),
    "float16": ("train.precision=float16",),
    "data_workers": ("train.data_workers=1", "train.clip_norm=null"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_training_resumes_to_the_same_bits_and_is_evaluated_and_exported(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    chosen = (*KINDS[kind], f"prepare.tokenizer={tiny.root}/tokenizer", "train.steps=40")
    tiny.run("train", tmp_path / "whole", *chosen)
    interrupted(tiny, tmp_path / "parts", monkeypatch, 27, "train.evaluate_steps=20", *chosen)
    tiny.run("train", tmp_path / "parts", *chosen)

    assert_same_training(tmp_path / "parts" / "train", tmp_path / "whole" / "train")
    rows = metrics(tmp_path / "whole" / "train")
    evaluated, _ = tiny.run("evaluate", tmp_path / "whole", *chosen, "evaluate.checkpoint=last")
    looked = [row for row in rows if "valid_forward_perplexity" in row][-1]
    # In training, held-out text has the precision of training and, with carried state, longer rows.
    tolerance = {"bf16": 1e-2, "float16": 2e-3, "shuffled": 0.05}.get(kind, 1e-4)
    assert evaluated.details["forward_perplexity"] == pytest.approx(
        looked["valid_forward_perplexity"], rel=tolerance
    )
    tiny.run("export", tmp_path / "whole", *chosen)
    from lightning_modules.vectors.pretrained import BiLM

    model = BiLM.from_pretrained(tmp_path / "whole" / "export")
    [embedding] = model.embed(["kana loko"])
    assert embedding.vectors.shape == (3, 2, 4 if kind == "forward" else 8)


def test_another_machine_waits_for_the_first_and_leaves_if_all_is_done(
    tiny: Tiny, tmp_path: Path
) -> None:
    config = tiny.config(tmp_path, "train.steps=10", "train.num_nodes=2")
    with pytest.raises(
        UserError,
        match=r"train: the first process \(rank 0\) did not start this stage within 1 seconds",
    ):
        has_begun_elsewhere(STAGES["train"], config, 1)
    tiny.run("train", tmp_path, "train.steps=10")

    assert not has_begun_elsewhere(STAGES["train"], config, 1)
