"""Requests, driver memory and time of `biloom prepare` at 2 TB, counted on a store.

    python benchmarks/scale.py [--units 1000 4000 16000] [--line-bytes 40]

The prepare stage runs as it is, with all its steps, on a store that counts requests
(`counting_store.py`). A unit has 1,024 bytes of text in place of 20 MB. All limits in bytes and tokens
(buckets, pieces of merged keys, shards) are smaller by the same ratio, so that the number of files and of
requests per unit is that of units of 20 MB. Requests do not depend on the documents of a unit, which
``--line-bytes`` shows.

From these counts, each phase is extrapolated to 100,000 units (2 TB, 1,000 million documents) from the
largest number of units. Phases by unit grow linearly. The comparison of keys grows with lists x pieces, and the
collection of drops with lists x runs, whose numbers follow from the layout that prepare would use. Times are on
paper: 20 ms per request, 1,000 workers, 64 requests at once where the driver makes many, and at most 5,500 reads and
3,500 writes a second. The last line is one JSON object:

- requests_2tb, requests_near_2tb: requests of the stage with exact duplicates removed, and near ones too;
- driver_mb_2tb: peak memory of the driver, from its growth between the two largest numbers of units;
- serial_minutes_2tb: longest phase that the driver does alone;
- growth_exponent: growth of the requests between the two largest numbers of units, or from the largest
  to 2 TB if that is more.
"""

import argparse
import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

UNITS_2TB = 100_000
UNIT_BYTES = 20e6
SMALL_UNIT_BYTES = 1024
"""Bytes of a unit here; the smallest that the config allows."""
DOCUMENTS = 10_000
"""Documents of a unit of `UNIT_BYTES`."""
SHARDS_A_UNIT = 1.1
"""Shards of 4 million tokens in a unit of `UNIT_BYTES`."""
LATENCY = 0.02
WORKERS = 1000
GETS, PUTS = 5500, 3500
LOOKED_HOURS = 1
"""Time of the job in which the driver looks at the progress."""
READS = ("GET", "HEAD", "LIST")
DRIVER = ("plan", "job", "collect")


def main() -> None:
    arguments = _arguments()
    if arguments.worker:
        print(json.dumps(_measure(arguments.worker, arguments.near, arguments.line_bytes)))
        return
    with ThreadPoolExecutor(2) as pool:
        runs = {
            near: pool.submit(
                lambda near: [_in_process(n, near, arguments.line_bytes) for n in arguments.units],
                near,
            )
            for near in (False, True)
        }
        figures: dict[str, Any] = {"exponents": []}
        for near, run in runs.items():
            for size in run.result():
                _show(size, near)
            figures |= _extrapolated(run.result(), near, figures)
    other = _in_process(arguments.units[0], False, 2 * arguments.line_bytes)
    print(
        f"half as many documents a unit: {sum(other['requests'].values()):,} requests, {arguments.units[0]:,} units"
    )
    order = ("requests_2tb", "requests_near_2tb", "driver_mb_2tb", "serial_minutes_2tb")
    worst = max(figures["exponents"])
    print(json.dumps({**{key: figures[key] for key in order}, "growth_exponent": worst}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--units", type=int, nargs="+", default=[1000, 4000, 16000])
    parser.add_argument("--line-bytes", type=int, default=40, help="bytes of a document")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--near", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_process(units: int, near: bool, line_bytes: int) -> dict[str, Any]:
    """Measure in a process of its own, for its peak memory."""
    command = [sys.executable, __file__, "--worker", str(units), "--line-bytes", str(line_bytes)]
    done = subprocess.run([*command, *["--near"] * near], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def _measure(units: int, near: bool, line_bytes: int) -> dict[str, Any]:
    from counting_store import COUNTS, in_phase, register

    from pipeline.beam import transforms, worker_call
    from pipeline.cli import main as biloom
    from pipeline.stages import prepare
    from preprocess.corpus import comparison, dedup
    from preprocess.corpus.near import blocks as near_blocks
    from preprocess.work import shuffle

    scale = SMALL_UNIT_BYTES / UNIT_BYTES
    dedup.BUCKET_BYTES = max(1, int(dedup.BUCKET_BYTES * scale))
    dedup.LARGE_BUCKET_BYTES = int(dedup.LARGE_BUCKET_BYTES * scale)
    near_blocks.BLOCK_BYTES = int(near_blocks.BLOCK_BYTES * scale)
    keys = SMALL_UNIT_BYTES / line_bytes / DOCUMENTS
    shuffle.PIECE_BYTES = int(shuffle.PIECE_BYTES * keys)
    shuffle.READ_BYTES = int(shuffle.READ_BYTES * keys)

    call = worker_call.WorkerCall.__call__

    def counted(self: Any, item: Any) -> Any:
        work, given = worker_call._unpacked(self._packed)
        inner = given[0] if work is transforms.on_unit else work
        with in_phase(STEPS[item[0]] if work is comparison.do_item else inner.__name__):
            return call(self, item)

    worker_call.WorkerCall.__call__ = counted  # type: ignore[method-assign]
    run_job = prepare.run_job

    def job(*given: Any) -> None:
        COUNTS.default = "job"
        run_job(*given)
        COUNTS.default = "collect"

    prepare.run_job = job
    with tempfile.TemporaryDirectory(prefix="biloom-scale-", dir=_fast_folder()) as folder:
        register(Path(folder))
        _write_text(Path(folder) / "raw" / "text.txt", units, line_bytes)
        tokens = SMALL_UNIT_BYTES / SHARDS_A_UNIT
        settings = [
            "prepare.input=count://raw/text.txt",
            "run.output=count://run",
            "tokenizer.kind=char",
            f"prepare.unit_bytes={SMALL_UNIT_BYTES}",
            f"prepare.shard_tokens={int(tokens)}",
            "runner.options.mode=in_memory",
            *(["prepare.near_duplicates.similarity=0.8"] if near else []),
        ]
        quietly(biloom, ["tokenizer", *settings])
        COUNTS.requests.clear()
        COUNTS.default = "plan"
        began = time.process_time()
        quietly(biloom, ["prepare", *settings])
        seconds = time.process_time() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        requests = Counter(COUNTS.requests)
        COUNTS.requests.clear()
        COUNTS.default = "again"
        quietly(biloom, ["prepare", *settings])
        again = sum(n for (phase, _), n in COUNTS.requests.items() if phase == "again")
    return {
        "units": units,
        "requests": {
            f"{phase} {kind}": n for (phase, kind), n in requests.items() if phase != "watch"
        },
        "again": again,
        "peak_mb": peak,
        "seconds": seconds,
    }


STEPS = {
    "merge hashes": "merge_keys:hashes",
    "merge bands": "merge_keys:bands",
    "compare hashes": "compare_keys:hashes",
    "compare bands": "compare_keys:bands",
    "collect": "collect_drops:hashes",
    "decide": "decide_block:bands",
}
"""Names of the phases of the steps in `preprocess.corpus.comparison`."""


def _fast_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def quietly(biloom: Any, arguments: list[str]) -> None:
    """Run a command; if it fails, end with what it printed."""
    from contextlib import redirect_stdout
    from io import StringIO

    said = StringIO()
    with redirect_stdout(said):
        code = biloom(arguments)
    if code:
        sys.exit(said.getvalue())


def _write_text(path: Path, units: int, line_bytes: int) -> None:
    """Write distinct lines of words, with one exact and one near-duplicate in ten lines."""
    draw = random.Random(1)
    words = [f"w{n}" for n in range(1000)]
    path.parent.mkdir(parents=True)
    last = ""
    with path.open("w") as file:
        for number in range(units * SMALL_UNIT_BYTES // line_bytes):
            line = " ".join(draw.choices(words, k=line_bytes // 4))[: line_bytes - 1].strip()
            line = f"{line:x<{line_bytes - 1}}"
            if number % 10 == 7:
                line = last
            elif number % 10 == 3:
                line = last[:-1] + "y"
            file.write(f"{line}\n")
            last = line


def _phases(size: dict[str, Any]) -> dict[str, Counter[str]]:
    phases: dict[str, Counter[str]] = {}
    for key, number in size["requests"].items():
        phase, kind = key.split()
        phases.setdefault(phase, Counter())[kind] += number
    return phases


def _show(size: dict[str, Any], near: bool) -> None:
    total = sum(size["requests"].values())
    what = "near-duplicates" if near else "exact duplicates"
    print(
        f"{size['units']:,} units, {what}: {total:,} requests, peak {size['peak_mb']:.0f} MB, "
        f"{size['seconds']:.0f} CPU s; run again when done: {size['again']} requests"
    )
    for phase, kinds in _phases(size).items():
        each = sum(kinds.values()) / size["units"]
        shown = ", ".join(f"{kind} {number:,}" for kind, number in sorted(kinds.items()))
        print(f"  {phase:<20} {each:7.2f} a unit   {shown}")


def _growth(phase: str, units: int, gets: int) -> float:
    """Return how many times more requests a phase makes at `UNITS_2TB` units than the GETs at ``units``."""
    name, _, kind = phase.partition(":")
    if name not in ("compare_keys", "collect_drops", "decide_block"):
        return UNITS_2TB / units
    # Not from the layout at both sizes: of few documents, some lists of a run are empty and not read.
    return _gets(name, kind) / gets


def _gets(name: str, kind: str) -> int:
    """Return the GETs of a phase over all lists at `UNITS_2TB` units, from the layout of prepare."""
    from preprocess.corpus import dedup
    from preprocess.corpus.near.blocks import Blocks
    from preprocess.text.minhash import bands_and_rows
    from preprocess.work import shuffle

    units = UNITS_2TB
    layout = shuffle.Layout(units, dedup.key_buckets(int(units * UNIT_BYTES), kind))  # type: ignore[arg-type]
    if name == "collect_drops":
        return 2 * layout.lists * layout.runs
    if name == "decide_block":
        blocks = Blocks.of(units, int(units * UNIT_BYTES))
        # Two requests a group: pairs and questions of each list, then own groups and answers of others.
        first = 4 * layout.lists * blocks.number
        return first + (blocks.rounds - 1) * blocks.number * (6 + blocks.number)
    keys = dedup.KEYS[kind].itemsize * (bands_and_rows(0.8)[0] if kind == "bands" else 1)  # type: ignore[index]
    unit_bytes = DOCUMENTS * keys
    pieces = layout.runs * math.ceil(layout.run_units * unit_bytes / shuffle.PIECE_BYTES)
    # The offsets of the list's groups in each piece, and the groups.
    return 2 * layout.lists * pieces


def _extrapolated(
    sizes: list[dict[str, Any]], near: bool, figures: dict[str, Any]
) -> dict[str, Any]:
    """Return the figures at `UNITS_2TB` units, and print them by phase."""
    last, before = sizes[-1], sizes[-2]
    # The job phase has the record of each unit's progress, read once. Looks at what is done take a tenth
    # of the time, one request after the other.
    total = round(LOOKED_HOURS * 3600 * 0.1 / LATENCY)
    serial = 0.0
    print(f"at {UNITS_2TB:,} units:")
    for phase, kinds in _phases(last).items():
        factor = _growth(phase, last["units"], kinds["GET"])
        reads = sum(n for kind, n in kinds.items() if kind in READS) * factor
        writes = sum(kinds.values()) * factor - reads
        total += round(reads + writes)
        at_once = 64 if phase in DRIVER else WORKERS
        seconds = max((reads + writes) * LATENCY / at_once, reads / GETS, writes / PUTS)
        if phase in DRIVER:
            serial = max(serial, seconds / 60)
        print(f"  {phase:<20} {reads + writes:12,.0f} requests, {seconds / 60:6.1f} minutes")
    growth = (last["peak_mb"] - before["peak_mb"]) / (last["units"] - before["units"])
    peak = last["peak_mb"] + growth * (UNITS_2TB - last["units"])
    sums = [sum(size["requests"].values()) for size in (before, last)]
    steps = [(before["units"], sums[0]), (last["units"], sums[1]), (UNITS_2TB, total)]
    exponent = max(
        round(math.log(n / m) / math.log(units / fewer), 3)
        for (fewer, m), (units, n) in pairwise(steps)
    )
    exponents = [*figures["exponents"], exponent]
    if near:
        return {"requests_near_2tb": total, "exponents": exponents}
    return {
        "exponents": exponents,
        "requests_2tb": total,
        "driver_mb_2tb": round(peak),
        "serial_minutes_2tb": round(serial, 1),
    }


if __name__ == "__main__":
    main()
