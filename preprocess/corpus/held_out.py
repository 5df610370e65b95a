"""The shares of documents that are held out, lowered for a large corpus (`prepare.held_out_documents`).

Documents are assigned to splits before they are counted, so their number is estimated from a sample. It
depends on the names, sizes and contents of the files only.
"""

import math
from collections.abc import Sequence

from preprocess.config import PrepareConfig, Source
from preprocess.corpus.sampling.choice import SampleSize, choose_places
from preprocess.corpus.sampling.reading import FileSample, read_sample
from preprocess.files.search.found import FileInfo
from preprocess.files.storage import exists
from preprocess.text.splits import capped_fraction
from preprocess.work.folder import held_out_record, is_begun, read_record, write_record

SEED = 0
SAMPLE = SampleSize(raw_bytes=16 << 20, places=32, files=32)
"""Sample from which documents are counted; equal for local and remote files."""
LEAST_BYTES = 2
"""Raw bytes of a document at least, approximately: 20 bytes that are compressed to a tenth. A corpus that is
small by this number is not sampled."""
DOCUMENT_BYTES = 1000
"""Raw bytes of a document of a source whose sample cannot be read."""


def with_limited_shares(
    config: PrepareConfig, work: str, files: Sequence[Sequence[FileInfo]]
) -> PrepareConfig:
    """Return the settings with shares that hold out about ``held_out_documents`` of a split at most.

    The shares are kept in the work folder. Work of a former version, which had no limit, is continued
    with its shares, so that documents stay in their splits.

    Args:
        config: settings of prepare.
        work: folder of unfinished work.
        files: the files of each source.

    Raises:
        StoreError: a store fails while the sample is read.
    """
    path = held_out_record(work)
    if not exists(path):
        shares = {name: getattr(config, name) for name in ("valid_fraction", "test_fraction")}
        write_record(path, shares if is_begun(work) else _limited(config, shares, files))
    return config.model_copy(update=read_record(path))


def _limited(
    config: PrepareConfig, shares: dict[str, float], files: Sequence[Sequence[FileInfo]]
) -> dict[str, float]:
    # Sources with a split of their own are not divided.
    divided = [n for n, source in enumerate(config.sources) if source.split is None]
    groups = [files[number] for number in divided]
    most = config.held_out_documents
    size = sum(file.bytes for group in groups for file in group)
    if max(shares.values()) * size <= most * LEAST_BYTES:
        return shares
    documents = _estimate(config, [config.sources[number] for number in divided], groups)
    return {name: capped_fraction(share, most, documents) for name, share in shares.items()}


def _estimate(
    config: PrepareConfig, sources: Sequence[Source], files: Sequence[Sequence[FileInfo]]
) -> int:
    """Return the number of documents, rounded up to three binary digits.

    So another version of a library that decompresses in other steps hardly ever gives another number.
    """
    samples = read_sample(choose_places(sources, files, SEED, SAMPLE), config, sources)
    counts = (
        _documents([s for s in samples if s.places.source == number], group)
        for number, group in enumerate(files)
    )
    documents = math.ceil(sum(counts))
    shift = max(0, documents.bit_length() - 3)
    return -(-documents >> shift) << shift


def _documents(samples: Sequence[FileSample], files: Sequence[FileInfo]) -> float:
    size = sum(file.bytes for file in files)
    read = [sample for sample in samples if sample.weight]
    if not read:
        return size / DOCUMENT_BYTES
    hits = sum(sample.places.hits for sample in read)
    counts = (sample.weight * sum(len(b.documents) for b in sample.blocks) for sample in read)
    return sum(counts) * size / hits
