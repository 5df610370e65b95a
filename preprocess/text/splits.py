"""Content hashes of texts, and the assignment of texts to splits by hash."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import xxhash

from preprocess.text.config import SPLITS, Split


def text_hash(text: bytes) -> int:
    """Return the 128-bit XXH3 hash of a cleaned text in UTF-8."""
    return xxhash.xxh3_128_intdigest(text)


def text_hashes(texts: Iterable[bytes]) -> bytes:
    """Return the `text_hash` of each text as 16 big-endian bytes, concatenated."""
    return b"".join(map(xxhash.xxh3_128_digest, texts))


def hash_halves(hashes: bytes | bytearray) -> npt.NDArray[np.uint64]:
    """Split 16-byte hashes, as from `text_hashes`, into halves.

    Returns:
        The high and the low half of each hash as numbers, uint64, shape (hashes, 2).
    """
    return np.frombuffer(hashes, ">u8").astype(np.uint64).reshape(-1, 2)


def splits_of(
    high: npt.NDArray[np.uint64],
    valid_fraction: float,
    test_fraction: float,
    source_split: Split | None = None,
) -> npt.NDArray[np.uint8]:
    """Return the index in ``SPLITS`` of each text's split, shape (texts,).

    The split depends on the text's content and the fractions only, so a text stays in its split when the
    corpus grows, unless it becomes so large that `capped_fraction` lowers them.

    Args:
        high: high halves of the texts' hashes, shape (texts,).
        valid_fraction: share of texts in the validation split, in [0, 1].
        test_fraction: share of texts in the test split, in [0, 1].
        source_split: `Source.split` of the texts, which replaces the fractions, or None.
    """
    if source_split:
        return np.full(len(high), SPLITS.index(source_split), np.uint8)
    # The 53 high bits as a number in [0, 1). Hash buckets use the low half of the hash.
    position = (high >> np.uint64(11)).astype(np.float64) / (1 << 53)
    numbers = np.where(position < valid_fraction, SPLITS.index("valid"), SPLITS.index("train"))
    test = (position >= valid_fraction) & (position < valid_fraction + test_fraction)
    return np.where(test, SPLITS.index("test"), numbers).astype(np.uint8)


def capped_fraction(fraction: float, most_documents: float, documents: int) -> float:
    """Return the share of documents of a split that has about ``most_documents`` at most.

    Args:
        fraction: share of documents without the limit.
        most_documents: documents in the split at most.
        documents: estimated documents of the corpus.
    """
    return min(fraction, most_documents / max(documents, 1))
