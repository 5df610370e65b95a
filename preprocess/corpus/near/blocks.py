"""Which near-duplicates are dropped: those that are similar to an earlier document that is kept.

Whether a document is kept depends on its earlier documents, and so on along a chain. Documents are
decided in blocks, which are ranges of units. A block decides its documents in order, so chains within
it need one round. Then blocks tell each other what became of the documents that were asked for, and
decide again. After `ROUNDS`, documents that are still undecided are kept. Such documents exist only
if a chain changes its block several times.

The rules for a document, by rising difference of its pairs (`preprocess.corpus.near.pairs`):

- If an earlier document is kept, this one is dropped for it.
- If an earlier document of equal sketch was dropped for another one, this one is dropped for that one
  too. Documents of equal sketches have only this pair.
- If all earlier documents were dropped, and none has an equal sketch, this one is kept.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

PAIR = np.dtype([("later", "<u8"), ("earlier", "<u8"), ("differing", "<u2")])
"""Dtype of a pair of similar documents (`document_key`) and the differing bits of their sketches."""

QUESTION = np.dtype([("document", "<u8"), ("block", "<u2")])
"""Dtype of a document and a later block whose documents depend on it."""

FATE = np.dtype([("document", "<u8"), ("original", "<u8")])
"""Dtype of a decided document, and the one it is dropped for; itself if it is kept."""

ROUNDS = 5
"""Maximum number of rounds."""

BLOCK_BYTES = 1 << 30
"""Raw bytes of corpus per block, unless that were more than `MOST_BLOCKS`."""

MOST_BLOCKS = 256
"""Maximum number of blocks, because every block may ask every earlier one."""

_CHUNK = 1 << 19
# Pairs that are held as Python objects at once.


@dataclass(frozen=True)
class Blocks:
    """How the units of a corpus are divided into blocks.

    Attributes:
        units: number of units. Documents of known corpora have higher unit numbers.
        number: number of blocks.
    """

    units: int
    number: int

    @classmethod
    def of(cls, units: int, corpus_bytes: int) -> "Blocks":
        """Return the blocks of a corpus of this many units and raw bytes."""
        wanted = max(1, -(-corpus_bytes // BLOCK_BYTES))
        return cls(units, min(wanted, MOST_BLOCKS, max(1, units)))

    @property
    def rounds(self) -> int:
        """Number of rounds; one if there is one block."""
        return 1 if self.number == 1 else ROUNDS

    def of_documents(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
        """Return the block of each document; `number` for documents of known corpora."""
        units = (keys >> np.uint64(32)).astype(np.int64)
        blocks = ((units + 1) * self.number - 1) // max(1, self.units)
        return np.where(units < self.units, blocks, self.number)

    def units_of(self, block: int) -> range:
        """Return the units of a block."""
        return range(block * self.units // self.number, (block + 1) * self.units // self.number)


@dataclass(frozen=True)
class Decided:
    """What a block has decided.

    Attributes:
        dropped: documents that are dropped, `FATE`, ordered by document.
        pairs: pairs of the documents that are not decided, `PAIR`, in the order of `sorted_pairs`.
        answers: answers to the questions, `FATE`, by asking block.
        questions: questions that are not answered yet, `QUESTION`.
    """

    dropped: npt.NDArray[Any]
    pairs: npt.NDArray[Any]
    answers: dict[int, npt.NDArray[Any]]
    questions: npt.NDArray[Any]


def document_key(
    units: npt.NDArray[np.uint32], numbers: npt.NDArray[np.uint32]
) -> npt.NDArray[np.uint64]:
    """Return documents as one number each: the unit in the high half, the number in the low half."""
    return units.astype(np.uint64) << np.uint64(32) | numbers


def sorted_pairs(pairs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the distinct pairs, by later document, rising difference and earlier document."""
    pairs = pairs[np.lexsort((pairs["earlier"], pairs["differing"], pairs["later"]))]
    repeated = np.zeros(len(pairs), bool)
    repeated[1:] = pairs[1:] == pairs[:-1]
    return pairs[~repeated]


def decide(
    blocks: Blocks,
    block: int,
    pairs: npt.NDArray[Any],
    questions: npt.NDArray[Any],
    dropped: npt.NDArray[Any],
    told: npt.NDArray[Any],
    is_last: bool,
) -> Decided:
    """Decide as many documents of a block as possible.

    Args:
        blocks: the blocks.
        block: number of this block.
        pairs: pairs of the documents that are not decided, in the order of `sorted_pairs`.
        questions: documents of this block that later blocks depend on.
        dropped: documents of this block that were dropped in earlier rounds, `FATE`.
        told: what became of documents of earlier blocks, `FATE`.
        is_last: True in the last round, in which the remaining documents are kept.
    """
    fates: dict[int, int] = dict(_rows(told)) | dict(_rows(dropped))
    own = blocks.units_of(block)
    open_documents = set[int]()
    found: list[tuple[int, int]] = []
    for document, earlier in _by_document(pairs):
        fate = _fate(document, earlier, fates, open_documents, own, blocks.units)
        if fate is None:
            open_documents.add(document)
        elif fate != document:
            fates[document] = fate
            found.append((document, fate))
    every = np.concatenate([dropped, np.array(found, FATE)])
    every = every[np.argsort(every["document"])]
    if is_last:
        none = np.empty(0, PAIR)
        return Decided(every, none, {}, np.empty(0, QUESTION))
    is_open = _among(questions["document"], open_documents)
    answers = {}
    answered = questions[~is_open]
    for asking in np.unique(answered["block"]).tolist():
        documents = answered["document"][answered["block"] == asking]
        answers[asking] = np.array(
            [(document, fates.get(document, document)) for document in documents.tolist()], FATE
        )
    # A pair whose earlier document was dropped decides nothing any more.
    still = _among(pairs["later"], open_documents) & ~np.isin(pairs["earlier"], told["document"])
    return Decided(every, pairs[still], answers, questions[is_open])


def _fate(
    document: int,
    pairs: list[tuple[int, int]],
    fates: Mapping[int, int],
    open_documents: set[int],
    own: range,
    units: int,
) -> int | None:
    """Return the document for which one is dropped, itself if it is kept, None if it is not decided."""
    is_open = False
    for earlier, differing in pairs:
        fate = fates.get(earlier)
        if fate is None:
            unit = earlier >> 32
            # A document of this block without a fate is kept, and so are all known documents.
            is_kept = unit >= units or (unit in own and earlier not in open_documents)
            fate = earlier if is_kept else None
        if fate is None:
            is_open = True
        elif fate == earlier or differing == 0:
            return fate
    return None if is_open else document


def _by_document(pairs: npt.NDArray[Any]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Yield each later document with its (earlier document, differing bits)."""
    later = pairs["later"]
    starts = np.flatnonzero(np.diff(later, prepend=~later[:1])) if len(pairs) else np.empty(0, int)
    first = 0
    while first < len(starts):
        last = int(np.searchsorted(starts, starts[first] + _CHUNK, "right"))
        bounds = np.append(starts, len(pairs))[first : last + 1]
        begin = int(bounds[0])
        part = pairs[begin : int(bounds[-1])]
        rows = list(zip(part["earlier"].tolist(), part["differing"].tolist(), strict=True))
        ends = (bounds - begin).tolist()
        documents = later[bounds[:-1]].tolist()
        for document, start, end in zip(documents, ends[:-1], ends[1:], strict=True):
            yield document, rows[start:end]
        first = last


def _among(documents: npt.NDArray[np.uint64], chosen: set[int]) -> npt.NDArray[np.bool_]:
    among: npt.NDArray[np.bool_] = np.isin(documents, np.fromiter(chosen, np.uint64, len(chosen)))
    return among


def _rows(table: npt.NDArray[Any]) -> Iterator[tuple[int, int]]:
    return zip(table["document"].tolist(), table["original"].tolist(), strict=True)
