"""The settings and inputs that decide the result of each stage."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.lifecycle.inputs import stage_folder
from pipeline.lifecycle.registry import STAGES
from preprocess.files.fingerprint import fingerprint, plain
from preprocess.files.manifest import ManifestError

Tiny = Any  # of conftest.py

CHANGES = {
    "tokenizer.min_count=2": {"tokenizer"},
    "prepare.valid_fraction=0.2": {"tokenizer", "prepare", "embed"},
    "prepare.cleaning.unicode=NFKC": {"tokenizer", "prepare", "embed"},
    "prepare.unit_bytes=4096": {"tokenizer", "prepare", "embed"},
    "prepare.filters.min_characters=3": {"tokenizer", "prepare", "embed"},
    "prepare.filters.c4={}": {"tokenizer", "prepare", "embed"},
    "prepare.filters.min_language_score=null": set(),
    "prepare.mask.email=<email>": {"tokenizer", "prepare", "embed"},
    "prepare.decontamination.ngram=9": {"tokenizer", "prepare", "embed"},
    "prepare.max_document_bytes=99999": {"tokenizer", "prepare", "embed"},
    "prepare.sampling_alpha=0.5": set(),
    "prepare.deduplicate=false": {"prepare"},
    "prepare.shard_tokens=99": {"prepare"},
    "prepare.part_tokens=99": set(),
    "model.recurrent.hidden=16": {"train"},
    "train.steps=41": {"train"},
    "train.seed=2": {"train"},
    "evaluate.split=test": {"evaluate"},
    "embed.dtype=float32": {"embed"},
    "embed.sample=7": {"embed"},
    # Settings that decide only how, where or how fast.
    "run.output=/elsewhere": set(),
    "runner.options.mode=multi_processing": set(),
    "runner.options.workers=3": set(),
    "train.log_steps=3": set(),
    "train.checkpoint_steps=3": set(),
    "train.evaluate_steps=3": set(),
    "train.evaluate_share=0.1": set(),
    "train.evaluate_rows=3": set(),
    "train.devices=2": set(),
    "train.num_nodes=2": set(),
    "train.row_passes=3": set(),
    "train.cuda_graphs=off": set(),
    "train.data_workers=3": set(),
    "train.cache_bytes=3": set(),
    "tracking.project=other": set(),
    "report.neighbours=2": set(),
}


def fingerprints(tiny: Tiny, trained: Path, *overrides: str) -> dict[str, str]:
    """Return the fingerprint of each stage; the inputs from earlier stages are fixed."""
    joined = (
        f"evaluate.checkpoint={trained / 'train'}",
        f"export.checkpoint={trained / 'train'}",
        f"embed.model={trained / 'export'}",
    )
    config = tiny.config(trained, *joined, *overrides)
    return {name: fingerprint(plain(stage.request(config))) for name, stage in STAGES.items()}


@pytest.mark.parametrize("override", CHANGES)
def test_a_setting_changes_the_stages_it_decides_and_no_others(
    override: str, tiny: Tiny, trained: Path
) -> None:
    before, after = fingerprints(tiny, trained), fingerprints(tiny, trained, override)
    assert {name for name in STAGES if before[name] != after[name]} == CHANGES[override]


def test_raw_files_count_by_name_and_size_and_not_by_folder(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    raw = (tiny.root / "corpus.txt").read_bytes()
    for name, data in (("corpus.txt", raw), ("other.txt", raw), ("longer/corpus.txt", raw + b"x")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    before = fingerprints(tiny, trained)

    def changed(name: str) -> set[str]:
        after = fingerprints(tiny, trained, f"prepare.input={tmp_path / name}")
        return {stage for stage in STAGES if before[stage] != after[stage]}

    assert changed("corpus.txt") == set()
    assert changed("other.txt") == changed("longer/corpus.txt") == {"tokenizer", "prepare", "embed"}


def test_settings_of_the_sample_do_not_count_if_texts_to_embed_are_named(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("ka lo")
    given = f"embed.input={text}"
    before = fingerprints(tiny, trained, given)["embed"]
    for override in ("embed.sample=7", "embed.seed=2", "prepare.valid_fraction=0.2"):
        assert fingerprints(tiny, trained, given, override)["embed"] == before
    text.write_text("ka lo lo")
    assert fingerprints(tiny, trained, given)["embed"] != before
    assert tiny.config(tmp_path).embed.sources is None


def test_a_stage_folder_is_the_one_named_or_the_one_of_this_run(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config(tmp_path)
    assert stage_folder(config, "train") == f"{tmp_path}/train"
    assert stage_folder(config, "train", "/models/a") == "/models/a"
    assert stage_folder(config, "train", "s3://bucket/a") == "s3://bucket/a"


def test_an_input_that_is_not_finished_is_refused_with_the_command_for_it(
    tiny: Tiny, tmp_path: Path
) -> None:
    config = tiny.config(tmp_path, "train.corpus=null")
    with pytest.raises(ManifestError) as caught:
        STAGES["train"].request(config)
    assert str(caught.value) == (
        f"{tmp_path}/prepare holds no finished 'prepare' (no manifest.json); run `biloom prepare` "
        "first, or check the path"
    )
