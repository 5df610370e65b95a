"""The process that talks to Weights & Biases; run as a script, without biloom on the path.

wandb waits for its server without a limit, starts threads and processes, and ends the process that
uses it in several ways. In a process of its own it can do no harm to a training.

Reads requests from standard input and writes answers to standard output, one JSON object per line. If
standard input ends without the request "finish", because the training was killed, the run is marked
as failed.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

LAST_SECONDS = 60.0
"""How long the run may take to end after the training has ended without a request."""

Request = dict[str, Any]
Answer = Callable[..., None]


def main() -> None:
    """Serve requests until "finish", or until the training has ended."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Schedulers signal every process; this one ends after the training.
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)

    lock = threading.Lock()

    def answer(**words: Any) -> None:
        with lock:
            print(json.dumps(words), file=answers, flush=True)

    try:
        serve(_requests(), answer)
    # wandb also raises BaseException classes, and SystemExit.
    except BaseException as error:
        answer(failed=_reason(error))
    os._exit(0)  # wandb's threads and exit handlers may wait for its server


def _requests() -> Iterator[Request]:
    for line in sys.stdin.buffer:
        yield json.loads(line)
    threading.Thread(target=_end_later, daemon=True).start()


def _end_later() -> None:
    time.sleep(LAST_SECONDS)
    os._exit(1)


def serve(requests: Iterator[Request], answer: Answer) -> None:
    """Start a run by the first request, and do what the others ask for."""
    run = _start(next(requests), answer)
    for request in requests:
        match request["do"]:
            case "log" if request["step"] >= run.starting_step:
                # wandb rejects steps that it has already seen. These rows would be the same,
                # because a resumed training repeats its steps exactly.
                run.log(request["row"], step=request["step"])
            case "artifact":
                try:
                    _log_artifact(run, request)
                except Exception as error:
                    answer(note=f"the {request['what']} was not logged ({_reason(error)})")
            case "finish":
                run.finish(exit_code=request["exit_code"])
                answer(finished=True)
                return
    run.finish(exit_code=1)


def _start(request: Request, answer: Answer) -> Any:
    import wandb

    sys.argv = request["argv"]
    own = wandb.setup().settings
    options = request["options"]
    # What the config does not set is wandb's to decide, by its environment and settings files.
    options["project"] = options["project"] or own.project or "biloom"
    options["id"] = own.run_id or options["id"]
    options["resume"] = own.resume or "allow"
    settings: dict[str, Any] = {"console": "off", "silent": True, "mode": request["mode"]}
    if "x_stats_pid" in wandb.Settings.model_fields:
        settings["x_stats_pid"] = request["process"]
    # Given here and not only later: a nested parameter of a sweep locks its whole section, and replaces
    # only its own settings in the config that it finds.
    options["config"] = request["config"]
    try:
        run = wandb.init(**options, settings=wandb.Settings(**settings))
    except Exception as error:
        if request["mode"] == "offline":
            raise
        wandb.teardown()  # its service still has the id of the run
        offline = wandb.Settings(**{**settings, "mode": "offline"})
        run = wandb.init(**options, settings=offline)
        answer(
            note=f"the server cannot be used ({_reason(error)}); the run is kept offline (`wandb sync` "
            "uploads it later)"
        )
    run.config.update(request["config"], allow_val_change=True)
    answer(id=run.id, folder=os.path.dirname(run.dir))  # noqa: PTH120
    if run.sweep_id and not run.offline:
        # In a thread, because wandb asks its server without a time limit.
        work = threading.Thread(
            target=check_sweep, args=(run, request["metrics"], answer), daemon=True
        )
        work.start()
    return run


def check_sweep(run: Any, names: list[str], answer: Answer) -> None:
    """Tell if the metric of the run's sweep is one that is never logged.

    Args:
        run: the run of wandb.
        names: names of the metrics that are logged.
        answer: gets a note.
    """
    import wandb

    try:
        sweep = wandb.Api().sweep(f"{run.entity}/{run.project}/{run.sweep_id}")
        metric = sweep.config.get("metric", {}).get("name")
    except Exception as error:
        answer(note=f"the metric of the sweep was not checked ({_reason(error)})")
        return
    # wandb logs figures of its own, such as _runtime.
    if metric and metric not in names and not metric.startswith("_"):
        answer(
            note=f"the metric of the sweep is {metric}, which is never logged, so the sweep cannot "
            f"compare its runs; name one of these in its file: {', '.join(names)}"
        )


def _log_artifact(run: Any, request: Request) -> None:
    import wandb

    # A model has the name of its run.
    name = request.get("name", f"model-{run.id}")
    artifact = wandb.Artifact(name, request["type"], metadata=request["metadata"])
    if "content" in request:
        with artifact.new_file(request["file"], "w") as file:
            file.write(request["content"])
    elif "reference" in request:
        artifact.add_reference(request["reference"], name=request["file"], checksum=False)
    else:
        artifact.add_file(request["path"], name=request["file"], policy="immutable")
    # Offline, wandb can log the artifacts that a run uses only as those that it makes.
    is_input = request["is_input"] and not run.offline
    (run.use_artifact if is_input else run.log_artifact)(artifact)


def _reason(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


if __name__ == "__main__":
    main()
