"""Paragraphs of installed documentation as labelled texts."""

from collections import Counter
from pathlib import Path

import pytest

from preprocess.files.search.found import FileInfo
from preprocess.reading.labelled import installed
from preprocess.reading.labelled.installed import OF_A_FILE, OF_A_PACKAGE, installed_content
from preprocess.reading.labelled.options import LabelledTextOptions
from preprocess.reading.labelled.texts import read_labelled_texts

WORDS = ("water", "stone", "cloud", "river", "field", "light", "house", "paper", "music", "glass")


def paragraph(number: int) -> str:
    words = [WORDS[int(digit)] for digit in f"{number:06d}"]
    return f"Some {' '.join(words)} lie here."


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[FileInfo]:
    """Two packages of 60 and 20 files, each with 12 paragraphs, the first of which is the same."""
    files = []
    for number in range(80):
        texts = [paragraph(0), *(paragraph(number * 12 + one) for one in range(1, 12))]
        path = tmp_path / f"{number}.py"
        path.write_text('"""' + "\n\n".join(texts) + '\n"""\n')
        package = "large" if number < 60 else "small"
        files.append(FileInfo(f"{package}/{number}.py", str(path), path.stat().st_size, ""))
    monkeypatch.setattr(installed, "list_files", lambda: files)
    return files


def test_some_paragraphs_of_each_package_are_labelled_with_it(packages: list[FileInfo]) -> None:
    found = read_labelled_texts("installed-docs:", LabelledTextOptions())

    assert found.path == "installed-docs"
    counts = Counter(label for one in found.examples for label in one.labels)
    assert counts["large"] == OF_A_PACKAGE
    assert counts["small"] <= 20 * OF_A_FILE
    assert len({one.text for one in found.examples}) == found.read == len(found.examples)
    assert max(Counter(one.place for one in found.examples).values()) == OF_A_FILE
    assert all(one.place.startswith(f"{one.labels[0]}/") for one in found.examples)
    assert found == read_labelled_texts("installed-docs:", LabelledTextOptions())


def test_other_files_are_other_content(packages: list[FileInfo]) -> None:
    before = installed_content()
    assert installed_content() == before
    packages.pop()
    assert installed_content() != before
