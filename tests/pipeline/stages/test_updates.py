"""Stages follow a training whose steps were raised; sources change their weights without new work."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.lifecycle import registry, running
from pipeline.lifecycle.plan import Plan, plan_of
from preprocess.errors import UserError
from preprocess.files.manifest import check_files, read_manifest
from preprocess.vectors.cache import VectorCache

Tiny = Any  # of conftest.py
STAGES = ("train", "evaluate", "export", "embed")
MORE = "train.steps=60"
KEEP = "prepare.keep_dropped=true"


def sources(tiny: Tiny, tmp_path: Path) -> str:
    """Write a second text, and return the setting that embeds it."""
    path = tmp_path / "more.txt"
    path.write_text("kana lori\nmiko kana kana\n", encoding="utf-8")
    return f"embed.input={path}"


def run(tiny: Tiny, output: Path, *overrides: str) -> None:
    for stage in STAGES:
        tiny.run(stage, output, *overrides)


def vectors(cache: VectorCache) -> dict[str, bytes]:
    return {text: cache[text].tobytes() for text in cache}


def test_every_stage_follows_a_training_that_was_continued(tiny: Tiny, tmp_path: Path) -> None:
    text = f"embed.input={tiny.root}/corpus.txt"
    run(tiny, tmp_path / "whole", text, MORE)
    run(tiny, tmp_path / "grown", text, "train.steps=30")
    before = {name: read_manifest(f"{tmp_path}/grown/{name}") for name in STAGES}
    run(tiny, tmp_path / "grown", text, MORE)
    for name in STAGES:
        manifest = read_manifest(f"{tmp_path}/grown/{name}")
        assert not check_files(f"{tmp_path}/grown/{name}", manifest)
        assert manifest.details["replaces"] == [before[name].content]
        assert not (tmp_path / "grown" / name / "_work").exists()
    model = [read_manifest(f"{tmp_path}/{run}/export").content for run in ("whole", "grown")]
    assert len({*model}) == 2, "the cosine schedule ended earlier in the first training"
    # All is done, and the earlier settings are refused.
    for name in STAGES:
        assert "already done" in tiny.run(name, tmp_path / "grown", text, MORE)[1]
    with pytest.raises(UserError, match=r"train\.steps: 60 -> 30"):
        tiny.run("train", tmp_path / "grown", text, "train.steps=30")


def test_a_cache_that_follows_keeps_the_texts_that_were_appended(
    tiny: Tiny, tmp_path: Path
) -> None:
    first, more = f"embed.input={tiny.root}/corpus.txt", sources(tiny, tmp_path)
    run(tiny, tmp_path, first, "train.steps=30")
    tiny.run("embed", tmp_path, more, "embed.append=true", "train.steps=30")
    old = vectors(VectorCache.open(f"{tmp_path}/embed"))
    # The config of the run still names the first texts.
    run(tiny, tmp_path, first, MORE)
    new = vectors(VectorCache.open(f"{tmp_path}/embed"))
    assert new.keys() == old.keys()
    assert not [text for text in new if new[text] == old[text]]
    for text in (first, more):
        _, said = tiny.run("embed", tmp_path, text, "embed.append=true", MORE)
        assert "already done" in said
    inputs = (tmp_path / "embed" / "inputs.jsonl").read_text().splitlines()
    assert {json.loads(row)["name"] for row in inputs} >= {"corpus.txt", "more.txt"}


def test_a_cache_that_follows_while_texts_are_appended_still_holds_its_sample(
    tiny: Tiny, tmp_path: Path
) -> None:
    more = sources(tiny, tmp_path)
    run(tiny, tmp_path, "train.steps=30")
    for stage in ("train", "export"):
        tiny.run(stage, tmp_path, MORE)
    tiny.run("embed", tmp_path, more, "embed.append=true", MORE)
    assert "already done" in tiny.run("embed", tmp_path, MORE)[1]


def test_stages_follow_although_work_for_an_earlier_checkpoint_is_unfinished(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = f"embed.input={tiny.root}/corpus.txt"
    run(tiny, tmp_path, texts, "train.steps=30")
    tiny.run("train", tmp_path, "train.steps=40")
    with monkeypatch.context() as patched:
        patched.setattr(running._Run, "_finish", _interrupt)
        for stage in ("evaluate", "export"):
            with pytest.raises(KeyboardInterrupt):
                tiny.run(stage, tmp_path)
    tiny.run("train", tmp_path, MORE)
    for stage in ("evaluate", "export", "embed"):
        _, said = tiny.run(stage, tmp_path, texts, MORE)
        assert ("removed unfinished work" in said) == (stage != "embed")
        assert "extending the finished result" in said
        assert not (tmp_path / stage / "_work").exists()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_plan_tells_which_stages_will_follow_and_which_will_be_refused(
    tiny: Tiny, tmp_path: Path
) -> None:
    texts = f"embed.input={tiny.root}/corpus.txt"
    run(tiny, tmp_path, texts, "train.steps=30")

    def actions(*overrides: str, overwrite: bool = False) -> dict[str, str]:
        config, plans = tiny.config(tmp_path, texts, MORE, *overrides), dict[str, Plan]()
        for name in STAGES:
            plans[name] = plan_of(registry.STAGES[name], config, plans, overwrite)
        return {name: plan.action for name, plan in plans.items()}

    assert [*actions().values()] == ["extend"] * 4
    assert actions("embed.dtype=float32")["embed"] == "refuse"
    assert actions("embed.dtype=float32", overwrite=True)["embed"] == "replace"
    assert actions("export.weights=float16") == {
        **dict.fromkeys(STAGES, "extend"),
        "export": "refuse",
        "embed": "refuse",
    }
    none = "embed.texts=false"
    tiny.run("embed", tmp_path, sources(tiny, tmp_path), "embed.append=true", "train.steps=30")
    assert actions()["embed"] == "extend"
    assert actions(none)["embed"] == "refuse"


def test_a_cache_without_texts_is_refused_if_texts_were_appended(
    tiny: Tiny, tmp_path: Path
) -> None:
    none = "embed.texts=false"
    first, more = f"embed.input={tiny.root}/corpus.txt", sources(tiny, tmp_path)
    run(tiny, tmp_path, first, none, "train.steps=30")
    tiny.run("embed", tmp_path, more, "embed.append=true", none, "train.steps=30")
    for stage in ("train", "export"):
        tiny.run(stage, tmp_path, MORE)
    with pytest.raises(UserError, match=r"(?s)model\.content: .*name all of them in embed\.input$"):
        tiny.run("embed", tmp_path, first, none, MORE)


def test_a_training_on_another_corpus_is_refused_with_the_way_to_continue(
    tiny: Tiny, tmp_path: Path
) -> None:
    tiny.run("train", tmp_path)
    (tmp_path / "more.txt").write_text("kana lori\nmiko kana\n" * 50, encoding="utf-8")
    corpus = tmp_path / "other"
    text = f"prepare.input={tmp_path}/more.txt"
    tiny.run("prepare", corpus, text, "prepare.deduplicate=false")
    with pytest.raises(
        UserError, match=r"(?s)corpus\.content: .*set train\.init_from to /.*/train and"
    ):
        tiny.run("train", tmp_path, f"train.corpus={corpus}/prepare")


def test_the_size_of_a_batch_makes_no_other_result(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    settings = (f"embed.input={tiny.root}/corpus.txt", f"embed.model={trained}/export")
    tiny.run("embed", tmp_path, *settings)
    assert "already done" in tiny.run("embed", tmp_path, *settings, "embed.batch_tokens=77")[1]


# Weights and licences


def test_weights_and_licences_are_taken_over_without_tokenising_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("".join(f"{name} text {n}\n" for n in range(60)))

    def arguments(output: str, **changes: Any) -> list[str]:
        a = {"name": "a", "path": f"{tmp_path}/a.txt", **changes}
        b = {"name": "b", "path": f"{tmp_path}/b.txt"}
        text = json.dumps([a, b])
        return [f"prepare.input={text}", f"run.output={tmp_path}/{output}", "tokenizer.kind=word"]

    def prepared(output: str, **changes: Any) -> Any:
        for stage in ("tokenizer", "prepare"):
            assert main([stage, *arguments(output, **changes)]) == 0
        return read_manifest(f"{tmp_path}/{output}/prepare")

    before = prepared("run")
    fresh = prepared("fresh", weight=3.0, license="MIT")
    monkeypatch.setattr("pipeline.stages.prepare.run_job", None)
    changed = prepared("run", weight=3.0, license="MIT")
    assert changed.content == fresh.content != before.content
    assert changed.details == fresh.details
    assert "taking over prepare.input.0.weight: 1.0 -> 3.0" in capsys.readouterr().out
    assert not check_files(f"{tmp_path}/run/prepare", changed)
    # A licence changes no token, so what was trained on the corpus stays valid.
    licensed = prepared("run", weight=3.0, license="CC0")
    assert licensed.content == changed.content
    assert "CC0" in (tmp_path / "run" / "prepare" / "corpus.html").read_text()
    # Dropped texts are not kept after the fact, which is told as often as it is asked for.
    capsys.readouterr()
    for _ in range(2):
        assert main(["prepare", *arguments("run", weight=3.0, license="CC0"), KEEP]) == 0
        out = capsys.readouterr().out
        assert "made before a setting changed (prepare.keep_dropped: false -> true); kept" in out
    assert main(["prepare", *arguments("run", weight=4.0, license="CC0"), KEEP]) == 0
    settings = read_manifest(f"{tmp_path}/run/prepare").details["settings"]
    assert settings["prepare.keep_dropped"] is False
    (tmp_path / "run" / "prepare" / "stats.json").unlink()
    assert main(["prepare", *arguments("run")]) == 2
    assert "stats.json is missing; run `biloom check" in capsys.readouterr().err


# A worker that outlives its driver


def test_a_worker_of_an_earlier_request_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.stages import prepare
    from preprocess.corpus.first_pass import tokenize_unit
    from preprocess.corpus.job import Job
    from preprocess.reading.plan_file import read_planned

    (tmp_path / "text.txt").write_text("".join(f"line {n} of the text\n" for n in range(500)))
    filtered = "prepare.filters={min_characters: 19}"

    def arguments(output: Path, *more: str) -> list[str]:
        return [
            f"prepare.input={tmp_path}/text.txt",
            f"run.output={output}",
            f"prepare.tokenizer={tmp_path}/tokenizer",
            "prepare.unit_bytes=2000",
            "runner.options.mode=in_memory",
            *more,
        ]

    assert main(["tokenizer", f"prepare.input={tmp_path}/text.txt", f"run.output={tmp_path}"]) == 0
    assert main(["prepare", *arguments(tmp_path / "alone", filtered)]) == 0

    orphan: list[Job] = []
    real = prepare.run_job

    def killed(*given: Any) -> None:
        orphan.append(given[-1]._job)
        tokenize_unit(orphan[0], read_planned(orphan[0].work, 0))
        raise KeyboardInterrupt

    def with_orphan(*given: Any) -> None:
        # The worker of the killed driver writes the first pass of every unit, then the job runs.
        work = orphan[0].work
        (moved,) = (tmp_path / "run").glob("prepare.old-1/_work/*/plan.bin")
        Path(work).mkdir(parents=True)
        (Path(work) / "plan.bin").write_bytes(moved.read_bytes())
        for unit in range(given[5]):
            tokenize_unit(orphan[0], read_planned(work, unit))
        real(*given)

    with monkeypatch.context() as patched:
        patched.setattr(prepare, "run_job", killed)
        assert main(["prepare", *arguments(tmp_path / "run")]) == 130
        patched.setattr(prepare, "run_job", with_orphan)
        assert main(["prepare", *arguments(tmp_path / "run", filtered), "--overwrite"]) == 0
    ours, alone = (read_manifest(f"{tmp_path}/{name}/prepare") for name in ("run", "alone"))
    assert ours.content == alone.content
    assert not (tmp_path / "run" / "prepare" / "_work").exists()


@pytest.mark.parametrize("switch", ["keep_keys", "keep_dropped"])
def test_what_a_part_of_the_work_did_not_keep_cannot_be_kept_by_the_rest(
    switch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import pipeline.stages.prepare as prepare
    from preprocess.corpus.first_pass import tokenize_unit
    from preprocess.reading.plan_file import read_planned

    (tmp_path / "text.txt").write_text("".join(f"line {n} of the text\n" for n in range(300)))
    given = [f"prepare.input={tmp_path}/text.txt", f"run.output={tmp_path}"]
    given += ["prepare.unit_bytes=2000", "runner.options.mode=in_memory", "tokenizer.kind=char"]
    assert main(["tokenizer", *given]) == 0

    def killed(*arguments: Any) -> None:
        job = arguments[-1]._job
        tokenize_unit(job, read_planned(job.work, 0))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(prepare, "run_job", killed)
        assert main(["prepare", *given, f"prepare.{switch}=false"]) == 130
    assert main(["prepare", *given, f"prepare.{switch}=true"]) == 2
    assert f"\n    prepare.{switch}: false -> true\n" in capsys.readouterr().err
    assert main(["prepare", *given, f"prepare.{switch}=false"]) == 0
    assert "resuming unfinished work" in capsys.readouterr().out
