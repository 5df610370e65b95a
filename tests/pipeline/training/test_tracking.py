"""wandb is on if there is a key, offline by config, otherwise off; TensorBoard is on by config."""

import importlib.util
import json
import struct
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console as RichConsole

from lightning_modules.models.checkpoint_file import CHECKPOINT
from pipeline.config.schema import TrackingConfig
from pipeline.console import Console
from pipeline.lifecycle.stage import Made, StageError, StageFolder
from pipeline.training import tracking
from pipeline.training.tracking import (
    WandbLogger,
    log_checkpoint_artifact,
    make_loggers,
    wandb_mode,
)
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
def wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """wandb without a server: any connection fails."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb-of-user"))
    module = importlib.import_module("wandb")
    yield module
    module.finish()


def make(tiny: Tiny, folder: Path, *overrides: str, history: Any = ()) -> tuple[Any, str]:
    printed = StringIO()
    console = Console(RichConsole(file=printed, width=1000))
    place = StageFolder(str(folder / "train"))
    Path(place.folder).mkdir(exist_ok=True)
    return make_loggers(
        tiny.config(folder, *overrides), place, console, history
    ), printed.getvalue()


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


@needs_wandb
def test_an_offline_run_has_config_corpus_metrics_and_checkpoint(
    tiny: Tiny, tmp_path: Path, wandb: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    (logger,), printed = make(tiny, tmp_path, "tracking.wandb=offline")
    assert printed == "  wandb: offline (`wandb sync` uploads the run later)\n"
    logger.log_metrics({"loss": 3.0, "rate": float("nan")}, 10)
    logger.log_metrics({"valid": 8.0}, 10)
    logger.log_metrics({"loss": 2.0}, 20)
    path = tmp_path / "train" / CHECKPOINT
    path.write_bytes(b"weights")
    made = Made(
        (FileRecord(CHECKPOINT, 7, "00ff"), FileRecord("metrics.jsonl", 1, "0")),
        {"steps": 20, "tokens": 300, "corpus": "c"},
        content="of the tensors",
    )
    log_checkpoint_artifact([logger], StageFolder(str(tmp_path / "train")), made)

    (run,) = offline_runs(tmp_path)
    assert history_of(run) == [
        {"step": 10, "loss": 3.0, "valid": 8.0},
        {"step": 20, "loss": 2.0},
    ]
    (config,) = (r.config.update for r in run if r.HasField("config") and r.config.update)
    assert "rows: 3" in json.loads(config[0].value_json)
    corpus, model = (r.artifact for r in run if r.HasField("artifact"))
    assert (corpus.type, corpus.name, model.type) == ("corpus", "corpus", "model")
    content = read_manifest(str(tiny.root / "prepare"), "prepare").content
    assert json.loads(corpus.metadata)["content"] == content
    assert [entry.path for entry in corpus.manifest.contents] == ["manifest.json"]
    assert json.loads(model.metadata) == {
        "content": "of the tensors",
        "xxh128": "00ff",
        "path": str(path),
        "steps": 20,
        "tokens": 300,
        "corpus": "c",
    }
    assert [entry.local_path for entry in model.manifest.contents] == [str(path)]
    assert capfd.readouterr() == ("", ""), "wandb tells of itself"


@needs_wandb
def test_a_large_checkpoint_is_logged_as_a_reference(
    tiny: Tiny, tmp_path: Path, wandb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (logger,), _ = make(tiny, tmp_path, "tracking.wandb=offline")
    monkeypatch.setattr(tracking, "UPLOADED_BYTES", 6)
    (tmp_path / "train" / CHECKPOINT).write_bytes(b"weights")
    made = Made((FileRecord(CHECKPOINT, 7, "0"),), {"steps": 1, "tokens": 1, "corpus": "c"})
    log_checkpoint_artifact([logger], StageFolder(str(tmp_path / "train")), made)
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
        logger.log_metrics({"loss": 100.0 + step}, step)
    # After the kill, it resumes from step 10.
    (again,), _ = make(tiny, tmp_path, "tracking.wandb=offline", history=HISTORY)
    for step in (15, 20):
        again.log_metrics({"loss": 100.0 + step}, step)
    wandb.finish()

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


def test_rows_that_wandb_has_are_not_logged_again() -> None:
    sent = []
    run = SimpleNamespace(id="x", starting_step=11, log=lambda row, step: sent.append((step, row)))
    logger = WandbLogger(run)
    for step in (5, 10, 11, 15):
        logger.log_metrics({"loss": 1.0 * step}, step)
    assert sent == [(11, {"loss": 11.0}), (15, {"loss": 15.0})]


@needs_wandb
def test_online_the_manifest_is_an_input_whose_failure_does_not_stop_training(
    tiny: Tiny, tmp_path: Path, wandb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    run = SimpleNamespace(
        id="x", starting_step=0, config=SimpleNamespace(update=lambda *a, **b: None)
    )
    run.use_artifact = used.append
    asked: dict[str, Any] = {}
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(wandb, "init", lambda **options: asked.update(options) or run)
    _, printed = make(tiny, tmp_path, "tracking.wandb=auto", "tracking.name=mine")
    assert [(one.type, one.name) for one in used] == [("corpus", "corpus")]
    assert printed == "  wandb: on\n"
    id_file = json.loads((tmp_path / "train" / "wandb.json").read_text())
    assert (asked["id"], asked["resume"], asked["name"]) == (id_file["id"], "allow", "mine")

    def refuse(_: Any) -> None:
        raise wandb.errors.CommError("no room")

    run.use_artifact = refuse
    (logger,), printed = make(tiny, tmp_path, "tracking.wandb=auto")
    assert logger.run is run
    assert "wandb: the corpus manifest was not logged (no room); training continues" in printed


@needs_wandb
def test_a_wandb_that_cannot_start_is_reported(
    tiny: Tiny, tmp_path: Path, wandb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise wandb.errors.CommError("the key is wrong")

    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(wandb, "init", refuse)

    with pytest.raises(
        StageError, match=r"wandb cannot start \(the key is wrong\); fix that, or set tracking"
    ):
        make(tiny, tmp_path, "tracking.wandb=auto")


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


@needs_tensorboard
def test_event_files_hold_each_step_once_after_a_kill(tiny: Tiny, tmp_path: Path) -> None:
    on = "tracking.tensorboard=true"
    (logger,), printed = make(tiny, tmp_path, on)
    assert printed == "  wandb: off\n"
    for step in (5, 10, 15):
        logger.log_metrics({"loss": 1.0, "none": None, "bad": float("inf")}, step)
    logger.save()
    folder = tmp_path / "train" / "tensorboard"
    assert events(folder) == [(step, "loss", 1.0) for step in (5, 10, 15)]
    (again,), _ = make(tiny, tmp_path, on, history=HISTORY)
    assert events(folder) == [(5, "loss", 2.5), (5, "valid", 9.0)], "it is there before step one"
    again.log_metrics({"loss": 3.0}, 15)
    again.finalize("success")
    assert events(folder) == [(5, "loss", 2.5), (5, "valid", 9.0), (15, "loss", 3.0)]
    logger.finalize("success")


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
