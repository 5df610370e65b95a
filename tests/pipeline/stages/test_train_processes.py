"""Training in two processes: same tokens, same bits after a kill, no process left behind."""

import json
import os
import random
import re
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.stopping import exit_code
from preprocess.errors import UserError
from preprocess.files.manifest import read_manifest

Tiny, Command = Any, Any  # of conftest.py

SPEED = ("tokens_per_second", "mfu", "data_wait")
# Long enough that a signal after a checkpoint arrives before the last step.
TWO = ("train.rows=4", "train.devices=2", "train.steps=120", "train.checkpoint_steps=5")
DIVIDED = ("train.accumulate_steps=2", "train.row_passes=2")
STILL = ("model.input.dropout=0", "model.recurrent.dropout=0", "train.steps=60")


def metrics(output: Path) -> list[dict[str, Any]]:
    lines = (output / "train" / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in SPEED} for line in lines]


def checkpoint(output: Path) -> bytes:
    return (output / "train" / "checkpoint.ckpt").read_bytes()


def losses(output: Path) -> np.ndarray[Any, Any]:
    """Return the losses of every step, (steps, 2)."""
    rows = [row for row in metrics(output) if "loss_forward" in row]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return np.array([[row["loss_forward"], row["loss_backward"]] for row in rows])


def train(tiny: Tiny, biloom: Command, output: Path, *overrides: str) -> str:
    done = biloom.run("train", *tiny.arguments(output, *TWO, *overrides))
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "Lightning and torch tell nothing of themselves"
    printed: str = done.stdout
    return printed


def stopped(
    tiny: Tiny,
    biloom: Command,
    output: Path,
    number: int,
    step: int,
    *overrides: str,
    victim: int = 0,
) -> tuple[int, str]:
    """Start a training and send a signal to its first or second process after a step's checkpoint."""
    with biloom.start("train", *tiny.arguments(output, *TWO, *overrides)) as process:
        deadline = time.monotonic() + 120
        others: list[int] = []
        begun = newest(output)
        # An earlier stop may have saved a later step than was waited for: a signal has to find this
        # training at its steps, not at its imports.
        while (reached := newest(output)) < max(step, begun + 1):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "no checkpoint appears"
            if reached == begun and not others:
                # Before there is any hurry: the signal has to come before the last step.
                others = further(process)
            time.sleep(0.002)
        os.kill([process.pid, *others][victim], number)
        _, told = process.communicate(timeout=120)
    while any(is_alive(other) for other in others):
        assert time.monotonic() < deadline, "a process is left behind"
        time.sleep(0.05)
    return process.returncode, told


def newest(output: Path) -> int:
    names = [path.stem for path in output.glob("train/_work/*/step-*.ckpt")]
    return max((int(name.removeprefix("step-")) for name in names), default=0)


def further(process: Any) -> list[int]:
    """Return the other processes of a training on this machine, without data workers."""
    found = []
    for child in process.children():
        with suppress(OSError):  # it may end meanwhile
            if b"pipeline.stages.further_rank" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def is_alive(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


@pytest.fixture(scope="module")
def undisturbed(tiny: Tiny, biloom: Command) -> Path:
    output: Path = tiny.root / "two-processes"
    printed = train(tiny, biloom, output)
    assert "2 x 1 CPU threads" in printed
    assert printed.count("done in") == 1, "the second process tells nothing"
    return output


def test_two_processes_train_like_one(tiny: Tiny, biloom: Command, tmp_path: Path) -> None:
    train(tiny, biloom, tmp_path / "two", *STILL)
    tiny.run("train", tmp_path / "one", *TWO, *STILL, "train.devices=1")

    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-4)
    two, one = (metrics(tmp_path / name)[-1] for name in ("two", "one"))
    assert two["valid_average_perplexity"] == pytest.approx(
        one["valid_average_perplexity"], rel=1e-4
    )
    details = read_manifest(str(tmp_path / "two" / "train"), "train").details
    assert details["tokens"] == 60 * 4 * 5


def test_two_processes_train_in_float16_and_reduce_in_bf16(
    tiny: Tiny, biloom: Command, tmp_path: Path
) -> None:
    options = ("train.precision=float16", "train.reduce_gradients=bf16")
    printed = train(tiny, biloom, tmp_path / "two", *STILL, *options)
    tiny.run("train", tmp_path / "one", *TWO, *STILL, "train.devices=1")

    assert "parameters on 2 x 1 CPU threads, float16; " in printed
    rough, exact = losses(tmp_path / "two"), losses(tmp_path / "one")
    np.testing.assert_allclose(rough, exact, rtol=0.02)
    assert np.abs(rough - exact).max() > 1e-4
    row = [row for row in metrics(tmp_path / "two") if "loss_forward" in row][-1]
    assert row["gradient_scale"] == 65536
    details = read_manifest(str(tmp_path / "two" / "train"), "train").details
    assert (details["precision"], details["skipped_steps"]) == ("float16", 0)


@pytest.mark.slow
def test_held_out_figures_have_the_same_bits_in_any_number_of_processes(
    tiny: Tiny, biloom: Command, tmp_path: Path
) -> None:
    """The split is small, so that all processes but the first have windows of padding."""
    # A model that does not learn has the same weights with any number of processes.
    still = ("train.learning_rate=1e-30", "train.steps=2")
    found = {}
    for processes in (1, 2, 4):
        output = tmp_path / str(processes)
        train(tiny, biloom, output, *still, f"train.devices={processes}")
        [found[processes]] = [row for row in metrics(output) if "valid_loss" in row]
    assert found[1] == found[2] == found[4]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "number", "stops"),
    [
        ((), signal.SIGKILL, 2),
        ((), signal.SIGTERM, 1),
        ((), signal.SIGINT, 1),
        ((*DIVIDED, "train.data_workers=1"), signal.SIGKILL, 1),
        ((*DIVIDED, "train.data_workers=1"), signal.SIGTERM, 1),
    ],
)
def test_two_processes_that_were_stopped_resume_to_the_same_bits(
    tiny: Tiny,
    biloom: Command,
    undisturbed: Path,
    tmp_path: Path,
    settings: tuple[str],
    number: int,
    stops: int,
) -> None:
    reference = undisturbed
    if settings:
        reference = tiny.root / "two-processes-divided"  # trained once
        train(tiny, biloom, reference, *settings)
    for step in sorted(random.Random().sample(range(5, 30), stops)):
        code, told = stopped(tiny, biloom, tmp_path, number, step, *settings)
        assert code == (-signal.SIGKILL if number == signal.SIGKILL else exit_code(number)), told
        assert "Traceback" not in told

    printed = train(tiny, biloom, tmp_path, *settings)

    assert "resuming from step" in printed
    assert metrics(tmp_path) == metrics(reference)
    assert checkpoint(tmp_path) == checkpoint(reference)


def assert_resumes_after_a_kill(
    tiny: Tiny, biloom: Command, folder: Path, step: int, *chosen: str
) -> None:
    """Kill a training after a step, resume it, and compare it with an uninterrupted one."""
    train(tiny, biloom, folder / "whole", *chosen)
    code, told = stopped(tiny, biloom, folder / "parts", signal.SIGKILL, step, *chosen)
    assert code == -signal.SIGKILL, told
    printed = train(tiny, biloom, folder / "parts", *chosen)

    assert "resuming from step" in printed
    assert metrics(folder / "parts") == metrics(folder / "whole")
    assert checkpoint(folder / "parts") == checkpoint(folder / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "settings"), [(3, ()), (3, DIVIDED), (4, DIVIDED)])
def test_more_processes_that_were_killed_resume_to_the_same_bits(
    tiny: Tiny, biloom: Command, tmp_path: Path, devices: int, settings: tuple[str, ...]
) -> None:
    chosen = (f"train.devices={devices}", "train.rows=24", "train.steps=60", *settings)
    assert_resumes_after_a_kill(tiny, biloom, tmp_path, 15, *chosen)


KINDS: dict[str, tuple[str, ...]] = {
    "averaging": (
        *("train.optimizer={kind: sgd, average_after: 1}", "train.learning_rate=3"),
        *("model.recurrent.weight_drop=0.5", "train.evaluate_steps=3"),
    ),
    "characters": (
        *("model.input.kind=char_cnn", "model.input.filters=[[1,4],[3,6]]"),
        *("model.recurrent.kind=gru", "model.recurrent.hidden=4", "train.optimizer.kind=adamw"),
    ),
    "sampled": (
        *("model.head.kind=sampled_softmax", "model.head.samples=16"),
        *("train.optimizer.kind=adagrad", "train.loss_scale=5"),
    ),
    "tied": ("model.input.kind=adaptive", "model.tied=true", "model.head.cutoffs=[20]"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_training_in_two_processes_resumes_to_the_same_bits(
    tiny: Tiny, biloom: Command, tmp_path: Path, kind: str
) -> None:
    chosen = (*KINDS[kind], "train.steps=60")
    assert_resumes_after_a_kill(tiny, biloom, tmp_path, 20, *chosen)


@pytest.mark.slow
def test_a_training_is_resumed_in_one_process_and_again_in_two(
    tiny: Tiny, biloom: Command, tmp_path: Path
) -> None:
    train(tiny, biloom, tmp_path / "two", *STILL)
    moved = tmp_path / "moved"
    code, told = stopped(tiny, biloom, moved, signal.SIGTERM, 15, *STILL)
    assert code == 75, told
    code, told = stopped(tiny, biloom, moved, signal.SIGTERM, 35, *STILL, "train.devices=1")
    assert code == 75, told
    train(tiny, biloom, moved, *STILL)

    np.testing.assert_allclose(losses(moved), losses(tmp_path / "two"), rtol=1e-4)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_training_which_can_be_resumed(
    tiny: Tiny, biloom: Command, undisturbed: Path, tmp_path: Path
) -> None:
    code, told = stopped(tiny, biloom, tmp_path, signal.SIGKILL, 10, victim=1)
    assert code == 3
    assert re.fullmatch(
        r"biloom: the process of rank 1 \(number \d+\) of this training was killed by SIGKILL, perhaps "
        r"because memory ran out; the same command resumes from the last checkpoint\n",
        told,
    )

    train(tiny, biloom, tmp_path)

    assert metrics(tmp_path) == metrics(undisturbed)


def test_rows_that_cannot_be_split_evenly_are_refused_before_anything_starts(
    tiny: Tiny, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"train\.rows = 3 cannot be divided evenly over 2 device"):
        tiny.run("train", tmp_path, "train.devices=2")


@pytest.mark.slow
def test_two_machines_train_like_two_processes_of_one(
    tiny: Tiny, biloom: Command, undisturbed: Path, tmp_path: Path
) -> None:
    """Each machine runs the same command; here both are this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = tiny.arguments(tmp_path, *TWO, "train.devices=1", "train.num_nodes=2")
    machines = [
        biloom.start(
            "train",
            *arguments,
            env={
                **os.environ,
                **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": str(number)},
            },
        )
        for number in range(2)
    ]
    told = [machine.communicate(timeout=240) for machine in machines]

    assert [machine.returncode for machine in machines] == [0, 0], told
    assert told[1][0] == "", "the second machine tells nothing"
    assert metrics(tmp_path) == metrics(undisturbed)


STARTERS: dict[str, Callable[[int], dict[str, str]]] = {
    "torchrun": lambda rank: {
        **{"TORCHELASTIC_RUN_ID": "x", "RANK": f"{rank}", "LOCAL_RANK": f"{rank}"},
        **{"WORLD_SIZE": "2", "GROUP_RANK": "0"},
    },
    "srun": lambda rank: {
        **{"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": f"{rank}"},
        **{"SLURM_LOCALID": f"{rank}", "SLURM_NODEID": "0", "SLURM_JOB_ID": "7"},
        **{"SLURM_NTASKS": "4", "SLURM_NNODES": "2"},  # of the job
    },
    "PyTorchJob": lambda rank: {"RANK": f"{rank}", "WORLD_SIZE": "2"},
}


@pytest.mark.slow
@pytest.mark.parametrize("starter", STARTERS)
def test_processes_of_another_starter_are_stopped_and_resume(
    tiny: Tiny, biloom: Command, undisturbed: Path, tmp_path: Path, starter: str
) -> None:
    """What schedulers do: SIGTERM to every process, and the same command again."""
    shape = ("train.devices=1", "train.num_nodes=2") if starter == "PyTorchJob" else ()
    arguments = tiny.arguments(tmp_path, *TWO, *shape)

    def start() -> list[Any]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        every = [{**os.environ, **meet, **STARTERS[starter](rank)} for rank in range(2)]
        return [biloom.start("train", *arguments, env=own) for own in every]

    processes, deadline = start(), time.monotonic() + 240
    while newest(tmp_path) < 10:
        assert [one.poll() for one in processes] == [None, None]
        assert time.monotonic() < deadline, "no checkpoint appears"
        time.sleep(0.002)
    for one in processes:
        one.send_signal(signal.SIGTERM)
    told = [one.communicate(timeout=120) for one in processes]
    assert [one.returncode for one in processes] == [75, 75], told

    processes = start()
    told = [one.communicate(timeout=240) for one in processes]
    assert [one.returncode for one in processes] == [0, 0], told
    assert "resuming from step" in told[0][0]
    assert told[1] == ("", ""), "the second process tells nothing"
    assert metrics(tmp_path) == metrics(undisturbed)


@pytest.mark.slow
def test_processes_that_are_killed_at_random_leave_nothing_and_resume_to_the_same_bytes(
    tiny: Tiny, biloom: Command, undisturbed: Path, tmp_path: Path
) -> None:
    draw = random.Random()
    for _ in range(6):
        with biloom.start("train", *tiny.arguments(tmp_path, *TWO)) as process:
            time.sleep(draw.uniform(1, 15))
            if process.poll() is not None:  # it has finished
                break
            every = [process.pid, *process.descendants()]
            os.kill(victim := draw.choice(every), signal.SIGKILL)
            _, told = process.communicate(timeout=120)
        expected = {0, -signal.SIGKILL if victim == process.pid else 3}
        assert process.returncode in expected, told
        assert "Traceback" not in told
        assert told.startswith("biloom: the process of rank 1") == (process.returncode == 3)
        deadline = time.monotonic() + 10
        while any(is_alive(one) for one in every):
            assert time.monotonic() < deadline, "a process is left behind"
            time.sleep(0.05)
    train(tiny, biloom, tmp_path)

    assert metrics(tmp_path) == metrics(undisturbed)
    assert checkpoint(tmp_path) == checkpoint(undisturbed)
