"""Requests of `biloom embed` on a store, by phase and unit of work.

    python benchmarks/embed_requests.py [--units 200]

The embed stage runs as it is, on a store that counts requests (`counting_store.py`). A unit has 1,024 bytes of
text in place of 64 KiB to 1 MiB, and the model is tiny, because requests depend on neither. The store answers
each read after ``--latency`` seconds, so that the time in which the driver collects the records shows whether
it waits for one request after the other. The last line is one JSON object:

- requests_a_unit: requests of the stage per unit, without those for progress while the job runs, which grow with time;
- collect_a_unit: requests of the driver per unit after the job;
- collect_seconds: time from the end of the job to the end of the command.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from counting_store import COUNTS, CountingStore, in_phase, register
from scale import quietly

UNIT_BYTES = 1024
WORDS = 16
"""Words of a text; with its number it has 64 bytes."""
MODEL = ("model.recurrent.hidden=8", "model.recurrent.projection=4", "model.head.kind=softmax")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--units", type=int, default=200)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds of each read")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="biloom-embed-requests-") as folder:
        _measure(Path(folder), options.units, options.latency)


def _measure(root: Path, units: int, latency: float) -> None:
    from pipeline.beam import transforms, worker_call
    from pipeline.cli import main as biloom
    from pipeline.stages import embed

    register(root)
    (root / "raw").mkdir()
    lines = [f"{n:09d} {'abc ' * (WORDS - 3)}".ljust(63, "x") + "\n" for n in range(units * 16)]
    (root / "raw" / "text.txt").write_text("".join(lines))
    settings = [
        *("prepare.input=count://raw/text.txt", "run.output=count://run", "tokenizer.kind=char"),
        *("embed.input=count://raw/text.txt", "embed.layers=top", "embed.pooling=mean"),
        *("train.rows=2", "train.unroll=5", "train.steps=2", "train.warmup_steps=1"),
        *("train.device=cpu", "train.compile=off", "train.data_workers=0", "train.recipe=null"),
        *("train.learning_rate=0.01", "runner.options.mode=in_memory", *MODEL),
    ]
    for stage in ("tokenizer", "prepare", "train", "export"):
        quietly(biloom, [stage, *settings])
    embed.SMALLEST_UNIT = embed.LARGEST_UNIT = UNIT_BYTES

    call = worker_call.WorkerCall.__call__

    def counted(self: Any, item: Any) -> Any:
        work, given = worker_call._unpacked(self._packed)
        inner = given[0] if work in (transforms.on_unit, transforms.on_keys) else work
        with in_phase(inner.__name__):
            return call(self, item)

    worker_call.WorkerCall.__call__ = counted  # type: ignore[method-assign]
    run_job, ended, read = embed.run_job, [0.0], CountingStore.cat_file

    def job(*given: Any) -> None:
        COUNTS.default = "job"
        run_job(*given)
        COUNTS.default, ended[0] = "collect", time.monotonic()

    def slow(self: CountingStore, path: str, *given: Any, **named: Any) -> bytes:
        if COUNTS.default == "collect":
            time.sleep(latency)
        return read(self, path, *given, **named)

    embed.run_job = job
    CountingStore.cat_file = slow  # type: ignore[method-assign]
    COUNTS.requests.clear()
    COUNTS.default = "plan"
    quietly(biloom, ["embed", *settings])
    seconds = time.monotonic() - ended[0]
    phases: dict[str, dict[str, int]] = {}
    for (phase, kind), number in sorted(COUNTS.requests.items()):
        if phase not in ("watch", "job"):
            phases.setdefault(phase, {})[kind] = number
    for phase, kinds in phases.items():
        shown = ", ".join(f"{kind} {number:,}" for kind, number in kinds.items())
        print(f"{phase:<16} {sum(kinds.values()) / units:6.2f} a unit   {shown}")
    total = sum(map(sum, (kinds.values() for kinds in phases.values())))
    figures = {
        "units": units,
        "requests_a_unit": round(total / units, 2),
        "collect_a_unit": round(sum(phases["collect"].values()) / units, 2),
        "collect_seconds": round(seconds, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
