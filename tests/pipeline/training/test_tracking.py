"""wandb is on if there is a key, offline by config, otherwise off; TensorBoard is on by config."""

import importlib.util
import json
import os
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from rich.console import Console as RichConsole

from lightning_modules.models.checkpoint_file import CHECKPOINT
from pipeline.config.schema import TrackingConfig
from pipeline.console import Console
from pipeline.lifecycle.stage import Made, StageFolder
from pipeline.training import tracking, wandb_child, wandb_process
from pipeline.training.tracking import log_checkpoint_artifact, make_loggers
from pipeline.training.wandb_settings import wandb_mode
from preprocess.files.manifest import FileRecord, check_files, read_manifest

Tiny = Any  # of conftest.py
KEY = "0123456789" * 4


def mode(wandb: Any = "auto") -> tuple[str | None, str]:
    return wandb_mode(TrackingConfig(wandb=wandb))


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "wandb" else find(name, *a)
    )


def test_without_a_key_wandb_is_off() -> None:
    assert mode() == (
        None,
        "wandb: off, no key found (`wandb login` sets one); metrics are in metrics.jsonl",
    )


def test_the_config_and_the_environment_switch_wandb_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert mode("off") == (None, "wandb: off")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert mode() == mode("offline") == (None, "wandb: off")


def test_a_key_in_the_environment_turns_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)

    assert mode() == ("online", "wandb: on")


@pytest.mark.parametrize(
    ("machine", "url", "expected"),
    [
        ("api.wandb.ai", None, "online"),
        ("else.where", None, None),
        ("wandb.lab:8080", "https://wandb.lab:8080", "online"),
        ("api.wandb.ai", "https://wandb.lab", None),
    ],
)
def test_a_key_in_netrc_counts_for_its_host(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    machine: str,
    url: str | None,
    expected: str | None,
) -> None:
    (tmp_path / "netrc").write_text(f"machine {machine}\n login user\n password {KEY}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    if url:
        monkeypatch.setenv("WANDB_BASE_URL", url)

    assert mode()[0] == expected


def test_a_netrc_that_cannot_be_read_counts_as_no_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    assert mode()[0] is None


@pytest.mark.parametrize("name", ["offline", "dryrun"])
def test_the_environment_can_set_offline(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("WANDB_MODE", name)

    assert mode() == ("offline", "wandb: offline (`wandb sync` uploads the run later)")


@pytest.mark.usefixtures("no_package")
def test_a_key_without_the_package_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    off = (None, "wandb: off, not installed (pip install 'biloom[wandb]')")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert mode() == off
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert mode() == off


needs_wandb = pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason="wandb is not installed"
)
needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboardX") is None, reason="tensorboardX is not installed"
)
HISTORY = [{"step": 5, "loss": 2.5}, {"step": 5, "valid": 9.0}, {"step": 10, "loss": None}]


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """wandb without a server: any connection fails."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb-of-user"))
    monkeypatch.setattr(wandb_process, "TOLD_SECONDS", 1e9)  # the machine may be busy
    return importlib.import_module("wandb")


def make(tiny: Tiny, folder: Path, *overrides: str, history: Any = ()) -> tuple[Any, StringIO]:
    """Return the loggers, and what they print, which may grow."""
    printed = StringIO()
    console = Console(RichConsole(file=printed, width=1000))
    place = StageFolder(str(folder / "train"))
    Path(place.folder).mkdir(exist_ok=True)
    return make_loggers(tiny.config(folder, *overrides), place, console, history), printed


def checkpoint(folder: Path) -> tuple[StageFolder, Made]:
    """Write a checkpoint that is to be logged."""
    (folder / "train" / CHECKPOINT).write_bytes(b"weights")
    made = Made(
        (FileRecord(CHECKPOINT, 7, "00ff" * 8), FileRecord("metrics.jsonl", 1, "0" * 32)),
        {"steps": 20, "tokens": 300, "corpus": "c"},
        content="of the tensors",
    )
    return StageFolder(str(folder / "train")), made


def records(file: Path) -> Iterator[Any]:
    """Read what a run has written so far: wandb's records in the log format of LevelDB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + 7])
        if place + 7 + size > len(data):  # not completely written yet
            return
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # a complete record, or the last piece of one
            yield Record.FromString(whole)
            whole = b""


def offline_runs(folder: Path) -> list[list[Any]]:
    """Return the records of each run in the train folder, the oldest run first."""
    files = list(folder.glob("train/wandb/offline-run-*/*.wandb"))
    runs = [list(records(file)) for file in files]
    # wandb writes in another process, which may lag behind.
    for _ in range(200):
        if all(run and run[-1].HasField("exit") for run in runs):
            break
        time.sleep(0.05)
        runs = [list(records(file)) for file in files]
    return sorted(
        runs,
        key=lambda run: next(r.run.start_time.ToNanoseconds() for r in run if r.HasField("run")),
    )


def history_of(run: list[Any]) -> list[dict[str, float]]:
    """Return the rows of a run, each with wandb's step."""
    rows = []
    for record in run:
        if record.HasField("history"):
            row = {"".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
            read = {key: json.loads(value) for key, value in row.items()}
            shown = {k: v for k, v in read.items() if not k.startswith("_")}
            rows.append({"step": record.history.step.num or read["_step"], **shown})
    return rows


def config_of(run: list[Any]) -> dict[str, Any]:
    """Return the config of a run."""
    updates = [one for r in run if r.HasField("run") for one in r.run.config.update]
    updates += [one for r in run if r.HasField("config") for one in r.config.update]
    return {"".join(one.nested_key) or one.key: json.loads(one.value_json) for one in updates}


@needs_wandb
def test_a_finished_run_leaves_no_temporary_files(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not below tmp_path, which is too long for the socket of wandb's service.
    with TemporaryDirectory() as scratch:
        monkeypatch.setenv("TMPDIR", scratch)
        (logger,), _ = make(tiny, tmp_path, "tracking.wandb=offline")
        logger.log_metrics({"loss": 3.0}, 9)
        log_checkpoint_artifact([logger], *checkpoint(tmp_path))
        assert len(offline_runs(tmp_path)) == 1
        assert not [*Path(scratch).iterdir()]


@needs_wandb
def test_an_offline_run_has_config_corpus_metrics_and_checkpoint(
    tiny: Tiny, tmp_path: Path, wandb: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    (logger,), printed = make(tiny, tmp_path, "tracking.wandb=offline")
    logger.log_metrics({"loss": 3.0, "rate": float("nan"), "epoch": 0}, 9)  # as Lightning does
    logger.log_metrics({"valid": 8.0}, 9)
    logger.log_metrics({"loss": 2.0}, 19)
    log_checkpoint_artifact([logger], *checkpoint(tmp_path))
    assert printed.getvalue() == "  wandb: offline (`wandb sync` uploads the run later)\n"

    (run,) = offline_runs(tmp_path)
    assert history_of(run) == [
        {"step": 10, "loss": 3.0, "valid": 8.0},
        {"step": 20, "loss": 2.0},
    ]
    config = config_of(run)
    assert config["train"]["rows"] == 3, "runs are filtered and compared by each setting"
    assert config["model"]["recurrent"]["hidden"] == 8
    corpus, model = (r.artifact for r in run if r.HasField("artifact"))
    assert (corpus.type, corpus.name, model.type) == ("corpus", "corpus", "model")
    content = read_manifest(str(tiny.root / "prepare"), "prepare").content
    assert json.loads(corpus.metadata)["content"] == content
    assert [entry.path for entry in corpus.manifest.contents] == ["manifest.json"]
    path = str(tmp_path / "train" / CHECKPOINT)
    assert json.loads(model.metadata) == {
        "content": "of the tensors",
        "xxh128": "00ff" * 8,
        "path": path,
        "steps": 20,
        "tokens": 300,
        "corpus": "c",
    }
    assert [entry.local_path for entry in model.manifest.contents] == [path]
    assert capfd.readouterr() == ("", ""), "wandb tells of itself"


@needs_wandb
def test_a_large_checkpoint_is_logged_as_a_reference(
    tiny: Tiny, tmp_path: Path, wandb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (logger,), _ = make(tiny, tmp_path, "tracking.wandb=offline")
    monkeypatch.setattr(tracking, "UPLOADED_BYTES", 6)
    log_checkpoint_artifact([logger], *checkpoint(tmp_path))
    (run,) = offline_runs(tmp_path)
    *_, model = (r.artifact for r in run if r.HasField("artifact"))
    (entry,) = model.manifest.contents
    assert entry.ref == (tmp_path / "train" / CHECKPOINT).as_uri()


@needs_wandb
def test_a_resumed_training_is_one_complete_run_with_one_id(
    tiny: Tiny, tmp_path: Path, wandb: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    (logger,), _ = make(tiny, tmp_path, "tracking.wandb=offline")
    for step in (5, 10, 15):
        logger.log_metrics({"loss": 100.0 + step}, step - 1)
    logger.finalize("failed")
    # After the stop, it resumes from step 10.
    (again,), _ = make(tiny, tmp_path, "tracking.wandb=offline", history=HISTORY)
    for step in (15, 20):
        again.log_metrics({"loss": 100.0 + step}, step - 1)
    again.finish(0)

    first, second = offline_runs(tmp_path)
    assert [row["step"] for row in history_of(first)] == [5, 10, 15]
    assert history_of(second) == [
        {"step": 5, "loss": 2.5, "valid": 9.0},
        {"step": 10},
        {"step": 15, "loss": 115.0},
        {"step": 20, "loss": 120.0},
    ]
    id_file = json.loads((tmp_path / "train" / "wandb.json").read_text())
    ids = {r.run.run_id for run in (first, second) for r in run if r.HasField("run")}
    assert ids == {id_file["id"]}
    assert capfd.readouterr() == ("", ""), "wandb tells of steps that go backward"


@needs_wandb
def test_what_the_config_does_not_set_is_wandbs_to_decide(
    tiny: Tiny, tmp_path: Path, wandb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("WANDB_RUN_ID", "abc12345")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere" / "train"))
    (tmp_path / "elsewhere" / "train").mkdir(parents=True)
    (logger,), _ = make(tiny, tmp_path, "tracking.wandb=offline")
    logger.finish(0)
    (run,) = offline_runs(tmp_path / "elsewhere")
    (started,) = (r.run for r in run if r.HasField("run"))
    assert (started.project, started.run_id) == ("mine", "abc12345")
    assert not (tmp_path / "train" / "wandb").exists()
    for name in ("WANDB_PROJECT", "WANDB_RUN_ID", "WANDB_DIR"):
        monkeypatch.delenv(name)
    (logger,), _ = make(tiny, tmp_path, "tracking.wandb=offline", "tracking.project=other")
    logger.finish(0)
    (run,) = offline_runs(tmp_path)
    (started,) = (r.run for r in run if r.HasField("run"))
    assert (started.project, started.run_id) == ("other", "abc12345"), "the id is kept"


@needs_wandb
def test_a_run_of_a_sweep_has_the_whole_config_and_wandbs_own_words(
    tiny: Tiny, tmp_path: Path, wandb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("train:\n  value: {learning_rate: 0.5}\nmodel.tied:\n  value: false\n")
    words = {"SWEEP_ID": "s1", "SWEEP_PARAM_PATH": str(values), "RUN_ID": "abc12345"}
    words |= {"RUN_GROUP": "a group", "TAGS": "one,two", "NOTES": "why"}
    for name, value in words.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    settings = ("tracking.wandb=offline", "train.learning_rate=0.5")
    (logger,), printed = make(tiny, tmp_path, *settings)
    logger.finish(0)
    (run,) = offline_runs(tmp_path)
    (started,) = (r.run for r in run if r.HasField("run"))
    told = (started.sweep_id, started.run_group, [*started.tags], started.notes)
    assert told == ("s1", "a group", ["one", "two"], "why")
    config = config_of(run)
    assert config["train"]["learning_rate"] == 0.5
    assert config["train"]["rows"] == 3, "a nested parameter leaves the rest of its section"
    assert config["model"]["recurrent"]["hidden"] == 8
    assert printed.getvalue().count("\n") == 1


@needs_wandb
def test_a_server_that_cannot_be_reached_leaves_an_offline_run(
    tiny: Tiny, tmp_path: Path, wandb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    (logger,), printed = make(tiny, tmp_path, "tracking.wandb=auto")
    logger.log_metrics({"loss": 3.0}, 0)
    logger.finish(0)
    (run,) = offline_runs(tmp_path)
    assert history_of(run) == [{"step": 1, "loss": 3.0}]
    on, told = printed.getvalue().splitlines()
    assert on == "  wandb: on"
    assert told.startswith("  wandb: the server cannot be used (")
    assert told.endswith("); the run is kept offline (`wandb sync` uploads it later)")


def processes(logger: Any) -> list[int]:
    """Return the process of wandb, and its child, wandb's service."""
    own = logger.process._process.pid
    children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
    return [own, *map(int, children)]


def has_ended(process: int) -> bool:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def wait_until(condition: Any) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError


@needs_wandb
@pytest.mark.parametrize("killed", ["its process", "its service"])
def test_a_killed_wandb_is_one_warning(
    tiny: Tiny,
    tmp_path: Path,
    wandb: Any,
    monkeypatch: pytest.MonkeyPatch,
    killed: str,
) -> None:
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 3.0)
    (logger,), printed = make(tiny, tmp_path, "tracking.wandb=offline")
    wait_until(lambda: logger.process.run)
    own, service = processes(logger)
    os.kill(own if killed == "its process" else service, signal.SIGKILL)
    for step in range(1, 100):
        logger.log_metrics({"loss": 3.0}, step - 1)
    log_checkpoint_artifact([logger], *checkpoint(tmp_path))
    _, *told = printed.getvalue().splitlines()
    assert [line for line in told if line.startswith("  wandb: off, ")] == told[-1:]
    assert "; metrics are in metrics.jsonl; `wandb sync " in told[-1]
    wait_until(lambda: has_ended(own) and has_ended(service))


@needs_wandb
def test_a_wandb_that_does_not_answer_is_given_up(
    tiny: Tiny, tmp_path: Path, wandb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 0.3)
    monkeypatch.setattr(wandb_process, "TOLD_SECONDS", 0.1)
    (logger,), printed = make(tiny, tmp_path, "tracking.wandb=offline")
    own = logger.process._process.pid
    os.kill(own, signal.SIGSTOP)
    log_checkpoint_artifact([logger], *checkpoint(tmp_path))
    assert printed.getvalue().splitlines()[1:] == [
        "  waiting for wandb to upload, 0 seconds at most",
        "  wandb: off, it has not answered for 0 seconds; metrics are in metrics.jsonl",
    ]
    assert has_ended(own)


@needs_wandb
def test_wandb_ends_after_a_training_that_was_killed(
    tiny: Tiny, tmp_path: Path, wandb: Any
) -> None:
    (logger,), _ = make(tiny, tmp_path, "tracking.wandb=offline")
    wait_until(lambda: logger.process.run)
    own, service = processes(logger)
    os.kill(own, signal.SIGTERM)  # as schedulers do; the training is to end first
    logger.log_metrics({"loss": 3.0}, 0)
    logger.process._requests.put(None)  # its standard input ends, as if this process had ended
    assert logger.process._process.wait(30) == 0
    wait_until(lambda: has_ended(service))
    (run,) = offline_runs(tmp_path)
    assert history_of(run) == [{"step": 1, "loss": 3.0}]
    assert run[-1].exit.exit_code == 1


def test_a_process_that_cannot_be_started_is_one_warning(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(wandb_process.subprocess, "Popen", refuse)
    monkeypatch.setattr(tracking, "wandb_mode", lambda _: ("offline", "wandb: offline"))
    (logger,), printed = make(tiny, tmp_path)
    logger.log_metrics({"loss": 3.0}, 0)
    log_checkpoint_artifact([logger], *checkpoint(tmp_path))
    assert printed.getvalue().splitlines() == [
        "  wandb: offline",
        "  wandb: off, [Errno 11] Resource temporarily unavailable; metrics are in metrics.jsonl",
    ]


def test_requests_are_not_collected_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_process, "ROWS", 5)
    monkeypatch.setattr(
        wandb_process.WandbProcess, "_write", lambda self: self._process.stdin.close()
    )
    monkeypatch.setattr(wandb_process, "CHILD", Path(os.devnull))
    process = wandb_process.WandbProcess({})
    wait_until(lambda: process._process and process._process.poll() is not None)
    process._failed = ""
    for _ in range(5):
        process.send(do="log")
    assert process.failed == "it does not answer"
    process.end(1, 0.1)


def serve(requests: list[Any], monkeypatch: pytest.MonkeyPatch, **run: Any) -> list[Any]:
    """Serve ``requests`` for a run, and return what is answered."""
    answers: list[Any] = []
    made = SimpleNamespace(id="x", offline=False, **run)
    monkeypatch.setattr(wandb_child, "_start", lambda *_: made)
    wandb_child.serve(iter([{}, *requests]), lambda **words: answers.append(words))
    return answers


def test_rows_that_wandb_has_are_not_logged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sent, ended = [], []
    requests = [{"do": "log", "row": {"loss": 1.0 * step}, "step": step} for step in (5, 11, 15)]
    answers = serve(
        requests,
        monkeypatch,
        starting_step=11,
        log=lambda row, step: sent.append((step, row)),
        finish=lambda exit_code: ended.append(exit_code),
    )
    assert sent == [(11, {"loss": 11.0}), (15, {"loss": 15.0})]
    assert (ended, answers) == ([1], []), "the requests ended without the word to finish"


@needs_wandb
def test_online_the_corpus_is_an_input_and_an_artifact_may_fail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wandb: Any
) -> None:
    used, ended = [], []

    def refuse(_: Any) -> None:
        raise ConnectionError("no room")

    corpus = {"name": "corpus", "type": "corpus", "file": "manifest.json", "content": "{}"}
    model = {"type": "model", "file": CHECKPOINT, "reference": "s3://bucket/model"}
    requests = [
        {"do": "artifact", "what": "corpus", "is_input": True, "metadata": {}, **corpus},
        {"do": "artifact", "what": "checkpoint", "is_input": False, "metadata": {}, **model},
        {"do": "finish", "exit_code": 0},
    ]
    answers = serve(
        requests,
        monkeypatch,
        use_artifact=used.append,
        log_artifact=refuse,
        finish=lambda exit_code: ended.append(exit_code),
    )
    assert [(one.type, one.name) for one in used] == [("corpus", "corpus")]
    assert answers == [
        {"note": "the checkpoint was not logged (ConnectionError: no room)"},
        {"finished": True},
    ]
    assert ended == [0]


def events(folder: Path) -> list[tuple[int, str, float]]:
    """Read the metrics in all event files: TFRecords (length, checksum, data, checksum) of events."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in folder.iterdir():
        data, place = file.read_bytes(), 0
        while place < len(data):
            (size,) = struct.unpack("<Q", data[place : place + 8])
            event = Event.FromString(data[place + 12 : place + 12 + size])
            found += [(event.step, one.tag, one.simple_value) for one in event.summary.value]
            place += size + 16
    return found


class Logged(pl.LightningModule):
    """A module that logs by Lightning's own means."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.log("loss", float(batch_idx))
        return self.weight.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("valid", 9.0, batch_size=1)


@needs_tensorboard
@pytest.mark.filterwarnings("ignore")
def test_what_lightning_logs_stands_under_the_number_of_steps(tiny: Tiny, tmp_path: Path) -> None:
    loggers, _ = make(tiny, tmp_path, "tracking.tensorboard=true")
    sent: list[dict[str, Any]] = []
    process: Any = SimpleNamespace(
        send=lambda **request: sent.append(request),
        notes=list,
        failed="",
        run={},
        end=lambda *_: None,
    )
    data = torch.utils.data.DataLoader([0] * 8)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=4,
        accumulate_grad_batches=2,
        val_check_interval=4,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=[*loggers, tracking.WandbLogger(process, Console())],
    )
    trainer.fit(Logged(), data, data)
    rows: dict[int, dict[str, float]] = {}
    for request in sent:
        rows.setdefault(request["step"], {}).update(request["row"])
    assert rows == {
        1: {"loss": 1.0},
        2: {"loss": 3.0, "valid": 9.0},
        3: {"loss": 5.0},
        4: {"loss": 7.0, "valid": 9.0},
    }
    shown = {(step, name, value) for step, row in rows.items() for name, value in row.items()}
    assert set(events(tmp_path / "train" / "tensorboard")) == shown


@needs_tensorboard
def test_event_files_hold_each_step_once_after_a_kill(tiny: Tiny, tmp_path: Path) -> None:
    on = "tracking.tensorboard=true"
    (logger,), printed = make(tiny, tmp_path, on)
    assert printed.getvalue() == "  wandb: off\n"
    for step in (5, 10, 15):
        logger.log_metrics({"loss": 1.0, "none": None, "bad": float("inf")}, step - 1)
    logger.save()
    folder = tmp_path / "train" / "tensorboard"
    assert events(folder) == [(step, "loss", 1.0) for step in (5, 10, 15)]
    (again,), _ = make(tiny, tmp_path, on, history=HISTORY)
    assert events(folder) == [(5, "loss", 2.5), (5, "valid", 9.0)], "it is there before step one"
    again.log_metrics({"loss": 3.0}, 14)
    again.finalize("success")
    assert events(folder) == [(5, "loss", 2.5), (5, "valid", 9.0), (15, "loss", 3.0)]
    logger.finalize("success")


@needs_tensorboard
def test_runs_share_a_folder_of_event_files(tiny: Tiny, tmp_path: Path) -> None:
    shared = tmp_path / "logs"
    on = ("tracking.tensorboard=true", f"tracking.tensorboard_folder={shared}")
    outputs = {
        "s3://bucket/runs/first/": shared / "bucket/runs/first",
        str(tmp_path / "second"): shared / str(tmp_path / "second").strip("/"),
    }
    for step, output in enumerate(outputs):
        (logger,), _ = make(tiny, tmp_path, *on, f"run.output={output}")
        logger.log_metrics({"loss": 1.0}, step)
        logger.finalize("success")
    assert [events(folder) for folder in outputs.values()] == [
        [(1, "loss", 1.0)],
        [(2, "loss", 1.0)],
    ]


@needs_tensorboard
def test_only_event_files_are_removed(tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "train" / "tensorboard"
    folder.mkdir(parents=True)
    (folder / "events.old").touch()
    (folder / "notes.txt").touch()
    (logger,), _ = make(tiny, tmp_path, "tracking.tensorboard=true")
    logger.finalize("success")
    names = {path.name for path in folder.iterdir()}
    assert "notes.txt" in names
    assert "events.old" not in names


@needs_wandb
@needs_tensorboard
def test_a_training_is_tracked_and_the_manifest_leaves_the_loggers_files_out(
    tiny: Tiny, tmp_path: Path, wandb: Any
) -> None:
    tiny.run(
        "train", tmp_path, "tracking.wandb=offline", "tracking.tensorboard=true", "train.steps=5"
    )
    (run,) = offline_runs(tmp_path)
    assert [row["step"] for row in history_of(run)] == [1, 2, 3, 4, 5]
    assert {"loss_forward", "loss_backward"} <= set(history_of(run)[0])
    assert {step for step, *_ in events(tmp_path / "train" / "tensorboard")} == {1, 2, 3, 4, 5}
    assert sum(record.HasField("artifact") for record in run) == 2
    manifest = read_manifest(str(tmp_path / "train"), "train")
    assert check_files(str(tmp_path / "train"), manifest) == []
    assert all("wandb" not in file.name for file in manifest.files)


@needs_tensorboard
def test_event_files_that_cannot_be_written_are_one_warning(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (logger,), printed = make(tiny, tmp_path, "tracking.tensorboard=true")

    def full(_: Any) -> None:
        raise OSError(28, "No space left on device")

    writer = logger._writer
    monkeypatch.setattr(writer, "write_event", full)
    for step in (1, 2):
        logger.log_metrics({"loss": 1.0}, step - 1)
        logger.save()
    logger.finalize("success")
    assert printed.getvalue().splitlines() == [
        "  wandb: off",
        "  tensorboard: off, [Errno 28] No space left on device; metrics are in metrics.jsonl",
    ]
    (tmp_path / "train" / "tensorboard").rename(tmp_path / "old")
    (tmp_path / "train" / "tensorboard").write_text("no folder")
    (logger,), printed = make(tiny, tmp_path, "tracking.tensorboard=true")
    logger.log_metrics({"loss": 1.0}, 0)
    logger.finalize("success")
    assert "  tensorboard: off, [Errno 17] File exists: " in printed.getvalue()
