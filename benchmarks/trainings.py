"""Speed of `biloom train` with one and two processes, measured in turns.

Several trainings exist at once, and signals let one of them run at a time. The speed of a machine
varies within seconds, so trainings that take turns of seconds meet the same conditions.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

CORPUS = """\
run: {{output: "{folder}"}}
tokenizer: {{kind: word}}
prepare: {{input: "{folder}/text.txt", valid_fraction: 0, deduplicate: false}}
model:
  input: {{kind: embedding, dropout: 0}}
  recurrent: {{hidden: 512, projection: 128, dropout: 0}}
train: {{unroll: 20, steps: 100000, log_steps: {steps}, checkpoint_steps: 100000, device: cpu}}
tracking: {{wandb: "off"}}
"""
LOG_STEPS = 2
ROWS, TOKENS = 64, 64 * 20
TURN = 4.0
"""Seconds of a turn, about ten steps. On a busy machine a turn is longer, so that it has a few."""


class Training:
    """A training that is stopped except in its turns."""

    def __init__(self, folder: str, name: str, devices: int, core: int | None) -> None:
        self._folder = Path(folder, name, "train")
        self._devices = devices
        self.waits: list[float] = []
        self._process = command(
            "train", folder, f"run.output={folder}/{name}", f"train.corpus={folder}/prepare",
            f"prepare.tokenizer={folder}/tokenizer", f"train.devices={devices}",
            f"train.rows={ROWS * devices}", core=core,
        )  # fmt: skip
        while len(self._rows()) < 4:  # compiled, and all memory allocated
            assert self._process.poll() is None, "see above"
            time.sleep(0.1)
        self.signal(signal.SIGSTOP)
        self._began = self._cpu_seconds(), self.count()

    def signal(self, number: int) -> None:
        """Send a signal to all processes of the training."""
        os.killpg(self._process.pid, number)

    def seconds_a_step(self, rows_before: int) -> list[float]:
        """Return the seconds per step of each metrics line since ``rows_before`` lines.

        The first line is left out, because it includes the pause.
        """
        rows = self._rows()[rows_before + 1 :]
        self.waits += [row["data_wait"] for row in rows]
        return [TOKENS * self._devices / row["tokens_per_second"] for row in rows]

    def count(self) -> int:
        """Return the number of metrics lines so far."""
        return len(self._rows())

    def cpu_seconds_a_step(self) -> float:
        """Return the mean CPU seconds per step of all processes together, over the turns so far."""
        seconds, rows = self._began
        return (self._cpu_seconds() - seconds) / (LOG_STEPS * (self.count() - rows))

    def _cpu_seconds(self) -> float:
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # a process has ended
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[2]) == self._process.pid:  # its process group
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def _rows(self) -> list[dict[str, float]]:
        # An unfinished result is in a folder of the stage's work.
        found = list(self._folder.glob("_work/*/result/metrics.jsonl"))
        if not found:
            return []
        text = found[0].read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def command(
    stage: str, folder: str, *overrides: str, core: int | None = None
) -> "subprocess.Popen[bytes]":
    """Start a command with one thread per process, on one core or on all."""
    cores = sorted(os.sched_getaffinity(0))
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", stage, f"{folder}/run.yaml", *overrides],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores if core is None else [cores[core]]),
    )


@contextmanager
def started(folder: str, name: str, devices: int, core: int | None = None) -> Iterator[Training]:
    """Start a training and stop it at once; kill it at the end."""
    training = Training(folder, name, devices, core)
    try:
        yield training
    finally:
        training.signal(signal.SIGKILL)


def turn(*trainings: Training) -> list[list[float]]:
    """Let trainings run at the same time for one turn; return the seconds per step of each."""
    before = [training.count() for training in trainings]
    for training in trainings:
        training.signal(signal.SIGCONT)
    end = time.monotonic() + TURN
    while time.monotonic() < end or any(
        one.count() < rows + 2 for one, rows in zip(trainings, before, strict=True)
    ):
        time.sleep(0.1)
    for training in trainings:
        training.signal(signal.SIGSTOP)
    return [one.seconds_a_step(rows) for one, rows in zip(trainings, before, strict=True)]


def processes(folder: str, lines: list[str], turns: int) -> dict[str, float]:
    """Compare two processes of one training with one process, and with two independent trainings."""
    Path(folder, "text.txt").write_text("".join(lines))
    Path(folder, "run.yaml").write_text(CORPUS.format(folder=folder, steps=LOG_STEPS))
    for stage in ("tokenizer", "prepare"):
        assert command(stage, folder).wait() == 0, "see above"
    ratios: list[tuple[float, float, float]] = []
    with ExitStack() as stack:
        one = stack.enter_context(started(folder, "one", 1))
        two = stack.enter_context(started(folder, "two", 2))
        apart = [stack.enter_context(started(folder, f"apart-{c}", 1, core=c)) for c in (0, 1)]
        for _ in range(turns):
            alone = statistics.mean(turn(one)[0])
            together = statistics.mean(turn(two)[0])
            steps = list(zip(*turn(*apart), strict=False))
            slower = statistics.mean(max(pair) for pair in steps)
            both = statistics.mean(statistics.mean(pair) for pair in steps)
            ratios.append((alone / together, alone / slower, alone / both))
            print(", ".join(f"{ratio:.3f}" for ratio in ratios[-1]), file=sys.stderr)
        waits = one.waits + two.waits
        cpu = 2 * one.cpu_seconds_a_step() / two.cpu_seconds_a_step()
    names = ("two_process_efficiency", "two_process_limit", "two_trainings_efficiency")
    medians = [statistics.median(column) for column in zip(*ratios, strict=True)]
    return {
        "data_wait_share": statistics.mean(waits),
        **dict(zip(names, medians, strict=True)),
        "two_process_cpu_efficiency": cpu,
        "two_process_over_limit": statistics.median(a / b for a, b, _ in ratios),
    }
