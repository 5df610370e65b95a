"""What a sample says about a source."""

from pathlib import Path
from typing import Any

import pytest

from preprocess.config import PrepareConfig
from preprocess.corpus.sampling import summary as module
from preprocess.corpus.sampling.choice import SampleSize, choose_places
from preprocess.corpus.sampling.reading import read_sample
from preprocess.corpus.sampling.summary import SourceSummary, summarise
from preprocess.reading.listing import list_source

LINES = ["The river is long.", "", "  a  b ", "Река длинная.", "The river is long.", "x" * 500]


def summary_of(folder: Path, data: bytes, **settings: Any) -> SourceSummary:
    path = folder / "a.jsonl" if data.startswith(b"{") else folder / "a.txt"
    path.write_bytes(data)
    config = PrepareConfig(input=str(path), **settings)
    files = [list_source(source) for source in config.sources]
    places = choose_places(config.sources, files, 1, SampleSize())
    samples = read_sample(places, config, config.sources)
    return summarise(samples, config.sources[0], config, len(data), 1)


def test_a_file_that_is_read_completely_has_exact_figures(tmp_path: Path) -> None:
    data = "".join(f"{line}\n" for line in LINES).encode()
    found = summary_of(tmp_path, data)
    assert (found.documents, found.raw_bytes) == (6, len(data))
    assert found.text_bytes == sum(len(line.encode()) for line in LINES)
    assert found.lengths == [(3, 1), (13, 1), (18, 1), (18, 1), (500, 1)]
    assert [found.length_at(share) for share in (0, 0.5, 0.9, 1)] == [3, 18, 500, 500]
    assert found.characters == 552
    assert found.scripts == {"Latin": 500 + 2 * 14 + 2, "Cyrillic": 11}
    assert found.dropped == {"empty": 1}
    assert found.repeats.share == pytest.approx(18 / (3 + 24 + 36 + 500))
    assert found.seconds > 0


def test_what_a_filter_drops_and_records_that_are_rejected_are_counted(tmp_path: Path) -> None:
    data = b'{"text": "short"}\n{"text": "long enough"}\nno json\n{"other": 1}\n{"text": 7}\n' * 4
    found = summary_of(tmp_path, data, filters={"min_characters": 6})
    assert found.dropped == {
        "too_short": 4,
        "invalid_json": 4,
        "missing_text_field": 4,
        "text_not_a_string": 4,
    }
    assert len(found.examples["invalid_json"]) == module.EXAMPLES
    assert found.examples["missing_text_field"][0].where == "a.jsonl:50"
    first = found.examples["too_short"][0]
    assert (first.excerpt, first.where) == ("short", "a.jsonl:0")
    assert len(found.examples["too_short"]) == module.EXAMPLES
    assert found.lengths == [(11, 1)] * 4


def test_empty_documents_are_kept_if_the_settings_say_so(tmp_path: Path) -> None:
    found = summary_of(tmp_path, b"a\n\nb\n", drop_empty=False)
    assert found.dropped == {}
    assert found.lengths == [(0, 1), (1, 1), (1, 1)]


def test_languages_are_counted_if_the_package_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "language_detector", lambda: lambda text: text[:2])
    assert summary_of(tmp_path, b"en text\nde text\nen more\n123\n").languages == {"en": 2, "de": 1}
    monkeypatch.setattr(module, "language_detector", lambda: None)
    assert summary_of(tmp_path, b"en text\n").languages is None


def test_a_source_without_text_has_zeros(tmp_path: Path) -> None:
    found = summary_of(tmp_path, b"\n\n")
    assert (found.documents, found.length_at(0.5), found.repeats.share) == (2, 0, 0)
