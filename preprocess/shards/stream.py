"""A split as an endless token stream with random access.

Documents are concatenated with boundary tokens between them. A *position* is a pair of neighbouring
tokens ``(left, right)``: the forward LM reads left and predicts right, the backward LM reads right
and predicts left. A document of n tokens has n + 1 positions:

    boundary eos:      </s> d1 ... dn </s>
    boundary bos_eos:  <s>  d1 ... dn </s>     <s> is never a forward target, </s> never an input

A *pass* (epoch) over the split has ``tokens + documents`` positions for any order of documents. If
sources are repeated, its length differs between passes (`preprocess.reading.mixing.PassPlan`).
Every position is computed from the sizes in the manifest, so reading can start anywhere.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from preprocess.reading.mixing import PassPlan
from preprocess.shards.documents import Int64Ids as Int64Ids
from preprocess.shards.format import Corpus, Shard
from preprocess.shards.mixed_order import MixedOrder, part_counts
from preprocess.shards.shard_order import ShardOrder
from preprocess.tokenizers.base import BOS, EOS, UNKNOWN

Order = Literal["mixed", "shuffled", "as-given"]
"""The order of the documents of a pass, see `TokenStream`."""


def boundary_ids(boundary: Literal["eos", "bos_eos"]) -> tuple[int, int]:
    """Return the ids before and after each document."""
    return (EOS, EOS) if boundary == "eos" else (BOS, EOS)


def target_counts(
    corpus: Corpus, boundary: Literal["eos", "bos_eos"], directions: int, vocabulary: int
) -> npt.NDArray[np.uint64]:
    """Count how often each id is a target in one pass over the train split.

    Every token is a target in each direction; so is the boundary after a document in the forward
    direction, and the one before it in the backward direction.

    Args:
        corpus: the corpus.
        boundary: "eos" or "bos_eos", see the module.
        directions: 1 for the forward LM only, 2 for both LMs.
        vocabulary: number of ids that can be predicted; higher ids count as `UNKNOWN`.

    Returns:
        The counts, shape (vocabulary,).
    """
    counts = directions * corpus.counts()
    documents = corpus.totals("train")["documents"]
    for end in boundary_ids(boundary)[::-1][:directions]:
        counts[end] += documents
    counts[UNKNOWN] += counts[vocabulary:].sum()
    return counts[:vocabulary]


class Parts(NamedTuple):
    """Consecutive parts of passes. The rows of a batch read one part after another.

    Attributes:
        passes: number of the pass of each part, shape (parts,).
        begins: its first position in the pass, shape (parts,).
        lengths: its number of positions, shape (parts,).
    """

    passes: npt.NDArray[np.int64]
    begins: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]


class TokenStream:
    """Random access to the positions of a split, pass after pass.

    Args:
        shards: the shards of the split, in the order of the manifest.
        boundary: "eos" or "bos_eos", see the module.
        order: "mixed" permutes the documents of all shards, see `preprocess.shards.mixed_order`;
            "shuffled" permutes shards, and documents within a shard; both differ between passes.
            "as-given" keeps the order of the corpus, with repeats of a shard next to each other.
        seed: seed of the permutations.
        factors: repeat factor of each source by name: how often it occurs in a pass on average, 1 if
            not given. Each repeat of a shard is permuted on its own.

    Attributes:
        dtype: narrowest dtype that holds the ids of all shards.
        marks: ids before and after each document.
        seed: seed of the permutations.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        boundary: Literal["eos", "bos_eos"],
        order: Order = "as-given",
        seed: int = 0,
        factors: Mapping[str, float] | None = None,
    ) -> None:
        self.marks, self.seed = boundary_ids(boundary), seed
        self.dtype = np.result_type(np.uint16, *(s.dtype for s in shards))
        sizes = np.array([s.tokens + s.documents for s in shards], np.int64)
        self._plan = PassPlan(sizes, [s.source for s in shards], factors or {}, seed)
        self._is_mixed = order == "mixed"
        self._order: MixedOrder | ShardOrder
        if order == "mixed":
            self._order = MixedOrder(shards, self._plan, self.dtype)
        else:
            self._order = ShardOrder(shards, self._plan, order == "shuffled")
        self._begins: dict[int, npt.NDArray[np.int64]] = {}

    def __len__(self) -> int:
        """Return the number of positions per pass, or its mean if passes differ."""
        return self._plan.mean_length

    def lengths(self, first: int, end: int) -> npt.NDArray[np.int64]:
        """Return the number of positions of each of the passes [first, end), shape (end - first,)."""
        return self._plan.lengths(first, end)

    def documents(self, number: int) -> Int64Ids:
        """Return where each document of pass ``number`` starts, and the length of the pass.

        The order must not be mixed, because it may cut documents.

        Returns:
            Positions, int64, shape (documents + 1,).
        """
        begins = self._order.begins(number)
        starts = [
            self._order.text(number, entry)[1].positions[:-1].astype(np.int64) + begin
            for entry, begin in enumerate(begins[:-1])
        ]
        return np.concatenate([*starts, begins[-1:]])

    def parts(self, first: int, end: int) -> Parts:
        """Return the parts of the passes [first, end): several of a long pass if the order is mixed."""
        numbers, lengths = np.arange(first, end), self.lengths(first, end)
        counts = part_counts(lengths) if self._is_mixed else np.ones_like(lengths)
        passes, lengths = np.repeat(numbers, counts), np.repeat(lengths, counts)
        begins = np.zeros_like(lengths)
        for number in numbers[counts > 1].tolist():
            of_pass, bounds = passes == number, self._order.begins(number)
            begins[of_pass], lengths[of_pass] = bounds[:-1], np.diff(bounds)
        return Parts(passes, begins, lengths)

    def read(self, number: int, start: int, end: int) -> tuple[Int64Ids, Int64Ids]:
        """Return the left and right tokens of positions [start, end) of pass ``number``, from 0.

        Returns:
            Two arrays, int64, shape (end - start,).

        Raises:
            ShardError: a shard is missing or damaged.
        """
        left, right = np.empty(end - start, np.int64), np.empty(end - start, np.int64)
        if number not in self._begins:
            self._begins = {k: v for k, v in self._begins.items() if k >= number - 1}
            self._begins[number] = self._order.begins(number)
        begins = self._begins[number]
        position = start
        entry = int(np.searchsorted(begins, start, "right")) - 1
        while position < end:
            begin, stop = int(begins[entry]), min(end, int(begins[entry + 1]))
            if stop > position:
                window = slice(position - start, stop - start)
                ids, documents = self._order.text(number, entry)
                documents.read(ids, self.marks, position - begin, left[window], right[window])
            position, entry = stop, entry + 1
        return left, right
