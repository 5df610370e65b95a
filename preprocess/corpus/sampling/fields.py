"""The fields of records whose text was not found, with the one that is likely the text."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from preprocess.config import Source
from preprocess.corpus.sampling.reading import FileSample
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.reading.formats.fields import MISSING_FIELD, NO_STRING, Fields, is_of
from preprocess.reading.formats.json_values import CutJsonError, split_json
from preprocess.reading.formats.parquet import open_parquet
from preprocess.reading.reader import read_unit
from preprocess.reading.units import Range, Unit
from preprocess.text.config import CleaningConfig

RECORDS = 50
"""Records of a file in which fields are looked for."""
READ_BYTES = 1 << 20
"""Raw bytes of a file in which the records are looked for."""
DEEPEST = 6
"""Most names in the path of a field."""
MISSING = (MISSING_FIELD, NO_STRING)
WRONG_COLUMNS = "wrong_columns"
"""Reasons under which records and files without the text are counted."""
ANY_NAME = "*"
"""First part of `Field.path` for the values of an object that has a record for each name."""
FEWEST_NAMES = 3
"""Names of such an object, at least."""


class Field(NamedTuple):
    """A field that holds strings.

    Attributes:
        path: its path, as for `Source.text_field`, unless it begins with `ANY_NAME`.
        share: share of the records that have it.
        characters: mean number of characters in these records.
    """

    path: str
    share: float
    characters: float


def without_text(samples: Sequence[FileSample]) -> FileSample | None:
    """Return a file whose records lack the text, or None if most records of a source have it.

    Args:
        samples: the files of the sample of a source.
    """
    lost = sum(map(_lost, samples))
    if lost <= sum(len(block.documents) for sample in samples for block in sample.blocks):
        return None
    return max(samples, key=_lost)


def _lost(sample: FileSample) -> int:
    """Return the number of records of a file that lack the text; 1 if it has no column of texts."""
    if getattr(sample.problem, "reason", "") == WRONG_COLUMNS:
        return 1
    return sum(record.reason in MISSING for block in sample.blocks for record in block.rejected)


def find_fields(sample: FileSample, source: Source) -> list[Field]:
    """Return the fields of strings in the first records of a file, the longest first.

    The first one is likely the text. Empty if the records cannot be read.
    """
    try:
        columns = sample.kind.format == "parquet"
        read = _rows if columns else _items if sample.kind.format == "json" else _objects
        rows = list(islice(read(sample, source), RECORDS))
    except (UserError, OSError):
        rows = []
    return fields_of(rows or list(_excerpts(sample)))


def fields_of(records: Sequence[Mapping[str, Any]]) -> list[Field]:
    """Return the fields of strings in records, the longest first.

    A single record may be an object that has a record for each name; these are searched then.
    """
    prefix = ""
    if len(records) == 1 and (named := _named_records(records[0])):
        records, prefix = named, ANY_NAME
    sizes: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for number, record in enumerate(records):
        for path, text in _strings(record, prefix):
            sizes[path][number] += len(text)
    fields = [
        Field(path, len(found) / len(records), found.total() / len(found))
        for path, found in sizes.items()
    ]
    # A long text that only a few records have is not the text.
    return sorted(fields, key=lambda field: -field.share * field.characters)


def _named_records(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the values of an object if they are records, which have a name in common; else nothing."""
    values = [value for value in record.values() if isinstance(value, Mapping)]
    if len(values) < max(FEWEST_NAMES, len(record)):
        return []
    return values if set.intersection(*(set(value) for value in values)) else []


def _strings(value: Any, path: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping) and depth < DEEPEST:
        for key, inner in value.items():
            yield from _strings(inner, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, list) and path:
        for inner in value:
            yield from _strings(inner, f"{path}[]", depth + 1)


def _objects(sample: FileSample, source: Source) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a JSON Lines file, which is read as text."""
    for line in _lines(sample, source):
        if record := _object(line):
            yield record


def _items(sample: FileSample, source: Source) -> Iterator[Mapping[str, Any]]:
    """Yield the records of a JSON document, as far as the first lines have them."""
    data = "\n".join(_lines(sample, source)).encode("utf-8", "replace")
    paths = Fields.of(source).paths
    try:
        for found in split_json(
            [data], READ_BYTES, lambda key: any(is_of(path, key) for path in paths)
        ):
            if record := _object(found.data.decode("utf-8", "replace")):
                yield record
    except CutJsonError:
        return


def _lines(sample: FileSample, source: Source) -> Iterator[str]:
    as_text = Source(path=source.path, format="text", encoding=source.encoding, document="line")
    for block in read_unit(_start_of(sample), as_text, CleaningConfig()):
        yield from block.documents


def _excerpts(sample: FileSample) -> Iterator[Mapping[str, Any]]:
    """Yield the rejected records that are short enough to be whole in their excerpts."""
    for block in sample.blocks:
        for rejected in block.rejected:
            if rejected.reason in MISSING and (record := _object(rejected.excerpt)):
                yield record


def _object(text: str) -> dict[str, Any] | None:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _rows(sample: FileSample, source: Source) -> Iterator[Mapping[str, Any]]:
    file = sample.places.file
    with storage.open_read(file.path) as opened, open_parquet(opened, file.path) as (_, table):
        for batch in table.iter_batches(RECORDS, use_threads=False):
            yield from batch.to_pylist()


def _start_of(sample: FileSample) -> Unit:
    file = sample.places.file
    end = min(READ_BYTES, file.bytes)
    return Unit(
        0, sample.places.source, (Range(file.name, file.path, 0, end, file.bytes, file.version),)
    )
