"""The prepare stage: the same bytes with any number of workers and after any kill."""

import gzip
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cli import main
from pipeline.stages import prepare as prepare_stage
from preprocess.files import storage
from preprocess.files.manifest import check_files, read_manifest
from preprocess.shards.format import Corpus
from preprocess.work.done import read_group_records

Tiny = Any  # of conftest.py
Command = Any
Capture = pytest.CaptureFixture[str]
WORDS = ("ka", "lo", "מים", "水", "пар", "ка́", "na", "te", "აბ", "ድ", "xyz", "w")
UNIT_BYTES = 2048


def sentences(number: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 9))) for _ in range(number)]


@dataclass(frozen=True)
class Text:
    """Raw text in several files, and options that prepare it in many small units."""

    folder: Path
    tokenizer: Path

    def arguments(self, output: Path | str, *overrides: str) -> list[str]:
        words = [
            "prepare",
            f"prepare.input={self.folder}/*",
            f"prepare.tokenizer={self.tokenizer}",
            f"prepare.unit_bytes={UNIT_BYTES}",
            "prepare.part_tokens=300",
            "prepare.shard_tokens=300",
            "prepare.valid_fraction=0.1",
            "tokenizer.kind=word",
            f"run.output={output}",
            *overrides,
        ]
        # An override takes the place of the one here, because a key may be set once only.
        return [*{word.partition("=")[0]: word for word in words}.values()]


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    root = tmp_path_factory.mktemp("text")
    folder = root / "raw"
    folder.mkdir()
    for number in range(3):
        lines = [*sentences(200, number), "", "   "]
        (folder / f"{number}.txt").write_text("\n".join(lines), encoding="utf-8")
    packed = gzip.compress("".join(f"{line}\n" for line in sentences(300, 9)).encode())
    (folder / "packed.txt.gz").write_bytes(packed)
    rows = [json.dumps({"text": line}) for line in sentences(60, 5)]
    rows += ["{", '{"txt": "a"}', '{"text": 1}', "", '{"text": "a\\nb"}']
    (folder / "rows.jsonl").write_text("\n".join(rows))
    made = Text(folder, root / "tokenizer")
    overrides = made.arguments(root, "prepare.tokenizer=null")[1:]
    assert main(["tokenizer", *overrides]) == 0
    return made


@pytest.fixture(scope="session")
def made(text: Text, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus that one process writes; read only."""
    output = tmp_path_factory.mktemp("made")
    assert main(text.arguments(output, "runner.options.mode=in_memory")) == 0
    return output / "prepare"


def shards(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files of a corpus."""
    names = [*folder.glob("*.bin"), *folder.glob("*.len"), *folder.glob("*.npy")]
    names += folder.glob("dropped-*")
    return {path.name: path.read_bytes() for path in names}


def assert_same(output: Path, made: Path) -> None:
    manifest = read_manifest(str(output / "prepare"), "prepare")
    assert manifest.content == read_manifest(str(made), "prepare").content
    assert shards(output / "prepare") == shards(made)
    assert check_files(str(output / "prepare"), manifest) == []
    assert not (output / "prepare" / "_work").exists()


def wait_until(reached: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "this took too long"
        time.sleep(0.01)


def records(output: Path, kind: str) -> int:
    return sum(1 for _ in (output / "prepare" / "_work").glob(f"*/{kind}/*.json"))


# Contents of a corpus


def test_every_document_is_accounted_for(made: Path) -> None:
    details = read_manifest(str(made), "prepare").details
    documents = details["documents"]
    dropped = documents["dropped"]
    assert documents["read"] == documents["written"] + sum(dropped.values())
    assert documents["read"] == 3 * 202 + 300 + 64
    bad = {name: dropped[name] for name in dropped if name not in ("duplicate", "empty")}
    assert bad == {"invalid_json": 1, "missing_text_field": 1, "text_not_a_string": 1}
    assert dropped["empty"] == 6
    totals = [Corpus.open(str(made)).totals(split) for split in ("train", "valid", "test")]
    assert sum(one["documents"] for one in totals) == documents["written"]
    assert totals[1]["documents"] > 0
    counts = np.load(made / "counts.npy")
    assert counts.sum() == totals[0]["tokens"]


def test_weights_change_the_content_hash_but_no_shard(text: Text, tmp_path: Path) -> None:
    made = {}
    for name, second in (("plain", "1"), ("same", "1.0"), ("more", "3")):
        sources = "".join(
            f"    - {{name: {n}, path: {text.folder}/{n}.txt, weight: {weight}}}\n"
            for n, weight in (("0", "1"), ("1", second))
        )
        config = tmp_path / f"{name}.yaml"
        config.write_text(f"prepare:\n  input:\n{sources}")
        arguments = text.arguments(tmp_path / name)[2:]
        assert main(["prepare", str(config), *arguments]) == 0
        made[name] = read_manifest(str(tmp_path / name / "prepare"), "prepare")
    assert made["plain"].content == made["same"].content != made["more"].content
    shards = [{f.name: f.xxh128 for f in m.files if "-" in f.name} for m in made.values()]
    assert shards[0] == shards[1] == shards[2]
    rows = made["more"].details["sources"]
    train = Corpus.open(str(tmp_path / "more" / "prepare")).shards("train")
    sizes = [sum(s.tokens + s.documents for s in train if s.source == n) for n in ("0", "1")]
    assert rows[1]["share"] == pytest.approx(3 * sizes[1] / (sizes[0] + 3 * sizes[1]))
    assert [row["documents"] > 0 for row in rows] == [True, True]


def test_dropped_documents_are_kept_with_their_positions(made: Path) -> None:
    rows = [
        json.loads(line)
        for path in sorted(made.glob("dropped-*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    assert [(row["reason"], row["excerpt"]) for row in rows] == [
        ("invalid_json", "{"),
        ("missing_text_field", '{"txt": "a"}'),
        ("text_not_a_string", '{"text": 1}'),
    ]
    assert all(row["where"].startswith("rows.jsonl:") for row in rows)


def test_prepare_writes_to_a_store_without_renames(text: Text, made: Path) -> None:
    url = f"memory://{made.parent.name}"
    assert main(text.arguments(url, "runner.options.mode=in_memory")) == 0
    manifest = read_manifest(f"{url}/prepare", "prepare")
    assert manifest.content == read_manifest(str(made), "prepare").content
    assert check_files(f"{url}/prepare", manifest) == []
    assert not storage.exists(f"{url}/prepare/_work")


# Engines and folders


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with packages of other people that have the names of ours."""
    for name in ("pipeline", "preprocess", "lightning_modules"):
        (tmp_path / "cwd" / name).mkdir(parents=True)
        (tmp_path / "cwd" / name / "__init__.py").write_text(f"raise ImportError('their {name}')")
    return tmp_path / "cwd"


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_write_the_same_bytes_from_any_folder(
    workers: int, text: Text, made: Path, hostile: Path, tmp_path: Path, biloom: Command
) -> None:
    mode = ("runner.options.mode=multi_processing", f"runner.options.workers={workers}")
    answer = biloom.run(*text.arguments(tmp_path, *mode), cwd=hostile)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert_same(tmp_path, made)


# Kills


def test_a_driver_killed_at_any_moment_resumes_to_the_same_bytes(
    text: Text, made: Path, tmp_path: Path, biloom: Command
) -> None:
    groups = len(list(made.glob("train-*-000.bin")))
    moments = [("units", 1), ("units", groups), ("groups", 1), ("groups", groups // 2)]
    for kind, number in moments:
        with biloom.start(*text.arguments(tmp_path)) as driver:
            while records(tmp_path, kind) < number and driver.poll() is None:
                time.sleep(random.random() * 0.02)
            driver.send_signal(signal.SIGKILL)
        assert driver.returncode == -signal.SIGKILL, "it was done before it could be killed"
        assert not (tmp_path / "prepare" / "manifest.json").exists()
    folder = tmp_path / "prepare"
    finished = [
        json.loads(one.read_text()) for one in (folder / "_work").glob("*/groups/[0-9]*.json")
    ]
    names = [row["name"] for record in finished for row in record["files"]]
    (result,) = (folder / "_work").glob("*/result")
    times = {name: (result / name).stat().st_mtime_ns for name in names}
    assert times
    assert main(text.arguments(tmp_path)) == 0
    assert_same(tmp_path, made)
    assert {name: (folder / name).stat().st_mtime_ns for name in names} == times


@pytest.mark.parametrize("connected", [True, False])
def test_a_killed_worker_ends_the_job_with_a_message_and_a_rerun_completes(
    connected: bool, text: Text, made: Path, tmp_path: Path, biloom: Command
) -> None:
    mode = ("runner.options.mode=multi_processing", "runner.options.workers=2")
    with biloom.start(*text.arguments(tmp_path, *mode)) as driver:
        wait_until(lambda: bool(driver.children()))
        if connected:
            wait_until(lambda: records(tmp_path, "units") > 0)
        os.kill(driver.children()[0], signal.SIGKILL)
        _, err = driver.communicate(timeout=60)
    assert (driver.returncode, err) == (
        3,
        "biloom: a worker process was killed, most likely because memory ran out. Lower "
        "runner.options.workers or prepare.unit_bytes. Run the same command again to resume\n",
    )
    assert main(text.arguments(tmp_path)) == 0
    assert_same(tmp_path, made)


def test_the_workers_of_a_killed_driver_end_with_it(
    text: Text, tmp_path: Path, biloom: Command
) -> None:
    mode = ("runner.options.mode=multi_processing", "runner.options.workers=2")
    with biloom.start(*text.arguments(tmp_path, *mode)) as driver:
        wait_until(lambda: records(tmp_path, "units") > 0)
        workers = driver.children()
        driver.send_signal(signal.SIGKILL)
    assert workers
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), 3)


def test_an_interrupt_ends_the_driver_and_its_workers_with_one_line(
    text: Text, tmp_path: Path, biloom: Command
) -> None:
    mode = ("runner.options.mode=multi_processing", "runner.options.workers=2")
    with biloom.start(*text.arguments(tmp_path, *mode), process_group=0) as driver:
        wait_until(lambda: len(driver.children()) == 2)
        workers = driver.children()
        assert os.getpgid(workers[0]) != driver.pid, "Ctrl-C is for the driver alone"
        os.killpg(driver.pid, signal.SIGINT)
        _, err = driver.communicate(timeout=60)
    assert (driver.returncode, err) == (
        130,
        "\nbiloom: stopped; the same command continues from what is saved\n",
    )
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    assert not (tmp_path / "prepare" / "_work" / "lock.json").exists()


# User errors


def with_damage(text: Text, folder: Path) -> Text:
    raw = folder / "raw"
    shutil.copytree(text.folder, raw)
    packed = raw / "packed.txt.gz"
    packed.write_bytes(packed.read_bytes()[:-900])
    return Text(raw, text.tokenizer)


@pytest.mark.parametrize("mode", ["in_memory", "multi_processing"])
def test_a_damaged_file_gives_one_message_from_a_worker_process_too(
    mode: str, text: Text, tmp_path: Path, biloom: Command
) -> None:
    damaged = with_damage(text, tmp_path)
    options = (f"runner.options.mode={mode}", "runner.options.workers=2")
    answer = biloom.run(*damaged.arguments(tmp_path, *options))
    assert (answer.returncode, answer.stderr) == (
        2,
        f"biloom: {damaged.folder}/packed.txt.gz: this compressed file is truncated; replace it with "
        "an intact copy, leave it out of the input, or keep what can be read with "
        "prepare.damaged_files=skip\n",
    )


def test_after_a_damaged_file_is_replaced_only_unfinished_units_are_read(
    text: Text, tmp_path: Path, made: Path, capsys: Capture
) -> None:
    damaged = with_damage(text, tmp_path)
    assert main(damaged.arguments(tmp_path)) == 2
    shutil.copy(text.folder / "packed.txt.gz", damaged.folder)
    # A file of another size is another request, so the unfinished work is refused.
    assert main(damaged.arguments(tmp_path)) == 2
    assert "unfinished work made with other settings or inputs" in capsys.readouterr().err
    assert main([*damaged.arguments(tmp_path), "--overwrite"]) == 0
    assert_same(tmp_path, made)


def test_a_file_changed_at_equal_size_is_refused_by_name_and_a_touched_one_is_not(
    text: Text, tmp_path: Path, capsys: Capture
) -> None:
    raw = Text(shutil.copytree(text.folder, tmp_path / "raw"), text.tokenizer)
    assert main(raw.arguments(tmp_path)) == 0
    changed = raw.folder / "1.txt"
    os.utime(changed, ns=(1, 1))
    capsys.readouterr()
    assert main(raw.arguments(tmp_path)) == 0
    assert capsys.readouterr().out.endswith("  already done\n")
    data = changed.read_bytes()
    changed.write_bytes(data[:-1] + b"!")
    assert main(raw.arguments(tmp_path)) == 2
    assert "    1.txt: its contents changed, but not its size\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raw", "overrides", "problem"),
    [
        (b"", (), "{}: no documents found; set prepare.input to files with text"),
        (b"\n \n\t\r\n", (), "{}: all 3 documents were dropped (3 empty); check the text"),
    ],
)
def test_text_without_a_document_is_refused(
    raw: bytes,
    overrides: tuple[str, ...],
    problem: str,
    tiny: Tiny,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    file = tmp_path / "raw.txt"
    file.write_bytes(raw)
    arguments = tiny.arguments(tmp_path, f"prepare.input={file}", *overrides)
    assert main(["prepare", *arguments]) == 2
    assert capsys.readouterr().err == f"biloom: {problem.format(file)}\n"
    assert not (tmp_path / "prepare" / "manifest.json").exists()


@pytest.mark.parametrize(("fraction", "split"), [("0", "train"), ("0.99", "valid")])
def test_one_line_is_a_corpus_even_if_it_is_held_out(
    fraction: str, split: str, tiny: Tiny, tmp_path: Path
) -> None:
    file = tmp_path / "raw.txt"
    file.write_text("ka lo מים")
    arguments = tiny.arguments(
        tmp_path, f"prepare.input={file}", f"prepare.valid_fraction={fraction}"
    )
    assert main(["prepare", *arguments]) == 0
    corpus = Corpus.open(str(tmp_path / "prepare"))
    assert [corpus.totals(one)["documents"] for one in (split, "test")] == [1, 0]
    assert corpus.totals(split)["tokens"] == 3


def test_a_document_that_is_unaccounted_for_fails_the_stage(
    text: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def one_more(*given: Any) -> Iterator[dict[str, Any]]:
        for number, record in enumerate(read_group_records(*given)):
            yield {**record, "read": record["read"] + (number == 1)}

    monkeypatch.setattr(prepare_stage, "read_group_records", one_more)
    assert main(text.arguments(tmp_path)) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"biloom: {tmp_path}/prepare: 971 documents read, but ")
    assert err.endswith("; this is a bug in biloom, please report it\n")
    assert not (tmp_path / "prepare" / "manifest.json").exists()


# Text found in practice


@pytest.fixture(scope="session")
def nasty() -> Path:
    folder = os.environ.get("BILOOM_TEST_DATA")
    if not folder:
        pytest.skip("BILOOM_TEST_DATA names no folder of test data")
    return Path(folder) / "nasty"


DAMAGED = {
    "corrupt-middle.txt.gz": "damaged compressed file",
    "truncated.txt.gz": "this compressed file is truncated",
    "zero-length.txt.gz": "this file is empty (0 bytes), which no intact file of its format is",
    "latin1.txt": "100% of the characters outside ASCII are invalid in utf-8; set 'encoding: cp1252'",
    "half-utf8-half-gb18030.txt": "15% of the characters outside ASCII are invalid in utf-8",
    "utf16le-nobom.txt": "50% of its bytes are NUL, as in text in utf-16-le",
    "1046_ruby_4521.txt": "79% of the characters outside ASCII are invalid in utf-8; set 'encoding: cp932'",
    "1073_ruby_4526.txt": "79% of the characters outside ASCII are invalid in utf-8; set 'encoding: cp932'",
    "000-神农本草经.txt": "78% of the characters outside ASCII are invalid in utf-8; set 'encoding: gb18030'",
    "002-本草经集注.txt": "79% of the characters outside ASCII are invalid in utf-8; set 'encoding: gb18030'",
}


def test_every_nasty_file_is_read_beside_good_ones(nasty: Path, text: Text, tmp_path: Path) -> None:
    files = [path for path in nasty.rglob("*") if path.is_file() and path.name not in DAMAGED]
    names = json.dumps([*map(str, files), f"{text.folder}/*"])
    assert main(text.arguments(tmp_path, f"prepare.input={names}", "prepare.unit_bytes=null")) == 0
    documents = read_manifest(str(tmp_path / "prepare"), "prepare").details["documents"]
    assert documents["replaced"] > 300
    assert documents["read"] == documents["written"] + sum(documents["dropped"].values())


def test_files_in_other_encodings_are_left_out_or_found(
    text: Text, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    russian = "Все счастливые семьи похожи друг на друга, каждая по-своему.\n" * 3
    (folder / "a.txt").write_text(russian)
    for name, encoding in (("b", "cp1251"), ("c", "utf-16-le"), ("d", "cp1251")):
        (folder / f"{name}.txt").write_bytes(f"{name} {russian}".encode(encoding))
    common = ("prepare.valid_fraction=0", "prepare.deduplicate=false")

    def run(output: str, source: str, *overrides: str) -> tuple[dict[str, Any], str]:
        given = f"prepare.input=[{{path: {folder}/*, {source}}}]"
        assert main(text.arguments(tmp_path / output, given, *common, *overrides)) == 0
        manifest = read_manifest(str(tmp_path / output / "prepare"), "prepare")
        return manifest.details, capsys.readouterr().out

    details, out = run("skip", "name: x", "prepare.damaged_files=skip")
    assert details["documents"]["dropped"] == {"damaged_file": 3}
    assert (details["documents"]["written"], details["documents"]["replaced"]) == (3, 0)
    assert "encodings" not in details
    aside = next((tmp_path / "skip" / "prepare").glob("dropped-*")).read_text()
    assert "set 'encoding: utf-16-le'" in aside
    assert aside.count("set 'encoding: cp1251'") == 2
    details, out = run("auto", "encoding: auto")
    assert details["encodings"] == {"cp1251": 2, "utf-16-le": 1, "utf-8": 1}
    assert "files by detected encoding: 2 cp1251, 1 utf-16-le, 1 utf-8" in out
    assert (details["documents"]["written"], details["documents"]["replaced"]) == (12, 0)


@pytest.mark.parametrize("name", DAMAGED)
def test_every_damaged_file_stops_the_job_with_its_name(
    name: str, nasty: Path, text: Text, tmp_path: Path, capsys: Capture
) -> None:
    file = nasty / "compressed" / name
    if not file.exists():
        file = next(nasty.rglob(name))
    names = json.dumps([str(file), f"{text.folder}/0.txt"])
    assert main(text.arguments(tmp_path, f"prepare.input={names}")) == 2
    err = capsys.readouterr().err
    assert err.startswith("biloom: ")
    assert f"{name}: {DAMAGED[name]}" in err
    assert err.count("\n") == 1
