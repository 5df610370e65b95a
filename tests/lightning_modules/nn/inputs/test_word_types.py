"""Types of a window: each id once, with its positions, in buckets with little padding."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.nn.inputs.word_types import LENGTHS, types_of_window
from preprocess.tokenizers.base import BOS, CONTROLS, EOS
from preprocess.tokenizers.spellings import PAD, Spellings

WORDS = [*CONTROLS, *("x" * (n * 17 % 59 + 1) for n in range(59))]
IDS = st.lists(st.integers(0, len(WORDS) - 1), min_size=6, max_size=6)


@given(IDS, st.integers(3, 50))
def test_each_position_leads_to_the_characters_of_its_id(ids: list[int], most: int) -> None:
    window = np.array(ids, np.int64).reshape(1, 2, 3)
    spellings = Spellings(WORDS.__getitem__, len(WORDS), most)

    types = types_of_window(window, spellings, with_ids=True)

    assert types.positions.shape == window.shape
    assert types.positions.dtype == types.characters[0].dtype == torch.int64
    rows = [row for bucket in types.characters for row in bucket.tolist()]
    assert len(rows) == len(set(ids)), "an id occurs twice"
    assert types.ids is not None
    assert types_of_window(window, spellings).ids is None
    assert torch.equal(types.ids[types.positions], torch.from_numpy(window))
    for token, place in zip(ids, types.positions.reshape(-1).tolist(), strict=True):
        expected = spellings.of_ids(np.array([token]))[0].tolist()
        assert rows[place] + [PAD] * (most - len(rows[place])) == expected


def test_a_bucket_is_as_wide_as_its_longest_word() -> None:
    spellings = Spellings(WORDS.__getitem__, len(WORDS), 50)
    window = np.arange(len(WORDS), dtype=np.int64).reshape(1, -1, 1)

    buckets = types_of_window(window, spellings).characters

    assert [bucket.shape[1] for bucket in buckets] == [*LENGTHS, 50]
    for bucket, shorter in zip(buckets, (0, *LENGTHS), strict=True):
        lengths = (bucket != PAD).sum(1)
        assert lengths.min() > shorter
        assert lengths.max() == bucket.shape[1]


def test_ids_in_another_order_give_the_same_buckets() -> None:
    spellings = Spellings(WORDS.__getitem__, len(WORDS), 50)
    ids = np.array([9, BOS, 4, EOS, 9, 30], np.int64)

    first = types_of_window(ids.reshape(1, 6, 1), spellings)
    other = types_of_window(ids[::-1].reshape(1, 6, 1), spellings)

    assert all(map(torch.equal, first.characters, other.characters))
    assert torch.equal(first.positions.flip(1), other.positions)
