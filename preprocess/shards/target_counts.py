"""How often each id is predicted in training."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from preprocess.shards.format import Corpus
from preprocess.shards.stream import boundary_ids
from preprocess.tokenizers.base import UNKNOWN


def target_counts(
    corpus: Corpus, boundary: Literal["eos", "bos_eos"], directions: int, vocabulary: int
) -> npt.NDArray[np.uint64]:
    """(vocabulary,) counts of the train split's targets in all directions, in the order of ids.

    Every token is predicted in each direction, a document's end forward and its begin backward. Ids
    from ``vocabulary`` on count as the unknown word.
    """
    counts = directions * corpus.counts()
    documents = corpus.totals("train")["documents"]
    for end in boundary_ids(boundary)[::-1][:directions]:
        counts[end] += documents
    counts[UNKNOWN] += counts[vocabulary:].sum()
    return counts[:vocabulary]
