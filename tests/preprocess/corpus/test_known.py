"""Keys of known corpora in the shuffles, and where a known document is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess.corpus import known as known_module
from preprocess.corpus.dedup import KEYS, merge_keys
from preprocess.corpus.known import (
    KnownCorpus,
    first_units,
    key_settings,
    locate,
    open_known,
    write_known_keys,
)
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.manifest import FileRecord, Manifest, read_manifest, record_of, write_manifest
from preprocess.shards.document_keys import DocumentKeys
from preprocess.shards.origins import DocumentKey
from preprocess.text.config import CleaningConfig, NearDuplicateConfig
from preprocess.work.shuffle import Layout, Shuffle

NEAR = NearDuplicateConfig(similarity=0.8)
CLEANING = CleaningConfig().model_dump()
DETAILS = {"sources": [{"name": "web", "cleaning": CLEANING}], "keys": key_settings(NEAR)}


def keys_of(first: int, documents: int) -> DocumentKeys:
    near = np.full((documents, 3), first, np.uint32), np.full((documents, 4), 7, np.uint64)
    return DocumentKeys.of(first, np.arange(first, first + documents, dtype=np.uint64), near)


def write_corpus(folder: str, segments: dict[str, DocumentKeys], **details: Any) -> Manifest:
    """Write a finished corpus that has keys only."""
    files: list[FileRecord] = []
    for name, keys in segments.items():
        data = keys.encode()
        storage.write_bytes(storage.join(folder, name), data)
        files.append(record_of(name, data))
    manifest = Manifest(
        *("prepare", 2, "1", "a" * 64, "b" * 64, {}, tuple(files), {**DETAILS, **details})
    )
    write_manifest(folder, manifest)
    return manifest


def corpora(*units: int) -> tuple[KnownCorpus, ...]:
    return tuple(KnownCorpus(f"f{n}", "c", number, True) for n, number in enumerate(units))


def test_a_known_document_is_located_in_its_corpus() -> None:
    # The second corpus has no documents.
    known = corpora(3, 0, 2)
    assert first_units(known) == [0, 3, 3, 5]
    found = [locate(known, DocumentKey(unit, 9)) for unit in range(5)]
    assert found == [
        (0, (0, 9)),
        (0, (1, 9)),
        (0, (2, 9)),
        (2, (0, 9)),
        (2, (1, 9)),
    ]
    assert first_units(()) == [0]


def rows(work: str, kind: Any, layout: Layout) -> list[tuple[int, int, int]]:
    """Return unit, number and key of all rows in a shuffle."""
    for run in range(layout.runs):
        merge_keys(work, kind, layout, run)
    shuffle = Shuffle(storage.join(work, kind), layout)
    found = []
    for number in range(layout.lists):
        for slices in shuffle.read(number):
            table = np.frombuffer(slices.data, KEYS[kind])
            units = np.repeat(slices.units, slices.sizes // table.itemsize)
            columns = (units.tolist(), table["document"].tolist(), table["low"].tolist())
            found += list(zip(*columns, strict=True))
    return sorted(found)


@pytest.mark.parametrize("near", [False, True])
def test_the_keys_of_each_unit_are_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, near: bool
) -> None:
    folder, work = str(tmp_path / "corpus"), str(tmp_path / "work")
    segments = {
        "keys-000000-000.zst": keys_of(0, 2),
        "keys-000000-001.zst": keys_of(2, 1),
        "keys-000002-000.zst": keys_of(5, 2),
    }
    manifest = write_corpus(folder, segments)
    known = (KnownCorpus(folder, manifest.content, 3, near),)
    layout = Layout(4 + 3, 2, 3)
    for number in (2, 1, 0, 2):
        assert write_known_keys(work, known, layout, layout, number) == number
    assert rows(work, "hashes", layout) == [
        *((4, n, n) for n in range(3)),
        *((6, n, n) for n in (5, 6)),
    ]
    bands = [*[(4, 0, 0)] * 3, *[(4, 1, 0)] * 3, *[(4, 2, 2)] * 3]
    bands += [*[(6, 5, 5)] * 3, *[(6, 6, 5)] * 3]
    assert rows(work, "bands", layout) == (bands if near else [])
    monkeypatch.setattr(known_module, "write_keys", None)
    assert write_known_keys(work, known, layout, layout, 2) == 2


def test_each_manifest_is_read_once_whatever_the_order_of_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = 20
    segments = {f"keys-{unit:06d}-000.zst": keys_of(unit, 1) for unit in range(3)}
    known = tuple(
        KnownCorpus(folder, write_corpus(folder, segments).content, len(segments), False)
        for folder in (str(tmp_path / f"corpus-{number}") for number in range(many))
    )
    units = many * len(segments)
    layout = Layout(units, 1, units)
    opened = []

    def counted(folder: str, stage: str) -> Manifest:
        opened.append(folder)
        return read_manifest(folder, stage)

    monkeypatch.setattr(known_module, "read_manifest", counted)
    for number in [n for start in range(3) for n in range(start, units, 3)]:
        write_known_keys(str(tmp_path / "work"), known, layout, layout, number)
    assert sorted(opened) == sorted(corpus.folder for corpus in known)
    found = [(unit, low) for unit, _, low in rows(str(tmp_path / "work"), "hashes", layout)]
    assert found == [(unit, unit % 3) for unit in range(units)]


def test_a_corpus_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    folder = str(tmp_path / "corpus")
    write_corpus(folder, {"keys-000000-000.zst": keys_of(0, 2)})
    known = (KnownCorpus(folder, "f" * 64, 1, False),)
    layout = Layout(2, 1, 1)
    with pytest.raises(UserError, match="corpus changed while it was read; run the command again"):
        write_known_keys(str(tmp_path / "work"), known, layout, layout, 0)


def test_a_corpus_is_opened_with_its_units_and_whether_its_keys_fit(tmp_path: Path) -> None:
    folder = str(tmp_path)
    manifest = write_corpus(
        folder, {"keys-000007-000.zst": keys_of(0, 1), "keys-000002-001.zst": keys_of(0, 1)}
    )
    opened = open_known(folder, [CLEANING], NEAR)
    assert opened == (KnownCorpus(folder, manifest.content, 8, True), "")
    off = NearDuplicateConfig()
    assert open_known(folder, [CLEANING, CLEANING], off)[0].near is False
    assert open_known(folder, [CLEANING], off)[1] == ""
    corpus, reason = open_known(folder, [CLEANING], NearDuplicateConfig(similarity=0.9))
    assert not corpus.near
    assert reason == (
        "only its exact duplicates are dropped, because it was prepared with "
        "prepare.near_duplicates.similarity=0.8, seed=1 (version 2 of the detection) and this corpus with "
        "prepare.near_duplicates.similarity=0.9, seed=1 (version 2 of the detection)"
    )


def test_keys_of_a_corpus_without_near_duplicates_do_not_fit(tmp_path: Path) -> None:
    write_corpus(str(tmp_path), {}, keys=key_settings(NearDuplicateConfig()))
    corpus, reason = open_known(str(tmp_path), [CLEANING], NEAR)
    assert (corpus.units, corpus.near) == (0, False)
    assert "was prepared with prepare.near_duplicates.similarity=null and" in reason


def test_the_settings_of_cleaning_that_differ_are_named(tmp_path: Path) -> None:
    write_corpus(str(tmp_path), {})
    other = {**CLEANING, "unicode": "none"}
    with pytest.raises(UserError, match=r"\(unicode: NFC, here NFC and none\), so equal texts"):
        open_known(str(tmp_path), [CLEANING, other], NEAR)
