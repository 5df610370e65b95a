"""wandb: on where a key is there, offline by config, otherwise off; never in the way."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import TrackingConfig
from pipeline.stage import StageError
from pipeline.tracking import wandb_mode
from preprocess.manifest import check_files, read_manifest

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


def test_without_a_key_it_is_off_and_says_so() -> None:
    assert mode() == (
        None,
        "wandb: off, no key found (`wandb login` sets one); metrics.jsonl has the same",
    )


def test_it_is_off_where_it_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_netrc_that_cannot_be_read_is_no_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    assert mode()[0] is None


@pytest.mark.parametrize("name", ["offline", "dryrun"])
def test_the_environment_may_ask_for_offline(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("WANDB_MODE", name)

    assert mode() == ("offline", "wandb: offline (`wandb sync` sends it later)")


@pytest.mark.usefixtures("no_package")
def test_a_key_without_the_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    off = (None, "wandb: off, it is not installed (pip install 'biloom[wandb]')")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert mode() == off
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert mode() == off


@pytest.mark.usefixtures("no_package")
def test_offline_by_config_without_the_package_is_a_mistake() -> None:
    with pytest.raises(StageError, match=r"wandb is not installed; pip install 'biloom\[wandb\]'"):
        mode("offline")


def offline_runs(folder: Path) -> list[str]:
    # offline-run-TIME-ID, with a number behind it where two of one id begin in one second.
    return sorted(path.name.split("-")[3] for path in folder.glob("wandb/offline-run-*"))


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_an_offline_run_lies_in_the_train_folder_under_one_id(
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from pipeline import train

    real = train.hash_file

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    overrides = ("tracking.wandb=offline", "train.steps=5")
    # A server that is not there: whoever talks to it fails.
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(train, "hash_file", killed)
    with pytest.raises(KeyboardInterrupt):
        tiny.run("train", tmp_path, *overrides)
    monkeypatch.setattr(train, "hash_file", real)
    id_file = json.loads((tmp_path / "train" / "_work" / "wandb.json").read_text())
    sys.modules["wandb"].finish()
    _, printed = tiny.run("train", tmp_path, *overrides)
    sys.modules["wandb"].finish()

    assert "wandb: offline (`wandb sync` sends it later)" in printed
    assert capsys.readouterr() == ("", ""), "wandb tells of itself"
    runs = offline_runs(tmp_path / "train")
    assert set(runs) == {id_file["id"]}, "a resumed training is another run"
    assert list((tmp_path / "train").glob("wandb/offline-run-*/*.wandb"))
    manifest = read_manifest(str(tmp_path / "train"), "train")
    assert check_files(str(tmp_path / "train"), manifest) == []
    assert all("wandb" not in file.name for file in manifest.files)


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_a_wandb_that_does_not_start_is_told(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def refuse(**_: Any) -> None:
        raise wandb.errors.CommError("the key is wrong")

    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(wandb, "init", refuse)

    with pytest.raises(
        StageError, match=r"wandb does not start \(the key is wrong\); set tracking"
    ):
        tiny.run("train", tmp_path, "tracking.wandb=auto", "train.steps=5")
