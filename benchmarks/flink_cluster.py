r"""Prepare a corpus on a Flink cluster, kill a TaskManager meanwhile, and compare the result.

The result must equal that of a run in one process. A script starts and stops the cluster:
`SCRIPT start TASKMANAGERS FOLDER` prints the address of Flink's REST interface and writes the process
id of each TaskManager to `FOLDER/taskmanager-N.pid`; `SCRIPT stop FOLDER` stops it. Flink restarts a
job only if a restart strategy is configured. This script starts the worker pool itself, with the
folder of this Python first on the PATH.

    python benchmarks/flink_cluster.py --cluster-script SCRIPT prepare.input='/data/*.txt' \
        prepare.tokenizer=/run/tokenizer run.output=/tmp/flink-bench
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("--cluster-script", required=True)
    parser.add_argument("--task-managers", type=int, default=3)
    parser.add_argument("--pool-port", type=int, default=50000)
    parser.add_argument(
        "--kill-after", type=int, default=3, help="units finished before the kill; 0 means no kill"
    )
    parser.add_argument("setting", nargs="+", help="settings of biloom, including run.output")
    options = parser.parse_args()
    output = Path(next(s for s in options.setting if s.startswith("run.output=")).partition("=")[2])
    settings = [s for s in options.setting if not s.startswith("run.output=")]
    print(f"in one process: {prepare(settings, output / 'alone', None, 0):.1f} s", flush=True)
    cluster = output / "cluster"
    cluster.mkdir(parents=True, exist_ok=True)
    start = [options.cluster_script, "start", str(options.task_managers), str(cluster)]
    address = subprocess.run(start, check=True, capture_output=True, text=True).stdout.split()[-1]
    pool = [sys.executable, "-P", "-m", "apache_beam.runners.worker.worker_pool_main"]
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONSAFEPATH": "1"}
    with (output / "pool.log").open("wb") as log:
        workers = subprocess.Popen(
            [*pool, f"--service_port={options.pool_port}"], env=environment, stdout=log, stderr=log
        )
    flink = [
        "runner.kind=flink",
        f"runner.options.master={address}",
        "runner.options.environment_type=EXTERNAL",
        f"runner.options.environment_config=localhost:{options.pool_port}",
        # Leave one TaskManager spare; otherwise the restarted job would wait for the killed one.
        f"runner.options.parallelism={max(1, options.task_managers - 1)}",
    ]
    try:
        seconds = prepare([*settings, *flink], output / "flink", cluster, options.kill_after)
        print(f"on {options.task_managers} TaskManagers: {seconds:.1f} s", flush=True)
    finally:
        workers.terminate()
        subprocess.run([options.cluster_script, "stop", str(cluster)], check=True)
    alone, flinks = content(output / "alone"), content(output / "flink")
    print(f"content {flinks}: {'the same' if alone == flinks else f'DIFFERS from {alone}'}")
    sys.exit(alone != flinks)


def prepare(settings: list[str], output: Path, cluster: Path | None, kill_after: int) -> float:
    """Run `biloom prepare`, kill the last TaskManager meanwhile if requested, and return the seconds."""
    began = time.monotonic()
    command = [BIN / "biloom", "prepare", *settings, f"run.output={output}"]
    with subprocess.Popen(command) as process:
        while cluster and kill_after and process.poll() is None:
            done = len(list((output / "prepare" / "_work").glob("*/units/[0-9]*.json")))
            if done >= kill_after:
                victim = max(cluster.glob("taskmanager-*.pid"))
                os.kill(int(victim.read_text()), signal.SIGKILL)
                victim.unlink()
                seconds = time.monotonic() - began
                print(f"killed {victim.stem} after {done} units, {seconds:.1f} s", flush=True)
                break
            time.sleep(0.05)
        if process.wait():
            sys.exit(process.returncode)
    return time.monotonic() - began


def content(output: Path) -> str:
    return str(json.loads((output / "prepare" / "manifest.json").read_text())["content"])


if __name__ == "__main__":
    main()
