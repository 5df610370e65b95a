"""`biloom look`: what it prints about an input, as text and as JSON."""

import gzip
import json
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.commands.look import look as module
from preprocess.corpus.sampling.choice import SampleSize
from preprocess.files.errors import StoreError

Tiny = Any  # of conftest.py
Capture = pytest.CaptureFixture[str]
WORDS = ("river", "tree", "house", "large", "and", "of", "water", "clean")


def lines(number: int, seed: int = 1) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(3, 20))) for _ in range(number)]


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of several kinds; the current folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "a.txt").write_text(
        "".join(f"{line}\n" for line in [*lines(300), "", "a\x07b\u202ec"])
    )
    records = "".join(json.dumps({"text": line}) + "\n" for line in lines(200, 2))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress((records + "no json\n").encode()))
    (folder / "c.txt").write_text("größer und schöner\n" * 50, encoding="latin-1")
    (folder / "empty.txt").touch()
    return tmp_path


def look(*words: str) -> int:
    return main(["look", *words, "tokenizer.kind=char"])


def told(capsys: Capture, *words: str) -> dict[str, Any]:
    assert look(*words, "--json") == 0
    out, err = capsys.readouterr()
    assert err == ""
    answer: dict[str, Any] = json.loads(out)
    return answer


def test_it_tells_files_documents_losses_and_estimates(raw: Path, capsys: Capture) -> None:
    assert look("raw/*") == 0
    out = capsys.readouterr().out
    assert out.startswith("look  raw/*\n")
    assert ", in 4 of 4 files (seed 1)\n" in out
    assert "corpus | *.txt | 3 | " in out
    assert " | 3 | 1 text, utf-8; 1 refused; 1 empty\n" in out
    assert " | 1 | jsonl, gzip, utf-8\n" in out
    assert "c.txt: 100% of the characters outside ASCII are invalid in utf-8; name its" in out
    assert "    invalid_json | 1 | b.jsonl.gz:" in out
    assert re.search(r"^    empty \| 1 \| a\.txt:\d+: $", out, re.MULTILINE)
    assert f"first documents of corpus, as prepare would write them:\n    {lines(300)[0]}\n" in out
    assert "prepare would read 1 unit of work (in_memory, 1 worker)\n" in out
    assert re.search(r"  tokenizer: about \d+ seconds.*MB\) of memory\n", out)
    assert re.search(r"  prepare: about \d+ seconds.* of disk while it runs, \d+kB after it\n", out)


def test_the_object_has_the_figures_of_the_tables(raw: Path, capsys: Capture) -> None:
    answer = told(capsys, "raw/a.txt", "raw/b.jsonl.gz")
    assert (answer["files"], answer["read_files"], answer["refused"]) == (2, 2, [])
    [source] = answer["sources"]
    assert source["documents"] == 502
    assert source["dropped"] == {"empty": 1, "invalid_json": 1}
    assert source["examples"]["invalid_json"][0] == "no json"
    texts = [*lines(300), *lines(200, 2), "abc"]
    sizes = sorted(map(len, texts))
    assert source["lengths"]["largest read"] == sizes[-1]
    assert source["lengths"]["median"] == sizes[len(sizes) // 2]
    assert source["scripts"] == {"Latin": 1}
    assert source["repeated"] == source["repeated_in_sample"]
    assert source["first"] == [{"text": line, "dropped": ""} for line in lines(300)[:5]]
    estimate = answer["estimates"]["prepare"]
    assert estimate["memory"]["low"] < estimate["memory"]["likely"] < estimate["memory"]["high"]
    assert estimate["tokens"] == pytest.approx(sum(len(text) + 1 for text in {*texts}), rel=0.01)
    assert answer["settings"] == {
        "input": "prepare.input=[raw/a.txt, raw/b.jsonl.gz]",
        "recipe": answer["settings"]["recipe"],
        "engine": "direct",
        "mode": "in_memory",
        "units": 1,
        "workers": 1,
    }
    assert answer["settings"]["recipe"].startswith("recipe for ")


def test_what_is_left_out_of_a_folder_is_told(raw: Path, capsys: Capture) -> None:
    (raw / "raw" / "c.txt").unlink()
    (raw / "raw" / "image.png").write_bytes(b"\x89PNG")
    (raw / "raw" / "d.txt").write_bytes(b"%PDF-1.7\n" + bytes(range(256)) * 9)
    assert look("raw") == 0
    out = capsys.readouterr().out
    assert "\n  left out of folders: 1 image (.png)\n" in out
    assert "1 not text" in out
    assert "    not_text | 1 | d.txt: " in out
    answer = told(capsys, "raw")
    assert answer["left_out"] == {"images (.png)": 1}
    assert answer["refused"] == []


def test_the_same_seed_gives_the_same_sample(
    raw: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SampleSize", lambda: SampleSize(2000, 5, 5))

    def figures(*words: str) -> dict[str, Any]:
        answer = told(capsys, "raw/a.txt", *words)
        assert answer["read_bytes"] < answer["bytes"]
        # Times are measured.
        return {key: value for key, value in answer.items() if key != "estimates"}

    assert figures() == figures()
    assert figures("--seed", "2")["sources"] != figures()["sources"]


def test_control_characters_of_documents_and_names_are_escaped(raw: Path, capsys: Capture) -> None:
    (raw / "x\x1b[1m.txt").write_text("a\x07b\u202ec\nand\tmore\n")
    assert look("x*.txt", "cleaning.control_characters=keep", "cleaning.whitespace=keep") == 0
    out = capsys.readouterr().out
    assert r"    a\x07b\u202ec" in out
    assert r"    and\tmore" in out
    assert not set(out) & set("\x07\x1b\u202e\t")


def test_the_field_of_the_text_is_found(raw: Path, capsys: Capture) -> None:
    rows = [{"id": n, "body": {"text": line}} for n, line in enumerate(lines(50))]
    (raw / "d.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert look("d.jsonl") == 0
    out = capsys.readouterr().out
    told_so = "most records of corpus have no text: it is likely in 'body.text'; set text_field=body.text\n"
    assert told_so in out
    assert "    missing_text_field | 50 | d.jsonl:0: {" in out
    assert "prepare: about" not in out
    assert look("d.jsonl", "text_field=body.text") == 0
    out = capsys.readouterr().out
    assert "likely in" not in out
    assert "corpus | 50 | " in out
    assert "set 'prepare.input=[{path: [d.jsonl], text_field: body.text}]'\n" in out
    assert "prepare: about" in out


def test_a_remedy_fits_the_records_and_the_settings(raw: Path, capsys: Capture) -> None:
    rows = [{"title": "x", "body": line} for line in lines(20)]
    (raw / "d.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert look("d.jsonl", "template={title} {txt}") == 0
    out = capsys.readouterr().out
    assert "corpus have no text: name fields that they have in the template\n" in out
    assert "text_field=" not in out
    (raw / "named.json").write_text(json.dumps({f"k{n}": row for n, row in enumerate(rows)}))
    assert look("named.json") == 0
    out = capsys.readouterr().out
    assert "they are the values of one object; write them as a list, or as JSON Lines\n" in out
    assert "\n    *.body | 100% | " in out
    # Of a file beside others that have texts, nothing is said but its loss.
    (raw / "good.txt").write_text("".join(f"{line}\n" for line in lines(50)))
    [source] = told(capsys, "good.txt", "d.jsonl")["sources"]
    assert source["dropped"] == {"missing_text_field": 20}
    assert (source["fields"], source["remedy"]) == ([], "")


def test_a_config_is_read_with_its_sources_and_tokenizer(tiny: Tiny, capsys: Capture) -> None:
    assert main(["look", str(tiny.root / "tiny.yaml")]) == 0
    out = capsys.readouterr().out
    assert "corpus | 400 | " in out
    assert "tokenizer: about" not in out
    assert "prepare: about" in out


def test_it_writes_nothing(raw: Path, capsys: Capture) -> None:
    before = sorted(raw.rglob("*"))
    assert look("raw/*", "run.output=out") == 0
    assert sorted(raw.rglob("*")) == before


def test_a_tokenizer_that_cannot_be_trained_is_told(raw: Path, capsys: Capture) -> None:
    assert main(["look", "raw/a.txt", "tokenizer.file=none.model"]) == 0
    out = capsys.readouterr().out
    assert "no estimate of time, memory and disk: tokenizer.file: none.model: " in out
    assert "corpus | 302 | " in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none/*.txt"], "no file matches; check the path"),
        (["raw/empty.txt"], "raw/empty.txt: no documents found; name files with text"),
        (["raw/a.txt", "filters.languages=[xx]"], "unknown language 'xx'"),
        (["prepare.drop_empty=true"], "prepare.input is missing"),
    ],
)
def test_mistakes_are_told(words: list[str], message: str, raw: Path, capsys: Capture) -> None:
    assert look(*words) == 2
    assert message in capsys.readouterr().err


def test_a_store_that_fails_ends_it(
    raw: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise StoreError("s3://bucket/a.txt: no answer")

    monkeypatch.setattr(module, "survey_all", fail)
    assert look("s3://bucket/a.txt") == 2
    assert "s3://bucket/a.txt: no answer" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_ends_it_without_a_traceback(raw: Path) -> None:
    (raw / "large.txt").write_text("".join(f"{line}\n" for line in lines(20_000)) * 40)
    command = [sys.executable, "-m", "pipeline.cli", "look", "large.txt", "tokenizer.kind=char"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline().startswith("look")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_the_first_documents_are_shown_as_prepare_would_write_them(
    raw: Path, capsys: Capture
) -> None:
    texts = [
        *(
            "",
            "  Ask ann@mail.org\x07 or +49 30 901820.  ",
            "short bob@b.org",
            "Enough words are here.",
        ),
        *(f"{'x' * 480} jane.doe@mail.example.org", "menu", "The last one of the five is long."),
    ]
    (raw / "first.txt").write_text("".join(f"{text}\n" for text in texts))
    settings = (
        *("prepare.mask.email=<email>", "prepare.mask.phone=<phone>"),
        "prepare.filters.min_characters=20",
    )
    [source] = told(capsys, "first.txt", *settings)["sources"]
    assert source["first"] == [
        {"text": "Ask <email> or <phone>.", "dropped": ""},
        {"text": "short <email>", "dropped": "too_short"},
        {"text": "Enough words are here.", "dropped": ""},
        {"text": f"{'x' * 480} <email>", "dropped": ""},
        {"text": "menu", "dropped": "too_short"},
    ]
    assert source["dropped"] == {"empty": 1, "too_short": 2}
    assert look("first.txt", *settings) == 0
    assert "\n    dropped as too_short: short <email>\n" in capsys.readouterr().out


def test_rejected_records_are_shown_without_personal_data(raw: Path, capsys: Capture) -> None:
    (raw / "bad.jsonl").write_text('{"text": "one"}\nask ann@mail.org\n')
    [source] = told(capsys, "bad.jsonl", "prepare.mask.email=<email>")["sources"]
    assert source["examples"]["invalid_json"][0] == "ask <email>"
