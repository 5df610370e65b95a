"""``prepare.known``: documents of finished corpora are dropped, counted by corpus and traced."""

import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from preprocess.corpus.text_search import CorpusTexts
from preprocess.files.manifest import Manifest, check_files, read_manifest
from preprocess.shards.format import Corpus
from preprocess.tokenizers.load import load_tokenizer

Capture = pytest.CaptureFixture[str]
WORDS = [f"w{n}" for n in range(400)]


def texts(number: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=60)) for _ in range(number)]


FIRST, SECOND, NEW = texts(30, 1), texts(10, 2), texts(20, 3)


def nearly(text: str) -> str:
    return f"{text} and one more word"


def command(output: Path | str, source: Path, *options: str) -> list[str]:
    words = [
        "prepare",
        f"prepare.input={source}",
        f"prepare.tokenizer={source.parent / 'tokenizer'}",
        "prepare.near_duplicates.similarity=0.8",
        "prepare.unit_bytes=4096",
        "prepare.valid_fraction=0",
        "tokenizer.kind=char",
        "runner.options.mode=in_memory",
        f"run.output={output}",
        *options,
    ]
    # An option takes the place of the one here, because a key may be set once only.
    return [*{word.partition("=")[0]: word for word in words}.values()]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished corpora, and the text of a third."""
    root = tmp_path_factory.mktemp("known")
    new = [
        *NEW[:10],
        FIRST[4],  # equal to a document
        nearly(FIRST[5]),  # similar to a document
        SECOND[2],
        NEW[3],  # equal to an own document
        nearly(NEW[4]),
        nearly(SECOND[3]),
        FIRST[4],
        nearly(FIRST[4]),  # similar to an own document that is known
        *NEW[10:],
    ]
    for name, lines in (("first", FIRST), ("second", SECOND), ("new", new)):
        (root / f"{name}.txt").write_text("\n".join(lines))
    arguments = command(root, root / "*.txt", "prepare.tokenizer=null")[1:]
    assert main(["tokenizer", *arguments]) == 0
    for name in ("first", "second"):
        assert main(command(root / name, root / f"{name}.txt")) == 0
    return root


def known_of(root: Path, *names: str) -> str:
    return f"prepare.known=[{','.join(f'{root}/{name}/prepare' for name in names)}]"


def documents(folder: Path, root: Path) -> list[str]:
    """Return the texts of a corpus of one split, in order."""
    corpus = Corpus.open(str(folder))
    texts = CorpusTexts(corpus, load_tokenizer(str(root / "tokenizer")))
    return [
        texts.text(shard.name, number)
        for shard in corpus.shards("train")
        for number in range(shard.documents)
    ]


def dropped_of(manifest: Manifest) -> dict[str, int]:
    dropped: dict[str, int] = manifest.details["documents"]["dropped"]
    return dropped


@pytest.fixture(scope="module")
def made(root: Path) -> Path:
    output = root / "made"
    options = (known_of(root, "first", "second"), "prepare.keep_dropped=true")
    assert main(command(output, root / "new.txt", *options)) == 0
    return output / "prepare"


def test_documents_of_known_corpora_are_dropped_and_counted_by_corpus(
    root: Path, made: Path
) -> None:
    manifest = read_manifest(str(made), "prepare")
    assert dropped_of(manifest) == {
        "duplicate": 1,
        "known": 3,
        "known_near_duplicate": 3,
        "near_duplicate": 1,
    }
    assert [row["dropped"] for row in manifest.details["known"]] == [
        {"known": 2, "known_near_duplicate": 2},
        {"known": 1, "known_near_duplicate": 1},
    ]
    contents = [read_manifest(f"{root}/{name}/prepare").content for name in ("first", "second")]
    assert [row["content"] for row in manifest.details["known"]] == contents
    assert manifest.asked["known.content"] == contents
    assert check_files(str(made), manifest) == []
    assert documents(made, root) == NEW


def test_what_was_dropped_is_kept_for_inspection(root: Path, made: Path) -> None:
    rows = [
        json.loads(line)
        for path in sorted(made.glob("dropped-*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    known = {row["text"]: row for row in rows if row["reason"].startswith("known")}
    assert known.keys() == {
        *(FIRST[4], nearly(FIRST[4]), nearly(FIRST[5])),
        *(SECOND[2], nearly(SECOND[3])),
    }
    first, second = (read_manifest(f"{root}/{n}/prepare").content for n in ("first", "second"))
    assert (known[nearly(SECOND[3])]["known"], known[SECOND[2]]["known"]) == (second, second)
    assert known[FIRST[4]]["known"] == first
    assert Counter(row["reason"] for row in rows)["known"] == 3


def test_trace_names_the_document_of_the_known_corpus(
    root: Path, made: Path, capsys: Capture
) -> None:
    assert main(["trace", str(made), "--duplicates"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    known = [row for row in rows if row[1].startswith("known")]
    assert len(known) == 6
    texts_of = {"first": FIRST, "second": SECOND}
    for name, became, _, where in known:
        reason, folder, unit, number = became.replace(" of ", " ").split(" ")
        assert main(["trace", folder, unit, number]) == 0
        shard, _, _, place, text = capsys.readouterr().out.rstrip("\n").split("\t")
        assert shard.startswith("train-")
        assert text in texts_of[Path(folder).parent.name]
        assert place.startswith(f"{Path(folder).parent.name}.txt:")
        offset = int(where.partition(":")[2])
        own = (root / "new.txt").read_bytes()[offset:].split(b"\n")[0].decode()
        assert own == (text if reason == "known" else nearly(text))
        assert main(["trace", str(made), *name.split(" ")]) == 0
        assert f"\t{became}\t" in capsys.readouterr().out


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_folders_or_units_of_the_known_corpora(
    root: Path, made: Path, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        shutil.copytree(root / name, tmp_path / "elsewhere" / name)
    options = (known_of(tmp_path / "elsewhere", "first", "second"), "prepare.keep_dropped=true")
    processes = ("runner.options.mode=multi_processing", "runner.options.workers=2")
    output = tmp_path / "moved"
    arguments = command(output, root / "new.txt", *options, processes[0])
    assert main(arguments) == 0
    former, manifest = (read_manifest(str(f), "prepare") for f in (made, output / "prepare"))
    assert manifest.fingerprint == former.fingerprint
    assert manifest.files == former.files


def test_a_finished_corpus_with_the_same_known_ones_is_done(
    root: Path, made: Path, capsys: Capture
) -> None:
    options = (known_of(root, "first", "second"), "prepare.keep_dropped=true")
    assert main(command(made.parent, root / "new.txt", *options)) == 0
    assert "already done" in capsys.readouterr().out
    other = (known_of(root, "second"), "prepare.keep_dropped=true")
    assert main(command(made.parent, root / "new.txt", *other)) == 2
    assert "known.content: [" in capsys.readouterr().err
    assert main(command(made.parent, root / "new.txt", "prepare.keep_dropped=true")) == 2
    assert "known.content: removed (was [" in capsys.readouterr().err


def test_without_deduplication_only_known_documents_are_dropped(root: Path, tmp_path: Path) -> None:
    options = (
        f"prepare.known={root}/first/prepare",
        "prepare.deduplicate=false",
        "prepare.near_duplicates.similarity=null",
    )
    assert main(command(tmp_path, root / "new.txt", *options)) == 0
    manifest = read_manifest(str(tmp_path / "prepare"))
    assert dropped_of(manifest) == {"known": 2}
    # The corpora that it may be compared with have keys for exact duplicates only.
    assert manifest.details["keys"] == {"near_duplicates": None}


@pytest.mark.parametrize(
    ("option", "theirs"),
    [
        ("prepare.near_duplicates.seed=2", "seed=1"),
        ("prepare.near_duplicates.similarity=0.7", "similarity=0.8"),
    ],
)
def test_other_settings_of_near_duplicates_leave_exact_duplicates_and_are_told(
    root: Path, tmp_path: Path, capsys: Capture, option: str, theirs: str
) -> None:
    options = (known_of(root, "first"), option)
    assert main(command(tmp_path, root / "new.txt", *options)) == 0
    told = " ".join("".join(capsys.readouterr()).split())
    assert (
        "only its exact duplicates are dropped, because it was prepared with prepare.near_dup"
        in told
    )
    assert theirs in told
    dropped = dropped_of(read_manifest(str(tmp_path / "prepare")))
    # The text that is similar to one of a known corpus is kept, unless it is similar to an own one.
    assert dropped == {"duplicate": 1, "known": 2, "near_duplicate": 2}


def test_an_option_without_near_duplicates_needs_no_warning(
    root: Path, tmp_path: Path, capsys: Capture
) -> None:
    options = (known_of(root, "first"), "prepare.near_duplicates.similarity=null")
    assert main(command(tmp_path, root / "new.txt", *options)) == 0
    captured = capsys.readouterr()
    assert "only its exact" not in captured.out + captured.err
    assert dropped_of(read_manifest(str(tmp_path / "prepare"))) == {"duplicate": 1, "known": 2}


def refusal(arguments: list[str], capsys: Capture) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    return " ".join(capsys.readouterr().err.split())


def test_a_corpus_without_keys_is_refused(root: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(command(tmp_path / "bare", root / "first.txt", "prepare.keep_keys=false")) == 0
    bare = tmp_path / "bare" / "prepare"
    assert not [*bare.glob("keys-*")]
    assert "keys" not in read_manifest(str(bare)).details
    arguments = command(tmp_path / "new", root / "new.txt", f"prepare.known={bare}")
    assert (
        f"prepare.known: {bare} has no keys of its documents, because it was prepared with "
        "prepare.keep_keys=false or by an earlier version of biloom; prepare it in another run.output"
    ) in refusal(arguments, capsys)


def test_another_cleaning_is_refused(root: Path, tmp_path: Path, capsys: Capture) -> None:
    options = (known_of(root, "first"), "prepare.cleaning.unicode=NFKC")
    told = refusal(command(tmp_path, root / "new.txt", *options), capsys)
    assert f"prepare.known: the documents of {root}/first/prepare were changed by other" in told
    assert "(unicode: NFC, here NFKC)" in told


@pytest.mark.parametrize(
    ("option", "differing"),
    [
        ("prepare.mask.email=X", "(prepare.mask.email: None, here X)"),
        ("prepare.filters.c4={}", "(prepare.filters.c4: None, here {})"),
    ],
)
def test_another_change_of_texts_is_refused(
    option: str, differing: str, root: Path, tmp_path: Path, capsys: Capture
) -> None:
    options = (known_of(root, "first"), option)
    assert differing in refusal(command(tmp_path, root / "new.txt", *options), capsys)


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("nowhere", "holds no finished 'prepare'"),
        ("tokenizer", "holds a finished 'tokenizer', not 'prepare'"),
    ],
)
def test_a_folder_without_a_finished_corpus_is_refused(
    root: Path, tmp_path: Path, capsys: Capture, folder: str, reason: str
) -> None:
    arguments = command(tmp_path, root / "new.txt", f"prepare.known={root}/{folder}")
    assert f"{root}/{folder} {reason}" in refusal(arguments, capsys)


@pytest.mark.parametrize("words", [["run"], ["run", "--dry-run"]])
def test_a_missing_corpus_is_told_before_the_first_stage(
    root: Path, tmp_path: Path, capsys: Capture, words: list[str]
) -> None:
    options = ("prepare.tokenizer=null", f"prepare.known={root}/nowhere")
    arguments = [*words, *command(tmp_path, root / "new.txt", *options)[1:]]
    assert f"{root}/nowhere holds no finished 'prepare'" in refusal(arguments, capsys)
    assert not (tmp_path / "tokenizer").exists()


def test_the_corpus_itself_is_refused(root: Path, tmp_path: Path, capsys: Capture) -> None:
    arguments = command(tmp_path, root / "new.txt", f"prepare.known={tmp_path}/prepare/")
    assert (
        f"prepare.known: {tmp_path}/prepare is the corpus that is prepared; all its documents would "
        "be dropped"
    ) in refusal(arguments, capsys)


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_damaged_keys_are_refused(root: Path, tmp_path: Path, capsys: Capture, damage: str) -> None:
    shutil.copytree(root / "first", tmp_path / "first")
    path = tmp_path / "first" / "prepare" / "keys-000000-000.zst"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-3])
    else:
        path.unlink()
    arguments = command(tmp_path / "new", root / "new.txt", known_of(tmp_path, "first"))
    capsys.readouterr()
    assert main(arguments) != 0
    assert "keys-000000-000.zst" in capsys.readouterr().err
    # The command goes on once the file is whole again.
    shutil.copy(root / "first" / "prepare" / path.name, path)
    assert main(arguments) == 0
    dropped: dict[str, Any] = dropped_of(read_manifest(str(tmp_path / "new" / "prepare")))
    assert (dropped["known"], dropped["known_near_duplicate"]) == (2, 2)


def test_a_known_corpus_may_be_remote_and_have_duplicates(root: Path, tmp_path: Path) -> None:
    text = root / "twice.txt"
    text.write_text("\n".join([*FIRST, FIRST[4], FIRST[4]]))
    options = ("prepare.deduplicate=false", "prepare.near_duplicates.similarity=null")
    assert main(command("memory://known", text, *options)) == 0
    options = ("prepare.known=memory://known/prepare", options[1])
    assert main(command(tmp_path, root / "new.txt", *options)) == 0
    assert dropped_of(read_manifest(str(tmp_path / "prepare"))) == {"duplicate": 1, "known": 2}


def test_a_corpus_named_twice_counts_once(root: Path, tmp_path: Path) -> None:
    assert main(command(tmp_path, root / "new.txt", known_of(root, "first", "first"))) == 0
    manifest = read_manifest(str(tmp_path / "prepare"))
    assert [row["dropped"] for row in manifest.details["known"]] == [
        {"known": 2, "known_near_duplicate": 2}
    ]


def test_a_corpus_that_has_everything_leaves_nothing(
    root: Path, tmp_path: Path, capsys: Capture
) -> None:
    told = refusal(command(tmp_path, root / "first.txt", known_of(root, "first")), capsys)
    assert "all 30 documents were dropped (30 known)" in told
