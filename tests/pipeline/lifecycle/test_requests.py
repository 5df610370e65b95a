"""Work belongs to its request, only the holder of the lock changes a result, and results are updated."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as RichConsole

from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.console import Console
from pipeline.lifecycle import running
from pipeline.lifecycle.lock import lock
from pipeline.lifecycle.plan import plan_of
from pipeline.lifecycle.running import run_stage
from pipeline.lifecycle.stage import Made, Stage, StageError, StageFolder, StageWork
from pipeline.lifecycle.state import request_of, work_name
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.manifest import ManifestError, check_files, read_manifest
from preprocess.text import versions

OTHER = "0" * 64
"""Fingerprint of another request."""


@dataclass
class Folder:
    """A folder, and stages that write ``data.bin`` into it."""

    config: Config
    printed: StringIO = field(default_factory=StringIO)

    @property
    def path(self) -> Path:
        return Path(self.config.run.output) / "fake"

    @property
    def work(self) -> Path:
        return self.path / "_work"

    def run(
        self,
        stage: Stage,
        data: str | Callable[[StageFolder], str] = "made",
        overwrite: bool = False,
    ) -> str:
        """Run ``stage``, whose result is ``data``, and return what it printed below its name."""

        def make(config: Config, place: StageFolder, console: Console) -> Made:
            text = data if isinstance(data, str) else data(place)
            storage.write_bytes(place.new_file("data.bin"), text.encode())
            return Made((place.record("data.bin"),), {})

        def restate(config: Config, place: StageFolder, console: Console) -> Made:
            manifest = read_manifest(place.folder)
            return Made(manifest.files, manifest.details)

        self.printed.truncate(self.printed.seek(0))
        console = Console(RichConsole(file=self.printed, width=1000))
        work = StageWork(make, restate=restate)
        run_stage(stage, lambda: work, self.config, console, overwrite)
        return self.printed.getvalue().partition("\n")[2]

    def data(self) -> str:
        assert not check_files(str(self.path), read_manifest(str(self.path)))
        return (self.path / "data.bin").read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(load_config([], ["prepare.input=x", f"run.output={tmp_path}"]))


def asking(steps: int, **others: Any) -> Stage:
    grows = lambda config, old, new, details: old["steps"] < new["steps"]  # noqa: E731
    return Stage("fake", 1, lambda config: {"steps": steps}, grows=grows, **others)


def fail(place: StageFolder) -> str:
    storage.write_bytes(place.new_file("data.bin"), b"half")
    raise RuntimeError("half way")


# Work belongs to its request


def test_work_lies_in_a_folder_named_by_the_fingerprint(folder: Folder) -> None:
    with pytest.raises(RuntimeError, match="half way"):
        folder.run(asking(2), fail)
    name = work_name(asking(2), request_of(asking(2), folder.config))
    assert [path.name for path in folder.work.iterdir()] == [name]
    # What may rise is not part of the name.
    rising = asking(2, may_rise=("steps",))
    higher = asking(3, may_rise=("steps",))
    names = [work_name(stage, request_of(stage, folder.config)) for stage in (rising, higher)]
    assert len({name, *names}) == 2


def test_nothing_of_a_failed_stage_is_published_and_no_lock_is_left(folder: Folder) -> None:
    with pytest.raises(RuntimeError, match="half way"):
        folder.run(asking(2), fail)
    assert [path.name for path in folder.path.iterdir()] == ["_work"]
    assert not (folder.work / "lock.json").exists()


def test_files_of_another_request_are_removed_and_told(folder: Folder) -> None:
    (folder.work / OTHER / "units").mkdir(parents=True)
    (folder.work / OTHER / "units" / "000000.json").write_text("{}")

    def make(place: StageFolder) -> str:
        assert not (folder.work / OTHER).exists()
        # A worker that outlives its driver may write at any time.
        (folder.work / OTHER / "result").mkdir(parents=True)
        (folder.work / OTHER / "result" / "data.bin").write_text("foreign")
        return "own"

    told = "  removed 1 folder(s) that workers of an earlier run left in _work\n"
    assert folder.run(asking(2), make) == f"{told}{told}  done in 0:00\n"
    assert folder.data() == "own"
    assert not folder.work.exists()
    # Also once the stage is finished.
    (folder.work / OTHER / "units").mkdir(parents=True)
    assert folder.run(asking(2)) == f"{told}  already done\n"
    assert not folder.work.exists()


def test_work_in_which_nothing_was_done_refuses_nothing(folder: Folder) -> None:
    def stop(place: StageFolder) -> str:
        raise UserError("a.txt is no text; set damaged_files=skip")

    with pytest.raises(UserError, match="is no text"):
        folder.run(asking(3), stop)
    assert plan_of(asking(2), folder.config).action == "make"
    assert folder.run(asking(2)) == (
        "  removed unfinished work for other settings or inputs\n  done in 0:00\n"
    )
    assert not folder.work.exists()


def test_a_lost_lease_publishes_nothing(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> None:
        raise UserError("the lease is lost")

    real = StageFolder

    def place(path: str, work: str = "", check: Callable[[], None] = lost) -> StageFolder:
        return real(path, work, lost)

    monkeypatch.setattr(running, "StageFolder", place)
    with pytest.raises(UserError, match="the lease is lost"):
        folder.run(asking(2))
    assert [path.name for path in folder.path.iterdir()] == ["_work"]


def test_a_finished_stage_removes_nothing_while_another_process_writes(folder: Folder) -> None:
    stage = asking(2, sweep=("vectors-",))
    folder.run(stage)
    console = Console(RichConsole(file=StringIO()))
    with lock(str(folder.path), str(folder.work / "lock.json"), console):
        (folder.path / "vectors-new").write_text("of an addition that is being published")
        (folder.work / OTHER).mkdir()
        assert folder.run(stage) == "  already done\n"
        assert (folder.path / "vectors-new").exists()
        assert (folder.work / OTHER).exists()
    folder.run(stage)
    assert not (folder.path / "vectors-new").exists()
    assert not folder.work.exists()


# A finished result stays readable until the new one is whole


def test_a_finished_result_stays_readable_until_its_extension_is_whole(folder: Folder) -> None:
    folder.run(asking(2), "two")

    def fail_late(place: StageFolder) -> str:
        assert folder.data() == "two"
        return fail(place)

    with pytest.raises(RuntimeError, match="half way"):
        folder.run(asking(3), fail_late)
    assert folder.data() == "two"
    assert plan_of(asking(3), folder.config).text == "extension to be resumed"
    assert folder.run(asking(2)) == ("  already done; unfinished work for other settings is kept\n")
    assert folder.run(asking(3), "three") == "  resuming unfinished work\n  done in 0:00\n"
    assert folder.data() == "three"


def test_overwrite_removes_unfinished_work_that_keeps_a_finished_result_from_growing(
    folder: Folder,
) -> None:
    folder.run(asking(2), "two")
    with pytest.raises(RuntimeError, match="half way"):
        folder.run(asking(4), fail)
    with pytest.raises(StageError, match=r"unfinished work .*\n.*steps: 4 -> 3\n.* to remove it; "):
        folder.run(asking(3), "three")
    assert folder.data() == "two"
    assert plan_of(asking(3), folder.config).action == "refuse"
    assert plan_of(asking(3), folder.config, overwrite=True) == (
        "extend",
        "to be extended, without unfinished work (steps: 4 -> 3)",
    )
    assert folder.run(asking(3), "three", overwrite=True) == (
        "  removed unfinished work for other settings or inputs\n"
        "  extending the finished result\n"
        "  done in 0:00\n"
    )
    assert folder.data() == "three"
    assert [path.name for path in folder.path.parent.iterdir()] == ["fake"]
    assert not folder.work.exists()


def test_a_kill_while_a_result_is_replaced_never_leaves_a_manifest_of_other_files(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("remove", "move_entries", "write_bytes"):
        for call in range(4):
            folder.run(asking(2), "two", overwrite=True)
            former = read_manifest(str(folder.path)).content
            real, left = getattr(storage, name), iter(range(call))

            def killed(*arguments: Any, left: Any = left, real: Any = real) -> Any:
                if next(left, None) is None:
                    raise KeyboardInterrupt
                return real(*arguments)

            with monkeypatch.context() as patched:
                patched.setattr(storage, name, killed)
                try:
                    folder.run(asking(3), "three")
                except KeyboardInterrupt:
                    if (folder.path / "manifest.json").exists():
                        folder.data()
            # The process that took it lives on in this test.
            (folder.work / "lock.json").unlink(missing_ok=True)
            folder.run(asking(3), "three")
            manifest = read_manifest(str(folder.path))
            assert folder.data() == "three", (name, call)
            assert manifest.details["replaces"] == [former]


# Settings that a finished result takes over, and versions of tables


def with_similarity(config: Config) -> Config:
    """Return the config with the removal of near-duplicates."""
    near = config.prepare.near_duplicates.model_copy(update={"similarity": 0.8})
    prepare = config.prepare.model_copy(update={"near_duplicates": near})
    return config.model_copy(update={"prepare": prepare})


def weighted(weight: int, restates: bool) -> Stage:
    restated = ("weight",) if restates else ()
    return Stage(
        "fake", 1, lambda config: {}, settings=lambda config: {"weight": weight}, restated=restated
    )


def test_a_setting_that_needs_no_work_is_taken_over(folder: Folder) -> None:
    folder.run(weighted(1, restates=True))
    plan = plan_of(weighted(2, restates=True), folder.config)
    assert plan == ("restate", "to take over settings (weight: 1 -> 2)")
    said = folder.run(weighted(2, restates=True), fail)
    assert said == "  taking over weight: 1 -> 2\n  done in 0:00\n"
    assert read_manifest(str(folder.path)).details["settings"] == {"weight": 2}
    assert folder.run(weighted(2, restates=True), fail) == "  already done\n"


def test_a_setting_that_a_result_does_not_take_over_is_reported(folder: Folder) -> None:
    folder.run(weighted(1, restates=False))
    said = folder.run(weighted(2, restates=False), fail)
    assert said == "  made before a setting changed (weight: 1 -> 2); kept\n  already done\n"


def switched(keeps: bool) -> Stage:
    return asking(2, switches=lambda config: {"prepare.keep_keys": keeps})


def test_work_that_was_begun_without_a_switch_is_not_continued_with_it(folder: Folder) -> None:
    with pytest.raises(RuntimeError, match="half way"):
        folder.run(switched(False), fail)
    with pytest.raises(StageError, match=r"\n    prepare\.keep_keys: false -> true\n"):
        folder.run(switched(True))
    assert folder.run(switched(False)).startswith("  resuming unfinished work\n")
    # A finished result does not depend on it.
    assert folder.run(switched(True)) == "  already done\n"


def test_a_switch_can_be_turned_off_and_before_anything_is_done_also_on(folder: Folder) -> None:
    def stop(place: StageFolder) -> str:
        raise RuntimeError("at the start")

    for first, second in ((True, fail), (False, stop)):
        with pytest.raises(RuntimeError):
            folder.run(switched(first), second)
        assert folder.run(switched(not first)).startswith("  resuming unfinished work\n")
        storage.remove_tree(str(folder.path))


def test_a_switch_that_was_off_for_a_part_of_the_work_stays_off(folder: Folder) -> None:
    for keeps in (True, False):
        with pytest.raises(RuntimeError, match="half way"):
            folder.run(switched(keeps), fail)
    with pytest.raises(StageError, match=r"\n    prepare\.keep_keys: false -> true\n"):
        folder.run(switched(True))
    assert folder.run(switched(False)).startswith("  resuming unfinished work\n")


def test_work_of_a_version_that_recorded_no_switches_is_continued(folder: Folder) -> None:
    with pytest.raises(RuntimeError, match="half way"):
        folder.run(asking(2), fail)
    with pytest.raises(RuntimeError, match="half way"):
        folder.run(switched(False), fail)
    assert folder.run(switched(True)).startswith("  resuming unfinished work\n")


RULE = (
    "the rule by which documents count as near-duplicates is another one in this version of biloom"
)


def test_unfinished_work_of_other_tables_is_refused_and_a_finished_result_is_kept(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = asking(2, text_sources=lambda config: ())
    with pytest.raises(RuntimeError, match="half way"):
        folder.run(stage, fail)
    present = versions.table_versions()
    with monkeypatch.context() as patched:
        patched.setattr(versions, "table_versions", lambda: {**present, "Unicode": "99.0.0"})
        with pytest.raises(StageError, match=rf"Unicode: {present['Unicode']} -> 99\.0\.0\n"):
            folder.run(stage)
    folder.run(stage)
    assert read_manifest(str(folder.path)).details["versions"] == present
    monkeypatch.setattr(versions, "table_versions", lambda: {**present, "SentencePiece": "99"})
    old = present["SentencePiece"]
    assert folder.run(stage) == (
        f"  made with other versions than those installed now (SentencePiece: {old} -> 99); kept\n"
        "  already done\n"
    )


def test_unfinished_work_of_the_former_near_duplicates_is_refused(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def request(config: Config) -> dict[str, Any]:
        near = config.prepare.near_duplicates
        return {"prepare.near_duplicates.similarity": near.similarity}

    stage = Stage("prepare", 2, request, text_sources=lambda config: ())
    former = versions.table_versions()
    with monkeypatch.context() as patched:
        patched.setattr(Stage, "versions", lambda *_: former)
        similar = with_similarity(folder.config)
        with pytest.raises(RuntimeError, match="half way"):
            Folder(similar).run(stage, fail)
    assert stage.versions(folder.config) == former
    assert stage.versions(similar) == {**former, "near-duplicates": "2"}
    with pytest.raises(StageError) as refused:
        Folder(similar).run(stage)
    assert str(refused.value) == (
        f"{folder.path.parent / 'prepare'} holds unfinished work made with other versions:\n"
        f"    near-duplicates: {RULE}\n"
        "  add --overwrite to move it aside, or set another run.output\n"
        "  to keep the folder, finish it with the versions that began it"
    )


def test_a_finished_result_of_the_former_near_duplicates_stays_valid(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def request(config: Config) -> dict[str, Any]:
        return {"prepare.near_duplicates.similarity": config.prepare.near_duplicates.similarity}

    stage = Stage("prepare", 2, request, text_sources=lambda config: ())
    similar = Folder(with_similarity(folder.config))
    with monkeypatch.context() as patched:
        patched.setattr(Stage, "versions", lambda *_: versions.table_versions())
        similar.run(stage)
    assert similar.run(stage, fail) == (
        f"  made with other versions than those installed now (near-duplicates: {RULE}); kept\n"
        "  already done\n"
    )


def test_the_detector_of_encodings_counts_if_a_source_needs_it(folder: Folder) -> None:
    stage = asking(2, text_sources=lambda config: config.prepare.sources)
    assert stage.versions(folder.config) == versions.table_versions()
    auto = load_config([], ["prepare.input=[{path: x, encoding: auto}]"])
    assert stage.versions(auto).keys() == {"Unicode", "SentencePiece", "chardet"}
    for source in ("{path: x, format: html}", "{path: 'crawl/*.warc.gz'}"):
        pages = load_config([], [f"prepare.input=[{source}]"])
        assert stage.versions(pages).keys() == {"Unicode", "SentencePiece", "resiliparse"}


@pytest.mark.parametrize(
    "setting", ["tokenizer.kind=huggingface", "prepare.tokenizer=t", "embed.model=m"]
)
def test_the_version_of_tokenizers_counts_if_it_may_be_used(setting: str) -> None:
    stage = asking(2, text_sources=lambda config: config.prepare.sources)
    config = load_config([], ["prepare.input=x", setting])
    assert stage.versions(config).keys() == {"Unicode", "SentencePiece", "tokenizers"}


# Plans of several stages


def config_of(tmp_path: Path, *overrides: str) -> Config:
    return load_config([], ["prepare.input=x", f"run.output={tmp_path}", *overrides])


def test_a_plan_depends_on_the_plans_of_the_stages_before(folder: Folder) -> None:
    from pipeline.lifecycle.plan import Plan, inputs_of

    stage = replace(asking(2), name="evaluate")
    assert inputs_of(stage, folder.config) == {"train", "prepare"}
    folder.run(stage)

    def plan(overwrite: bool = False, **earlier: str) -> tuple[str, str]:
        plans = {name: Plan(action, "") for name, action in earlier.items()}  # type: ignore[arg-type]
        return plan_of(stage, folder.config, plans, overwrite)

    folder_of_stage = folder.path.with_name("evaluate")
    folder.path.rename(folder_of_stage) if folder.path.exists() else None
    assert plan(train="keep").action == "keep"
    assert plan(train="refuse") == ("refuse", "not reached, because train is refused")
    # It does not follow a longer training.
    assert plan(train="extend").action == "unknown"
    assert plan(train="make") == (
        "unknown",
        "kept if train gives the same result, otherwise refused",
    )
    assert plan(overwrite=True, train="make") == (
        "unknown",
        "made again if train gives another result",
    )
    # Another stage than those that it reads from.
    assert plan(tokenizer="refuse").action == "keep"


def test_a_stage_after_a_missing_one_is_to_be_made(folder: Folder) -> None:
    def request(config: Config) -> dict[str, Any]:
        raise ManifestError("no corpus")

    assert plan_of(Stage("fake", 1, request), folder.config).action == "make"


def test_overwrite_is_part_of_the_plan(folder: Folder) -> None:
    folder.run(asking(2))
    assert plan_of(asking(1), folder.config, overwrite=True) == (
        "replace",
        "to be moved aside and made again (steps: 2 -> 1)",
    )


def test_a_refusal_ends_with_the_advice_of_the_stage(folder: Folder) -> None:
    folder.run(asking(2))
    with pytest.raises(StageError, match=r"another run\.output\n  try steps: 2 -> 1$"):
        folder.run(asking(1, advice=lambda config, lines: [f"try {lines[0]}"]))


def test_a_record_repeats_the_fingerprint_of_its_request(tmp_path: Path) -> None:
    from preprocess.work import folder as work_folder

    work = str(tmp_path / OTHER)
    path = work_folder.unit_record(work, 0)
    assert not work_folder.is_done(work, path)
    work_folder.write_done(work, path, {"read": 3})
    assert work_folder.is_done(work, path)
    assert work_folder.read_unit_record(work, 0) == {"read": 3}
    assert json.loads(Path(path).read_text())["fingerprint"] == OTHER
    (tmp_path / OTHER).rename(tmp_path / ("1" * 64))
    work = str(tmp_path / ("1" * 64))
    with pytest.raises(UserError, match=f"this record belongs to other settings .*{OTHER}"):
        work_folder.read_unit_record(work, 0)
