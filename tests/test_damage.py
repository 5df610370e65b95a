"""A changed byte in any file of a run, finished or not, is noticed or has no effect."""

import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from biloom import BiLM
from lightning_modules.models.model_folder import network_of_checkpoint
from pipeline.beam import word_count_job
from pipeline.cli import main
from pipeline.commands.status import status_of
from pipeline.lifecycle.stage import CONFIG
from pipeline.reports.run_folder import read_metrics, read_result
from pipeline.stages import embed, prepare
from preprocess.corpus.text_search import CorpusTexts
from preprocess.corpus.tracing import CorpusOrigins
from preprocess.errors import UserError
from preprocess.files.manifest import NAME, check_files, read_manifest
from preprocess.files.verified import read_config
from preprocess.reading.changed_inputs import read_inputs
from preprocess.shards.format import Corpus
from preprocess.text.config import SPLITS
from preprocess.tokenizers.load import load_tokenizer

STAGES = ("tokenizer", "prepare", "train", "evaluate", "export")
TEXTS = ["ka na lo", "mi pu ка", "raw"]
TIMES = count(1)
FLIPS, SLOW_FLIPS = 4, 60
"""Flips per file in the fast test, and in all through the commands."""


def read_tokenizer(folder: str) -> list[Any]:
    tokenizer = load_tokenizer(folder)
    spellings = [tokenizer.spelling(number) for number in range(tokenizer.vocabulary)]
    return [spellings, [ids.tolist() for ids in tokenizer.encode(TEXTS)]]


def read_corpus(folder: str) -> list[Any]:
    corpus = Corpus.open(folder)
    origins = CorpusOrigins(folder, corpus.manifest)
    found: list[Any] = [corpus.counts().tolist(), list(origins.rejected())]
    for shard in (shard for split in SPLITS for shard in corpus.shards(split)):
        found += [shard.ids.tobytes(), shard.lengths.tobytes()]
    found += [table.origins.encode() for table in origins.tables()]
    tokenizer = load_tokenizer(str(Path(folder).parent / "tokenizer"))
    name = corpus.shards("train")[0].name
    found += [CorpusTexts(corpus, tokenizer).text(name, 1), origins.find(name, 1)]
    return found


def read_training(folder: str) -> list[Any]:
    weights = network_of_checkpoint(folder, read_manifest(folder).details).state_dict()
    return [{name: tensor.numpy().tobytes() for name, tensor in weights.items()}]


def read_model(folder: str) -> list[Any]:
    model = BiLM.from_pretrained(folder)
    return [one.vectors.tobytes() for one in model.embed(TEXTS)]


READERS: dict[str, Callable[[str], list[Any]]] = {
    "tokenizer": read_tokenizer,
    "prepare": read_corpus,
    "train": read_training,
    "evaluate": lambda _: [],
    "export": read_model,
}


def everything(run: Path, stage: str) -> list[Any]:
    """Return the results of the readers of a stage; None for each that raises `UserError`."""
    folder = str(run / stage)
    readers: list[Callable[[], Any]] = [
        lambda: READERS[stage](folder),
        lambda: read_result(folder, stage).stats,
        lambda: read_config(folder, read_manifest(folder), CONFIG),
        lambda: read_inputs(folder, read_manifest(folder)),
        lambda: status_of(str(run), stage).state != "damaged" or None,
    ]
    if stage == "train":
        readers.append(lambda: read_metrics(folder))
    found: list[Any] = []
    told: list[str] = []
    for read in readers:
        try:
            found.append(read())
        except UserError as error:
            told.append(str(error))
            found.append(None)
    assert all(re.search(r"run `biloom |`biloom \w+ --overwrite`|copy ", one) for one in told), told
    return found


@pytest.fixture
def run(tiny: Any, trained: Path, tmp_path: Path) -> Path:
    for stage in STAGES:
        source = tiny.root if stage in ("tokenizer", "prepare") else trained
        shutil.copytree(source / stage, tmp_path / "run" / stage)
    return tmp_path / "run"


def flips(file: Path, number: int, draw: random.Random) -> Iterator[int]:
    """Yield positions at which a byte of the file is changed, and restore it afterwards."""
    whole = file.read_bytes()
    # At the start, the end and anywhere.
    places = {0, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(number))}
    for place in sorted(places)[: number + 1]:
        changed = bytearray(whole)
        changed[place] ^= 1 << draw.randrange(8)
        file.write_bytes(changed)
        # Two writes in the same tick of the disk's clock have equal times.
        os.utime(file, ns=(0, next(TIMES) * 10**6))
        yield place
    file.write_bytes(whole)
    os.utime(file, ns=(0, next(TIMES) * 10**6))


@pytest.mark.parametrize("stage", STAGES)
def test_a_changed_byte_is_noticed_or_has_no_effect(run: Path, stage: str) -> None:
    draw = random.Random(stage)
    whole = everything(run, stage)
    assert None not in whole
    folder = run / stage
    seen = 0
    for file in sorted(
        path for path in folder.rglob("*") if path.is_file() and path.stat().st_size
    ):
        listed = read_manifest(str(folder)).records
        assert file.name in {*listed, NAME, "wandb.json"}
        for place in flips(file, FLIPS, draw):
            found = everything(run, stage)
            assert all(a is None or a == b for a, b in zip(found, whole, strict=True)), (
                f"{file.name}: byte {place} changed the result in silence"
            )
            seen += 1
            if file.name != NAME:
                [problem] = check_files(str(folder), read_manifest(str(folder)))
                assert problem.startswith(f"{file.name}: hash is ")
    assert seen >= 2 * FLIPS
    assert everything(run, stage) == whole


@pytest.mark.parametrize(
    ("stage", "damaged", "overrides"),
    [
        ("prepare", "tokenizer", ("prepare.tokenizer={run}/tokenizer",)),
        ("train", "prepare", ("train.corpus={run}/prepare", "train.steps=2")),
        ("evaluate", "prepare", ("evaluate.corpus={run}/prepare",)),
        ("evaluate", "train", ("evaluate.checkpoint={run}/train",)),
        ("export", "train", ("export.checkpoint={run}/train",)),
        ("export", "tokenizer", ("prepare.tokenizer={run}/tokenizer",)),
        ("train", "export", ("train.init_from={run}/export", "train.steps=2")),
        ("train", "train", ("train.init_from={run}/train", "train.steps=2")),
        ("embed", "export", ("embed.model={run}/export", "embed.sample=3")),
    ],
)
@pytest.mark.slow
def test_stages_notice_a_changed_byte(
    tiny: Any,
    trained: Path,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    damaged: str,
    overrides: tuple[str, ...],
) -> None:
    """Each stage ends with a message, or with the result of the undamaged files."""
    given = [
        *(f"evaluate.checkpoint={trained}/train", f"export.checkpoint={trained}/train"),
        *(one.format(run=run) for one in overrides),
    ]

    def content(output: Path) -> str:
        shutil.rmtree(output, ignore_errors=True)
        code = main([stage, *tiny.arguments(output, *given)])
        printed = capsys.readouterr().err
        assert code in (0, 2), printed
        assert (code == 2) == printed.startswith("biloom: "), printed
        return read_manifest(str(output / stage)).content if code == 0 else ""

    whole = content(tmp_path / "whole")
    assert whole
    draw = random.Random(stage + damaged)
    files = [path for path in sorted((run / damaged).rglob("*")) if path.stat().st_size]
    for _ in range(SLOW_FLIPS // 2):
        for place in flips(file := draw.choice(files), 1, draw):
            found = content(tmp_path / "damaged")
            assert found in ("", whole), f"{file.name}: byte {place} changed the result in silence"
    assert content(tmp_path / "damaged") == whole


class _Stopped(BaseException):
    """Stands for a kill after the Beam job."""


def _stop(*_: object) -> None:
    raise _Stopped


@pytest.mark.parametrize(
    ("stage", "after_job", "overrides"),
    [
        ("tokenizer", (word_count_job, "read_counted"), ()),
        (
            "prepare",
            (prepare, "_collect"),
            (
                "prepare.near_duplicates.similarity=0.8",
                "prepare.keep_dropped=true",
                "prepare.part_tokens=300",
                "prepare.shard_tokens=300",
            ),
        ),
        ("embed", (embed.Sums, "of"), ("embed.model={trained}/export", "embed.sample=20")),
    ],
)
@pytest.mark.slow
def test_damaged_unfinished_work_is_told_or_done_again(
    tiny: Any,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    after_job: tuple[Any, str],
    overrides: tuple[str, ...],
) -> None:
    given = [one.format(trained=trained) for one in overrides]
    begun, whole, damaged = (tmp_path / name for name in ("begun", "whole", "damaged"))
    with monkeypatch.context() as patched:
        patched.setattr(*after_job, _stop)
        with pytest.raises(_Stopped):
            main([stage, *tiny.arguments(begun, *given)])
    shutil.copytree(begun, whole)
    assert main([stage, *tiny.arguments(whole, *given)]) == 0
    content = read_manifest(str(whole / stage)).content
    draw = random.Random(stage)
    # As many files of each kind.
    kinds: dict[str, list[Path]] = {}
    for path in sorted(begun.rglob("*")):
        if path.is_file() and path.stat().st_size:
            kinds.setdefault(path.parent.name + path.suffix, []).append(path)
    for _ in range(SLOW_FLIPS // 2):
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(begun, damaged)
        if draw.random() < 0.5:  # so that the last pass runs again
            for record in damaged.rglob("finished/*.json"):
                record.unlink()
        file = damaged / draw.choice(kinds[draw.choice(sorted(kinds))]).relative_to(begun)
        if not file.exists():
            continue
        data = bytearray(file.read_bytes())
        place = draw.randrange(len(data))
        data[place] ^= 1 << draw.randrange(8)
        file.write_bytes(data)
        capsys.readouterr()
        code = main([stage, *tiny.arguments(damaged, *given)])
        printed = capsys.readouterr().err
        if code == 0:
            manifest = read_manifest(str(damaged / stage))
            assert manifest.content == content, f"{file.name}: byte {place}"
            assert not check_files(str(damaged / stage), manifest), f"{file.name}: byte {place}"
        else:
            assert code == 2, printed
            assert re.match(r"biloom: .* is damaged \(.*; delete .*_work", printed), printed
