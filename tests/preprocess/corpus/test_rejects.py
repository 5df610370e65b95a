"""Files of rejects: contents, sizes, and numbering after a killed pass."""

import json
from pathlib import Path
from typing import Any

import pytest

from preprocess.corpus import rejects
from preprocess.corpus.rejects import PREFIX, RejectsWriter
from preprocess.reading.block import Rejected


def kept(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the lines of each file."""
    return {
        path.name: [json.loads(line) for line in path.read_bytes().splitlines()]
        for path in sorted(folder.iterdir())
    }


def rejected(*numbers: int) -> list[Rejected]:
    return [Rejected("invalid_json", f"{{{n}", f"a.jsonl:{n}") for n in numbers]


def excerpts(folder: Path) -> list[str]:
    return [line["excerpt"] for lines in kept(folder).values() for line in lines]


def test_a_line_has_the_reason_the_position_and_the_text(tmp_path: Path) -> None:
    writer = RejectsWriter(str(tmp_path), 7)
    writer.add_rejected(rejected(1))
    writer.add({"reason": "too_short", "text": "猫", "where": "a.txt:0"})
    writer.flush()
    assert kept(tmp_path) == {
        f"{PREFIX}000007-000.jsonl": [
            {"reason": "invalid_json", "excerpt": "{1", "where": "a.jsonl:1"},
            {"reason": "too_short", "text": "猫", "where": "a.txt:0"},
        ]
    }


def test_without_rejects_there_is_no_file(tmp_path: Path) -> None:
    writer = RejectsWriter(str(tmp_path), 0)
    writer.add_rejected([])
    writer.flush()
    assert (kept(tmp_path), writer.files, writer.rejected) == ({}, 0, 0)


def test_a_file_is_written_once_enough_characters_are_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejects, "FLUSH_CHARACTERS", 300)
    writer = RejectsWriter(str(tmp_path), 12, kind="duplicates-")
    for text in ("a" * 400, *"bcdefghij", "k" * 300):
        writer.add({"reason": "duplicate", "text": text})
    writer.flush()
    found = kept(tmp_path)
    assert list(found) == [f"{PREFIX}000012-duplicates-{n:03d}.jsonl" for n in range(3)]
    assert [[line["text"][0] for line in lines] for lines in found.values()] == [
        ["a"], list("bcdefghij"), ["k"],
    ]  # fmt: skip
    assert writer.files == 3


def test_text_is_readable_and_lone_surrogates_are_escaped(tmp_path: Path) -> None:
    text = 'שלום "猫"\n\u2028\x00'
    writer = RejectsWriter(str(tmp_path), 0)
    writer.add({"text": text, "where": "na\udce9me.txt:0"})
    writer.flush()
    [lines] = kept(tmp_path).values()
    assert lines == [{"text": text, "where": "na\udce9me.txt:0"}]
    [path] = tmp_path.iterdir()
    assert 'שלום \\"猫\\"' in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("killed_after", range(6))
def test_a_killed_pass_resumes_after_its_last_record(
    killed_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejects, "FLUSH_CHARACTERS", 120)
    whole, again = tmp_path / "whole", tmp_path / "again"
    blocks = [rejected(*range(n, n + 3)) for n in range(0, 18, 3)]

    def run(writer: RejectsWriter, upto: int) -> tuple[int, int]:
        record = (writer.files, 0)
        for number, block in enumerate(blocks[:upto]):
            writer.add_rejected(block)
            # A segment is closed after every second block.
            if number % 2 and writer.rejected:
                writer.flush()
                record = (writer.files, writer.rejected)
        return record

    run(RejectsWriter(str(whole), 0), len(blocks))
    record = run(RejectsWriter(str(again), 0), killed_after)
    run(RejectsWriter(str(again), 0, *record), len(blocks))
    assert excerpts(whole) == [f"{{{n}" for n in range(18)]
    assert kept(again) == kept(whole)
